//! Executing actions: the one place that every change of a target passes.

use std::os::fd::BorrowedFd;

use crate::cluster::{Durability, NewFile, PatchFile, Request, Sink, Source, SourceKind, TargetStore};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Action, ActionKind, Manifest, PathState, Phase, WalPlace};
use crate::progress::Progress;
use crate::types::ClusterPath;

/// Requests given to a source at a time: what a live one can answer in few round trips.
const BATCH_REQUESTS: usize = 4096;

/// Executes the actions of a manifest, phase by phase.
pub(super) struct Units<'a> {
    store: &'a mut dyn TargetStore,
    source: &'a mut dyn Source,
    progress: &'a dyn Progress,
    manifest: &'a Manifest,
    bytes: u64,
    left: u64,
}

impl<'a> Units<'a> {
    pub(super) fn new(
        store: &'a mut dyn TargetStore,
        source: &'a mut dyn Source,
        progress: &'a dyn Progress,
        manifest: &'a Manifest,
    ) -> Self {
        Self { store, source, progress, manifest, bytes: 0, left: 0 }
    }

    /// Bytes copied so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Directories that could not be removed because something is in them.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Executes what the manifest has for a phase.
    pub(super) fn phase(&mut self, phase: Phase) -> Result<()> {
        let manifest = self.manifest;
        let actions = manifest.actions.iter().filter(move |action| action.phase == phase);
        match phase {
            Phase::Wal | Phase::Create | Phase::Copy => {
                let copies = |action: &&Action| matches!(action.kind, ActionKind::CopyFile | ActionKind::Patch);
                let (copies, creations): (Vec<_>, Vec<_>) = actions.partition(copies);
                creations.into_iter().try_for_each(|action| self.create(action))?;
                self.copy(copies)
            }
            Phase::Truncate => self.truncate(),
            Phase::Remove => self.remove(actions.collect()),
            Phase::Seal | Phase::Finish => Ok(()),
        }
    }

    fn create(&mut self, action: &Action) -> Result<()> {
        let link = action.after.as_ref().and_then(|state| state.link.as_ref());
        match link {
            Some(link) => self.store.create_symlink(&action.path, link.as_bytes()),
            None => self.store.create_directory(&action.path),
        }
    }

    /// Cuts the files that are longer on the target, those with copied blocks among them.
    fn truncate(&mut self) -> Result<()> {
        let patches = self.manifest.actions.iter().filter(|action| action.kind == ActionKind::Patch);
        for action in patches {
            let (before, after) = (size(&action.before), size(&action.after));
            // Nothing to cut from a file that a live source has dropped meanwhile.
            if after < before && self.store.entry(&action.path)?.is_some() {
                self.store.truncate(&action.path, after)?;
            }
        }
        Ok(())
    }

    /// Removes in descending order, so that a directory's content goes before it.
    fn remove(&mut self, actions: Vec<&Action>) -> Result<()> {
        for action in actions.into_iter().rev() {
            if !self.store.remove(&action.path)? {
                self.left += 1;
            }
        }
        Ok(())
    }

    /// Copies files, blocks and tails.
    pub(super) fn copy(&mut self, actions: Vec<&Action>) -> Result<()> {
        let mut batch = Batch::default();
        for action in actions {
            batch.add(action, u64::from(self.manifest.target.control_file.geometry.block_size));
            if batch.requests.len() >= BATCH_REQUESTS {
                self.copy_batch(&std::mem::take(&mut batch))?;
            }
        }
        self.copy_batch(&batch)
    }

    fn copy_batch(&mut self, batch: &Batch<'_>) -> Result<()> {
        let live = self.source.kind() == SourceKind::LiveServer;
        let mut writer = Writer {
            store: self.store,
            manifest: self.manifest,
            batch,
            live,
            current: None,
            next: 0,
            progress: self.progress,
            bytes: &mut self.bytes,
        };
        self.source.fetch(&batch.requests, &mut writer)?;
        writer.advance_to(batch.requests.len())
    }
}

fn size(state: &Option<PathState>) -> u64 {
    state.as_ref().and_then(|state| state.size).unwrap_or(0)
}

/// Whether the plan says that replay reads this path, from the source.
pub(super) fn is_replayed(manifest: &Manifest, path: &ClusterPath) -> bool {
    let segments = manifest.wal.iter().flat_map(|wal| &wal.segments);
    segments
        .into_iter()
        .any(|segment| segment.place == WalPlace::Source && path.below(b"pg_wal") == Some(segment.file.as_bytes()))
}

/// Requests, and the action that each belongs to.
#[derive(Default)]
struct Batch<'m> {
    requests: Vec<Request>,
    actions: Vec<&'m Action>,
}

