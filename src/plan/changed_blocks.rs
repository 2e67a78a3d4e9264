//! Which blocks of which relation files the target's WAL tells of.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustc_hash::FxHashMap;

use crate::format::MajorFacts;
use crate::format::wal::Record;
use crate::format::wal::resource_manager as rm;
use crate::types::{BlockRange, ForkNumber, Lsn, RelFile};

/// The blocks that records changed, of files that both sides have.
///
/// One bit per block of such a file, up to the shorter of both: what lies beyond is cut off or
/// comes with the tail, and files that only one side has are removed or copied whole. So memory is
/// bounded by the files that exist, whatever WAL says. Any number of [`BlockRecorder`]s, each on a
/// thread of its own, fill one set: which of them sets a bit, and when, makes no difference.
#[derive(Debug)]
pub struct ChangedBlocks {
    facts: &'static MajorFacts,
    segment_blocks: u32,
    index: FxHashMap<RelFile, usize>,
    files: Vec<Bits>,
}

/// Takes the blocks of records into a [`ChangedBlocks`].
#[derive(Debug)]
pub struct BlockRecorder<'a> {
    blocks: &'a ChangedBlocks,
    /// The file that was looked up last; none where it is not one of both sides.
    last: Option<(RelFile, Option<&'a Bits>)>,
}

/// The bits of one file, made when the first is set.
#[derive(Debug)]
struct Bits {
    limit: u32,
    words: OnceLock<Box<[AtomicU64]>>,
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
        let mut this = Self { facts, segment_blocks, index: FxHashMap::default(), files: Vec::new() };
        for (file, limit) in files {
            this.index.insert(file, this.files.len());
            this.files.push(Bits { limit: limit.min(segment_blocks), words: OnceLock::new() });
        }
        this
    }

    /// One that takes records into this set.
    #[must_use]
    pub fn recorder(&self) -> BlockRecorder<'_> {
        BlockRecorder { blocks: self, last: None }
    }

    /// Forgets all blocks, and keeps the files.
    pub fn clear(&mut self) {
        for bits in &mut self.files {
            bits.words.take();
        }
    }

    /// The changed blocks of a file, ascending, neighbours joined.
    #[must_use]
    pub fn ranges(&self, file: RelFile) -> Vec<BlockRange> {
        self.bits(file).map(Bits::ranges).unwrap_or_default()
    }

    fn bits(&self, file: RelFile) -> Option<&Bits> {
        self.files.get(*self.index.get(&file)?)
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
}

impl BlockRecorder<'_> {
    /// Takes the blocks of one record.
    ///
    /// # Errors
    /// When the record changes relation files by means that only its resource manager knows.
    pub fn record(&mut self, record: &Record<'_>) -> Result<(), UnknownRelationUpdate> {
        if record.header.info & rm::SPECIAL_RELATION_UPDATE != 0 && !self.blocks.is_known(record) {
            return Err(UnknownRelationUpdate {
                lsn: record.lsn,
                manager: rm::name(record.header.resource_manager),
                info: record.header.info,
            });
        }
        let segment_blocks = self.blocks.segment_blocks;
        for block in record.blocks {
            if block.fork == ForkNumber::Main {
                let segment = block.block / segment_blocks;
                self.set(RelFile { number: block.relation, segment }, block.block % segment_blocks);
            }
        }
        Ok(())
    }

    fn set(&mut self, file: RelFile, block: u32) {
        let bits = match self.last {
            Some((last, bits)) if last == file => bits,
            _ => {
                let bits = self.blocks.bits(file);
                self.last = Some((file, bits));
                bits
            }
        };
        if let Some(bits) = bits {
            bits.set(block);
        }
    }
}

impl Bits {
    fn set(&self, block: u32) {
        if block >= self.limit {
            return;
        }
        let words = self.words.get_or_init(|| (0..self.limit.div_ceil(64)).map(|_| AtomicU64::new(0)).collect());
        if let Some(word) = words.get(block as usize / 64) {
            let bit = 1 << (block % 64);
            // Most blocks are changed over and over; only a bit that is new needs the cache line for itself.
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    fn ranges(&self) -> Vec<BlockRange> {
        let mut ranges: Vec<BlockRange> = Vec::new();
        let words = self.words.get().into_iter().flatten();
        for (base, word) in (0u32..).step_by(64).zip(words) {
            let mut rest = word.load(Ordering::Relaxed);
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
        let changed = ChangedBlocks::new(Major::V17.facts(), 131_072, [(file(0), 200), (file(1), 10)]);
        let mut recorder = changed.recorder();
        for block in [199, 0, 1, 63, 64, 65, 127, 128, 200, 131_000, 5] {
            recorder.set(file(0), block);
        }
        recorder.set(file(1), 9);
        recorder.set(file(1), 10);
        recorder.set(file(2), 0);
        let ranges = |segment| -> Vec<[u32; 2]> { changed.ranges(file(segment)).into_iter().map(Into::into).collect() };
        assert_eq!(ranges(0), [[0, 2], [5, 1], [63, 3], [127, 2], [199, 1]]);
        assert_eq!(ranges(1), [[9, 1]]);
        assert!(ranges(2).is_empty());
    }

    #[test]
    fn a_full_file_is_one_range_until_it_is_forgotten() {
        let mut changed = ChangedBlocks::new(Major::V17.facts(), 131_072, [(file(0), 300)]);
        let mut recorder = changed.recorder();
        (0..300).for_each(|block| recorder.set(file(0), block));
        assert_eq!(changed.ranges(file(0)), [BlockRange { first: 0, count: 300 }]);
        changed.clear();
        assert!(changed.ranges(file(0)).is_empty());
        changed.recorder().set(file(0), 7);
        assert_eq!(changed.ranges(file(0)), [BlockRange { first: 7, count: 1 }]);
    }

    #[test]
    fn recorders_fill_one_set_at_once() {
        let changed = ChangedBlocks::new(Major::V17.facts(), 131_072, [(file(0), 5000), (file(1), 64)]);
        std::thread::scope(|scope| {
            for part in 0..4 {
                let mut recorder = changed.recorder();
                scope.spawn(move || {
                    for block in (0..4999).filter(|block| block % 4 == part || block % 7 == 0) {
                        recorder.set(file(0), block);
                        recorder.set(file(1), block % 64);
                    }
                });
            }
        });
        assert_eq!(changed.ranges(file(0)), [BlockRange { first: 0, count: 4999 }]);
        assert_eq!(changed.ranges(file(1)), [BlockRange { first: 0, count: 64 }]);
    }

    #[test]
    fn no_file_costs_more_than_its_kind_can_have() {
        let changed = ChangedBlocks::new(Major::V17.facts(), 1000, [(file(0), u32::MAX)]);
        changed.recorder().set(file(0), 999);
        changed.recorder().set(file(0), 1000);
        assert_eq!(changed.ranges(file(0)), [BlockRange { first: 999, count: 1 }]);
        assert_eq!(changed.files[0].words.get().unwrap().len(), 16);
    }
}
