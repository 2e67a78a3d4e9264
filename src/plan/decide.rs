//! What is done to each path: pg_rewind's decision table, and ours for WAL.

use crate::cluster::rules::{PathRule, holds_data, rule_of, wal_path};
use crate::cluster::{FileEntry, FileKind};
use crate::manifest::{Action, ActionKind, KeptReason, PathState, Phase, Reason};
use crate::types::{BlockRange, ClusterPath, LinkText, RelFile, RelFilePaths};

use super::changed_blocks::ChangedBlocks;
use super::wal_files::{WalDecision, WalNeeds};

/// What decisions rest on besides the two entries.
#[derive(Debug)]
pub struct DecisionContext<'a> {
    /// How relation files are named.
    pub relations: &'a RelFilePaths,
    /// What the target's WAL changed.
    pub changed: &'a ChangedBlocks,
    /// What replay needs.
    pub wal: &'a WalNeeds,
}

/// What is done to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing, and stock pg_rewind would do nothing either.
    Nothing,
    /// Nothing, where stock pg_rewind would do something.
    Keep(KeptReason),
    /// Something.
    Act(Box<Action>),
}

/// A path for which nothing right can be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecidable {
    /// The two sides have different things there.
    #[error("{path} is a {target} on the target and a {source_kind} on the source")]
    KindsDiffer {
        /// The path.
        path: ClusterPath,
        /// What the target has.
        target: &'static str,
        /// What the source has.
        source_kind: &'static str,
    },
    /// A link on the source where a directory with data has to be; what is behind it is not looked at.
    #[error(
        "{path} is a symlink on the source, and the data behind it would be left out: put there what it leads to, or a mount"
    )]
    DataBehindLink {
        /// The path.
        path: ClusterPath,
    },
    /// A name that only a relation's file may have.
    #[error("{path} on the source is a {kind}, but has the name of a relation's file")]
    RelationIsNoFile {
        /// The path.
        path: ClusterPath,
        /// What it is.
        kind: &'static str,
    },
}

/// Decides on one path that is on at least one side.
///
/// The order of the rules is that of pg_rewind 14 and later (`decide_file_action`).
///
/// # Errors
/// [`Undecidable`] where the sides contradict each other.
pub fn decide(
    path: &ClusterPath,
    target: Option<&FileEntry>,
    source: Option<&FileEntry>,
    context: &DecisionContext<'_>,
) -> Result<Decision, Undecidable> {
    match rule_of(path) {
        PathRule::ControlFile | PathRule::OwnState | PathRule::Foreign => return Ok(Decision::Nothing),
        PathRule::ControlFileCopy => return Ok(Decision::Keep(KeptReason::ControlFileCopy)),
        PathRule::Excluded => {
            return Ok(target.map_or(Decision::Nothing, |entry| remove(path, entry, Reason::Excluded)));
        }
        PathRule::Compare => {}
    }
    let relation = context.relations.parse(path);
    if let (Some(_), Some(entry)) = (relation, source)
        && entry.size().is_none()
    {
        return Err(Undecidable::RelationIsNoFile { path: path.clone(), kind: entry.kind.words() });
    }
    if holds_data(path) && source.is_some_and(|entry| matches!(entry.kind, FileKind::Symlink { .. })) {
        return Err(Undecidable::DataBehindLink { path: path.clone() });
    }
    if let Some(decision) = decide_wal(path, target, source, context.wal) {
        return Ok(decision);
    }
    match (target, source) {
        (None, None) => Ok(Decision::Nothing),
        (None, Some(source)) => Ok(create(path, source)),
        (Some(target), None) => Ok(remove(path, target, Reason::OnlyOnTarget)),
        (Some(target), Some(source)) => decide_both(path, relation, target, source, context.changed),
    }
}

/// The decision on a file of `pg_wal`, where WAL's own rules make it.
fn decide_wal(
    path: &ClusterPath,
    target: Option<&FileEntry>,
    source: Option<&FileEntry>,
    wal: &WalNeeds,
) -> Option<Decision> {
    let is_file = |entry: Option<&FileEntry>| entry.is_none_or(|entry| entry.size().is_some());
    let kind = wal_path(path, wal.size).filter(|_| is_file(target) && is_file(source))?;
    match (wal.decide(kind, target.is_some(), source.is_some()), target, source) {
        (WalDecision::Fetch(reason), _, Some(source)) => Some(copy(path, target, source, reason, Phase::Wal)),
        (WalDecision::Remove(reason), Some(target), _) => Some(remove(path, target, reason)),
        (WalDecision::Keep(reason), _, _) => Some(Decision::Keep(reason)),
        _ => None,
    }
}

