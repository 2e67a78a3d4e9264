//! Files in a state directory that only grow.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{self, OFlags};
use rustix::io::Errno;

use super::beneath::OsResult;
use super::copy::write_all;
use super::read::read_full;
use crate::cluster::{Log, ReadAt};
use crate::error::{Context, Result};

/// An open log, whose bytes go through the system's cache.
#[derive(Debug)]
pub(super) struct LogFile {
    file: OwnedFd,
    shown: PathBuf,
    /// Where the next bytes go.
    end: u64,
    durable: bool,
}

impl LogFile {
    /// `shown` is for messages; `durable` says whether syncing is wanted at all.
    pub(super) fn new(file: OwnedFd, shown: PathBuf, durable: bool) -> Result<Self> {
        let status = fs::fstat(&file).context(|| format!("cannot look at {}", shown.display()))?;
        Ok(Self { file, end: u64::try_from(status.st_size).unwrap_or(0), shown, durable })
    }

    fn cannot(&self, what: &str) -> String {
        format!("cannot {what} {}", self.shown.display())
    }
}

impl ReadAt for LogFile {
    fn length(&self) -> Result<u64> {
        Ok(self.end)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        read_full(self.file.as_fd(), buffer, offset).context(|| self.cannot("read"))
    }
}

impl Log for LogFile {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        write_all(self.file.as_fd(), bytes, self.end).context(|| self.cannot("write"))?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> Result<()> {
        fs::ftruncate(&self.file, length).context(|| self.cannot("truncate"))?;
        self.end = length;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        if !self.durable {
            return Ok(());
        }
        fs::fdatasync(&self.file).context(|| self.cannot("sync"))
    }
}

/// Bytes in the units in which a file is written past the cache: what every device takes.
const UNIT: usize = 4096;
/// Bytes that are written past the cache at a time.
const AT_ONCE: usize = 1 << 20;

/// A log that is large, and read by few: its bytes go past the system's cache, where the file system allows that. They
/// are in the file when it is synced, or much was appended.
#[derive(Debug)]
pub(super) struct LargeLog {
    log: LogFile,
    /// Room for [`AT_ONCE`] bytes, beginning at `aligned`.
    buffer: Vec<u8>,
    aligned: usize,
    /// Bytes in the buffer: those of the file from the last whole unit on.
    filled: usize,
    /// Whether the file has all of them.
    is_written: bool,
}

impl LargeLog {
    /// Goes on with a log at its end.
    pub(super) fn new(log: LogFile) -> Result<Self> {
        let buffer = vec![0; AT_ONCE + UNIT];
        let aligned = buffer.as_ptr().align_offset(UNIT).min(UNIT);
        let mut large = Self { log, buffer, aligned, filled: 0, is_written: true };
        large.begin_at_end()?;
        Ok(large)
    }

    /// Reads what the file has of its last unit.
    fn begin_at_end(&mut self) -> Result<()> {
        let rest = self.log.end % UNIT as u64;
        let (begin, filled) = (self.log.end - rest, usize::try_from(rest).unwrap_or_default());
        let room = self.buffer.get_mut(self.aligned..self.aligned + filled).unwrap_or_default();
        let got = read_full(self.log.file.as_fd(), room, begin).context(|| self.log.cannot("read"))?;
        (self.filled, self.is_written) = (got, true);
        self.log.end = begin + got as u64;
        Ok(())
    }

    /// Writes the buffer, its last unit filled up with zeros, and keeps what is no whole unit.
    fn write(&mut self) -> Result<()> {
        let begin = self.log.end - self.filled as u64;
        let length = self.filled.next_multiple_of(UNIT);
        let padding = self.aligned + self.filled..self.aligned + length;
        self.buffer.get_mut(padding).unwrap_or_default().fill(0);
        let bytes = self.buffer.get(self.aligned..self.aligned + length).unwrap_or_default();
        write_past_cache(&self.log.file, bytes, begin).context(|| self.log.cannot("write"))?;
        let rest = self.filled % UNIT;
        let last = self.aligned + self.filled - rest;
        self.buffer.copy_within(last..last + rest, self.aligned);
        (self.filled, self.is_written) = (rest, true);
        Ok(())
    }
}

impl ReadAt for LargeLog {
    fn length(&self) -> Result<u64> {
        self.log.length()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.log.read_at(buffer, offset)
    }
}

impl Log for LargeLog {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = rest.len().min(AT_ONCE - self.filled);
            let (now, later) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            let from = self.aligned + self.filled;
            if let Some(room) = self.buffer.get_mut(from..from + now.len()) {
                room.copy_from_slice(now);
            }
            self.filled += now.len();
            self.log.end += now.len() as u64;
            self.is_written = false;
            if self.filled == AT_ONCE {
                self.write()?;
            }
            rest = later;
        }
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> Result<()> {
        self.log.truncate(length)?;
        self.begin_at_end()
    }

    fn sync(&mut self) -> Result<()> {
        if !self.is_written {
            self.write()?;
            let end = self.log.end;
            fs::ftruncate(&self.log.file, end).context(|| self.log.cannot("truncate"))?;
        }
        self.log.sync()
    }
}

/// Writes whole units; through the cache where the file system does not take them otherwise.
fn write_past_cache(file: &OwnedFd, bytes: &[u8], offset: u64) -> OsResult<()> {
    let flags = fs::fcntl_getfl(file)?;
    let written = match fs::fcntl_setfl(file, flags | OFlags::DIRECT) {
        Ok(()) => write_all(file.as_fd(), bytes, offset),
        Err(error) => Err(error),
    };
    // Reading wants no units.
    fs::fcntl_setfl(file, flags)?;
    match written {
        Err(Errno::INVAL) => write_all(file.as_fd(), bytes, offset),
        written => written,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write as _;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn open(path: &Path) -> LargeLog {
        let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        LargeLog::new(LogFile::new(file.into(), path.to_owned(), true).unwrap()).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// However it is written, cut and opened again, a synced log has what was appended to it.
        #[test]
        fn a_large_log_has_what_was_appended(
            steps in prop::collection::vec((0..6_u8, prop_oneof![0..9000_usize, Just(UNIT), 0..3 * AT_ONCE]), 0..12),
        ) {
            // Which is on a disk, usually.
            let directory = tempfile::tempdir_in("/var/tmp").unwrap();
            let path = directory.path().join("log");
            let (mut log, mut expected) = (open(&path), Vec::new());
            for (number, (step, size)) in (0_u8..).zip(steps) {
                match step {
                    0 => {
                        log.sync().unwrap();
                        prop_assert!(std::fs::read(&path).unwrap() == expected);
                        log = open(&path);
                    }
                    1 => {
                        log.sync().unwrap();
                        expected.truncate(size);
                        log.truncate(expected.len() as u64).unwrap();
                    }
                    _ => {
                        let bytes: Vec<u8> = (0..size).map(|at| (at as u8).wrapping_add(number)).collect();
                        log.append(&bytes).unwrap();
                        expected.write_all(&bytes).unwrap();
                    }
                }
                prop_assert_eq!(log.length().unwrap(), expected.len() as u64);
            }
            log.sync().unwrap();
            prop_assert!(std::fs::read(&path).unwrap() == expected);
        }
    }
}
