//! Comparing files that both sides have, before anything is copied.

use super::ReadAt;
use crate::error::Result;
use crate::types::{BlockRange, ClusterPath};

/// Opens files of a data directory on this machine, from several threads.
pub trait LocalFiles: Sync {
    /// Opens a file to read it; `None` where there is none.
    ///
    /// # Errors
    /// When the file is there but cannot be opened.
    fn read_file(&self, path: &ClusterPath) -> Result<Option<Box<dyn ReadAt>>>;
}

/// A file that both sides have, and what is to be known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The file.
    pub path: ClusterPath,
    /// How many bytes are compared, from the file's beginning; both sides were seen to have so many.
    pub length: u64,
    /// Bytes in a block, of which `length` is a multiple, where it matters which blocks differ; none where it only
    /// matters whether anything does.
    pub block: Option<u32>,
}

/// A file of which pieces are hashed, from its beginning on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashing {
    /// The file.
    pub path: ClusterPath,
    /// How many bytes of it; it was seen to have so many.
    pub length: u64,
    /// Bytes in a piece, at least one; the last one may be shorter.
    pub piece: u32,
}

/// SHA-256 of the pieces of a file, from the first one on: fewer than there should be where the file could not be read
/// so far.
pub type PieceDigests = Vec<[u8; 32]>;

/// Whether a file holds certain bytes at some place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// It does.
    Yes,
    /// It holds others, or ends before.
    No,
    /// There is no such file.
    NoFile,
    /// Nobody can tell: there is only a listing of the cluster.
    Unknown,
}

/// How the compared bytes of both sides are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// They are the same.
    Equal,
    /// They are the same but for these blocks, ascending.
    EqualBut(Vec<BlockRange>),
    /// They differ, or nothing could be proven: a file is gone, shorter, or cannot be read.
    Different,
}

/// Blocks that differ, put together from single ones.
#[derive(Debug, Default)]
pub struct DifferingBlocks(Vec<BlockRange>);

impl DifferingBlocks {
    /// One more block, behind all that were added before.
    pub fn add(&mut self, block: u32) {
        match self.0.last_mut() {
            Some(last) if last.end() == u64::from(block) => last.count += 1,
            _ => self.0.push(BlockRange { first: block, count: 1 }),
        }
    }

    /// What they come to.
    #[must_use]
    pub fn likeness(self) -> Likeness {
        if self.0.is_empty() { Likeness::Equal } else { Likeness::EqualBut(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_make_a_range() {
        let likeness = |blocks: &[u32]| {
            let mut differing = DifferingBlocks::default();
            blocks.iter().for_each(|&block| differing.add(block));
            differing.likeness()
        };
        let range = |first, count| BlockRange { first, count };
        assert_eq!(likeness(&[]), Likeness::Equal);
        assert_eq!(likeness(&[0, 1, 2, 7, 9, 10]), Likeness::EqualBut(vec![range(0, 3), range(7, 1), range(9, 2)]));
        assert_eq!(likeness(&[u32::MAX - 1, u32::MAX]), Likeness::EqualBut(vec![range(u32::MAX - 1, 2)]));
    }
}
