//! Files and directories that cannot be written, are of another type than planned or than on the other side,
//! and locations of new tablespaces.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::Value;

use super::{Untouched, assert_refused, plan_pair, while_damaged};
use crate::support::cluster::{Cluster, Stop};
use crate::support::pair::Pair;
use crate::support::scratch;
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::Plan;
use crate::support::tree::{self, Tree};
use crate::support::workload::{BOTH_FILE, REWIND_USER};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The paths of a plan's actions of a kind.
fn paths_of(plan: &Plan, kind: &str) -> Vec<String> {
    let document = plan.json();
    let actions = document["actions"].as_array().unwrap().iter().filter(|action| action["kind"] == kind);
    actions.map(|action| action["path"].as_str().unwrap().to_owned()).collect()
}

/// What an apply could not write is said before the first write, all of it at once: files that are patched,
/// and directories in which files are replaced or removed.
#[test]
fn unwritable_files_and_directories() {
    let pair = Pair::shared(Major(15)).copy();
    let plan = Plan::of(&pair.target, Source::Directory(&pair.source), &[]);
    let patched = paths_of(&plan, "patch");
    let (files, rest) = patched.split_at(2);
    let directory = |path: &String| path.rsplit_once('/').unwrap().0.to_owned();
    let locked = rest.iter().map(directory).find(|parent| files.iter().all(|file| directory(file) != *parent));
    let locked = locked.expect("patched files in another directory");
    files.iter().for_each(|file| set_mode(&pair.target.path(file), 0o400));
    set_mode(&pair.target.path(&locked), 0o500);
    let before = Untouched::of(&pair);
    // Capabilities may let these tests write what the mode forbids.
    if fs::OpenOptions::new().append(true).open(pair.target.path(&files[0])).is_err() {
        let first = format!("{}: it is not writable", files[0]);
        let second = format!("{}: it is not writable", files[1]);
        let texts =
            ["the target cannot be changed", &first, &second, &format!("{locked}/"), "its directory is not writable"];
        assert_refused(&plan.apply(&[]), 4, &texts);
        let (refused, outcome) = Plan::make(&pair.target, Source::Directory(&pair.source), &[]);
        assert_refused(&outcome, 4, &["FAILED: writable", "the target cannot be changed"]);
        let checks = refused.json()["checks"].as_array().unwrap().clone();
        let evidence = checks.iter().find(|check| check["id"] == "writable").unwrap()["evidence"].to_string();
        assert!([&first, &second, &format!("{locked}/")].iter().all(|text| evidence.contains(*text)), "{evidence}");
    }
    before.check();
    set_mode(&pair.target.path(&locked), 0o700);
    files.iter().for_each(|file| set_mode(&pair.target.path(file), 0o600));
    let _ = plan.apply(&[]).success();
}

/// Where an apply writes besides what its actions name: state directories, backup_label, recovery settings.
#[test]
fn unwritable_roots() {
    let pair = Pair::shared(Major(16)).copy();
    pair.source.start();
    let plan = Plan::of(&pair.target, Source::Server(&pair.source, REWIND_USER), &["-R"]);
    let before = Tree::of(&pair.target);
    let location = fs::read_link(&pair.target.links()[0]).unwrap();
    for (directory, texts) in [
        (
            pair.target.data(),
            [".pg_unfork: its directory is not writable", "backup_label: its", "postgresql.auto.conf: its"],
        ),
        (location, ["pg_tblspc/", "/.pg_unfork: its directory is not writable", "the target cannot be changed"]),
    ] {
        let mode = fs::metadata(&directory).unwrap().permissions().mode();
        set_mode(&directory, 0o500);
        let probe = directory.join("probe");
        let may_write = fs::write(&probe, "").is_ok();
        if !may_write {
            assert_refused(&plan.apply(&[]), 4, &texts);
        }
        set_mode(&directory, mode);
        let _ = fs::remove_file(probe);
    }
    assert_eq!(tree::diff(&before, &Tree::of(&pair.target), &|_| false), [""; 0]);
    let _ = plan.apply(&[]).success();
}

