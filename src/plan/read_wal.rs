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

/// Reads the target's WAL into `changed`, and counts what is discarded: on all processors. None where that does not
/// work out; then nothing counts, and an [`OrderedReading`] must find out what is wrong, if anything is.
pub(super) fn read_in_parallel(
    scan: &WalScan<'_>,
    extent: Extent,
    progress: &dyn Progress,
    changed: &ChangedBlocks,
) -> Option<(DiscardedWork, CustomResourceManagers)> {
    let Extent { start, fork, end } = extent;
    let facts = scan.format().facts;
    let workers = available_parallelism().map_or(1, NonZero::get).min(MOST_WORKERS);
    // Where something must be got from elsewhere, all is read in order, so that nothing is got in vain.
    if workers == 1 || !scan.has_all(start, end).unwrap_or(false) {
        return None;
    }
    let collector = || Collector::new(changed, fork, facts);
    progress.begin(Stage::ScanWal, Some(end.since(start)));
    let read = scan.in_parallel((start, end), workers, progress, collector);
    progress.end();
    let (_, parts) = read?;
    let mut discarded = DiscardedWork::after(fork, facts);
    let mut managers = CustomResourceManagers::default();
    for part in parts {
        discarded.absorb(part.discarded);
        managers.absorb(part.managers);
    }
    Some((discarded, managers))
}

/// Reading the target's WAL in order, so that what is wrong is said of the first record that is.
pub(super) struct OrderedReading<'a> {
    collector: Collector<'a>,
    extent: Extent,
    /// The record to begin at, and whether it has been taken.
    at: (Lsn, bool),
}

impl<'a> OrderedReading<'a> {
    /// What is read goes into `changed`.
    pub(super) fn new(extent: Extent, changed: &'a ChangedBlocks, facts: &'static MajorFacts) -> Self {
        Self { collector: Collector::new(changed, extent.fork, facts), extent, at: (extent.start, false) }
    }

    /// Reads from where an earlier call has stopped to the end.
    ///
    /// # Errors
    /// When the WAL cannot be read or understood. Where a segment is missing, reading can go on once it is there: the
    /// link to the last record that was read is checked then.
    pub(super) fn go_on(&mut self, scan: &WalScan<'_>, progress: &dyn Progress) -> Result<()> {
        let Self { collector, extent, at } = self;
        progress.begin(Stage::ScanWal, Some(extent.end.since(extent.start)));
        progress.advance(at.0.since(extent.start));
        let read = scan.through(at.0, extent.end, progress, |record| {
            if *at == (record.lsn, true) {
                return Ok(());
            }
            collector.visit(record)?;
            *at = (record.lsn, true);
            Ok(())
        });
        progress.end();
        read.map(|_| ())
    }

    /// What is discarded, and whose records there are.
    pub(super) fn finish(self) -> (DiscardedWork, CustomResourceManagers) {
        (self.collector.discarded, self.collector.managers)
    }
}
