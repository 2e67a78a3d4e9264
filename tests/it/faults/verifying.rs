//! What an apply has left is proven; what is not as it was left is found and named.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use pg_unfork::io::{Lock, LockKind};
use serde_json::Value;

use super::kills::{assert_refused, kill_sealed};
use super::on;
use crate::support::cluster::{Cluster, InitOptions, Stop};
use crate::support::for_each_major;
use crate::support::likeness::From;
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::servers::Major;
use crate::support::stock::{self, Source};
use crate::support::tool::{Plan, pg_unfork};
use crate::support::tree::{self, Tree, modification_times};

for_each_major!(stopped_source, live_source);

fn stopped_source(major: Major) {
    verify_until_a_server_runs(major, From::Stopped);
}

fn live_source(major: Major) {
    verify_until_a_server_runs(major, From::Live);
}

/// A copy of the shared pair, its source as it is read.
fn pair(major: Major, from: From) -> Pair {
    let pair = Pair::shared(major).copy();
    if from == From::Live {
        pair.source.start();
        pair.source.checkpoint();
    }
    pair
}

fn plan(pair: &Pair, from: From) -> Plan {
    Plan::of(&pair.target, pair.source(from), Pair::arguments(from))
}

/// Applies without looking at what comes of it.
#[track_caller]
fn apply(plan: &Plan) {
    let _ = Outcome::of(pg_unfork(&["apply", "--no-sync"]).arg(plan.path())).success();
}

/// What is applied is verified, with nothing written; once a server has run there is nothing to compare.
fn verify_until_a_server_runs(major: Major, from: From) {
    let pair = pair(major, from);
    let target = &pair.target;
    let plan = plan(&pair, from);
    assert_refused(&on(target, "verify"), 4, "the target is untouched");
    apply(&plan);
    let (before, times) = (Tree::of(target), modification_times(target));
    let verified = on(target, "verify").success();
    assert!(verified.stderr.contains("is what the apply left") && verified.stdout.is_empty(), "{verified}");
    assert!(!verified.stderr.contains("torn") && !verified.stderr.contains("checksums are off"), "{verified}");
    assert_eq!(tree::diff(&before, &Tree::of(target), &|_| false), [""; 0]);
    assert_eq!(tree::different_times(&times, &modification_times(target)), [""; 0]);
    if from == From::Stopped {
        pair.source.start();
        target.follow(&pair.source);
    }
    pair.source.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
    target.start();
    pair.source.wait_for_streaming();
    assert_refused(&on(target, "verify"), 4, "superseded");
    target.stop(Stop::Fast);
    assert_refused(&on(target, "verify"), 4, "superseded");
}

/// A killed apply is no applied one, until it was gone on with; an undone one is none any more.
#[test]
fn other_conditions() {
    let Pair { source, target } = Pair::shared(Major(17)).copy();
    let plan = Plan::of(&target, Source::Directory(&source), &[]);
    let other = Plan::of(&target, Source::Directory(&source), &[]);
    kill_sealed(&plan, &target);
    let refused = on(&target, "verify");
    assert_refused(&refused, 4, "the target is applying");
    assert_refused(&refused, 4, "pg_unfork apply -D");
    let _ = on(&target, "apply").success();
    let _ = on(&target, "verify").success();
    let _ = Outcome::of(pg_unfork(&["verify"]).arg(plan.path())).success();
    // The same plan, made twice, but for when.
    let _ = Outcome::of(pg_unfork(&["verify"]).arg(other.path())).success();
    let mut edited = plan.json();
    edited["tool"]["version"] = Value::from("0.0.0");
    other.rewrite(edited);
    assert_refused(&Outcome::of(pg_unfork(&["verify"]).arg(other.path())), 3, "another one");
    let lock = Lock::take(&target.data(), LockKind::Exclusive).unwrap();
    assert_refused(&on(&target, "verify"), 4, "another pg_unfork is at work");
    drop(lock);
    let control = fs::read(target.path("global/pg_control")).unwrap();
    let changed = pg_unfork::format::ControlFile::parse(&control).unwrap().with_time(7);
    fs::write(target.path("global/pg_control"), changed.as_bytes()).unwrap();
    assert_refused(&on(&target, "verify"), 4, "superseded");
    fs::write(target.path("global/pg_control"), control).unwrap();
    let journal = fs::read(target.path(".pg_unfork/journal")).unwrap();
    flip(target.path(".pg_unfork/journal"), 20);
    assert_refused(&on(&target, "verify"), 4, "the journal of the apply");
    fs::write(target.path(".pg_unfork/journal"), journal).unwrap();
    let _ = on(&target, "undo").success();
    assert_refused(&on(&target, "verify"), 4, "the target is undone");
}

