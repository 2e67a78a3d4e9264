//! A target on a machine whose power is cut: what was not made durable by then is lost, in parts.
//!
//! Each change is done on one directory, which the apply sees, and is pending for another one, what the disk has. There it
//! is done when the store promises that it is durable. When the power is cut, some of what is pending has come to the
//! disk, some not, and of some writes the first half. What the store promises is written at [`TargetStore`]; that
//! `DirectoryStore` keeps these promises towards the file system is for its own tests.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;

use pg_unfork::cluster::{
    Durability, FileEntry, FileSystem, FileTime, Log, NewFile, Owner, PatchFile, ReadAt, Site, Syncing, TargetStore,
};
use pg_unfork::error::{Error, Result};
use pg_unfork::io::DirectoryStore;
use pg_unfork::progress::Progress;
use pg_unfork::types::{ClusterPath, LinkText};

/// A write: offset and bytes.
type Write = (u64, Vec<u8>);

/// A change that may not be durable yet.
#[derive(Debug, Clone)]
enum Change {
    Directory(ClusterPath, Option<u32>),
    Symlink(ClusterPath, Vec<u8>),
    File(NewContent),
    Write(ClusterPath, Write),
    Truncate(ClusterPath, u64),
    Remove(ClusterPath),
    Keep(ClusterPath, String),
    KeepDirectory(ClusterPath, String),
    PutBack(ClusterPath, String),
    SetModified(ClusterPath, FileTime),
    Append(PathBuf, Write),
    CutLog(PathBuf, u64),
}

/// A new content of a file.
#[derive(Debug, Clone)]
struct NewContent {
    path: ClusterPath,
    draft: String,
    /// Whether it goes on with what was written before.
    from: u64,
    writes: Vec<Write>,
    end: End,
}

/// What becomes of a new content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It takes its place, and is durable some time.
    Commit,
    /// It takes its place once it is durable itself.
    CommitWhole,
    /// More of it will come.
    Pause,
}

/// The machine: what its disk has, what is on the way there, and when its power goes.
pub(crate) struct Machine {
    disk: DirectoryStore,
    /// The disk's data directory.
    directory: PathBuf,
    pending: Vec<Change>,
    /// What is being made durable, and may be lost until somebody has waited for it.
    syncing: Vec<Change>,
    syncs: u64,
    cut_at: u64,
}

/// The machine, shared by all that is open on it.
type Shared = Rc<RefCell<Machine>>;

/// A store on such a machine.
pub(crate) struct PowerStore {
    live: DirectoryStore,
    machine: Shared,
}

impl PowerStore {
    /// `live` and `disk` are equal, with the data directory `directory` for the latter. The power is cut when something
    /// is to be made durable for the `cut_at`th time, from 1.
    pub(crate) fn new(live: DirectoryStore, disk: DirectoryStore, directory: PathBuf, cut_at: u64) -> Self {
        let machine = Machine { disk, directory, pending: Vec::new(), syncing: Vec::new(), syncs: 0, cut_at };
        Self { live, machine: Rc::new(RefCell::new(machine)) }
    }

    /// Another process on the same machine, with a store of its own for the same directory. The power is cut when
    /// something is to be made durable for the `cut_after`th time from now.
    pub(crate) fn again(&self, live: DirectoryStore, cut_after: u64) -> Self {
        let mut machine = self.machine.borrow_mut();
        machine.cut_at = machine.syncs.saturating_add(cut_after);
        Self { live, machine: Rc::clone(&self.machine) }
    }

    /// How often something was made durable.
    pub(crate) fn syncs(&self) -> u64 {
        self.machine.borrow().syncs
    }

    /// The power is gone: what is pending comes to the disk or not.
    pub(crate) fn lose(self, seed: u64) {
        let mut machine = self.machine.borrow_mut();
        let mut random = Random(seed);
        let syncing = std::mem::take(&mut machine.syncing);
        for change in syncing.into_iter().chain(std::mem::take(&mut machine.pending)) {
            let change = match random.next() % 4 {
                0 => continue,
                1 => change.half(),
                _ => change,
            };
            // What it builds on may have been lost.
            let _ = machine.put(&change);
        }
    }

