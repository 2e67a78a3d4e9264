//! Whether a source still has all that a target was rewound to, on which no server has run since.

use std::ops::ControlFlow;

use super::build::{changing_role, end_of_source};
use super::divergence::common_ancestor;
use super::facts::{Cluster, read_control_file, read_history};
use super::scan::WalScan;
use crate::cluster::{Holds, Source, WalFiles};
use crate::error::{Context, Result};
use crate::format::wal::{Start, WalFormat};
use crate::types::{ClusterPath, Lsn, SegmentNumber, TimelineHistory, WalFileName};

/// Whether `source` has come to where `target`, whose WAL is in `files`, is consistent, and has the same WAL up to there:
/// equal histories do not prove that, since two standbys that are promoted at the same position have them, too.
///
/// # Errors
/// When the source cannot be read, or changes its role just now.
pub fn has_what_was_rewound_to(target: &Cluster, files: &dyn WalFiles, source: &mut dyn Source) -> Result<bool> {
    let theirs = read_control_file(source, "source")?;
    if theirs.header().system_identifier != target.control.header().system_identifier {
        return Ok(false);
    }
    let consistent = target.control.min_recovery_point();
    let history = read_history(source, theirs.timeline(), "source")?;
    if common_ancestor(&history, &target.history).is_none_or(|fork| fork.lsn < consistent) {
        return Ok(false);
    }
    let position = source.position()?;
    let (end, _) = end_of_source(&theirs, position).ok_or_else(changing_role)?;
    if position.map_or(end, |position| position.lsn.max(end)) < consistent {
        return Ok(false);
    }
    let scan = WalScan::new(files, WalFormat::of(&target.control), &target.history);
    let begin = target.history.entries().last().map(|entry| entry.begin).unwrap_or_default();
    let records = [
        // That of a promotion has the time in microseconds.
        (begin != Lsn::INVALID).then(|| scan.format().record_start_after(begin)),
        Some(target.control.checkpoint_location()),
        last_record_before(&scan, consistent),
    ];
    let mut found = Vec::new();
    for lsn in records.into_iter().flatten() {
        found.push(same_record(&scan, source, &history, lsn)?);
    }
    Ok(is_proven(&found))
}

/// Some record must be the source's, and none must be another: what neither has any more proves nothing.
fn is_proven(records: &[Holds]) -> bool {
    records.contains(&Holds::Yes) && !records.contains(&Holds::No)
}

/// Where the last record begins that ends before `limit`, or there; none where it cannot be read.
fn last_record_before(scan: &WalScan<'_>, limit: Lsn) -> Option<Lsn> {
    let size = scan.format().geometry.wal_segment_size;
    let segment = SegmentNumber::of(Lsn::new(limit.get().saturating_sub(1)), size);
    [Some(segment), segment.previous()].into_iter().flatten().find_map(|segment| {
        let mut last = None;
        // Where the segment cannot be read any more, what was read before that counts.
        let _ = scan.each(Start::FirstOf(segment.start(size)), |record| {
            if record.end > limit {
                return ControlFlow::Break(());
            }
            last = Some(record.lsn);
            ControlFlow::Continue(())
        });
        last
    })
}

/// Whether the source has the target's record at `lsn`, in a segment of either's timeline.
fn same_record(scan: &WalScan<'_>, source: &mut dyn Source, theirs: &TimelineHistory, lsn: Lsn) -> Result<Holds> {
    let Ok((name, offset, ours)) = scan.raw_record_at(lsn) else { return Ok(Holds::NoFile) };
    let size = scan.format().geometry.wal_segment_size;
    let timeline = theirs.timeline_of_segment(name.segment.end(size)).unwrap_or(name.timeline);
    for name in [name, WalFileName { timeline, ..name }] {
        let path = format!("pg_wal/{}", name.text(size));
        let path = ClusterPath::new(path.as_bytes()).context(|| "no such name".to_owned())?;
        match source.holds(&path, offset, &ours)? {
            Holds::NoFile => {}
            found => return Ok(found),
        }
    }
    Ok(Holds::NoFile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_record_proves_it_and_none_may_speak_against_it() {
        use Holds::{No, NoFile, Unknown, Yes};
        let cases: [(&[Holds], bool); 8] = [
            (&[Yes, Yes, Yes], true),
            (&[NoFile, NoFile, Yes], true),
            (&[Yes, NoFile, NoFile], true),
            // Both may have a checkpoint from before they parted, and small records can be alike.
            (&[No, Yes, Yes], false),
            (&[NoFile, Yes, No], false),
            (&[NoFile, NoFile, NoFile], false),
            (&[Unknown], false),
            (&[], false),
        ];
        for (records, expected) in cases {
            assert_eq!(is_proven(records), expected, "{records:?}");
        }
    }
}
