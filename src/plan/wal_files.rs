//! Which files of `pg_wal` a rewound target needs, and which it must not have.

use std::collections::BTreeSet;

use crate::cluster::rules::WalPath;
use crate::manifest::{KeptReason, Reason, WalPlace, WalSegmentPlan};
use crate::types::{ClusterPath, Lsn, SegmentNumber, TimelineHistory, WalFileName, WalSegmentSize};

/// The source's WAL, as replay on the target will read it.
#[derive(Clone, Debug)]
pub struct SourceWal {
    /// The source's line of timelines.
    pub history: TimelineHistory,
    /// Where replay begins.
    pub redo: Lsn,
    /// How far the source's WAL reached when the plan was made.
    pub end: Lsn,
}

/// What is known when a file of `pg_wal` is decided on.
#[derive(Clone, Debug)]
pub struct WalNeeds {
    /// The source's WAL.
    pub source: SourceWal,
    /// Where the histories part.
    pub fork: Lsn,
    /// The segments that the source has.
    pub on_source: BTreeSet<WalFileName>,
    /// Bytes in a segment.
    pub size: WalSegmentSize,
}

/// What to do with a file of `pg_wal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalDecision {
    /// Fetch it from the source, before anything else.
    Fetch(Reason),
    /// Remove it from the target.
    Remove(Reason),
    /// Leave it, or do not fetch it.
    Keep(KeptReason),
    /// Treat it like any other file.
    Compare,
}

impl WalNeeds {
    /// Decides on a file that is on at least one side.
    #[must_use]
    pub fn decide(&self, path: WalPath, on_target: bool, on_source: bool) -> WalDecision {
        match path {
            WalPath::Segment(name) => self.decide_segment(name, on_target, on_source),
            WalPath::History if on_source => WalDecision::Fetch(Reason::TimelineHistory),
            WalPath::Partial if !on_target => WalDecision::Keep(KeptReason::NotReplayed),
            WalPath::PartialStatus if !on_target => WalDecision::Keep(KeptReason::StatusOfUnfetchedWal),
            WalPath::SegmentStatus(name) => self.decide_status(name, on_target, on_source),
            WalPath::History | WalPath::Partial | WalPath::PartialStatus | WalPath::Other => WalDecision::Compare,
        }
    }

    fn decide_segment(&self, name: WalFileName, on_target: bool, on_source: bool) -> WalDecision {
        let before_replay = name.segment < self.first_segment();
        match (on_target, on_source) {
            (_, true) if self.is_replayed(name) => WalDecision::Fetch(Reason::ReplayNeedsIt),
            (true, false) if self.is_only_copy(name) => WalDecision::Keep(KeptReason::OnlyCopyOfCommonWal),
            (true, true) if before_replay && self.is_common(name) => WalDecision::Keep(KeptReason::BeforeReplay),
            (true, false) => WalDecision::Remove(Reason::OnlyOnTarget),
            (true, true) => WalDecision::Remove(Reason::NotInSourceHistory),
            (false, _) if before_replay => WalDecision::Keep(KeptReason::BeforeReplay),
            (false, _) => WalDecision::Keep(KeptReason::NotReplayed),
        }
    }

    /// The archive status goes with its segment; it may be on one side only.
    fn decide_status(&self, name: WalFileName, on_target: bool, on_source: bool) -> WalDecision {
        let has_segment = self.on_source.contains(&name);
        if on_target && !has_segment && self.is_only_copy(name) {
            return WalDecision::Keep(KeptReason::OnlyCopyOfCommonWal);
        }
        let fetched = has_segment && self.is_replayed(name);
        let stays =
            fetched || (has_segment && on_target && name.segment < self.first_segment() && self.is_common(name));
        match (stays, on_target, on_source) {
            (true, _, true) => WalDecision::Fetch(Reason::ReplayNeedsIt),
            (false, false, true) => WalDecision::Keep(KeptReason::StatusOfUnfetchedWal),
            (false, true, true) => WalDecision::Remove(Reason::NotInSourceHistory),
            _ => WalDecision::Compare,
        }
    }

