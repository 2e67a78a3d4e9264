//! How much room a plan needs on each file system.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::checks::Room;
use crate::cluster::{FileSystem, Site};
use crate::error::Result;
use crate::manifest::{Action, ActionKind, Manifest, PathState};
use crate::types::{ClusterPath, LinkText};

/// Bytes for what no plan can know: the WAL that a live source writes meanwhile, directories, the
/// state directory.
const RESERVE: u64 = 64 << 20;

/// File systems allocate blocks; 4 KiB is what most have.
const ALLOCATION: u64 = 4096;

/// What an apply needs on one file system. In bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Need {
    /// What stays: new files, tails, what files grow by.
    growth: u64,
    /// The most that a file and the one that replaces it take together, beyond the larger of them.
    largest_draft: u64,
}

impl Need {
    fn add(&mut self, action: &Action, undo: bool, block_size: u32) {
        let (before, after) = (allocated(size(&action.before)), allocated(size(&action.after)));
        if undo {
            self.growth = self.growth.saturating_add(allocated(action.image_bytes(block_size)));
        }
        match action.kind {
            // The old file is kept beside the new one.
            ActionKind::CopyFile if undo => self.growth = self.growth.saturating_add(after),
            ActionKind::CopyFile => {
                self.growth = self.growth.saturating_add(after.saturating_sub(before));
                self.largest_draft = self.largest_draft.max(before.min(after));
            }
            ActionKind::Patch => self.growth = self.growth.saturating_add(after.saturating_sub(before)),
            ActionKind::CreateDirectory | ActionKind::CreateSymlink | ActionKind::Remove => {}
        }
    }

    fn total(self) -> u64 {
        self.growth.saturating_add(self.largest_draft).saturating_add(RESERVE)
    }
}

/// A tablespace's link that is yet to be made, and its text.
fn new_link(action: &Action) -> Option<(&ClusterPath, &LinkText)> {
    let text = action.after.as_ref()?.link.as_ref()?;
    (action.kind == ActionKind::CreateSymlink).then_some((&action.path, text))
}

fn size(state: &Option<PathState>) -> u64 {
    state.as_ref().and_then(|state| state.size).unwrap_or(0)
}

fn allocated(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(ALLOCATION).unwrap_or(u64::MAX)
}

/// What the actions need on each file system where they write.
///
/// # Errors
/// When the system does not tell of one.
pub fn rooms(manifest: &Manifest, site: &dyn Site) -> Result<Vec<Room>> {
    let links: BTreeMap<&[u8], (&ClusterPath, &LinkText)> =
        manifest.actions.iter().filter_map(new_link).map(|link| (link.0.as_bytes(), link)).collect();
    let block_size = manifest.target.control_file.geometry.block_size;
    let (mut systems, mut needs) = (BTreeMap::new(), BTreeMap::new());
    for action in &manifest.actions {
        let new = action.path.directories().find_map(|link| links.get(link).copied());
        let system = match systems.entry((new.map(|(link, _)| link), site.root_link(&action.path))) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(unknown) => {
                let system = site.file_system(&action.path, new)?;
                let device = *unknown.insert(system.device);
                needs.entry(device).or_insert((system, Need::default(), Need::default()));
                device
            }
        };
        if let Some((_, without, with)) = needs.get_mut(&system) {
            without.add(action, false, block_size);
            with.add(action, true, block_size);
        }
    }
    let room = |(system, without, with): (FileSystem, Need, Need)| Room {
        shown: system.shown,
        free: system.free,
        without_undo: without.total(),
        with_undo: with.total(),
    };
    Ok(needs.into_values().map(room).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Phase, Reason};

    fn action(kind: ActionKind, before: Option<u64>, after: Option<u64>) -> Action {
        let state = |size| PathState { size: Some(size), ..PathState::default() };
        Action {
            after: after.map(state),
            before: before.map(state),
            blocks: Vec::new(),
            kind,
            path: ClusterPath::new(b"base/1/2").unwrap(),
            phase: Phase::Copy,
            reason: Reason::OnlyOnSource,
            source: None,
        }
    }

    #[test]
    fn growth_adds_up_and_the_largest_draft_is_beside_it() {
        let cases = [
            (action(ActionKind::CopyFile, None, Some(1)), (4096, 0)),
            (action(ActionKind::CopyFile, Some(8192), Some(5000)), (0, 8192)),
            (action(ActionKind::Patch, Some(8192), Some(16384)), (8192, 0)),
            (action(ActionKind::Patch, Some(16384), Some(8192)), (0, 0)),
            (action(ActionKind::Remove, Some(16384), None), (0, 0)),
            (action(ActionKind::CopyFile, None, Some(u64::MAX)), (u64::MAX, 0)),
        ];
        for (action, (growth, largest_draft)) in cases {
            let mut need = Need::default();
            need.add(&action, false, 8192);
            assert_eq!(need, Need { growth, largest_draft }, "{action:?}");
            assert!(need.total() >= RESERVE);
        }
        let mut both = Need::default();
        both.add(&action(ActionKind::CopyFile, None, Some(4096)), false, 8192);
        both.add(&action(ActionKind::CopyFile, Some(4096), Some(8192)), false, 8192);
        assert_eq!(both, Need { growth: 8192, largest_draft: 4096 });
    }

    #[test]
    fn what_is_kept_for_an_undo_needs_room() {
        let cases = [
            (action(ActionKind::CopyFile, Some(8192), Some(5000)), 8192),
            (action(ActionKind::Patch, Some(8192), Some(16384)), 8192),
            (action(ActionKind::Patch, Some(16384), Some(8192)), 8192),
            (action(ActionKind::Remove, Some(16384), None), 0),
        ];
        for (action, growth) in cases {
            let mut need = Need::default();
            need.add(&action, true, 8192);
            assert_eq!(need, Need { growth, largest_draft: 0 }, "{action:?}");
        }
    }
}
