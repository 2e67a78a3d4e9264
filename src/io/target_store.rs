//! Changing a data directory on this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, OsStr};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{self, Access, AtFlags, FileType, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::beneath::{OsResult, open_beneath, open_parent};
use super::copy::{copy_range, write_all};
use crate::cluster::{
    Durability, FileEntry, FileKind, FileTime, NewFile, Owner, PatchFile, SMALL_FILE_LIMIT, STATE_DIRECTORY,
    TargetStore,
};
use crate::error::{Context, Error, Result};
use crate::progress::{Progress, Stage};
use crate::types::{ClusterPath, FileMode, LinkText};

/// How changes are made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncMethod {
    /// Each file and directory that was changed, by `fsync`.
    #[default]
    Fsync,
    /// Each file system that was changed, as a whole, by `syncfs`.
    Syncfs,
    /// Not at all (`-N`): a crash of the machine may lose them.
    None,
}

/// A data directory on this machine, for writing.
///
/// Every path is opened beneath the data directory, or beneath what its `pg_wal` and `pg_tblspc`
/// links led to when it was opened; no symlink is followed on the way. New contents are written
/// in a state directory of the same file system and renamed.
#[derive(Debug)]
pub struct DirectoryStore {
    path: PathBuf,
    shared: Arc<Shared>,
    /// Link to open directory.
    roots: BTreeMap<Vec<u8>, Arc<OwnedFd>>,
    owner: Owner,
    created: u64,
}

/// What files that are being written share with their store.
#[derive(Debug)]
struct Shared {
    root: Arc<OwnedFd>,
    sync: SyncMethod,
    changed: Mutex<BTreeMap<ClusterPath, Place>>,
}

/// Where a path is: a root, and the way from there.
#[derive(Clone, Debug)]
struct Place {
    root: Arc<OwnedFd>,
    rest: PathBuf,
}

impl DirectoryStore {
    /// Opens a data directory for writing. `roots` are the links that are followed; each must
    /// still have the given text.
    ///
    /// # Errors
    /// When something cannot be opened, is not ours, or a link has changed.
    pub fn open(path: &Path, roots: &[(ClusterPath, LinkText)], sync: SyncMethod) -> Result<Self> {
        let shown = path.display();
        let root = open_directory(path).context(|| format!("cannot open {shown}"))?;
        let mode = fs::fstat(&root).context(|| format!("cannot look at {shown}"))?.st_mode;
        let group_may_read = mode & 0o050 == 0o050;
        let owner = if group_may_read {
            Owner { directory_mode: 0o750, file_mode: 0o640 }
        } else {
            Owner { directory_mode: 0o700, file_mode: 0o600 }
        };
        let shared = Arc::new(Shared { root: Arc::new(root), sync, changed: Mutex::default() });
        let mut store = Self { path: path.to_owned(), shared, roots: BTreeMap::new(), owner, created: 0 };
        for (link, text) in roots {
            let found = std::fs::read_link(path.join(OsStr::from_bytes(link.as_bytes())));
            if found.as_ref().map(|found| found.as_os_str().as_bytes()).ok() != Some(text.as_bytes()) {
                return Err(Error::stale(format!(
                    "{link} led to {text} when the plan was made, and does not any more"
                )));
            }
            store.add_root(link, text)?;
        }
        Ok(store)
    }

    fn add_root(&mut self, link: &ClusterPath, text: &LinkText) -> Result<()> {
        let location = self.location(link, text);
        let directory = open_directory(&location).map_err(|error| {
            Error::precondition(format!("{link} leads to {}, which cannot be opened", location.display()))
                .because(error)
        })?;
        self.roots.insert(link.as_bytes().to_vec(), Arc::new(directory));
        Ok(())
    }

    /// Where a link leads: relative texts count from the link's own directory.
    fn location(&self, link: &ClusterPath, text: &LinkText) -> PathBuf {
        let parent = link.parent().map_or(self.path.clone(), |p| self.path.join(OsStr::from_bytes(p.as_bytes())));
        parent.join(OsStr::from_bytes(text.as_bytes()))
    }

    /// The root that a path lies beneath, and the way from there. A link itself lies in the data
    /// directory.
    fn place(&self, path: &ClusterPath) -> Place {
        let beneath = self.roots.iter().find_map(|(link, root)| Some((root, path.below(link)?)));
        let (root, rest) = beneath.unwrap_or((&self.shared.root, path.as_bytes()));
        Place { root: Arc::clone(root), rest: PathBuf::from(OsStr::from_bytes(rest)) }
    }

