//! Executing actions: the one place that every change of a target passes.
//!
//! Copies are done in batches. For each: what will be overwritten is kept for an undo, durably; bytes are fetched and
//! written; they are made durable; the journal says so.

use std::os::fd::BorrowedFd;

use super::done::Done;
use super::images::Images;
use super::journal::{Copied, PIECE, PhaseDone, Record, Writer as Journal, pieces};
use crate::cluster::{
    Durability, FileEntry, FileKind, NewFile, PatchFile, Request, SMALL_FILE_LIMIT, Sink, Source, SourceKind,
    TargetStore,
};
use crate::error::{Error, ErrorKind, Result};
use crate::interrupt::Interrupt;
use crate::manifest::{Action, ActionKind, Manifest, PathState, Phase, WalPlace};
use crate::progress::Progress;
use crate::types::ClusterPath;

/// Requests in a batch: what a live source can answer in few round trips.
const BATCH_REQUESTS: usize = 8192;
/// Bytes in a batch, after which what was written is made durable and journaled.
const BATCH_BYTES: u64 = PIECE;

/// Executes the actions of a manifest, phase by phase.
pub(super) struct Units<'a> {
    pub(super) store: &'a mut dyn TargetStore,
    pub(super) source: &'a mut dyn Source,
    pub(super) progress: &'a dyn Progress,
    pub(super) manifest: &'a Manifest,
    pub(super) journal: &'a mut Journal,
    /// Where what is overwritten is kept; none where nothing is.
    pub(super) images: Option<Images>,
    /// Whether somebody wants this to end.
    pub(super) interrupt: &'a Interrupt,
    /// Bytes copied by this process.
    pub(super) bytes: u64,
    /// Directories that could not be removed because something is in them.
    pub(super) left: u64,
    /// What is done, durable, and not in the journal yet: it goes there together with the next before-images.
    pub(super) owed: Vec<Record>,
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
        for (number, action) in actions.into_iter().rev() {
            self.interrupt.check()?;
            let is_directory = action.before.as_ref().is_some_and(|state| state.size.is_none() && state.link.is_none());
            let gone = if is_directory && self.images.is_some() {
                self.store.keep_directory(&action.path, &number.to_string())?
            } else {
                self.store.remove(&action.path)?
            };
            self.left += u64::from(!gone);
        }
        // Where directories went to, before where they came from.
        self.store.sync_kept()
    }

    /// Copies files, blocks and tails. Those with a number are journaled by it.
    pub(super) fn copy(&mut self, actions: Vec<(Option<u32>, &Action)>) -> Result<()> {
        let copied = self.copy_all(actions);
        // What was done before a failure is done.
        let noted = self.pay();
        copied.and(noted)
    }

    fn copy_all(&mut self, actions: Vec<(Option<u32>, &Action)>) -> Result<()> {
        let mut batch = Batch::default();
        for (number, action) in actions {
            self.check_draft(number, action)?;
            let all = pieces(action, u64::from(self.manifest.target.control_file.geometry.block_size));
            let last = all.len().saturating_sub(1);
            for (place, (offset, length)) in all.into_iter().enumerate() {
                let piece = u32::try_from(place).unwrap_or(u32::MAX);
                let done = number.and_then(|number| self.journal.journal().record_of(number, piece));
                if let Some(done) = done {
                    if done.first == piece {
                        self.progress.advance(done.bytes);
                    }
                    continue;
                }
                batch.add(Piece { action, number, piece, is_last: place == last }, offset, length);
                if batch.is_full() {
                    self.copy_batch(&std::mem::take(&mut batch))?;
                }
            }
        }
        self.copy_batch(&batch)
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

    /// A file of which parts are done must still have them in its draft; else it is copied anew.
    fn check_draft(&mut self, number: Option<u32>, action: &Action) -> Result<()> {
        let Some(number) = number.filter(|_| action.kind == ActionKind::CopyFile) else { return Ok(()) };
        let all = pieces(action, 1).len();
        let last = u32::try_from(all.saturating_sub(1)).unwrap_or(u32::MAX);
        let journal = self.journal.journal();
        let begun = (0..last).take_while(|&piece| journal.has(number, piece)).count() as u64;
        if begun == 0 || journal.has(number, last) {
            return Ok(());
        }
        let there = self.store.draft_size(&action.path, &number.to_string())?;
        // A file that was shorter than planned is no reason.
        if there.is_none() {
            self.journal.journal_mut().forget(number);
        }
        Ok(())
    }

    /// Keeps for an undo what a batch is going to overwrite.
    fn protect(&mut self, batch: &Batch<'_>) -> Result<()> {
        let Some(images) = &mut self.images else { return Ok(()) };
        for (piece, request) in batch.pieces.iter().zip(&batch.requests) {
            self.interrupt.check()?;
            let (Some(number), Some(before)) = (piece.number, &piece.action.before) else { continue };
            if piece.action.kind == ActionKind::CopyFile {
                self.store.keep(&piece.action.path, &number.to_string())?;
                continue;
            }
            let there = before.size.unwrap_or(0).saturating_sub(request.offset);
            let length = request.length.unwrap_or(0).min(there);
            images.save(self.store, number, &piece.action.path, request.offset, length)?;
        }
        let durable = images.sync()?;
        self.store.sync_kept()?;
        self.owed.extend(durable);
        self.pay()
    }

    /// Writes into the journal what is owed to it.
    fn pay(&mut self) -> Result<()> {
        self.journal.write(std::mem::take(&mut self.owed))
    }

    fn copy_batch(&mut self, batch: &Batch<'_>) -> Result<()> {
        if batch.requests.is_empty() {
            return Ok(());
        }
        self.protect(batch)?;
        let mut writer = Writer {
            live: self.source.kind() == SourceKind::LiveServer,
            store: self.store,
            manifest: self.manifest,
            batch,
            undo: self.images.is_some(),
            current: None,
            next: 0,
            done: Vec::new(),
            progress: self.progress,
            interrupt: self.interrupt,
            bytes: &mut self.bytes,
        };
        let fetched = self.source.fetch(&batch.requests, &mut writer);
        let fetched = fetched.and_then(|()| writer.advance_to(batch.requests.len()));
        let done = writer.leave();
        // What has come counts, whatever happened then.
        let noted = self.note(done);
        fetched.and(noted)
    }

    /// Makes durable what was written, and notes it: at once, unless another sync of the journal is about to come.
    fn note(&mut self, done: Vec<Copied>) -> Result<()> {
        self.store.sync(&crate::progress::Silent)?;
        self.owed.extend(done.into_iter().map(Record::Copied));
        if self.images.is_some() { Ok(()) } else { self.pay() }
    }
}

