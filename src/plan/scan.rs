//! Reading the target's WAL: segment files in, records to visitors.

use std::convert::Infallible;
use std::ops::ControlFlow;

use super::missing_wal::MissingSegment;
use crate::cluster::{WalFile, WalFiles};
use crate::error::{Error, ErrorId, Result};
use crate::format::Checkpoint;
use crate::format::wal::resource_manager as rm;
use crate::format::wal::{Record, Start, WalError, WalFormat, WalReader};
use crate::manifest::CommonCheckpoint;
use crate::progress::Progress;
use crate::types::{Lsn, SegmentNumber, TimelineHistory, TimelineId, WalFileName};

/// Bytes read at a time: whole pages of any size, and little enough to stay in the CPU's cache.
pub(super) const PIECE: usize = 128 << 10;

/// What to do about a segment that is there and is no use.
const GOOD_COPY: &str = "put a good copy of the segment into the target's pg_wal, from the WAL archive, and plan again; where there is none, make the target anew from a base backup";

/// One cluster's WAL, along its line of timelines.
#[derive(Clone, Copy)]
pub struct WalScan<'a> {
    files: &'a dyn WalFiles,
    format: WalFormat,
    history: &'a TimelineHistory,
}

/// How a scan up to a position ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanEnd {
    /// The end of the last record.
    pub end: Lsn,
    /// How many records there were.
    pub records: u64,
}

/// Where a log that nobody has closed ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// Where its last record begins.
    pub last: Lsn,
    /// Where that ends.
    pub end: Lsn,
    /// The segment for want of which no more can be read, if it is that.
    pub missing: Option<WalFileName>,
}

/// How far the search for the last common checkpoint has come.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointSearch {
    /// Where the first record begins that does not count.
    stop: Lsn,
    /// The segment to look in.
    segment: SegmentNumber,
}

impl CheckpointSearch {
    /// Begins at the fork.
    #[must_use]
    pub fn before(fork: Lsn, format: &WalFormat) -> Self {
        let stop = format.record_start_after(fork);
        Self { stop, segment: SegmentNumber::of(stop, format.geometry.wal_segment_size) }
    }
}

impl std::fmt::Debug for WalScan<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WalScan").field("format", &self.format).field("history", self.history).finish_non_exhaustive()
    }
}

impl<'a> WalScan<'a> {
    /// The WAL of the cluster with this line of timelines.
    #[must_use]
    pub fn new(files: &'a dyn WalFiles, format: WalFormat, history: &'a TimelineHistory) -> Self {
        Self { files, format, history }
    }