    /// A new tablespace's location must exist, be ours, be empty and lie outside of this cluster.
    fn check_location(&self, link: &ClusterPath, text: &LinkText) -> Result<()> {
        let location = self.location(link, text);
        let refuse = |why: &str| {
            Error::precondition(format!("tablespace location {} {why}", location.display()))
                .hint("create it as an empty directory owned by this user, outside of the data directory")
        };
        let directory = open_directory(&location).map_err(|error| refuse("cannot be opened").because(error))?;
        let status = fs::fstat(&directory).map_err(|error| refuse("cannot be looked at").because(error))?;
        if status.st_uid != rustix::process::geteuid().as_raw() {
            return Err(refuse("belongs to another user"));
        }
        let mut entries = std::fs::read_dir(&location).map_err(|error| refuse("cannot be listed").because(error))?;
        if entries.next().is_some() {
            return Err(refuse("is not empty"));
        }
        let real = std::fs::canonicalize(&location).map_err(|error| refuse("cannot be resolved").because(error))?;
        let roots = self.roots.keys().map(|link| self.path.join(OsStr::from_bytes(link)));
        for root in std::iter::once(self.path.clone()).chain(roots) {
            let root = std::fs::canonicalize(&root).context(|| format!("cannot resolve {}", root.display()))?;
            if real.starts_with(&root) || root.starts_with(&real) {
                return Err(refuse("lies inside this cluster"));
            }
        }
        Ok(())
    }

    /// A fresh file in the state directory of the root that `place` is beneath.
    fn temporary(&mut self, place: &Place) -> OsResult<(OwnedFd, PathBuf)> {
        let made = make_directory(place.root.as_fd(), Path::new(STATE_DIRECTORY), 0o700)?;
        if made && self.shared.sync != SyncMethod::None {
            fs::fsync(&*place.root)?;
        }
        self.created += 1;
        let name = Path::new(STATE_DIRECTORY).join(format!("new.{}", self.created));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC;
        let file = open_beneath(place.root.as_fd(), &name, flags, Mode::from_raw_mode(0o600))?;
        Ok((file, name))
    }
}

fn open_directory(path: &Path) -> OsResult<OwnedFd> {
    fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Makes a directory with exactly this mode, whatever the umask. Says whether it was not there.
fn make_directory(root: BorrowedFd<'_>, path: &Path, mode: u32) -> OsResult<bool> {
    let (parent, name) = open_parent(root, path)?;
    match fs::mkdirat(&parent, name, Mode::from_raw_mode(mode)) {
        Ok(()) => fs::chmodat(&parent, name, Mode::from_raw_mode(mode), AtFlags::empty()).map(|()| true),
        Err(Errno::EXIST) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            fs::openat(&parent, name, flags, Mode::empty()).map(|_| false)
        }
        Err(error) => Err(error),
    }
}

impl Place {
    /// The status of what is there; none where nothing is.
    fn status(&self) -> OsResult<Option<Stat>> {
        let found = open_parent(self.root.as_fd(), &self.rest)
            .and_then(|(parent, name)| fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW));
        match found {
            Ok(status) => Ok(Some(status)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn obstacle(&self, in_place: bool) -> OsResult<Option<&'static str>> {
        let (parent, name) = match open_parent(self.root.as_fd(), &self.rest) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened?,
        };
        if fs::accessat(&parent, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_err() {
            return Ok(Some("its directory is not writable"));
        }
        let Some(status) = self.status()? else { return Ok(None) };
        if status.st_uid != rustix::process::geteuid().as_raw() {
            return Ok(Some("it belongs to another user"));
        }
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        match fs::accessat(&parent, name, Access::WRITE_OK, AtFlags::EACCESS | AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::PERM) => Ok(Some("it is immutable")),
            Err(_) if in_place => Ok(Some("it is not writable")),
            _ => Ok(None),
        }
    }

    fn link_text(&self) -> OsResult<Vec<u8>> {
        let (parent, name) = open_parent(self.root.as_fd(), &self.rest)?;
        fs::readlinkat(&parent, name, Vec::new()).map(|text| CStr::to_bytes(&text).to_vec())
    }

