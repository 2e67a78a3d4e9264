//! A target on which something goes wrong at a chosen operation.

use std::cell::{Cell, RefCell};
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use pg_unfork::cluster::{
    ClusterReader, Comparison, DirectoryId, Durability, FileEntry, FileSystem, FileTime, Inventory, Likeness,
    LocalFiles, Log, NewFile, Owner, PatchFile, Position, ReadAt, Request, Sink, Site, Source, SourceKind, Syncing,
    TargetStore,
};
use pg_unfork::error::{Error, Result};
use pg_unfork::progress::Progress;
use pg_unfork::types::{ClusterPath, LinkText};

/// What happens at the chosen operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process dies before it: nothing more is done.
    Death,
    /// The process dies in the middle of it, if it is a write: half of the bytes are there.
    DeathHalfWay,
    /// It fails once with this error number; what comes after works.
    Error(i32),
}

/// Counts operations that change something, and fails at one of them.
#[derive(Debug, Clone)]
pub(crate) struct Trap {
    count: Rc<Cell<u64>>,
    /// Operations on new files and logs, by their numbers.
    names: Rc<RefCell<Vec<(u64, String)>>>,
    at: u64,
    fault: Fault,
}

impl Trap {
    /// Fails at the operation number `at`, counted from 1.
    pub(crate) fn new(at: u64, fault: Fault) -> Self {
        Self { count: Rc::default(), names: Rc::default(), at, fault }
    }

    /// Never fails.
    pub(crate) fn counting() -> Self {
        Self::new(u64::MAX, Fault::Death)
    }

    /// How many operations there were.
    pub(crate) fn count(&self) -> u64 {
        self.count.get()
    }

    /// The numbers of the operations of that name: `create`, `write`, `pause` or `commit` and the path of a new file, or
    /// `sync` and the name of a log.
    pub(crate) fn numbers_of(&self, name: &str) -> Vec<u64> {
        self.names.borrow().iter().filter(|(_, found)| found == name).map(|(number, _)| *number).collect()
    }

    /// The first of them; none where there is none.
    pub(crate) fn number_of(&self, name: &str) -> Option<u64> {
        self.numbers_of(name).first().copied()
    }

    /// Says what the next operation is called.
    fn name(&self, what: &str, path: &str) {
        self.names.borrow_mut().push((self.count.get() + 1, format!("{what} {path}")));
    }

    /// Counts an operation; how much of it is done, or the error.
    fn step(&self) -> Result<Part> {
        self.count.set(self.count.get() + 1);
        let now = self.count.get();
        let dead = || Error::failure("the process has died");
        match self.fault {
            Fault::Error(number) if now == self.at => {
                Err(Error::failure("injected").because(std::io::Error::from_raw_os_error(number)))
            }
            Fault::DeathHalfWay if now == self.at => Ok(Part::Half),
            Fault::Death if now >= self.at => Err(dead()),
            Fault::DeathHalfWay if now > self.at => Err(dead()),
            _ => Ok(Part::All),
        }
    }

    /// Counts an operation that is done or not.
    fn whole(&self) -> Result<()> {
        match self.step()? {
            Part::All => Ok(()),
            Part::Half => Err(Error::failure("the process has died")),
        }
    }
}

enum Part {
    All,
    Half,
}

/// A store whose changes pass a [`Trap`].
pub(crate) struct TrappedStore<S> {
    pub(crate) inner: S,
    pub(crate) trap: Trap,
}

/// A source whose answers pass a [`Trap`].
pub(crate) struct TrappedSource {
    pub(crate) inner: Box<dyn Source>,
    pub(crate) trap: Trap,
}

impl ClusterReader for TrappedSource {
    fn control_file(&mut self) -> Result<Vec<u8>> {
        self.trap.whole()?;
        self.inner.control_file()
    }
    fn read_small(&mut self, path: &ClusterPath) -> Result<Option<Vec<u8>>> {
        self.trap.whole()?;
        self.inner.read_small(path)
    }
    fn list(&mut self, progress: &dyn Progress) -> Result<Inventory> {
        self.trap.whole()?;
        self.inner.list(progress)
    }
    fn running_server(&self) -> Result<Option<i32>> {
        self.trap.whole()?;
        self.inner.running_server()
    }
}