    /// The segment in which replay begins.
    fn first_segment(&self) -> SegmentNumber {
        SegmentNumber::of(self.source.redo, self.size)
    }

    /// Whether the source's segment holds WAL of its line of history that replay reads.
    fn is_replayed(&self, name: WalFileName) -> bool {
        let (start, end) = (name.segment.start(self.size), name.segment.end(self.size));
        let entries = self.source.history.entries();
        let on_line = entries
            .iter()
            .any(|entry| entry.timeline == name.timeline && start < entry.end_or_max() && end > entry.begin);
        on_line && name.segment >= self.first_segment() && start <= self.source.end
    }

    /// Whether the segment holds WAL from before the fork, by its timeline and place.
    fn is_common(&self, name: WalFileName) -> bool {
        let (start, end) = (name.segment.start(self.size), name.segment.end(self.size));
        let entries = self.source.history.entries();
        start < self.fork
            && entries.iter().any(|entry| {
                entry.timeline == name.timeline && start < entry.end_or_max().min(self.fork) && end > entry.begin
            })
    }

    /// Whether replay needs the segment although the source does not have it any more.
    ///
    /// pg_rewind keeps those from the last common checkpoint on; replay begins earlier, at redo.
    /// And it keeps the one that holds the fork: behind the fork that has the target's own WAL,
    /// which must never be replayed.
    fn is_only_copy(&self, name: WalFileName) -> bool {
        name.segment >= self.first_segment() && name.segment.end(self.size) <= self.fork && self.is_common(name)
    }

    /// Where replay finds each segment that it reads.
    #[must_use]
    pub fn segments(&self, on_target: &dyn Fn(&ClusterPath) -> bool) -> Vec<WalSegmentPlan> {
        let mut segments = Vec::new();
        let mut segment = self.first_segment();
        let last = SegmentNumber::of(Lsn::new(self.source.end.get().saturating_sub(1)), self.size);
        while segment <= last {
            segments.push(self.place(segment, on_target));
            segment = segment.next();
        }
        segments
    }

