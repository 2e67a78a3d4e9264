//! Changing a data directory on this machine.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::beneath::{OsResult, open_beneath, open_parent};
use super::draft::{Draft, OpenFile};
use super::durable::{Changes, SyncMethod};
use super::keep;
use super::log::{LargeLog, LogFile};
use super::place::{Place, entry_of, io_error, make_directory, open_directory};
use crate::cluster::rules::is_tablespace_link;
use crate::cluster::{
    FileEntry, FileKind, FileSystem, FileTime, Log, NewFile, Owner, PatchFile, ReadAt, SMALL_FILE_LIMIT,
    STATE_DIRECTORY, STATE_FILES, Site, Syncing, TargetStore,
};
use crate::error::{Context, Error, Result};
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::types::{ClusterPath, LinkText};

/// A data directory on this machine, for writing.
///
/// Every path is opened beneath the data directory, or beneath what its `pg_wal` and `pg_tblspc`
/// links led to when it was opened; no symlink is followed on the way. New contents are written
/// in a state directory of the same file system and renamed.
#[derive(Clone, Debug)]
pub struct DirectoryStore {
    path: PathBuf,
    root: Arc<OwnedFd>,
    changes: Arc<Changes>,
    /// Link to open directory.
    roots: BTreeMap<Vec<u8>, Arc<OwnedFd>>,
    owner: Owner,
    /// Roots where something was kept since that was last made durable, by their links.
    kept_in: BTreeMap<Vec<u8>, Arc<OwnedFd>>,
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
        let changes = Arc::new(Changes::new(sync, Interrupt::new()));
        let mut store = Self {
            path: path.to_owned(),
            root: Arc::new(root),
            changes,
            roots: BTreeMap::new(),
            owner,
            kept_in: BTreeMap::new(),
        };
        for (link, text) in roots {
            if store.link_text(link).as_deref() != Some(text.as_bytes()) {
                return Err(Error::stale(format!(
                    "{link} led to {text} when the plan was made, and does not any more"
                ))
                .hint("make a fresh plan: pg_unfork plan"));
            }
            store.add_root(link, text)?;
        }
        Ok(store)
    }

    /// Opens a data directory on which an apply has begun: it may have removed some of the planned links, and
    /// made some of `new` ones. Of those, only the links of tablespaces are followed.
    ///
    /// # Errors
    /// As [`DirectoryStore::open`].
    pub fn reopen(
        path: &Path,
        roots: &[(ClusterPath, LinkText)],
        new: &[(ClusterPath, LinkText)],
        sync: SyncMethod,
    ) -> Result<Self> {
        let mut store = Self::open(path, &[], sync)?;
        for (link, text) in roots {
            match store.link_text(link) {
                Some(found) if found != text.as_bytes() => {
                    return Err(Error::stale(format!("{link} leads elsewhere than when the plan was made ({text})")));
                }
                _ => store.add_root(link, text)?,
            }
        }
        for (link, text) in new.iter().filter(|(link, _)| is_tablespace_link(link)) {
            if store.link_text(link).as_deref() == Some(text.as_bytes()) {
                store.add_root(link, text)?;
            }
        }
        Ok(store)
    }

    /// A store that does not wait until all is durable once this interrupt is set.
    #[must_use]
    pub fn stopping_on(mut self, interrupt: Interrupt) -> Self {
        self.changes = Arc::new(Changes::new(self.changes.method(), interrupt));
        self
    }

    /// The text of a link of the data directory; none where there is no link.
    fn link_text(&self, link: &ClusterPath) -> Option<Vec<u8>> {
        let text = std::fs::read_link(self.path.join(OsStr::from_bytes(link.as_bytes()))).ok()?;
        Some(text.into_os_string().into_vec())
    }

    fn add_root(&mut self, link: &ClusterPath, text: &LinkText) -> Result<()> {
        let location = self.location(link, text);
        let directory = open_directory(&location).map_err(|error| {
            Error::precondition(format!("{link} leads to {}, which cannot be opened", location.display()))
                .because(error)
                .hint("mount or restore what belongs there, owned by this user; then plan again")
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
        let (link, root) = self.root_of(path);
        let rest = link.and_then(|link| path.below(link)).unwrap_or(path.as_bytes());
        Place { root: Arc::clone(root), rest: PathBuf::from(OsStr::from_bytes(rest)) }
    }

    /// The link that a path lies beneath, none for the data directory, and what it leads to.
    fn root_of(&self, path: &ClusterPath) -> (Option<&[u8]>, &Arc<OwnedFd>) {
        let beneath = possible_root(path).and_then(|link| self.roots.get_key_value(link));
        beneath.map_or((None, &self.root), |(link, root)| (Some(link.as_slice()), root))
    }

    /// A new tablespace's location must exist, be ours, be empty and lie outside of this cluster. Gives
    /// its real path.
    fn check_location(&self, link: &ClusterPath, text: &LinkText) -> Result<PathBuf> {
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
        Ok(real)
    }

    /// A draft in the state directory of the root that `place` is beneath.
    fn temporary(&self, place: &Place, draft: &str, from: u64) -> OsResult<(OwnedFd, PathBuf)> {
        self.make_state_directory(&place.root)?;
        let name = draft_path(draft);
        let flags = OFlags::RDWR | OFlags::CREATE;
        let file = open_beneath(place.root.as_fd(), &name, flags, Mode::from_raw_mode(0o600))?;
        if u64::try_from(fs::fstat(&file)?.st_size).is_ok_and(|size| size > from) {
            fs::ftruncate(&file, from)?;
        }
        Ok((file, name))
    }

    /// Clears the state directory of a root, durably: the next apply must not meet what this one kept.
    fn clear_state(&self, root: &Arc<OwnedFd>, spare: &[&str]) -> OsResult<()> {
        keep::clear_state(root.as_fd(), spare)?;
        if self.changes.wanted() { sync_way_to(root, Path::new(STATE_DIRECTORY)) } else { Ok(()) }
    }

    /// The root in whose state directory WAL is set aside.
    fn wal_root(&self) -> &Arc<OwnedFd> {
        self.roots.get(&b"pg_wal"[..]).unwrap_or(&self.root)
    }

    /// The names of WAL that was never archived and was set aside by [`TargetStore::set_aside`], in their order.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn unarchived(&self) -> Result<Vec<String>> {
        keep::names_set_aside(self.wal_root().as_fd())
            .context(|| "cannot list WAL that was never archived, in .pg_unfork".to_owned())
    }

    /// Removes it; says whether there was any.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn drop_unarchived(&mut self) -> Result<bool> {
        let any = !self.unarchived()?.is_empty();
        keep::drop_set_aside(self.wal_root().as_fd())
            .context(|| "cannot drop WAL that was never archived, in .pg_unfork".to_owned())
            .map(|()| any)
    }

    /// Remembers that something of `path`, which lies beneath `root`, was kept.
    fn note_kept(&mut self, path: &ClusterPath, root: Arc<OwnedFd>) {
        let link = self.root_of(path).0.map(<[u8]>::to_vec).unwrap_or_default();
        self.kept_in.insert(link, root);
    }

    fn make_state_directory(&self, root: &Arc<OwnedFd>) -> OsResult<()> {
        let made = make_directory(root.as_fd(), Path::new(STATE_DIRECTORY), 0o700)?;
        if made && self.changes.wanted() { fs::fsync(&**root) } else { Ok(()) }
    }
}