    fn pend(&self, change: Change) {
        self.machine.borrow_mut().pending.push(change);
    }
}

/// Numbers that look random (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn half((offset, mut bytes): Write) -> Write {
    bytes.truncate(bytes.len() / 2);
    (offset, bytes)
}

impl Change {
    /// What a file system may have of a change: names at once, content in parts.
    fn half(self) -> Self {
        match self {
            Self::File(file) if file.end != End::CommitWhole => {
                Self::File(NewContent { writes: file.writes.into_iter().map(half).collect(), ..file })
            }
            Self::Write(path, write) => Self::Write(path, half(write)),
            Self::Append(log, write) => Self::Append(log, half(write)),
            other => other,
        }
    }

    fn log(&self) -> Option<&PathBuf> {
        match self {
            Self::Append(log, _) | Self::CutLog(log, _) => Some(log),
            _ => None,
        }
    }

    fn is_kept(&self) -> bool {
        matches!(self, Self::Keep(..))
    }

    /// Whether it is neither of a log nor something that is kept.
    fn is_content(&self) -> bool {
        self.log().is_none() && !self.is_kept()
    }
}

impl Machine {
    /// Nothing is done without power.
    fn check(&self) -> Result<()> {
        if self.syncs >= self.cut_at { Err(Error::failure("the power is cut")) } else { Ok(()) }
    }

    /// The store promises that these changes are durable now.
    fn sync(&mut self, which: impl Fn(&Change) -> bool) -> Result<()> {
        self.check()?;
        self.syncs += 1;
        self.check()?;
        let (durable, pending) = std::mem::take(&mut self.pending).into_iter().partition::<Vec<_>, _>(which);
        self.pending = pending;
        durable.iter().try_for_each(|change| self.put(change))
    }

    /// Does a change on the disk.
    fn put(&mut self, change: &Change) -> Result<()> {
        let disk = &mut self.disk;
        match change {
            Change::Directory(path, mode) => disk.create_directory(path, *mode),
            Change::Symlink(path, text) => disk.create_symlink(path, text),
            Change::File(new) => {
                let mut file = disk.create_file(&new.path, &new.draft, new.from)?;
                new.writes.iter().try_for_each(|(offset, bytes)| file.write_at(bytes, *offset))?;
                if new.end == End::Pause { file.pause() } else { file.commit(Durability::Later) }
            }
            Change::Write(path, (offset, bytes)) => disk.open_file(path)?.write_at(bytes, *offset),
            Change::Truncate(path, size) => disk.truncate(path, *size),
            Change::Remove(path) => disk.remove(path).map(drop),
            Change::Keep(path, name) => disk.keep(path, name),
            Change::KeepDirectory(path, name) => disk.keep_directory(path, name).map(drop),
            Change::PutBack(path, name) => disk.put_back(path, name).map(drop),
            Change::SetModified(path, time) => disk.set_modified(path, *time),
            Change::Append(log, (offset, bytes)) => OpenOptions::new()
                .write(true)
                .open(log)
                .and_then(|file| file.write_all_at(bytes, *offset))
                .map_err(lost),
            Change::CutLog(log, length) => {
                OpenOptions::new().write(true).open(log).and_then(|file| file.set_len(*length)).map_err(lost)
            }
        }
    }

    /// Where a log is on the disk.
    fn log_path(&self, near: Option<&ClusterPath>, name: &str) -> PathBuf {
        let link = near.and_then(|path| self.disk.root_link(path));
        let root = link.map_or(self.directory.clone(), |link| self.directory.join(link.to_string()));
        root.join(".pg_unfork").join(name)
    }
}

fn lost(error: std::io::Error) -> Error {
    Error::failure("cannot write the disk's log").because(error)
}

