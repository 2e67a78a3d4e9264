//! Files in a state directory that only grow.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs;

use super::copy::write_all;
use super::read::read_full;
use crate::cluster::{Log, ReadAt};
use crate::error::{Context, Result};
use std::os::fd::AsFd;

/// An open log.
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
}

impl ReadAt for LogFile {
    fn length(&self) -> Result<u64> {
        Ok(self.end)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        read_full(self.file.as_fd(), buffer, offset).context(|| format!("cannot read {}", self.shown.display()))
    }
}

impl Log for LogFile {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        write_all(self.file.as_fd(), bytes, self.end).context(|| format!("cannot write {}", self.shown.display()))?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> Result<()> {
        fs::ftruncate(&self.file, length).context(|| format!("cannot truncate {}", self.shown.display()))?;
        self.end = length;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        if !self.durable {
            return Ok(());
        }
        fs::fdatasync(&self.file).context(|| format!("cannot sync {}", self.shown.display()))
    }
}
