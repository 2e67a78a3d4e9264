//! Ranges of blocks inside one file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `count` blocks from block `first` on, both counted within one file (a segment of a relation).
///
/// Written as `[first, count]`. Block numbers within a file stay below `relseg_size` (131072 by
/// default), so 32 bits are enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(into = "[u32; 2]", from = "[u32; 2]")]
#[schemars(with = "[u32; 2]")]
pub struct BlockRange {
    /// The first block of the range.
    pub first: u32,
    /// How many blocks; a valid range has at least one.
    pub count: u32,
}

impl BlockRange {
    /// The block after the last one.
    #[must_use]
    pub fn end(self) -> u64 {
        u64::from(self.first).saturating_add(u64::from(self.count))
    }
}

impl From<BlockRange> for [u32; 2] {
    fn from(range: BlockRange) -> Self {
        [range.first, range.count]
    }
}

impl From<[u32; 2]> for BlockRange {
    fn from([first, count]: [u32; 2]) -> Self {
        Self { first, count }
    }
}
