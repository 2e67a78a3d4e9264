//! Executing actions, phase by phase; see `copying` for those that copy.

use std::thread;

use super::copying::Unsettled;
use super::images::Images;
use super::journal::{PhaseDone, Record, Writer as Journal};
use crate::cluster::{FileEntry, FileKind, SMALL_FILE_LIMIT, Source, TargetStore};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::manifest::{Action, ActionKind, Manifest, PathState, Phase, WalPlace};
use crate::progress::Progress;
use crate::types::ClusterPath;

/// Threads that remove files.
const REMOVING: usize = 8;

/// Executes the actions of a manifest, phase by phase.
pub(super) struct Units<'a> {
    pub(super) store: &'a mut dyn TargetStore,
    pub(super) source: &'a mut dyn Source,
    pub(super) progress: &'a dyn Progress,
    pub(super) manifest: &'a Manifest,
    pub(super) journal: &'a mut Journal,
    /// Where what is overwritten is kept; none where nothing is.
    pub(super) images: Option<Images>,
    /// Bytes after which what was written is made durable and journaled.
    pub(super) batch_bytes: u64,
    /// Whether somebody wants this to end.
    pub(super) interrupt: &'a Interrupt,
    /// Bytes copied by this process.
    pub(super) bytes: u64,
    /// Directories that could not be removed because something is in them.
    pub(super) left: u64,
    /// What is done, durable, and not in the journal yet: it goes there together with the next before-images.
    pub(super) owed: Vec<Record>,
    /// What is being made durable.
    pub(super) unsettled: Option<Unsettled>,
}

