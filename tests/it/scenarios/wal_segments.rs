//! Which WAL, and what else, is left in `pg_wal` on each side.

use std::cell::RefCell;
use std::fs;
use std::process::{Child, Stdio};

use pg_unfork::types::Lsn;
use serde_json::{Value, json};

use super::histories::{insert, lsn, primary, standby_of};
use super::scenarios;
use crate::support::cluster::{Cluster, InitOptions, Stop};
use crate::support::likeness::From;
use crate::support::pair::Pair;
use crate::support::scratch;
use crate::support::servers::Major;
use crate::support::stock;
use crate::support::tool::Plan;
use crate::support::tree::{self, Tree};

scenarios! {
    recycled: v13 Stopped, v18 Live;
    archived: v14 Stopped, v16 Live;
    archived_by_the_target_no_more: v18 Stopped, v15 Live;
    summarized: v19 Stopped, v17 Live;
    dropped_by_the_source: v17 Stopped, v15 Live;
    missing_on_the_target: v15 Stopped, v19 Live;
    lengthened_on_the_target: v19 Stopped, v13 Live;
    redo_far_behind: v16 Stopped, v14 Live;
    checkpoint_in_progress: v13 Stopped, v17 Live;
    checkpoint_on_an_older_timeline: v14 Stopped, v18 Live;
}

/// The names of the entries of a directory, in order.
fn names(cluster: &Cluster, directory: &str) -> Vec<String> {
    let entries = fs::read_dir(cluster.path(directory)).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The paths of `pg_wal` that the plan removes, or keeps.
fn paths<'a>(plan: &'a Value, list: &'a str, reason: &'a str) -> Vec<&'a str> {
    let entries = plan[list].as_array().unwrap().iter().filter(move |entry| entry["reason"] == reason);
    entries.map(|entry| entry["path"].as_str().unwrap()).filter(|path| path.starts_with("pg_wal/")).collect()
}

/// Fills some segments.
fn fill_segments(cluster: &Cluster) {
    for _ in 0..5 {
        cluster
            .sql("postgres", "SELECT pg_logical_emit_message(false, 'filler', repeat('x', 600000)), pg_switch_wal()");
    }
}

/// Old segments wait under names to come, with their old content, on both sides.
fn recycled(major: Major, from: From) {
    let fill_and_recycle = |cluster: &Cluster| {
        fill_segments(cluster);
        cluster.checkpoint();
    };
    let pair = Pair::simple(major, |builder| {
        builder
            .config("wal_keep_size = 6MB\nmin_wal_size = 16MB\n")
            .before_fork(fill_and_recycle)
            .before_fork(fill_and_recycle)
            .before_fork(fill_and_recycle)
            .on_target_after_fork(Cluster::checkpoint)
            .on_source_after_fork(Cluster::checkpoint)
    });
    let waits = |cluster: &Cluster, open: &str| {
        names(cluster, "pg_wal").iter().any(|name| name.as_str() > open && name.len() == 24)
    };
    assert!(waits(&pair.target, &pair.target.controldata()["Latest checkpoint's REDO WAL file"]), "target");
    let open = pair.source.sql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())");
    assert!(waits(&pair.source, &open), "source");
    let plan = pair.assert_like_stock_and_lives(from);
    assert!(!paths(&plan, "kept", "not_replayed").is_empty());
}

/// Archiving works on both sides; the promotion leaves a partial segment, a backup its history.
pub(super) fn archived(major: Major, from: From) {
    let archive = scratch::directory("archive");
    let settings = format!("archive_mode = on\narchive_command = 'cp %p {}/%f'\n", archive.path().display());
    let backup = |cluster: &Cluster| drop(standby_of(cluster));
    let pair = Pair::simple(major, |builder| {
        builder
            .config(&settings)
            .before_fork(backup)
            .on_target_after_fork(backup)
            .on_source_after_fork(backup)
            .on_source_after_fork(|source| source.wait_for("postgres", IS_ARCHIVED))
    });
    let ends = |end: &str| names(&pair.source, "pg_wal").iter().any(|name| name.ends_with(end));
    assert!(ends(".partial") && ends(".backup"), "{:?}", names(&pair.source, "pg_wal"));
    let plan = pair.assert_like_stock_and_lives(from);
    let segments = names(&pair.target, "pg_wal");
    for status in names(&pair.target, "pg_wal/archive_status") {
        let segment = status.trim_end_matches(".ready").trim_end_matches(".done");
        assert!(segments.iter().any(|name| name == segment), "{status} of no file among {segments:?}");
    }
    assert_eq!(
        paths(&plan, "kept", "status_of_unfetched_wal").iter().filter(|path| path.contains(".partial")).count(),
        1
    );
}

/// Whether the archiver has nothing left to do.
const IS_ARCHIVED: &str = "NOT EXISTS (SELECT FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready')";

