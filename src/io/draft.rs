//! Files that are being written.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{self, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::beneath::{OsResult, open_beneath, open_parent};
use super::copy::{copy_range, copy_summed, write_all};
use super::durable::Changes;
use super::place::{Place, io_error};
use super::read::read_full;
use crate::cluster::{Durability, NewFile, PatchFile, ReadAt};
use crate::error::Result;
use crate::types::ClusterPath;

/// A file that is changed in place.
pub(super) struct OpenFile {
    pub(super) file: OwnedFd,
    pub(super) path: ClusterPath,
}

impl PatchFile for OpenFile {
    fn write_at(&mut self, data: &[u8], offset: u64) -> Result<()> {
        write_all(self.file.as_fd(), data, offset).map_err(|error| io_error("write", &self.path, error))
    }

    fn copy_from(&mut self, source: BorrowedFd<'_>, offset: u64, length: u64, crc: u32) -> Result<(u64, u32)> {
        copy_summed(source, self.file.as_fd(), offset, length, crc).map_err(|error| io_error("copy", &self.path, error))
    }
}

/// A file in a state directory that waits to take its place.
pub(super) struct Draft {
    pub(super) file: OwnedFd,
    pub(super) temporary: PathBuf,
    pub(super) place: Place,
    pub(super) path: ClusterPath,
    pub(super) mode: u32,
    pub(super) changes: Arc<Changes>,
}

impl ReadAt for OpenFile {
    fn length(&self) -> Result<u64> {
        length_of(&self.file, &self.path)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        read_full(self.file.as_fd(), buffer, offset).map_err(|error| io_error("read", &self.path, error))
    }
}

impl ReadAt for Draft {
    fn length(&self) -> Result<u64> {
        length_of(&self.file, &self.path)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        read_full(self.file.as_fd(), buffer, offset).map_err(|error| io_error("read", &self.path, error))
    }
}

fn length_of(file: &OwnedFd, path: &ClusterPath) -> Result<u64> {
    let status = fs::fstat(file).map_err(|error| io_error("look at", path, error))?;
    Ok(u64::try_from(status.st_size).unwrap_or(0))
}

impl PatchFile for Draft {
    fn write_at(&mut self, data: &[u8], offset: u64) -> Result<()> {
        write_all(self.file.as_fd(), data, offset).map_err(|error| io_error("write", &self.path, error))
    }

    fn copy_from(&mut self, source: BorrowedFd<'_>, offset: u64, length: u64, crc: u32) -> Result<(u64, u32)> {
        copy_summed(source, self.file.as_fd(), offset, length, crc).map_err(|error| io_error("copy", &self.path, error))
    }
}

impl NewFile for Draft {
    fn commit(self: Box<Self>, durability: Durability) -> Result<()> {
        self.try_commit(durability).map_err(|error| io_error("put in place", &self.path, error))
    }

    fn pause(self: Box<Self>) -> Result<()> {
        // By the time that it is made durable it may be in its place.
        let Self { file, temporary, place, path, changes, .. } = *self;
        changes.add_file(&path, Place { root: place.root, rest: temporary }, file);
        Ok(())
    }
}

impl Draft {
    fn try_commit(&self, durability: Durability) -> OsResult<()> {
        let durable = durability == Durability::Now && self.changes.wanted();
        let old = self.place.status()?;
        let kept_group = self.take_over(old.as_ref())?;
        if durable {
            fs::fsync(&self.file)?;
        }
        // Being whole or absent at any instant matters more than the group. What other names the old
        // file has is theirs: they may be another file of this cluster, or somebody's backup.
        let stays = !kept_group && durability == Durability::Later && old.is_some_and(|old| old.st_nlink == 1);
        match if stays { Err(Errno::BUSY) } else { self.rename() } {
            // A mount point, another file system, or a group that is not ours to give: the content goes
            // into the old file.
            Err(Errno::XDEV | Errno::BUSY) => self.write_in_place()?,
            outcome => outcome?,
        }
        if durable {
            self.place.sync()?;
            self.place.parent().sync()
        } else {
            self.changes.add(&self.path, &self.place);
            Ok(())
        }
    }

    /// Gives the draft the mode, the group and the attributes of the file that it replaces. Says
    /// whether it could have the group: a user may give files to groups of its own only.
    fn take_over(&self, old: Option<&Stat>) -> OsResult<bool> {
        let Some(old) = old else {
            return fs::fchmod(&self.file, Mode::from_raw_mode(self.mode)).map(|()| true);
        };
        let new = fs::fstat(&self.file)?;
        let mut kept_group = true;
        if new.st_gid != old.st_gid {
            match fs::fchown(&self.file, None, Some(fs::Gid::from_raw(old.st_gid))) {
                Err(Errno::PERM) => kept_group = false,
                outcome => outcome?,
            }
        }
        fs::fchmod(&self.file, Mode::from_raw_mode(old.st_mode & 0o7777))?;
        self.copy_attributes().map(|()| kept_group)
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
        copy_attributes(from.as_fd(), self.file.as_fd())
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

/// Copies extended attributes, POSIX ACLs among them.
pub(super) fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> OsResult<()> {
    let mut names = vec![0; 64 << 10];
    let length = match fs::flistxattr(from, names.as_mut_slice()) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(error),
    };
    for name in names.get(..length).unwrap_or_default().split_inclusive(|&b| b == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(|_| Errno::INVAL)?;
        let mut value = vec![0; 64 << 10];
        let length = fs::fgetxattr(from, name, value.as_mut_slice())?;
        value.truncate(length);
        match fs::fsetxattr(to, name, &value, XattrFlags::empty()) {
            // Labels of security modules are theirs to give.
            Err(_) if name.to_bytes().starts_with(b"security.") => {}
            outcome => outcome?,
        }
    }
    Ok(())
}
