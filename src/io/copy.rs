//! Copying between open files.

use std::os::fd::BorrowedFd;

use rustix::fs::{SeekFrom, copy_file_range, fstat, ftruncate, seek};
use rustix::io::{Errno, pread, pwrite};

use super::beneath::OsResult;
use super::read::read_full;

/// Bytes moved at a time where the kernel cannot copy by itself.
const PIECE: usize = 64 << 10;
/// Bytes up to which a copy goes through a buffer.
const BUFFERED: u64 = 128 << 10;
/// Bytes read at a time to be summed: what stays in a core's cache.
const SUMMED_AT_ONCE: u64 = 256 << 10;
/// Bytes asked of the kernel at a time.
const KERNEL_PIECE: u64 = 64 << 20;

/// Copies up to `length` bytes at the same offset from one file to another. Gives how many there
/// were. Holes behind the end of `to` stay holes.
pub(super) fn copy_range(from: BorrowedFd<'_>, to: BorrowedFd<'_>, offset: u64, length: u64) -> OsResult<u64> {
    let mut done = 0;
    while done < length {
        let at = offset + done;
        let hole = hole_at(from, at)?.min(length - done);
        if hole > 0 && size_of(to)? <= at {
            ftruncate(to, at + hole)?;
            done += hole;
            continue;
        }
        let wanted = if hole > 0 { hole } else { data_at(from, at).min(length - done) };
        let copied = copy_bytes(from, to, at, wanted)?;
        done += copied;
        if copied < wanted || copied == 0 {
            break;
        }
    }
    Ok(done)
}

/// As [`copy_range`], and appends what was copied to the CRC-32C.
pub(super) fn copy_summed(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    offset: u64,
    length: u64,
    crc: u32,
) -> OsResult<(u64, u32)> {
    // What fits into a buffer is not worth asking for holes, and is at hand for the sum.
    if length <= BUFFERED {
        let mut buffer = vec![0; usize::try_from(length).unwrap_or_default()];
        let got = read_full(from, &mut buffer, offset)?;
        let bytes = buffer.get(..got).unwrap_or_default();
        write_all(to, bytes, offset)?;
        return Ok((got as u64, crc32c::crc32c_append(crc, bytes)));
    }
    let copied = copy_range(from, to, offset, length)?;
    Ok((copied, sum(to, offset, copied, crc)?))
}

/// The CRC-32C with a stretch of a file appended, which is there.
fn sum(file: BorrowedFd<'_>, offset: u64, length: u64, mut crc: u32) -> OsResult<u32> {
    let mut buffer = vec![0; usize::try_from(length.min(SUMMED_AT_ONCE)).unwrap_or_default()];
    let mut done = 0;
    while done < length {
        let wanted = usize::try_from(length - done).unwrap_or(buffer.len()).min(buffer.len());
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        let got = read_full(file, part, offset + done)?;
        if got == 0 {
            return Err(Errno::IO);
        }
        crc = crc32c::crc32c_append(crc, part.get(..got).unwrap_or_default());
        done += got as u64;
    }
    Ok(crc)
}

fn size_of(file: BorrowedFd<'_>) -> OsResult<u64> {
    fstat(file).map(|status| u64::try_from(status.st_size).unwrap_or(0))
}

/// The length of the hole that begins at `offset`; zero where there is none, or nobody can tell.
fn hole_at(file: BorrowedFd<'_>, offset: u64) -> OsResult<u64> {
    match seek(file, SeekFrom::Data(offset)) {
        Ok(data) => Ok(data.saturating_sub(offset)),
        // No data from here to the end.
        Err(Errno::NXIO) => size_of(file).map(|size| size.saturating_sub(offset)),
        Err(_) => Ok(0),
    }
}

/// The length of the data that begins at `offset`, up to the next hole; as if there were no hole where
/// nobody can tell.
fn data_at(file: BorrowedFd<'_>, offset: u64) -> u64 {
    seek(file, SeekFrom::Hole(offset)).map_or(u64::MAX, |hole| hole.saturating_sub(offset).max(1))
}

/// Copies inside the kernel where both file systems can.
fn copy_bytes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, offset: u64, length: u64) -> OsResult<u64> {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::{File, read};
    use std::os::fd::AsFd;
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    const MIB: u64 = 1 << 20;

    /// A file of 8 MiB with data in its third and its last.
    fn sparse(path: &std::path::Path) -> File {
        let file = File::create_new(path).unwrap();
        file.write_all_at(&[1; 4096], 2 * MIB).unwrap();
        file.write_all_at(&[2; 4096], 8 * MIB - 4096).unwrap();
        File::open(path).unwrap()
    }

    #[test]
    fn holes_stay_holes_behind_the_end_and_are_zeros_before_it() {
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name);
        let from = sparse(&path("from"));
        let expected = read(path("from")).unwrap();
        for (name, there, open) in
            [("new", 0, true), ("short", MIB, true), ("shorter", MIB, false), ("long", 8 * MIB, true)]
        {
            let to = File::create_new(path(name)).unwrap();
            to.write_all_at(&vec![9; usize::try_from(there).unwrap()], 0).unwrap();
            let length = if open { u64::MAX } else { 8 * MIB };
            assert_eq!(copy_range(from.as_fd(), to.as_fd(), 0, length).unwrap(), 8 * MIB, "{name}");
            assert!(read(path(name)).unwrap() == expected, "{name}");
            let used = to.metadata().unwrap().blocks() * 512;
            assert!(used < there + 2 * MIB, "{name} takes {used} bytes");
        }
    }

    #[test]
    fn a_range_is_copied_and_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let from = sparse(&scratch.path().join("from"));
        let to = File::create_new(scratch.path().join("to")).unwrap();
        // A hole, then data, then a hole, all behind the end; then beyond the source's end.
        assert_eq!(copy_range(from.as_fd(), to.as_fd(), MIB, 2 * MIB).unwrap(), 2 * MIB);
        assert_eq!(to.metadata().unwrap().len(), 3 * MIB);
        assert_eq!(copy_range(from.as_fd(), to.as_fd(), 8 * MIB - 10, 100).unwrap(), 10);
        assert_eq!(copy_range(from.as_fd(), to.as_fd(), 9 * MIB, 100).unwrap(), 0);
        let copied = read(scratch.path().join("to")).unwrap();
        assert_eq!(copied.iter().filter(|&&byte| byte == 1).count(), 4096);
        assert_eq!(copied.iter().filter(|&&byte| byte == 2).count(), 10);
    }
}
