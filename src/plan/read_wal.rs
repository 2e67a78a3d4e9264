//! The one pass over the target's WAL that a plan makes.

use std::num::NonZero;
use std::thread::available_parallelism;

use super::changed_blocks::{BlockRecorder, ChangedBlocks};
use super::parallel_scan::Visitor;
use super::scan::WalScan;
use crate::checks::CustomResourceManagers;
use crate::discard::DiscardedWork;
use crate::error::{Error, ErrorId, Result};
use crate::format::MajorFacts;
use crate::format::wal::Record;
use crate::progress::{Progress, Stage};
use crate::types::Lsn;

/// More threads than this wait for each other, or for the disk.
const MOST_WORKERS: usize = 8;

/// The WAL that a plan reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// Where the first record begins: the last common checkpoint's.
    pub(super) start: Lsn,
    /// Where the histories part.
    pub(super) fork: Lsn,
    /// Where the last record ends.
    pub(super) end: Lsn,
}

/// Takes the blocks that are changed, the work that is discarded, and whose records there are.
struct Collector<'a> {
    fork: Lsn,
    changed: BlockRecorder<'a>,
    discarded: DiscardedWork,
    managers: CustomResourceManagers,
}

impl<'a> Collector<'a> {
    fn new(changed: &'a ChangedBlocks, fork: Lsn, facts: &'static MajorFacts) -> Self {
        let managers = CustomResourceManagers::default();
        Self { fork, changed: changed.recorder(), discarded: DiscardedWork::after(fork, facts), managers }
    }
}

impl Visitor for Collector<'_> {
    fn visit(&mut self, record: &Record<'_>) -> Result<()> {
        self.discarded.record(record);
        self.managers.note(record.header.resource_manager);
        self.changed.record(record, record.lsn >= self.fork).map_err(|error| {
            Error::of(ErrorId::WalDamaged, "the target's WAL cannot be understood")
                .because(error)
                .hint("a resource manager of an extension wrote it; the target needs a new base backup")
        })
    }
}

/// Reads the target's WAL into `changed`, and counts what is discarded: on all processors, and where that
/// does not work out, in order, so that what is wrong is said of the first record that is.
///
/// # Errors
/// When the WAL cannot be read or understood.
pub(super) fn read_wal(
    scan: &WalScan<'_>,
    extent: Extent,
    progress: &dyn Progress,
    changed: &mut ChangedBlocks,
) -> Result<(DiscardedWork, CustomResourceManagers)> {
    let Extent { start, fork, end } = extent;
    let facts = scan.format().facts;
    let workers = available_parallelism().map_or(1, NonZero::get).min(MOST_WORKERS);
    if workers > 1 {
        let collector = || Collector::new(changed, fork, facts);
        progress.begin(Stage::ScanWal, Some(end.since(start)));
        let read = scan.in_parallel((start, end), workers, progress, collector);
        progress.end();
        if let Some((_, parts)) = read {
            let mut discarded = DiscardedWork::after(fork, facts);
            let mut managers = CustomResourceManagers::default();
            for part in parts {
                discarded.absorb(part.discarded);
                managers.absorb(part.managers);
            }
            return Ok((discarded, managers));
        }
        changed.clear();
    }
    let mut collector = Collector::new(changed, fork, facts);
    progress.begin(Stage::ScanWal, Some(end.since(start)));
    let read = scan.through(start, end, progress, |record| collector.visit(record));
    progress.end();
    read.map(|_| (collector.discarded, collector.managers))
}