    /// Shows every record from `start` on to `visit`, until it breaks off. No segment is opened
    /// before a record needs it.
    ///
    /// # Errors
    /// When a segment is missing, short or damaged before `visit` breaks off; the segment is named.
    pub fn each<B>(&self, start: Start, mut visit: impl FnMut(&Record<'_>) -> ControlFlow<B>) -> Result<B> {
        let mut reader = self.reader(start);
        let mut buffer = vec![0; PIECE];
        loop {
            if let ControlFlow::Break(value) = self.read_segment(&mut reader, &mut buffer, &mut visit)? {
                return Ok(value);
            }
        }
    }

    /// A reader that begins at `start`.
    pub(super) fn reader(&self, start: Start) -> WalReader {
        WalReader::new(self.format, start).along(self.history)
    }

    /// Feeds `reader` from its next page on to the end of the segment that holds it, as much at a time as `buffer`
    /// holds: at least a page.
    ///
    /// # Errors
    /// When the segment is missing, short or damaged before `visit` breaks off; it is named.
    pub(super) fn read_segment<B>(
        &self,
        reader: &mut WalReader,
        buffer: &mut [u8],
        visit: &mut impl FnMut(&Record<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        let size = self.format.geometry.wal_segment_size;
        let segment = SegmentNumber::of(reader.next_page(), size);
        let (name, file) = self.open(segment)?;
        self.check_first_page(name, file.as_ref(), reader.next_page(), buffer)?;
        while reader.next_page() < segment.end(size) {
            let pages = self.read_pages(name, file.as_ref(), reader.next_page(), buffer)?;
            match reader.feed(pages, &mut *visit) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(broken) => return Ok(broken),
                Err(error) => return Err(self.unreadable(name, file.as_ref(), error)),
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The end of the last record that can be read from the one at `start` on: where the log of a server ends that is
    /// running, or has crashed.
    ///
    /// # Errors
    /// When not even the first one can be read.
    pub fn last_valid_end(&self, start: Lsn) -> Result<Lsn> {
        self.log_end(start, Lsn::INVALID).map(|found| found.end)
    }

    /// The same of a log that is known to have come to `least`: the data may be ahead of what is read where it does not.
    ///
    /// # Errors
    /// When it cannot be read up to there.
    pub fn log_end(&self, start: Lsn, least: Lsn) -> Result<LogEnd> {
        let mut last = None;
        let read: Result<Infallible> = self.each(Start::Record(start), |record| {
            last = Some((record.lsn, record.end));
            ControlFlow::Continue(())
        });
        // Behind a page's header, or before it: that is one position.
        let reaches = |end| self.format.record_start_after(end) >= least;
        match (last, read) {
            // Other errors than these say nothing about where the log ends.
            (Some((last, end)), Err(error))
                if matches!(error.id(), ErrorId::WalMissing | ErrorId::WalDamaged) && reaches(end) =>
            {
                Ok(LogEnd { last, end, missing: MissingSegment::of(&error).map(MissingSegment::name) })
            }
            (_, Err(error)) => Err(error),
        }
    }

    /// The record that begins at `lsn`, as `take` sees it.
    ///
    /// # Errors
    /// When no valid record begins there.
    pub fn record_at<T>(&self, lsn: Lsn, mut take: impl FnMut(&Record<'_>) -> T) -> Result<T> {
        self.each(Start::Record(lsn), |record| ControlFlow::Break(take(record)))
    }

    /// The bytes of the record that begins at `lsn`: those in the page where it begins, with its
    /// segment and the offset there.
    ///
    /// # Errors
    /// When no valid record begins there.
    pub fn raw_record_at(&self, lsn: Lsn) -> Result<(WalFileName, u64, Vec<u8>)> {
        let size = self.format.geometry.wal_segment_size;
        let page_end = lsn.start_of(self.format.page_size()).plus(self.format.page_size());
        let end = self.record_at(lsn, |record| record.end)?.min(page_end);
        let (name, file) = self.open(SegmentNumber::of(lsn, size))?;
        let mut bytes = vec![0; usize::try_from(end.since(lsn)).unwrap_or_default()];
        let offset = lsn.offset_in(size.bytes());
        let got = file.read_at(&mut bytes, offset)?;
        bytes.truncate(got);
        Ok((name, offset, bytes))
    }

    /// The format of this WAL.
    #[must_use]
    pub fn format(&self) -> &WalFormat {
        &self.format
    }

    /// Shows every record from the one at `start` on to `visit`, up to the one that ends at `end`.
    ///
    /// # Errors
    /// When the WAL cannot be read, when `visit` fails, or when no record ends exactly at `end`.
    pub fn through(
        &self,
        start: Lsn,
        end: Lsn,
        progress: &dyn Progress,
        mut visit: impl FnMut(&Record<'_>) -> Result<()>,
    ) -> Result<ScanEnd> {
        let mut records = 0;
        let mut reported = start;
        let finished = self.each(Start::Record(start), |record| {
            records += 1;
            if record.end.since(reported) >= PIECE as u64 || record.end >= end {
                progress.advance(record.end.since(reported));
                reported = record.end;
            }
            match visit(record) {
                Err(error) => ControlFlow::Break(Err(error)),
                Ok(()) if record.end >= end => ControlFlow::Break(Ok(record.end)),
                Ok(()) => ControlFlow::Continue(()),
            }
        })??;
        if finished == end {
            Ok(ScanEnd { end, records })
        } else {
            Err(Error::of(
                ErrorId::WalDamaged,
                format!("the target's WAL should end at {end}, but a record ends at {finished}"),
            )
            .hint("the control file and pg_wal do not belong together; make the target anew from a base backup"))
        }
    }

    /// Finds the last checkpoint whose record begins before the fork.
    ///
    /// # Errors
    /// As [`WalScan::step_back`].
    pub fn last_checkpoint_before(&self, fork: Lsn) -> Result<CommonCheckpoint> {
        let mut search = CheckpointSearch::before(fork, &self.format);
        loop {
            if let Some(found) = self.step_back(&mut search)? {
                return Ok(found);
            }
        }
    }

    /// Looks for the last checkpoint of a segment whose record begins before the fork, reading the segment from its
    /// first record on; where there is none, the next call looks in the one before.
    ///
    /// pg_rewind follows the links from record to record instead; the outcome is the same.
    ///
    /// # Errors
    /// When the segment, or what a record of it reaches into, cannot be read: the same may be asked again. When a
    /// record reaches across the fork, or there is no segment before.
    pub fn step_back(&self, search: &mut CheckpointSearch) -> Result<Option<CommonCheckpoint>> {
        let size = self.format.geometry.wal_segment_size;
        let stop = search.stop;
        let mut first = None;
        let mut found = None;
        let reached = self.each(Start::FirstOf(search.segment.start(size)), |record| {
            first = first.or(Some(record.lsn));
            if record.lsn >= stop {
                return ControlFlow::Break(record.lsn);
            }
            found = self.checkpoint(record).or(found.take());
            ControlFlow::Continue(())
        })?;
        if reached != stop {
            return Err(Error::precondition(format!(
                "no record of the target begins at {stop}, where the histories part"
            ))
            .hint("a history file or pg_wal is another cluster's; make the target anew from a base backup"));
        }
        if found.is_none() {
            search.stop = first.unwrap_or(stop);
            search.segment = search.segment.previous().ok_or_else(|| {
                Error::of(ErrorId::WalMissing, "the target's WAL has no checkpoint before the fork")
                    .hint("pg_wal is another cluster's; make the target anew from a base backup")
            })?;
        }
        Ok(found)
    }

    /// The end of the last record that is whole before `limit`, found in the segment that holds it
    /// or in the one before.
    ///
    /// A server flushes whole pages, so the position up to which it has flushed may lie inside a
    /// record. No page on its disk needs more than the records before.
    ///
    /// # Errors
    /// When there is no such record.
    pub fn last_record_end(&self, limit: Lsn) -> Result<Lsn> {
        let size = self.format.geometry.wal_segment_size;
        let segment = SegmentNumber::of(Lsn::new(limit.get().saturating_sub(1)), size);
        let mut reason = None;
        for segment in [Some(segment), segment.previous()].into_iter().flatten() {
            let mut last = None;
            let read = self.each(Start::FirstOf(segment.start(size)), |record| {
                last = Some(record.end).filter(|&end| end <= limit).or(last);
                if record.end >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            if let Some(end) = last {
                return Ok(end);
            }
            reason = read.err().or(reason);
        }
        let error = Error::failure(format!("no whole record of WAL ends before {limit}"));
        Err(match reason {
            Some(reason) => error.because(reason),
            None => error,
        })
    }

    fn checkpoint(&self, record: &Record<'_>) -> Option<CommonCheckpoint> {
        let is_checkpoint = record.header.resource_manager == rm::XLOG
            && matches!(record.operation(), rm::XLOG_CHECKPOINT_SHUTDOWN | rm::XLOG_CHECKPOINT_ONLINE);
        let Checkpoint { redo, timeline, time, .. } =
            is_checkpoint.then(|| Checkpoint::parse(record.main_data, self.format.facts)).flatten()?;
        Some(CommonCheckpoint { lsn: record.lsn, redo, time, timeline })
    }

    /// Whether all segments from the one with `start` to the one before `end` are there.
    ///
    /// # Errors
    /// When one that is there cannot be opened.
    pub fn has_all(&self, start: Lsn, end: Lsn) -> Result<bool> {
        let size = self.format.geometry.wal_segment_size;
        let mut segment = SegmentNumber::of(start, size);
        while segment.start(size) < end {
            let name = WalFileName { timeline: self.timeline_of(segment), segment };
            if self.files.open(name, size)?.is_none() {
                return Ok(false);
            }
            segment = segment.next();
        }
        Ok(true)
    }

    fn timeline_of(&self, segment: SegmentNumber) -> TimelineId {
        let end = segment.end(self.format.geometry.wal_segment_size);
        self.history.timeline_of_segment(end).unwrap_or_default()
    }

    fn open(&self, segment: SegmentNumber) -> Result<(WalFileName, Box<dyn WalFile>)> {
        let name = WalFileName { timeline: self.timeline_of(segment), segment };
        match self.files.open(name, self.format.geometry.wal_segment_size)? {
            Some(file) => Ok((name, file)),
            None => Err(MissingSegment::new(name, self.text(name)).into_error()),
        }
    }

    /// A segment that is entered in its middle must be the right one, too.
    fn check_first_page(&self, name: WalFileName, file: &dyn WalFile, from: Lsn, buffer: &mut [u8]) -> Result<()> {
        let start = name.segment.start(self.format.geometry.wal_segment_size);
        if from == start {
            return Ok(());
        }
        let page = self.format.geometry.wal_page_size as usize;
        let buffer = buffer.get_mut(..page).unwrap_or_default();
        let pages = self.read_pages(name, file, start, buffer)?;
        self.format.page_header(pages, start).map(|_| ()).map_err(|error| self.unreadable(name, file, error))
    }

    /// Reads whole pages from `from` on, at most to the end of the segment.
    fn read_pages<'b>(
        &self,
        name: WalFileName,
        file: &dyn WalFile,
        from: Lsn,
        buffer: &'b mut [u8],
    ) -> Result<&'b [u8]> {
        let size = self.format.geometry.wal_segment_size;
        let page = self.format.geometry.wal_page_size as usize;
        let offset = from.offset_in(size.bytes());
        let wanted = usize::try_from(size.bytes() - offset).unwrap_or(usize::MAX).min(buffer.len());
        let got = file.read_at(buffer.get_mut(..wanted).unwrap_or_default(), offset)?;
        match buffer.get(..got - got % page) {
            Some(pages) if !pages.is_empty() => Ok(pages),
            _ => Err(Error::of(
                ErrorId::WalDamaged,
                format!(
                    "the target's WAL segment {} ends after {} bytes, expected {}",
                    self.text(name),
                    offset + got as u64,
                    size.bytes()
                ),
            )
            .hint(GOOD_COPY)),
        }
    }

    fn unreadable(&self, name: WalFileName, file: &dyn WalFile, error: WalError) -> Error {
        let whose = if file.is_spare() { ", which is not from its pg_wal," } else { "" };
        Error::of(ErrorId::WalDamaged, format!("the target's WAL segment {}{whose} cannot be read", self.text(name)))
            .because(error)
            .hint(GOOD_COPY)
    }

    fn text(&self, name: WalFileName) -> String {
        name.text(self.format.geometry.wal_segment_size)
    }
}
