//! The state file of a replication slot, `pg_replslot/NAME/state`.

use super::MajorFacts;
use super::bytes::{u8_at, u32_at, u64_at};
use crate::types::Lsn;

/// `SLOT_MAGIC`.
const MAGIC: u32 = 0x0105_1CA1;
/// Bytes before what `length` counts: magic, checksum, version, length.
const HEADER: usize = 16;
/// Bytes of a name (`NAMEDATALEN`).
const NAME: usize = 64;

const DATABASE: usize = 80;
const PERSISTENCY: usize = 84;
const RESTART_LSN: usize = 96;
const CONFIRMED_FLUSH: usize = 112;

/// A replication slot as its server left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationSlot {
    /// Its name; bytes that are not UTF-8 replaced.
    pub name: String,
    /// The database of a logical slot; none of a physical one.
    pub database: Option<u32>,
    /// Whether it would have outlived its session, or its creation.
    pub persistent: bool,
    /// From where on WAL is kept for it; none where it reserves none.
    pub restart_lsn: Option<Lsn>,
    /// Up to where the consumer of a logical slot has confirmed; none of a physical one.
    pub confirmed_flush: Option<Lsn>,
    /// The output plugin of a logical slot.
    pub plugin: Option<String>,
    /// Whether a logical slot decodes prepared transactions.
    pub two_phase: bool,
    /// Whether it was copied from the primary (17 and later).
    pub synced: bool,
    /// Whether standbys copy it (17 and later).
    pub failover: bool,
}

/// Why a file is no state of a replication slot of this major.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// It has another number of bytes than the state has.
    #[error("it has {found} bytes, the state of a slot has {expected}")]
    Size {
        /// How many it has.
        found: usize,
        /// How many it should have.
        expected: usize,
    },
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// It does not begin with the magic number.
    #[error("it begins with {0:#x}, not with {MAGIC:#x}")]
    Magic(u32),
    /// Its version is another major's.
    #[error("its version is {found}, of this major {expected}")]
    Version {
        /// The version that it has.
        found: u32,
        /// The version that it should have.
        expected: u32,
    },
    /// Its CRC-32C does not fit.
    #[error("its CRC is {found:#010x}, of its content {expected:#010x}")]
    Crc {
        /// The stored one.
        found: u32,
        /// The one that the content has.
        expected: u32,
    },
}

impl ReplicationSlot {
    /// Understands the state file of a server of this major.
    ///
    /// # Errors
    /// [`SlotError`] where it is none, or damaged.
    pub fn parse(bytes: &[u8], facts: &MajorFacts) -> Result<Self, SlotError> {
        let layout = facts.slot;
        let expected = HEADER + layout.length as usize;
        let size = SlotError::Size { found: bytes.len(), expected };
        let word = |offset| u32_at(bytes, offset).ok_or_else(|| size.clone());
        let magic = word(0)?;
        if magic != MAGIC {
            return Err(SlotError::Magic(magic));
        }
        let version = word(8)?;
        if version != layout.version {
            return Err(SlotError::Version { found: version, expected: layout.version });
        }
        if word(12)? != layout.length || bytes.len() != expected {
            return Err(size);
        }
        let (found, expected) = (word(4)?, crc32c::crc32c(bytes.get(8..).unwrap_or_default()));
        if found != expected {
            return Err(SlotError::Crc { found, expected });
        }
        let flag = |offset: Option<usize>| offset.and_then(|offset| u8_at(bytes, offset)).is_some_and(|byte| byte != 0);
        let lsn = |offset| u64_at(bytes, offset).map(Lsn::new).filter(|lsn| lsn.is_valid());
        let database = Some(word(DATABASE)?).filter(|&oid| oid != 0);
        let plugin = name_at(bytes, layout.plugin);
        Ok(Self {
            name: name_at(bytes, HEADER),
            database,
            persistent: word(PERSISTENCY)? == 0,
            restart_lsn: lsn(RESTART_LSN),
            confirmed_flush: database.and(lsn(CONFIRMED_FLUSH)),
            plugin: database.map(|_| plugin),
            two_phase: flag(layout.two_phase),
            synced: flag(layout.synced),
            failover: flag(layout.synced.map(|offset| offset + 1)),
        })
    }
}

