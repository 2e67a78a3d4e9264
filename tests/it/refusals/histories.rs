//! Timeline history files that are missing, malformed, or another cluster's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Untouched, assert_refused, is_unreadable, plan_pair, while_damaged};
use crate::support::cluster::Cluster;
use crate::support::pair::Pair;
use crate::support::servers::Major;

const FILE: &str = "pg_wal/00000002.history";

/// Each way in which a history file cannot be used; `pair` is such that `side` is on timeline 2.
fn check(pair: &Pair, side: &str, cluster: &Cluster) {
    let before = Untouched::of(pair);
    let path = cluster.path(FILE);
    let huge = format!("1\t0/3000000\t{}\n", "x".repeat(17 << 20));
    let named = format!("the {side}'s {FILE}");
    let contents = [
        ("x\t0/3000000\tno number\n", "line 1: no timeline number at the beginning"),
        ("0\t0/3000000\n", "line 1: no timeline number at the beginning"),
        ("4294967296\t0/3000000\n", "line 1: no timeline number at the beginning"),
        ("\n# fine\n1\n", "line 3: no switch position of the form X/X"),
        ("1\tabc\n", "line 1: no switch position of the form X/X"),
        ("1\t0/123456789\n", "line 1: no switch position of the form X/X"),
        ("1\t0/3000000\n1\t0/4000000\n", "line 2: timeline numbers do not rise"),
        ("2\t0/3000000\n", "line 1: an ancestor's number is not below the file's own timeline"),
        ("\u{0}\u{0}\u{0}", "line 1: no timeline number at the beginning"),
    ];
    for (content, problem) in contents {
        let outcome = while_damaged(&path, |path| fs::write(path, content).unwrap(), || plan_pair(pair));
        assert_refused(&outcome, 4, &[&named, problem, "IMPOSSIBLE"]);
    }
    let outcome = while_damaged(&path, |path| fs::write(path, &huge).unwrap(), || plan_pair(pair));
    assert_refused(&outcome, 4, &["00000002.history has more than 16777216 bytes"]);
    let outcome = while_damaged(&path, |path| fs::remove_file(path).unwrap(), || plan_pair(pair));
    assert_refused(&outcome, 4, &[&format!("the {side} is on timeline 2, but has no {FILE}"), "WAL archive"]);
    let directory = |path: &Path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    };
    assert_refused(&while_damaged(&path, directory, || plan_pair(pair)), 4, &[FILE, "s a directory"]);
    let lock = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    let (locked, outcome) = while_damaged(&path, lock, || (is_unreadable(&path), plan_pair(pair)));
    if locked {
        assert_refused(&outcome, 4, &[FILE, "ermission denied"]);
    }
    let outcome = while_damaged(&path, |path| fs::write(path, "").unwrap(), || plan_pair(pair));
    assert_refused(&outcome, 4, &["the histories of target and source share no timeline"]);
    let elsewhere = "1\t0/1000010\tnowhere\n";
    let outcome = while_damaged(&path, |path| fs::write(path, elsewhere).unwrap(), || plan_pair(pair));
    assert_refused(&outcome, 4, &["the target"]);
    let _ = plan_pair(pair).success();
    before.check();
}

#[test]
fn of_the_source() {
    let pair = Pair::shared(Major(17)).copy();
    check(&pair, "source", &pair.source);
}

#[test]
fn of_the_target() {
    let Pair { source, target } = Pair::shared(Major(14)).copy();
    let reversed = Pair { source: target, target: source };
    check(&reversed, "target", &reversed.target);
}