    fn sync(&self) -> OsResult<()> {
        match open_beneath(self.root.as_fd(), &self.rest, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) {
            Ok(file) => fs::fsync(&file),
            // Removed, or a symlink: its directory's turn comes.
            Err(Errno::NOENT | Errno::LOOP) => Ok(()),
            // A file that its own owner may not read; the next file system sync has it.
            Err(Errno::ACCESS) => fs::syncfs(&self.root),
            Err(error) => Err(error),
        }
    }

    /// The directory that holds it.
    fn parent(&self) -> Self {
        let parent = self.rest.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self { root: Arc::clone(&self.root), rest: parent.to_owned() }
    }
}

impl Shared {
    /// Remembers what [`TargetStore::sync`] must make durable.
    fn changed(&self, path: &ClusterPath, place: &Place) {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.insert(path.clone(), place.clone());
    }
}

fn io_error(what: &str, path: &ClusterPath, error: Errno) -> Error {
    Error::failure(format!("cannot {what} {path}")).because(error)
}

fn entry_of(status: &Stat, link: Option<Vec<u8>>) -> Option<FileEntry> {
    let kind = match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => FileKind::Directory,
        FileType::RegularFile => FileKind::File {
            size: u64::try_from(status.st_size).unwrap_or(0),
            modified: Some(FileTime {
                seconds: status.st_mtime,
                nanoseconds: u32::try_from(status.st_mtime_nsec).unwrap_or(0),
            }),
        },
        FileType::Symlink => FileKind::Symlink { text: link.unwrap_or_default() },
        _ => return None,
    };
    Some(FileEntry { kind, mode: Some(FileMode::new(status.st_mode)) })
}

impl TargetStore for DirectoryStore {
    fn owner(&self) -> Owner {
        self.owner
    }

    fn entry(&self, path: &ClusterPath) -> Result<Option<FileEntry>> {
        let fail = |error| io_error("look at", path, error);
        let place = self.place(path);
        let Some(status) = place.status().map_err(fail)? else { return Ok(None) };
        let is_link = FileType::from_raw_mode(status.st_mode) == FileType::Symlink;
        let link = if is_link { Some(place.link_text().map_err(fail)?) } else { None };
        Ok(entry_of(&status, link))
    }

