//! WAL of the target that is missing, damaged, or another's: named by segment, position and what is wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pg_unfork::format::ControlFile;
use pg_unfork::types::{Lsn, SegmentNumber, TimelineId, WalFileName, WalSegmentSize};
use serde_json::Value;

use super::{Untouched, assert_refused, is_unreadable, plan_pair, while_damaged};
use crate::support::cluster::{Cluster, InitOptions, Stop};
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::replication::RecoveryConfig;
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::Plan;

const PAGE: u64 = 8192;

/// The WAL that a plan reads, in segments of 1 MiB.
struct Scanned {
    from: Lsn,
    fork: Lsn,
    through: Lsn,
}

impl Scanned {
    fn of(pair: &Pair) -> Self {
        let plan = Plan::of(&pair.target, Source::Directory(&pair.source), &[]).json();
        let lsn = |value: &Value| value.as_str().unwrap().parse().unwrap();
        let range = &plan["wal"]["scanned"];
        Self { from: lsn(&range["from"]), fork: lsn(&plan["divergence"]["lsn"]), through: lsn(&range["through"]) }
    }
}

fn segment_of(lsn: Lsn, timeline: u32) -> String {
    let size = WalSegmentSize::new(1 << 20).unwrap();
    WalFileName { timeline: TimelineId::new(timeline), segment: SegmentNumber::of(lsn, size) }.text(size)
}

/// The segment of timeline 1 that holds a position, and how far into it that is.
fn at(cluster: &Cluster, lsn: Lsn) -> (PathBuf, u64) {
    (cluster.path("pg_wal").join(segment_of(lsn, 1)), lsn.offset_in(1 << 20))
}

/// Changes bytes of a file.
fn patch(path: &Path, offset: u64, change: impl Fn(&mut [u8])) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes[usize::try_from(offset).unwrap()..]);
    fs::write(path, bytes).unwrap();
}

/// Plans while the segment that holds `lsn` is damaged.
fn plan_with(pair: &Pair, lsn: Lsn, damage: &dyn Fn(&Path, u64)) -> Outcome {
    let (path, offset) = at(&pair.target, lsn);
    while_damaged(&path, |path| damage(path, offset), || plan_pair(pair))
}

/// What can happen to a whole segment, to the one with the common checkpoint, the one with the fork, one
/// after it, and the last one.
#[test]
fn segments() {
    let pair = Pair::shared(Major(17)).copy();
    let scanned = Scanned::of(&pair);
    let foreign = fs::read(Pair::shared(Major(18)).target.path("pg_wal").join(segment_of(scanned.from, 1))).unwrap();
    let last = Lsn::new(scanned.through.get() - 1);
    let after_fork = Lsn::new((scanned.fork.get() | 0xF_FFFF) + 1);
    assert!(after_fork < last.start_of(1 << 20), "too little WAL to have a middle");
    let before = Untouched::of(&pair);
    for lsn in [scanned.from, scanned.fork, after_fork, last] {
        let name = segment_of(lsn, 1);
        let start = lsn.start_of(1 << 20);
        let here = format!("WAL at {start}: ");
        let header = |offset: u64, length: usize| {
            move |path: &Path, _: u64| patch(path, offset, |bytes| bytes[..length].iter_mut().for_each(|b| *b ^= 0x5A))
        };
        type Damage<'a> = Box<dyn Fn(&Path, u64) + 'a>;
        // What lies before the fork is had from the source.
        let is_common = (lsn.get() | 0xF_FFFF) < scanned.fork.get();
        let missing: (Damage<'_>, &str) = (Box::new(|path, _| fs::remove_file(path).unwrap()), "is missing");
        let cases: Vec<(Damage<'_>, &str)> = vec![
            (Box::new(|path, _| fs::write(path, "").unwrap()), "ends after 0 bytes, expected 1048576"),
            (Box::new(header(0, 2)), "page magic is "),
            (Box::new(header(2, 2)), "page flags are "),
            (Box::new(header(8, 8)), "page address is "),
            (Box::new(header(24, 8)), "the segment is of system "),
            (Box::new(header(32, 4)), "by its own header; the control file says otherwise"),
            (Box::new(|path, _| fs::write(path, &foreign).unwrap()), "page magic is D118, expected D116"),
            (Box::new(|path, _| fs::write(path, vec![0; 1 << 20]).unwrap()), "page magic is 0000, expected D116"),
        ];
        for (damage, message) in cases.into_iter().chain((!is_common).then_some(missing)) {
            let outcome = plan_with(&pair, lsn, &*damage);
            assert_refused(&outcome, 4, &[message, &format!("the target's WAL segment {name}"), "IMPOSSIBLE"]);
            let about_content = !message.contains("is missing") && !message.contains("ends after");
            assert!(!about_content || outcome.stderr.contains(&here), "{here}: {outcome}");
        }
    }
    before.check();
}

/// A segment that ends before its records do, wherever it is cut.
#[test]
fn segments_that_are_cut() {
    let pair = Pair::shared(Major(13)).copy();
    let scanned = Scanned::of(&pair);
    let before = Untouched::of(&pair);
    for lsn in [scanned.from, Lsn::new(scanned.through.get() - 1)] {
        let page = lsn.offset_in(1 << 20) / PAGE * PAGE;
        for length in [page, page + 100, PAGE, 1] {
            let cut = |path: &Path, _: u64| {
                fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length.min(page)).unwrap();
            };
            let outcome = plan_with(&pair, lsn, &cut);
            let name = segment_of(lsn, 1);
            assert_refused(&outcome, 4, &[&format!("WAL segment {name} ends after "), "expected 1048576"]);
        }
    }
    before.check();
}