/// From before the fork on nothing that the target wrote could be archived.
fn archived_by_the_target_no_more(major: Major, from: From) {
    let archive = scratch::directory("archive");
    let works = archive.path().join("works");
    fs::write(&works, "").unwrap();
    let settings = format!(
        "archive_mode = on\narchive_command = 'test -e {} && cp %p {}/%f'\n",
        works.display(),
        archive.path().display()
    );
    let pair = Pair::simple(major, |builder| {
        builder
            .config(&settings)
            .before_fork(|primary| {
                primary.checkpoint();
                fs::remove_file(&works).unwrap();
                fill_segments(primary);
            })
            .on_target_after_fork(fill_segments)
            .on_source_after_fork(fill_segments)
    });
    let waiting = names(&pair.target, "pg_wal/archive_status");
    assert!(waiting.iter().filter(|name| name.ends_with(".ready")).count() >= 10, "{waiting:?}");
    pair.assert_like_stock_and_lives(from);
}

/// Summaries of what the target wrote after the fork must not survive.
fn summarized(major: Major, from: From) {
    let summarize = |cluster: &Cluster| {
        cluster.checkpoint();
        let done = "summarized_lsn >= redo_lsn FROM pg_get_wal_summarizer_state(), pg_control_checkpoint()";
        cluster.wait_for("postgres", done);
        // From now on they are as they are.
        cluster.sql("postgres", "ALTER SYSTEM SET summarize_wal = off");
        cluster.sql("postgres", "SELECT pg_reload_conf()");
        cluster.wait_for("postgres", "NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'walsummarizer')");
    };
    let pair = Pair::simple(major, |builder| {
        builder.config("summarize_wal = on\n").on_target_after_fork(summarize).on_source_after_fork(summarize)
    });
    let summaries = |cluster: &Cluster| names(cluster, "pg_wal/summaries");
    let (of_source, of_target) = (summaries(&pair.source), summaries(&pair.target));
    assert!(of_source.iter().any(|name| name.starts_with("00000002")), "{of_source:?}");
    assert_ne!(of_source, of_target);
    pair.rewind_as_stock(from);
    assert_eq!(summaries(&pair.target), of_source);
    pair.assert_lives(from);
}

/// The source has dropped everything before the segment of the fork; replay on the target begins before it.
fn dropped_by_the_source(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| {
        builder
            .init(InitOptions { wal_segment_mib: 16, ..InitOptions::default() })
            .config("min_wal_size = 32MB\n")
            .before_fork(|primary| {
                primary.checkpoint();
                insert(primary, "common");
                primary.sql("postgres", "SELECT pg_switch_wal()");
                insert(primary, "common");
            })
            .on_source_after_fork(|source| {
                source.sql("postgres", "ALTER SYSTEM SET wal_keep_size = 0");
                source.sql("postgres", "SELECT pg_reload_conf()");
                source.checkpoint();
            })
    });
    let plan = pair.rewind_as_stock(from);
    let kept = paths(&plan, "kept", "only_copy_of_common_wal");
    assert!(!kept.is_empty(), "{:#}", plan["kept"]);
    for path in kept {
        assert!(pair.target.path(path).exists() && !pair.source.path(path).exists(), "{path}");
    }
    pair.assert_lives(from);
}

/// Without the WAL back to the last common checkpoint nobody knows what the target changed; the source has it.
fn missing_on_the_target(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| {
        builder.before_fork(|primary| {
            primary.checkpoint();
            fill_segments(primary);
        })
    });
    pair.settle(from);
    let common = Plan::of(&pair.target, pair.source(from), &[]).json();
    let segment = common["wal"]["segments"][1]["file"].as_str().unwrap();
    let path = format!("pg_wal/{segment}");
    fs::remove_file(pair.target.path(&path)).unwrap();
    let stock_target = pair.copy_target();
    let stock = stock::rewind(&stock_target, pair.source(from), &[]).failure();
    assert!(stock.stderr.contains(segment), "{stock}");
    // What its users do by hand.
    fs::copy(pair.source.path(&path), stock_target.path(&path)).unwrap();
    let before = Tree::of(&pair.target);
    let plan = Plan::of(&pair.target, pair.source(from), &[]).json();
    assert_eq!(tree::diff(&before, &Tree::of(&pair.target), &|_| false), [""; 0]);
    assert_eq!(plan["wal"]["obtained"], json!([{"file": segment, "from": "source"}]));
    assert_eq!(plan["discarded"], common["discarded"]);
    pair.rewind_beside_stock(&stock_target, from);
    pair.assert_lives(from);
}

/// A segment of the common WAL is not as it should be: the source's replaces it.
pub(super) fn lengthened_on_the_target(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| {
        builder.before_fork(|primary| {
            primary.checkpoint();
            fill_segments(primary);
        })
    });
    pair.settle(from);
    let plan = Plan::of(&pair.target, pair.source(from), &[]).json();
    let path = format!("pg_wal/{}", plan["wal"]["segments"][1]["file"].as_str().unwrap());
    crate::support::cluster::append(&pair.target.path(&path), "x");
    if from == From::Stopped {
        pair.source.start();
    }
    pair.rewind_as_stock(from);
    assert_eq!(fs::metadata(pair.target.path(&path)).unwrap().len(), 1 << 20);
    pair.assert_lives(from);
}