impl<'m> Batch<'m> {
    fn add(&mut self, action: &'m Action, block_size: u64) {
        let mut ask = |offset, length| {
            self.requests.push(Request { path: action.path.clone(), offset, length });
            self.actions.push(action);
        };
        if action.kind == ActionKind::CopyFile {
            return ask(0, None);
        }
        for range in &action.blocks {
            ask(u64::from(range.first) * block_size, Some(u64::from(range.count) * block_size));
        }
        let (before, after) = (size(&action.before), size(&action.after));
        if after > before {
            ask(before, Some(after - before));
        }
    }
}

/// Writes what a source delivers.
struct Writer<'a> {
    store: &'a mut dyn TargetStore,
    manifest: &'a Manifest,
    batch: &'a Batch<'a>,
    live: bool,
    current: Option<Current<'a>>,
    /// The request that is being delivered.
    next: usize,
    progress: &'a dyn Progress,
    bytes: &'a mut u64,
}

/// The file that is being written.
struct Current<'a> {
    action: &'a Action,
    file: OpenTarget,
    /// The end of what was written.
    end: u64,
}

enum OpenTarget {
    New(Box<dyn NewFile>),
    Patched(Box<dyn PatchFile>),
    Gone,
}

impl OpenTarget {
    fn file(&mut self) -> Option<&mut dyn PatchFile> {
        match self {
            Self::New(file) => Some(&mut **file),
            Self::Patched(file) => Some(&mut **file),
            Self::Gone => None,
        }
    }
}

impl Writer<'_> {
    /// Finishes the file before the request `index`, unless that one is for the same file.
    fn advance_to(&mut self, index: usize) -> Result<()> {
        let action = self.batch.actions.get(index).copied();
        let same = self.current.as_ref().is_some_and(|current| action.is_some_and(|a| std::ptr::eq(a, current.action)));
        self.next = index;
        if same { Ok(()) } else { self.finish() }
    }

    fn finish(&mut self) -> Result<()> {
        let Some(current) = self.current.take() else { return Ok(()) };
        let planned = size(&current.action.source);
        match current.file {
            OpenTarget::New(_) if !self.live && current.end != planned => Err(Error::failure(format!(
                "{}: the source's file had {} bytes, planned {planned}: the source is not at rest",
                current.action.path, current.end
            ))),
            OpenTarget::New(file) => file.commit(Durability::Later),
            OpenTarget::Patched(_) | OpenTarget::Gone => Ok(()),
        }
    }

    /// The open target of the request `index`.
    fn open(&mut self, index: usize) -> Result<&mut OpenTarget> {
        self.advance_to(index)?;
        if self.current.is_none() {
            let action = *self
                .batch
                .actions
                .get(index)
                .ok_or_else(|| Error::failure("the source delivered more than it was asked for"))?;
            let file = match action.kind {
                ActionKind::CopyFile => OpenTarget::New(self.store.create_file(&action.path)?),
                _ => OpenTarget::Patched(self.store.open_file(&action.path)?),
            };
            self.current = Some(Current { action, file, end: 0 });
        }
        let current = self.current.as_mut().map(|current| &mut current.file);
        current.ok_or_else(|| Error::failure("no file is open"))
    }

    fn done(&mut self, end: u64, bytes: u64) {
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
        if let Some(file) = self.open(index)?.file() {
            file.write_at(data, offset)?;
        }
        self.done(end, data.len() as u64);
        Ok(())
    }

    fn file(&mut self, index: usize, source: BorrowedFd<'_>) -> Result<()> {
        let (offset, length) = self.request(index)?;
        let copied = match self.open(index)?.file() {
            Some(file) => file.copy_from(source, offset, length.unwrap_or(u64::MAX - offset))?,
            None => 0,
        };
        if !self.live && length.is_some_and(|length| copied != length) {
            return Err(Error::failure(format!("the source's file ended after {} bytes", offset + copied)));
        }
        self.done(offset + copied, copied);
        Ok(())
    }

    /// A live source may drop a relation at any time; its WAL tells, and replay does the rest.
    fn gone(&mut self, index: usize) -> Result<()> {
        self.advance_to(index)?;
        let Some(&action) = self.batch.actions.get(index) else { return Ok(()) };
        if !self.live {
            return Err(Error::failure(format!("{} is gone from the source, which should be at rest", action.path)));
        }
        if self.is_needed_wal(action) {
            return Err(Error::new(ErrorKind::DeadEnd, format!("the source no longer has {}, which replay needs", action.path))
                .hint("this plan can never finish; the source must keep its WAL (a slot, or wal_keep_size) while one is applied"));
        }
        self.current = Some(Current { action, file: OpenTarget::Gone, end: 0 });
        self.store.remove(&action.path).map(|_| ())
    }
}
