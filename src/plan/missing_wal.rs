//! WAL that the target's `pg_wal` lacks and a plan must read: from the source, from an archive.
//!
//! Nothing is asked for before a record needs it: the segment after the last one need not exist, and an archive is
//! slow. So whoever reads comes to the gap, gives up, and begins again once the segment is there.

use std::collections::BTreeMap;
use std::error::Error as _;

use super::build::Planner;
use super::scan::{CheckpointSearch, WalScan};
use crate::checks::finding;
use crate::cluster::{Restored, WalFile};
use crate::error::{Context, Error, ErrorId, Result};
use crate::format::wal::WalFormat;
use crate::manifest::{Check, CheckStatus, CommonCheckpoint, Manifest, ObtainedFrom, ObtainedSegment};
use crate::types::{ClusterPath, Lsn, TimelineHistory, WalFileName, WalSegmentSize};

/// What a source is asked for at a time, in bytes.
const PART: u32 = 1 << 20;

/// How often one segment is got again that had to make room for others, until that is hopeless: a single record reaches
/// over all that there is room for.
const MOST_TIMES: u32 = 8;

/// The check that says whether the target's WAL could be read.
const CHECK: &str = "target_wal";

/// A segment that must be read and is nowhere; as the cause of an error that says so.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", asked.join(", "))]
pub struct MissingSegment {
    name: WalFileName,
    file: String,
    /// Where it was looked for.
    asked: Vec<&'static str>,
}

impl MissingSegment {
    /// The target's `pg_wal` lacks the segment, whose file is `file`.
    pub(super) fn new(name: WalFileName, file: String) -> Self {
        Self { name, file, asked: vec!["it is not in the target's pg_wal"] }
    }

    /// The segment that is the cause of an error, if one is.
    #[must_use]
    pub fn of(error: &Error) -> Option<&Self> {
        let mut cause = error.source();
        while let Some(inner) = cause {
            if let Some(missing) = inner.downcast_ref() {
                return Some(missing);
            }
            cause = inner.source();
        }
        None
    }

    /// Which it is.
    #[must_use]
    pub fn name(&self) -> WalFileName {
        self.name
    }

    /// Its file name.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The error of which this is the cause.
    pub(super) fn into_error(self) -> Error {
        let message = format!("the target's WAL segment {} is missing, but the plan must read it", self.file);
        Error::of(ErrorId::WalMissing, message)
            .because(self)
            .hint("have it restored from the WAL archive: -c (--restore-target-wal) or --restore-command COMMAND; or put it back into the target's pg_wal; then plan again")
            .hint("where no archive has it, make the target anew from a base backup")
    }
}

/// The file name of the segment for want of which a plan is impossible; none where it is not for that.
#[must_use]
pub fn missing_segment(manifest: &Manifest) -> Option<&str> {
    let check = manifest.checks.iter().find(|check| check.id == CHECK && check.status == CheckStatus::Fail)?;
    check.evidence.first().map(String::as_str)
}

/// What a missing segment looks like among the checks.
pub(super) fn missing_check(missing: &MissingSegment, detail: String, remedy: Option<&str>) -> Check {
    Check { evidence: vec![missing.file.clone()], ..finding(CHECK, CheckStatus::Fail, detail, remedy) }
}

/// Segments that were got from elsewhere.
#[derive(Debug, Default)]
pub(super) struct Obtained {
    /// Where each was got from last, and how often it was got.
    segments: BTreeMap<WalFileName, (ObtainedFrom, u32)>,
}

impl Obtained {
    fn add(&mut self, name: WalFileName, from: ObtainedFrom) {
        let entry = self.segments.entry(name).or_insert((from, 0));
        *entry = (from, entry.1 + 1);
    }

    fn is_hopeless(&self, name: WalFileName) -> bool {
        self.segments.get(&name).is_some_and(|(_, times)| *times >= MOST_TIMES)
    }

    /// As the manifest has them: by name.
    pub(super) fn list(&self, size: WalSegmentSize) -> Vec<ObtainedSegment> {
        let entry = |(name, (from, _)): (&WalFileName, &(ObtainedFrom, u32))| ObtainedSegment {
            file: name.text(size),
            from: *from,
        };
        self.segments.iter().map(entry).collect()
    }
}

