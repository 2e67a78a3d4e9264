//! Two clusters with one and the same history: whether they really are on one timeline.
//!
//! Two standbys that had replayed the same WAL and were promoted independently both call their
//! new timeline by the same number and let it begin at the same position. Only their WAL tells.

use std::collections::BTreeSet;

use crate::cluster::{Holds, Source};
use crate::error::{Error, Result};
use crate::format::{ControlFile, DbState};
use crate::types::{ClusterPath, Lsn, TimelineHistory, WalFileName};

use super::divergence::Divergence;
use super::facts::Cluster;
use super::missing_wal::MissingSegment;
use super::scan::WalScan;

/// Whether target and source have the same record at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Same {
    Yes,
    No,
    /// One side has none to compare.
    NothingToCompare,
    /// There is only a listing of the source, which does not tell.
    NotListed,
}

/// What was found out about two clusters with equal histories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// They are on one timeline, as far as can be told.
    OneTimeline,
    /// They part here all the same.
    Fork(Divergence),
    /// A listing does not say whether they part; its source would.
    NotListed,
}

/// What is known of two clusters with equal histories.
pub(super) struct OneTimeline<'a> {
    /// The target.
    pub(super) target: &'a Cluster,
    /// The target's WAL.
    pub(super) scan: WalScan<'a>,
    /// The source.
    pub(super) source: &'a mut dyn Source,
    /// The source's control file.
    pub(super) source_control: &'a ControlFile,
    /// How far the source's WAL reaches.
    pub(super) source_end: Lsn,
    /// Segments that the target lacks and that are nowhere to be had.
    pub(super) given_up: &'a BTreeSet<WalFileName>,
}

impl OneTimeline<'_> {
    /// Where the two part all the same, if they do.
    ///
    /// WAL that the source has dropped cannot be compared, but a standby cannot go on with it, either.
    ///
    /// # Errors
    /// When they part at an unknown position, or a segment is missing that has not been given up.
    pub(super) fn divergence(mut self) -> Result<Found> {
        let begin = self.target.history.entries().last().map(|entry| entry.begin).unwrap_or_default();
        let first_at = self.scan.format().record_start_after(begin);
        let newest = told_by(self.target.control.checkpoint_location(), begin, first_at);
        let same = self.same_record(newest)?;
        if matches!(same, Same::Yes | Same::NothingToCompare) {
            return Ok(Found::OneTimeline);
        }
        let first = self.same_record(first_at)?;
        match fork_before_first_record(&self.target.history, first) {
            Some(fork) => Ok(Found::Fork(fork)),
            None if same == Same::NotListed => Ok(Found::NotListed),
            None => {
                let timeline = self.target.control.timeline();
                Err(Error::precondition(format!(
                    "both are on timeline {timeline}, but the target's last checkpoint, at {newest}, is not in the source's WAL"
                ))
                .hint("the two wrote on one timeline independently, and where that began is unknown; make the target anew from a base backup"))
            }
        }
    }

    fn same_record(&mut self, lsn: Lsn) -> Result<Same> {
        if let Some(known) = same_by_position(lsn, self.source_end, self.source_control.state()) {
            return Ok(known);
        }
        let (name, offset, ours) = match self.scan.raw_record_at(lsn) {
            Ok(record) => record,
            Err(error)
                if MissingSegment::of(&error).is_some_and(|missing| !self.given_up.contains(&missing.name())) =>
            {
                return Err(error);
            }
            // What the target lacks cannot be compared.
            Err(_) => return Ok(Same::NothingToCompare),
        };
        let size = self.target.control.geometry().wal_segment_size;
        let path = format!("pg_wal/{}", name.text(size));
        let Ok(path) = ClusterPath::new(path.as_bytes()) else { return Ok(Same::NothingToCompare) };
        Ok(match self.source.holds(&path, offset, &ours)? {
            Holds::Yes => Same::Yes,
            Holds::No => Same::No,
            Holds::NoFile => Same::NothingToCompare,
            Holds::Unknown => Same::NotListed,
        })
    }
}

