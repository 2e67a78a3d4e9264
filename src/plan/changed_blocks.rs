//! Which blocks of which relation files the target's WAL tells of.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustc_hash::FxHashMap;

use crate::format::MajorFacts;
use crate::format::wal::Record;
use crate::format::wal::resource_manager as rm;
use crate::types::{BlockRange, ForkNumber, Lsn, RelFile, RelFileNumber};

/// The blocks that records changed, of files that the target has.
///
/// Two bits per block of such a file. One for what must be copied, up to the shorter of both sides: what lies beyond
/// is cut off or comes with the tail, and files that only one side has are removed or copied whole. One for what
/// was changed after the fork, to count it. So memory is bounded by the files that exist, whatever WAL says. Any
/// number of [`BlockRecorder`]s, each on a thread of its own, fill one set: which of them sets a bit, and when, makes
/// no difference.
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

/// A relation file of the target, in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownFile {
    /// Which file.
    pub file: RelFile,
    /// How long it is.
    pub length: u32,
    /// How much of it the source has, too; 0 where that has no such file.
    pub shared: u32,
}

/// The bits of one file, made when the first is set: those of what was changed, then those of what is lost.
#[derive(Debug)]
struct Bits {
    limit: u32,
    length: u32,
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
    /// Collects for the given relation files.
    #[must_use]
    pub fn new(facts: &'static MajorFacts, segment_blocks: u32, files: impl IntoIterator<Item = KnownFile>) -> Self {
        let mut this = Self { facts, segment_blocks, index: FxHashMap::default(), files: Vec::new() };
        for KnownFile { file, length, shared } in files {
            this.index.insert(file, this.files.len());
            let length = length.min(segment_blocks);
            this.files.push(Bits { limit: shared.min(length), length, words: OnceLock::new() });
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

    /// How many blocks of each relation were changed after the fork, of those that the target's files still have.
    #[must_use]
    pub fn lost(&self) -> FxHashMap<RelFileNumber, u64> {
        let mut counts = FxHashMap::default();
        for (file, &index) in &self.index {
            let count = self.files.get(index).map_or(0, Bits::lost);
            if count > 0 {
                *counts.entry(file.number).or_default() += count;
            }
        }
        counts
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
    /// Takes the blocks of one record; `is_lost` says that it is from behind the fork.
    ///
    /// # Errors
    /// When the record changes relation files by means that only its resource manager knows.
    pub fn record(&mut self, record: &Record<'_>, is_lost: bool) -> Result<(), UnknownRelationUpdate> {
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
                let file = RelFile { number: block.relation, segment };
                self.set(file, block.block % segment_blocks, is_lost);
            }
        }
        Ok(())
    }

    fn set(&mut self, file: RelFile, block: u32, is_lost: bool) {
        let bits = match self.last {
            Some((last, bits)) if last == file => bits,
            _ => {
                let bits = self.blocks.bits(file);
                self.last = Some((file, bits));
                bits
            }
        };
        if let Some(bits) = bits {
            bits.set(block, is_lost);
        }
    }
}

impl Bits {
    fn set(&self, block: u32, is_lost: bool) {
        if block >= self.length || (block >= self.limit && !is_lost) {
            return;
        }
        let words = self.words.get_or_init(|| {
            let count = self.limit.div_ceil(64) + self.length.div_ceil(64);
            (0..count).map(|_| AtomicU64::new(0)).collect()
        });
        let bit = 1 << (block % 64);
        if block < self.limit {
            raise(words.get(block as usize / 64), bit);
        }
        if is_lost {
            raise(words.get((self.limit.div_ceil(64) + block / 64) as usize), bit);
        }
    }

    /// How many blocks were changed after the fork.
    fn lost(&self) -> u64 {
        let words = self.words.get().and_then(|words| words.get(self.limit.div_ceil(64) as usize..));
        words.into_iter().flatten().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }

    fn ranges(&self) -> Vec<BlockRange> {
        let mut ranges: Vec<BlockRange> = Vec::new();
        let words = self.words.get().and_then(|words| words.get(..self.limit.div_ceil(64) as usize));
        for (base, word) in (0u32..).step_by(64).zip(words.into_iter().flatten()) {
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

/// Sets a bit. Most blocks are changed over and over; only a bit that is new needs the cache line for itself.
fn raise(word: Option<&AtomicU64>, bit: u64) {
    if let Some(word) = word
        && word.load(Ordering::Relaxed) & bit == 0
    {
        word.fetch_or(bit, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Major;

    fn file(segment: u32) -> RelFile {
        RelFile { number: RelFileNumber { tablespace: 1663, database: 5, relation: 7 }, segment }
    }

    /// A file of that length, on both sides.
    fn known(segment: u32, length: u32) -> KnownFile {
        KnownFile { file: file(segment), length, shared: length }
    }

    #[test]
    fn what_is_lost_is_counted_for_itself() {
        let files = [KnownFile { shared: 70, ..known(0, 200) }, KnownFile { shared: 0, ..known(1, 10) }];
        let changed = ChangedBlocks::new(Major::V17.facts(), 131_072, files);
        let mut recorder = changed.recorder();
        for block in [3, 69, 70, 199, 200] {
            recorder.set(file(0), block, false);
            recorder.set(file(0), block + 1, true);
            recorder.set(file(0), block + 1, true);
        }
        recorder.set(file(1), 9, true);
        let ranges: Vec<[u32; 2]> = changed.ranges(file(0)).into_iter().map(Into::into).collect();
        assert_eq!(ranges, [[3, 2], [69, 1]]);
        assert!(changed.ranges(file(1)).is_empty());
        assert_eq!(changed.lost().into_iter().collect::<Vec<_>>(), [(file(0).number, 3 + 1)]);
    }

    #[test]
    fn ranges_are_joined_and_bounded() {
        let changed = ChangedBlocks::new(Major::V17.facts(), 131_072, [known(0, 200), known(1, 10)]);
        let mut recorder = changed.recorder();
        for block in [199, 0, 1, 63, 64, 65, 127, 128, 200, 131_000, 5] {
            recorder.set(file(0), block, false);
        }
        recorder.set(file(1), 9, false);
        recorder.set(file(1), 10, false);
        recorder.set(file(2), 0, false);
        let ranges = |segment| -> Vec<[u32; 2]> { changed.ranges(file(segment)).into_iter().map(Into::into).collect() };
        assert_eq!(ranges(0), [[0, 2], [5, 1], [63, 3], [127, 2], [199, 1]]);
        assert_eq!(ranges(1), [[9, 1]]);
        assert!(ranges(2).is_empty());
    }

    #[test]
    fn a_full_file_is_one_range_until_it_is_forgotten() {
        let mut changed = ChangedBlocks::new(Major::V17.facts(), 131_072, [known(0, 300)]);
        let mut recorder = changed.recorder();
        (0..300).for_each(|block| recorder.set(file(0), block, false));
        assert_eq!(changed.ranges(file(0)), [BlockRange { first: 0, count: 300 }]);
        changed.clear();
        assert!(changed.ranges(file(0)).is_empty());
        changed.recorder().set(file(0), 7, false);
        assert_eq!(changed.ranges(file(0)), [BlockRange { first: 7, count: 1 }]);
    }

    #[test]
    fn recorders_fill_one_set_at_once() {
        let changed = ChangedBlocks::new(Major::V17.facts(), 131_072, [known(0, 5000), known(1, 64)]);
        std::thread::scope(|scope| {
            for part in 0..4 {
                let mut recorder = changed.recorder();
                scope.spawn(move || {
                    for block in (0..4999).filter(|block| block % 4 == part || block % 7 == 0) {
                        recorder.set(file(0), block, false);
                        recorder.set(file(1), block % 64, false);
                    }
                });
            }
        });
        assert_eq!(changed.ranges(file(0)), [BlockRange { first: 0, count: 4999 }]);
        assert_eq!(changed.ranges(file(1)), [BlockRange { first: 0, count: 64 }]);
    }

    #[test]
    fn no_file_costs_more_than_its_kind_can_have() {
        let changed = ChangedBlocks::new(Major::V17.facts(), 1000, [known(0, u32::MAX)]);
        changed.recorder().set(file(0), 999, false);
        changed.recorder().set(file(0), 1000, false);
        assert_eq!(changed.ranges(file(0)), [BlockRange { first: 999, count: 1 }]);
        assert_eq!(changed.files[0].words.get().unwrap().len(), 32);
    }
}
