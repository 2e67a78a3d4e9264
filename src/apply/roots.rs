//! State directories outside of the data directory: one in each root, that is where `pg_wal` or a tablespace is.
//!
//! An apply may remove the link to such a root, and the next one no longer sees it. So the state names the roots in which
//! something is kept, and a file in each names the apply it belongs to: by then the place may be another cluster's.

use std::collections::BTreeSet;

use super::seal::write_file;
use super::state::State;
use crate::cluster::{Durability, FileKind, OWNER_FILE, STATE_DIRECTORY, Target, TargetStore};
use crate::error::{Context, Result};
use crate::manifest::Manifest;
use crate::types::{ClusterPath, LinkText};

/// The roots in which an apply of this plan keeps something, and where their links lead.
pub(super) fn kept_in(store: &dyn TargetStore, manifest: &Manifest) -> Vec<(ClusterPath, LinkText)> {
    let changed = manifest.actions.iter().filter(|action| action.before.is_some());
    let links: BTreeSet<ClusterPath> = changed.filter_map(|action| store.root_link(&action.path)).collect();
    let roots = manifest.target.roots.iter().filter(|root| links.contains(&root.path));
    roots.map(|root| (root.path.clone(), root.link.clone())).collect()
}

/// Writes the name of the apply into each of these roots, durably.
pub(super) fn claim(store: &mut dyn TargetStore, roots: &[(ClusterPath, LinkText)], id: &str) -> Result<()> {
    roots.iter().try_for_each(|(link, _)| {
        let path =
            link.join(format!("{STATE_DIRECTORY}/{OWNER_FILE}").as_bytes()).context(|| "no such name".to_owned())?;
        write_file(store, &path, id.as_bytes(), Durability::Now)
    })
}

/// Drops what an earlier apply has kept in roots that no link leads to any more.
///
/// # Errors
/// When one is there and cannot be cleared.
pub(super) fn forget(store: &mut dyn TargetStore, target: &dyn Target, state: &State) -> Result<()> {
    // What a copy of the directory names is the original's.
    if !state.is_at_home(target) {
        return Ok(());
    }
    for (link, text) in &state.header.roots {
        let now = store.entry(link)?.map(|entry| entry.kind);
        if now != Some(FileKind::Symlink { text: text.as_bytes().to_vec() }) {
            store.drop_kept_at(link, text, &state.header.id)?;
        }
    }
    Ok(())
}
