//! What the main data of some records say: those that end transactions, and those that make or drop files.
//!
//! ```text
//! commit, abort   time i64; then as `xinfo` u32 says: database 2 x u32, subtransactions, dropped relations, dropped
//!                 statistics, invalidations, the prepared transaction's id u32 (each list: its length i32 first)
//! PREPARE         xid u32 @8
//! SMGR create     tablespace, database, relation u32 @0, fork u32 @12
//! SMGR truncate   tablespace, database, relation u32 @4
//! DBASE           database u32 @0; of what copies files, the database that is copied u32 @8
//! TBLSPC          tablespace u32 @0
//! RUNNING_XACTS   next xid u32 @12
//! ```

use super::super::MajorFacts;
use super::super::bytes::{Cursor, u32_at};
use crate::types::{ForkNumber, RelFileNumber};

const HAS_INFO: u8 = 0x80;
const HAS_DATABASE: u32 = 1 << 0;
const HAS_SUBTRANSACTIONS: u32 = 1 << 1;
const HAS_RELATIONS: u32 = 1 << 2;
const HAS_INVALIDATIONS: u32 = 1 << 3;
const HAS_PREPARED: u32 = 1 << 4;
const HAS_STATISTICS: u32 = 1 << 8;

/// Bytes of a relation in a list.
const RELATION: usize = 12;
/// Bytes of an invalidation message in a list.
const INVALIDATION: usize = 16;

/// What a record says that ends a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionEnd<'a> {
    /// When: microseconds since 2000-01-01 00:00 UTC.
    pub time: i64,
    /// The transaction, where it was prepared; else the record's header has it.
    pub prepared: Option<u32>,
    subtransactions: &'a [u8],
    relations: &'a [u8],
}

impl<'a> TransactionEnd<'a> {
    /// Reads the main data of a commit or an abort, prepared or not; none where they are cut short. `info` is the
    /// header's.
    #[must_use]
    pub fn parse(main_data: &'a [u8], info: u8, facts: &MajorFacts) -> Option<Self> {
        let mut cursor = Cursor(main_data);
        let time = i64::from_le_bytes(*cursor.take(8)?.first_chunk()?);
        let mut end = Self { time, prepared: None, subtransactions: &[], relations: &[] };
        if info & HAS_INFO == 0 {
            return Some(end);
        }
        let has = cursor.u32()?;
        if has & HAS_DATABASE != 0 {
            cursor.take(8)?;
        }
        let mut list = |flag, item| if has & flag == 0 { Some(&[][..]) } else { list(&mut cursor, item) };
        end.subtransactions = list(HAS_SUBTRANSACTIONS, 4)?;
        end.relations = list(HAS_RELATIONS, RELATION)?;
        if facts.dropped_statistics_item > 0 {
            list(HAS_STATISTICS, facts.dropped_statistics_item)?;
        }
        list(HAS_INVALIDATIONS, INVALIDATION)?;
        if has & HAS_PREPARED != 0 {
            end.prepared = Some(cursor.u32()?);
        }
        Some(end)
    }

    /// Its committed, or aborted, subtransactions.
    pub fn subtransactions(&self) -> impl ExactSizeIterator<Item = u32> + Clone + use<'a> {
        let (ids, _) = self.subtransactions.as_chunks::<4>();
        ids.iter().map(|id| u32::from_le_bytes(*id))
    }

    /// The relations whose files go with it.
    pub fn dropped_relations(&self) -> impl ExactSizeIterator<Item = RelFileNumber> + Clone + use<'a> {
        self.relations.chunks_exact(RELATION).map(|bytes| relation(bytes, 0).unwrap_or(NO_RELATION))
    }
}

const NO_RELATION: RelFileNumber = RelFileNumber { tablespace: 0, database: 0, relation: 0 };

/// The bytes of a list of items that are so many bytes long, behind its length.
fn list<'a>(cursor: &mut Cursor<'a>, item: usize) -> Option<&'a [u8]> {
    let count = usize::try_from(cursor.u32()?.cast_signed()).ok()?;
    cursor.take(count.checked_mul(item)?)
}

