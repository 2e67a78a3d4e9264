//! Where target and source parted, and when.

use jiff::Timestamp;

use super::{check, finding};
use crate::manifest::{Check, CheckStatus, CommonCheckpoint, Divergence};
use crate::types::{Lsn, TimelineId};

/// What is known of the fork.
#[derive(Clone, Copy, Debug)]
pub struct ForkFacts<'a> {
    /// Where the histories part; none where one goes on from the other.
    pub fork: Option<&'a Divergence>,
    /// The last checkpoint before it, where a rewind is needed.
    pub checkpoint: Option<&'a CommonCheckpoint>,
    /// The timelines that target and source are on.
    pub timelines: (TimelineId, TimelineId),
    /// Where the target's and the source's WAL ends, where known.
    pub ends: (Option<Lsn>, Option<Lsn>),
    /// The first segment file of a target that has WAL from behind the fork which it did not replay.
    pub unreplayed: Option<&'a str>,
}

/// Says where and when both parted, and warns of a target that did not, but has WAL that leads elsewhere.
pub fn divergence(facts: &ForkFacts<'_>) -> Check {
    let id = "divergence";
    let (target, source) = facts.timelines;
    let Some(fork) = facts.fork else {
        let detail = format!("target and source are on one line of history, the target on timeline {target}");
        return check(id, true, detail, "");
    };
    let mut evidence = vec![
        format!("last common position: {} on timeline {}", fork.lsn, fork.timeline),
        format!("the target is on timeline {target}, the source on {source}"),
    ];
    if let Some(checkpoint) = facts.checkpoint {
        let time = Timestamp::from_second(checkpoint.time).map_or_else(|_| "?".to_owned(), |time| time.to_string());
        evidence.push(format!("last common checkpoint: {} of {time}", checkpoint.lsn));
    }
    let behind = |end: Lsn| end.get().saturating_sub(fork.lsn.get());
    for (whose, end) in [("target", facts.ends.0), ("source", facts.ends.1)] {
        let bytes = end.map(behind).filter(|&bytes| bytes > 0);
        evidence.extend(bytes.map(|bytes| format!("WAL of the {whose} since then: {bytes} bytes")));
    }
    if let Some(segment) = facts.unreplayed {
        let detail = format!(
            "the target has not replayed beyond {}, where the source's timeline {source} leaves it, but has received WAL from behind that",
            fork.lsn
        );
        let remedy = format!(
            "before it is started, move {segment} and all later segments of that timeline out of the target's pg_wal: it would replay them, and then could not follow; it gets what it needs by streaming"
        );
        return Check { evidence, ..finding(id, CheckStatus::Warn, detail, Some(&remedy)) };
    }
    let detail = match facts.checkpoint {
        Some(_) => format!("target and source have parted at {}", fork.lsn),
        None => format!("the target has nothing behind {}, where the source's timeline {source} leaves it", fork.lsn),
    };
    Check { evidence, ..check(id, true, detail, "") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_is_told_with_its_time() {
        let fork = Divergence { lsn: Lsn::new(0x300_0000), timeline: TimelineId::new(1) };
        let checkpoint = CommonCheckpoint {
            lsn: Lsn::new(0x2F0_0000),
            redo: Lsn::new(0x2E0_0000),
            time: 1_800_000_000,
            timeline: fork.timeline,
        };
        let timelines = (TimelineId::new(1), TimelineId::new(2));
        let ends = (Some(Lsn::new(0x300_0100)), None);
        let facts = ForkFacts { fork: Some(&fork), checkpoint: Some(&checkpoint), timelines, ends, unreplayed: None };
        let found = divergence(&facts);
        assert_eq!(found.status, CheckStatus::Pass);
        let expected = [
            "last common position: 0/3000000 on timeline 1",
            "the target is on timeline 1, the source on 2",
            "last common checkpoint: 0/2F00000 of 2027-01-15T08:00:00Z",
            "WAL of the target since then: 256 bytes",
        ];
        assert_eq!(found.evidence, expected);
        let behind = ForkFacts { checkpoint: None, ends: (Some(Lsn::new(0x2F0_0000)), None), ..facts };
        let found = divergence(&behind);
        assert_eq!((found.status, found.evidence.len()), (CheckStatus::Pass, 2));
        let found = divergence(&ForkFacts { unreplayed: Some("000000010000000000000003"), ..behind });
        assert_eq!(found.status, CheckStatus::Warn);
        assert!(found.remedy.is_some_and(|remedy| remedy.contains("move 000000010000000000000003 and all later")));
        assert_eq!(divergence(&ForkFacts { fork: None, ..behind }).evidence, [""; 0]);
    }
}
