//! Dropping what is kept for an undo, once nobody wants one.

use super::state::{Condition, State, path_of};
use crate::cluster::TargetStore;
use crate::error::{Error, Result};
use crate::manifest::{Manifest, Verdict};

/// WAL that was not archived yet when an apply removed or replaced it: its segments, by name.
#[must_use]
pub fn unarchived_wal(manifest: &Manifest) -> Vec<String> {
    if manifest.verdict != Verdict::Rewind {
        return Vec::new();
    }
    let ready = manifest.actions.iter().filter(|action| action.before.is_some()).filter_map(|action| {
        let name = action.path.below(b"pg_wal/archive_status")?.strip_suffix(b".ready")?;
        Some(String::from_utf8_lossy(name).into_owned())
    });
    ready.collect()
}

/// Drops what is kept, and the state but for its history. `manifest` is the state directory's plan, if it can be
/// read; `force` is needed where WAL goes that was never archived.
///
/// # Errors
/// [`crate::error::ErrorKind::Precondition`] while an apply or an undo is under way, or where un-archived WAL would go.
pub fn clean(store: &mut dyn TargetStore, control: &[u8], manifest: Option<&Manifest>, force: bool) -> Result<bool> {
    let Some(state) = State::read(store)? else { return Ok(false) };
    let condition = state.condition(control);
    if matches!(condition, Condition::Applying | Condition::Undoing | Condition::Tampered) {
        return Err(Error::precondition("an apply or an undo is under way; what is kept is needed")
            .hint("finish it (pg_unfork apply -D) or take it back (pg_unfork undo -D) first"));
    }
    let unarchived = manifest.filter(|_| state.header.undo && condition != Condition::Undone).map(unarchived_wal);
    if let Some(segments) = unarchived.filter(|segments| !segments.is_empty() && !force) {
        return Err(Error::precondition(format!(
            "WAL of the target that was never archived would go: {}",
            segments.join(", ")
        ))
        .hint("copy it from .pg_unfork/undo if anybody needs it, then clean with --force"));
    }
    store.drop_kept()?;
    // First the file without which the others mean nothing.
    for name in ["state.json", "journal", "manifest.json", "pg_control.before"] {
        store.remove(&path_of(name)?)?;
    }
    store.sync(&crate::progress::Silent)?;
    Ok(true)
}
