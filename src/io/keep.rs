//! Keeping what an apply replaces or removes, so that an undo can put it back.
//!
//! What is kept lies in `.pg_unfork/undo` of its own file system: the same inode under another name
//! (a hard link), or a copy (`NAME.copy`) where the file's own name is a mount point or the file system has no links.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::beneath::{OsResult, open_beneath, open_parent};
use super::copy::copy_range;
use super::draft::copy_attributes;
use super::place::{Place, make_directory};
use crate::cluster::{OWNER_FILE, STATE_DIRECTORY, UNARCHIVED};

/// Where things are kept, below a root.
pub(super) fn undo_directory() -> PathBuf {
    Path::new(STATE_DIRECTORY).join("undo")
}

/// Where WAL is that was never archived, below a root.
pub(super) fn unarchived_directory() -> PathBuf {
    Path::new(STATE_DIRECTORY).join(UNARCHIVED)
}

fn kept(name: &str) -> PathBuf {
    undo_directory().join(name)
}

fn copied(name: &str) -> PathBuf {
    undo_directory().join(format!("{name}.copy"))
}

fn exists(root: BorrowedFd<'_>, path: &Path) -> OsResult<bool> {
    match open_parent(root, path).and_then(|(parent, name)| fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether anything is kept under `name`.
pub(super) fn is_kept(root: BorrowedFd<'_>, name: &str) -> OsResult<bool> {
    Ok(exists(root, &kept(name))? || exists(root, &copied(name))?)
}

/// Makes the directory where things are kept.
pub(super) fn make_undo_directory(root: BorrowedFd<'_>) -> OsResult<()> {
    make_directory(root, Path::new(STATE_DIRECTORY), 0o700)?;
    make_directory(root, &undo_directory(), 0o700).map(|_| ())
}

/// Keeps a file or a symlink under `name`; nothing, a directory, or what is kept already is left.
pub(super) fn keep(place: &Place, name: &str) -> OsResult<()> {
    let root = place.root.as_fd();
    let Some(status) = place.status()? else { return Ok(()) };
    if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
        return Ok(());
    }
    if is_kept(root, name)? {
        return Ok(());
    }
    match link(root, &place.rest, &kept(name)) {
        Err(Errno::PERM | Errno::MLINK | Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS) => keep_copy(place, name),
        outcome => outcome,
    }
}

/// Moves what is kept of `place` under `name` to where no clearing touches it; says whether anything is.
pub(super) fn set_aside(place: &Place, name: &str) -> OsResult<bool> {
    let root = place.root.as_fd();
    let mut from = kept(name);
    if !exists(root, &from)? {
        from = copied(name);
        if !exists(root, &from)? {
            return Ok(false);
        }
    }
    let Some(own) = place.rest.file_name() else { return Ok(false) };
    make_directory(root, &unarchived_directory(), 0o700)?;
    let mut to = unarchived_directory().join(own);
    let mut number = 1;
    // An earlier segment of the same name may be another one.
    while exists(root, &to)? {
        number += 1;
        let mut numbered = own.to_owned();
        numbered.push(format!(".{number}"));
        to = unarchived_directory().join(numbered);
    }
    rename(root, &from, &to).map(|()| true)
}

/// The names of what was set aside.
pub(super) fn names_set_aside(root: BorrowedFd<'_>) -> OsResult<Vec<String>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let directory = match open_beneath(root, &unarchived_directory(), flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        opened => opened?,
    };
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(&directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !matches!(name.as_str(), "." | "..") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Removes what was set aside, and the state directory where nothing else is in it.
pub(super) fn drop_set_aside(root: BorrowedFd<'_>) -> OsResult<()> {
    remove_content(root, &unarchived_directory(), &|_| false)?;
    remove_content(root, Path::new(STATE_DIRECTORY), &|_| true)
}

/// Gives what is at `from` the second name `to`.
fn link(root: BorrowedFd<'_>, from: &Path, to: &Path) -> OsResult<()> {
    let (from, from_name) = open_parent(root, from)?;
    let (to, to_name) = open_parent(root, to)?;
    fs::linkat(&from, from_name, &to, to_name, AtFlags::empty())
}

fn unlink(root: BorrowedFd<'_>, path: &Path) -> OsResult<()> {
    let unlinked = open_parent(root, path).and_then(|(parent, name)| fs::unlinkat(&parent, name, AtFlags::empty()));
    match unlinked {
        Err(Errno::NOENT) => Ok(()),
        outcome => outcome,
    }
}

fn rename(root: BorrowedFd<'_>, from: &Path, to: &Path) -> OsResult<()> {
    let (from, from_name) = open_parent(root, from)?;
    let (to, to_name) = open_parent(root, to)?;
    fs::renameat(&from, from_name, &to, to_name)
}

/// A copy is whole and durable before it has its name.
fn keep_copy(place: &Place, name: &str) -> OsResult<()> {
    let root = place.root.as_fd();
    let draft = undo_directory().join("draft");
    copy_whole(root, &place.rest, &draft, OFlags::CREATE | OFlags::TRUNC)?;
    rename(root, &draft, &copied(name))
}

/// Copies content, mode, attributes and time of last modification of a file, and syncs.
fn copy_whole(root: BorrowedFd<'_>, from: &Path, to: &Path, flags: OFlags) -> OsResult<()> {
    let from = open_beneath(root, from, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
    let status = fs::fstat(&from)?;
    let to = open_beneath(root, to, flags | OFlags::RDWR | OFlags::NONBLOCK, Mode::from_raw_mode(0o600))?;
    let size = u64::try_from(status.st_size).unwrap_or(0);
    copy_range(from.as_fd(), to.as_fd(), 0, size)?;
    fs::ftruncate(&to, size)?;
    fs::fchmod(&to, Mode::from_raw_mode(status.st_mode & 0o7777))?;
    copy_attributes(from.as_fd(), to.as_fd())?;
    set_times(to.as_fd(), status.st_mtime, i64::try_from(status.st_mtime_nsec).unwrap_or(0))?;
    fs::fsync(&to)
}

/// Sets the time of last modification; that of last access stays.
pub(super) fn set_times(file: BorrowedFd<'_>, seconds: i64, nanoseconds: i64) -> OsResult<()> {
    let last_access = Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT };
    let last_modification = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    fs::futimens(file, &Timestamps { last_access, last_modification })
}

/// Moves an empty directory to where things are kept; says whether it is gone.
pub(super) fn keep_directory(place: &Place, name: &str) -> OsResult<bool> {
    let root = place.root.as_fd();
    let directory = match open_beneath(root, &place.rest, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(true),
        opened => opened?,
    };
    for entry in fs::Dir::read_from(&directory)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    match rename(root, &place.rest, &kept(name)) {
        Ok(()) => Ok(true),
        // In use as a mount point.
        Err(Errno::BUSY) => Ok(false),
        // On a file system that is mounted below the root. An undo makes it again.
        Err(Errno::XDEV) => {
            let (parent, name) = open_parent(root, &place.rest)?;
            fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).map(|()| true)
        }
        Err(error) => Err(error),
    }
}

/// Puts back what is kept under `name`; says whether anything is.
pub(super) fn put_back(place: &Place, name: &str) -> OsResult<bool> {
    let root = place.root.as_fd();
    let status =
        open_parent(root, &kept(name)).and_then(|(parent, name)| fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW));
    match status {
        Ok(status) if FileType::from_raw_mode(status.st_mode) == FileType::Directory => {
            rename(root, &kept(name), &place.rest).map(|()| true)
        }
        Ok(_) => {
            let draft = undo_directory().join("draft");
            unlink(root, &draft)?;
            link(root, &kept(name), &draft)?;
            rename(root, &draft, &place.rest)?;
            // Two names of one inode: such a rename does nothing.
            unlink(root, &draft).map(|()| true)
        }
        Err(Errno::NOENT) if exists(root, &copied(name))? => {
            copy_whole(root, &copied(name), &place.rest, OFlags::CREATE).map(|()| true)
        }
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The name of the apply that made the state directory of a root, as far as it can be one; none where no apply did.
pub(super) fn owner(root: BorrowedFd<'_>) -> OsResult<Option<Vec<u8>>> {
    let path = Path::new(STATE_DIRECTORY).join(OWNER_FILE);
    let file = match open_beneath(root, &path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        opened => opened?,
    };
    let mut name = vec![0; 256];
    let length = rustix::io::retry_on_intr(|| rustix::io::pread(&file, &mut name, 0))?;
    name.truncate(length);
    Ok(Some(name))
}

/// Removes what is in the state directory of a root but for `spare` and what was set aside, and the directory itself where nothing
/// is left.
pub(super) fn clear_state(root: BorrowedFd<'_>, spare: &[&str]) -> OsResult<()> {
    remove_content(root, &undo_directory(), &|_| false)?;
    let is_spared = |name: &[u8]| spare.iter().chain([&UNARCHIVED]).any(|spared| spared.as_bytes() == name);
    remove_content(root, Path::new(STATE_DIRECTORY), &is_spared)
}

/// Removes the files and empty directories in a directory, then the directory itself if it is empty.
fn remove_content(root: BorrowedFd<'_>, path: &Path, spared: &dyn Fn(&[u8]) -> bool) -> OsResult<()> {
    let directory = match open_beneath(root, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(&directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") && !spared(name.to_bytes()) {
            names.push(name);
        }
    }
    for name in names {
        match fs::unlinkat(&directory, &name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => fs::unlinkat(&directory, &name, AtFlags::REMOVEDIR)?,
            Err(Errno::NOENT) => {}
            outcome => outcome?,
        }
    }
    let (parent, name) = open_parent(root, path)?;
    match fs::unlinkat(&parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(()),
        outcome => outcome,
    }
}
