//! Where two histories part.

use crate::types::{Lsn, TimelineHistory, TimelineId};

/// The last point that two histories share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The end of the shared part; [`Lsn::MAX`] where both go on along the same timeline.
    pub lsn: Lsn,
    /// The shared timeline there.
    pub timeline: TimelineId,
}

/// Finds the last point that both histories share; `None` where they share nothing.
///
/// Entries are the same where number *and* beginning are (pg_rewind's `findCommonAncestorTimeline`):
/// two servers promoted on their own may both have called their new timeline 2.
#[must_use]
pub fn common_ancestor(source: &TimelineHistory, target: &TimelineHistory) -> Option<Divergence> {
    let pairs = source.entries().iter().zip(target.entries());
    let (ours, theirs) = pairs.take_while(|(s, t)| s.timeline == t.timeline && s.begin == t.begin).last()?;
    Some(Divergence { lsn: ours.end_or_max().min(theirs.end_or_max()), timeline: ours.timeline })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(ancestors: &[(u32, u64)], current: u32) -> TimelineHistory {
        let ancestors: Vec<_> = ancestors.iter().map(|&(t, l)| (TimelineId::new(t), Lsn::new(l))).collect();
        TimelineHistory::new(&ancestors, TimelineId::new(current))
    }

    #[test]
    fn histories_part_at_the_earlier_end() {
        let max = u64::MAX;
        let cases = [
            ("target stayed", history(&[(1, 100)], 2), history(&[], 1), Some((1, 100))),
            ("source stayed", history(&[], 1), history(&[(1, 100)], 2), Some((1, 100))),
            ("same", history(&[(1, 100)], 2), history(&[(1, 100)], 2), Some((2, max))),
            ("same first timeline", history(&[], 1), history(&[], 1), Some((1, max))),
            ("both left", history(&[(1, 100)], 2), history(&[(1, 80)], 3), Some((1, 80))),
            ("same number, other place", history(&[(1, 100)], 2), history(&[(1, 80)], 2), Some((1, 80))),
            (
                "several switches",
                history(&[(1, 100), (2, 200), (3, 300)], 4),
                history(&[(1, 100), (2, 200)], 3),
                Some((3, 300)),
            ),
            ("second fork", history(&[(1, 100), (2, 200)], 3), history(&[(1, 100), (2, 250)], 5), Some((2, 200))),
            ("nothing in common", history(&[(2, 100)], 3), history(&[(1, 100)], 3), None),
        ];
        for (name, source, target, expected) in cases {
            let expected = expected.map(|(t, l)| Divergence { lsn: Lsn::new(l), timeline: TimelineId::new(t) });
            assert_eq!(common_ancestor(&source, &target), expected, "{name}");
        }
    }
}
