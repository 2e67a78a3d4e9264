//! What pg_waldump says of a log.

use std::os::unix::fs::symlink;

use pg_unfork::types::{ForkNumber, Lsn, RelFileNumber, SegmentNumber, TimelineId, WalFileName};
use tempfile::TempDir;

use super::log::{Block, Decoded, Image, Wal};
use crate::support::cluster::Cluster;
use crate::support::outcome::Outcome;
use crate::support::scratch;

/// A record as pg_waldump prints it.
#[derive(Debug)]
pub(super) struct Theirs {
    pub(super) decoded: Decoded,
    /// The name of the operation.
    pub(super) operation: String,
    /// What is said of the operation.
    pub(super) description: String,
}

/// What pg_waldump says of the whole of `wal`. It follows no history: the files get names of one
/// timeline.
pub(super) fn waldump(cluster: &Cluster, wal: &Wal) -> Vec<Theirs> {
    let directory: TempDir = scratch::directory("waldump");
    let size = wal.format.geometry.wal_segment_size;
    let link = |lsn: Lsn| {
        let segment = SegmentNumber::of(lsn, size);
        directory.path().join(WalFileName { timeline: TimelineId::new(1), segment }.text(size))
    };
    for (lsn, path) in &wal.files {
        symlink(path, link(*lsn)).expect("a link to a segment");
    }
    let newest = wal.files.last().expect("a segment").0;
    let mut command = cluster.installation().command("pg_waldump");
    let outcome = Outcome::of(command.arg("--bkp-details").args([link(wal.start), link(newest)]));
    // It always fails, if only where there are no more records.
    let mut records = Vec::new();
    for line in outcome.stdout.lines() {
        if let Some(record) = line.strip_prefix("rmgr: ") {
            records.push(parse_record(record).unwrap_or_else(|| panic!("{line:?}")));
        } else if let Some(block) = line.strip_prefix("\tblkref #") {
            let record: &mut Theirs = records.last_mut().expect("a record before its blocks");
            record.decoded.blocks.push(parse_block(block).unwrap_or_else(|| panic!("{line:?}")));
        } else {
            assert!(line.is_empty() || line.starts_with("first record is after "), "{line:?}");
        }
    }
    assert!(!records.is_empty(), "{outcome}");
    records
}

/// `Heap  len (rec/tot):  54/  54, tx:  733, lsn: 0/030001C8, prev 0/03000190, desc: …`
fn parse_record(line: &str) -> Option<Theirs> {
    let (name, rest) = line.split_once(" len (rec/tot): ")?;
    let (_record, rest) = rest.split_once('/')?;
    let (total, rest) = rest.split_once(", tx: ")?;
    let (xid, rest) = rest.split_once(", lsn: ")?;
    let (lsn, rest) = rest.split_once(", prev ")?;
    let (previous, text) = rest.split_once(", desc: ")?;
    let decoded = Decoded {
        lsn: lsn.parse().ok()?,
        previous: previous.parse().ok()?,
        total_length: total.trim().parse().ok()?,
        xid: xid.trim().parse().ok()?,
        resource_manager: name.trim().to_owned(),
        blocks: Vec::new(),
        checkpoint: if name.trim() == "XLOG" { parse_checkpoint(text) } else { None },
    };
    let (operation, description) = text.split_once(' ').unwrap_or((text, ""));
    Some(Theirs { decoded, operation: operation.to_owned(), description: description.to_owned() })
}

/// `CHECKPOINT_ONLINE redo 0/30001C8; tli 1; …`
fn parse_checkpoint(text: &str) -> Option<(Lsn, TimelineId)> {
    let rest = text.strip_prefix("CHECKPOINT_SHUTDOWN ").or(text.strip_prefix("CHECKPOINT_ONLINE "))?;
    let (redo, rest) = rest.strip_prefix("redo ")?.split_once("; tli ")?;
    let (timeline, _) = rest.split_once(';')?;
    Some((redo.parse().ok()?, TimelineId::new(timeline.parse().ok()?)))
}

/// `0: rel 1663/5/16384 fork main blk 0 (FPW); hole: offset: 52, length: 7000`
fn parse_block(line: &str) -> Option<Block> {
    let (id, rest) = line.split_once(": rel ")?;
    let (relation, rest) = rest.split_once(" fork ")?;
    let (fork, rest) = rest.split_once(" blk ")?;
    let (block, image) = rest.split_once(' ').unwrap_or((rest, ""));
    let mut numbers = relation.split('/').map(str::parse);
    let mut number = || numbers.next()?.ok();
    let relation = RelFileNumber { tablespace: number()?, database: number()?, relation: number()? };
    let fork = (0..4).filter_map(ForkNumber::from_number).find(|known| known.name() == fork)?;
    let image = match image.split_once(';').map_or(image, |(flag, _)| flag) {
        "" => Image::None,
        "(FPW)" => Image::Applies,
        "(FPW for WAL verification)" => Image::ForChecks,
        _ => return None,
    };
    Some(Block { id: id.parse().ok()?, relation, fork, block: block.parse().ok()?, image })
}
