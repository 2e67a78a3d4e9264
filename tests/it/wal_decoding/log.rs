//! A cluster's WAL in memory, and what our reader makes of it.

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;

use pg_unfork::format::wal::resource_manager as rm;
use pg_unfork::format::wal::{BlockReference, Record, Start, WalError, WalFormat, WalReader};
use pg_unfork::format::{Checkpoint, ControlFile, parse_history};
use pg_unfork::types::{ForkNumber, Lsn, RelFileNumber, SegmentNumber, TimelineHistory, TimelineId, WalFileName};

use crate::support::cluster::Cluster;

/// A cluster's WAL along its line of timelines, in memory.
pub(super) struct Wal {
    pub(super) format: WalFormat,
    pub(super) history: TimelineHistory,
    pub(super) start: Lsn,
    pub(super) bytes: Vec<u8>,
    /// The files that it was read from, by the position where they begin.
    pub(super) files: Vec<(Lsn, PathBuf)>,
}

/// What the tests compare of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decoded {
    pub(super) lsn: Lsn,
    pub(super) previous: Lsn,
    pub(super) total_length: u32,
    pub(super) xid: u32,
    pub(super) resource_manager: String,
    pub(super) blocks: Vec<Block>,
    /// Redo position and timeline of a checkpoint.
    pub(super) checkpoint: Option<(Lsn, TimelineId)>,
}

/// A block reference, as far as pg_waldump prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) id: u8,
    pub(super) relation: RelFileNumber,
    pub(super) fork: ForkNumber,
    pub(super) block: u32,
    pub(super) image: Image,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Image {
    None,
    Applies,
    ForChecks,
}

/// A record as our reader gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) decoded: Decoded,
    pub(super) lsn: Lsn,
    pub(super) end: Lsn,
    pub(super) total_length: u32,
    /// Resource manager and operation.
    pub(super) operation: (u8, u8),
    /// All of the header's `info`.
    pub(super) info: u8,
}

/// What came of reading.
pub(super) struct Outgoing {
    pub(super) records: Vec<Read>,
    pub(super) error: Option<WalError>,
}

impl Wal {
    /// From the oldest segment that leads to the last checkpoint without a gap, to the newest.
    pub(super) fn of(cluster: &Cluster) -> Self {
        let control = fs::read(cluster.path("global/pg_control")).expect("the control file");
        let control = ControlFile::parse(&control).expect("a valid control file");
        let format = WalFormat::of(&control);
        let size = format.geometry.wal_segment_size;
        let history = history(cluster, control.timeline());
        let file = |segment: SegmentNumber| {
            let timeline = history.timeline_of_segment(segment.end(size))?;
            let path = cluster.path("pg_wal").join(WalFileName { timeline, segment }.text(size));
            path.exists().then_some((segment.start(size), path))
        };
        let last = SegmentNumber::of(control.checkpoint_location(), size);
        let mut files = Vec::new();
        let mut before = Some(last);
        while let Some(found) = before.and_then(file) {
            files.insert(0, found);
            before = before.and_then(SegmentNumber::previous);
        }
        let mut after = last.next();
        while let Some(found) = file(after) {
            files.push(found);
            after = after.next();
        }
        let bytes = files.iter().flat_map(|(_, path)| fs::read(path).expect("a segment")).collect();
        Self { format, history, start: files.first().expect("the checkpoint's segment").0, bytes, files }
    }

    pub(super) fn page_size(&self) -> usize {
        self.format.geometry.wal_page_size as usize
    }

    pub(super) fn segment_size(&self) -> u64 {
        self.format.geometry.wal_segment_size.bytes()
    }

    /// Reads at most `limit` records, feeding `piece` bytes at a time.
    pub(super) fn read(&self, start: Start, piece: usize, limit: usize) -> Outgoing {
        self.read_while(start, piece, |records, _| records.len() < limit)
    }

    /// Reads the records that begin before `stop`.
    pub(super) fn read_before(&self, start: Start, piece: usize, stop: Lsn) -> Outgoing {
        self.read_while(start, piece, |_, record| record.lsn < stop)
    }

    /// Reads records while `wanted`, given those so far and the next one, is true.
    fn read_while(&self, start: Start, piece: usize, wanted: impl Fn(&[Read], &Record<'_>) -> bool) -> Outgoing {
        let mut reader = WalReader::new(self.format, start);
        let mut records = Vec::new();
        let from = reader.next_page().since(self.start) as usize;
        for pages in self.bytes[from..].chunks(piece) {
            let flow = reader.feed(pages, |record| {
                if !wanted(&records, record) {
                    return ControlFlow::Break(());
                }
                records.push(Read::of(record, &self.format));
                ControlFlow::Continue(())
            });
            match flow {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return Outgoing { records, error: None },
                Err(error) => return Outgoing { records, error: Some(error) },
            }
        }
        Outgoing { records, error: None }
    }
}

fn history(cluster: &Cluster, timeline: TimelineId) -> TimelineHistory {
    if timeline.get() == 1 {
        return TimelineHistory::new(&[], timeline);
    }
    let text = fs::read(cluster.path(format!("pg_wal/{:08X}.history", timeline.get()))).expect("the history");
    parse_history(&text, timeline).expect("a valid history")
}

impl Read {
    pub(super) fn of(record: &Record<'_>, format: &WalFormat) -> Self {
        let operation = (record.header.resource_manager, record.operation());
        let is_checkpoint = [rm::XLOG_CHECKPOINT_SHUTDOWN, rm::XLOG_CHECKPOINT_ONLINE]
            .map(|kind| (rm::XLOG, kind))
            .contains(&operation);
        let checkpoint =
            is_checkpoint.then(|| Checkpoint::parse(record.main_data, format.facts).expect("a checkpoint"));
        let decoded = Decoded {
            lsn: record.lsn,
            previous: record.header.previous,
            total_length: record.header.total_length,
            xid: record.header.xid,
            resource_manager: rm::name(record.header.resource_manager),
            blocks: record.blocks.iter().map(Block::of).collect(),
            checkpoint: checkpoint.map(|checkpoint| (checkpoint.redo, checkpoint.timeline)),
        };
        let (total_length, info) = (record.header.total_length, record.header.info);
        Self { decoded, lsn: record.lsn, end: record.end, total_length, operation, info }
    }
}

impl Block {
    pub(super) fn of(reference: &BlockReference) -> Self {
        let image = match (reference.has_image, reference.image_applies) {
            (false, _) => Image::None,
            (true, true) => Image::Applies,
            (true, false) => Image::ForChecks,
        };
        let BlockReference { id, relation, fork, block, .. } = *reference;
        Self { id, relation, fork, block, image }
    }
}
