//! What an apply must have left at a path, by the plan and the journal. Pure.

use super::finish::label_text;
use super::journal::{Copied, pieces};
use super::recovery::{before_line, shown_line};
use super::units::size;
use crate::format::{ControlFile, DbState};
use crate::manifest::{Action, ActionKind, LabelPlan, Manifest, RecoveryPlan};
use crate::types::{LinkText, Lsn};

/// What must be at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Nothing.
    Nothing,
    /// Nothing, or a directory that could not be removed because something unknown is in it.
    NothingOrDirectory,
    /// A directory.
    Directory,
    /// A symlink with this text.
    Symlink(LinkText),
    /// A regular file with so many bytes.
    File(u64),
}

/// What an action must have left. `live` says that the source may have changed its files between plan and apply; then
/// the journal's records tell what came.
pub(super) fn expected(action: &Action, records: &[&Copied], live: bool, block_size: u64) -> Expected {
    let after = action.after.as_ref();
    match action.kind {
        ActionKind::CreateDirectory => Expected::Directory,
        ActionKind::CreateSymlink => {
            Expected::Symlink(after.and_then(|state| state.link.clone()).unwrap_or_else(|| LinkText::new(b"")))
        }
        ActionKind::Remove => {
            let before = action.before.as_ref();
            let was_directory = before.is_some_and(|state| state.size.is_none() && state.link.is_none());
            if was_directory { Expected::NothingOrDirectory } else { Expected::Nothing }
        }
        ActionKind::CopyFile | ActionKind::Patch if !live => Expected::File(size(&action.after)),
        // A file that comes back is there again as of its last piece.
        ActionKind::CopyFile if records.last().is_some_and(|record| record.gone) => Expected::Nothing,
        ActionKind::CopyFile => Expected::File(end_of(action, records, block_size)),
        // Blocks of a file that is gone are not written any more.
        ActionKind::Patch if records.iter().any(|record| record.gone) => Expected::Nothing,
        ActionKind::Patch if size(&action.after) < size(&action.before) => Expected::File(size(&action.after)),
        ActionKind::Patch => Expected::File(size(&action.before).max(end_of(action, records, block_size))),
    }
}

/// The end of what was written, in bytes from the file's beginning.
fn end_of(action: &Action, records: &[&Copied], block_size: u64) -> u64 {
    let all = pieces(action, block_size);
    let stretches = records.iter().flat_map(|record| stretches(&all, record).unwrap_or_default());
    stretches.filter(|&(_, length)| length > 0).map(|(from, length)| from.saturating_add(length)).max().unwrap_or(0)
}

/// The parts of the file that a record is about: offset and length; none where that contradicts the pieces.
pub(super) fn stretches(pieces: &[(u64, Option<u64>)], record: &Copied) -> Option<Vec<(u64, u64)>> {
    let first = record.first as usize;
    let of_record = pieces.get(first..first.checked_add(record.count as usize)?)?;
    if let [(offset, asked)] = of_record {
        let fits = asked.is_none_or(|asked| record.bytes <= asked);
        return fits.then(|| vec![(*offset, record.bytes)]);
    }
    let whole: Option<Vec<(u64, u64)>> = of_record.iter().map(|&(offset, asked)| Some((offset, asked?))).collect();
    whole.filter(|parts| parts.iter().map(|&(_, length)| length).sum::<u64>() == record.bytes)
}

/// What is wrong with the control file; nothing where it is that of an apply of this plan. `source_at` is how far a
/// live source was seen to have WAL.
pub(super) fn control_problems(control: &ControlFile, manifest: &Manifest, source_at: Option<Lsn>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut expect = |what: &str, found: String, expected: String, good: bool| {
        if !good {
            problems.push(format!("global/pg_control: {what} is {found}, expected {expected}"));
        }
    };
    let system = (control.header().system_identifier.to_string(), &manifest.source.control_file.system_identifier);
    expect("the system identifier", system.0.clone(), system.1.clone(), system.0 == *system.1);
    let state = (control.state(), DbState::InArchiveRecovery);
    expect("the state", state.0.words().to_owned(), state.1.words().to_owned(), state.0 == state.1);
    let end = control.min_recovery_point();
    let planned = manifest.source.wal_end.unwrap_or_default();
    match source_at {
        None => expect("minRecoveryPoint", end.to_string(), planned.to_string(), end == planned),
        Some(seen) => {
            // It is the end of a whole record, which a live source's position need not be.
            let start = manifest.backup_label.as_ref().map_or(Lsn::INVALID, |label| label.start);
            let range = format!("a position after {start} and no later than {seen}");
            expect("minRecoveryPoint", end.to_string(), range, end > start && end <= seen);
        }
    }
    let timeline = control.min_recovery_timeline();
    let line = manifest.source.history.entries();
    let of_source = line.iter().any(|entry| entry.timeline == timeline);
    expect("minRecoveryPointTLI", timeline.to_string(), "one of the source's timelines".to_owned(), of_source);
    problems
}