/// The link that a path lies beneath, if that is a root: only `pg_wal` and the entries of `pg_tblspc` can be.
fn possible_root(path: &ClusterPath) -> Option<&[u8]> {
    if path.below(b"pg_wal").is_some() {
        return Some(b"pg_wal");
    }
    let name = path.below(b"pg_tblspc")?;
    let end = b"pg_tblspc/".len() + name.iter().position(|&byte| byte == b'/')?;
    path.as_bytes().get(..end)
}

/// Opens a regular file that is there.
fn open_regular(place: &Place, path: &ClusterPath, access: OFlags, what: &str) -> Result<OpenFile> {
    let file = open_beneath(place.root.as_fd(), &place.rest, access | OFlags::NONBLOCK, Mode::empty())
        .map_err(|error| io_error(what, path, error))?;
    let status = fs::fstat(&file).map_err(|error| io_error("look at", path, error))?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(Error::failure(format!("{path} is no regular file any more")));
    }
    Ok(OpenFile { file, path: path.clone() })
}

/// Where a draft is, below its root.
fn draft_path(draft: &str) -> PathBuf {
    Path::new(STATE_DIRECTORY).join(format!("new.{draft}"))
}

/// Makes durable what is in a directory below `root`, and that it is there: whoever made it, and the directories on the
/// way to it, may not have lived to do so.
fn sync_way_to(root: &Arc<OwnedFd>, directory: &Path) -> OsResult<()> {
    for directory in directory.ancestors().filter(|directory| !directory.as_os_str().is_empty()) {
        Place { root: Arc::clone(root), rest: directory.to_owned() }.sync()?;
    }
    fs::fsync(&**root)
}