impl Source for TrappedSource {
    fn kind(&self) -> SourceKind {
        self.inner.kind()
    }
    fn address(&self) -> String {
        self.inner.address()
    }
    fn directories(&self) -> Vec<DirectoryId> {
        self.inner.directories()
    }
    fn primary_conninfo(&self, major: pg_unfork::format::Major) -> Option<String> {
        self.inner.primary_conninfo(major)
    }
    fn position(&mut self) -> Result<Option<Position>> {
        self.trap.whole()?;
        self.inner.position()
    }
    fn entry(&mut self, path: &ClusterPath) -> Result<Option<FileEntry>> {
        self.trap.whole()?;
        self.inner.entry(path)
    }
    fn read_part(&mut self, path: &ClusterPath, offset: u64, length: u32) -> Result<Option<Vec<u8>>> {
        self.trap.whole()?;
        self.inner.read_part(path, offset, length)
    }
    fn compare(
        &mut self,
        files: &[Comparison],
        target: &dyn LocalFiles,
        progress: &dyn Progress,
    ) -> Result<Vec<Likeness>> {
        self.trap.whole()?;
        self.inner.compare(files, target, progress)
    }
    fn fetch(&mut self, requests: &[Request], sink: &mut dyn Sink) -> Result<()> {
        self.inner.fetch(requests, &mut TrappedSink { inner: sink, trap: self.trap.clone() })
    }
}

/// Fails before it hands on.
struct TrappedSink<'a> {
    inner: &'a mut dyn Sink,
    trap: Trap,
}

impl Sink for TrappedSink<'_> {
    fn bytes(&mut self, index: usize, offset: u64, data: &[u8]) -> Result<()> {
        self.trap.whole()?;
        self.inner.bytes(index, offset, data)
    }
    fn file(&mut self, index: usize, file: BorrowedFd<'_>) -> Result<()> {
        self.trap.whole()?;
        self.inner.file(index, file)
    }
    fn gone(&mut self, index: usize) -> Result<()> {
        self.trap.whole()?;
        self.inner.gone(index)
    }
}

struct Trapped<T: ?Sized> {
    inner: Box<T>,
    /// What it is, where that matters.
    path: String,
    trap: Trap,
}

impl<S: TargetStore> Site for TrappedStore<S> {
    fn obstacle(&self, path: &ClusterPath, in_place: bool) -> Result<Option<&'static str>> {
        self.inner.obstacle(path, in_place)
    }
    fn file_system(&self, path: &ClusterPath, link: Option<(&ClusterPath, &LinkText)>) -> Result<FileSystem> {
        self.inner.file_system(path, link)
    }
    fn check_symlinks(&self, links: &[(&ClusterPath, &[u8])]) -> Result<()> {
        self.inner.check_symlinks(links)
    }
    fn root_link(&self, path: &ClusterPath) -> Option<ClusterPath> {
        self.inner.root_link(path)
    }
}