fn decide_both(
    path: &ClusterPath,
    relation: Option<RelFile>,
    target: &FileEntry,
    source: &FileEntry,
    changed: &ChangedBlocks,
) -> Result<Decision, Undecidable> {
    let differ = || Undecidable::KindsDiffer {
        path: path.clone(),
        target: target.kind.words(),
        source_kind: source.kind.words(),
    };
    match (&target.kind, &source.kind) {
        (FileKind::Directory, FileKind::Directory) | (FileKind::Symlink { .. }, FileKind::Symlink { .. }) => {
            Ok(Decision::Nothing)
        }
        (FileKind::File { size: old, .. }, FileKind::File { size: new, .. }) => match relation {
            _ if path.as_bytes().ends_with(b"PG_VERSION") => Ok(Decision::Nothing),
            Some(relation) => Ok(patch(path, (target, *old), (source, *new), changed.ranges(relation))),
            None => Ok(copy(path, Some(target), source, Reason::NotARelation, Phase::Copy)),
        },
        _ => Err(differ()),
    }
}

fn create(path: &ClusterPath, source: &FileEntry) -> Decision {
    let kind = match &source.kind {
        FileKind::File { .. } => return copy(path, None, source, Reason::OnlyOnSource, Phase::Copy),
        FileKind::Directory => ActionKind::CreateDirectory,
        FileKind::Symlink { .. } => ActionKind::CreateSymlink,
    };
    let link = state_of(source).link;
    let phase = if path.below(b"pg_wal").is_some() { Phase::Wal } else { Phase::Create };
    Decision::Act(Box::new(Action {
        after: Some(PathState { link, ..PathState::default() }),
        before: None,
        blocks: Vec::new(),
        kind,
        path: path.clone(),
        phase,
        reason: Reason::OnlyOnSource,
        source: None,
    }))
}

fn copy(path: &ClusterPath, target: Option<&FileEntry>, source: &FileEntry, reason: Reason, phase: Phase) -> Decision {
    Decision::Act(Box::new(Action {
        after: Some(PathState { size: source.size(), ..PathState::default() }),
        before: target.map(state_of),
        blocks: Vec::new(),
        kind: ActionKind::CopyFile,
        path: path.clone(),
        phase,
        reason,
        source: Some(source_state(source)),
    }))
}

fn patch(
    path: &ClusterPath,
    (target, old): (&FileEntry, u64),
    (source, new): (&FileEntry, u64),
    blocks: Vec<BlockRange>,
) -> Decision {
    if blocks.is_empty() && old == new {
        return Decision::Nothing;
    }
    let (reason, phase) = match (blocks.is_empty(), old.cmp(&new)) {
        (false, _) => (Reason::ChangedOnTarget, Phase::Copy),
        (true, std::cmp::Ordering::Greater) => (Reason::LongerOnTarget, Phase::Truncate),
        (true, _) => (Reason::LongerOnSource, Phase::Copy),
    };
    Decision::Act(Box::new(Action {
        after: Some(PathState { size: Some(new), ..PathState::default() }),
        before: Some(state_of(target)),
        blocks,
        kind: ActionKind::Patch,
        path: path.clone(),
        phase,
        reason,
        source: Some(source_state(source)),
    }))
}

fn remove(path: &ClusterPath, target: &FileEntry, reason: Reason) -> Decision {
    Decision::Act(Box::new(Action {
        after: None,
        before: Some(state_of(target)),
        blocks: Vec::new(),
        kind: ActionKind::Remove,
        path: path.clone(),
        phase: Phase::Remove,
        reason,
        source: None,
    }))
}

/// Everything that is known about an entry of the target.
fn state_of(entry: &FileEntry) -> PathState {
    let mode = entry.mode;
    match &entry.kind {
        FileKind::Directory => PathState { mode, ..PathState::default() },
        FileKind::File { size, modified } => {
            PathState { mode, modified: *modified, size: Some(*size), ..PathState::default() }
        }
        FileKind::Symlink { text } => PathState { link: Some(LinkText::new(text)), ..PathState::default() },
    }
}

