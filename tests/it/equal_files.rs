//! What both sides have is neither copied nor left to chance: equal files stay, equal blocks do, and nothing else.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::faults::{kill_sealed, on};
use crate::support::cluster::Cluster;
use crate::support::life::{assert_follows, assert_sound_at_rest};
use crate::support::likeness::From;
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::{Plan, pg_unfork};
use crate::support::tree::{self, Tree};
use crate::support::{for_each_major, workload::REWIND_USER};

for_each_major!(stopped_source, live_source);

const BLOCK: usize = 8192;

fn entries<'a>(plan: &'a Value, section: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    plan[section].as_array().unwrap().iter().map(|entry| (entry["path"].as_str().unwrap(), entry))
}

/// The first kept path that is equal and has this in it.
fn equal_path(plan: &Value, part: &str) -> String {
    let is_equal = |entry: &Value| entry["reason"] == "same_content";
    let found = entries(plan, "kept").find(|(path, entry)| is_equal(entry) && path.contains(part));
    found.unwrap_or_else(|| panic!("{part:?} is not kept: {:#}", plan["kept"])).0.to_owned()
}

fn stopped_source(major: Major) {
    let pair = Pair::shared(major).copy();
    let plan = Plan::of(&pair.target, Source::Directory(&pair.source), &[]).json();
    assert_only_differences_move(&pair, &plan, "same_content", |_| false);
}

/// What a live source still writes, or WAL does not tell of, is copied in any case.
fn live_source(major: Major) {
    let pair = Pair::shared(major).copy();
    pair.source.start();
    pair.source.checkpoint();
    let plan = Plan::of(&pair.target, Source::Server(&pair.source, REWIND_USER), &[]).json();
    assert_only_differences_move(&pair, &plan, "same_content", |path| path.starts_with("pg_wal/"));
}

/// Files that are copied differ, blocks that are copied differ, and what is not copied does not.
fn assert_only_differences_move(pair: &Pair, plan: &Value, reason: &str, other: impl Fn(&str) -> bool) {
    let read = |cluster: &Cluster, path: &str| fs::read(cluster.path(path)).unwrap();
    let (mut patched, mut equal) = (0, 0);
    for (path, action) in entries(plan, "actions").filter(|(path, action)| !action["before"].is_null() && !other(path))
    {
        let by_block = action["reason"] == "blocks_differ" || path.ends_with("_fsm") || path.ends_with("_vm");
        if action["kind"] == "copy_file" {
            assert!(read(&pair.target, path) != read(&pair.source, path), "{path} is copied and equal");
            assert!(!by_block && !path.starts_with("pg_xact/"), "{path}");
        } else if action["kind"] == "patch" && by_block {
            let (ours, theirs) = (read(&pair.target, path), read(&pair.source, path));
            let pairs = ours.chunks_exact(BLOCK).zip(theirs.chunks_exact(BLOCK)).enumerate();
            let differing: Vec<u64> = pairs.filter(|(_, (a, b))| a != b).map(|(block, _)| block as u64).collect();
            assert_eq!(blocks(action), differing, "{path}");
            patched += 1;
        }
    }
    for (path, kept) in entries(plan, "kept").filter(|(_, kept)| kept["reason"] == reason) {
        assert!(read(&pair.target, path) == read(&pair.source, path), "{path} is kept and differs");
        assert_eq!(kept["before"]["size"], kept["source"]["size"], "{path}");
        equal += 1;
    }
    assert!(patched > 0 && equal > 0, "{patched} patched, {equal} equal");
}

/// The blocks of a patch, one by one.
fn blocks(action: &Value) -> Vec<u64> {
    let ranges = action["blocks"].as_array().into_iter().flatten();
    let range = |range: &Value| (range[0].as_u64().unwrap(), range[1].as_u64().unwrap());
    ranges.map(range).flat_map(|(first, count)| first..first + count).collect()
}

/// A file that was equal and is not any more makes a plan stale, whichever side it is on.
#[test]
fn what_was_equal_must_stay() {
    let pair = Pair::shared(Major(16));
    type Move = fn(&Path);
    let moves: [(&str, Move); 4] = [
        // The size tells, or the time does.
        ("pg_hba.conf", |path| fs::write(path, "other").unwrap()),
        ("_vm", touch),
        ("pg_filenode.map", touch),
        ("pg_ident.conf", |path| fs::remove_file(path).unwrap()),
    ];
    for (part, make_move) in moves {
        for on_target in [true, false] {
            let Pair { source, target } = pair.copy();
            let plan = Plan::of(&target, Source::Directory(&source), &[]);
            let path = equal_path(&plan.json(), part);
            let (side, moved) = if on_target { ("target", &target) } else { ("source", &source) };
            make_move(&moved.path(&path));
            let before = Tree::of(&target);
            let outcome = plan.apply(&[]);
            assert_eq!(outcome.status.code(), Some(3), "{outcome}");
            let said = format!("the {side} has changed since the plan was made: {path}: ");
            assert!(outcome.stderr.contains(&said), "{said}\n{outcome}");
            assert_eq!(tree::diff(&before, &Tree::of(&target), &|_| false), [""; 0]);
        }
    }
}

