//! Whether an applied target is what its plan and its journal say.
//!
//! Reads everything that was copied, sequentially and in constant memory, and writes nothing. The source is not needed:
//! the journal has checksums of what it delivered. All that differs is found, not only the first.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::expected::{Expected, Settings, control_problems, expected, label_problem, settings_problem, stretches};
use super::finish::last_segments;
use super::journal::{Copied, Journal, pieces};
use super::stale::file_difference;
use super::state::{Condition, State};
use super::units::numbered;
use super::{check_manifest, check_no_server};
use crate::cluster::{FileKind, ReadAt, SourceKind, Target, TargetStore, WalFiles};
use crate::error::{Context, Error, Result};
use crate::format::wal::{Start, WalFormat};
use crate::format::{ControlFile, page_checksum};
use crate::manifest::{Action, ActionKind, Kept, Manifest};
use crate::plan::{WalScan, read_control_file};
use crate::progress::{Progress, Stage};
use crate::types::{ClusterPath, RelFilePaths, SegmentNumber};

/// Bytes read at a time; a multiple of every block size.
const CHUNK: u64 = 1 << 20;

/// How many lines of one kind are kept to be shown.
const SHOWN: usize = 20;

/// What a verification works with.
pub struct VerifyContext<'a> {
    /// The plan that was applied, from the state directory.
    pub manifest: &'a Manifest,
    /// The target.
    pub target: &'a mut dyn Target,
    /// The same, as an apply sees it; nothing is written.
    pub store: &'a mut dyn TargetStore,
    /// Who watches.
    pub progress: &'a dyn Progress,
}

impl std::fmt::Debug for VerifyContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifyContext").field("digest", &self.manifest.digest).finish_non_exhaustive()
    }
}

/// Lines for people: the first ones, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// The first ones.
    pub shown: Vec<String>,
    /// How many there are in all.
    pub count: u64,
}

impl Lines {
    fn add(&mut self, line: impl FnOnce() -> String) {
        if self.shown.len() < SHOWN {
            self.shown.push(line());
        }
        self.count += 1;
    }
}

/// What a verification has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// What is not as the apply left it.
    pub differences: Lines,
    /// Pages with a bad checksum that came so from a source at rest.
    pub bad_pages: Lines,
    /// Pages with a bad checksum that came so from a live source, which was writing them: replay repairs those.
    pub torn_pages: Lines,
    /// Directories that were to be removed, and have something unknown in them.
    pub left: Lines,
    /// Paths that were looked at.
    pub paths: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Pages whose checksums were computed; none where data checksums are off.
    pub pages: Option<u64>,
    /// Whether the apply can be undone.
    pub undo: bool,
}

/// Compares a target on which an apply has come to its end, and no server has run since, with the plan and the journal.
///
/// # Errors
/// [`crate::error::ErrorKind::Precondition`] where the target is in another condition; else when the state cannot be
/// read. What differs is no error.
pub fn verify(context: VerifyContext<'_>) -> Result<Verification> {
    let VerifyContext { manifest, target, store, progress } = context;
    check_manifest(manifest)?;
    check_no_server(target)?;
    let control = read_control_file(target, "target")?;
    let state = State::read(store)?.ok_or_else(|| not_applied("no apply has begun on this directory"))?;
    if state.condition(control.as_bytes()) != Condition::Applied {
        return Err(not_applied("no apply has just come to its end on this directory"));
    }
    if state.header.digest != manifest.digest {
        return Err(Error::precondition("the state directory's plan is not the one that was applied"));
    }
    let journal = state.journal()?;
    let header = control.header();
    let mut verifier = Verifier {
        manifest,
        store,
        progress,
        journal,
        relations: RelFilePaths::new(control.facts().major.number(), header.catalog_version),
        live: manifest.source.kind == SourceKind::LiveServer,
        buffer: vec![0; usize::try_from(CHUNK).unwrap_or_default()],
        last_wal_differs: false,
        found: Verification { undo: state.header.undo, ..Verification::default() },
    };
    if control.settings().data_checksums == 1 {
        verifier.found.pages = Some(0);
    }
    progress.begin(Stage::Verify, Some(journal.bytes()));
    let outcome = verifier.run(&control).map(|()| verifier.last_wal(&*target, &control));
    progress.end();
    outcome.map(|()| verifier.found)
}

