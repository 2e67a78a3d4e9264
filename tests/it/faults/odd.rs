//! What a usual pair does not have: large files, relations that vanish, a damaged journal.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use pg_unfork::apply::status;
use pg_unfork::error::ErrorKind;

use super::case::Case;
use super::on;
use crate::support::cluster::Cluster;
use crate::support::fault::{Fault, Trap};
use crate::support::likeness::From;
use crate::support::pair::Pair;
use crate::support::servers::Major;
use crate::support::tool::Plan;
use crate::support::tree::{self, Tree, modification_times};

const MIB: u64 = 1 << 20;

/// A server's log is larger than settings are, which are read again; another file is copied in three pieces.
#[test]
fn large_files() {
    let pair = Pair::shared(Major(18)).copy();
    fs::create_dir_all(pair.source.path("log")).unwrap();
    fs::write(pair.source.path("log/postgresql.log"), vec![b'.'; 17 << 20]).unwrap();
    let large = File::create(pair.source.path("large")).unwrap();
    large.set_len(150 * MIB).unwrap();
    for offset in [0, 63 * MIB, 100 * MIB, 150 * MIB - 1] {
        large.write_all_at(b"x", offset).unwrap();
    }
    fs::write(pair.target.path("large"), "small").unwrap();
    let case = Case::of(pair, From::Stopped);
    let (steps, _) = case.steps(true);
    for back in [7, 20, 40] {
        let target = case.pair.copy_target();
        let died = case.apply(&target, &Trap::new(steps - back, Fault::Death), true);
        assert_eq!(died.unwrap_err().kind(), ErrorKind::Incomplete);
        let _ = case.apply(&target, &Trap::counting(), true).unwrap();
        case.assert_applied(&target);
        let _ = case.undo(&target, &Trap::counting()).unwrap();
        case.assert_as_before(&target);
    }
    // In the midst of the pieces.
    let whole = Trap::counting();
    let _ = case.apply(&case.pair.copy_target(), &whole, true).unwrap();
    let target = case.pair.copy_target();
    let committed = whole.number_of("commit large").unwrap();
    assert!(case.apply(&target, &Trap::new(committed, Fault::Death), true).is_err());
    let journaled = case.bytes_journaled(&target);
    let draft = |entry: fs::DirEntry| entry.metadata().unwrap().len() >= 128 * MIB;
    assert!(fs::read_dir(target.path(".pg_unfork")).unwrap().flatten().any(draft));
    let outcome = case.apply(&target, &Trap::counting(), true).unwrap();
    case.assert_applied(&target);
    case.assert_nothing_twice(outcome, journaled);
}

/// A large file's copy that was put in place and is not in the journal is made again; dies that, too, what the journal
/// has of the first is not taken for the second's.
#[test]
fn large_files_that_are_begun_twice() {
    let pair = Pair::shared(Major(16)).copy();
    let content: Vec<u8> = (0..140_u32 << 18).flat_map(u32::to_le_bytes).collect();
    fs::write(pair.source.path("large"), content).unwrap();
    let case = Case::of(pair, From::Stopped);
    let whole = Trap::counting();
    let _ = case.apply(&case.pair.copy_target(), &whole, true).unwrap();
    let committed = whole.number_of("commit large").unwrap();
    let mut begun_twice = 0;
    for after in (1..).step_by(6) {
        let target = case.pair.copy_target();
        assert!(case.apply(&target, &Trap::new(committed + after, Fault::Death), true).is_err());
        let journaled = case.bytes_journaled(&target);
        let again = Trap::counting();
        let _ = case.apply(&target.duplicate(), &again, true).unwrap();
        let Some(begun) = again.number_of("write large") else { break };
        begun_twice += u64::from(journaled > 64 * MIB);
        assert!(case.apply(&target, &Trap::new(begun, Fault::DeathHalfWay), true).is_err());
        let _ = case.apply(&target, &Trap::counting(), true).unwrap();
        case.assert_applied(&target);
    }
    assert!(begun_twice > 0);
}

/// The system fails to make a piece of a large file durable, and tells only once: what comes behind it is not done.
#[test]
fn large_files_that_do_not_get_to_the_disk() {
    let pair = Pair::shared(Major(15)).copy();
    let content: Vec<u8> = (0..140_u32 << 18).flat_map(u32::to_le_bytes).collect();
    fs::write(pair.source.path("large"), content).unwrap();
    let case = Case::of(pair, From::Stopped);
    let whole = Trap::counting();
    let _ = case.apply(&case.pair.copy_target(), &whole, false).unwrap();
    let paused = whole.number_of("pause large").unwrap();
    for after in 1..=4 {
        let target = case.pair.copy_target();
        let failed = case.apply(&target, &Trap::new(paused + after, Fault::Error(5)), false);
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Incomplete);
        let journaled = case.bytes_journaled(&target);
        let outcome = case.apply(&target, &Trap::counting(), false).unwrap();
        case.assert_applied(&target);
        case.assert_nothing_twice(outcome, journaled);
        let left = fs::read_dir(target.path(".pg_unfork")).unwrap().flatten().map(|entry| entry.file_name());
        let drafts: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with("new.")).collect();
        assert_eq!(drafts, [""; 0]);
    }
}