/// The journal has what was skipped, and why; so has the status, also without the plan.
#[test]
fn what_was_skipped_is_journaled() {
    let Pair { source, target } = Pair::shared(Major(17)).copy();
    let plan = Plan::of(&target, Source::Directory(&source), &[]);
    let kept = plan.json()["kept"].as_array().unwrap().clone();
    assert!(!kept.is_empty());
    let _ = plan.apply(&[]).success();
    fs::remove_file(target.path(".pg_unfork/manifest.json")).unwrap();
    let status =
        |format| Outcome::of(pg_unfork(&["status", "--format", format, "-D"]).arg(target.data())).success().stdout;
    let json: Value = serde_json::from_str(&status("json")).unwrap();
    let mut paths = 0;
    for skipped in json["skipped"].as_array().unwrap() {
        let same: Vec<_> = kept.iter().filter(|kept| kept["reason"] == skipped["reason"]).collect();
        let bytes: u64 = same.iter().filter_map(|kept| kept["source"]["size"].as_u64()).sum();
        assert_eq!(
            (skipped["paths"].as_u64().unwrap(), skipped["bytes"].as_u64().unwrap()),
            (same.len() as u64, bytes)
        );
        paths += same.len();
    }
    assert_eq!(paths, kept.len());
    let text = status("text");
    assert!(text.contains(" that are the same on both sides: not copied ("), "{text}");
}