/// What must not move on a stopped source; a live one does not tell times.
fn source_state(entry: &FileEntry) -> PathState {
    PathState { mode: None, ..state_of(entry) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::format::Major;
    use crate::plan::wal_files::SourceWal;
    use crate::types::{FileMode, Lsn, TimelineHistory, TimelineId, WalSegmentSize};

    fn file(size: u64) -> FileEntry {
        FileEntry { kind: FileKind::File { size, modified: None }, mode: Some(FileMode::new(0o600)) }
    }

    fn directory() -> FileEntry {
        FileEntry { kind: FileKind::Directory, mode: Some(FileMode::new(0o700)) }
    }

    fn link(text: &str) -> FileEntry {
        FileEntry { kind: FileKind::Symlink { text: text.into() }, mode: None }
    }

    fn decided(path: &str, target: Option<FileEntry>, source: Option<FileEntry>) -> Result<Decision, Undecidable> {
        let relations = RelFilePaths::new(17, 202_406_281);
        let changed = ChangedBlocks::new(Major::V17.facts(), 131_072, []);
        let history = TimelineHistory::new(&[(TimelineId::new(1), Lsn::new(10 << 20))], TimelineId::new(2));
        let wal = WalNeeds {
            source: SourceWal { history, redo: Lsn::new(8 << 20), end: Lsn::new(12 << 20) },
            fork: Lsn::new(10 << 20),
            on_source: BTreeSet::new(),
            size: WalSegmentSize::new(1 << 20).unwrap(),
        };
        let context = DecisionContext { relations: &relations, changed: &changed, wal: &wal };
        decide(&ClusterPath::new(path.as_bytes()).unwrap(), target.as_ref(), source.as_ref(), &context)
    }

    /// `kind phase reason`, or what else was decided.
    fn short(path: &str, target: Option<FileEntry>, source: Option<FileEntry>) -> String {
        match decided(path, target, source) {
            Ok(Decision::Act(a)) => format!("{:?} {:?} {:?}", a.kind, a.phase, a.reason),
            Ok(Decision::Keep(reason)) => format!("keep {reason:?}"),
            Ok(Decision::Nothing) => "nothing".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_table() {
        let cases = [
            ("global/pg_control", Some(file(8192)), Some(file(8192)), "nothing"),
            (".pg_unfork/state.json", Some(file(1)), None, "nothing"),
            (".pg_unfork/state.json", None, Some(file(1)), "nothing"),
            ("x/.DS_Store", Some(file(1)), None, "nothing"),
            ("postmaster.pid", Some(file(1)), Some(file(1)), "Remove Remove Excluded"),
            ("postmaster.pid", None, Some(file(1)), "nothing"),
            ("base/5", None, Some(directory()), "CreateDirectory Create OnlyOnSource"),
            ("pg_wal/archive_status", None, Some(directory()), "CreateDirectory Wal OnlyOnSource"),
            ("pg_tblspc/16400", None, Some(link("/ts")), "CreateSymlink Create OnlyOnSource"),
            ("base/5/1", None, Some(file(8192)), "CopyFile Copy OnlyOnSource"),
            ("base/5/1", Some(file(8192)), None, "Remove Remove OnlyOnTarget"),
            ("base/6", Some(directory()), None, "Remove Remove OnlyOnTarget"),
            (
                "log",
                Some(link("/log")),
                Some(directory()),
                "log is a symlink on the target and a directory on the source",
            ),
            (
                "base/5/1",
                Some(file(1)),
                Some(directory()),
                "base/5/1 on the source is a directory, but has the name of a relation's file",
            ),
            (
                "pg_xact",
                Some(link("/a")),
                Some(link("/b")),
                "pg_xact is a symlink on the source, and the data behind it would be left out: put there what it leads to, or a mount",
            ),
            (
                "pg_xact",
                Some(link("/a")),
                Some(directory()),
                "pg_xact is a symlink on the target and a directory on the source",
            ),
            ("log", Some(link("/a")), Some(link("/b")), "nothing"),
            ("log", None, Some(link("/b")), "CreateSymlink Create OnlyOnSource"),
            ("base/5", Some(link("/a")), None, "Remove Remove OnlyOnTarget"),
            ("base/5/PG_VERSION", Some(file(3)), Some(file(3)), "nothing"),
            ("base/5/PG_VERSION", None, Some(file(3)), "CopyFile Copy OnlyOnSource"),
            ("base/5", Some(directory()), Some(directory()), "nothing"),
            ("pg_tblspc/16400", Some(link("/a")), Some(link("/b")), "nothing"),
            ("postgresql.conf", Some(file(9)), Some(file(9)), "CopyFile Copy NotARelation"),
            ("base/5/1_fsm", Some(file(24576)), Some(file(24576)), "CopyFile Copy NotARelation"),
            ("base/5/1", Some(file(8192)), Some(file(16384)), "Patch Copy LongerOnSource"),
            ("base/5/1", Some(file(16384)), Some(file(8192)), "Patch Truncate LongerOnTarget"),
            ("base/5/1", Some(file(8192)), Some(file(8192)), "nothing"),
            ("pg_wal/000000010000000000000009", Some(file(1 << 20)), Some(file(1 << 20)), "CopyFile Wal ReplayNeedsIt"),
            ("pg_wal/00000002.history", None, Some(file(40)), "CopyFile Wal TimelineHistory"),
            ("pg_wal/000000010000000000000009", Some(file(1 << 20)), None, "keep OnlyCopyOfCommonWal"),
            ("pg_wal/summaries/x.summary", Some(file(7)), None, "Remove Remove OnlyOnTarget"),
            ("pg_wal/xlogtemp.9", None, Some(file(7)), "CopyFile Copy OnlyOnSource"),
        ];
        for (path, target, source, expected) in cases {
            assert_eq!(short(path, target, source), expected, "{path}");
        }
    }

    #[test]
    fn changed_blocks_make_a_patch() {
        let range = BlockRange { first: 0, count: 1 };
        let path = ClusterPath::new(b"base/5/1").unwrap();
        for (old, new) in [(8192, 8192), (16384, 8192), (8192, 16384)] {
            let decision = patch(&path, (&file(old), old), (&file(new), new), vec![range]);
            let Decision::Act(action) = decision else { unreachable!() };
            assert_eq!(
                (action.kind, action.phase, action.reason),
                (ActionKind::Patch, Phase::Copy, Reason::ChangedOnTarget)
            );
            assert_eq!(action.after.unwrap().size, Some(new));
        }
    }
}
