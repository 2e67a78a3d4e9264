//! A state directory that lacks something, or is damaged: nobody is told that all is as it was when it is not.

use std::fs;

use pg_unfork::apply::{clean, condition};
use pg_unfork::error::ErrorKind;
use pg_unfork::format::ControlFile;
use pg_unfork::io::DataDirectory;

use super::case::Case;
use super::kills::kill_sealed;
use super::on;
use crate::support::cluster::{Cluster, Stop};
use crate::support::fault::{Fault, Trap};
use crate::support::likeness::From;
use crate::support::pair::Pair;
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::Plan;
use crate::support::workload::REWIND_USER;

fn control(target: &Cluster) -> Vec<u8> {
    fs::read(target.path("global/pg_control")).unwrap()
}

fn is_sealed(target: &Cluster) -> bool {
    ControlFile::parse(&control(target)).unwrap().is_sealed()
}

/// A target on which an apply died just before its end.
fn almost_applied(case: &Case) -> Cluster {
    let (steps, _) = case.steps(true);
    for back in 1.. {
        let target = case.pair.copy_target();
        let _ = case.apply(&target, &Trap::new(steps - back, Fault::Death), true);
        if is_sealed(&target) {
            return target;
        }
    }
    unreachable!("an apply is sealed at some time")
}

