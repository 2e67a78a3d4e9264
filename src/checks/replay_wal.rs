//! Whether replay will find every WAL segment that it reads.

use super::finding;
use crate::manifest::{Check, CheckStatus, ObtainedFrom, ObtainedSegment, WalPlace, WalSegmentPlan};

/// Where a target that has been rewound can get WAL from that neither side has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherWal {
    /// From an archive: it will have a `restore_command`.
    Archive,
    /// From the server that its own `primary_conninfo` names, which need not be the source.
    Upstream,
    /// Its settings are not in its data directory: nobody knows.
    Unknown,
    /// From nowhere.
    Nowhere,
}

/// How many ranges of segments are listed.
const MOST_RANGES: usize = 50;

/// Every segment that recovery will read, and where it is. Of those that neither side has, `obtained` may have been got
/// from an archive to be read for the plan; replay will need them again.
pub fn replay_wal(segments: &[WalSegmentPlan], elsewhere: OtherWal, obtained: &[ObtainedSegment]) -> Check {
    let missing: Vec<&str> =
        segments.iter().filter(|s| s.place == WalPlace::Missing).map(|s| s.file.as_str()).collect();
    let mut evidence = ranges(segments, elsewhere);
    if missing.is_empty() {
        let detail = format!("WAL segments that replay reads: {}, all there", segments.len());
        return Check { evidence, ..finding("replay_wal", CheckStatus::Pass, detail, None) };
    }
    evidence.extend(archived(&missing, obtained));
    let shown = missing.iter().take(10).copied().collect::<Vec<_>>().join(", ");
    let and_so_on = if missing.len() > 10 { ", …" } else { "" };
    let detail = format!("{} WAL segments are on neither side: {shown}{and_so_on}", missing.len());
    let (status, remedy) = match elsewhere {
        OtherWal::Archive => {
            (CheckStatus::Warn, "see that the archive of the target's restore_command has them, or it cannot start")
        }
        OtherWal::Upstream => (
            CheckStatus::Warn,
            "see that the server of the target's primary_conninfo has them, or give it a restore_command",
        ),
        OtherWal::Unknown => (CheckStatus::Warn, "the target needs a restore_command that has them, or cannot start"),
        OtherWal::Nowhere => (
            CheckStatus::Fail,
            "put the segments into the source's pg_wal, or set a restore_command that has them in the settings that the target will have; then plan again",
        ),
    };
    Check { evidence, ..finding("replay_wal", status, detail, Some(remedy)) }
}

/// Says which missing segments the archive has that was asked for this plan.
fn archived(missing: &[&str], obtained: &[ObtainedSegment]) -> Option<String> {
    let is_archived = |file: &str| {
        let position = obtained.binary_search_by(|segment| segment.file.as_str().cmp(file));
        position.ok().and_then(|at| obtained.get(at)).is_some_and(|found| found.from == ObtainedFrom::RestoreCommand)
    };
    let archived: Vec<&str> = missing.iter().copied().filter(|file| is_archived(file)).collect();
    let (first, last) = (archived.first()?, archived.last()?);
    Some(format!("the restore_command of this plan has restored {} of the missing, {first} to {last}", archived.len()))
}

/// Segments in a row that are at one place, a line each.
fn ranges(segments: &[WalSegmentPlan], elsewhere: OtherWal) -> Vec<String> {
    let runs = segments.chunk_by(|a, b| a.place == b.place);
    let mut lines: Vec<String> = runs.filter_map(|run| range(run, elsewhere)).collect();
    if lines.len() > MOST_RANGES {
        let more = lines.len() - MOST_RANGES;
        lines.truncate(MOST_RANGES);
        lines.push(format!("… and {more} more ranges"));
    }
    lines
}

fn range(run: &[WalSegmentPlan], elsewhere: OtherWal) -> Option<String> {
    let (first, last) = (run.first()?, run.last()?);
    let place = match (first.place, elsewhere) {
        (WalPlace::Source, _) => "on the source",
        (WalPlace::Target, _) => "on the target",
        (WalPlace::Both, _) => "on both",
        (WalPlace::Missing, OtherWal::Archive) => "MISSING: the archive must have it",
        (WalPlace::Missing, OtherWal::Upstream) => "MISSING: the server of primary_conninfo must have it",
        (WalPlace::Missing, OtherWal::Unknown | OtherWal::Nowhere) => "MISSING",
    };
    Some(match run.len() {
        1 => format!("{}: {place}", first.file),
        count => format!("{} to {} ({count}): {place}", first.file, last.file),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(places: &[WalPlace]) -> Vec<WalSegmentPlan> {
        let segment = |(number, &place)| WalSegmentPlan { file: format!("{number:024X}"), place };
        places.iter().enumerate().map(segment).collect()
    }

    #[test]
    fn what_is_missing_must_come_from_somewhere() {
        use WalPlace::{Both, Missing, Source, Target};
        let there = segments(&[Target, Both, Source]);
        let holes = segments(&[Missing, Missing, Source]);
        let cases = [
            (OtherWal::Archive, CheckStatus::Warn),
            (OtherWal::Upstream, CheckStatus::Warn),
            (OtherWal::Unknown, CheckStatus::Warn),
            (OtherWal::Nowhere, CheckStatus::Fail),
        ];
        for (elsewhere, status) in cases {
            let found = replay_wal(&there, elsewhere, &[]);
            assert_eq!((found.status, found.remedy), (CheckStatus::Pass, None));
            let found = replay_wal(&holes, elsewhere, &[]);
            assert_eq!((found.status, found.remedy.is_some()), (status, true));
            assert!(found.detail.starts_with("2 WAL segments are on neither side: "), "{}", found.detail);
        }
    }

    #[test]
    fn what_the_archive_had_for_the_plan_is_said() {
        let holes = segments(&[WalPlace::Missing, WalPlace::Missing, WalPlace::Source]);
        let obtained = |file: u32, from| ObtainedSegment { file: format!("{file:024X}"), from };
        let given = [obtained(0, ObtainedFrom::Source), obtained(1, ObtainedFrom::RestoreCommand)];
        let found = replay_wal(&holes, OtherWal::Nowhere, &given);
        let name = format!("{:024X}", 1);
        let expected = format!("the restore_command of this plan has restored 1 of the missing, {name} to {name}");
        assert_eq!(found.evidence.last(), Some(&expected));
        assert_eq!(found.evidence.len(), 1 + replay_wal(&holes, OtherWal::Nowhere, &given[..1]).evidence.len());
    }

    #[test]
    fn neighbours_at_one_place_are_one_line() {
        use WalPlace::{Both, Missing, Source};
        let found = replay_wal(&segments(&[Missing, Both, Source, Source, Source]), OtherWal::Archive, &[]);
        let name = |number: u32| format!("{number:024X}");
        let expected = [
            format!("{}: MISSING: the archive must have it", name(0)),
            format!("{}: on both", name(1)),
            format!("{} to {} (3): on the source", name(2), name(4)),
        ];
        assert_eq!(found.evidence, expected);
        let alternating: Vec<WalPlace> = (0..200).map(|n| if n % 2 == 0 { Both } else { Source }).collect();
        let found = replay_wal(&segments(&alternating), OtherWal::Nowhere, &[]);
        assert_eq!(found.evidence.len(), MOST_RANGES + 1);
        assert_eq!(found.evidence.last().map(String::as_str), Some("… and 150 more ranges"));
    }
}