/// Begins a checkpoint that takes its time, and returns once it is under way.
fn begin_checkpoint(primary: &Cluster) -> Child {
    let call = if primary.major().0 < 15 { "pg_start_backup('slow', false, false)" } else { "pg_backup_start('slow')" };
    let mut psql = primary.installation().command("psql");
    psql.args(["-X", "-q", "-d"]).arg(primary.conninfo("postgres", "postgres")).args(["-c", &format!("SELECT {call}")]);
    let child = psql.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let under_way = "EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'CheckpointDone')";
    primary.wait_for("postgres", under_way);
    child
}

/// Makes pages dirty, for a checkpoint to be slow with.
fn dirty_pages(primary: &Cluster) {
    primary
        .sql("postgres", "CREATE TABLE large AS SELECT g, repeat('x', 500) AS filler FROM generate_series(1, 10000) g");
}

/// Updates rows, all over.
fn update_large(primary: &Cluster) {
    primary.sql("postgres", "UPDATE large SET filler = repeat('y', 500) WHERE g % 10 = 0");
}

/// Checkpoints take an hour unless somebody is in a hurry.
const SLOW: &str = "checkpoint_completion_target = 0.9\nbgwriter_lru_maxpages = 0\n";

/// Nor longer than it takes to write some segments.
const HURRIED_BY_WAL: &str = "checkpoint_completion_target = 0.1\n";

/// The last common checkpoint took long: replay begins segments before its record.
fn redo_far_behind(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| {
        builder.config(SLOW).config(HURRIED_BY_WAL).before_fork(|primary| {
            dirty_pages(primary);
            let mut checkpoint = begin_checkpoint(primary);
            update_large(primary);
            // WAL makes it hurry.
            while checkpoint.try_wait().unwrap().is_none() {
                fill_segments(primary);
            }
            update_large(primary);
        })
    });
    let plan = pair.rewind_as_stock(from);
    let checkpoint = &plan["checkpoint"];
    assert!(lsn(&checkpoint["lsn"]).get() - lsn(&checkpoint["redo"]).get() > 3 << 20, "{checkpoint}");
    assert_eq!(plan["backup_label"]["start"], checkpoint["redo"]);
    // Both have the segments from there to the fork: none of those is fetched.
    let segments = plan["wal"]["segments"].as_array().unwrap().iter();
    let both: Vec<_> = segments.filter(|segment| segment["where"] == "both").collect();
    let equal = paths(&plan, "kept", "same_content");
    assert!(both.len() >= 3, "{:#}", plan["wal"]);
    for segment in both {
        let path = format!("pg_wal/{}", segment["file"].as_str().unwrap());
        assert!(equal.contains(&path.as_str()), "{path}");
        assert!(plan["actions"].as_array().unwrap().iter().all(|action| action["path"] != path), "{path}");
    }
    pair.assert_lives(from);
}

/// A checkpoint began before the fork and ended behind it: it is not common.
fn checkpoint_in_progress(major: Major, from: From) {
    let checkpoint = RefCell::new(None);
    let begun = RefCell::new(Lsn::default());
    let insert_position =
        |cluster: &Cluster| cluster.sql("postgres", "SELECT pg_current_wal_insert_lsn()").parse::<Lsn>().unwrap();
    let pair = Pair::simple(major, |builder| {
        builder
            .config(SLOW)
            .before_fork(|primary| {
                dirty_pages(primary);
                *begun.borrow_mut() = insert_position(primary);
                *checkpoint.borrow_mut() = Some(begin_checkpoint(primary));
                update_large(primary);
            })
            .on_target_after_fork(|target| {
                let mut checkpoint = checkpoint.take().unwrap();
                assert!(checkpoint.try_wait().unwrap().is_none(), "it was done before the fork");
                target.checkpoint();
                checkpoint.wait().unwrap();
                update_large(target);
            })
    });
    let plan = pair.assert_like_stock_and_lives(from);
    assert!(lsn(&plan["checkpoint"]["lsn"]) < *begun.borrow(), "{}", plan["checkpoint"]);
}

/// Timeline 2 was left before its first checkpoint was done: the last common one is on timeline 1.
fn checkpoint_on_an_older_timeline(major: Major, from: From) {
    let old = primary(major);
    // Before its standbys are made: they get it, too.
    old.append_config(SLOW);
    let target = standby_of(&old);
    let source = standby_of(&target);
    dirty_pages(&old);
    target.wait_for_catchup(&old);
    target.promote();
    update_large(&target);
    source.wait_for_catchup(&target);
    source.promote();
    insert(&source, "source");
    insert(&target, "target");
    target.stop(Stop::Fast);
    let pair = Pair { source, target };
    let plan = pair.assert_like_stock_and_lives(from);
    assert_eq!((&plan["checkpoint"]["timeline"], &plan["divergence"]["timeline"]), (&1.into(), &2.into()));
}