/// The manifest's actions with their numbers.
pub(super) fn numbered(manifest: &Manifest) -> impl DoubleEndedIterator<Item = (u32, &Action)> {
    let actions = manifest.actions.iter().enumerate();
    actions.map(|(number, action)| (u32::try_from(number).unwrap_or(u32::MAX), action)).collect::<Vec<_>>().into_iter()
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

/// A part of an action, as far as one request goes.
#[derive(Clone, Copy)]
struct Piece<'m> {
    action: &'m Action,
    /// The action's number, where it is one of the manifest's.
    number: Option<u32>,
    piece: u32,
    /// Whether the action is done with it.
    is_last: bool,
}

impl Piece<'_> {
    /// The name of the new file's draft.
    fn draft(&self) -> String {
        match self.number {
            Some(number) => number.to_string(),
            None => "extra".to_owned(),
        }
    }
}

/// Requests, and the piece that each is for.
#[derive(Default)]
struct Batch<'m> {
    requests: Vec<Request>,
    pieces: Vec<Piece<'m>>,
    bytes: u64,
}

impl<'m> Batch<'m> {
    fn add(&mut self, piece: Piece<'m>, offset: u64, length: Option<u64>) {
        let open = size(&piece.action.source).saturating_sub(offset);
        self.bytes = self.bytes.saturating_add(length.unwrap_or(open));
        self.requests.push(Request { path: piece.action.path.clone(), offset, length });
        self.pieces.push(piece);
    }

    fn is_full(&self) -> bool {
        self.requests.len() >= BATCH_REQUESTS || self.bytes >= BATCH_BYTES
    }
}