impl<S: TargetStore> TargetStore for TrappedStore<S> {
    fn owner(&self) -> Owner {
        self.inner.owner()
    }
    fn entry(&self, path: &ClusterPath) -> Result<Option<FileEntry>> {
        self.inner.entry(path)
    }
    fn create_directory(&mut self, path: &ClusterPath, mode: Option<u32>) -> Result<()> {
        self.trap.whole()?;
        self.inner.create_directory(path, mode)
    }
    fn create_symlink(&mut self, path: &ClusterPath, text: &[u8]) -> Result<()> {
        self.trap.whole()?;
        self.inner.create_symlink(path, text)
    }
    fn create_file(&mut self, path: &ClusterPath, draft: &str, from: u64) -> Result<Box<dyn NewFile>> {
        self.trap.name("create", &path.to_string());
        self.trap.whole()?;
        let inner = self.inner.create_file(path, draft, from)?;
        Ok(Box::new(Trapped { inner, path: path.to_string(), trap: self.trap.clone() }))
    }
    fn draft_size(&self, path: &ClusterPath, draft: &str) -> Result<Option<u64>> {
        self.inner.draft_size(path, draft)
    }
    fn read_small(&self, path: &ClusterPath) -> Result<Option<Vec<u8>>> {
        self.inner.read_small(path)
    }
    fn read_file(&self, path: &ClusterPath) -> Result<Box<dyn ReadAt>> {
        self.inner.read_file(path)
    }
    fn open_file(&mut self, path: &ClusterPath) -> Result<Box<dyn PatchFile>> {
        let inner = self.inner.open_file(path)?;
        Ok(Box::new(Trapped { inner, path: String::new(), trap: self.trap.clone() }))
    }
    fn truncate(&mut self, path: &ClusterPath, size: u64) -> Result<()> {
        self.trap.whole()?;
        self.inner.truncate(path, size)
    }
    fn remove(&mut self, path: &ClusterPath) -> Result<bool> {
        self.trap.whole()?;
        self.inner.remove(path)
    }
    fn keep(&mut self, path: &ClusterPath, name: &str) -> Result<()> {
        self.trap.whole()?;
        self.inner.keep(path, name)
    }
    fn is_kept(&self, path: &ClusterPath, name: &str) -> Result<bool> {
        self.inner.is_kept(path, name)
    }
    fn sync_kept(&mut self) -> Result<()> {
        self.trap.whole()?;
        self.inner.sync_kept()
    }
    fn keep_directory(&mut self, path: &ClusterPath, name: &str) -> Result<bool> {
        self.trap.whole()?;
        self.inner.keep_directory(path, name)
    }
    fn put_back(&mut self, path: &ClusterPath, name: &str) -> Result<bool> {
        self.trap.whole()?;
        self.inner.put_back(path, name)
    }
    fn set_modified(&mut self, path: &ClusterPath, time: FileTime) -> Result<()> {
        self.trap.whole()?;
        self.inner.set_modified(path, time)
    }
    fn open_log(&mut self, near: Option<&ClusterPath>, name: &str, create: bool) -> Result<Option<Box<dyn Log>>> {
        if create {
            self.trap.whole()?;
        }
        let log = self.inner.open_log(near, name, create)?;
        Ok(log.map(|inner| Box::new(Trapped { inner, path: name.to_owned(), trap: self.trap.clone() }) as Box<dyn Log>))
    }
    fn roots(&self) -> Vec<Option<ClusterPath>> {
        self.inner.roots()
    }
    fn set_aside(&mut self, path: &ClusterPath, name: &str) -> Result<()> {
        self.trap.whole()?;
        self.inner.set_aside(path, name)
    }
    fn drop_kept(&mut self) -> Result<()> {
        self.trap.whole()?;
        self.inner.drop_kept()
    }
    fn drop_kept_at(&mut self, link: &ClusterPath, text: &LinkText, owner: &str) -> Result<()> {
        self.trap.whole()?;
        self.inner.drop_kept_at(link, text, owner)
    }
    fn drop_kept_in(&mut self, link: &ClusterPath) -> Result<()> {
        self.trap.whole()?;
        self.inner.drop_kept_in(link)
    }
    fn sync(&mut self, progress: &dyn Progress) -> Result<()> {
        self.trap.whole()?;
        self.inner.sync(progress)
    }
    fn sync_file_systems(&mut self, paths: &[ClusterPath]) -> Result<()> {
        self.trap.whole()?;
        self.inner.sync_file_systems(paths)
    }
    fn begin_sync(&mut self) -> Result<Box<dyn Syncing>> {
        // It fails when it is waited for.
        let failed = self.trap.whole().err();
        let syncing = self.inner.begin_sync()?;
        Ok(Box::new(TrappedSyncing { syncing, failed }))
    }
}

struct TrappedSyncing {
    syncing: Box<dyn Syncing>,
    failed: Option<Error>,
}

impl Syncing for TrappedSyncing {
    fn wait(self: Box<Self>) -> Result<()> {
        let outcome = self.syncing.wait();
        self.failed.map_or(outcome, Err)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Trapped<T> {
    fn length(&self) -> Result<u64> {
        self.inner.length()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.inner.read_at(buffer, offset)
    }
}

fn died() -> Error {
    Error::failure("the process has died")
}

impl<T: PatchFile + ?Sized> PatchFile for Trapped<T> {
    fn write_at(&mut self, data: &[u8], offset: u64) -> Result<()> {
        self.trap.name("write", &self.path);
        match self.trap.step()? {
            Part::All => self.inner.write_at(data, offset),
            Part::Half => self.inner.write_at(&data[..data.len() / 2], offset).and(Err(died())),
        }
    }
    fn copy_from(&mut self, source: BorrowedFd<'_>, offset: u64, length: u64, crc: u32) -> Result<(u64, u32)> {
        self.trap.name("write", &self.path);
        match self.trap.step()? {
            Part::All => self.inner.copy_from(source, offset, length, crc),
            Part::Half => self.inner.copy_from(source, offset, length.min(8192) / 2, crc).and(Err(died())),
        }
    }
}

impl NewFile for Trapped<dyn NewFile> {
    fn commit(self: Box<Self>, durability: Durability) -> Result<()> {
        self.trap.name("commit", &self.path);
        self.trap.whole()?;
        self.inner.commit(durability)
    }
    fn pause(self: Box<Self>) -> Result<()> {
        self.trap.name("pause", &self.path);
        self.trap.whole()?;
        self.inner.pause()
    }
}

impl Log for Trapped<dyn Log> {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        match self.trap.step()? {
            Part::All => self.inner.append(bytes),
            Part::Half => self.inner.append(&bytes[..bytes.len() / 2]).and(Err(died())),
        }
    }
    fn truncate(&mut self, length: u64) -> Result<()> {
        self.trap.whole()?;
        self.inner.truncate(length)
    }
    fn sync(&mut self) -> Result<()> {
        self.trap.name("sync", &self.path);
        self.trap.whole()?;
        self.inner.sync()
    }
}
