//! Timelines: the branches of a cluster's history.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Lsn;

/// The number of a timeline (`TimeLineID`); zero means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct TimelineId(u32);

impl TimelineId {
    /// The timeline with this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One stretch of a cluster's history, from `begin` up to but not including `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryEntry {
    /// Where the timeline begins: the end of its parent, or 0/0 for the first.
    pub begin: Lsn,
    /// Where the history leaves the timeline; none for the current one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub end: Option<Lsn>,
    /// The timeline.
    pub timeline: TimelineId,
}

impl HistoryEntry {
    /// The end as a position: [`Lsn::MAX`] where the timeline goes on.
    #[must_use]
    pub fn end_or_max(&self) -> Lsn {
        self.end.unwrap_or(Lsn::MAX)
    }
}

/// The line of timelines that leads to a cluster's current one, oldest first; never empty.
///
/// Timeline numbers rise strictly, each entry begins where the one before it ends, and only the
/// last one goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct TimelineHistory(Vec<HistoryEntry>);

impl TimelineHistory {
    /// The history of a cluster on `current` whose ancestors, oldest first, end at the given
    /// positions. The caller has checked that the numbers rise.
    #[must_use]
    pub fn new(ancestors: &[(TimelineId, Lsn)], current: TimelineId) -> Self {
        let mut begin = Lsn::INVALID;
        let mut entries = Vec::with_capacity(ancestors.len().saturating_add(1));
        for &(timeline, end) in ancestors {
            entries.push(HistoryEntry { begin, end: Some(end), timeline });
            begin = end;
        }
        entries.push(HistoryEntry { begin, end: None, timeline: current });
        Self(entries)
    }

    /// The entries, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[HistoryEntry] {
        &self.0
    }

    /// The timeline that the history is on at a position: where one ends, the next one begins.
    #[must_use]
    pub fn timeline_at(&self, lsn: Lsn) -> Option<TimelineId> {
        self.0.iter().rev().find(|entry| entry.begin <= lsn).map(|entry| entry.timeline)
    }

    /// The timeline of the WAL file that holds the segment ending at `segment_end`.
    ///
    /// The newest timeline that begins before the segment's end: a segment in which a timeline
    /// begins is read from that timeline's file, which starts with a copy of its parent's part.
    #[must_use]
    pub fn timeline_of_segment(&self, segment_end: Lsn) -> Option<TimelineId> {
        let newest_first = self.0.iter().rev();
        let found = newest_first.clone().find(|entry| entry.begin < segment_end);
        found.or(self.0.first()).map(|entry| entry.timeline)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_with_a_switch_belongs_to_the_newer_timeline() {
        let ancestors = [(TimelineId::new(1), Lsn::new(100)), (TimelineId::new(3), Lsn::new(200))];
        let history = TimelineHistory::new(&ancestors, TimelineId::new(4));
        for (segment_end, timeline) in [(50, 1), (100, 1), (101, 3), (150, 3), (200, 3), (250, 4), (9999, 4)] {
            assert_eq!(
                history.timeline_of_segment(Lsn::new(segment_end)),
                Some(TimelineId::new(timeline)),
                "{segment_end}"
            );
        }
        for (lsn, timeline) in [(0, 1), (99, 1), (100, 3), (199, 3), (200, 4), (9999, 4)] {
            assert_eq!(history.timeline_at(Lsn::new(lsn)), Some(TimelineId::new(timeline)), "{lsn}");
        }
        assert_eq!(history.entries()[1].begin, Lsn::new(100));
        assert_eq!(history.entries()[2].end, None);
    }
}