impl Site for PowerStore {
    fn obstacle(&self, path: &ClusterPath, in_place: bool) -> Result<Option<&'static str>> {
        self.live.obstacle(path, in_place)
    }
    fn file_system(&self, path: &ClusterPath, link: Option<(&ClusterPath, &LinkText)>) -> Result<FileSystem> {
        self.live.file_system(path, link)
    }
    fn check_symlinks(&self, links: &[(&ClusterPath, &[u8])]) -> Result<()> {
        self.live.check_symlinks(links)
    }
    fn root_link(&self, path: &ClusterPath) -> Option<ClusterPath> {
        self.live.root_link(path)
    }
}

impl TargetStore for PowerStore {
    fn owner(&self) -> Owner {
        self.live.owner()
    }
    fn entry(&self, path: &ClusterPath) -> Result<Option<FileEntry>> {
        self.live.entry(path)
    }
    fn create_directory(&mut self, path: &ClusterPath, mode: Option<u32>) -> Result<()> {
        self.machine.borrow().check()?;
        self.pend(Change::Directory(path.clone(), mode));
        self.live.create_directory(path, mode)
    }
    fn create_symlink(&mut self, path: &ClusterPath, text: &[u8]) -> Result<()> {
        self.machine.borrow().check()?;
        self.pend(Change::Symlink(path.clone(), text.to_vec()));
        self.live.create_symlink(path, text)
    }
    fn create_file(&mut self, path: &ClusterPath, draft: &str, from: u64) -> Result<Box<dyn NewFile>> {
        self.machine.borrow().check()?;
        let live = self.live.create_file(path, draft, from)?;
        let (path, draft, machine) = (path.clone(), draft.to_owned(), Rc::clone(&self.machine));
        Ok(Box::new(PowerFile { live, path, draft, from, writes: Vec::new(), machine }))
    }
    fn draft_size(&self, path: &ClusterPath, draft: &str) -> Result<Option<u64>> {
        self.live.draft_size(path, draft)
    }
    fn read_file(&self, path: &ClusterPath) -> Result<Box<dyn ReadAt>> {
        self.live.read_file(path)
    }
    fn is_kept(&self, path: &ClusterPath, name: &str) -> Result<bool> {
        self.live.is_kept(path, name)
    }
    fn read_small(&self, path: &ClusterPath) -> Result<Option<Vec<u8>>> {
        self.live.read_small(path)
    }
    fn open_file(&mut self, path: &ClusterPath) -> Result<Box<dyn PatchFile>> {
        let live = self.live.open_file(path)?;
        Ok(Box::new(PowerPatch { live, path: path.clone(), machine: Rc::clone(&self.machine) }))
    }
    fn truncate(&mut self, path: &ClusterPath, size: u64) -> Result<()> {
        self.machine.borrow().check()?;
        self.pend(Change::Truncate(path.clone(), size));
        self.live.truncate(path, size)
    }
    fn remove(&mut self, path: &ClusterPath) -> Result<bool> {
        self.machine.borrow().check()?;
        self.pend(Change::Remove(path.clone()));
        self.live.remove(path)
    }
    fn keep(&mut self, path: &ClusterPath, name: &str) -> Result<()> {
        self.machine.borrow().check()?;
        self.pend(Change::Keep(path.clone(), name.to_owned()));
        self.live.keep(path, name)
    }
    fn sync_kept(&mut self) -> Result<()> {
        self.machine.borrow_mut().sync(Change::is_kept)?;
        self.live.sync_kept()
    }
    fn keep_directory(&mut self, path: &ClusterPath, name: &str) -> Result<bool> {
        self.machine.borrow().check()?;
        self.pend(Change::KeepDirectory(path.clone(), name.to_owned()));
        self.live.keep_directory(path, name)
    }
    fn put_back(&mut self, path: &ClusterPath, name: &str) -> Result<bool> {
        self.machine.borrow().check()?;
        self.pend(Change::PutBack(path.clone(), name.to_owned()));
        self.live.put_back(path, name)
    }
    fn set_modified(&mut self, path: &ClusterPath, time: FileTime) -> Result<()> {
        self.machine.borrow().check()?;
        self.pend(Change::SetModified(path.clone(), time));
        self.live.set_modified(path, time)
    }
    fn open_log(&mut self, near: Option<&ClusterPath>, name: &str, create: bool) -> Result<Option<Box<dyn Log>>> {
        self.machine.borrow().check()?;
        let Some(live) = self.live.open_log(near, name, create)? else { return Ok(None) };
        // Its name is durable from the beginning.
        self.machine.borrow_mut().disk.open_log(near, name, true)?;
        let path = self.machine.borrow().log_path(near, name);
        Ok(Some(Box::new(PowerLog { live, path, machine: Rc::clone(&self.machine) })))
    }
    fn roots(&self) -> Vec<Option<ClusterPath>> {
        self.live.roots()
    }
    fn set_aside(&mut self, path: &ClusterPath, name: &str) -> Result<()> {
        let mut machine = self.machine.borrow_mut();
        machine.sync(Change::is_kept)?;
        machine.disk.set_aside(path, name)?;
        self.live.set_aside(path, name)
    }
    fn drop_kept(&mut self) -> Result<()> {
        let mut machine = self.machine.borrow_mut();
        machine.sync(Change::is_kept)?;
        machine.disk.drop_kept()?;
        self.live.drop_kept()
    }
    fn drop_kept_at(&mut self, link: &ClusterPath, text: &LinkText, owner: &str) -> Result<()> {
        let mut machine = self.machine.borrow_mut();
        machine.sync(Change::is_kept)?;
        machine.disk.drop_kept_at(link, text, owner)?;
        self.live.drop_kept_at(link, text, owner)
    }
    fn drop_kept_in(&mut self, link: &ClusterPath) -> Result<()> {
        let mut machine = self.machine.borrow_mut();
        machine.sync(Change::is_kept)?;
        machine.disk.drop_kept_in(link)?;
        self.live.drop_kept_in(link)
    }
    fn sync(&mut self, progress: &dyn Progress) -> Result<()> {
        assert!(self.machine.borrow().syncing.is_empty(), "something is being synced, and nobody waits for it");
        self.machine.borrow_mut().sync(Change::is_content)?;
        self.live.sync(progress)
    }
    fn sync_file_systems(&mut self, paths: &[ClusterPath]) -> Result<()> {
        self.machine.borrow_mut().sync(|_| true)?;
        self.live.sync_file_systems(paths)
    }
    fn begin_sync(&mut self) -> Result<Box<dyn Syncing>> {
        let mut machine = self.machine.borrow_mut();
        machine.check()?;
        assert!(machine.syncing.is_empty(), "something is being synced, and nobody waits for it");
        let (syncing, pending) = std::mem::take(&mut machine.pending).into_iter().partition(Change::is_content);
        (machine.syncing, machine.pending) = (syncing, pending);
        Ok(Box::new(PowerSyncing { live: self.live.begin_sync()?, machine: Rc::clone(&self.machine) }))
    }
}