/// WAL that a live source wrote after the plan is proven by its own checksums.
#[test]
fn the_last_wal() {
    let pair = pair(Major(16), From::Live);
    let plan = plan(&pair, From::Live);
    pair.source.sql("postgres", "CREATE TABLE late AS SELECT g FROM generate_series(1, 1000) g");
    let last = pair.source.sql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())");
    let offset: u64 = pair
        .source
        .sql("postgres", "SELECT file_offset FROM pg_walfile_name_offset(pg_current_wal_lsn())")
        .parse()
        .unwrap();
    apply(&plan);
    let _ = on(&pair.target, "verify").success();
    let segment = pair.target.path(format!("pg_wal/{last}"));
    flip(segment.clone(), offset - 3000);
    assert_refused(&on(&pair.target, "verify"), 1, &last);
    flip(segment, offset - 3000);
    let _ = on(&pair.target, "verify").success();
}

/// The actions of a plan.
fn actions(plan: &Value) -> Vec<&Value> {
    plan["actions"].as_array().unwrap().iter().collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The largest file of a kind and place.
fn largest<'a>(plan: &'a Value, kind: &str, place: &str) -> &'a Value {
    let of_kind = actions(plan).into_iter().filter(|a| a["kind"] == kind && text(&a["path"]).starts_with(place));
    of_kind.max_by_key(|action| action["after"]["size"].as_u64()).unwrap()
}

/// A block that a plan copies into a file of `base` that both have: path, block.
fn patched_block(plan: &Value) -> (String, u64) {
    let of_relation = |a: &&Value| a["reason"] == "changed_on_target" && text(&a["path"]).starts_with("base/");
    let patched = actions(plan).into_iter().filter(of_relation);
    let action = patched.max_by_key(|a| a["blocks"].as_array().unwrap().len()).unwrap();
    let range = action["blocks"].as_array().unwrap().last().unwrap();
    (text(&action["path"]).to_owned(), range[0].as_u64().unwrap())
}