/// Writes a file again, as it is.
fn touch(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Whoever verifies an applied target looks at what was left, too.
#[test]
fn what_was_left_is_verified() {
    let Pair { source, target } = Pair::shared(Major(18)).copy();
    let plan = Plan::of(&target, Source::Directory(&source), &[]);
    let _ = plan.apply(&[]).success();
    let (touched, gone) = (equal_path(&plan.json(), "_fsm"), equal_path(&plan.json(), "pg_hba.conf"));
    touch(&target.path(&touched));
    fs::remove_file(target.path(&gone)).unwrap();
    let outcome = on(&target, "verify").failure();
    for text in [&*format!("{touched}: was left as it was, and was written to"), &*format!("{gone}: "), "2 differences"]
    {
        assert!(outcome.stderr.contains(text), "{text}\n{outcome}");
    }
}

/// An orchestrator rewrites settings that were equal while an apply is interrupted: what it wrote is kept aside.
#[test]
fn settings_that_somebody_rewrote_meanwhile() {
    let pair = Pair::shared(Major(14));
    let Pair { source, target } = pair.copy();
    let plan = Plan::of(&target, Source::Directory(&source), &[]);
    let path = equal_path(&plan.json(), "pg_hba.conf");
    kill_sealed(&plan, &target);
    fs::write(target.path(&path), "rewritten").unwrap();
    let _ = plan.apply(&[]).success();
    assert_eq!(fs::read(target.path(&path)).unwrap(), fs::read(source.path(&path)).unwrap());
    let _ = on(&target, "verify").success();
    let _ = on(&target, "undo").success();
    assert_eq!(fs::read(target.path(&path)).unwrap(), b"rewritten");
}

/// The same with a live source, whose settings have changed meanwhile, too: what was copied then is verified.
#[test]
fn settings_that_both_sides_rewrote_meanwhile() {
    for gone in [false, true] {
        let pair = Pair::shared(Major(17)).copy();
        pair.source.start();
        let plan = Plan::of(&pair.target, pair.source(From::Live), Pair::arguments(From::Live));
        let path = equal_path(&plan.json(), "pg_ident.conf");
        kill_sealed(&plan, &pair.target);
        fs::write(pair.target.path(&path), "rewritten").unwrap();
        if gone {
            fs::remove_file(pair.source.path(&path)).unwrap();
        } else {
            fs::write(pair.source.path(&path), "# by the source's owner\n").unwrap();
        }
        let _ = plan.apply(&[]).success();
        assert_eq!(fs::read(pair.target.path(&path)).ok(), fs::read(pair.source.path(&path)).ok());
        let _ = on(&pair.target, "verify").success();
        fs::write(pair.target.path(&path), "# by another owner").unwrap();
        let _ = on(&pair.target, "verify").failure();
        let _ = on(&pair.target, "undo").success();
        assert_eq!(fs::read(pair.target.path(&path)).unwrap(), b"rewritten");
    }
}

/// With the journal damaged an undo presumes what the last steps did; it must not take settings that were equal for
/// something that was not there.
#[test]
fn equal_settings_outlive_an_undo_without_a_journal() {
    let pair = Pair::shared(Major(15)).copy();
    fs::copy(pair.source.path("postgresql.auto.conf"), pair.target.path("postgresql.auto.conf")).unwrap();
    pair.source.start();
    let before = Tree::of(&pair.target);
    let plan = Plan::of(&pair.target, pair.source(From::Live), Pair::arguments(From::Live));
    let _ = equal_path(&plan.json(), "postgresql.auto.conf");
    kill_sealed(&plan, &pair.target);
    let journal = pair.target.path(".pg_unfork/journal");
    let mut bytes = fs::read(&journal).unwrap();
    bytes[20] ^= 1;
    fs::write(&journal, bytes).unwrap();
    let _ = on(&pair.target, "undo").success();
    assert_eq!(tree::diff(&before, &Tree::of(&pair.target), &tree::is_own_state), [""; 0]);
}

/// Settings that the last steps overwrote cannot be put back once somebody has removed what was kept of them.
#[test]
fn what_was_kept_of_settings_is_gone() {
    let pair = Pair::shared(Major(18)).copy();
    fs::copy(pair.source.path("postgresql.auto.conf"), pair.target.path("postgresql.auto.conf")).unwrap();
    pair.source.start();
    let plan = Plan::of(&pair.target, pair.source(From::Live), &["-R"]);
    let _ = equal_path(&plan.json(), "postgresql.auto.conf");
    let _ = plan.apply(&[]).success();
    let after = Tree::of(&pair.target);
    let kept = fs::read_dir(pair.target.path(".pg_unfork/undo")).unwrap().map(|entry| entry.unwrap().path());
    let extras: Vec<_> = kept.filter(|path| path.to_string_lossy().contains("/extra.")).collect();
    assert!(!extras.is_empty());
    for extra in extras {
        let aside = pair.target.path("aside");
        fs::rename(&extra, &aside).unwrap();
        let outcome = on(&pair.target, "undo").failure();
        assert!(outcome.stderr.contains("is gone"), "{outcome}");
        fs::rename(&aside, &extra).unwrap();
    }
    assert_eq!(tree::diff(&after, &Tree::of(&pair.target), &tree::is_own_state), [""; 0]);
    let _ = on(&pair.target, "undo").success();
}

/// Maps, transaction state and settings that were equal when the plan was made, and that a live source then changes:
/// replay makes the first two good, the settings stay as they were.
#[test]
fn what_a_live_source_changes_after_the_plan() {
    let pair = Pair::simple(Major(17), |builder| {
        builder.before_backup(|primary| {
            primary.sql(
                "postgres",
                "CREATE TABLE mapped AS SELECT g, repeat('x', 300) AS v FROM generate_series(1, 3000) g",
            );
            primary.sql("postgres", "CREATE INDEX ON mapped (g)");
            primary.sql("postgres", "VACUUM (FREEZE) mapped");
        })
    });
    let Pair { source, target } = &pair;
    source.checkpoint();
    let plan = Plan::of(target, pair.source(From::Live), Pair::arguments(From::Live));
    let node = source.sql("postgres", "SELECT pg_relation_filepath('mapped')");
    for fork in ["_vm", "_fsm"] {
        let path = equal_path(&plan.json(), &format!("{node}{fork}"));
        assert_eq!(path, format!("{node}{fork}"));
    }
    let settings = fs::read(target.path("pg_ident.conf")).unwrap();
    assert_eq!(equal_path(&plan.json(), "pg_ident.conf"), "pg_ident.conf");
    source.sql("postgres", "DELETE FROM mapped WHERE g % 7 = 0 OR g > 2500");
    source.sql("postgres", "INSERT INTO mapped SELECT g, 'new' FROM generate_series(5001, 6000) g");
    source.sql("postgres", "VACUUM mapped");
    source.sql("postgres", "UPDATE mapped SET v = 'later' WHERE g % 5 = 0");
    source.sql("postgres", "DO $$ BEGIN FOR i IN 1..40000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$");
    source.checkpoint();
    fs::write(source.path("pg_ident.conf"), "# later\n").unwrap();
    let _ = plan.apply(&[]).success();
    assert_eq!(fs::read(target.path("pg_ident.conf")).unwrap(), settings);
    source.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
    assert_follows(target, source);
    assert_sound_at_rest(target);
}