/// What is being made durable.
struct PowerSyncing {
    live: Box<dyn Syncing>,
    machine: Shared,
}

impl Syncing for PowerSyncing {
    fn wait(self: Box<Self>) -> Result<()> {
        let mut machine = self.machine.borrow_mut();
        machine.sync(|_| false)?;
        let durable = std::mem::take(&mut machine.syncing);
        durable.iter().try_for_each(|change| machine.put(change))?;
        self.live.wait()
    }
}

/// A file that waits to take its place.
struct PowerFile {
    live: Box<dyn NewFile>,
    path: ClusterPath,
    draft: String,
    from: u64,
    writes: Vec<Write>,
    machine: Shared,
}

impl PowerFile {
    fn end(self, end: End) -> (Box<dyn NewFile>, Change, Shared) {
        let Self { live, path, draft, from, writes, machine } = self;
        (live, Change::File(NewContent { path, draft, from, writes, end }), machine)
    }
}

/// What was written from `offset` on.
fn written(file: &(impl ReadAt + ?Sized), offset: u64, length: u64) -> Result<Write> {
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    assert_eq!(file.read_at(&mut bytes, offset)?, bytes.len());
    Ok((offset, bytes))
}

impl ReadAt for PowerFile {
    fn length(&self) -> Result<u64> {
        self.live.length()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.live.read_at(buffer, offset)
    }
}

