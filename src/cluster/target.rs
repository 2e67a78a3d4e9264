//! What an apply does to a target, one operation each.
//!
//! Everything that writes below a target passes these traits, so tests can count, fail or forget
//! each operation.

use std::os::fd::BorrowedFd;

use super::{FileEntry, FileTime, Site};
use crate::error::Result;
use crate::types::{ClusterPath, LinkText};

/// Who owns what an apply makes, and with which permissions; from the data directory itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Permission bits of new directories: 0700, or 0750 where the group may read.
    pub directory_mode: u32,
    /// Permission bits of new files: 0600, or 0640 where the group may read.
    pub file_mode: u32,
}

/// The data directory to change. Paths never leave it: no symlink is followed but those at
/// `pg_wal` and in `pg_tblspc` that the target had when it was opened.
pub trait TargetStore: Site {
    /// The modes of what is made.
    fn owner(&self) -> Owner;

    /// What is at `path`; `None` where nothing is.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn entry(&self, path: &ClusterPath) -> Result<Option<FileEntry>>;

    /// Makes a directory; one that is there already is fine. `mode` is that of new directories
    /// unless said.
    ///
    /// # Errors
    /// When it cannot be made, or something else is there.
    fn create_directory(&mut self, path: &ClusterPath, mode: Option<u32>) -> Result<()>;

    /// Makes a symlink; the same link being there already is fine.
    ///
    /// # Errors
    /// When it cannot be made, or something else is there.
    fn create_symlink(&mut self, path: &ClusterPath, text: &[u8]) -> Result<()>;

    /// Begins a new content for the file at `path`, beside the old one; or goes on at `from` with one that
    /// was begun under the same name (`draft`, a file name). What that has from there on is dropped: a live source's
    /// file may have become shorter.
    ///
    /// # Errors
    /// When the file cannot be made.
    fn create_file(&mut self, path: &ClusterPath, draft: &str, from: u64) -> Result<Box<dyn NewFile>>;

    /// The size of what was begun under this name for the file at `path`; none where nothing was.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn draft_size(&self, path: &ClusterPath, draft: &str) -> Result<Option<u64>>;

    /// The bytes of a small file; `None` where it does not exist.
    ///
    /// # Errors
    /// When it cannot be read, or is larger than [`super::SMALL_FILE_LIMIT`].
    fn read_small(&self, path: &ClusterPath) -> Result<Option<Vec<u8>>>;

    /// Opens a file that is there, to read it.
    ///
    /// # Errors
    /// When it cannot be opened for reading, or is no regular file.
    fn read_file(&self, path: &ClusterPath) -> Result<Box<dyn ReadAt>>;

    /// Opens a file that is there, to change parts of it.
    ///
    /// # Errors
    /// When it cannot be opened for writing, or is no regular file.
    fn open_file(&mut self, path: &ClusterPath) -> Result<Box<dyn PatchFile>>;

    /// Cuts a file down to `size` bytes; one that is shorter already is left.
    ///
    /// # Errors
    /// When that fails.
    fn truncate(&mut self, path: &ClusterPath, size: u64) -> Result<()>;

    /// Removes a file, a symlink or an empty directory; nothing being there is fine. Says
    /// whether it is gone: a directory that is not empty stays.
    ///
    /// # Errors
    /// When that fails.
    fn remove(&mut self, path: &ClusterPath) -> Result<bool>;

    /// Keeps what is at `path`, a file or a symlink, under a name of its own, so that it can be put back
    /// bit for bit whatever happens to the path. What is kept under that name already stays; nothing
    /// being there is fine. Durable after [`TargetStore::sync_kept`].
    ///
    /// # Errors
    /// When it cannot be kept.
    fn keep(&mut self, path: &ClusterPath, name: &str) -> Result<()>;

    /// Whether something is kept of `path` under this name.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn is_kept(&self, path: &ClusterPath, name: &str) -> Result<bool>;

    /// Moves what is kept of `path` under this name, durably, to where it outlives all that is kept: to [`UNARCHIVED`],
    /// under the last part of its path, with a number where that is taken. Nothing being kept is fine.
    ///
    /// [`UNARCHIVED`]: super::UNARCHIVED
    ///
    /// # Errors
    /// When that fails.
    fn set_aside(&mut self, path: &ClusterPath, name: &str) -> Result<()>;

    /// Makes durable what was kept since the last call.
    ///
    /// # Errors
    /// When the system cannot do that.
    fn sync_kept(&mut self) -> Result<()>;

    /// Moves the empty directory at `path` to where things are kept. Says whether it is gone: a
    /// directory that is not empty stays.
    ///
    /// # Errors
    /// When that fails.
    fn keep_directory(&mut self, path: &ClusterPath, name: &str) -> Result<bool>;

    /// Puts back what was kept of `path`, over what is there now; it stays kept, too. Says whether
    /// anything was kept under that name.
    ///
    /// # Errors
    /// When that fails.
    fn put_back(&mut self, path: &ClusterPath, name: &str) -> Result<bool>;