    fn obstacle(&self, path: &ClusterPath, in_place: bool) -> Result<Option<&'static str>> {
        self.place(path).obstacle(in_place).map_err(|error| io_error("look at", path, error))
    }

    fn create_directory(&mut self, path: &ClusterPath) -> Result<()> {
        let place = self.place(path);
        make_directory(place.root.as_fd(), &place.rest, self.owner.directory_mode)
            .map_err(|error| io_error("create directory", path, error))?;
        self.shared.changed(path, &place);
        Ok(())
    }

    fn check_symlink(&self, path: &ClusterPath, text: &[u8]) -> Result<()> {
        match path.below(b"pg_tblspc") {
            Some(_) => self.check_location(path, &LinkText::new(text)),
            None => Ok(()),
        }
    }

    fn create_symlink(&mut self, path: &ClusterPath, text: &[u8]) -> Result<()> {
        let link = LinkText::new(text);
        let place = self.place(path);
        let there = self.entry(path)?;
        if there.as_ref().is_some_and(|entry| entry.kind == FileKind::Symlink { text: text.to_vec() }) {
            return Ok(());
        }
        self.check_symlink(path, text)?;
        let made =
            open_parent(place.root.as_fd(), &place.rest).and_then(|(parent, name)| fs::symlinkat(text, &parent, name));
        made.map_err(|error| io_error("create symlink", path, error))?;
        self.shared.changed(path, &place);
        if path.below(b"pg_tblspc").is_some() { self.add_root(path, &link) } else { Ok(()) }
    }

    fn create_file(&mut self, path: &ClusterPath) -> Result<Box<dyn NewFile>> {
        let place = self.place(path);
        let (file, temporary) =
            self.temporary(&place).map_err(|error| io_error("create a new file for", path, error))?;
        let mode = self.owner.file_mode;
        Ok(Box::new(Draft { file, temporary, place, path: path.clone(), mode, shared: Arc::clone(&self.shared) }))
    }

    fn read_small(&self, path: &ClusterPath) -> Result<Option<Vec<u8>>> {
        let place = self.place(path);
        let file = match open_beneath(place.root.as_fd(), &place.rest, OFlags::RDONLY, Mode::empty()) {
            Ok(file) => std::fs::File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(io_error("open", path, error)),
        };
        let mut bytes = Vec::new();
        file.take(SMALL_FILE_LIMIT + 1).read_to_end(&mut bytes).context(|| format!("cannot read {path}"))?;
        let fits = bytes.len() as u64 <= SMALL_FILE_LIMIT;
        if fits {
            Ok(Some(bytes))
        } else {
            Err(Error::failure(format!("{path} has more than {SMALL_FILE_LIMIT} bytes")))
        }
    }

    fn open_file(&mut self, path: &ClusterPath) -> Result<Box<dyn PatchFile>> {
        let place = self.place(path);
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        let file = open_beneath(place.root.as_fd(), &place.rest, flags, Mode::empty())
            .map_err(|error| io_error("open for writing", path, error))?;
        let status = fs::fstat(&file).map_err(|error| io_error("look at", path, error))?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(Error::failure(format!("{path} is no regular file any more")));
        }
        self.shared.changed(path, &place);
        Ok(Box::new(OpenFile { file, path: path.clone() }))
    }

    fn truncate(&mut self, path: &ClusterPath, size: u64) -> Result<()> {
        let place = self.place(path);
        let cut = || -> OsResult<()> {
            let file = open_beneath(place.root.as_fd(), &place.rest, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty())?;
            let longer = u64::try_from(fs::fstat(&file)?.st_size).is_ok_and(|now| now > size);
            if longer { fs::ftruncate(&file, size) } else { Ok(()) }
        };
        cut().map_err(|error| io_error("truncate", path, error))?;
        self.shared.changed(path, &place);
        Ok(())
    }

    fn remove(&mut self, path: &ClusterPath) -> Result<bool> {
        let place = self.place(path);
        let unlink = |flags| {
            open_parent(place.root.as_fd(), &place.rest).and_then(|(parent, name)| fs::unlinkat(&parent, name, flags))
        };
        let outcome = match unlink(AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => unlink(AtFlags::REMOVEDIR),
            outcome => outcome,
        };
        self.shared.changed(path, &place);
        match outcome {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(error) => Err(io_error("remove", path, error)),
        }
    }

    fn sync(&mut self, progress: &dyn Progress) -> Result<()> {
        let changed = std::mem::take(&mut *self.shared.changed.lock().unwrap_or_else(PoisonError::into_inner));
        match self.shared.sync {
            SyncMethod::None => Ok(()),
            SyncMethod::Syncfs => sync_file_systems(&changed),
            SyncMethod::Fsync => {
                progress.begin(Stage::Sync, Some(changed.len() as u64));
                let outcome = sync_each(&changed, progress);
                progress.end();
                outcome
            }
        }
    }
}

fn sync_file_systems(changed: &BTreeMap<ClusterPath, Place>) -> Result<()> {
    let mut devices = BTreeSet::new();
    for (path, place) in changed {
        let device = fs::fstat(&place.root).map_err(|error| io_error("look at the root of", path, error))?.st_dev;
        if devices.insert(device) {
            fs::syncfs(&place.root).map_err(|error| io_error("sync the file system of", path, error))?;
        }
    }
    Ok(())
}

/// First the files, then the directories that hold them.
fn sync_each(changed: &BTreeMap<ClusterPath, Place>, progress: &dyn Progress) -> Result<()> {
    let mut parents = BTreeMap::new();
    for (path, place) in changed {
        place.sync().map_err(|error| io_error("sync", path, error))?;
        parents.insert(path.parent(), (path, place.parent()));
        progress.advance(1);
    }
    for (path, parent) in parents.values() {
        parent.sync().map_err(|error| io_error("sync the directory of", path, error))?;
    }
    Ok(())
}

/// A file that is changed in place.
struct OpenFile {
    file: OwnedFd,
    path: ClusterPath,
}

impl PatchFile for OpenFile {
    fn write_at(&mut self, data: &[u8], offset: u64) -> Result<()> {
        write_all(self.file.as_fd(), data, offset).map_err(|error| io_error("write", &self.path, error))
    }

    fn copy_from(&mut self, source: BorrowedFd<'_>, offset: u64, length: u64) -> Result<u64> {
        copy_range(source, self.file.as_fd(), offset, length).map_err(|error| io_error("copy", &self.path, error))
    }
}

/// A file in a state directory that waits to take its place.
struct Draft {
    file: OwnedFd,
    temporary: PathBuf,
    place: Place,
    path: ClusterPath,
    mode: u32,
    shared: Arc<Shared>,
}

