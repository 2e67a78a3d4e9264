//! The sizes that a cluster was built and initialised with.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::WalSegmentSize;

/// The sizes of a cluster's files, from its control file; never assumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Geometry {
    /// Bytes in a data block (`BLCKSZ`).
    pub block_size: u32,
    /// Blocks in one file of a relation (`RELSEG_SIZE`).
    pub relation_segment_blocks: u32,
    /// Bytes in a WAL page (`XLOG_BLCKSZ`).
    pub wal_page_size: u32,
    /// Bytes in a WAL segment (`wal_segment_size`).
    pub wal_segment_size: WalSegmentSize,
}

/// A size in a control file that no server is built with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {found}, expected {expected}")]
pub struct GeometryError {
    what: &'static str,
    found: u32,
    expected: &'static str,
}

impl Geometry {
    /// Checks the four sizes of a control file.
    ///
    /// # Errors
    /// When a size is not one that PostgreSQL can be built or initialised with.
    pub fn new(
        block_size: u32,
        relation_segment_blocks: u32,
        wal_page_size: u32,
        wal_segment_size: u32,
    ) -> Result<Self, GeometryError> {
        let power = |value: u32, low: u32, high: u32| value.is_power_of_two() && (low..=high).contains(&value);
        let check =
            |ok: bool, what, found, expected| if ok { Ok(()) } else { Err(GeometryError { what, found, expected }) };
        check(power(block_size, 1024, 32768), "the block size", block_size, "a power of two from 1 to 32 KiB")?;
        check(
            power(wal_page_size, 1024, 65536),
            "the WAL block size",
            wal_page_size,
            "a power of two from 1 to 64 KiB",
        )?;
        check(relation_segment_blocks > 0, "the relation segment size", relation_segment_blocks, "at least one block")?;
        let wal_segment_size = WalSegmentSize::new(wal_segment_size).ok_or(GeometryError {
            what: "the WAL segment size",
            found: wal_segment_size,
            expected: "a power of two from 1 MiB to 1 GiB",
        })?;
        Ok(Self { block_size, relation_segment_blocks, wal_page_size, wal_segment_size })
    }
}