/// Turns over a byte in the middle of a file.
fn damage(target: &Cluster, file: &str) {
    let mut bytes = fs::read(target.path(file)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(target.path(file), bytes).unwrap();
}

/// A clean that dies anywhere leaves all that an undo needs, or nothing that an undo would take for it.
#[test]
fn a_clean_that_dies() {
    let case = Case::new(Major(17), From::Stopped);
    for at in 1.. {
        let target = case.pair.copy_target();
        let _ = case.apply(&target, &Trap::counting(), true).unwrap();
        let manifest = case.manifest_for(&target);
        let trap = Trap::new(at, Fault::Death);
        let clean = |trap: &Trap| {
            let directory = DataDirectory::open(&target.data()).unwrap();
            clean(&mut case.trapped_store(&target, trap), &directory, &control(&target), Some(&manifest), true)
        };
        let died = clean(&trap).is_err();
        if case.undo(&target, &Trap::counting()).is_ok() {
            case.assert_as_before(&target);
            continue;
        }
        // There is no state to verify by.
        assert_eq!(case.differs_from_applied(&target), [""; 0]);
        let _ = clean(&Trap::counting()).unwrap();
        let left: Vec<_> = fs::read_dir(target.path(".pg_unfork")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["history"], "died at {at}");
        if !died {
            return;
        }
    }
}

/// Somebody made room by removing what was kept: no undo begins, and the apply can still come to its end.
#[test]
fn what_was_kept_is_gone() {
    let case = Case::new(Major(15), From::Stopped);
    let target = almost_applied(&case);
    let kept = fs::read_dir(target.path(".pg_unfork/undo")).unwrap().map(|e| e.unwrap().path());
    let kept = kept.filter(|path| path.is_file() && !path.ends_with("images"));
    for path in kept.collect::<Vec<_>>() {
        let aside = target.path("aside");
        fs::rename(&path, &aside).unwrap();
        let error = case.undo(&target, &Trap::counting()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failure, "{error}");
        assert!(error.to_string().contains("is gone"), "{error}");
        fs::rename(&aside, &path).unwrap();
    }
    fs::remove_dir_all(target.path(".pg_unfork/undo")).unwrap();
    assert!(case.undo(&target, &Trap::counting()).is_err());
    let _ = case.apply(&target, &Trap::counting(), false).unwrap();
    case.assert_applied(&target);
    assert_eq!(case.undo(&target, &Trap::counting()).unwrap_err().kind(), ErrorKind::Precondition);
}

/// Before-images are looked at before an undo begins; without them the apply goes on only without a way back.
#[test]
fn damaged_images() {
    let case = Case::new(Major(18), From::Stopped);
    let target = almost_applied(&case);
    damage(&target, ".pg_unfork/undo/images");
    let error = case.undo(&target, &Trap::counting()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failure, "{error}");
    assert!(error.to_string().contains("damaged at byte"), "{error}");
    let condition = condition(&mut case.trapped_store(&target, &Trap::counting()), &control(&target)).unwrap();
    assert_eq!(condition, pg_unfork::apply::Condition::Applying);
    assert_eq!(case.apply(&target, &Trap::counting(), true).unwrap_err().kind(), ErrorKind::Incomplete);
    let _ = case.apply(&target, &Trap::counting(), false).unwrap();
    case.assert_applied(&target);
}

/// With a damaged journal one can only go back, all the way: `backup_label`, too.
#[test]
fn a_damaged_journal() {
    let case = Case::new(Major(16), From::Stopped);
    let target = almost_applied(&case);
    assert!(target.path("backup_label").exists());
    damage(&target, ".pg_unfork/journal");
    assert_eq!(case.apply(&target, &Trap::counting(), true).unwrap_err().kind(), ErrorKind::DeadEnd);
    let _ = case.undo(&target, &Trap::counting()).unwrap();
    case.assert_as_before(&target);
}

/// The control file of before is put back by hand into a half-changed directory: that undoes nothing.
#[test]
fn the_seal_is_lifted_with_the_old_control_file() {
    let case = Case::new(Major(14), From::Stopped);
    let target = almost_applied(&case);
    fs::copy(target.path(".pg_unfork/pg_control.before"), target.path("global/pg_control")).unwrap();
    assert!(on(&target, "status").success().stdout.starts_with("tampered: "));
    assert_eq!(case.apply(&target, &Trap::counting(), true).unwrap_err().kind(), ErrorKind::DeadEnd);
    let _ = case.undo(&target, &Trap::counting()).unwrap();
    case.assert_as_before(&target);
}

/// Without its state directory a sealed target is not taken for an untouched one.
#[test]
fn the_state_is_gone() {
    let case = Case::new(Major(16), From::Stopped);
    let target = almost_applied(&case);
    fs::remove_dir_all(target.path(".pg_unfork")).unwrap();
    let status = on(&target, "status").success().stdout;
    assert!(status.starts_with("lost: ") && status.contains("base backup"), "{status}");
    assert_eq!(case.apply(&target, &Trap::counting(), true).unwrap_err().kind(), ErrorKind::Precondition);
}

/// A source that is not there keeps an apply from going on, and the exit code says that the target is half changed.
#[test]
fn going_on_without_a_source() {
    let Pair { source, target } = Pair::shared(Major(17)).copy();
    source.start();
    source.checkpoint();
    let other = target.duplicate();
    let plan = Plan::of(&target, Source::Server(&source, REWIND_USER), &[]);
    kill_sealed(&plan, &target);
    source.stop(Stop::Fast);
    let refused = plan.apply(&["--source-timeout", "0"]);
    assert_eq!(refused.status.code(), Some(5), "{refused}");
    assert!(refused.stderr.contains("target is sealed"), "{refused}");
    source.start();
    let applied = plan.apply(&[]).success();
    assert!(applied.stderr.contains("nothing is durable yet"), "{applied}");
    assert!(on(&target, "status").success().stdout.contains("durable: no"));
    // Begun without syncing, and ended with it.
    kill_sealed(&Plan::of(&other, Source::Server(&source, REWIND_USER), &[]), &other);
    let header = other.path(".pg_unfork/state.json");
    let text = fs::read_to_string(&header).unwrap();
    fs::write(&header, text.replace("\"durable\":true", "\"durable\":false")).unwrap();
    assert!(on(&other, "status").success().stdout.contains("durable: no"));
    let ended = on(&other, "apply").success();
    assert!(!ended.stderr.contains("nothing is durable yet"), "{ended}");
    assert!(!on(&other, "status").success().stdout.contains("durable: no"));
}

/// A log in the data directory can be larger than any setting; an apply that copied it is gone on with.
#[test]
fn a_large_log_is_no_setting() {
    let pair = Pair::shared(Major(13)).copy();
    fs::write(pair.source.path("server.log"), vec![b'x'; 17 << 20]).unwrap();
    let case = Case::of(pair, From::Stopped);
    let target = almost_applied(&case);
    let _ = case.apply(&target, &Trap::counting(), true).unwrap();
    case.assert_applied(&target);
}