impl Drop for Draft {
    /// What was not put in its place is of no use; after a rename nothing is there any more.
    fn drop(&mut self) {
        let parent = open_parent(self.place.root.as_fd(), &self.temporary);
        let _ = parent.and_then(|(parent, name)| fs::unlinkat(&parent, name, AtFlags::empty()));
    }
}

impl PatchFile for Draft {
    fn write_at(&mut self, data: &[u8], offset: u64) -> Result<()> {
        write_all(self.file.as_fd(), data, offset).map_err(|error| io_error("write", &self.path, error))
    }

    fn copy_from(&mut self, source: BorrowedFd<'_>, offset: u64, length: u64) -> Result<u64> {
        copy_range(source, self.file.as_fd(), offset, length).map_err(|error| io_error("copy", &self.path, error))
    }
}

impl NewFile for Draft {
    fn commit(self: Box<Self>, durability: Durability) -> Result<()> {
        self.try_commit(durability).map_err(|error| io_error("put in place", &self.path, error))
    }
}

impl Draft {
    fn try_commit(&self, durability: Durability) -> OsResult<()> {
        let durable = durability == Durability::Now && self.shared.sync != SyncMethod::None;
        let old = self.place.status()?;
        self.take_over(old.as_ref())?;
        if durable {
            fs::fsync(&self.file)?;
        }
        let several_links = old.as_ref().is_some_and(|status| status.st_nlink > 1);
        match if several_links { Err(Errno::MLINK) } else { self.rename() } {
            // Several names, a mount point, or another file system: the content goes into the old file.
            Err(Errno::MLINK | Errno::XDEV | Errno::BUSY) => self.write_in_place()?,
            outcome => outcome?,
        }
        if durable {
            self.place.sync()?;
            self.place.parent().sync()
        } else {
            self.shared.changed(&self.path, &self.place);
            Ok(())
        }
    }

    /// Gives the draft the mode, the group and the attributes of the file that it replaces.
    fn take_over(&self, old: Option<&Stat>) -> OsResult<()> {
        let Some(old) = old else { return fs::fchmod(&self.file, Mode::from_raw_mode(self.mode)) };
        let new = fs::fstat(&self.file)?;
        if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid) {
            let owner = rustix::fs::Uid::from_raw(old.st_uid);
            let group = rustix::fs::Gid::from_raw(old.st_gid);
            fs::fchown(&self.file, (new.st_uid != old.st_uid).then_some(owner), Some(group))?;
        }
        fs::fchmod(&self.file, Mode::from_raw_mode(old.st_mode & 0o7777))?;
        self.copy_attributes()
    }

    /// Extended attributes, POSIX ACLs among them.
    fn copy_attributes(&self) -> OsResult<()> {
        let from = match open_beneath(
            self.place.root.as_fd(),
            &self.place.rest,
            OFlags::RDONLY | OFlags::NONBLOCK,
            Mode::empty(),
        ) {
            Ok(from) => from,
            // A file that its owner may not read keeps its mode, and has its attributes unread.
            Err(Errno::ACCESS | Errno::LOOP) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut names = vec![0; 64 << 10];
        let length = match fs::flistxattr(&from, names.as_mut_slice()) {
            Ok(length) => length,
            Err(Errno::NOTSUP) => return Ok(()),
            Err(error) => return Err(error),
        };
        for name in names.get(..length).unwrap_or_default().split_inclusive(|&b| b == 0) {
            let name = CStr::from_bytes_with_nul(name).map_err(|_| Errno::INVAL)?;
            let mut value = vec![0; 64 << 10];
            let length = fs::fgetxattr(&from, name, value.as_mut_slice())?;
            value.truncate(length);
            match fs::fsetxattr(&self.file, name, &value, XattrFlags::empty()) {
                // Labels of security modules are theirs to give.
                Err(_) if name.to_bytes().starts_with(b"security.") => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }

    fn rename(&self) -> OsResult<()> {
        let root = self.place.root.as_fd();
        let (from, from_name) = open_parent(root, &self.temporary)?;
        let (to, to_name) = open_parent(root, &self.place.rest)?;
        fs::renameat(&from, from_name, &to, to_name)
    }

    fn write_in_place(&self) -> OsResult<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK;
        let target = open_beneath(self.place.root.as_fd(), &self.place.rest, flags, Mode::from_raw_mode(self.mode))?;
        let size = u64::try_from(fs::fstat(&self.file)?.st_size).unwrap_or(0);
        copy_range(self.file.as_fd(), target.as_fd(), 0, size)?;
        fs::ftruncate(&target, size)
    }
}
