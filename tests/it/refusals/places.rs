//! Directories that are no clusters, clusters that are in use, and two that are one.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Untouched, assert_refused, is_unreadable, plan, plan_pair, while_damaged};
use crate::support::cluster::Stop;
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::scratch;
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::{Plan, pg_unfork};

/// What is no data directory is neither a target nor a source, for plan and for apply.
#[test]
fn not_a_data_directory() {
    let pair = Pair::shared(Major(13)).copy();
    let before = Untouched::of(&pair);
    let made = Plan::of(&pair.target, Source::Directory(&pair.source), &[]);
    let scratch = scratch::directory("odd");
    let at = |name: &str| scratch.path().join(name);
    fs::create_dir_all(at("empty")).unwrap();
    fs::write(at("file"), "x").unwrap();
    fs::create_dir_all(at("version")).unwrap();
    fs::write(at("version/PG_VERSION"), "13\n").unwrap();
    fs::create_dir_all(at("hollow/global")).unwrap();
    fs::write(at("hollow/PG_VERSION"), "13\n").unwrap();
    fs::create_dir_all(at("locked")).unwrap();
    fs::set_permissions(at("locked"), fs::Permissions::from_mode(0o000)).unwrap();
    let cases: [(PathBuf, &str); 6] = [
        (at("missing"), "cannot open data directory"),
        (at("file"), "is no PostgreSQL data directory"),
        (at("empty"), "is no PostgreSQL data directory"),
        (at("version"), "is no PostgreSQL data directory"),
        (at("hollow"), "is no PostgreSQL data directory"),
        (at("locked"), "cannot read"),
    ];
    for (place, message) in cases {
        if place.ends_with("locked") && !is_unreadable(&place) {
            continue;
        }
        let shown = place.display().to_string();
        let texts = [message, shown.as_str()];
        assert_refused(&plan(&place, pair.source.data()), 4, &texts);
        assert_refused(&plan(pair.target.data(), &place), 4, &texts);
        assert_refused(&apply(&made, "-D", &place), 4, &texts);
        assert_refused(&apply(&made, "--source-pgdata", &place), 4, &texts);
    }
    before.check();
    fs::set_permissions(at("locked"), fs::Permissions::from_mode(0o700)).unwrap();
}

fn apply(plan: &Plan, option: &str, place: &Path) -> Outcome {
    Outcome::of(pg_unfork(&["apply"]).arg(plan.path()).arg(option).arg(place))
}

/// One directory is not two clusters, whatever way leads to it; nor are two that share one, or of which
/// one lies in the other.
#[test]
fn target_and_source_are_one() {
    let pair = Pair::shared(Major(16)).copy();
    let before = Untouched::of(&pair);
    let data = pair.target.data();
    let scratch = scratch::directory("ways");
    let at = |name: &str| scratch.path().join(name);
    symlink(&data, at("link")).unwrap();
    symlink(pair.target.base(), at("parent")).unwrap();
    symlink(at("link"), at("second")).unwrap();
    for way in [data.clone(), data.join("."), data.join("base/.."), at("link"), at("second"), at("parent/data")] {
        let outcome = plan(&data, &way);
        assert_refused(&outcome, 4, &["separate_directories", "the target's data directory is the source's"]);
        assert_refused(&plan(&way, &data), 4, &["separate_directories"]);
    }
    before.check();
}

/// A tablespace or a pg_wal that both lead to.
#[test]
fn shared_locations() {
    let pair = Pair::shared(Major(17)).copy();
    let before = Untouched::of(&pair);
    let links = |cluster: &crate::support::cluster::Cluster| cluster.links();
    let (ours, theirs) = (links(&pair.target), links(&pair.source));
    let location = fs::read_link(&ours[0]).unwrap();
    let theirs = theirs.iter().find(|link| link.file_name() == ours[0].file_name()).unwrap();
    let name = format!("pg_tblspc/{}", ours[0].file_name().unwrap().to_str().unwrap());
    let share = |path: &Path| {
        fs::remove_file(path).unwrap();
        symlink(&location, path).unwrap();
    };
    let outcome = while_damaged(theirs, share, || plan_pair(&pair));
    assert_refused(&outcome, 4, &["separate_directories", &format!("the target's {name} is the source's {name}")]);
    let made = Plan::of(&pair.target, Source::Directory(&pair.source), &[]);
    let outcome = while_damaged(theirs, share, || made.apply(&[]));
    assert_refused(&outcome, 4, &[&format!("the target's {name} is the source's {name}")]);
    let into = |path: &Path| {
        fs::remove_file(path).unwrap();
        symlink(pair.target.path("base"), path).unwrap();
    };
    let outcome = while_damaged(theirs, into, || plan_pair(&pair));
    assert_refused(
        &outcome,
        4,
        &["separate_directories", &format!("the source's {name} lies inside the target's data directory")],
    );
    before.check();
}