fn relation(bytes: &[u8], at: usize) -> Option<RelFileNumber> {
    let number = |index: usize| u32_at(bytes, at.checked_add(index)?);
    Some(RelFileNumber { tablespace: number(0)?, database: number(4)?, relation: number(8)? })
}

/// The transaction that is prepared.
#[must_use]
pub fn prepared_transaction(main_data: &[u8]) -> Option<u32> {
    u32_at(main_data, 8)
}

/// The relation and fork whose file is made.
#[must_use]
pub fn created_file(main_data: &[u8]) -> Option<(RelFileNumber, ForkNumber)> {
    let fork = u8::try_from(u32_at(main_data, 12)?).ok()?;
    Some((relation(main_data, 0)?, ForkNumber::from_number(fork)?))
}

/// The relation that is truncated.
#[must_use]
pub fn truncated_relation(main_data: &[u8]) -> Option<RelFileNumber> {
    relation(main_data, 4)
}

/// The database or tablespace that a record is about: its first number.
#[must_use]
pub fn first_oid(main_data: &[u8]) -> Option<u32> {
    u32_at(main_data, 0)
}

/// Of a record that copies a database's files: the database they come from.
#[must_use]
pub fn copied_database(main_data: &[u8]) -> Option<u32> {
    u32_at(main_data, 8)
}

/// The next transaction id at a record that lists the running ones: every transaction from there on has begun behind it.
#[must_use]
pub fn next_transaction(main_data: &[u8]) -> Option<u32> {
    u32_at(main_data, 12)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::format::Major;

    /// A commit's or abort's main data: words, after the time.
    fn end(time: i64, words: &[u32]) -> Vec<u8> {
        let mut bytes = time.to_le_bytes().to_vec();
        words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
        bytes
    }

    #[test]
    fn pieces_are_found_behind_one_another() {
        let statistics = |major: Major| -> Vec<u32> {
            let words = major.facts().dropped_statistics_item / 4;
            if words == 0 { vec![] } else { std::iter::once(1).chain(std::iter::repeat_n(9, words)).collect() }
        };
        for major in Major::ALL {
            let statistics = statistics(major);
            let flag = if statistics.is_empty() { 0 } else { HAS_STATISTICS };
            let all = HAS_DATABASE | HAS_SUBTRANSACTIONS | HAS_RELATIONS | HAS_INVALIDATIONS | HAS_PREPARED | flag;
            let words = [&[all, 5, 1663, 2, 801, 802, 1, 1663, 5, 777][..], &statistics, &[1, 0, 0, 0, 0, 800, 0x41]];
            let bytes = end(-5, &words.concat());
            let found = TransactionEnd::parse(&bytes, 0xB0, major.facts()).unwrap();
            assert_eq!((found.time, found.prepared), (-5, Some(800)), "{major}");
            assert_eq!(found.subtransactions().collect::<Vec<_>>(), [801, 802]);
            let dropped = RelFileNumber { tablespace: 1663, database: 5, relation: 777 };
            assert_eq!(found.dropped_relations().collect::<Vec<_>>(), [dropped]);
            // What is cut off anywhere before the identifier is not taken for an end without it.
            for length in 0..bytes.len() - 4 {
                assert_eq!(TransactionEnd::parse(&bytes[..length], 0xB0, major.facts()), None, "{major}: {length}");
            }
        }
        let plain = TransactionEnd::parse(&[7, 0, 0, 0, 0, 0, 0, 0], 0x00, Major::V17.facts()).unwrap();
        assert_eq!((plain.time, plain.prepared, plain.subtransactions().len()), (7, None, 0));
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        for count in [u32::MAX, i32::MAX as u32, 3] {
            let bytes = end(0, &[HAS_SUBTRANSACTIONS, count, 1, 2]);
            assert_eq!(TransactionEnd::parse(&bytes, 0x80, Major::V17.facts()), None);
        }
    }
}
