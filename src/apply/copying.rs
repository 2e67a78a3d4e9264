//! Copying in batches, so that disks and cores have something to do at any time.
//!
//! For each batch: what it will overwrite is kept for an undo, durably; bytes are fetched and written; they are made
//! durable; the journal says so. While a batch is copied, by several threads if source and target are directories, the next
//! one is protected; while it is made durable, the next one is copied. What the journal must be told is told together
//! with the next before-images.

use std::thread;

use super::batch::{Batch, Piece};
use super::journal::{Copied, PIECE, Record, pieces};
use super::units::{Units, size};
use super::writer::{Job, Written};
use crate::cluster::{Source, SourceKind, Syncing, TargetStore};
use crate::error::{Context, Error, Result};
use crate::manifest::{Action, ActionKind, Phase};

/// The most threads that copy.
const MOST_THREADS: usize = 8;

/// What is written and is being made durable.
pub(super) struct Unsettled {
    syncing: Box<dyn Syncing>,
    done: Vec<Copied>,
}

/// Handles for a thread of its own.
type Handles = (Box<dyn TargetStore + Send>, Box<dyn Source + Send>);

impl<'m> Units<'m> {
    /// Copies files, blocks and tails. Those with a number are journaled by it.
    pub(super) fn copy(&mut self, actions: Vec<(Option<u32>, &Action)>) -> Result<()> {
        let copied = self.copy_all(actions);
        // What was done before a failure is done.
        let settled = self.settle();
        let noted = self.pay();
        copied.and(settled).and(noted)
    }

    fn copy_all(&mut self, actions: Vec<(Option<u32>, &Action)>) -> Result<()> {
        let (mut ready, mut batch) = (Batch::default(), Batch::default());
        for (number, action) in actions {
            self.check_draft(number, action)?;
            let all = pieces(action, u64::from(self.manifest.target.control_file.geometry.block_size));
            let last = all.len().saturating_sub(1);
            let segment = self.manifest.target.control_file.geometry.wal_segment_size.bytes();
            let expected = if action.phase == Phase::Finish { segment } else { size(&action.source) };
            for (place, (offset, length)) in all.into_iter().enumerate() {
                let piece = u32::try_from(place).unwrap_or(u32::MAX);
                let done = number.and_then(|number| self.journal.journal().record_of(number, piece));
                if let Some(done) = done {
                    if done.first == piece {
                        self.progress.advance(done.bytes);
                    }
                    continue;
                }
                batch.add(Piece { action, number, piece, is_last: place == last }, offset, length, expected);
                if batch.is_full(self.batch_bytes) {
                    ready = self.step(ready, std::mem::take(&mut batch))?;
                }
            }
        }
        let last = self.step(ready, batch)?;
        self.step(last, Batch::default()).map(|_| ())
    }

    /// Copies the batch that is protected already, and protects the next one.
    fn step<'b>(&mut self, ready: Batch<'b>, next: Batch<'b>) -> Result<Batch<'b>> {
        if ready.is_empty() {
            return self.protect(&next).map(|()| next);
        }
        let (written, protected) = self.copy_and_protect(ready, &next)?;
        let settled = self.settle();
        let (mut done, mut outcome) = (Vec::new(), Ok(()));
        for part in written {
            done.extend(part.done);
            self.bytes += part.bytes;
            outcome = outcome.and(part.outcome);
        }
        // The system tells of lost bytes once: what was written on behind them must not count.
        settled?;
        // What has come counts, whatever happened then.
        let syncing = self.store.begin_sync()?;
        self.unsettled = Some(Unsettled { syncing, done });
        outcome.and(protected).map(|()| next)
    }

    /// Copies one batch; gives what came of its parts, and of protecting the next one.
    fn copy_and_protect(&mut self, ready: Batch<'_>, next: &Batch<'_>) -> Result<(Vec<Written>, Result<()>)> {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        // Drafts are told apart by the actions' numbers.
        let can = self.handles().is_some() && ready.pieces.iter().all(|piece| piece.number.is_some());
        let parts = ready.split(if can { threads } else { 1 });
        let (manifest, progress, interrupt) = (self.manifest, self.progress, self.interrupt);
        let (live, undo) = (self.source.kind() == SourceKind::LiveServer, self.images.is_some());
        let jobs = parts.iter().map(|batch| Job { manifest, batch, live, undo, progress, interrupt });
        let handles: Option<Vec<Handles>> = parts.iter().map(|_| self.handles()).collect();
        match handles.filter(|_| can) {
            Some(handles) => self.copy_in_threads(jobs.zip(handles).collect(), next),
            None => {
                let written = jobs.map(|job| job.run(self.store, self.source)).collect();
                Ok((written, self.protect(next)))
            }
        }
    }

    fn copy_in_threads(
        &mut self,
        jobs: Vec<(Job<'_>, Handles)>,
        next: &Batch<'_>,
    ) -> Result<(Vec<Written>, Result<()>)> {
        thread::scope(|scope| {
            let run = |(job, (mut store, mut source)): (Job<'_>, Handles)| job.run(&mut *store, &mut *source);
            let threads: Vec<_> =
                jobs.into_iter().map(|job| thread::Builder::new().spawn_scoped(scope, move || run(job))).collect();
            let protected = self.protect(next);
            let written = threads.into_iter().map(|thread| {
                let thread = thread.context(|| "cannot start a thread".to_owned())?;
                thread.join().map_err(|_| Error::failure("a thread that copied has died"))
            });
            Ok((written.collect::<Result<_>>()?, protected))
        })
    }

    /// Handles on source and target for one more thread; none where there can be none.
    fn handles(&self) -> Option<Handles> {
        Some((self.store.another()?, self.source.another()?))
    }

    /// Waits until what was written before is durable: the journal may say so.
    fn settle(&mut self) -> Result<()> {
        let Some(Unsettled { syncing, done }) = self.unsettled.take() else { return Ok(()) };
        syncing.wait()?;
        self.owed.extend(done.into_iter().map(Record::Copied));
        if self.images.is_some() { Ok(()) } else { self.pay() }
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

    /// A file of which parts are done must still have them in its draft; else it is copied anew, and the journal says
    /// so before a new draft begins.
    fn check_draft(&mut self, number: Option<u32>, action: &Action) -> Result<()> {
        let Some(number) = number.filter(|_| action.kind == ActionKind::CopyFile) else { return Ok(()) };
        let all = u32::try_from(pieces(action, 1).len()).unwrap_or(u32::MAX);
        let journal = self.journal.journal();
        let begun = (0..all).take_while(|&piece| journal.has(number, piece)).count() as u64;
        let is_whole = begun == u64::from(all);
        let is_nothing = journal.records_of(number).next().is_none();
        if is_whole || is_nothing {
            return Ok(());
        }
        let has_gap = journal.records_of(number).any(|record| u64::from(record.first) >= begun);
        // A live source's file may have been shorter than planned.
        let ends =
            journal.records_of(number).map(|record| (u64::from(record.first) * PIECE).saturating_add(record.bytes));
        let needed = ends.max().unwrap_or(0);
        let there = self.store.draft_size(&action.path, &number.to_string())?;
        if !has_gap && there.is_some_and(|there| there >= needed) {
            return Ok(());
        }
        self.journal.write(vec![Record::Forgotten { action: number }])
    }
}
