//! An undo puts everything back, bit for bit.

use std::fs;
use std::os::unix::fs::symlink;

use super::on;
use crate::support::cluster::{Cluster, Stop};
use crate::support::for_each_major;
use crate::support::likeness::From;
use crate::support::pair::Pair;
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::Plan;
use crate::support::tree::{self, Tree, modification_times};
use crate::support::workload::REWIND_USER;

for_each_major!(stopped_source, live_source);

/// Undoes an apply, and compares with what was before.
#[track_caller]
fn assert_undone(target: &Cluster, before: &Tree, times: &tree::Times) {
    let undone = on(target, "undo").success();
    assert!(undone.stderr.contains("is as it was before the apply"), "{undone}");
    let changed = tree::diff(before, &Tree::of(target), &tree::is_own_state);
    assert_eq!(changed, [""; 0]);
    assert_eq!(tree::different_times(times, &modification_times(target)), [""; 0]);
    assert!(on(target, "status").success().stdout.starts_with("undone: "));
}

fn stopped_source(major: Major) {
    undo_and_apply_again(major, From::Stopped);
}

fn live_source(major: Major) {
    undo_and_apply_again(major, From::Live);
}

/// After an undo the target is what it was: it starts as the primary that it was, and the same plan can be applied
/// again.
fn undo_and_apply_again(major: Major, from: From) {
    let pair = Pair::shared(major).copy();
    if from == From::Live {
        pair.source.start();
        pair.source.checkpoint();
    }
    let Pair { source, target } = &pair;
    let (before, times) = (Tree::of(target), modification_times(target));
    let reader = if from == From::Live { Source::Server(source, REWIND_USER) } else { Source::Directory(source) };
    let plan = Plan::of(target, reader, Pair::arguments(from));
    let _ = plan.apply(&[]).success();
    assert!(on(target, "status").success().stdout.starts_with("applied: "));
    assert_undone(target, &before, &times);
    let again = on(target, "undo").success();
    assert!(again.stderr.contains("undone already"), "{again}");
    let copy = target.duplicate();
    copy.start();
    assert_eq!(copy.sql("postgres", "SELECT pg_is_in_recovery()"), "f");
    copy.stop(Stop::Fast);
    let _ = plan.apply(&[]).success();
    if from == From::Stopped {
        source.start();
        target.follow(source);
    }
    source.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
    target.start();
    source.wait_for_streaming();
    target.wait_for_catchup(source);
    target.stop(Stop::Fast);
    let refused = on(target, "undo");
    assert_eq!(refused.status.code(), Some(4), "{refused}");
    assert!(refused.stderr.contains("a server has run here since"), "{refused}");
    assert!(on(target, "status").success().stdout.starts_with("superseded: "));
    let cleaned = on(target, "clean");
    assert!(cleaned.status.success() || cleaned.stderr.contains("never archived"), "{cleaned}");
}

/// A link of the source to a directory is a link on the target, too: nothing behind it is anybody's to touch.
#[test]
fn links_are_not_followed() {
    let pair = Pair::shared(Major(18)).copy();
    let Pair { source, target } = &pair;
    // What another cluster keeps there, for its own undo.
    let elsewhere = pair.source.location("elsewhere");
    let foreign = elsewhere.join(".pg_unfork/undo/1");
    fs::create_dir_all(foreign.parent().unwrap()).unwrap();
    fs::write(&foreign, "theirs").unwrap();
    symlink(&elsewhere, source.path("link")).unwrap();
    symlink("leads/nowhere", source.path("dangling")).unwrap();
    let (before, times) = (Tree::of(target), modification_times(target));
    let plan = Plan::of(target, Source::Directory(source), &[]);
    let _ = plan.apply(&[]).success();
    assert!(target.path("dangling").is_symlink() && target.path("link").is_symlink());
    assert_undone(target, &before, &times);
    let _ = plan.apply(&[]).success();
    let _ = on(target, "clean").success();
    assert_eq!(fs::read_to_string(&foreign).unwrap(), "theirs");
}
