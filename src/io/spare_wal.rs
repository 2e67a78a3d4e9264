//! WAL segments that a target's `pg_wal` lacks, for as long as a plan is made.
//!
//! They are in files that have no names, which vanish however the process ends.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::data_directory::OpenFile;
use super::restore_command::{RestoreCommand, Staging};
use crate::cluster::{Restored, WalFile};
use crate::error::{Context, Error, ErrorId, Result};
use crate::types::{WalFileName, WalSegmentSize};

/// The room that segments may take, in bytes, and how many files; a few there may be in any case. Those that were got
/// first are given up first, and got again if need be.
const ROOM: (u64, usize) = (1 << 30, 256);
/// Fewer would not do: a record reaches over the end of one.
const LEAST: usize = 4;

/// Segments, and the command that restores them.
#[derive(Debug, Default)]
pub(super) struct SpareWal {
    pub(super) command: Option<RestoreCommand>,
    segments: VecDeque<(WalFileName, Arc<OpenFile>)>,
}

impl SpareWal {
    /// A segment that was got before.
    pub(super) fn get(&self, name: WalFileName) -> Option<SpareSegment> {
        self.segments.iter().find(|(of, _)| *of == name).map(|(_, file)| SpareSegment(Arc::clone(file)))
    }

    /// Lets the command restore a segment, and takes it if `check` finds nothing wrong with it.
    ///
    /// # Errors
    /// When the command is at its wits' end, what it restored is no segment, or `check` fails.
    pub(super) fn restore(
        &mut self,
        name: WalFileName,
        size: WalSegmentSize,
        check: &dyn Fn(&dyn WalFile) -> Result<()>,
    ) -> Result<Restored> {
        let Some(command) = &self.command else { return Ok(Restored::NoCommand) };
        let text = name.text(size);
        let staging = Staging::new()?;
        let path = staging.path(&text);
        if !command.restore(&text, &path)? {
            return Ok(Restored::NotThere);
        }
        let file = open_segment(&path, size).and_then(|file| check(&file).map(|()| file));
        let file = file.map_err(|error| {
            Error::of(ErrorId::WalDamaged, format!("restore_command gave a file that is not the segment {text}"))
                .because(error)
                .hint("see what the archive has under this name; where no archive has the right one, make the target anew from a base backup")
        })?;
        self.add(name, size, file);
        Ok(Restored::Yes)
    }

    /// Takes a segment from elsewhere, read in parts, if `check` finds nothing wrong with it. Says whether it was
    /// there.
    ///
    /// # Errors
    /// When it cannot be read or kept, is not as long as a segment, or `check` fails.
    pub(super) fn take(
        &mut self,
        name: WalFileName,
        size: WalSegmentSize,
        read: &mut dyn FnMut(u64) -> Result<Option<Vec<u8>>>,
        check: &dyn Fn(&dyn WalFile) -> Result<()>,
    ) -> Result<bool> {
        let kept = || "cannot keep a WAL segment for a while (see TMPDIR)".to_owned();
        let mut file = tempfile::tempfile().context(kept)?;
        let mut length = 0;
        while length < size.bytes() {
            let Some(part) = read(length)? else { return Ok(false) };
            if part.is_empty() {
                break;
            }
            file.write_all(&part).context(kept)?;
            length += part.len() as u64;
        }
        let file = OpenFile { file, path: name.text(size).into() };
        check_length(length, size)?;
        check(&file)?;
        self.add(name, size, file);
        Ok(true)
    }

    fn add(&mut self, name: WalFileName, size: WalSegmentSize, file: OpenFile) {
        let (bytes, files) = ROOM;
        let most = usize::try_from(bytes / size.bytes()).unwrap_or(files).clamp(LEAST, files);
        while self.segments.len() >= most {
            self.segments.pop_front();
        }
        self.segments.push_back((name, Arc::new(file)));
    }
}

/// One of them, open.
#[derive(Debug)]
pub(super) struct SpareSegment(Arc<OpenFile>);

impl WalFile for SpareSegment {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        WalFile::read_at(&*self.0, buffer, offset)
    }

    fn is_spare(&self) -> bool {
        true
    }
}

/// Opens what was restored; its name goes when its directory does.
fn open_segment(path: &Path, size: WalSegmentSize) -> Result<OpenFile> {
    let shown = || format!("cannot open {}", path.display());
    let metadata = std::fs::metadata(path).context(shown)?;
    if !metadata.is_file() {
        return Err(Error::of(ErrorId::WalDamaged, "it is no regular file"));
    }
    let file = File::open(path).context(shown)?;
    check_length(file.metadata().context(shown)?.len(), size)?;
    Ok(OpenFile { file, path: path.to_path_buf() })
}

fn check_length(length: u64, size: WalSegmentSize) -> Result<()> {
    if length == size.bytes() {
        return Ok(());
    }
    Err(Error::of(ErrorId::WalDamaged, format!("it has {length} bytes, a segment has {}", size.bytes())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::types::{Lsn, SegmentNumber, TimelineId};

    #[test]
    fn the_first_are_given_up_first() {
        let size = WalSegmentSize::new(1 << 28).unwrap();
        let mut number = SegmentNumber::of(Lsn::new(0), size);
        let mut spare = SpareWal::default();
        let names: Vec<WalFileName> = (0..6)
            .map(|_| {
                number = number.next();
                WalFileName { timeline: TimelineId::new(1), segment: number }
            })
            .collect();
        for &name in &names {
            spare.add(name, size, OpenFile { file: tempfile::tempfile().unwrap(), path: "x".into() });
        }
        let there: Vec<bool> = names.iter().map(|&name| spare.get(name).is_some()).collect();
        assert_eq!(there, [false, false, true, true, true, true]);
    }

    #[test]
    fn only_whole_segments_are_taken() {
        let size = WalSegmentSize::new(1 << 20).unwrap();
        let name = WalFileName { timeline: TimelineId::new(1), segment: SegmentNumber::of(Lsn::new(0), size) };
        let take = |there: usize, good: bool| {
            let mut read = |offset: u64| {
                let left = there.saturating_sub(usize::try_from(offset).unwrap());
                Ok((there > 0).then(|| vec![7; left.min(300_000)]))
            };
            let check = |_: &dyn WalFile| if good { Ok(()) } else { Err(Error::failure("bad")) };
            SpareWal::default().take(name, size, &mut read, &check).map_err(|error| error.to_string())
        };
        assert_eq!(take(0, true), Ok(false));
        assert_eq!(take(1 << 20, true), Ok(true));
        assert_eq!(take(1 << 20, false), Err("bad".to_owned()));
        assert_eq!(take(1000, true), Err("it has 1000 bytes, a segment has 1048576".to_owned()));
    }
}
