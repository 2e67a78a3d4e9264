//! Not copying what is there: files that would be copied whole are compared first.
//!
//! Only files that both sides have and that would be copied are compared, so never more is read than stock pg_rewind
//! copies. What is equal stays, and the plan keeps the size and time by which an apply sees that it still is. What
//! consists of blocks is patched where it differs. With a source at rest the outcome is that of copying, byte by byte.
//!
//! Which files of a live source are compared rests on the reasoning in [`crate::plan`].
//!
//! A file that shrinks, vanishes or cannot be read meanwhile is copied whole, as it is then.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::cluster::rules::{WalPath, is_slru_segment, wal_path};
use crate::cluster::{Comparison, Likeness, Source, SourceKind, Target};
use crate::error::Result;
use crate::manifest::{Action, ActionKind, Kept, KeptReason, PathState, Phase, Reason, WalPlace, WalSegmentPlan};
use crate::progress::Progress;
use crate::types::{BlockRange, ClusterPath, ForkNumber, Lsn, RelFilePaths, WalSegmentSize};

/// What it depends on whether a file is compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidates<'a> {
    /// How relation files are named.
    pub(super) relations: &'a RelFilePaths,
    /// Bytes in a block, of relations and SLRUs alike.
    pub(super) block_size: u32,
    /// Bytes in a WAL segment.
    pub(super) segment_size: WalSegmentSize,
    /// How far the source's WAL is complete.
    pub(super) source_end: Lsn,
    /// How the source is reached.
    pub(super) kind: SourceKind,
}

/// How a file that would be copied may be proven to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// By all of its bytes.
    Whole,
    /// By block, as far as both files reach.
    Blocks,
}

impl Candidates<'_> {
    /// How an action's file may be proven to be there; none where it is to be copied in any case.
    fn proof(&self, action: &Action) -> Option<Proof> {
        let (before, source) = (size(&action.before)?, size(&action.source)?);
        if action.kind != ActionKind::CopyFile || !self.is_settled(&action.path) {
            return None;
        }
        let whole_blocks = [before, source].iter().all(|size| size.is_multiple_of(u64::from(self.block_size.max(1))));
        if whole_blocks && before.min(source) > 0 && self.has_blocks(&action.path) {
            return Some(Proof::Blocks);
        }
        (before == source).then_some(Proof::Whole)
    }

    /// Whether replay on the target makes a copy good that is as old as the plan, or the source is at rest.
    pub(super) fn is_settled(&self, path: &ClusterPath) -> bool {
        if self.kind == SourceKind::StoppedDirectory {
            return true;
        }
        match wal_path(path, self.segment_size) {
            Some(WalPath::Segment(name)) => name.segment.end(self.segment_size) <= self.source_end,
            Some(_) => path.below(b"pg_wal/archive_status").is_none(),
            None => true,
        }
    }

    pub(super) fn has_blocks(&self, path: &ClusterPath) -> bool {
        let fork = self.relations.parse_fork(path).map(|(_, fork)| fork);
        matches!(fork, Some(ForkNumber::FreeSpaceMap | ForkNumber::VisibilityMap)) || is_slru_segment(path)
    }
}

/// What becomes of one action.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    /// Nothing is done: the file is there.
    Leave(Kept),
    /// This is done.
    Act(Box<Action>),
}

/// What became of the actions of a plan.
#[derive(Debug)]
pub(super) struct Settled {
    /// Those that are left, in order.
    pub(super) actions: Vec<Action>,
    /// What is kept because it is equal, in order of the paths.
    pub(super) equal: Vec<Kept>,
    /// Whether the source's files were looked at.
    pub(super) compared: bool,
}

/// Compares what would be copied, and takes out of the actions what is there.
pub(super) fn leave_equal(
    actions: Vec<Action>,
    candidates: &Candidates<'_>,
    target: &dyn Target,
    source: &mut dyn Source,
    progress: &dyn Progress,
) -> Result<Settled> {
    let comparisons: Vec<Comparison> = actions.iter().filter_map(|action| comparison(action, candidates)).collect();
    let found = if comparisons.is_empty() { Vec::new() } else { source.compare(&comparisons, target, progress)? };
    let mut found = comparisons.iter().zip(found).peekable();
    let mut settled = Settled { actions: Vec::new(), equal: Vec::new(), compared: !comparisons.is_empty() };
    for action in actions {
        let likeness = match found.next_if(|(comparison, _)| comparison.path == action.path) {
            Some((_, likeness)) => likeness,
            None if is_empty_on_both(&action, candidates) => Likeness::Equal,
            None => Likeness::Different,
        };
        match settle(action, likeness) {
            Decision::Leave(kept) => settled.equal.push(kept),
            Decision::Act(action) => settled.actions.push(*action),
        }
    }
    settled.actions.sort_by(|a, b| (a.phase, &a.path).cmp(&(b.phase, &b.path)));
    settled.equal.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(settled)
}