impl Units<'_> {
    /// Executes what the manifest has for a phase, as far as the journal does not say that it is done.
    pub(super) fn phase(&mut self, phase: Phase) -> Result<()> {
        if self.journal.journal().is_done(phase) {
            return Ok(());
        }
        let manifest = self.manifest;
        let actions = numbered(manifest).filter(|(_, action)| action.phase == phase);
        match phase {
            Phase::Wal | Phase::Create | Phase::Copy => {
                let copies =
                    |(_, action): &(u32, &Action)| matches!(action.kind, ActionKind::CopyFile | ActionKind::Patch);
                let (copies, creations): (Vec<_>, Vec<_>) = actions.partition(copies);
                creations.into_iter().try_for_each(|(_, action)| self.create(action))?;
                self.copy(copies.into_iter().map(|(number, action)| (Some(number), action)).collect())?;
            }
            Phase::Truncate => self.truncate()?,
            Phase::Remove => self.remove(actions.collect())?,
            Phase::Seal | Phase::Finish => return Ok(()),
        }
        self.store.sync(self.progress)?;
        let done = PhaseDone::of(phase).map(Record::Phase);
        self.journal.write(done.into_iter().collect())
    }

    fn create(&mut self, action: &Action) -> Result<()> {
        let link = action.after.as_ref().and_then(|state| state.link.as_ref());
        match link {
            Some(link) => self.store.create_symlink(&action.path, link.as_bytes()),
            None => self.store.create_directory(&action.path, None),
        }
    }

    /// Cuts the files that are longer on the target, those with copied blocks among them.
    fn truncate(&mut self) -> Result<()> {
        let cuts = numbered(self.manifest)
            .filter(|(_, action)| action.kind == ActionKind::Patch && size(&action.after) < size(&action.before));
        let mut there = Vec::new();
        for (number, action) in cuts {
            self.interrupt.check()?;
            // Nothing to cut from a file that a live source has dropped meanwhile.
            if self.store.entry(&action.path)?.is_none() {
                continue;
            }
            let (before, after) = (size(&action.before), size(&action.after));
            if let Some(images) = &mut self.images {
                images.save(self.store, number, &action.path, after, before - after)?;
            }
            there.push((action, after));
        }
        if let Some(images) = &mut self.images {
            let durable = images.sync()?;
            self.store.sync_kept()?;
            self.journal.write(durable)?;
        }
        there.into_iter().try_for_each(|(action, after)| self.store.truncate(&action.path, after))
    }

    /// Removes in descending order, so that a directory's content goes before it.
    fn remove(&mut self, actions: Vec<(u32, &Action)>) -> Result<()> {
        if self.images.is_some() {
            for (number, action) in &actions {
                self.interrupt.check()?;
                self.store.keep(&action.path, &number.to_string())?;
            }
            self.store.sync_kept()?;
        }
        let is_directory =
            |action: &Action| action.before.as_ref().is_some_and(|state| state.size.is_none() && state.link.is_none());
        let (directories, others): (Vec<_>, Vec<_>) = actions.into_iter().partition(|(_, action)| is_directory(action));
        self.remove_files(&others.into_iter().map(|(_, action)| action).collect::<Vec<_>>())?;
        for (number, action) in directories.into_iter().rev() {
            self.interrupt.check()?;
            let gone = if self.images.is_some() {
                self.store.keep_directory(&action.path, &number.to_string())?
            } else {
                self.store.remove(&action.path)?
            };
            self.left += u64::from(!gone);
        }
        // Where directories went to, before where they came from.
        self.store.sync_kept()
    }

    /// Removes what is no directory, several at a time: freeing a large file's blocks takes a while.
    fn remove_files(&mut self, actions: &[&Action]) -> Result<()> {
        let interrupt = self.interrupt;
        let remove = |store: &mut dyn TargetStore, actions: &[&Action]| {
            actions.iter().try_fold(0, |left, action| {
                interrupt.check()?;
                Ok(left + u64::from(!store.remove(&action.path)?))
            })
        };
        let share = actions.len().div_ceil(REMOVING).max(1);
        let mut parts = actions.chunks(share);
        let own = parts.next().unwrap_or_default();
        let others: Vec<_> = parts.map(|part| (self.store.another(), part)).collect();
        let left: Result<Vec<u64>> = thread::scope(|scope| {
            let (mut threads, mut alone) = (Vec::new(), Vec::new());
            for (store, part) in others {
                match store {
                    Some(mut store) => threads.push(scope.spawn(move || remove(&mut *store, part))),
                    None => alone.push(part),
                }
            }
            let here = std::iter::once(own).chain(alone).map(|part| remove(self.store, part));
            let here: Vec<Result<u64>> = here.collect();
            let died = || Err(Error::failure("a thread that removed files has died"));
            let there = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| died()));
            here.into_iter().chain(there).collect()
        });
        self.left += left?.into_iter().sum::<u64>();
        Ok(())
    }

    /// Copies settings again that somebody has rewritten since they were copied (orchestrators do that while they
    /// see no server): what they wrote is kept aside.
    pub(super) fn redo_rewritten(&mut self) -> Result<()> {
        let manifest = self.manifest;
        let settings = numbered(manifest)
            .filter(|(_, action)| action.kind == ActionKind::CopyFile && is_setting(&action.path))
            .filter(|(_, action)| size(&action.source) <= SMALL_FILE_LIMIT)
            .filter(|(number, _)| self.journal.journal().has(*number, 0));
        let mut rewritten = Vec::new();
        for (number, action) in settings.collect::<Vec<_>>() {
            let Some(copied) = self.journal.journal().record_of(number, 0) else { continue };
            let entry = self.store.entry(&action.path)?;
            // No settings are so large; a server's log may be.
            if copied.bytes > SMALL_FILE_LIMIT || (copied.gone && entry.is_none()) {
                continue;
            }
            let as_long =
                matches!(entry, Some(FileEntry { kind: FileKind::File { size, .. }, .. }) if size == copied.bytes);
            let found = if as_long { self.store.read_small(&action.path)? } else { None };
            if found.is_some_and(|found| crc32c::crc32c(&found).to_le_bytes() == copied.crc) {
                continue;
            }
            self.store.keep(&action.path, &format!("{number}.rewritten"))?;
            self.journal.journal_mut().forget(number);
            rewritten.push((Some(number), action));
        }
        self.store.sync_kept()?;
        self.copy(rewritten)
    }
}

/// The manifest's actions with their numbers.
pub(super) fn numbered(manifest: &Manifest) -> impl DoubleEndedIterator<Item = (u32, &Action)> {
    let actions = manifest.actions.iter().enumerate();
    actions.map(|(number, action)| (u32::try_from(number).unwrap_or(u32::MAX), action))
}

/// Whether a path is one of those that people and orchestrators write: outside of the directories that only servers
/// write in.
fn is_setting(path: &ClusterPath) -> bool {
    let first = path.components().next().unwrap_or_default();
    let of_server = matches!(first, b"base" | b"global") || (first.starts_with(b"pg_") && first != path.as_bytes());
    !of_server && path.as_bytes().len() < 1024
}

pub(super) fn size(state: &Option<PathState>) -> u64 {
    state.as_ref().and_then(|state| state.size).unwrap_or(0)
}

/// Whether the plan says that replay reads this path, from the source.
pub(super) fn is_replayed(manifest: &Manifest, path: &ClusterPath) -> bool {
    let segments = manifest.wal.iter().flat_map(|wal| &wal.segments);
    segments
        .into_iter()
        .any(|segment| segment.place == WalPlace::Source && path.below(b"pg_wal") == Some(segment.file.as_bytes()))
}
