//! Copying between open files.

use std::os::fd::BorrowedFd;

use rustix::fs::copy_file_range;
use rustix::io::{Errno, pread, pwrite};

use super::beneath::OsResult;

/// Bytes moved at a time where the kernel cannot copy by itself.
const PIECE: usize = 64 << 10;
/// Bytes asked of the kernel at a time.
const KERNEL_PIECE: u64 = 64 << 20;

/// Copies up to `length` bytes at the same offset from one file to another, inside the kernel
/// where both file systems can. Gives how many there were.
pub(super) fn copy_range(from: BorrowedFd<'_>, to: BorrowedFd<'_>, offset: u64, length: u64) -> OsResult<u64> {
    let mut done = 0;
    while done < length {
        let (mut source, mut target) = (offset + done, offset + done);
        let wanted = usize::try_from((length - done).min(KERNEL_PIECE)).unwrap_or(PIECE);
        match copy_file_range(from, Some(&mut source), to, Some(&mut target), wanted) {
            // Some file systems give 0 for files whose size they do not know: reading tells.
            Ok(0) | Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM) => {
                return Ok(done + copy_by_reading(from, to, offset + done, length - done)?);
            }
            Ok(copied) => done += copied as u64,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn copy_by_reading(from: BorrowedFd<'_>, to: BorrowedFd<'_>, offset: u64, length: u64) -> OsResult<u64> {
    let mut buffer = Vec::new();
    let mut done = 0;
    while done < length {
        let wanted = usize::try_from(length - done).unwrap_or(PIECE).min(PIECE);
        buffer.resize(wanted, 0);
        match pread(from, buffer.as_mut_slice(), offset + done) {
            Ok(0) => break,
            Ok(got) => {
                write_all(to, buffer.get(..got).unwrap_or_default(), offset + done)?;
                done += got as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Writes all of `data` at `offset`.
pub(super) fn write_all(to: BorrowedFd<'_>, mut data: &[u8], mut offset: u64) -> OsResult<()> {
    while !data.is_empty() {
        match pwrite(to, data, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                data = data.get(written..).unwrap_or_default();
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
