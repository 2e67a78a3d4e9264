//! Putting a target back as it was before an apply, bit for bit.
//!
//! Works from the plan and from what was kept, needs no source, and can die anywhere, too: nothing that is kept
//! is dropped before everything is back.

use super::finish::{kept_extra, last_paths};
use super::images::Images;
use super::journal::Record;
use super::kept::check_kept;
use super::seal::{KEPT_CONTROL, write_file};
use super::state::{Condition, State, control_path, open_journal, path_of, sha256};
use super::units::{numbered, size};
use super::{Actor, check_manifest, check_no_server, journal::Journal, note};
use crate::cluster::{Durability, FileKind, Target, TargetStore};
use crate::error::{Context, Error, ErrorId, ErrorKind, Result};
use crate::format::ControlFile;
use crate::interrupt::Interrupt;
use crate::manifest::{Action, ActionKind, Manifest};
use crate::progress::{Progress, Stage};
use crate::types::ClusterPath;

/// What an undo works with.
pub struct UndoContext<'a> {
    /// The plan that was applied, from the state directory.
    pub manifest: &'a Manifest,
    /// The target, for reading.
    pub target: &'a mut dyn Target,
    /// The target, for writing.
    pub store: &'a mut dyn TargetStore,
    /// Who watches.
    pub progress: &'a dyn Progress,
    /// Whether somebody wants this to end.
    pub interrupt: &'a Interrupt,
    /// Who runs it.
    pub actor: &'a Actor,
    /// The time, RFC 3339 in UTC, for the history.
    pub time: &'a dyn Fn() -> String,
}

impl std::fmt::Debug for UndoContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UndoContext").field("digest", &self.manifest.digest).finish_non_exhaustive()
    }
}

/// What an undo came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undone {
    /// Everything is as it was.
    Restored {
        /// Whether something else had changed the sealed control file meanwhile; what else that changed is not
        /// known.
        tampered: bool,
    },
    /// It had been before.
    Already,
    /// Nothing had been changed.
    Nothing,
}

/// Puts everything back that the apply of the state directory has changed.
///
/// # Errors
/// [`ErrorKind::Precondition`] where that cannot be; [`ErrorKind::Incomplete`] once it has begun.
pub fn undo(context: UndoContext<'_>) -> Result<Undone> {
    let mut context = context;
    check_no_server(context.target)?;
    let control = context.target.control_file()?;
    let state = State::read(context.store)?.ok_or_else(|| {
        Error::of(ErrorId::NothingToUndo, "no apply has begun on this directory: there is nothing to undo")
    })?;
    if state.header.digest != context.manifest.digest {
        return Err(Error::precondition("the state directory's plan is not the one that was applied"));
    }
    check_manifest(context.manifest)?;
    let condition = state.condition(&control);
    match condition {
        Condition::Untouched | Condition::Prepared | Condition::Lost => return Ok(Undone::Nothing),
        Condition::Undone => {
            drop_kept(&mut context)?;
            return Ok(Undone::Already);
        }
        Condition::Superseded => {
            return Err(Error::precondition(
                "a server has run here since the apply, or this is a clone: what was kept does not fit any more",
            )
            .hint("remove it (pg_unfork clean); to go back further, use a backup"));
        }
        Condition::Applying | Condition::Applied | Condition::Tampered | Condition::Undoing => {}
    }
    if !state.header.undo {
        return Err(Error::of(ErrorId::NothingToUndo, "the apply kept nothing to undo it with (--no-undo)")
            .hint("finish it: pg_unfork apply"));
    }
    check_kept(context.store, context.manifest, state.journal.as_ref().ok())?;
    // The way back must not depend on room for a line of history.
    let _ = note_event(&mut context, "undo", None);
    let outcome = restore(&mut context, &state, &control).map_err(|error| {
        error.with_kind(ErrorKind::Incomplete).hint("the target is sealed; run the undo again to go on with it")
    });
    let event = if outcome.is_ok() { "undone" } else { "stopped" };
    // The outcome counts, not the note of it.
    let _ = note_event(&mut context, event, outcome.as_ref().err());
    outcome?;
    Ok(Undone::Restored { tampered: condition == Condition::Tampered })
}

fn note_event(context: &mut UndoContext<'_>, event: &str, error: Option<&Error>) -> Result<()> {
    note(context.store, context.actor, &(context.time)(), event, &context.manifest.digest, error)
}

fn restore(context: &mut UndoContext<'_>, state: &State, control: &[u8]) -> Result<()> {
    let original = original_control(context, state)?;
    let journal = begin(context, state)?;
    let sealed = original.clone().sealed();
    if sha256(control) != sha256(sealed.as_bytes()) {
        write_file(context.store, &control_path()?, sealed.as_bytes(), Durability::Now)?;
    }
    context.progress.begin(Stage::Undo, Some(context.manifest.actions.len() as u64));
    let restored = extras(context, &journal)
        .and_then(|()| remove_new(context))
        .and_then(|()| put_back_all(context))
        .and_then(|()| put_back_blocks(context, state.journal.as_ref().ok()));
    context.progress.end();
    restored?;
    context.store.sync(context.progress)?;
    if !context.store.put_back(&control_path()?, KEPT_CONTROL)? {
        write_file(context.store, &control_path()?, original.as_bytes(), Durability::Now)?;
    }
    context.store.sync(context.progress)?;
    // A damaged journal stays as it is: the control file tells enough.
    if state.journal.is_ok() {
        open_journal(context.store)?.write(vec![Record::Undone])?;
    }
    drop_kept(context)
}