impl PatchFile for PowerFile {
    fn write_at(&mut self, data: &[u8], offset: u64) -> Result<()> {
        self.machine.borrow().check()?;
        self.writes.push((offset, data.to_vec()));
        self.live.write_at(data, offset)
    }
    fn copy_from(&mut self, source: BorrowedFd<'_>, offset: u64, length: u64, crc: u32) -> Result<(u64, u32)> {
        self.machine.borrow().check()?;
        let copied = self.live.copy_from(source, offset, length, crc)?;
        self.writes.push(written(&*self.live, offset, copied.0)?);
        Ok(copied)
    }
}

impl NewFile for PowerFile {
    fn commit(self: Box<Self>, durability: Durability) -> Result<()> {
        let end = if durability == Durability::Now { End::CommitWhole } else { End::Commit };
        let (live, change, machine) = self.end(end);
        let mut machine = machine.borrow_mut();
        machine.check()?;
        if durability == Durability::Later {
            machine.pending.push(change);
            return live.commit(durability);
        }
        // Cut in the middle of it: whole and in its place, or not.
        let cut = machine.sync(|_| false);
        if cut.is_err() {
            machine.pending.push(change);
            return cut;
        }
        machine.put(&change)?;
        live.commit(durability)
    }
    fn pause(self: Box<Self>) -> Result<()> {
        let (live, change, machine) = self.end(End::Pause);
        machine.borrow().check()?;
        machine.borrow_mut().pending.push(change);
        live.pause()
    }
}

/// A file that is changed in place.
struct PowerPatch {
    live: Box<dyn PatchFile>,
    path: ClusterPath,
    machine: Shared,
}

impl ReadAt for PowerPatch {
    fn length(&self) -> Result<u64> {
        self.live.length()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.live.read_at(buffer, offset)
    }
}

impl PatchFile for PowerPatch {
    fn write_at(&mut self, data: &[u8], offset: u64) -> Result<()> {
        self.machine.borrow().check()?;
        self.machine.borrow_mut().pending.push(Change::Write(self.path.clone(), (offset, data.to_vec())));
        self.live.write_at(data, offset)
    }
    fn copy_from(&mut self, source: BorrowedFd<'_>, offset: u64, length: u64, crc: u32) -> Result<(u64, u32)> {
        self.machine.borrow().check()?;
        let copied = self.live.copy_from(source, offset, length, crc)?;
        let write = written(&*self.live, offset, copied.0)?;
        self.machine.borrow_mut().pending.push(Change::Write(self.path.clone(), write));
        Ok(copied)
    }
}

/// A log.
struct PowerLog {
    live: Box<dyn Log>,
    /// Where it is on the disk.
    path: PathBuf,
    machine: Shared,
}

impl ReadAt for PowerLog {
    fn length(&self) -> Result<u64> {
        self.live.length()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.live.read_at(buffer, offset)
    }
}

impl Log for PowerLog {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.machine.borrow().check()?;
        let write = (self.live.length()?, bytes.to_vec());
        self.machine.borrow_mut().pending.push(Change::Append(self.path.clone(), write));
        self.live.append(bytes)
    }
    fn truncate(&mut self, length: u64) -> Result<()> {
        self.machine.borrow().check()?;
        self.machine.borrow_mut().pending.push(Change::CutLog(self.path.clone(), length));
        self.live.truncate(length)
    }
    fn sync(&mut self) -> Result<()> {
        self.machine.borrow_mut().sync(|change| change.log() == Some(&self.path))?;
        self.live.sync()
    }
}