/// What is to be compared of an action's file; none where nothing is.
fn comparison(action: &Action, candidates: &Candidates<'_>) -> Option<Comparison> {
    let proof = candidates.proof(action)?;
    let length = size(&action.before)?.min(size(&action.source)?);
    let block = (proof == Proof::Blocks).then_some(candidates.block_size);
    (length > 0).then(|| Comparison { path: action.path.clone(), length, block })
}

/// Nothing needs to be read to compare nothing.
fn is_empty_on_both(action: &Action, candidates: &Candidates<'_>) -> bool {
    size(&action.source) == Some(0) && candidates.proof(action) == Some(Proof::Whole)
}

/// What is left to do once it is known how alike both files are, as far as both reach: nothing, or an action.
fn settle(action: Action, likeness: Likeness) -> Decision {
    let (before, after) = (size(&action.before).unwrap_or(0), size(&action.source).unwrap_or(0));
    let blocks = match likeness {
        Likeness::Different => return Decision::Act(Box::new(action)),
        Likeness::Equal if before == after => {
            let Action { before, path, source, .. } = action;
            return Decision::Leave(Kept { before, path, reason: KeptReason::SameContent, rule: None, source });
        }
        Likeness::Equal => Vec::new(),
        Likeness::EqualBut(blocks) => blocks,
    };
    Decision::Act(Box::new(patched(action, before.cmp(&after), blocks)))
}

/// The action that copies only what differs.
fn patched(action: Action, target: Ordering, blocks: Vec<BlockRange>) -> Action {
    let (reason, phase) = match (blocks.is_empty(), target) {
        (false, _) => (Reason::BlocksDiffer, Phase::Copy),
        (true, Ordering::Greater) => (Reason::LongerOnTarget, Phase::Truncate),
        (true, _) => (Reason::LongerOnSource, Phase::Copy),
    };
    Action { blocks, kind: ActionKind::Patch, phase, reason, ..action }
}

/// Notes of the WAL that replay reads what is the same on both sides.
pub(super) fn note_equal_wal(segments: &mut [WalSegmentPlan], equal: &[Kept]) {
    let names: BTreeSet<&[u8]> = equal.iter().filter_map(|kept| kept.path.below(b"pg_wal")).collect();
    for segment in segments.iter_mut().filter(|segment| names.contains(segment.file.as_bytes())) {
        segment.place = WalPlace::Both;
    }
}