impl Planner<'_> {
    /// Reads the target's WAL, getting what is missing.
    ///
    /// # Errors
    /// Those of `read`, and when a missing segment is nowhere to be had.
    pub(super) fn with_wal<T>(&mut self, read: impl Fn(&WalScan<'_>) -> Result<T>) -> Result<T> {
        loop {
            match read(&self.scan()) {
                Err(error) => self.obtain_missing(error)?,
                read => return read,
            }
        }
    }

    /// The last checkpoint before the fork.
    pub(super) fn last_checkpoint_before(&mut self, fork: Lsn) -> Result<CommonCheckpoint> {
        let mut search = CheckpointSearch::before(fork, &WalFormat::of(&self.target_facts.control));
        loop {
            let found = self.scan().step_back(&mut search);
            match found {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(error) => self.obtain_missing(error)?,
            }
        }
    }

    /// Gets the segment for want of which reading failed.
    ///
    /// # Errors
    /// The error itself where it is about something else, or, with all places that were asked, where the segment is at
    /// none.
    pub(super) fn obtain_missing(&mut self, error: Error) -> Result<()> {
        let Some(mut missing) = MissingSegment::of(&error).cloned() else { return Err(error) };
        let name = missing.name;
        if self.obtained.is_hopeless(name) {
            return Err(error
                .hint("there is not enough room for WAL from elsewhere: put the segments into the target's pg_wal"));
        }
        if let Some(from) = self.obtain(name, &mut missing)? {
            self.obtained.add(name, from);
            return Ok(());
        }
        Err(missing.into_error())
    }

    fn obtain(&mut self, name: WalFileName, missing: &mut MissingSegment) -> Result<Option<ObtainedFrom>> {
        let size = self.target_facts.control.geometry().wal_segment_size;
        // The one in which the histories part goes on differently on the source.
        if name.segment.end(size) <= self.common_until && self.source.has_files() {
            match self.take_from_source(name, size, &missing.file) {
                Ok(true) => return Ok(Some(ObtainedFrom::Source)),
                Ok(false) => missing.asked.push("not in the source's"),
                // A file of that name with other content: recycled, or being so.
                Err(error) if error.id() == ErrorId::WalDamaged => missing.asked.push("what the source has is not it"),
                Err(error) => return Err(error),
            }
        }
        match self.restore(name, size)? {
            Restored::Yes => return Ok(Some(ObtainedFrom::RestoreCommand)),
            Restored::NotThere => missing.asked.push("restore_command has not restored it"),
            Restored::NoCommand => {}
        }
        Ok(None)
    }

    fn restore(&mut self, name: WalFileName, size: WalSegmentSize) -> Result<Restored> {
        let (format, history) = (WalFormat::of(&self.target_facts.control), &self.target_facts.history);
        self.target.restore_segment(name, size, &|file| check_segment(&format, history, name, file))
    }

    fn take_from_source(&mut self, name: WalFileName, size: WalSegmentSize, file: &str) -> Result<bool> {
        let (format, history) = (WalFormat::of(&self.target_facts.control), &self.target_facts.history);
        let check = |file: &dyn WalFile| check_segment(&format, history, name, file);
        let path = format!("pg_wal/{file}");
        let path = ClusterPath::new(path.as_bytes()).context(|| format!("no file can be named {path}"))?;
        let source = &mut *self.source;
        self.target.take_segment(name, size, &mut |offset| source.read_part(&path, offset, PART), &check)
    }
}

/// Proves, as far as its first page tells, that a file is the segment `name` of the WAL along `history`. What is
/// further in it is checked when it is read.
///
/// # Errors
/// When it is of another cluster, major, size, position or timeline.
pub(super) fn check_segment(
    format: &WalFormat,
    history: &TimelineHistory,
    name: WalFileName,
    file: &dyn WalFile,
) -> Result<()> {
    let start = name.segment.start(format.geometry.wal_segment_size);
    let mut page = vec![0; format.geometry.wal_page_size as usize];
    let got = file.read_at(&mut page, 0)?;
    let header = format.page_header(page.get(..got).unwrap_or_default(), start);
    let found = header.map_err(|error| Error::of(ErrorId::WalDamaged, error.to_string()))?.timeline;
    match history.timeline_at(start) {
        Some(expected) if expected != found => {
            let message = format!("WAL at {start}: the page's timeline is {found}, expected {expected}");
            Err(Error::of(ErrorId::WalDamaged, message))
        }
        _ => Ok(()),
    }
}
