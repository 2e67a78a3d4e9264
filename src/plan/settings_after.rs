//! Which settings the target will have once a plan is applied.

use std::collections::BTreeMap;

use crate::cluster::{FileKind, Inventory, ReadFile, Settings, SettingsInForce, Source, Target};
use crate::manifest::{Action, ActionKind};
use crate::types::ClusterPath;

/// Where the files of both sides are, and what becomes of the target's.
pub(super) struct AfterApply<'a> {
    pub(super) target: &'a mut dyn Target,
    pub(super) source: &'a mut dyn Source,
    pub(super) target_files: &'a Inventory,
    pub(super) source_files: &'a Inventory,
    pub(super) actions: &'a [Action],
}

/// Whose file a path will have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Target,
    Source,
    Nobody,
}

impl AfterApply<'_> {
    /// The settings, from the files that there will be, and from the command line that the target was started with.
    /// Files that cannot be read make settings unknown.
    pub(super) fn settings(self) -> SettingsInForce {
        let Self { target, source, target_files, source_files, actions } = self;
        let actions: BTreeMap<&ClusterPath, ActionKind> =
            actions.iter().filter(|a| may_be_settings(&a.path)).map(|a| (&a.path, a.kind)).collect();
        let whose = |path: &ClusterPath| match actions.get(path) {
            Some(ActionKind::CopyFile) => Whose::Source,
            Some(_) => Whose::Nobody,
            None if target_files.get(path).is_some_and(|entry| entry.size().is_some()) => Whose::Target,
            None => Whose::Nobody,
        };
        let listed = files_of_settings(target_files, source_files, &whose);
        let options =
            ClusterPath::new(b"postmaster.opts").ok().and_then(|path| target.read_small(&path).ok()).flatten();
        let read: &mut ReadFile<'_> = &mut |path| match whose(path) {
            Whose::Target => target.read_small(path),
            Whose::Source => source.read_small(path),
            Whose::Nobody => Ok(None),
        };
        let is_there = |path: &ClusterPath| target_files.get(path).or_else(|| source_files.get(path)).is_some();
        SettingsInForce::new(Settings::read_with(read, &listed, &is_there), options.as_deref())
    }
}

fn may_be_settings(path: &ClusterPath) -> bool {
    path.as_bytes().ends_with(b".conf")
}

/// What there will be of files that may be settings: `*.conf`, and directories at the top, where they may lie.
fn files_of_settings(target: &Inventory, source: &Inventory, whose: &dyn Fn(&ClusterPath) -> Whose) -> Inventory {
    let may_count = |path: &ClusterPath, kind: &FileKind| match kind {
        FileKind::File { .. } => may_be_settings(path),
        FileKind::Directory => !path.as_bytes().contains(&b'/'),
        FileKind::Symlink { .. } => false,
    };
    let entries = [source, target].into_iter().flat_map(Inventory::iter);
    entries
        .filter(|(path, entry)| may_count(path, &entry.kind))
        .filter(|(path, entry)| entry.size().is_none() || whose(path) != Whose::Nobody)
        .collect()
}