/// A record that is damaged, at the position that is said: the common checkpoint's, the target's first of its
/// own, its last.
#[test]
fn records() {
    let pair = Pair::shared(Major(15)).copy();
    let scanned = Scanned::of(&pair);
    let control = ControlFile::parse(&fs::read(pair.target.path("global/pg_control")).unwrap()).unwrap();
    let before = Untouched::of(&pair);
    for lsn in [scanned.from, scanned.fork, control.checkpoint_location()] {
        let set = |field: u64, value: u32| {
            move |path: &Path, at: u64| {
                patch(path, at + field, |bytes| bytes[..4].copy_from_slice(&value.to_le_bytes()));
            }
        };
        let flip = |field: u64| move |path: &Path, at: u64| patch(path, at + field, |bytes| bytes[0] ^= 0x10);
        type Damage<'a> = Box<dyn Fn(&Path, u64) + 'a>;
        let cases: Vec<(Damage<'_>, &str)> = vec![
            (Box::new(set(0, 0)), "record length is 0, expected 24 to 1073741823"),
            (Box::new(set(0, 23)), "record length is 23, expected 24 to 1073741823"),
            (Box::new(set(0, 1 << 30)), "record length is 1073741824, expected 24 to 1073741823"),
            (Box::new(flip(8)), "record "),
            (Box::new(flip(4)), "its content gives"),
            (Box::new(flip(20)), "its content gives"),
            (Box::new(flip(25)), "its content gives"),
            (Box::new(set(17, 100)), "resource manager 100 does not exist"),
        ];
        for (damage, message) in cases {
            let outcome = plan_with(&pair, lsn, &*damage);
            let name = segment_of(lsn, 1);
            assert_refused(&outcome, 4, &[message, &format!("WAL at {lsn}: "), &format!("WAL segment {name}")]);
        }
    }
    before.check();
}

/// A page header in the middle of a segment.
#[test]
fn pages() {
    let pair = Pair::shared(Major(14)).copy();
    let scanned = Scanned::of(&pair);
    let page = Lsn::new(scanned.from.start_of(PAGE).get() + PAGE);
    let before = Untouched::of(&pair);
    let cases: [(u64, &str); 5] =
        [(0, "page magic is "), (2, "page "), (4, "page is of timeline "), (8, "page address is "), (16, "expected ")];
    for (field, message) in cases {
        let outcome = plan_with(&pair, page, &|path, at| patch(path, at + field, |bytes| bytes[0] ^= 0x40));
        if field == 16 && outcome.status.success() {
            // Nothing crosses into this page, so nobody looks at what is left of it.
            continue;
        }
        assert_refused(&outcome, 4, &[message, &format!("WAL at {page}: ")]);
    }
    before.check();
}

/// A segment with the content of another timeline's, or of another position.
#[test]
fn foreign_content() {
    let pair = Pair::shared(Major(16)).copy();
    let scanned = Scanned::of(&pair);
    let before = Untouched::of(&pair);
    let name = segment_of(scanned.fork, 1);
    let theirs = pair.source.path("pg_wal").join(segment_of(scanned.fork, 2));
    let outcome = plan_with(&pair, scanned.fork, &|path, _| {
        fs::copy(&theirs, path).unwrap();
    });
    assert_refused(&outcome, 4, &["page is of timeline 2, expected 1", &format!("the target's WAL segment {name}")]);
    let other = at(&pair.target, Lsn::new(scanned.fork.get() + (1 << 20))).0;
    let outcome = plan_with(&pair, scanned.fork, &|path, _| {
        fs::copy(&other, path).unwrap();
    });
    assert_refused(&outcome, 4, &["page address is ", "recycled", &format!("the target's WAL segment {name}")]);
    before.check();
}

