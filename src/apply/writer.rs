//! Writing what a source delivers into the target.

use std::os::fd::BorrowedFd;

use super::batch::Batch;
use super::done::Done;
use super::journal::Copied;
use super::units::{is_replayed, size};
use crate::cluster::{Durability, NewFile, PatchFile, Sink, Source, TargetStore};
use crate::error::{Error, ErrorId, ErrorKind, Result};
use crate::interrupt::Interrupt;
use crate::manifest::{Action, ActionKind, Manifest, Phase};
use crate::progress::Progress;

/// What is to be copied, and under which circumstances.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) batch: &'a Batch<'a>,
    /// Whether the source is a server, which changes its files meanwhile.
    pub(super) live: bool,
    /// Whether what is removed is kept.
    pub(super) undo: bool,
    pub(super) progress: &'a dyn Progress,
    pub(super) interrupt: &'a Interrupt,
}

/// What came of a job.
pub(super) struct Written {
    /// Pieces that are written, whatever happened then; not durable yet.
    pub(super) done: Vec<Copied>,
    /// Bytes that were written.
    pub(super) bytes: u64,
    /// Whether all of it is done.
    pub(super) outcome: Result<()>,
}

impl Job<'_> {
    /// Fetches and writes.
    pub(super) fn run(self, store: &mut dyn TargetStore, source: &mut dyn Source) -> Written {
        let mut writer = Writer { job: self, store, current: None, next: 0, done: Vec::new(), bytes: 0 };
        let fetched = source.fetch(&self.batch.requests, &mut writer);
        let outcome = fetched.and_then(|()| writer.advance_to(self.batch.requests.len()));
        Written { done: writer.leave(), bytes: writer.bytes, outcome }
    }
}

/// Writes what a source delivers.
struct Writer<'a> {
    job: Job<'a>,
    store: &'a mut dyn TargetStore,
    current: Option<Current<'a>>,
    /// The request that is being delivered.
    next: usize,
    /// Pieces that are written.
    done: Vec<Copied>,
    bytes: u64,
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
        self.job.interrupt.check()?;
        if index != self.next || index >= self.job.batch.requests.len() {
            let asked = self.job.batch.requests.get(self.next).and_then(|request| request.length);
            if let Some(current) = &mut self.current {
                current.done.end(asked);
            }
        }
        let action = self.job.batch.pieces.get(index).map(|piece| piece.action);
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
        let is_last = self.job.batch.pieces.get(self.next).is_some_and(|piece| piece.is_last);
        let planned = size(&current.action.source);
        let finished = current.finished();
        match current.file {
            OpenTarget::New(file) if !is_last => file.pause()?,
            OpenTarget::New(_) if !self.job.live && current.end != planned => {
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
        let batch = self.job.batch;
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
                _ if self.job.live && self.store.entry(path)?.is_none() => OpenTarget::Gone,
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
        self.bytes += bytes;
        self.job.progress.advance(bytes);
    }

    /// Whether replay cannot do without: segments up to the source's end, by the plan or now.
    fn is_needed_wal(&self, action: &Action) -> bool {
        action.phase == Phase::Finish || (action.phase == Phase::Wal && is_replayed(self.job.manifest, &action.path))
    }

    fn request(&self, index: usize) -> Result<(u64, Option<u64>)> {
        let request = self.job.batch.requests.get(index);
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
        if !self.job.live && length.is_some_and(|length| copied != length) {
            return Err(Error::failure(format!("the source's file ended after {} bytes", offset + copied)));
        }
        self.wrote(offset + copied, copied);
        Ok(())
    }

    /// A live source may drop a relation at any time; its WAL tells, and replay does the rest.
    fn gone(&mut self, index: usize) -> Result<()> {
        self.advance_to(index)?;
        let Some(piece) = self.job.batch.pieces.get(index).copied() else { return Ok(()) };
        let path = &piece.action.path;
        if !self.job.live {
            return Err(Error::failure(format!("{path} is gone from the source, which should be at rest")));
        }
        if self.is_needed_wal(piece.action) {
            return Err(Error::of(ErrorId::WalMissing, format!("the source no longer has {path}, which replay needs"))
                .with_kind(ErrorKind::DeadEnd)
                .hint("this plan can never finish; the source must keep its WAL (a slot, or wal_keep_size) while one is applied"));
        }
        if self.job.undo
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