/// A table of which more is changed than is copied at a time is dropped on the source after the plan.
#[test]
fn a_large_table_that_vanishes() {
    let filler = "CREATE TABLE large AS SELECT g, repeat('x', 1000) FROM generate_series(1, 80000) g";
    let pair = Pair::simple(Major(16), |builder| {
        builder
            .before_backup(|primary| drop(primary.sql("postgres", filler)))
            .on_target_after_fork(|target| drop(target.sql("postgres", "DELETE FROM large")))
    });
    pair.settle(From::Live);
    let (before, times) = (Tree::of(&pair.target), modification_times(&pair.target));
    let plan = Plan::of(&pair.target, pair.source(From::Live), Pair::arguments(From::Live));
    assert!(plan.json()["totals"]["bytes"].as_u64().unwrap() > 80 * MIB);
    pair.source.sql("postgres", "DROP TABLE large");
    pair.source.checkpoint();
    let _ = plan.apply(&[]).success();
    let _ = on(&pair.target, "undo").success();
    assert_eq!(tree::diff(&before, &Tree::of(&pair.target), &tree::is_own_state), [""; 0]);
    assert_eq!(tree::different_times(&times, &modification_times(&pair.target)), [""; 0]);
    let _ = plan.apply(&[]).success();
    pair.assert_lives(From::Live);
}

/// A target on which an apply died late, and its journal.
fn died_late(case: &Case) -> (Cluster, Vec<u8>) {
    let (steps, _) = case.steps(true);
    let target = case.pair.copy_target();
    // The last one is the note in the history, before it comes the control file in three.
    let died = case.apply(&target, &Trap::new(steps - 7, Fault::Death), true);
    assert_eq!(died.unwrap_err().kind(), ErrorKind::Incomplete);
    assert!(target.path("backup_label").exists());
    let journal = fs::read(target.path(".pg_unfork/journal")).unwrap();
    (target, journal)
}

/// What the program says of a journal.
fn problem(case: &Case, target: &Cluster, journal: &[u8]) -> Option<String> {
    fs::write(target.path(".pg_unfork/journal"), journal).unwrap();
    let control = fs::read(target.path("global/pg_control")).unwrap();
    status(&mut case.plain_store(target), &control, None).unwrap().journal_problem
}

/// Wherever a byte of the journal is flipped or its end is cut off: the apply comes to its end, or says where the damage
/// is; and it can be taken back.
#[test]
fn a_damaged_journal() {
    let case = Case::new(Major(17), From::Stopped);
    let (target, journal) = died_late(&case);
    assert_eq!(problem(&case, &target, &journal), None);
    let mut damaged = 0;
    for at in 0..journal.len() {
        assert_eq!(problem(&case, &target, &journal[..at]), None, "cut at {at}");
        let mut flipped = journal.clone();
        flipped[at] ^= 0x40;
        if let Some(problem) = problem(&case, &target, &flipped) {
            assert!(problem.contains("is damaged at byte"), "{problem}");
            damaged += 1;
        }
    }
    assert!(damaged * 10 > journal.len() * 7, "{damaged} of {} bytes", journal.len());
    for at in (0..journal.len()).step_by(journal.len() / 9) {
        fs::write(target.path(".pg_unfork/journal"), &journal[..at]).unwrap();
        let cut = target.duplicate();
        let _ = case.apply(&cut, &Trap::counting(), true).unwrap_or_else(|error| panic!("cut at {at}: {error}"));
        case.assert_applied(&cut);
        let mut flipped = journal.clone();
        flipped[at] ^= 1;
        fs::write(target.path(".pg_unfork/journal"), &flipped).unwrap();
        let copy = target.duplicate();
        match case.apply(&copy, &Trap::counting(), true) {
            Ok(_) => case.assert_applied(&copy),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::DeadEnd, "{error}");
                let _ = case.undo(&copy, &Trap::counting()).unwrap();
                case.assert_as_before(&copy);
            }
        }
    }
}

/// What the journal takes is little beside what is copied.
#[test]
fn the_size_of_a_journal() {
    let case = Case::new(Major(15), From::Stopped);
    let target = case.pair.copy_target();
    let Ok(pg_unfork::apply::Outcome::Rewound { bytes, .. }) = case.apply(&target, &Trap::counting(), true) else {
        panic!("no apply");
    };
    let journal = fs::metadata(target.path(".pg_unfork/journal")).unwrap().len();
    println!("{journal} bytes for {bytes}");
    assert!(journal * 1000 < bytes * 3, "{journal} bytes for {bytes}");
}