/// The control file as it was, proven.
fn original_control(context: &mut UndoContext<'_>, state: &State) -> Result<ControlFile> {
    let bytes = context.store.read_small(&path_of("pg_control.before")?)?.unwrap_or_default();
    if sha256(&bytes) != state.header.before {
        return Err(Error::failure("the control file that was saved before the apply is damaged or gone")
            .hint("finish the apply instead, or make the target anew from a base backup"));
    }
    ControlFile::parse(&bytes).context(|| "the saved control file cannot be used".to_owned())
}

/// Notes that an undo begins; gives what the apply has noted.
fn begin(context: &mut UndoContext<'_>, state: &State) -> Result<Journal> {
    let Ok(journal) = &state.journal else { return presumed(context.manifest) };
    if !journal.undoing {
        open_journal(context.store)?.write(vec![Record::Undoing])?;
    }
    Ok(journal.clone())
}

/// What must be presumed of the last steps where the journal does not tell: what they write was not there before, else
/// the plan would have an action for it, or say that it is kept. A `backup_label` that stays would lead recovery astray.
fn presumed(manifest: &Manifest) -> Result<Journal> {
    let mut journal = Journal::default();
    for path in last_paths(manifest)? {
        if manifest.actions.iter().all(|action| action.path != path) {
            let existed = manifest.kept.iter().any(|kept| kept.path == path);
            journal.extras.insert(path.as_bytes().to_vec(), existed);
        }
    }
    Ok(journal)
}

fn drop_kept(context: &mut UndoContext<'_>) -> Result<()> {
    context.store.drop_kept()
}

/// What the last steps wrote, and no action is about.
fn extras(context: &mut UndoContext<'_>, journal: &Journal) -> Result<()> {
    for (path, existed) in &journal.extras {
        let path = ClusterPath::new(path).context(|| "no such name".to_owned())?;
        let kept = context.store.put_back(&path, &kept_extra(&path))?;
        if !*existed && !kept {
            context.store.remove(&path)?;
        }
    }
    Ok(())
}

/// Removes what was not there, content before directories.
fn remove_new(context: &mut UndoContext<'_>) -> Result<()> {
    for (_, action) in numbered(context.manifest).rev() {
        context.interrupt.check()?;
        if action.before.is_none() {
            if is_root(context.store, action) {
                leave_root(context.store, action)?;
            }
            context.store.remove(&action.path)?;
        }
    }
    Ok(())
}

/// Whether an action has made a tablespace's link, which leads to another root.
fn is_root(store: &dyn TargetStore, action: &Action) -> bool {
    action.kind == ActionKind::CreateSymlink && store.roots().contains(&Some(action.path.clone()))
}

/// The new tablespace's location is left empty, as it was.
fn leave_root(store: &mut dyn TargetStore, action: &Action) -> Result<()> {
    store.drop_kept_in(&action.path)
}

/// Puts back what was replaced or removed, directories before their content.
fn put_back_all(context: &mut UndoContext<'_>) -> Result<()> {
    for (number, action) in numbered(context.manifest) {
        context.interrupt.check()?;
        context.progress.advance(1);
        let Some(before) = &action.before else { continue };
        if context.store.put_back(&action.path, &number.to_string())? {
            continue;
        }
        // Not removed yet, or a directory that could not be moved away and was removed.
        let is_directory = before.size.is_none() && before.link.is_none();
        if action.kind == ActionKind::Remove && is_directory && context.store.entry(&action.path)?.is_none() {
            context.store.create_directory(&action.path, before.mode.map(|mode| mode.bits()))?;
        }
    }
    Ok(())
}

/// Puts back blocks and tails; then sizes and times are those of before, also where an earlier undo died in between.
fn put_back_blocks(context: &mut UndoContext<'_>, journal: Option<&Journal>) -> Result<()> {
    let (manifest, interrupt) = (context.manifest, context.interrupt);
    Images::each(context.store, journal, &mut |store, number, offset, bytes| {
        interrupt.check()?;
        let action = manifest.actions.get(number as usize).filter(|action| action.kind == ActionKind::Patch);
        let action = action.ok_or_else(|| Error::failure("a before-image is of no action of the plan"))?;
        store.open_file(&action.path)?.write_at(bytes, offset)
    })?;
    for (_, action) in numbered(manifest).filter(|(_, action)| action.kind == ActionKind::Patch) {
        let before = size(&action.before);
        let Some(entry) = context.store.entry(&action.path)? else { continue };
        if matches!(entry.kind, FileKind::File { size, .. } if size > before) {
            context.store.truncate(&action.path, before)?;
        }
        let Some(time) = action.before.as_ref().and_then(|state| state.modified) else { continue };
        let now = context.store.entry(&action.path)?.map(|entry| entry.kind);
        if !matches!(now, Some(FileKind::File { modified: Some(now), .. }) if now == time) {
            context.store.set_modified(&action.path, time)?;
        }
    }
    Ok(())
}