/// What is wrong with `backup_label`: any START TIME is fine.
pub(super) fn label_problem(found: &[u8], plan: &LabelPlan, control: &ControlFile) -> Option<String> {
    let lines = found.split(|&byte| byte == b'\n');
    let time = lines.filter_map(|line| line.strip_prefix(b"START TIME: ")).next();
    let Some(time) = time.and_then(|time| std::str::from_utf8(time).ok()) else {
        return Some("has no START TIME".to_owned());
    };
    let expected = label_text(plan, control, time);
    let differs = found != expected.as_bytes();
    differs.then(|| format!("is {:?}, expected {expected:?}", String::from_utf8_lossy(found)))
}

/// What `postgresql.auto.conf` held before the recovery configuration was appended, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// How many bytes.
    pub(super) bytes: u64,
    /// Their CRC-32C.
    pub(super) crc: [u8; 4],
}

/// What is wrong with `postgresql.auto.conf`, whose last line must be the plan's. What was there before is known
/// where it was copied.
pub(super) fn settings_problem(found: &[u8], before: Option<Settings>, plan: &RecoveryPlan) -> Option<String> {
    let Some(rest) = before_line(found, plan) else {
        return Some(format!("does not end with {:?}", shown_line(plan).trim_end()));
    };
    let before = before?;
    let has = |text: &[u8]| text.len() as u64 == before.bytes && crc32c::crc32c(text).to_le_bytes() == before.crc;
    // The line may have been the last one already; a last line without its end gets one.
    let as_copied = has(found) || has(rest) || rest.strip_suffix(b"\n").is_some_and(has);
    (!as_copied).then(|| "is not what was copied and the recovery configuration".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::journal::PIECE;
    use super::*;
    use crate::manifest::{PathState, Phase, Reason};
    use crate::types::{BlockRange, ClusterPath};

    fn action(kind: ActionKind, before: Option<u64>, after: Option<u64>, blocks: &[[u32; 2]]) -> Action {
        let state = |size| PathState { size: Some(size), ..PathState::default() };
        Action {
            after: after.map(state),
            before: before.map(state),
            blocks: blocks.iter().map(|&range| BlockRange::from(range)).collect(),
            kind,
            path: ClusterPath::new(b"base/5/7").unwrap(),
            phase: Phase::Copy,
            reason: Reason::ChangedOnTarget,
            source: after.map(state),
        }
    }

    fn copied(first: u32, count: u32, bytes: u64, gone: bool) -> Copied {
        Copied { action: 0, first, count, bytes, crc: [0; 4], gone }
    }

    #[test]
    fn a_file_is_as_long_as_what_came() {
        use ActionKind::{CopyFile, Patch};
        const BLOCK: u64 = 8192;
        let file = Expected::File;
        let cases = [
            // Planned with 100 bytes, and so it is from a stopped source.
            (action(CopyFile, None, Some(100), &[]), vec![copied(0, 1, 70, false)], (file(100), file(70))),
            (action(CopyFile, None, Some(100), &[]), vec![copied(0, 1, 0, false)], (file(100), file(0))),
            (action(CopyFile, None, Some(100), &[]), vec![copied(0, 1, 0, true)], (file(100), Expected::Nothing)),
            // Two pieces: shorter in the first, gone for the first but back for the second.
            (
                action(CopyFile, None, Some(PIECE + 9), &[]),
                vec![copied(0, 1, 5, false), copied(1, 1, 0, false)],
                (file(PIECE + 9), file(5)),
            ),
            (
                action(CopyFile, None, Some(PIECE + 9), &[]),
                vec![copied(0, 1, 0, true), copied(1, 1, 2, false)],
                (file(PIECE + 9), file(PIECE + 2)),
            ),
            // Blocks alone, a tail, a tail that came short, a cut.
            (
                action(Patch, Some(4 * BLOCK), Some(4 * BLOCK), &[[0, 1], [2, 1]]),
                vec![copied(0, 2, 2 * BLOCK, false)],
                (file(4 * BLOCK), file(4 * BLOCK)),
            ),
            (
                action(Patch, Some(BLOCK), Some(4 * BLOCK), &[[0, 1]]),
                vec![copied(0, 2, 4 * BLOCK, false)],
                (file(4 * BLOCK), file(4 * BLOCK)),
            ),
            (
                action(Patch, Some(BLOCK), Some(4 * BLOCK), &[[0, 1]]),
                vec![copied(0, 1, BLOCK, false), copied(1, 1, 2 * BLOCK, false)],
                (file(4 * BLOCK), file(3 * BLOCK)),
            ),
            (
                action(Patch, Some(BLOCK), Some(4 * BLOCK), &[]),
                vec![copied(0, 1, 0, false)],
                (file(4 * BLOCK), file(BLOCK)),
            ),
            (action(Patch, Some(4 * BLOCK), Some(BLOCK), &[]), vec![], (file(BLOCK), file(BLOCK))),
            (
                action(Patch, Some(4 * BLOCK), Some(BLOCK), &[[0, 1]]),
                vec![copied(0, 1, 0, true)],
                (file(BLOCK), Expected::Nothing),
            ),
        ];
        for (action, records, (stopped, live)) in cases {
            let records: Vec<&Copied> = records.iter().collect();
            assert_eq!(expected(&action, &records, false, BLOCK), stopped, "{records:?}");
            assert_eq!(expected(&action, &records, true, BLOCK), live, "{records:?}");
        }
    }

    #[test]
    fn what_is_removed_is_gone_but_for_directories_in_use() {
        let mut removed = action(ActionKind::Remove, Some(7), None, &[]);
        assert_eq!(expected(&removed, &[], false, 8192), Expected::Nothing);
        removed.before = Some(PathState { link: Some(LinkText::new(b"x")), ..PathState::default() });
        assert_eq!(expected(&removed, &[], true, 8192), Expected::Nothing);
        removed.before = Some(PathState::default());
        assert_eq!(expected(&removed, &[], true, 8192), Expected::NothingOrDirectory);
        let mut made = action(ActionKind::CreateSymlink, None, None, &[]);
        made.after = Some(PathState { link: Some(LinkText::new(b"there")), ..PathState::default() });
        assert_eq!(expected(&made, &[], false, 8192), Expected::Symlink(LinkText::new(b"there")));
    }

    #[test]
    fn records_must_fit_their_pieces() {
        let pieces = [(0, Some(10)), (50, Some(20)), (90, None)];
        let cases = [
            (copied(0, 1, 10, false), Some(vec![(0, 10)])),
            (copied(0, 1, 3, false), Some(vec![(0, 3)])),
            (copied(0, 1, 11, false), None),
            (copied(0, 2, 30, false), Some(vec![(0, 10), (50, 20)])),
            // One of two came short: nobody knows which.
            (copied(0, 2, 29, false), None),
            (copied(2, 1, 777, false), Some(vec![(90, 777)])),
            (copied(1, 2, 20, false), None),
            (copied(2, 2, 1, false), None),
            (copied(3, 1, 0, false), None),
            (copied(u32::MAX, u32::MAX, 0, false), None),
        ];
        for (record, expected) in cases {
            assert_eq!(stretches(&pieces, &record), expected, "{record:?}");
        }
    }

    #[test]
    fn settings_are_what_was_copied_and_the_line() {
        let of = |text: &[u8]| Settings { bytes: text.len() as u64, crc: crc32c::crc32c(text).to_le_bytes() };
        let primary_conninfo = "x".to_owned();
        let plan = RecoveryPlan { primary_conninfo, standby_signal: true, with_password: false };
        let cases: [(&[u8], Option<Settings>, bool); 9] = [
            (b"a = 1\nprimary_conninfo = 'x'\n", Some(of(b"a = 1\n")), true),
            (b"a = 1\nprimary_conninfo = 'x'\n", Some(of(b"a = 1")), true),
            (b"a = 1\nprimary_conninfo = 'x'\n", Some(of(b"a = 1\nprimary_conninfo = 'x'\n")), true),
            (b"primary_conninfo = 'x'\n", Some(of(b"")), true),
            (b"a = 2\nprimary_conninfo = 'x'\n", Some(of(b"a = 1\n")), false),
            (b"a = 1\nb = 1\nprimary_conninfo = 'x'\n", Some(of(b"a = 1\n")), false),
            (b"whatever\nprimary_conninfo = 'x'\n", None, true),
            (b"primary_conninfo = 'x'\nwhatever\n", None, false),
            (b"", Some(of(b"")), false),
        ];
        for (found, before, good) in cases {
            assert_eq!(settings_problem(found, before, &plan).is_none(), good, "{}", String::from_utf8_lossy(found));
        }
    }
}