fn not_applied(message: &str) -> Error {
    Error::precondition(message).hint("see what is there: pg_unfork status")
}

/// What the last steps write, whatever was at the path before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Final {
    /// `backup_label`.
    Label,
    /// `postgresql.auto.conf`.
    Settings,
    /// `standby.signal`.
    Signal,
    /// A WAL segment, fetched again from a live source.
    Segment,
}

struct Verifier<'a> {
    manifest: &'a Manifest,
    store: &'a dyn TargetStore,
    progress: &'a dyn Progress,
    journal: &'a Journal,
    relations: RelFilePaths,
    live: bool,
    buffer: Vec<u8>,
    /// Whether a segment of the last WAL is not there, or not as long as it must be.
    last_wal_differs: bool,
    found: Verification,
}

impl Verifier<'_> {
    fn run(&mut self, control: &ControlFile) -> Result<()> {
        let source_at = self.live.then_some(self.journal.source_at);
        for problem in control_problems(control, self.manifest, source_at) {
            self.found.differences.add(|| problem);
        }
        self.found.paths += 1;
        let last = self.last_steps()?;
        for (number, action) in numbered(self.manifest).filter(|(_, action)| !last.contains_key(&action.path)) {
            if let Err(error) = self.action(number, action) {
                self.unreadable(&action.path, &error);
            }
            self.found.paths += 1;
        }
        for kept in self.manifest.kept.iter().filter(|kept| kept.before.is_some() && !last.contains_key(&kept.path)) {
            if let Err(error) = self.kept(kept) {
                self.unreadable(&kept.path, &error);
            }
            self.found.paths += 1;
        }
        for (path, last) in last {
            let so_far = self.found.differences.count;
            if let Err(error) = self.last_step(&path, last, control) {
                self.unreadable(&path, &error);
            }
            self.last_wal_differs |= last == Final::Segment && self.found.differences.count > so_far;
            self.found.paths += 1;
        }
        Ok(())
    }

    /// The WAL that a live source wrote meanwhile: its records have checksums of their own.
    fn last_wal(&mut self, files: &dyn WalFiles, control: &ControlFile) {
        let Some(wal) = self.manifest.wal.as_ref().filter(|_| self.live && !self.last_wal_differs) else {
            return;
        };
        let (format, end) = (WalFormat::of(control), control.min_recovery_point());
        let size = format.geometry.wal_segment_size;
        let start = SegmentNumber::of(wal.fetch.from, size).start(size);
        if start >= end {
            return;
        }
        let read = WalScan::new(files, format, &self.manifest.source.history).each(Start::FirstOf(start), |record| {
            if record.end >= end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if let Err(error) = read {
            let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
            self.found.differences.add(|| format!("WAL from {start} to {end}: {error}{cause}"));
        }
    }

    fn differs(&mut self, path: &ClusterPath, how: impl FnOnce() -> String) {
        self.found.differences.add(|| format!("{path}: {}", how()));
    }

    /// One bad sector must not hide what else there is.
    fn unreadable(&mut self, path: &ClusterPath, error: &Error) {
        let cause = std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"));
        self.differs(path, || format!("{error}{cause}"));
    }

    /// What the last steps have written.
    fn last_steps(&self) -> Result<BTreeMap<ClusterPath, Final>> {
        let named = |name: &str| ClusterPath::new(name.as_bytes()).context(|| "no such name".to_owned());
        let mut last = BTreeMap::from([(named("backup_label")?, Final::Label)]);
        if let Some(recovery) = &self.manifest.recovery {
            last.insert(named("postgresql.auto.conf")?, Final::Settings);
            if recovery.standby_signal {
                last.insert(named("standby.signal")?, Final::Signal);
            }
        }
        if let Some(wal) = self.manifest.wal.as_ref().filter(|_| self.live) {
            let segments = last_segments(self.manifest, wal, self.journal.source_at)?;
            last.extend(segments.into_iter().map(|path| (path, Final::Segment)));
        }
        Ok(last)
    }

    fn action(&mut self, number: u32, action: &Action) -> Result<()> {
        let block_size = self.manifest.target.control_file.geometry.block_size;
        let journal = self.journal;
        let records: Vec<&Copied> = journal.records_of(number).collect();
        let expected = expected(action, &records, self.live, u64::from(block_size));
        let as_expected = self.compare_entry(&action.path, &expected)?;
        let copies = matches!(action.kind, ActionKind::CopyFile | ActionKind::Patch);
        if !copies || expected == Expected::Nothing || !as_expected {
            return Ok(());
        }
        let all = pieces(action, u64::from(block_size));
        let missing = (0..all.len()).find(|&piece| !journal.has(number, u32::try_from(piece).unwrap_or(u32::MAX)));
        if let Some(piece) = missing {
            let from = all.get(piece).map_or(0, |&(offset, _)| offset);
            self.differs(&action.path, || format!("the journal does not say that it was copied from byte {from} on"));
        }
        if records.is_empty() {
            return Ok(());
        }
        let file = self.store.read_file(&action.path)?;
        records.into_iter().filter(|record| !record.gone).try_for_each(|record| match stretches(&all, record) {
            Some(stretches) => self.content(&action.path, &*file, &stretches, record.crc),
            None => {
                self.differs(&action.path, || "what the journal says of it contradicts the plan".to_owned());
                Ok(())
            }
        })
    }

    /// What was left because it was proven to be equal must be what it was, unless the apply has copied it after all.
    fn kept(&mut self, kept: &Kept) -> Result<()> {
        if let Some(copy) = self.journal.rewritten.get(kept.path.as_bytes()) {
            let expected = copy.map_or(Expected::Nothing, |(bytes, _)| Expected::File(bytes));
            let (true, Some((bytes, crc))) = (self.compare_entry(&kept.path, &expected)?, *copy) else { return Ok(()) };
            let file = self.store.read_file(&kept.path)?;
            return self.content(&kept.path, &*file, &[(0, bytes)], crc);
        }
        let found = self.store.entry(&kept.path)?;
        if let Some(difference) = file_difference(kept.before.as_ref(), found.as_ref()) {
            self.differs(&kept.path, || format!("was left as it was, and {difference}"));
        }
        Ok(())
    }

    /// Whether what is at the path is of the kind and size that it must be.
    fn compare_entry(&mut self, path: &ClusterPath, expected: &Expected) -> Result<bool> {
        let found = self.store.entry(path)?.map(|entry| entry.kind);
        let problem = match (expected, found) {
            (Expected::Nothing | Expected::NothingOrDirectory, None)
            | (Expected::Directory, Some(FileKind::Directory)) => return Ok(true),
            (Expected::NothingOrDirectory, Some(FileKind::Directory)) => {
                self.found.left.add(|| path.to_string());
                return Ok(true);
            }
            (Expected::Nothing | Expected::NothingOrDirectory, Some(found)) => {
                format!("was removed, and a {} is there", found.words())
            }
            (Expected::Symlink(link), Some(FileKind::Symlink { text })) if link.as_bytes() == text.as_slice() => {
                return Ok(true);
            }
            (Expected::File(size), Some(FileKind::File { size: found, .. })) if *size == found => return Ok(true),
            (Expected::File(size), Some(FileKind::File { size: found, .. })) => {
                format!("has {found} bytes, expected {size}")
            }
            (_, None) => "is not there".to_owned(),
            (_, Some(found)) => format!("is another {} than the plan has", found.words()),
        };
        self.differs(path, || problem);
        Ok(false)
    }

    /// Reads what a record of the journal is about, and compares it with its CRC.
    fn content(&mut self, path: &ClusterPath, file: &dyn ReadAt, parts: &[(u64, u64)], crc: [u8; 4]) -> Result<()> {
        let mut pages = self.pages_of(path);
        let mut sum = 0;
        for &(from, length) in parts {
            let (mut at, end) = (from, from.saturating_add(length));
            while at < end {
                // Chunks end where blocks end.
                let wanted = (CHUNK - at % CHUNK).min(end - at);
                let part = self.buffer.get_mut(..usize::try_from(wanted).unwrap_or(0)).unwrap_or_default();
                let got = file.read_at(part, at)?;
                let part = self.buffer.get(..got).unwrap_or_default();
                if got as u64 != wanted {
                    return Err(Error::failure(format!("ends at byte {}, while it is read", at + got as u64)));
                }
                sum = crc32c::crc32c_append(sum, part);
                if let Some(pages) = &mut pages {
                    pages.look(at, part);
                }
                at += wanted;
                self.found.bytes += wanted;
                self.progress.advance(wanted);
            }
        }
        let range = (parts.first().map_or(0, |part| part.0), parts.last().map_or(0, |part| part.0 + part.1));
        self.judge(path, range, sum.to_le_bytes() == crc, pages.unwrap_or_default());
        Ok(())
    }

    /// A page that is bad although its bytes are those that were copied was bad on the source.
    fn judge(&mut self, path: &ClusterPath, (from, end): (u64, u64), as_copied: bool, pages: Pages) {
        if let Some(count) = &mut self.found.pages {
            *count += pages.count;
        }
        if as_copied {
            let lines = if self.live { &mut self.found.torn_pages } else { &mut self.found.bad_pages };
            for (block, how) in &pages.bad {
                lines.add(|| format!("{path}: block {block}: {how}"));
            }
            lines.count += pages.bad_count - pages.bad.len() as u64;
            return;
        }
        let bad: String = pages.bad.iter().map(|(block, how)| format!("; block {block}: {how}")).collect();
        self.differs(path, || format!("bytes {from} to {end} are not those that were copied{bad}"));
    }

    /// The pages of a file, where they have checksums.
    fn pages_of(&self, path: &ClusterPath) -> Option<Pages> {
        let _ = self.found.pages?;
        let (file, _) = self.relations.parse_fork(path)?;
        let geometry = self.manifest.target.control_file.geometry;
        Some(Pages {
            size: geometry.block_size,
            first: file.segment.saturating_mul(geometry.relation_segment_blocks),
            ..Pages::default()
        })
    }

    fn last_step(&mut self, path: &ClusterPath, last: Final, control: &ControlFile) -> Result<()> {
        let small = |store: &dyn TargetStore| Ok::<_, Error>(store.read_small(path)?.unwrap_or_default());
        let problem = match last {
            Final::Signal => return self.compare_entry(path, &Expected::File(0)).map(|_| ()),
            Final::Segment => {
                let size = self.manifest.target.control_file.geometry.wal_segment_size.bytes();
                return self.compare_entry(path, &Expected::File(size)).map(|_| ());
            }
            _ if self.store.entry(path)?.is_none() => Some("is not there".to_owned()),
            Final::Label => {
                let plan = self.manifest.backup_label.as_ref();
                let found = small(self.store)?;
                plan.and_then(|plan| label_problem(&found, plan, control))
            }
            Final::Settings => {
                let found = small(self.store)?;
                let before = self.settings_before(path);
                self.manifest.recovery.as_ref().and_then(|plan| settings_problem(&found, before, plan))
            }
        };
        if let Some(problem) = problem {
            self.differs(path, || problem);
        }
        Ok(())
    }

    /// What the settings were when they had just been copied or removed; none where the plan leaves them alone.
    fn settings_before(&self, path: &ClusterPath) -> Option<Settings> {
        let (number, _) = numbered(self.manifest).find(|(_, action)| action.path == *path)?;
        let record = self.journal.record_of(number, 0);
        Some(
            record
                .map_or(Settings { bytes: 0, crc: [0; 4] }, |record| Settings { bytes: record.bytes, crc: record.crc }),
        )
    }
}

/// The pages of one record.
#[derive(Debug, Default)]
struct Pages {
    /// Bytes in a page.
    size: u32,
    /// The number of the file's first block in its relation.
    first: u32,
    /// How many were looked at.
    count: u64,
    /// Some of the bad ones: the block in the file, and what is wrong.
    bad: Vec<(u64, String)>,
    /// How many bad ones there are.
    bad_count: u64,
}

impl Pages {
    /// Looks at the whole pages among the file's bytes from `at` on.
    fn look(&mut self, at: u64, bytes: &[u8]) {
        let size = u64::from(self.size).max(1);
        let skipped = usize::try_from(at.next_multiple_of(size) - at).unwrap_or(usize::MAX);
        let block = at.div_ceil(size);
        let pages = bytes.get(skipped..).unwrap_or_default().chunks_exact(usize::try_from(size).unwrap_or(usize::MAX));
        for (block, page) in (block..).zip(pages) {
            self.count += 1;
            let in_relation = u64::from(self.first).saturating_add(block);
            if let Some(how) = page_problem(page, u32::try_from(in_relation).unwrap_or(u32::MAX)) {
                self.bad_count += 1;
                if self.bad.len() < SHOWN {
                    self.bad.push((block, how));
                }
            }
        }
    }
}

/// What a server would say of a page. One of zeros is new, and fine.
fn page_problem(page: &[u8], block: u32) -> Option<String> {
    let field = |at: usize| page.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u16::from_le_bytes(*bytes));
    if page.iter().all(|&byte| byte == 0) {
        return None;
    }
    // pd_checksum, pd_upper.
    let (found, upper) = (field(8), field(14));
    let expected = page_checksum(page, block)?;
    if upper == 0 {
        return Some("page of a new one's form that is not all zeros".to_owned());
    }
    (found != expected).then(|| format!("page checksum {found:#06x}, expected {expected:#06x}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A page with a content, as block `block` of its relation.
    fn page(block: u32) -> Vec<u8> {
        let mut page: Vec<u8> = (0..8192_u32).map(|at| (at % 251) as u8).collect();
        let sum = page_checksum(&page, block).unwrap();
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        page
    }

    #[test]
    fn pages_are_judged_as_a_server_does() {
        let mut new = page(3);
        new[14..16].fill(0);
        let mut flipped = page(3);
        flipped[5000] ^= 1;
        let mut dirty = vec![0; 8192];
        dirty[100] = 1;
        let cases = [
            (page(3), 3, false),
            (page(3), 4, true),
            (flipped, 3, true),
            (vec![0; 8192], 3, false),
            (dirty, 3, true),
            (new, 3, true),
        ];
        for (number, (page, block, bad)) in cases.into_iter().enumerate() {
            assert_eq!(page_problem(&page, block).is_some(), bad, "case {number}");
        }
    }

    #[test]
    fn blocks_are_counted_in_the_file_and_summed_in_the_relation() {
        let of = |size, first| Pages { size, first, ..Pages::default() };
        // The second file of a relation: its blocks 5, 6 and half of 7; the last page is another's.
        let bytes = [page(131_077), page(9), page(131_079)[..4096].to_vec()].concat();
        let mut pages = of(8192, 131_072);
        pages.look(5 * 8192, &bytes);
        assert_eq!((pages.count, pages.bad_count, pages.bad[0].0), (2, 1, 6));
        // A tail that begins within a block.
        let mut pages = of(8192, 0);
        pages.look(8192 - 100, &[vec![1; 100], page(1), page(7)].concat());
        assert_eq!((pages.count, pages.bad_count, pages.bad[0].0), (2, 1, 2));
        let mut pages = of(8192, 0);
        pages.look(0, &page(1).repeat(30));
        assert_eq!((pages.count, pages.bad_count, pages.bad.len()), (30, 29, SHOWN));
    }
}