/// Changes one bit of a file.
fn flip(path: PathBuf, at: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

/// Verifies a damaged target: each text must be in what is said. Then puts it back.
#[track_caller]
fn assert_found(target: &Cluster, path: &str, damage: impl FnOnce(PathBuf), texts: &[&str]) {
    let full = target.path(path);
    let before = fs::read(&full).ok();
    damage(full.clone());
    let outcome = on(target, "verify");
    if full.is_dir() {
        fs::remove_dir(&full).unwrap();
    }
    match before {
        Some(content) => fs::write(full, content).unwrap(),
        None => fs::remove_file(full).unwrap(),
    }
    for text in texts.iter().chain(&[path, "the target is not sound: 1 difference, 0 bad pages"]) {
        assert_refused(&outcome, 1, text);
    }
    assert!(!outcome.stderr.contains("verified"), "{outcome}");
}

/// Damage that both kinds of source have in common.
fn assert_damage_is_found(target: &Cluster, plan: &Value) {
    let (relation, block) = patched_block(plan);
    let in_block = format!("; block {block}: page checksum");
    assert_found(target, &relation, |path| flip(path, block * 8192 + 4000), &["not those that were copied", &in_block]);
    assert_found(target, &relation, |path| flip(path, block * 8192 + 9), &["not those that were copied", &in_block]);
    let zeros = |path: PathBuf| {
        fs::File::options().write(true).open(path).unwrap().write_all_at(&[0; 8192], block * 8192).unwrap();
    };
    // A block of zeros is a good page, and still not what was copied.
    assert_found(target, &relation, zeros, &["not those that were copied"]);
    for place in ["base/", "pg_wal/"] {
        let path = text(&largest(plan, "copy_file", place)["path"]).to_owned();
        if !(place == "pg_wal/" && plan["recovery"].is_object()) {
            assert_found(target, &path, |path| flip(path, 777), &["bytes 0 to", "not those that were copied"]);
        }
        let size = fs::metadata(target.path(&path)).unwrap().len();
        let cut = |path: PathBuf| fs::File::options().write(true).open(path).unwrap().set_len(size - 1).unwrap();
        let lengths = format!("has {} bytes, expected {size}", size - 1);
        assert_found(target, &path, cut, &[&lengths]);
        let grow = |path: PathBuf| fs::File::options().write(true).open(path).unwrap().set_len(size + 1).unwrap();
        assert_found(target, &path, grow, &["bytes, expected"]);
        assert_found(target, &path, |path| fs::remove_file(path).unwrap(), &["is not there"]);
        let directory = |path: PathBuf| fs::remove_file(&path).and_then(|()| fs::create_dir(path)).unwrap();
        assert_found(target, &path, directory, &["is another directory than the plan has"]);
    }
    let gone = actions(plan).into_iter().find(|a| a["kind"] == "remove" && text(&a["path"]).starts_with("base/"));
    let back = |path: PathBuf| fs::write(path, "back").unwrap();
    assert_found(target, text(&gone.unwrap()["path"]), back, &["was removed, and a file is there"]);
    let edit = |path: PathBuf, from: &str, to: &str| {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).unwrap();
    };
    let moved = |path: PathBuf| edit(path, "CHECKPOINT LOCATION: 0/", "CHECKPOINT LOCATION: 1/");
    assert_found(target, "backup_label", moved, &["CHECKPOINT LOCATION: 1/", "expected"]);
    assert_found(target, "backup_label", |path| edit(path, "standby", "primary"), &["BACKUP FROM: primary"]);
    assert_found(target, "backup_label", |path| fs::remove_file(path).unwrap(), &["is not there"]);
    edit(target.path("backup_label"), "START TIME: 2", "START TIME: 1");
    let _ = on(target, "verify").success();
}

#[test]
fn damage_after_an_apply_from_a_stopped_source() {
    let pair = pair(Major(18), From::Stopped);
    let plan = plan(&pair, From::Stopped);
    apply(&plan);
    assert_damage_is_found(&pair.target, &plan.json());
}

#[test]
fn damage_after_an_apply_from_a_live_source() {
    let pair = pair(Major(14), From::Live);
    let target = &pair.target;
    let plan = plan(&pair, From::Live);
    apply(&plan);
    assert_damage_is_found(target, &plan.json());
    let settings = "postgresql.auto.conf";
    let append = |path: PathBuf| crate::support::cluster::append(&path, "port = 1\n");
    assert_found(target, settings, append, &["does not end with \"primary_conninfo = "]);
    let prepend = |path: PathBuf| fs::write(&path, [b"x = 1\n", &*fs::read(&path).unwrap()].concat()).unwrap();
    assert_found(target, settings, prepend, &["is not what was copied"]);
    let signal = "standby.signal";
    assert_found(target, signal, |path| fs::remove_file(path).unwrap(), &["is not there"]);
    assert_found(target, signal, |path| fs::write(path, "x").unwrap(), &["has 1 byte"]);
}