/// A source inside of the target would be removed, a target inside of the source copied into itself.
#[test]
fn one_inside_the_other() {
    let pair = Pair::shared(Major(15)).copy();
    let (target, source) = (pair.target.data(), pair.source.data());
    let nested = target.join("nested");
    let moved = |from: &Path, to: &Path| fs::rename(from, to).unwrap();
    moved(&source, &nested);
    let outcome = plan(&target, &nested);
    let reversed = plan(&nested, &target);
    moved(&nested, &source);
    let inside = "the source's data directory lies inside the target's data directory";
    assert_refused(&outcome, 4, &["separate_directories", inside]);
    let inside = "the target's data directory lies inside the source's data directory";
    assert_refused(&reversed, 4, &["separate_directories", inside]);
}

/// A running server is never rewound, nor read as if it were at rest; the process is named.
#[test]
fn running_servers() {
    let pair = Pair::shared(Major(14)).copy();
    let made = Plan::of(&pair.target, Source::Directory(&pair.source), &[]);
    pair.target.start();
    let pid = fs::read_to_string(pair.target.path("postmaster.pid")).unwrap();
    let text = format!("a server is running on the target (process {})", pid.lines().next().unwrap());
    assert_refused(&plan_pair(&pair), 4, &[&text]);
    assert_refused(&made.apply(&[]), 4, &[&text]);
    assert_eq!(pair.target.sql("postgres", "SELECT 1"), "1", "the refused server goes on");
    pair.target.stop(Stop::Fast);
    let made = Plan::of(&pair.target, Source::Directory(&pair.source), &[]);
    pair.source.start();
    assert_refused(&plan_pair(&pair), 4, &["source state: in production", "--source-server"]);
    assert_refused(&made.apply(&[]), 3, &["source: SHA-256 of global/pg_control"]);
    pair.source.stop(Stop::Immediate);
    pair.target.start();
    pair.target.stop(Stop::Immediate);
    let outcome = plan_pair(&pair);
    assert_refused(&outcome, 4, &["target state: in production", "source state: in production", "IMPOSSIBLE"]);
}

/// `postmaster.pid` is judged as PostgreSQL does: while its process lives, whatever that is, and where it
/// names none, it is in the way; one whose process is gone is not.
#[test]
fn lock_files() {
    let pair = Pair::shared(Major(18)).copy();
    let mut other = Command::new("sleep").arg("600").spawn().unwrap();
    let living = other.id().to_string();
    let cases = [
        (format!("{living}\n/data\n"), format!("(process {living})")),
        (format!("-{living}\n"), format!("(process {living})")),
        (String::new(), "postmaster.pid names no process".to_owned()),
        ("garbage\n".to_owned(), "postmaster.pid names no process".to_owned()),
    ];
    for cluster in [&pair.target, &pair.source] {
        let lock_file = cluster.path("postmaster.pid");
        for (content, message) in &cases {
            fs::write(&lock_file, content).unwrap();
            assert_refused(&plan_pair(&pair), 4, &[message, "postmaster.pid"]);
            assert_eq!(fs::read_to_string(&lock_file).unwrap(), *content);
        }
        fs::remove_file(lock_file).unwrap();
    }
    other.kill().unwrap();
    other.wait().unwrap();
    for cluster in [&pair.target, &pair.source] {
        fs::write(cluster.path("postmaster.pid"), format!("{living}\n/data\n")).unwrap();
    }
    let made = Plan::of(&pair.target, Source::Directory(&pair.source), &[]);
    let _ = made.apply(&[]).success();
    assert!(!pair.target.is_running(), "the lock file of a crash is removed");
}