/// Writes what a source delivers.
struct Writer<'a> {
    store: &'a mut dyn TargetStore,
    manifest: &'a Manifest,
    batch: &'a Batch<'a>,
    live: bool,
    undo: bool,
    current: Option<Current<'a>>,
    /// The request that is being delivered.
    next: usize,
    /// Pieces that are written.
    done: Vec<Copied>,
    progress: &'a dyn Progress,
    interrupt: &'a Interrupt,
    bytes: &'a mut u64,
}

/// The file that is being written.
struct Current<'a> {
    action: &'a Action,
    file: OpenTarget,
    /// The end of what was written.
    end: u64,
    /// What is written.
    done: Done,
}

impl Current<'_> {
    /// The pieces that are written; what came for a file that is gone was not.
    fn finished(&mut self) -> Vec<Copied> {
        let is_gone = matches!(self.file, OpenTarget::Gone);
        let mut records = self.done.take();
        records.iter_mut().filter(|record| is_gone && record.bytes == 0).for_each(|record| record.gone = true);
        records
    }
}

enum OpenTarget {
    New(Box<dyn NewFile>),
    Patched(Box<dyn PatchFile>),
    Gone,
}

impl Current<'_> {
    fn file(&mut self) -> Option<&mut dyn PatchFile> {
        match &mut self.file {
            OpenTarget::New(file) => Some(&mut **file),
            OpenTarget::Patched(file) => Some(&mut **file),
            OpenTarget::Gone => None,
        }
    }
}

impl<'a> Writer<'a> {
    /// Goes on to the request `index`: ends the piece before it, and its file unless this one is for the same.
    fn advance_to(&mut self, index: usize) -> Result<()> {
        self.interrupt.check()?;
        if index != self.next || index >= self.batch.requests.len() {
            let asked = self.batch.requests.get(self.next).and_then(|request| request.length);
            if let Some(current) = &mut self.current {
                current.done.end(asked);
            }
        }
        let action = self.batch.pieces.get(index).map(|piece| piece.action);
        let same = self.current.as_ref().is_some_and(|current| action.is_some_and(|a| std::ptr::eq(a, current.action)));
        if !same {
            self.finish()?;
        }
        self.next = index;
        Ok(())
    }

    /// Ends the current file.
    fn finish(&mut self) -> Result<()> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let is_last = self.batch.pieces.get(self.next).is_some_and(|piece| piece.is_last);
        let planned = size(&current.action.source);
        let finished = current.finished();
        match current.file {
            OpenTarget::New(file) if !is_last => file.pause()?,
            OpenTarget::New(_) if !self.live && current.end != planned => {
                return Err(Error::failure(format!(
                    "{}: the source's file had {} bytes, planned {planned}: the source is not at rest",
                    current.action.path, current.end
                )));
            }
            OpenTarget::New(file) => file.commit(Durability::Later)?,
            OpenTarget::Patched(_) | OpenTarget::Gone => {}
        }
        self.done.extend(finished);
        Ok(())
    }

    /// Gives up the file that is not complete, and says what is done.
    fn leave(&mut self) -> Vec<Copied> {
        if let Some(mut current) = self.current.take() {
            let finished = current.finished();
            let kept = match current.file {
                OpenTarget::New(file) => file.pause().is_ok(),
                OpenTarget::Patched(_) | OpenTarget::Gone => true,
            };
            if kept {
                self.done.extend(finished);
            }
        }
        std::mem::take(&mut self.done).into_iter().filter(|copied| copied.action != u32::MAX).collect()
    }

    /// The open target of the request `index`, at the beginning of its piece if `offset` is.
    fn open(&mut self, index: usize, offset: u64) -> Result<&mut Current<'a>> {
        self.advance_to(index)?;
        let batch = self.batch;
        let (piece, request) = match (batch.pieces.get(index), batch.requests.get(index)) {
            (Some(piece), Some(request)) => (piece, request),
            _ => return Err(Error::failure("the source delivered more than it was asked for")),
        };
        if self.current.is_none() {
            let path = &piece.action.path;
            let file = match piece.action.kind {
                ActionKind::CopyFile => {
                    OpenTarget::New(self.store.create_file(path, &piece.draft(), request.offset)?)
                }
                // Dropped on the source before, and made again since: replay does that, too.
                _ if self.live && self.store.entry(path)?.is_none() => OpenTarget::Gone,
                _ => OpenTarget::Patched(self.store.open_file(path)?),
            };
            self.current = Some(Current { action: piece.action, file, end: request.offset, done: Done::default() });
        }
        let current = self.current.as_mut().ok_or_else(|| Error::failure("no file is open"))?;
        if current.done.is_between_pieces() || offset == request.offset {
            current.done.begin(piece.number.unwrap_or(u32::MAX), piece.piece);
        }
        Ok(current)
    }

    fn wrote(&mut self, end: u64, bytes: u64) {
        if let Some(current) = &mut self.current {
            current.end = end;
        }
        *self.bytes += bytes;
        self.progress.advance(bytes);
    }

    /// Whether replay cannot do without: segments up to the source's end, by the plan or now.
    fn is_needed_wal(&self, action: &Action) -> bool {
        action.phase == Phase::Finish || (action.phase == Phase::Wal && is_replayed(self.manifest, &action.path))
    }

    fn request(&self, index: usize) -> Result<(u64, Option<u64>)> {
        let request = self.batch.requests.get(index);
        request.map(|r| (r.offset, r.length)).ok_or_else(|| Error::failure("the source answered what it was not asked"))
    }
}