/// All at once, of which the first ones are shown and all are counted.
#[test]
fn everything_at_once() {
    let pair = pair(Major(15), From::Stopped);
    let target = &pair.target;
    let plan = plan(&pair, From::Stopped);
    apply(&plan);
    let plan = plan.json();
    let copied: Vec<_> = actions(&plan).into_iter().filter(|action| action["kind"] == "copy_file").take(57).collect();
    for action in &copied {
        fs::remove_file(target.path(text(&action["path"]))).unwrap();
    }
    let outcome = on(target, "verify");
    assert_refused(&outcome, 1, &format!("{} differences", copied.len()));
    assert_refused(&outcome, 1, &format!("difference: and {} more", copied.len() - 20));
    assert_refused(&outcome, 1, "pg_unfork undo");
    assert_eq!(outcome.stderr.matches(": is not there").count(), 20, "{outcome}");
}

/// A page that is bad on a stopped source arrives bad, with us as with stock; nobody could tell but by its checksum.
#[test]
fn bad_pages_of_a_stopped_source() {
    let Pair { source, target } = Pair::shared(Major(16)).copy();
    let (relation, block) = patched_block(&Plan::of(&target, Source::Directory(&source), &[]).json());
    flip(source.path(&relation), block * 8192 + 5000);
    let checksums =
        Outcome::of(source.installation().command("pg_checksums").args(["--check", "-D"]).arg(source.data()));
    let seen = format!("{relation}\", block {block}:");
    assert!(checksums.stderr.contains(&seen) && !checksums.status.success(), "{checksums}");
    let plan = Plan::of(&target, Source::Directory(&source), &[]);
    let stock_target = target.duplicate();
    apply(&plan);
    let _ = stock::rewind(&stock_target, Source::Directory(&source), &[]).success();
    assert_eq!(fs::read(target.path(&relation)).unwrap(), fs::read(stock_target.path(&relation)).unwrap());
    let outcome = on(&target, "verify");
    assert_refused(&outcome, 1, &format!("bad page, copied as it was: {relation}: block {block}: page checksum"));
    assert_refused(&outcome, 1, "0 differences, 1 bad page of the source");
    assert_refused(&outcome, 1, "run pg_checksums there");
}

/// The same on a live source is a page that was being written, for all that anybody knows: replay repairs those.
#[test]
fn torn_pages_of_a_live_source() {
    let pair = pair(Major(13), From::Live);
    let plan = plan(&pair, From::Live);
    let (relation, block) = patched_block(&plan.json());
    flip(pair.source.path(&relation), block * 8192 + 5000);
    apply(&plan);
    let outcome = on(&pair.target, "verify").success();
    let torn = format!("torn page, which replay repairs: {relation}: block {block}: page checksum");
    assert!(outcome.stderr.contains(&torn) && outcome.stderr.contains("verified"), "{outcome}");
}

/// Without data checksums a page has none; the bytes are compared all the same.
#[test]
fn without_data_checksums() {
    let options = InitOptions { checksums: false, ..InitOptions::default() };
    let pair = Pair::simple(Major(19), |builder| builder.init(options).config("wal_log_hints = on\n"));
    pair.settle(From::Stopped);
    let plan = plan(&pair, From::Stopped);
    apply(&plan);
    let verified = on(&pair.target, "verify").success();
    assert!(verified.stderr.contains("data checksums are off"), "{verified}");
    let (relation, block) = patched_block(&plan.json());
    let outcome_of = |path| flip(path, block * 8192 + 4000);
    assert_found(&pair.target, &relation, outcome_of, &["are not those that were copied\n"]);
}

/// A directory in which something unknown is stays, and is said again.
#[test]
fn directories_that_are_left() {
    let Pair { source, target } = Pair::shared(Major(18)).copy();
    fs::create_dir_all(target.path("extra/deep")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(target.path("extra/deep/socket")).unwrap();
    let plan = Plan::of(&target, Source::Directory(&source), &[]);
    apply(&plan);
    let verified = on(&target, "verify").success();
    for path in ["extra", "extra/deep"] {
        let said = format!("directory left, because something unknown is inside: {path}\n");
        assert!(verified.stderr.contains(&said), "{verified}");
    }
}