/// The name at `offset`, up to its NUL.
fn name_at(bytes: &[u8], offset: usize) -> String {
    let name = bytes.get(offset..offset + NAME).unwrap_or_default();
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(name.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::format::Major;

    /// The state file of a slot of this major, with a fitting CRC.
    pub(crate) fn sample(major: Major, name: &str, logical: Option<(u32, &str)>) -> Vec<u8> {
        let layout = major.facts().slot;
        let mut bytes = vec![0; HEADER + layout.length as usize];
        let mut put = |offset: usize, data: &[u8]| bytes[offset..offset + data.len()].copy_from_slice(data);
        put(0, &MAGIC.to_le_bytes());
        put(8, &layout.version.to_le_bytes());
        put(12, &layout.length.to_le_bytes());
        put(HEADER, name.as_bytes());
        put(RESTART_LSN, &0x0147_CA48_u64.to_le_bytes());
        if let Some((database, plugin)) = logical {
            put(DATABASE, &database.to_le_bytes());
            put(CONFIRMED_FLUSH, &0x0147_CA80_u64.to_le_bytes());
            put(layout.plugin, plugin.as_bytes());
            layout.two_phase.into_iter().for_each(|offset| put(offset, &[1]));
            layout.synced.into_iter().for_each(|offset| put(offset, &[0, 1]));
        }
        seal(&mut bytes);
        bytes
    }

    fn seal(bytes: &mut [u8]) {
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    #[test]
    fn slots_of_every_major() {
        for major in Major::ALL {
            let parse = |bytes: &[u8]| ReplicationSlot::parse(bytes, major.facts());
            let physical = parse(&sample(major, "one", None)).unwrap();
            let expected = ReplicationSlot {
                name: "one".to_owned(),
                database: None,
                persistent: true,
                restart_lsn: Some(Lsn::new(0x0147_CA48)),
                confirmed_flush: None,
                plugin: None,
                two_phase: false,
                synced: false,
                failover: false,
            };
            assert_eq!(physical, expected, "{major}");
            let logical = parse(&sample(major, "two", Some((5, "pgoutput")))).unwrap();
            let expected = ReplicationSlot {
                name: "two".to_owned(),
                database: Some(5),
                confirmed_flush: Some(Lsn::new(0x0147_CA80)),
                plugin: Some("pgoutput".to_owned()),
                two_phase: major >= Major::V14,
                failover: major >= Major::V17,
                ..expected
            };
            assert_eq!(logical, expected, "{major}");
        }
    }

    #[test]
    fn what_is_no_slot() {
        let facts = Major::V17.facts();
        let good = sample(Major::V17, "one", None);
        let parse = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            ReplicationSlot::parse(&bytes, facts)
        };
        assert!(parse(&|_| ()).is_ok());
        let size = |found| Err(SlotError::Size { found, expected: 200 });
        assert_eq!(parse(&|bytes| bytes.clear()), size(0));
        assert_eq!(parse(&|bytes| bytes.truncate(100)), size(100));
        assert_eq!(parse(&|bytes| bytes.push(0)), size(201));
        assert_eq!(parse(&|bytes| bytes[0] = 0), Err(SlotError::Magic(0x0105_1C00)));
        assert!(matches!(parse(&|bytes| bytes[40] = 1), Err(SlotError::Crc { .. })));
        assert!(matches!(parse(&|bytes| bytes[4] ^= 1), Err(SlotError::Crc { .. })));
        let length = |bytes: &mut Vec<u8>| {
            bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
            seal(bytes);
        };
        assert_eq!(parse(&length), size(200));
        let other = sample(Major::V13, "one", None);
        assert_eq!(ReplicationSlot::parse(&other, facts), Err(SlotError::Version { found: 2, expected: 5 }));
    }

    #[test]
    fn a_name_may_fill_its_field_and_be_no_text() {
        let mut bytes = sample(Major::V18, "x", None);
        bytes[HEADER..HEADER + NAME].fill(0xFF);
        bytes[PERSISTENCY] = 2;
        seal(&mut bytes);
        let slot = ReplicationSlot::parse(&bytes, Major::V18.facts()).unwrap();
        assert_eq!((slot.name, slot.persistent), ("\u{fffd}".repeat(NAME), false));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_value_or_an_error(bytes in vec(any::<u8>(), 0..300), sealed in any::<bool>()) {
            for major in Major::ALL {
                let mut bytes = bytes.clone();
                if sealed && bytes.len() >= HEADER {
                    bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
                    bytes[8..12].copy_from_slice(&major.facts().slot.version.to_le_bytes());
                    bytes[12..16].copy_from_slice(&major.facts().slot.length.to_le_bytes());
                    seal(&mut bytes);
                }
                let right_size = bytes.len() == HEADER + major.facts().slot.length as usize;
                prop_assert_eq!(ReplicationSlot::parse(&bytes, major.facts()).is_ok(), sealed && right_size);
            }
        }
    }
}