/// Whether the source has the target's record at `at`, in a segment of either's timeline. One that is no position of the
/// source's may be called another there: ask for what both histories have.
///
/// # Errors
/// When the source cannot be read.
pub(super) fn source_has(
    at: Lsn,
    scan: &WalScan<'_>,
    source: &mut dyn Source,
    theirs: &TimelineHistory,
) -> Result<Same> {
    let Ok((name, offset, ours)) = scan.raw_record_at(at) else { return Ok(Same::NothingToCompare) };
    let size = scan.format().geometry.wal_segment_size;
    let timeline = theirs.timeline_of_segment(name.segment.end(size)).unwrap_or(name.timeline);
    for name in [name, WalFileName { timeline, ..name }] {
        let path = format!("pg_wal/{}", name.text(size));
        let Ok(path) = ClusterPath::new(path.as_bytes()) else { return Ok(Same::NothingToCompare) };
        match source.holds(&path, offset, &ours)? {
            Holds::Yes => return Ok(Same::Yes),
            Holds::Unknown => return Ok(Same::NotListed),
            Holds::No => return Ok(Same::No),
            Holds::NoFile => {}
        }
    }
    Ok(Same::NothingToCompare)
}

/// The answer where the source's WAL does not reach up to a record: a primary has not written it, while
/// a standby may only not have got it yet. None where the WAL must be looked at.
fn same_by_position(lsn: Lsn, source_end: Lsn, source: DbState) -> Option<Same> {
    let reaches = match source {
        // The end that is known of it is where its last record begins.
        DbState::ShutDown => lsn <= source_end,
        _ => lsn < source_end,
    };
    let is_primary = matches!(source, DbState::ShutDown | DbState::InProduction);
    (!reaches).then_some(if is_primary { Same::No } else { Same::NothingToCompare })
}

/// Where the record is that tells two clusters apart: the target's last checkpoint; but one from before the last timeline's
/// `begin` (a standby's, soon after a promotion) is common whatever came of that, so then the timeline's first record.
fn told_by(checkpoint: Lsn, begin: Lsn, first_at: Lsn) -> Lsn {
    if begin == Lsn::INVALID { checkpoint } else { checkpoint.max(first_at) }
}

/// The fork, if even the first record of the last timeline is another one: where that timeline begins.
fn fork_before_first_record(history: &TimelineHistory, first: Same) -> Option<Divergence> {
    match history.entries() {
        [.., parent, last] if first == Same::No => Some(Divergence { lsn: last.begin, timeline: parent.timeline }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TimelineId;

    #[test]
    fn a_checkpoint_before_the_last_timeline_tells_nothing() {
        let cases =
            [(50, 0, 40, 50), (50, 100, 140, 140), (100, 100, 140, 140), (140, 100, 140, 140), (200, 100, 140, 200)];
        for (checkpoint, begin, first_at, expected) in cases {
            let [checkpoint, begin, first_at, expected] = [checkpoint, begin, first_at, expected].map(Lsn::new);
            assert_eq!(told_by(checkpoint, begin, first_at), expected, "{checkpoint} {begin}");
        }
    }

    #[test]
    fn only_a_primary_is_known_to_lack_what_it_has_not_reached() {
        let cases = [
            ("in a running primary's WAL", 90, DbState::InProduction, None),
            ("at a running primary's end", 100, DbState::InProduction, Some(Same::No)),
            ("a stopped primary's last record", 100, DbState::ShutDown, None),
            ("behind it", 108, DbState::ShutDown, Some(Same::No)),
            ("in a standby's WAL", 90, DbState::InArchiveRecovery, None),
            ("not with a standby yet", 100, DbState::InArchiveRecovery, Some(Same::NothingToCompare)),
            ("nor with a stopped one", 100, DbState::ShutDownInRecovery, Some(Same::NothingToCompare)),
        ];
        for (case, lsn, state, expected) in cases {
            assert_eq!(same_by_position(Lsn::new(lsn), Lsn::new(100), state), expected, "{case}");
        }
    }

    #[test]
    fn the_fork_is_known_where_the_first_record_differs() {
        let first = TimelineHistory::new(&[], TimelineId::new(1));
        let second = TimelineHistory::new(&[(TimelineId::new(1), Lsn::new(100))], TimelineId::new(2));
        let fork = Divergence { lsn: Lsn::new(100), timeline: TimelineId::new(1) };
        let cases = [
            (&second, Same::No, Some(fork)),
            (&second, Same::Yes, None),
            (&second, Same::NothingToCompare, None),
            (&second, Same::NotListed, None),
            (&first, Same::No, None),
        ];
        for (history, same, expected) in cases {
            assert_eq!(fork_before_first_record(history, same), expected, "{same:?}");
        }
    }
}
