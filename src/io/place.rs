//! Where a path of a cluster is on this machine, and what is there.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, Access, AtFlags, FileType, Mode, OFlags, Stat, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::beneath::{OsResult, open_beneath, open_parent};
use crate::cluster::{FileEntry, FileKind, FileTime};
use crate::error::{Error, ErrorKind};
use crate::types::{ClusterPath, FileMode};

/// Where a path is: a root, and the way from there.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) root: Arc<OwnedFd>,
    pub(super) rest: PathBuf,
}

impl Place {
    /// The status of what is there; none where nothing is.
    pub(super) fn status(&self) -> OsResult<Option<Stat>> {
        let found = open_parent(self.root.as_fd(), &self.rest)
            .and_then(|(parent, name)| fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW));
        match found {
            Ok(status) => Ok(Some(status)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn obstacle(&self, in_place: bool) -> OsResult<Option<&'static str>> {
        let (parent, name) = match open_parent(self.root.as_fd(), &self.rest) {
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::NOTDIR) => return Ok(Some("what is in its directory's place is no directory")),
            opened => opened?,
        };
        if fs::accessat(&parent, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_err() {
            return Ok(Some("its directory is not writable"));
        }
        if is_protected(parent.as_fd(), Path::new(".")) {
            return Ok(Some("its directory is immutable or append-only"));
        }
        let Some(status) = self.status()? else { return Ok(None) };
        if status.st_uid != rustix::process::geteuid().as_raw() {
            return Ok(Some("it belongs to another user"));
        }
        if is_protected(parent.as_fd(), name) {
            return Ok(Some("it is immutable or append-only"));
        }
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        match fs::accessat(&parent, name, Access::WRITE_OK, AtFlags::EACCESS | AtFlags::SYMLINK_NOFOLLOW) {
            Err(_) if in_place => Ok(Some("it is not writable")),
            _ => Ok(None),
        }
    }

    pub(super) fn link_text(&self) -> OsResult<Vec<u8>> {
        let (parent, name) = open_parent(self.root.as_fd(), &self.rest)?;
        fs::readlinkat(&parent, name, Vec::new()).map(|text| CStr::to_bytes(&text).to_vec())
    }

    pub(super) fn sync(&self) -> OsResult<()> {
        match open_beneath(self.root.as_fd(), &self.rest, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) {
            Ok(file) => fs::fsync(&file),
            // Removed, or a symlink: its directory's turn comes.
            Err(Errno::NOENT | Errno::LOOP) => Ok(()),
            // A file that its own owner may not read.
            Err(Errno::ACCESS) => fs::syncfs(self.parent().nearest()?),
            Err(error) => Err(error),
        }
    }

    /// What is there, opened, or the nearest directory on the way to it: to tell the file system.
    pub(super) fn nearest(&self) -> OsResult<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let mut rest = Some(self.rest.as_path());
        while let Some(path) = rest.filter(|path| !path.as_os_str().is_empty()) {
            match open_beneath(self.root.as_fd(), path, flags, Mode::empty()) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => rest = path.parent(),
                opened => return opened,
            }
        }
        open_beneath(self.root.as_fd(), Path::new("."), flags, Mode::empty())
    }

    /// The directory that holds it.
    pub(super) fn parent(&self) -> Self {
        let parent = self.rest.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self { root: Arc::clone(&self.root), rest: parent.to_owned() }
    }
}

/// Whether an attribute of the file system (`chattr +i`, `+a`) keeps everybody from changing what is there.
/// Where the file system does not tell, it has no such attributes.
fn is_protected(parent: BorrowedFd<'_>, name: &Path) -> bool {
    let protects = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
    fs::statx(parent, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())
        .is_ok_and(|found| (found.stx_attributes & found.stx_attributes_mask).intersects(protects))
}

/// Opens a directory, wherever links lead.
pub(super) fn open_directory(path: &Path) -> OsResult<OwnedFd> {
    fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Makes a directory with exactly this mode, whatever the umask; one that is there gets it, as who made it may not have
/// lived to do that. Says whether it was not there.
pub(super) fn make_directory(root: BorrowedFd<'_>, path: &Path, mode: u32) -> OsResult<bool> {
    let (parent, name) = open_parent(root, path)?;
    match fs::mkdirat(&parent, name, Mode::from_raw_mode(mode)) {
        Ok(()) => fs::chmodat(&parent, name, Mode::from_raw_mode(mode), AtFlags::empty()).map(|()| true),
        Err(Errno::EXIST) => {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let there = fs::openat(&parent, name, flags | OFlags::PATH, Mode::empty())?;
            if fs::fstat(&there)?.st_mode & 0o7777 != mode {
                fs::fchmod(fs::openat(&parent, name, flags, Mode::empty())?, Mode::from_raw_mode(mode))?;
            }
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// An error that says what was being done to which path.
pub(super) fn io_error(what: &str, path: &ClusterPath, error: Errno) -> Error {
    let failure = Error::failure(format!("cannot {what} {path}")).because(error);
    match error {
        Errno::LOOP => failure
            .with_kind(ErrorKind::Stale)
            .hint("it, or a directory on the way to it, is a symlink now, which is never followed; make a fresh plan"),
        Errno::ACCESS | Errno::PERM => {
            failure.hint("let the owner of the data directory read and write everything that is in it")
        }
        _ => failure.hint("see the system's log for errors of the disk or of the file system"),
    }
}

/// What a file's status says; none for what is neither file, directory nor symlink.
pub(super) fn entry_of(status: &Stat, link: Option<Vec<u8>>) -> Option<FileEntry> {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_that_is_there_gets_its_mode() {
        let scratch = tempfile::tempdir().unwrap();
        let root = open_directory(scratch.path()).unwrap();
        let mode = || std::fs::metadata(scratch.path().join("made")).unwrap().permissions().mode() & 0o7777;
        for (wanted, is_new) in [(0o700, true), (0o750, false), (0o750, false)] {
            assert_eq!(make_directory(root.as_fd(), Path::new("made"), wanted), Ok(is_new));
            assert_eq!(mode(), wanted);
        }
        std::os::unix::fs::symlink("made", scratch.path().join("link")).unwrap();
        assert!(make_directory(root.as_fd(), Path::new("link"), 0o700).is_err());
        assert_eq!(mode(), 0o750);
    }
}