/// A segment that cannot be read as a file.
#[test]
fn unreadable_segments() {
    let pair = Pair::shared(Major(18)).copy();
    let scanned = Scanned::of(&pair);
    let before = Untouched::of(&pair);
    let directory = |path: &Path, _: u64| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    };
    let name = segment_of(scanned.fork, 1);
    assert_refused(&plan_with(&pair, scanned.fork, &directory), 4, &[&name, "s a directory"]);
    let (path, _) = at(&pair.target, scanned.fork);
    let lock = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    let (locked, outcome) = while_damaged(&path, lock, || (is_unreadable(&path), plan_pair(&pair)));
    if locked {
        assert_refused(&outcome, 4, &[&name, "ermission denied"]);
    }
    before.check();
}

/// A control file that does not fit the WAL: its checkpoint is elsewhere, or where it must replay to is not
/// where a record ends.
#[test]
fn ends_that_are_none() {
    let pair = Pair::shared(Major(19)).copy();
    let scanned = Scanned::of(&pair);
    let path = pair.target.path("global/pg_control");
    let before = Untouched::of(&pair);
    let edited = |change: &dyn Fn(ControlFile) -> ControlFile| {
        let write = |path: &Path| {
            let control = ControlFile::parse(&fs::read(path).unwrap()).unwrap();
            fs::write(path, change(control).as_bytes()).unwrap();
        };
        while_damaged(&path, write, || plan_pair(&pair))
    };
    let one = TimelineId::new(1);
    let beyond = scanned.through.plus(8);
    let outcome = edited(&|control| control.with_min_recovery_point(beyond, one));
    assert_refused(&outcome, 4, &["record length is 0", &format!("WAL at {}", scanned.through)]);
    let inside = Lsn::new(scanned.through.get() - 8);
    let outcome =
        edited(&|control| control.with_checkpoint_location(scanned.from).with_min_recovery_point(inside, one));
    let text = format!("the target's WAL should end at {inside}, but a record ends at {}", scanned.through);
    assert_refused(&outcome, 4, &[&text]);
    let outcome = edited(&|control| control.with_checkpoint_location(scanned.from.plus(8)));
    assert_refused(&outcome, 4, &[&format!("WAL at {}", scanned.from.plus(8))]);
    let outcome = edited(&|control| control.with_checkpoint_location(Lsn::new(1 << 40)));
    assert_refused(&outcome, 4, &["is missing", &segment_of(Lsn::new(1 << 40), 1)]);
    before.check();
}

/// A timeline may begin with a segment's first page: then no page of its first segment is the older one's,
/// and nothing is refused.
#[test]
fn a_timeline_that_begins_with_a_segment() {
    for major in [Major(13), Major(19)] {
        let primary = Cluster::initdb(major, &InitOptions::default());
        primary.start();
        let standby = primary.basebackup_standby(RecoveryConfig::Basebackup);
        standby.start();
        primary.sql("postgres", "CREATE TABLE rows AS SELECT 1 AS id");
        standby.wait_for_catchup(&primary);
        // The server itself may write every 15 seconds, and so into the segment that was just begun.
        loop {
            let end = primary.sql("postgres", "SELECT pg_switch_wal()");
            standby.wait_for("postgres", &format!("pg_last_wal_replay_lsn() > '{end}'"));
            let replayed: Lsn = standby.sql("postgres", "SELECT pg_last_wal_replay_lsn()").parse().unwrap();
            if replayed.offset_in(1 << 20) == 0 {
                break;
            }
            primary.sql("postgres", "INSERT INTO rows VALUES (1)");
        }
        standby.promote();
        standby.sql("postgres", "INSERT INTO rows VALUES (2)");
        standby.stop(Stop::Fast);
        primary.sql("postgres", "INSERT INTO rows VALUES (3)");
        primary.stop(Stop::Fast);
        let pair = Pair { source: primary, target: standby };
        let plan = Plan::of(&pair.target, Source::Directory(&pair.source), &[]).json();
        let fork: Lsn = plan["divergence"]["lsn"].as_str().unwrap().parse().unwrap();
        assert_eq!((&plan["verdict"], fork.offset_in(1 << 20)), (&"rewind".into(), 0), "{fork}");
    }
}
