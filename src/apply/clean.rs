//! Dropping what is kept for an undo, once nobody wants one.

use super::roots;
use super::seal::KEPT_CONTROL;
use super::state::{Condition, State, control_path, path_of};
use crate::cluster::{Target, TargetStore};
use crate::error::{Error, ErrorId, ErrorKind, Result};
use crate::format::ControlFile;
use crate::manifest::{Check, CheckStatus, Manifest, Verdict};

/// WAL that was not archived yet when an apply removed or replaced it: its segments, by name. None where the plan's check
/// has found nothing wrong.
#[must_use]
pub fn unarchived_wal(manifest: &Manifest) -> Vec<String> {
    let is_checked = |check: &Check| check.id == "unarchived_wal" && check.status == CheckStatus::Pass;
    if manifest.verdict != Verdict::Rewind || manifest.checks.iter().any(is_checked) {
        return Vec::new();
    }
    let ready = manifest.actions.iter().filter(|action| action.before.is_some()).filter_map(|action| {
        let name = action.path.below(b"pg_wal/archive_status")?.strip_suffix(b".ready")?;
        Some(String::from_utf8_lossy(name).into_owned())
    });
    ready.collect()
}

/// Drops what is kept, and the state but for its history, on `target` with this control file. `manifest` is the state
/// directory's plan, if it can be read; `force` is needed where WAL goes that was never archived.
///
/// # Errors
/// [`crate::error::ErrorKind::Precondition`] while an apply or an undo is under way, or where un-archived WAL would go.
pub fn clean(
    store: &mut dyn TargetStore,
    target: &dyn Target,
    control: &[u8],
    manifest: Option<&Manifest>,
    force: bool,
) -> Result<bool> {
    let Some(state) = State::read(store)? else { return clean_rest(store, control) };
    let condition = state.condition(control);
    if matches!(condition, Condition::Applying | Condition::Undoing | Condition::Tampered) {
        return Err(Error::of(ErrorId::UnderWay, "an apply or an undo is under way; what is kept is needed")
            .hint("finish it (pg_unfork apply -D) or take it back (pg_unfork undo -D) first"));
    }
    let kept = store.is_kept(&control_path()?, KEPT_CONTROL)?;
    let unarchived = manifest.filter(|_| kept && condition != Condition::Undone).map(unarchived_wal);
    if let Some(segments) = unarchived.filter(|segments| !segments.is_empty() && !force) {
        return Err(Error::precondition(format!(
            "WAL of the target that was never archived would go: {}",
            segments.join(", ")
        ))
        .hint("copy it from .pg_unfork/undo if anybody needs it, then clean with --force"));
    }
    roots::forget(store, target, &state)?;
    drop_all(store)?;
    Ok(true)
}

/// Ends a clean, or a beginning apply, that died: without the state the rest means nothing.
fn clean_rest(store: &mut dyn TargetStore, control: &[u8]) -> Result<bool> {
    if store.entry(&path_of("manifest.json")?)?.is_none() {
        return Ok(false);
    }
    if ControlFile::parse(control).is_ok_and(|control| control.is_sealed()) {
        return Err(Error::of(ErrorId::StateDamaged, "the target is sealed, and what the apply noted in .pg_unfork is gone")
            .with_kind(ErrorKind::Precondition)
            .hint("what is left there may be all that is left of the target's data: copy it, then make the target anew from a base backup"));
    }
    drop_all(store)?;
    Ok(true)
}

/// First goes, durably, the file without which the others mean nothing: an undo must not find the state without what
/// was kept.
fn drop_all(store: &mut dyn TargetStore) -> Result<()> {
    store.remove(&path_of("state.json")?)?;
    store.sync(&crate::progress::Silent)?;
    store.drop_kept()?;
    for name in ["journal", "pg_control.before", "manifest.json"] {
        store.remove(&path_of(name)?)?;
    }
    store.sync(&crate::progress::Silent)
}