fn size(state: &Option<PathState>) -> Option<u64> {
    state.as_ref().and_then(|state| state.size)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    /// The source's end, in segment 5.
    const END: u64 = 5 * MIB + 1000;

    fn action(path: &str, before: Option<u64>, source: u64) -> Action {
        let state = |size| PathState { size: Some(size), ..PathState::default() };
        Action {
            after: Some(state(source)),
            before: before.map(state),
            blocks: Vec::new(),
            kind: ActionKind::CopyFile,
            path: ClusterPath::new(path.as_bytes()).unwrap(),
            phase: Phase::Copy,
            reason: Reason::NotARelation,
            source: Some(state(source)),
        }
    }

    fn with_candidates<T>(kind: SourceKind, use_them: impl FnOnce(&Candidates<'_>) -> T) -> T {
        let candidates = Candidates {
            relations: &RelFilePaths::new(17, 202_406_281),
            block_size: 8192,
            segment_size: WalSegmentSize::new(1 << 20).unwrap(),
            source_end: Lsn::new(END),
            kind,
        };
        use_them(&candidates)
    }

    #[test]
    fn what_is_compared_and_how() {
        use Proof::{Blocks, Whole};
        let (segment, fsm, clog) = ("pg_wal/000000020000000000000004", "base/5/16384_fsm", "pg_xact/0000");
        // The path, the sizes on target and source, and how they are compared: with a source at rest, and a live one.
        let cases = [
            ("postgresql.conf", Some(9), 9, Some(Whole), Some(Whole)),
            ("postgresql.conf", Some(9), 10, None, None),
            ("postgresql.conf", None, 9, None, None),
            ("empty", Some(0), 0, Some(Whole), Some(Whole)),
            (fsm, Some(24576), 24576, Some(Blocks), Some(Blocks)),
            (fsm, Some(24576), 32768, Some(Blocks), Some(Blocks)),
            (fsm, Some(32768), 24576, Some(Blocks), Some(Blocks)),
            (fsm, Some(0), 24576, None, None),
            (fsm, Some(0), 0, Some(Whole), Some(Whole)),
            (fsm, Some(24577), 24577, Some(Whole), Some(Whole)),
            (fsm, Some(24577), 24576, None, None),
            ("base/5/16384_vm.1", Some(8192), 16384, Some(Blocks), Some(Blocks)),
            ("base/5/16384_init", Some(8192), 8192, Some(Whole), Some(Whole)),
            ("base/5/16384_init", Some(8192), 16384, None, None),
            ("base/5/t3_16384_fsm", Some(8192), 16384, None, None),
            ("base/5/pg_filenode.map", Some(524), 524, Some(Whole), Some(Whole)),
            (clog, Some(8192), 16384, Some(Blocks), Some(Blocks)),
            ("pg_multixact/members/0000", Some(8192), 8192, Some(Blocks), Some(Blocks)),
            ("pg_twophase/00000123", Some(100), 100, Some(Whole), Some(Whole)),
            ("pg_wal/00000002.history", Some(41), 41, Some(Whole), Some(Whole)),
            (segment, Some(MIB), MIB, Some(Whole), Some(Whole)),
            // What a live source has not filled yet, it goes on writing.
            ("pg_wal/000000020000000000000005", Some(MIB), MIB, Some(Whole), None),
            (segment, Some(MIB - 1), MIB, None, None),
            // A live source's archiver is at work.
            ("pg_wal/archive_status/000000020000000000000004.ready", Some(0), 0, Some(Whole), None),
            ("pg_wal/archive_status/00000002.history.done", Some(0), 0, Some(Whole), None),
        ];
        for (path, before, source, stopped, live) in cases {
            let action = action(path, before, source);
            let proof = |kind| with_candidates(kind, |candidates| candidates.proof(&action));
            assert_eq!(proof(SourceKind::StoppedDirectory), stopped, "{path} {before:?} {source}");
            assert_eq!(proof(SourceKind::LiveServer), live, "{path} {before:?} {source}");
        }
        let at_end = |lsn| {
            let action = action("pg_wal/000000020000000000000004", Some(MIB), MIB);
            with_candidates(SourceKind::LiveServer, |candidates| {
                Candidates { source_end: Lsn::new(lsn), ..*candidates }.proof(&action)
            })
        };
        assert_eq!((at_end(5 * MIB), at_end(5 * MIB - 1)), (Some(Whole), None));
    }

    #[test]
    fn only_copies_are_compared() {
        for kind in [ActionKind::Patch, ActionKind::Remove, ActionKind::CreateDirectory] {
            let action = Action { kind, ..action("base/5/16384", Some(8192), 8192) };
            assert_eq!(with_candidates(SourceKind::StoppedDirectory, |candidates| candidates.proof(&action)), None);
        }
    }

    #[test]
    fn as_far_as_both_reach() {
        let length = |path, before, source| {
            let action = action(path, Some(before), source);
            let wished = with_candidates(SourceKind::LiveServer, |candidates| comparison(&action, candidates));
            wished.map(|comparison| (comparison.length, comparison.block))
        };
        assert_eq!(length("base/5/1_fsm", 24576, 16384), Some((16384, Some(8192))));
        assert_eq!(length("base/5/1_fsm", 16384, 24576), Some((16384, Some(8192))));
        assert_eq!(length("pg_hba.conf", 77, 77), Some((77, None)));
        assert_eq!(length("empty", 0, 0), None);
    }

    #[test]
    fn what_is_left_to_do() {
        let blocks = vec![BlockRange { first: 1, count: 1 }];
        let but = || Likeness::EqualBut(blocks.clone());
        let cases = [
            ((8192, 8192), Likeness::Equal, "same_content"),
            ((8192, 8192), Likeness::Different, "CopyFile Copy NotARelation []"),
            ((16384, 16384), but(), "Patch Copy BlocksDiffer [BlockRange { first: 1, count: 1 }]"),
            ((16384, 24576), but(), "Patch Copy BlocksDiffer [BlockRange { first: 1, count: 1 }]"),
            ((24576, 16384), but(), "Patch Copy BlocksDiffer [BlockRange { first: 1, count: 1 }]"),
            ((8192, 16384), Likeness::Equal, "Patch Copy LongerOnSource []"),
            ((16384, 8192), Likeness::Equal, "Patch Truncate LongerOnTarget []"),
        ];
        for ((before, source), likeness, expected) in cases {
            let planned = action("base/5/1_vm", Some(before), source);
            let decision = settle(planned.clone(), likeness.clone());
            let found = match decision {
                Decision::Act(action) => {
                    let sizes = (&action.before, &action.after, &action.source);
                    assert_eq!(sizes, (&planned.before, &planned.after, &planned.source));
                    format!("{:?} {:?} {:?} {:?}", action.kind, action.phase, action.reason, action.blocks)
                }
                Decision::Leave(kept) => {
                    assert_eq!((&kept.before, &kept.source), (&planned.before, &planned.source));
                    assert_eq!(kept.reason, KeptReason::SameContent);
                    "same_content".to_owned()
                }
            };
            assert_eq!(found, expected, "{before} {source} {likeness:?}");
        }
    }

    #[test]
    fn equal_wal_is_on_both_sides() {
        let segment = |file: &str, place| WalSegmentPlan { file: file.to_owned(), place };
        let (first, second) = ("000000010000000000000003", "000000010000000000000004");
        let mut segments = [segment(first, WalPlace::Source), segment(second, WalPlace::Source)];
        let path = ClusterPath::new(format!("pg_wal/{second}").as_bytes()).unwrap();
        note_equal_wal(
            &mut segments,
            &[Kept { before: None, path, reason: KeptReason::SameContent, rule: None, source: None }],
        );
        assert_eq!(segments.map(|segment| segment.place), [WalPlace::Source, WalPlace::Both]);
    }
}