    /// Only one file will do: in a segment that holds a switch, the file of the older timeline goes
    /// on with what the source has left behind.
    fn place(&self, segment: SegmentNumber, on_target: &dyn Fn(&ClusterPath) -> bool) -> WalSegmentPlan {
        let timeline = self.source.history.timeline_of_segment(segment.end(self.size)).unwrap_or_default();
        let name = WalFileName { timeline, segment };
        let file = name.text(self.size);
        let kept = || ClusterPath::new(format!("pg_wal/{file}").as_bytes()).is_ok_and(|path| on_target(&path));
        let place = if self.on_source.contains(&name) {
            WalPlace::Source
        } else if self.is_only_copy(name) && kept() {
            WalPlace::Target
        } else {
            WalPlace::Missing
        };
        WalSegmentPlan { file, place }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::types::TimelineId;

    const MIB: u64 = 1 << 20;

    fn name(timeline: u32, segment: u64) -> WalFileName {
        let size = WalSegmentSize::new(1 << 20).unwrap();
        WalFileName { timeline: TimelineId::new(timeline), segment: SegmentNumber::of(Lsn::new(segment * MIB), size) }
    }

    /// Timeline 1 forked in the middle of segment 10; replay begins in 8, the checkpoint is in 9.
    fn needs() -> WalNeeds {
        let history = TimelineHistory::new(&[(TimelineId::new(1), Lsn::new(10 * MIB + 500))], TimelineId::new(2));
        WalNeeds {
            source: SourceWal { history, redo: Lsn::new(8 * MIB + 40), end: Lsn::new(12 * MIB + 7) },
            fork: Lsn::new(10 * MIB + 500),
            on_source: [name(1, 9), name(1, 10), name(2, 10), name(2, 12)].into(),
            size: WalSegmentSize::new(1 << 20).unwrap(),
        }
    }

    #[test]
    fn segments_by_side() {
        use WalDecision::{Fetch, Keep, Remove};
        let (target, source, both) = ((true, false), (false, true), (true, true));
        let cases = [
            ("before replay, both", 1, 7, both, Keep(KeptReason::BeforeReplay)),
            ("before replay, target", 1, 7, target, Remove(Reason::OnlyOnTarget)),
            ("before replay, source", 1, 7, source, Keep(KeptReason::BeforeReplay)),
            ("redo, both", 1, 8, both, Fetch(Reason::ReplayNeedsIt)),
            ("redo, target", 1, 8, target, Keep(KeptReason::OnlyCopyOfCommonWal)),
            ("checkpoint, target", 1, 9, target, Keep(KeptReason::OnlyCopyOfCommonWal)),
            ("fork, old timeline, target", 1, 10, target, Remove(Reason::OnlyOnTarget)),
            ("fork, old timeline, source", 1, 10, source, Fetch(Reason::ReplayNeedsIt)),
            ("fork, new timeline, source", 2, 10, source, Fetch(Reason::ReplayNeedsIt)),
            ("after the fork, old timeline, target", 1, 11, target, Remove(Reason::OnlyOnTarget)),
            ("after the fork, old timeline, both", 1, 11, both, Remove(Reason::NotInSourceHistory)),
            ("source's end", 2, 12, source, Fetch(Reason::ReplayNeedsIt)),
            ("recycled on the source", 2, 13, source, Keep(KeptReason::NotReplayed)),
            ("recycled on both", 2, 13, both, Remove(Reason::NotInSourceHistory)),
            ("new timeline before it began", 2, 9, source, Keep(KeptReason::NotReplayed)),
            ("foreign timeline", 3, 11, target, Remove(Reason::OnlyOnTarget)),
        ];
        for (case, timeline, segment, (on_target, on_source), expected) in cases {
            let path = WalPath::Segment(name(timeline, segment));
            assert_eq!(needs().decide(path, on_target, on_source), expected, "{case}");
        }
    }

    #[test]
    fn other_files() {
        use WalDecision::{Compare, Fetch, Keep, Remove};
        let needs = needs();
        assert_eq!(needs.decide(WalPath::History, true, true), Fetch(Reason::TimelineHistory));
        assert_eq!(needs.decide(WalPath::History, true, false), Compare);
        assert_eq!(needs.decide(WalPath::Partial, false, true), Keep(KeptReason::NotReplayed));
        assert_eq!(needs.decide(WalPath::Partial, true, false), Compare);
        assert_eq!(needs.decide(WalPath::PartialStatus, false, true), Keep(KeptReason::StatusOfUnfetchedWal));
        assert_eq!(needs.decide(WalPath::PartialStatus, true, false), Compare);
        assert_eq!(needs.decide(WalPath::SegmentStatus(name(1, 9)), false, true), Fetch(Reason::ReplayNeedsIt));
        assert_eq!(
            needs.decide(WalPath::SegmentStatus(name(1, 5)), false, true),
            Keep(KeptReason::StatusOfUnfetchedWal)
        );
        assert_eq!(needs.decide(WalPath::SegmentStatus(name(1, 11)), true, true), Remove(Reason::NotInSourceHistory));
        assert_eq!(needs.decide(WalPath::SegmentStatus(name(1, 11)), true, false), Compare);
    }

    #[test]
    fn replay_reads_one_file_per_segment() {
        let on_target = |path: &ClusterPath| {
            ["pg_wal/000000010000000000000008", "pg_wal/00000001000000000000000A"].contains(&path.to_string().as_str())
        };
        let places = |needs: &WalNeeds| -> Vec<_> {
            needs.segments(&on_target).into_iter().map(|s| (s.file, s.place)).collect()
        };
        let mut expected = [
            ("000000010000000000000008", WalPlace::Target),
            ("000000010000000000000009", WalPlace::Source),
            ("00000002000000000000000A", WalPlace::Source),
            ("00000002000000000000000B", WalPlace::Missing),
            ("00000002000000000000000C", WalPlace::Source),
        ]
        .map(|(file, place)| (file.to_owned(), place));
        let mut needs = needs();
        assert_eq!(places(&needs), expected);
        // The old timeline's file of the fork's segment does not stand in for the new one's.
        needs.on_source.remove(&name(2, 10));
        expected[2].1 = WalPlace::Missing;
        assert_eq!(places(&needs), expected);
    }
}
