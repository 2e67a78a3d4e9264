//! One at a time: the lock on a data directory.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Whether others may hold the lock, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// For reading: other plans may go on.
    Shared,
    /// For writing.
    Exclusive,
}

/// A lock on a data directory (`flock` on the directory itself, so it leaves no file), held as
/// long as this value lives.
#[derive(Debug)]
pub struct Lock {
    _directory: OwnedFd,
}

impl Lock {
    /// Takes the lock, or fails at once.
    ///
    /// # Errors
    /// When another pg_unfork works on the directory, or it cannot be opened.
    pub fn take(directory: &Path, kind: LockKind) -> Result<Self> {
        let shown = directory.display();
        let fd = fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| Error::precondition(format!("cannot open {shown}")).because(error))?;
        let operation = match kind {
            LockKind::Shared => FlockOperation::NonBlockingLockShared,
            LockKind::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        match fs::flock(&fd, operation) {
            Ok(()) => Ok(Self { _directory: fd }),
            Err(Errno::WOULDBLOCK) => {
                Err(Error::precondition(format!("another pg_unfork is at work on {shown}"))
                    .hint("wait until it is done"))
            }
            Err(error) => Err(Error::failure(format!("cannot lock {shown}")).because(error)),
        }
    }
}