    /// Gives the file at `path` this time of last modification.
    ///
    /// # Errors
    /// When that fails.
    fn set_modified(&mut self, path: &ClusterPath, time: FileTime) -> Result<()>;

    /// Opens a log in the state directory of the file system that `near` is on, or of the data
    /// directory; `None` where there is none and none is to be made.
    ///
    /// # Errors
    /// When it cannot be opened.
    fn open_log(&mut self, near: Option<&ClusterPath>, name: &str, create: bool) -> Result<Option<Box<dyn Log>>>;

    /// The paths that lead to the roots of the cluster: none for the data directory itself, and the
    /// links that are followed.
    fn roots(&self) -> Vec<Option<ClusterPath>>;

    /// Drops everything that is kept, and all drafts, and the state directories of other roots with
    /// them.
    ///
    /// # Errors
    /// When that fails.
    fn drop_kept(&mut self) -> Result<()>;

    /// Drops the state directory at the place that the link `link` led to, by its text, if the apply `owner` made it.
    /// Nothing being there is fine.
    ///
    /// # Errors
    /// When it is there and cannot be read or cleared.
    fn drop_kept_at(&mut self, link: &ClusterPath, text: &LinkText, owner: &str) -> Result<()>;

    /// Drops the state directory in the root that the link `link` leads to.
    ///
    /// # Errors
    /// When that fails.
    fn drop_kept_in(&mut self, link: &ClusterPath) -> Result<()>;

    /// Makes everything durable that was changed since the last call.
    ///
    /// # Errors
    /// When the system cannot do that.
    fn sync(&mut self, progress: &dyn crate::progress::Progress) -> Result<()>;

    /// Makes everything durable that is in the file systems of the data directory and of these paths, whoever has
    /// changed it.
    ///
    /// # Errors
    /// When the system cannot do that.
    fn sync_file_systems(&mut self, paths: &[ClusterPath]) -> Result<()>;

    /// Begins to make everything durable that was changed since the last call of this or [`TargetStore::sync`]. More
    /// may be changed meanwhile.
    ///
    /// # Errors
    /// When the system cannot do that.
    fn begin_sync(&mut self) -> Result<Box<dyn Syncing>> {
        self.sync(&crate::progress::Silent)?;
        Ok(Box::new(Synced))
    }

    /// Another handle on the same directory, for a thread of its own; none where there is only this one. What is changed
    /// by way of it is made durable by way of this one.
    fn another(&self) -> Option<Box<dyn TargetStore + Send>> {
        None
    }
}

/// Changes that are being made durable.
pub trait Syncing {
    /// Waits until they are.
    ///
    /// # Errors
    /// When the system cannot do that.
    fn wait(self: Box<Self>) -> Result<()>;
}

/// Changes that are durable.
struct Synced;

impl Syncing for Synced {
    fn wait(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// Bytes that can be read at a position.
pub trait ReadAt {
    /// How many there are.
    ///
    /// # Errors
    /// When the system does not tell.
    fn length(&self) -> Result<u64>;

    /// Fills `buffer` from `offset` on, as far as there are bytes; says how many.
    ///
    /// # Errors
    /// When reading fails.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize>;
}

impl ReadAt for Vec<u8> {
    fn length(&self) -> Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }
}

/// A file in the state directory that only grows.
pub trait Log: ReadAt {
    /// Adds bytes at its end.
    ///
    /// # Errors
    /// When not all of them can be written.
    fn append(&mut self, bytes: &[u8]) -> Result<()>;

    /// Cuts off what comes after `length` bytes.
    ///
    /// # Errors
    /// When that fails.
    fn truncate(&mut self, length: u64) -> Result<()>;

    /// Makes durable what was appended.
    ///
    /// # Errors
    /// When the system cannot do that.
    fn sync(&mut self) -> Result<()>;
}

/// Bytes that can be written, and read, at a position.
pub trait PatchFile: ReadAt {
    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// When not all of it can be written.
    fn write_at(&mut self, data: &[u8], offset: u64) -> Result<()>;

    /// Copies up to `length` bytes at the same `offset` from `source`, long stretches inside the kernel
    /// where it can. Gives how many there were, fewer where the source ends, and the CRC-32C of what `crc` is of
    /// with them appended.
    ///
    /// # Errors
    /// When reading or writing fails.
    fn copy_from(&mut self, source: BorrowedFd<'_>, offset: u64, length: u64, crc: u32) -> Result<(u64, u32)>;
}

/// When a change must be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before the call returns, and whole or absent at any instant.
    Now,
    /// After the next [`TargetStore::sync`].
    Later,
}

/// A file that is not in its place yet.
pub trait NewFile: PatchFile {
    /// Puts the file in its place, over what was there, whose owner, permissions and attributes
    /// it takes.
    ///
    /// # Errors
    /// When that fails; the old file is then untouched.
    fn commit(self: Box<Self>, durability: Durability) -> Result<()>;

    /// Leaves the file where it is, to go on with it later; what it has so far is durable after
    /// the next [`TargetStore::sync`].
    ///
    /// # Errors
    /// When that cannot be.
    fn pause(self: Box<Self>) -> Result<()>;
}
