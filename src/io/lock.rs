//! One at a time: the lock on a data directory.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, ErrorId, Result};

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
            .map_err(|error| Error::of(ErrorId::NotACluster, format!("cannot open {shown}")).because(error))?;
        let operation = match kind {
            LockKind::Shared => FlockOperation::NonBlockingLockShared,
            LockKind::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        match fs::flock(&fd, operation) {
            Ok(()) => Ok(Self { _directory: fd }),
            Err(Errno::WOULDBLOCK) => {
                let who = Self::holder(directory).map_or(String::new(), |process| format!(" (process {process})"));
                Err(Error::of(ErrorId::Locked, format!("another pg_unfork is at work on {shown}{who}"))
                    .hint("wait until it is done: pg_unfork status tells how far it is"))
            }
            Err(error) => Err(Error::failure(format!("cannot lock {shown}")).because(error)),
        }
    }

    /// The process that holds a lock on the data directory, as far as the system tells: none, too, where it runs
    /// on another machine or in another container.
    #[must_use]
    pub fn holder(directory: &Path) -> Option<u32> {
        let status = fs::stat(directory).ok()?;
        holder_in(&std::fs::read_to_string("/proc/locks").ok()?, status.st_dev, status.st_ino)
    }
}

/// Finds who holds a `flock` on a file: `1: FLOCK  ADVISORY  WRITE 4242 00:2b:1234 0 EOF`.
fn holder_in(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let file = format!("{:02x}:{:02x}:{inode}", fs::major(device), fs::minor(device));
    locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let (_, kind, _, _) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let (process, found) = (fields.next()?, fields.next()?);
        (kind == "FLOCK" && found == file).then(|| process.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_by_device_and_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fd:01:77 0 EOF\n2: -> FLOCK  ADVISORY  WRITE 12 fd:01:77 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 13 fd:01:78 0 EOF\n4: FLOCK  ADVISORY  READ 14 fd:01:77 0 EOF\n";
        let device = fs::makedev(0xfd, 1);
        assert_eq!(holder_in(locks, device, 77), Some(14));
        assert_eq!(holder_in(locks, device, 78), Some(13));
        assert_eq!(holder_in(locks, device, 79), None);
    }
}
