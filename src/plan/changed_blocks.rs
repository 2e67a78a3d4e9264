//! Which blocks of which relation files the target's WAL tells of.

use std::collections::HashMap;

use crate::format::MajorFacts;
use crate::format::wal::Record;
use crate::format::wal::resource_manager as rm;
use crate::types::{BlockRange, ForkNumber, Lsn, RelFile};

/// The blocks that records changed, of files that both sides have.
///
/// One bit per block of such a file, up to the shorter of both: what lies beyond is cut off or
/// comes with the tail, and files that only one side has are removed or copied whole. So memory is
/// bounded by the files that exist, whatever WAL says.
#[derive(Debug)]
pub struct ChangedBlocks {
    facts: &'static MajorFacts,
    segment_blocks: u32,
    index: HashMap<RelFile, usize>,
    files: Vec<Bits>,
    last: Option<(RelFile, usize)>,
}

/// The bits of one file, made when the first is set.
#[derive(Debug)]
struct Bits {
    limit: u32,
    words: Vec<u64>,
}

/// A record changes relation files in a way that this program does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the WAL record at {lsn} (resource manager {manager}, info {info:02X}) changes relation files in a way that is not known"
)]
pub struct UnknownRelationUpdate {
    lsn: Lsn,
    manager: String,
    info: u8,
}

impl ChangedBlocks {
    /// Collects for the given relation files, each with the blocks that both sides have.
    #[must_use]
    pub fn new(
        facts: &'static MajorFacts,
        segment_blocks: u32,
        files: impl IntoIterator<Item = (RelFile, u32)>,
    ) -> Self {
        let mut this = Self { facts, segment_blocks, index: HashMap::new(), files: Vec::new(), last: None };
        for (file, limit) in files {
            this.index.insert(file, this.files.len());
            this.files.push(Bits { limit, words: Vec::new() });
        }
        this
    }

    /// Takes the blocks of one record.
    ///
    /// # Errors
    /// When the record changes relation files by means that only its resource manager knows.
    pub fn record(&mut self, record: &Record<'_>) -> Result<(), UnknownRelationUpdate> {
        if record.header.info & rm::SPECIAL_RELATION_UPDATE != 0 && !self.is_known(record) {
            return Err(UnknownRelationUpdate {
                lsn: record.lsn,
                manager: rm::name(record.header.resource_manager),
                info: record.header.info,
            });
        }
        for block in record.blocks {
            if block.fork == ForkNumber::Main {
                let segment = block.block / self.segment_blocks;
                self.set(RelFile { number: block.relation, segment }, block.block % self.segment_blocks);
            }
        }
        Ok(())
    }

    /// Whether a record's special update of relation files shows in the files' listing.
    fn is_known(&self, record: &Record<'_>) -> bool {
        let transaction_ends = [
            rm::TRANSACTION_COMMIT,
            rm::TRANSACTION_ABORT,
            rm::TRANSACTION_COMMIT_PREPARED,
            rm::TRANSACTION_ABORT_PREPARED,
        ];
        match record.header.resource_manager {
            rm::DATABASE => self.facts.database_operations.contains(&record.operation()),
            rm::STORAGE => matches!(record.operation(), rm::STORAGE_CREATE | rm::STORAGE_TRUNCATE),
            rm::TRANSACTION => {
                self.facts.transactions_flag_relation_files
                    && transaction_ends.contains(&(record.header.info & rm::TRANSACTION_OPERATION))
            }
            _ => false,
        }
    }

    fn set(&mut self, file: RelFile, block: u32) {
        let index = match self.last {
            Some((last, index)) if last == file => index,
            _ => {
                let Some(&index) = self.index.get(&file) else { return };
                self.last = Some((file, index));
                index
            }
        };
        if let Some(bits) = self.files.get_mut(index) {
            bits.set(block);
        }
    }

    /// The changed blocks of a file, ascending, neighbours joined.
    #[must_use]
    pub fn ranges(&self, file: RelFile) -> Vec<BlockRange> {
        let bits = self.index.get(&file).and_then(|&index| self.files.get(index));
        bits.map(Bits::ranges).unwrap_or_default()
    }
}

impl Bits {
    fn set(&mut self, block: u32) {
        if block >= self.limit {
            return;
        }
        if self.words.is_empty() {
            self.words.resize((self.limit as usize).div_ceil(64), 0);
        }
        if let Some(word) = self.words.get_mut(block as usize / 64) {
            *word |= 1 << (block % 64);
        }
    }

    fn ranges(&self) -> Vec<BlockRange> {
        let mut ranges: Vec<BlockRange> = Vec::new();
        for (base, &word) in (0u32..).step_by(64).zip(&self.words) {
            let mut rest = word;
            while rest != 0 {
                let skip = rest.trailing_zeros();
                let count = (rest >> skip).trailing_ones();
                let first = base + skip;
                match ranges.last_mut() {
                    Some(last) if last.end() == u64::from(first) => last.count += count,
                    _ => ranges.push(BlockRange { first, count }),
                }
                rest = rest.checked_shr(skip + count).and_then(|r| r.checked_shl(skip + count)).unwrap_or(0);
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Major;
    use crate::types::RelFileNumber;

    fn file(segment: u32) -> RelFile {
        RelFile { number: RelFileNumber { tablespace: 1663, database: 5, relation: 7 }, segment }
    }

    #[test]
    fn ranges_are_joined_and_bounded() {
        let mut changed = ChangedBlocks::new(Major::V17.facts(), 131_072, [(file(0), 200), (file(1), 10)]);
        for block in [199, 0, 1, 63, 64, 65, 127, 128, 200, 131_000, 5] {
            changed.set(file(0), block);
        }
        changed.set(file(1), 9);
        changed.set(file(1), 10);
        changed.set(file(2), 0);
        let ranges = |segment| -> Vec<[u32; 2]> { changed.ranges(file(segment)).into_iter().map(Into::into).collect() };
        assert_eq!(ranges(0), [[0, 2], [5, 1], [63, 3], [127, 2], [199, 1]]);
        assert_eq!(ranges(1), [[9, 1]]);
        assert!(ranges(2).is_empty());
    }

    #[test]
    fn a_full_file_is_one_range() {
        let mut changed = ChangedBlocks::new(Major::V17.facts(), 131_072, [(file(0), 300)]);
        for block in 0..300 {
            changed.set(file(0), block);
        }
        assert_eq!(changed.ranges(file(0)), [BlockRange { first: 0, count: 300 }]);
    }
}