/// What the source cannot deliver is known before the first write.
#[test]
fn files_that_the_source_cannot_read() {
    let pair = Pair::shared(Major(13)).copy();
    let unreadable = pair.source.path(BOTH_FILE);
    set_mode(&unreadable, 0o000);
    if fs::File::open(&unreadable).is_ok() {
        return;
    }
    let plan = Plan::of(&pair.target, Source::Directory(&pair.source), &[]);
    let before = Tree::of(&pair.target);
    assert_refused(&plan.apply(&[]), 4, &["the source cannot be read whole", BOTH_FILE, "ermission denied"]);
    pair.source.start();
    let live = Plan::of(&pair.target, Source::Server(&pair.source, REWIND_USER), &[]);
    assert_refused(&live.apply(&[]), 4, &["the source cannot be read whole", BOTH_FILE, "ermission denied"]);
    assert_eq!(tree::diff(&before, &Tree::of(&pair.target), &|_| false), [""; 0]);
    set_mode(&unreadable, 0o600);
    let _ = live.apply(&[]).success();
}

/// One path, two types: all such paths are said at once.
#[test]
fn sides_that_contradict_each_other() {
    let pair = Pair::shared(Major(16)).copy();
    let make = |cluster: &Cluster, name: &str, kind: &str| {
        let path = cluster.path(name);
        match kind {
            "file" => fs::write(path, "x").unwrap(),
            "directory" => fs::create_dir(path).unwrap(),
            _ => symlink("PG_VERSION", path).unwrap(),
        }
    };
    let kinds = ["file", "directory", "symlink"];
    let mut texts = Vec::new();
    for ours in kinds {
        for theirs in kinds.into_iter().filter(|theirs| *theirs != ours) {
            let name = format!("odd_{ours}_{theirs}");
            make(&pair.target, &name, ours);
            make(&pair.source, &name, theirs);
            texts.push(format!("{name} is a {ours} on the target and a {theirs} on the source"));
        }
    }
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let before = Untouched::of(&pair);
    assert_refused(&plan_pair(&pair), 4, &texts);
    before.check();
}

/// A relation's file that is none, on either side.
#[test]
fn relations_that_are_no_files() {
    let pair = Pair::shared(Major(18)).copy();
    let before = Untouched::of(&pair);
    let relation = &paths_of(&Plan::of(&pair.target, Source::Directory(&pair.source), &[]), "patch")[0];
    let to_directory = |path: &Path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    };
    let to_link = |path: &Path| {
        fs::remove_file(path).unwrap();
        symlink("PG_VERSION", path).unwrap();
    };
    for cluster in [&pair.target, &pair.source] {
        let outcome = while_damaged(&cluster.path(relation), to_directory, || plan_pair(&pair));
        assert_refused(&outcome, 4, &[relation, "directory"]);
        let outcome = while_damaged(&cluster.path(relation), to_link, || plan_pair(&pair));
        assert_refused(&outcome, 4, &[relation, "symlink"]);
    }
    before.check();
}

/// What changes its type between plan and apply makes the plan stale.
#[test]
fn types_that_changed_since() {
    let pair = Pair::shared(Major(14)).copy();
    let before = Untouched::of(&pair);
    let plan = Plan::of(&pair.target, Source::Directory(&pair.source), &[]);
    let outside = scratch::directory("outside");
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let secret = outside.path().join("secret");
    let to_link = |path: &Path| {
        fs::remove_file(path).unwrap();
        symlink(&secret, path).unwrap();
    };
    let to_directory = |path: &Path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    };
    for kind in ["patch", "copy_file", "remove"] {
        let document = plan.json();
        let mut actions = document["actions"].as_array().unwrap().iter();
        let on_target = |action: &&Value| action["kind"] == kind && action["before"]["size"].is_number();
        let path = actions.find(on_target).unwrap()["path"].as_str().unwrap();
        for cluster in [&pair.target, &pair.source].iter().take(if kind == "remove" { 1 } else { 2 }) {
            let outcome = while_damaged(&cluster.path(path), to_link, || plan.apply(&[]));
            assert_refused(&outcome, 3, &["has changed since the plan was made", path, "no regular file"]);
            let outcome = while_damaged(&cluster.path(path), to_directory, || plan.apply(&[]));
            assert_refused(&outcome, 3, &["has changed since the plan was made", path, "no regular file"]);
        }
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    before.check();
}

