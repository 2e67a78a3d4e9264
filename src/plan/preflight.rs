//! What would keep an apply from doing what a plan says, as far as it can be known before the first write.

use std::collections::BTreeSet;

use crate::cluster::{STATE_DIRECTORY, Site};
use crate::error::{Context, Result};
use crate::manifest::{Action, ActionKind, Manifest};
use crate::types::ClusterPath;

/// Every path that an apply of this plan would change and that this process cannot, and why: in the order of the
/// actions, then what the last steps write.
///
/// # Errors
/// When the system does not tell.
pub fn obstacles(manifest: &Manifest, site: &dyn Site) -> Result<Vec<(ClusterPath, &'static str)>> {
    let own = own_paths(manifest)?;
    let changed = manifest.actions.iter().map(|action| (&action.path, action.kind == ActionKind::Patch));
    let mut obstacles = Vec::new();
    for (path, in_place) in changed.chain(own.iter().map(|path| (path, false))) {
        if let Some(obstacle) = site.obstacle(path, in_place)? {
            obstacles.push((path.clone(), obstacle));
        }
    }
    Ok(obstacles)
}

/// What an apply writes besides the paths of its actions: the last steps' files, and the state directories.
fn own_paths(manifest: &Manifest) -> Result<Vec<ClusterPath>> {
    let mut paths = vec![named("global/pg_control")?];
    let state = named(STATE_DIRECTORY)?;
    let copied = manifest.actions.iter().filter(|action| action.kind == ActionKind::CopyFile);
    let copied_to: BTreeSet<&[u8]> = copied.flat_map(|action| action.path.directories()).collect();
    for root in manifest.target.roots.iter().map(|root| &root.path) {
        if copied_to.contains(root.as_bytes()) {
            paths.push(joined(root, STATE_DIRECTORY)?);
        }
    }
    paths.push(joined(&state, "state.json")?);
    paths.push(state);
    paths.push(named("backup_label")?);
    if manifest.recovery.is_some() {
        paths.push(named("postgresql.auto.conf")?);
        paths.push(named("standby.signal")?);
    }
    Ok(paths)
}

/// The links that actions make, and their texts.
#[must_use]
pub fn new_links(actions: &[Action]) -> Vec<(&ClusterPath, &[u8])> {
    let links = actions.iter().filter(|action| action.kind == ActionKind::CreateSymlink);
    links.filter_map(|action| Some((&action.path, action.after.as_ref()?.link.as_ref()?.as_bytes()))).collect()
}

fn named(path: &str) -> Result<ClusterPath> {
    ClusterPath::new(path.as_bytes()).context(|| "no such name".to_owned())
}

fn joined(directory: &ClusterPath, name: &str) -> Result<ClusterPath> {
    directory.join(name.as_bytes()).context(|| "no such name".to_owned())
}
