//! Whether a source still has all that a target was rewound to, on which no server has run since.

use std::ops::ControlFlow;

use super::build::{changing_role, end_of_source};
use super::divergence::common_ancestor;
use super::facts::{Cluster, read_control_file, read_history};
use super::same_timeline::{Same, source_has};
use super::scan::WalScan;
use crate::cluster::{Source, WalFiles};
use crate::error::Result;
use crate::format::wal::{Start, WalFormat};
use crate::types::{Lsn, SegmentNumber};

/// What a source has of the WAL that a target was rewound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewoundTo {
    /// The same, up to where the target is consistent.
    Here,
    /// Nothing of it can be compared any more; the histories agree.
    Unknown,
    /// It has not come that far: it may lag behind.
    Ahead,
    /// Other WAL.
    Elsewhere,
    /// It is another cluster.
    AnotherSystem,
}

/// Whether `source` has come to where `target`, whose WAL is in `files`, is consistent, and has the same WAL up to there:
/// equal histories do not prove that, since two standbys that are promoted at the same position have them, too.
///
/// # Errors
/// When the source cannot be read, or changes its role just now.
pub fn rewound_to(target: &Cluster, files: &dyn WalFiles, source: &mut dyn Source) -> Result<RewoundTo> {
    let theirs = read_control_file(source, "source")?;
    if theirs.header().system_identifier != target.control.header().system_identifier {
        return Ok(RewoundTo::AnotherSystem);
    }
    let consistent = target.control.min_recovery_point();
    let history = read_history(source, theirs.timeline(), "source")?;
    if common_ancestor(&history, &target.history).is_none_or(|fork| fork.lsn < consistent) {
        return Ok(RewoundTo::Elsewhere);
    }
    let position = source.position()?;
    let (end, _) = end_of_source(&theirs, position).ok_or_else(changing_role)?;
    let reached = position.map_or(end, |position| position.lsn.max(end));
    let scan = WalScan::new(files, WalFormat::of(&target.control), &target.history);
    let begin = target.history.entries().last().map(|entry| entry.begin).unwrap_or_default();
    let records = [
        // That of a promotion has the time in microseconds.
        (begin != Lsn::INVALID).then(|| scan.format().record_start_after(begin)),
        Some(target.control.checkpoint_location()),
        last_record_before(&scan, consistent),
    ];
    let mut found = Vec::new();
    // Behind its end it has whatever was there before.
    for lsn in records.into_iter().flatten().filter(|&lsn| lsn < reached) {
        found.push(source_has(lsn, &scan, source, &history)?);
    }
    Ok(match judge(&found) {
        RewoundTo::Here | RewoundTo::Unknown if reached < consistent => RewoundTo::Ahead,
        found => found,
    })
}

/// Some record must be the source's, and none must be another: what neither has any more proves nothing.
fn judge(records: &[Same]) -> RewoundTo {
    match (records.contains(&Same::No), records.contains(&Same::Yes)) {
        (true, _) => RewoundTo::Elsewhere,
        (false, true) => RewoundTo::Here,
        (false, false) => RewoundTo::Unknown,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_record_proves_it_and_none_may_speak_against_it() {
        use Same::{No, NotListed, NothingToCompare as Gone, Yes};
        let cases: [(&[Same], RewoundTo); 8] = [
            (&[Yes, Yes, Yes], RewoundTo::Here),
            (&[Gone, Gone, Yes], RewoundTo::Here),
            (&[Yes, Gone, Gone], RewoundTo::Here),
            // Both may have a checkpoint from before they parted, and small records can be alike.
            (&[No, Yes, Yes], RewoundTo::Elsewhere),
            (&[Gone, Yes, No], RewoundTo::Elsewhere),
            (&[Gone, Gone, Gone], RewoundTo::Unknown),
            (&[NotListed], RewoundTo::Unknown),
            (&[], RewoundTo::Unknown),
        ];
        for (records, expected) in cases {
            assert_eq!(judge(records), expected, "{records:?}");
        }
    }
}