/// Where a new tablespace is to be: there, ours, a directory, and empty.
#[test]
fn locations_of_new_tablespaces() {
    let pair = Pair::simple(Major(17), |builder| {
        builder.on_source_after_fork(|source| {
            let location = source.location("new");
            source.sql("postgres", &format!("CREATE TABLESPACE new LOCATION '{}'", location.display()));
        })
    });
    let location = pair.source.location("new");
    let away = pair.source.base().join("away");
    pair.source.checkpoint();
    let live = || Plan::make(&pair.target, Source::Server(&pair.source, REWIND_USER), &["-R"]);
    fs::rename(&location, &away).unwrap();
    fs::create_dir(&location).unwrap();
    let plan = live().0;
    let before = Tree::of(&pair.target);
    let shown = format!("tablespace location {}", location.display());
    let refuse = |texts: &[&str]| {
        let hint = "create it as an empty directory owned by this user";
        assert_refused(&plan.apply(&[]), 4, &[&[&shown, hint], texts].concat());
    };
    fs::write(location.join("x"), "x").unwrap();
    refuse(&["is not empty"]);
    assert_refused(&live().1, 4, &["FAILED: tablespaces", &shown, "is not empty"]);
    fs::remove_dir_all(&location).unwrap();
    refuse(&["cannot be opened", "No such file"]);
    fs::write(&location, "x").unwrap();
    refuse(&["cannot be opened", "Not a directory"]);
    fs::remove_file(&location).unwrap();
    symlink(&location, &location).unwrap();
    refuse(&["cannot be opened", "symbolic links"]);
    fs::remove_file(&location).unwrap();
    symlink(pair.target.path("base"), &location).unwrap();
    refuse(&[]);
    fs::remove_file(&location).unwrap();
    assert_eq!(tree::diff(&before, &Tree::of(&pair.target), &|_| false), [""; 0]);
    fs::rename(&away, &location).unwrap();
    pair.source.stop(Stop::Fast);
    let (stopped, outcome) = Plan::make(&pair.target, Source::Directory(&pair.source), &[]);
    assert_refused(&outcome, 4, &[&shown, "is not empty"]);
    let document = stopped.json();
    assert_eq!((&document["verdict"], &document["applyable"]), (&Value::from("impossible"), &Value::from(false)));
    assert!(document["actions"].as_array().unwrap().len() > 1, "what it would do is said all the same");
    assert_refused(&stopped.apply(&[]), 4, &["cannot be applied"]);
    assert_eq!(tree::diff(&before, &Tree::of(&pair.target), &|_| false), [""; 0]);
}

/// A tablespace of the target whose location is gone since the plan, or leads elsewhere.
#[test]
fn locations_that_changed_since() {
    let pair = Pair::shared(Major(19)).copy();
    let plan = Plan::of(&pair.target, Source::Directory(&pair.source), &[]);
    let link = pair.target.links().remove(0);
    let name = format!("pg_tblspc/{}", link.file_name().unwrap().to_str().unwrap());
    let location = fs::read_link(&link).unwrap();
    let before = Untouched::of(&pair);
    let away = pair.target.base().join("away");
    fs::rename(&location, &away).unwrap();
    assert_refused(&plan.apply(&[]), 4, &[&name, "cannot be opened", "mount or restore"]);
    fs::remove_file(&link).unwrap();
    symlink(&away, &link).unwrap();
    assert_refused(&plan.apply(&[]), 3, &[&name, "does not any more", "fresh plan", "that is: pg_unfork plan -D "]);
    fs::remove_file(&link).unwrap();
    symlink(&location, &link).unwrap();
    fs::rename(&away, &location).unwrap();
    before.check();
}
