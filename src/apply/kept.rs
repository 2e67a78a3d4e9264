//! Whether all that an undo needs is there: somebody may have made room, and a disk may have failed.

use super::finish::kept_extra;
use super::images::Images;
use super::journal::Journal;
use super::seal::KEPT_CONTROL;
use super::state::control_path;
use super::units::{numbered, size};
use crate::cluster::TargetStore;
use crate::error::{Context, Error, Result};
use crate::manifest::{Action, ActionKind, Manifest, Phase};
use crate::types::ClusterPath;

/// Everything that the journal says was changed is kept, and every before-image is whole. Changes nothing.
/// Without a journal there is less to compare with.
pub(super) fn check_kept(store: &mut dyn TargetStore, manifest: &Manifest, journal: Option<&Journal>) -> Result<()> {
    let control = control_path()?;
    if !store.is_kept(&control, KEPT_CONTROL)? {
        return Err(gone(&control));
    }
    let images = Images::actions(store, journal)?;
    let nothing = Journal::default();
    let journal = journal.unwrap_or(&nothing);
    let block_size = u64::from(manifest.target.control_file.geometry.block_size);
    for (number, action) in numbered(manifest).filter(|(_, action)| action.before.is_some()) {
        let there = match needs(action, number, journal, block_size) {
            Needs::Nothing => true,
            Needs::Kept => store.is_kept(&action.path, &number.to_string())?,
            Needs::Image => images.contains(&number),
        };
        if !there {
            return Err(gone(&action.path));
        }
    }
    for (path, _) in journal.extras.iter().filter(|(_, existed)| **existed) {
        let path = ClusterPath::new(path).context(|| "no such name".to_owned())?;
        if !store.is_kept(&path, &kept_extra(&path))? {
            return Err(gone(&path));
        }
    }
    Ok(())
}

fn gone(path: &ClusterPath) -> Error {
    Error::failure(format!("what .pg_unfork/undo kept of {path} is gone"))
        .hint("the target cannot be put back as it was: go on without a way back (pg_unfork apply --no-undo), or make the target anew from a base backup")
}

/// What an action needs to be taken back.
#[derive(Debug, PartialEq, Eq)]
enum Needs {
    /// It was not taken, as far as is known, or nothing is lost by it.
    Nothing,
    /// The file or symlink that was replaced or removed.
    Kept,
    /// Blocks that were overwritten.
    Image,
}

fn needs(action: &Action, number: u32, journal: &Journal, block_size: u64) -> Needs {
    let is_directory = action.before.as_ref().is_some_and(|state| state.size.is_none() && state.link.is_none());
    let copied = journal.record_of(number, 0);
    match action.kind {
        ActionKind::CopyFile if copied.is_some() => Needs::Kept,
        ActionKind::Remove if !is_directory && journal.is_done(Phase::Remove) => Needs::Kept,
        ActionKind::Patch if copied.is_some_and(|copied| copied.gone) => Needs::Kept,
        ActionKind::Patch if copied.is_some() => {
            let first = action.blocks.first().map(|range| u64::from(range.first) * block_size);
            if first.is_some_and(|first| first < size(&action.before)) { Needs::Image } else { Needs::Nothing }
        }
        _ => Needs::Nothing,
    }
}