impl Site for DirectoryStore {
    fn obstacle(&self, path: &ClusterPath, in_place: bool) -> Result<Option<&'static str>> {
        self.place(path).obstacle(in_place).map_err(|error| io_error("look at", path, error))
    }

    fn file_system(&self, path: &ClusterPath, new_link: Option<(&ClusterPath, &LinkText)>) -> Result<FileSystem> {
        let fail = |error| io_error("look at the file system of", path, error);
        let (directory, root) = match new_link {
            Some((link, text)) => {
                let location = self.location(link, text);
                let opened = open_directory(&location).map_err(fail)?;
                (location, Arc::new(opened))
            }
            None => {
                let (link, root) = self.root_of(path);
                let directory = link.map_or(self.path.clone(), |link| self.path.join(OsStr::from_bytes(link)));
                (directory, Arc::clone(root))
            }
        };
        let device = fs::fstat(&root).map_err(fail)?.st_dev;
        let status = fs::fstatvfs(&root).map_err(fail)?;
        let free = status.f_bavail.saturating_mul(status.f_frsize);
        Ok(FileSystem { device, free, shown: directory.display().to_string() })
    }

    fn check_symlinks(&self, links: &[(&ClusterPath, &[u8])]) -> Result<()> {
        let mut taken: Vec<(&ClusterPath, PathBuf)> = Vec::new();
        for &(path, text) in links.iter().filter(|(path, _)| is_tablespace_link(path)) {
            let real = self.check_location(path, &LinkText::new(text))?;
            if let Some((other, there)) =
                taken.iter().find(|(_, there)| real.starts_with(there) || there.starts_with(&real))
            {
                return Err(Error::precondition(format!(
                    "{path} and {other} would lead to {} and {}: a tablespace cannot be inside another tablespace",
                    real.display(),
                    there.display()
                ))
                .hint("give each new tablespace an empty directory of its own"));
            }
            taken.push((path, real));
        }
        Ok(())
    }

    fn root_link(&self, path: &ClusterPath) -> Option<ClusterPath> {
        self.root_of(path).0.and_then(|link| ClusterPath::new(link).ok())
    }
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

    fn create_directory(&mut self, path: &ClusterPath, mode: Option<u32>) -> Result<()> {
        let place = self.place(path);
        make_directory(place.root.as_fd(), &place.rest, mode.unwrap_or(self.owner.directory_mode))
            .map_err(|error| io_error("create directory", path, error))?;
        self.changes.add(path, &place);
        Ok(())
    }

    fn create_symlink(&mut self, path: &ClusterPath, text: &[u8]) -> Result<()> {
        let link = LinkText::new(text);
        let place = self.place(path);
        let there = self.entry(path)?;
        if there.as_ref().is_some_and(|entry| entry.kind == FileKind::Symlink { text: text.to_vec() }) {
            // Who made it may not have lived to make it durable.
            self.changes.add(path, &place);
            let is_root = is_tablespace_link(path) && !self.roots.contains_key(path.as_bytes());
            return if is_root { self.add_root(path, &link) } else { Ok(()) };
        }
        self.check_symlinks(&[(path, text)])?;
        let made =
            open_parent(place.root.as_fd(), &place.rest).and_then(|(parent, name)| fs::symlinkat(text, &parent, name));
        made.map_err(|error| io_error("create symlink", path, error))?;
        self.changes.add(path, &place);
        if is_tablespace_link(path) { self.add_root(path, &link) } else { Ok(()) }
    }

    fn create_file(&mut self, path: &ClusterPath, draft: &str, from: u64) -> Result<Box<dyn NewFile>> {
        let place = self.place(path);
        let (file, temporary) =
            self.temporary(&place, draft, from).map_err(|error| io_error("create a new file for", path, error))?;
        let mode = self.owner.file_mode;
        Ok(Box::new(Draft { file, temporary, place, path: path.clone(), mode, changes: Arc::clone(&self.changes) }))
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

    fn read_file(&self, path: &ClusterPath) -> Result<Box<dyn ReadAt>> {
        Ok(Box::new(open_regular(&self.place(path), path, OFlags::RDONLY, "open")?))
    }

    fn open_file(&mut self, path: &ClusterPath) -> Result<Box<dyn PatchFile>> {
        let place = self.place(path);
        let file = open_regular(&place, path, OFlags::RDWR, "open for writing")?;
        self.changes.add(path, &place);
        Ok(Box::new(file))
    }

    fn truncate(&mut self, path: &ClusterPath, size: u64) -> Result<()> {
        let place = self.place(path);
        let cut = || -> OsResult<()> {
            let file = open_beneath(place.root.as_fd(), &place.rest, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty())?;
            let longer = u64::try_from(fs::fstat(&file)?.st_size).is_ok_and(|now| now > size);
            if longer { fs::ftruncate(&file, size) } else { Ok(()) }
        };
        cut().map_err(|error| io_error("truncate", path, error))?;
        self.changes.add(path, &place);
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
        self.changes.add(path, &place);
        match outcome {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(error) => Err(io_error("remove", path, error)),
        }
    }

    fn draft_size(&self, path: &ClusterPath, draft: &str) -> Result<Option<u64>> {
        let place = Place { root: self.place(path).root, rest: draft_path(draft) };
        let status = place.status().map_err(|error| io_error("look at the draft of", path, error))?;
        Ok(status.map(|status| u64::try_from(status.st_size).unwrap_or(0)))
    }

    fn keep(&mut self, path: &ClusterPath, name: &str) -> Result<()> {
        let place = self.place(path);
        let fail = |error| io_error("keep", path, error);
        self.make_state_directory(&place.root).map_err(fail)?;
        keep::make_undo_directory(place.root.as_fd()).map_err(fail)?;
        keep::keep(&place, name).map_err(fail)?;
        self.note_kept(path, place.root);
        Ok(())
    }

    fn is_kept(&self, path: &ClusterPath, name: &str) -> Result<bool> {
        keep::is_kept(self.place(path).root.as_fd(), name)
            .map_err(|error| io_error("look at what is kept of", path, error))
    }

    fn set_aside(&mut self, path: &ClusterPath, name: &str) -> Result<()> {
        let place = self.place(path);
        let fail = |error| io_error("set aside what is kept of", path, error);
        if keep::set_aside(&place, name).map_err(fail)? && self.changes.wanted() {
            sync_way_to(&place.root, &keep::unarchived_directory()).map_err(fail)?;
        }
        Ok(())
    }

    fn sync_kept(&mut self) -> Result<()> {
        for root in std::mem::take(&mut self.kept_in).into_values().filter(|_| self.changes.wanted()) {
            sync_way_to(&root, &keep::undo_directory())
                .context(|| "cannot sync what is kept for an undo".to_owned())?;
        }
        Ok(())
    }

    fn keep_directory(&mut self, path: &ClusterPath, name: &str) -> Result<bool> {
        let place = self.place(path);
        let fail = |error| io_error("keep directory", path, error);
        keep::make_undo_directory(place.root.as_fd()).map_err(fail)?;
        self.changes.add(path, &place);
        let gone = keep::keep_directory(&place, name).map_err(fail)?;
        self.note_kept(path, place.root);
        Ok(gone)
    }

    fn put_back(&mut self, path: &ClusterPath, name: &str) -> Result<bool> {
        let place = self.place(path);
        self.changes.add(path, &place);
        keep::put_back(&place, name).map_err(|error| io_error("put back", path, error))
    }

    fn set_modified(&mut self, path: &ClusterPath, time: FileTime) -> Result<()> {
        let place = self.place(path);
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        open_beneath(place.root.as_fd(), &place.rest, flags, Mode::empty())
            .and_then(|file| keep::set_times(file.as_fd(), time.seconds, i64::from(time.nanoseconds)))
            .map_err(|error| io_error("set the time of", path, error))
    }

    fn open_log(&mut self, near: Option<&ClusterPath>, name: &str, create: bool) -> Result<Option<Box<dyn Log>>> {
        let root = near.map_or(Arc::clone(&self.root), |path| self.place(path).root);
        let path = Path::new(STATE_DIRECTORY).join(name);
        let shown = self.path.join(&path);
        let fail = |error| Error::failure(format!("cannot open {}", shown.display())).because(error);
        // openat2 refuses a mode where nothing is made.
        let (flags, mode) = if create { (OFlags::RDWR | OFlags::CREATE, 0o600) } else { (OFlags::RDWR, 0) };
        if create {
            self.make_state_directory(&root).map_err(fail)?;
            if path.starts_with(keep::undo_directory()) {
                keep::make_undo_directory(root.as_fd()).map_err(fail)?;
            }
        }
        let file = match open_beneath(root.as_fd(), &path, flags, Mode::from_raw_mode(mode)) {
            Err(Errno::NOENT) if !create => return Ok(None),
            // Enough for those who only look.
            Err(Errno::ROFS | Errno::ACCESS) if !create => {
                open_beneath(root.as_fd(), &path, OFlags::RDONLY, Mode::empty()).map_err(fail)?
            }
            opened => opened.map_err(fail)?,
        };
        if create && self.changes.wanted() {
            sync_way_to(&root, path.parent().unwrap_or(Path::new("."))).map_err(fail)?;
        }
        let log = LogFile::new(file, shown, self.changes.wanted())?;
        let is_large = self.changes.wanted() && path.starts_with(keep::undo_directory());
        Ok(Some(if is_large { Box::new(LargeLog::new(log)?) } else { Box::new(log) }))
    }

    fn roots(&self) -> Vec<Option<ClusterPath>> {
        let links = self.roots.keys().map(|link| ClusterPath::new(link).ok());
        std::iter::once(None).chain(links).collect()
    }

    fn drop_kept_at(&mut self, link: &ClusterPath, text: &LinkText, owner: &str) -> Result<()> {
        let location = self.location(link, text);
        let fail = || format!("cannot clear what an earlier apply has kept in {}", location.display());
        let root = match open_directory(&location) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            opened => Arc::new(opened.context(fail)?),
        };
        let found = keep::owner(root.as_fd()).context(fail)?;
        if found.is_some_and(|found| found == owner.as_bytes()) {
            return self.clear_state(&root, &[]).context(fail);
        }
        Ok(())
    }

    fn drop_kept_in(&mut self, link: &ClusterPath) -> Result<()> {
        match self.roots.get(link.as_bytes()) {
            Some(root) => self.clear_state(root, &[]).context(|| format!("cannot clear the state directory in {link}")),
            None => Ok(()),
        }
    }

    fn drop_kept(&mut self) -> Result<()> {
        for (link, root) in &self.roots {
            let shown = String::from_utf8_lossy(link);
            self.clear_state(root, &[]).context(|| format!("cannot clear the state directory in {shown}"))?;
        }
        self.clear_state(&self.root, &STATE_FILES).context(|| "cannot clear the state directory".to_owned())
    }

    fn sync(&mut self, progress: &dyn Progress) -> Result<()> {
        self.changes.sync(progress)
    }

    fn sync_file_systems(&mut self, paths: &[ClusterPath]) -> Result<()> {
        let all = Changes::new(SyncMethod::Syncfs, Interrupt::new());
        let state = ClusterPath::new(STATE_DIRECTORY.as_bytes()).context(|| "no such name".to_owned())?;
        for path in paths.iter().chain([&state]) {
            all.add(path, &self.place(path));
        }
        all.sync(&crate::progress::Silent)
    }

    fn begin_sync(&mut self) -> Result<Box<dyn Syncing>> {
        Ok(Box::new(self.changes.begin_sync()?))
    }

    fn another(&self) -> Option<Box<dyn TargetStore + Send>> {
        Some(Box::new(Self { kept_in: BTreeMap::new(), ..self.clone() }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cluster::Durability;

    #[test]
    fn only_what_lies_behind_a_link_can_have_another_root() {
        let root = |path: &str| possible_root(&ClusterPath::new(path.as_bytes()).unwrap()).map(<[u8]>::to_vec);
        let cases = [
            ("pg_wal/1", Some("pg_wal")),
            ("pg_wal/archive_status/1", Some("pg_wal")),
            ("pg_tblspc/1/2", Some("pg_tblspc/1")),
            ("pg_tblspc/1/2/3", Some("pg_tblspc/1")),
            ("pg_tblspc/1", None),
            ("pg_tblspc", None),
            ("pg_wal", None),
            ("pg_wals/1", None),
            ("base/1/2", None),
        ];
        for (path, expected) in cases {
            assert_eq!(root(path).as_deref(), expected.map(str::as_bytes), "{path}");
        }
    }

    #[test]
    fn what_a_draft_has_beyond_the_place_where_it_goes_on_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = ClusterPath::new(b"file").unwrap();
        for (from, expected) in [(0, &b"xy"[..]), (4, b"0123xy"), (10, b"0123456789xy")] {
            let mut store = DirectoryStore::open(directory.path(), &[], SyncMethod::None).unwrap();
            let mut draft = store.create_file(&path, "1", 0).unwrap();
            draft.write_at(b"0123456789", 0).unwrap();
            draft.pause().unwrap();
            let mut draft = store.create_file(&path, "1", from).unwrap();
            draft.write_at(b"xy", from).unwrap();
            draft.commit(Durability::Later).unwrap();
            assert_eq!(std::fs::read(directory.path().join("file")).unwrap(), expected, "from {from}");
        }
    }
}
