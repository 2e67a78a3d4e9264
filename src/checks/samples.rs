//! Facts for tests of checks.

#![allow(clippy::unwrap_used)]

use crate::cluster::{FileEntry, FileKind, Inventory};
use crate::manifest::{Action, ActionKind, PathState, Phase, Reason};
use crate::types::ClusterPath;

pub(super) fn path(name: &str) -> ClusterPath {
    ClusterPath::new(name.as_bytes()).unwrap()
}

/// An action on a file of 10 bytes that the target has.
pub(super) fn action(name: &str, kind: ActionKind) -> Action {
    let state = Some(PathState { size: Some(10), ..PathState::default() });
    let after = if kind == ActionKind::Remove { None } else { state.clone() };
    let (phase, reason) = (Phase::Copy, Reason::NotARelation);
    Action { after, before: state, blocks: Vec::new(), kind, path: path(name), phase, reason, source: None }
}

/// Files; `name/` is a directory, `name -> text` a symlink.
pub(super) fn inventory(names: &[&str]) -> Inventory {
    let entry = |name: &&str| {
        let (name, kind) = match (name.split_once(" -> "), name.strip_suffix('/')) {
            (Some((name, text)), _) => (name, FileKind::Symlink { text: text.into() }),
            (None, Some(name)) => (name, FileKind::Directory),
            (None, None) => (*name, FileKind::File { size: 10, modified: None }),
        };
        (path(name), FileEntry { kind, mode: None })
    };
    names.iter().map(entry).collect()
}
