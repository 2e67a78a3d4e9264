//! Which files of a source a plan may want to compare, whatever the target is: those whose digests a listing needs.

use std::collections::BTreeSet;

use super::equal_files::Candidates;
use super::wal_files::{SourceWal, WalDecision, WalNeeds};
use crate::cluster::rules::{PathRule, WalPath, rule_of, wal_path};
use crate::cluster::{Hashing, Inventory, SourceKind};
use crate::format::ControlFile;
use crate::types::{ClusterPath, Lsn, RelFilePaths, TimelineHistory};

/// Bytes in a piece of a file of which it only matters whether it is equal.
const PIECE: u32 = 1 << 20;

/// A source, as far as it decides on what can be compared.
#[derive(Clone, Copy, Debug)]
pub struct ProvableSource<'a> {
    /// Its control file.
    pub control: &'a ControlFile,
    /// Its line of timelines.
    pub history: &'a TimelineHistory,
    /// How it is reached.
    pub kind: SourceKind,
    /// How far its WAL is complete.
    pub end: Lsn,
    /// What is in it.
    pub files: &'a Inventory,
}

impl ProvableSource<'_> {
    /// The files that a plan may compare, in order, and the pieces by which it would. Main forks of relations are never
    /// compared: the target's WAL tells of them.
    #[must_use]
    pub fn files(&self) -> Vec<Hashing> {
        let geometry = self.control.geometry();
        let candidates = Candidates {
            relations: &RelFilePaths::new(self.control.facts().major.number(), self.control.header().catalog_version),
            block_size: geometry.block_size,
            segment_size: geometry.wal_segment_size,
            source_end: self.end,
            kind: self.kind,
        };
        let wal = self.wal();
        let sized = self.files.iter().filter_map(|(path, entry)| Some((path, entry.size().filter(|size| *size > 0)?)));
        sized
            .filter(|(path, _)| is_compared(path, &wal, &candidates))
            .map(|(path, length)| {
                let by_block =
                    candidates.has_blocks(&path) && length.is_multiple_of(u64::from(geometry.block_size.max(1)));
                Hashing { path, length, piece: if by_block { geometry.block_size.max(1) } else { PIECE } }
            })
            .collect()
    }

    /// What is needed at most, wherever the fork is: the whole line of history.
    fn wal(&self) -> WalNeeds {
        let geometry = self.control.geometry();
        let size = geometry.wal_segment_size;
        let segments = self.files.iter().filter(|(_, entry)| entry.size().is_some());
        let on_source: BTreeSet<_> = segments
            .filter_map(|(path, _)| match wal_path(&path, size) {
                Some(WalPath::Segment(name)) => Some(name),
                _ => None,
            })
            .collect();
        let end = self.end.plus(u64::from(geometry.wal_page_size));
        let source = SourceWal { history: self.history.clone(), redo: Lsn::INVALID, end };
        WalNeeds { source, fork: Lsn::MAX, on_source, size }
    }
}

fn is_compared(path: &ClusterPath, wal: &WalNeeds, candidates: &Candidates<'_>) -> bool {
    let replayed_or_ordinary = wal_path(path, wal.size)
        .is_none_or(|kind| matches!(wal.decide(kind, true, true), WalDecision::Fetch(_) | WalDecision::Compare));
    rule_of(path) == PathRule::Compare
        && candidates.relations.parse(path).is_none()
        && !path.as_bytes().ends_with(b"PG_VERSION")
        && replayed_or_ordinary
        && candidates.is_settled(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cluster::{FileEntry, FileKind};
    use crate::format::{Major, control_file_sample};
    use crate::types::TimelineId;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_a_plan_may_compare() {
        let control = control_file_sample(Major::V17, |fields| fields.wal_segment = 1 << 20);
        let history = TimelineHistory::new(&[(TimelineId::new(1), Lsn::new(3 * MIB + 100))], TimelineId::new(2));
        let (block, piece) = (Some(8192), Some(PIECE));
        // The path, its size, and the pieces: with a source at rest, and a live one.
        let cases = [
            ("PG_VERSION", 3, None, None),
            ("base/5/1", 8192, None, None),
            ("base/5/1_fsm", 24576, block, block),
            ("base/5/1_init", 8192, piece, piece),
            ("base/5/1_vm", 8193, piece, piece),
            ("base/5/empty", 0, None, None),
            ("base/5/pg_filenode.map", 524, piece, piece),
            ("base/pgsql_tmp/x", 100, None, None),
            ("global/pg_control", 8192, None, None),
            ("pg_wal/000000010000000000000002", MIB, piece, piece),
            // Of the old timeline behind the switch.
            ("pg_wal/000000010000000000000004", MIB, None, None),
            ("pg_wal/00000002.history", 41, piece, piece),
            // The one in which the end lies, and one that was recycled.
            ("pg_wal/000000020000000000000005", MIB, piece, None),
            ("pg_wal/000000020000000000000006", MIB, None, None),
            ("pg_wal/archive_status/000000010000000000000002.done", 1, piece, None),
            ("pg_xact/0000", 8192, block, block),
            ("postgresql.conf", 30000, piece, piece),
        ];
        let entry = |size| FileEntry { kind: FileKind::File { size, modified: None }, mode: None };
        let path = |name: &str| ClusterPath::new(name.as_bytes()).unwrap();
        let files: Inventory = cases.iter().map(|(name, size, ..)| (path(name), entry(*size))).collect();
        let end = Lsn::new(5 * MIB + 1000);
        for (kind, live) in [(SourceKind::StoppedDirectory, false), (SourceKind::LiveServer, true)] {
            let source = ProvableSource { control: &control, history: &history, kind, end, files: &files };
            let found: Vec<_> = source.files().into_iter().map(|file| (file.path, file.length, file.piece)).collect();
            let pieces = |case: &(&str, u64, Option<u32>, Option<u32>)| if live { case.3 } else { case.2 };
            let expected = cases.iter().filter_map(|case| Some((path(case.0), case.1, pieces(case)?)));
            assert_eq!(found, expected.collect::<Vec<_>>(), "{kind:?}");
        }
    }
}