impl Sink for Writer<'_> {
    fn bytes(&mut self, index: usize, offset: u64, data: &[u8]) -> Result<()> {
        let (from, length) = self.request(index)?;
        let end = offset.saturating_add(data.len() as u64);
        if offset < from || length.is_some_and(|length| end > from.saturating_add(length)) {
            return Err(Error::failure("the source delivered bytes beyond those it was asked for"));
        }
        let current = self.open(index, offset)?;
        if let Some(file) = current.file() {
            file.write_at(data, offset)?;
            let crc = crc32c::crc32c_append(current.done.crc(), data);
            current.done.wrote(data.len() as u64, crc);
        }
        self.wrote(end, data.len() as u64);
        Ok(())
    }

    fn file(&mut self, index: usize, source: BorrowedFd<'_>) -> Result<()> {
        let (offset, length) = self.request(index)?;
        let current = self.open(index, offset)?;
        let so_far = current.done.crc();
        let (copied, crc) = match current.file() {
            Some(file) => file.copy_from(source, offset, length.unwrap_or(u64::MAX - offset), so_far)?,
            None => (0, so_far),
        };
        current.done.wrote(copied, crc);
        if !self.live && length.is_some_and(|length| copied != length) {
            return Err(Error::failure(format!("the source's file ended after {} bytes", offset + copied)));
        }
        self.wrote(offset + copied, copied);
        Ok(())
    }

    /// A live source may drop a relation at any time; its WAL tells, and replay does the rest.
    fn gone(&mut self, index: usize) -> Result<()> {
        self.advance_to(index)?;
        let Some(piece) = self.batch.pieces.get(index).copied() else { return Ok(()) };
        let path = &piece.action.path;
        if !self.live {
            return Err(Error::failure(format!("{path} is gone from the source, which should be at rest")));
        }
        if self.is_needed_wal(piece.action) {
            return Err(Error::new(ErrorKind::DeadEnd, format!("the source no longer has {path}, which replay needs"))
                .hint("this plan can never finish; the source must keep its WAL (a slot, or wal_keep_size) while one is applied"));
        }
        if self.undo
            && let Some(number) = piece.number
        {
            self.store.keep(path, &number.to_string())?;
            self.store.sync_kept()?;
        }
        let copied = Copied {
            action: piece.number.unwrap_or(u32::MAX),
            first: piece.piece,
            count: 1,
            bytes: 0,
            crc: [0; 4],
            gone: true,
        };
        let mut records = self.current.take().map(|mut current| current.done.take()).unwrap_or_default();
        records.push(copied);
        let done = Done::of(records);
        self.current = Some(Current { action: piece.action, file: OpenTarget::Gone, end: 0, done });
        self.store.remove(path).map(|_| ())
    }
}
