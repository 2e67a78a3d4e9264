//! Reading from open files.

use std::os::fd::BorrowedFd;

use rustix::io::{Errno, pread};

use super::beneath::OsResult;

/// Fills `buffer` from `offset` on, as far as the file has bytes; says how many.
pub(super) fn read_full(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> OsResult<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match pread(file, buffer.get_mut(got..).unwrap_or_default(), offset + got as u64) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}
