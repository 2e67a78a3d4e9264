//! How two clusters parted: which timelines each has been on.

use std::fs;

use pg_unfork::types::Lsn;
use serde_json::Value;

use super::scenarios;
use crate::support::cluster::{Cluster, InitOptions, Stop};
use crate::support::life::assert_sound_at_rest;
use crate::support::likeness::{From, label};
use crate::support::pair::Pair;
use crate::support::replication::RecoveryConfig;
use crate::support::servers::Major;
use crate::support::stock;
use crate::support::tool::Plan;
use crate::support::workload;

scenarios! {
    cascade: v19 Stopped, v14 Live;
    diverged_standby: v16 Stopped, v15 Live;
    minimum_recovery_point: v17 Stopped, v13 Live;
    source_promoted_often: v14 Stopped, v18 Live;
    target_promoted_often: v13 Stopped, v19 Live;
    just_promoted: v14 Live, v18 Live;
    there_and_back: v16 Stopped, v17 Live;
    later_child_of_one_timeline: v15 Stopped, v18 Live;
}

/// Another standby of the running `primary`, following it.
pub(super) fn standby_of(primary: &Cluster) -> Cluster {
    let standby = primary.basebackup_standby(RecoveryConfig::Basebackup);
    standby.start();
    standby
}

/// A running primary with amcheck, `rewind_user` and a table.
pub(super) fn primary(major: Major) -> Cluster {
    let primary = Cluster::initdb(major, &InitOptions::default());
    primary.start();
    workload::prepare(&primary);
    primary.sql("postgres", "CREATE TABLE rows (id bigserial PRIMARY KEY, origin text NOT NULL)");
    insert(&primary, "common");
    primary
}

/// Adds a thousand rows that say where they were written.
pub(super) fn insert(cluster: &Cluster, origin: &str) {
    cluster.sql("postgres", &format!("INSERT INTO rows (origin) SELECT '{origin}' FROM generate_series(1, 1000)"));
}

/// Where the rows of a cluster come from.
pub(super) fn origins(cluster: &Cluster) -> String {
    cluster.sql("postgres", "SELECT string_agg(DISTINCT origin, ' ' ORDER BY origin) FROM rows")
}

/// The timelines of one side, oldest first.
pub(super) fn timelines(plan: &Value, side: &str) -> Vec<u64> {
    let history = plan[side]["history"].as_array().unwrap();
    history.iter().map(|entry| entry["timeline"].as_u64().unwrap()).collect()
}

/// A position in a plan.
pub(super) fn lsn(value: &Value) -> Lsn {
    value.as_str().unwrap().parse().unwrap()
}

/// A standby below a standby: what is written on the primary arrives, and all contents are equal.
#[track_caller]
fn assert_follows_through(target: &Cluster, upstream: &Cluster, primary: &Cluster) {
    target.start();
    upstream.wait_for_streaming();
    primary.sql("postgres", "CREATE TABLE arrives AS SELECT 42 AS answer");
    target.wait_for_catchup(primary);
    assert_eq!(target.sql("postgres", "TABLE arrives"), "42");
    assert!(target.dump_all() == primary.dump_all(), "the dumps differ");
    target.assert_amcheck();
    assert_sound_at_rest(target);
}

/// A standby below a standby was promoted, and comes back below it.
pub(super) fn cascade(major: Major, from: From) {
    let primary = primary(major);
    let source = standby_of(&primary);
    let target = standby_of(&source);
    primary.checkpoint();
    target.wait_for_catchup(&primary);
    target.promote();
    target.checkpoint();
    insert(&primary, "primary");
    insert(&target, "target");
    target.stop(Stop::Fast);
    primary.checkpoint();
    source.wait_for_catchup(&primary);
    let pair = Pair { source, target };
    let plan = pair.rewind_as_stock(from);
    assert_eq!((timelines(&plan, "source"), timelines(&plan, "target")), (vec![1], vec![1, 2]));
    if from == From::Stopped {
        pair.source.start();
        pair.target.follow(&pair.source);
    } else {
        primary.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
        pair.source.wait_for_catchup(&primary);
    }
    assert_follows_through(&pair.target, &pair.source, &primary);
    assert!(!pair.target.path("pg_wal/00000002.history").exists());
}

/// A standby that went on with its old primary when another one was promoted.
fn diverged_standby(major: Major, from: From) {
    let old = primary(major);
    let source = standby_of(&old);
    let target = standby_of(&old);
    old.checkpoint();
    source.wait_for_catchup(&old);
    source.promote();
    source.checkpoint();
    insert(&source, "source");
    insert(&old, "target");
    old.checkpoint();
    target.wait_for_catchup(&old);
    target.stop(Stop::Fast);
    let pair = Pair { source, target };
    pair.assert_like_stock_and_lives(from);
    pair.target.start();
    assert_eq!(origins(&pair.target), "common source");
}

/// The target is a standby whose pages are beyond its last checkpoint, and beyond the fork: its WAL
/// ends at its minimum recovery point.
pub(super) fn minimum_recovery_point(major: Major, from: From) {
    let source = primary(major);
    let target = standby_of(&source);
    let third = standby_of(&source);
    source.sql("postgres", "CREATE TABLE other AS SELECT g FROM generate_series(1, 1000) g");
    for standby in [&target, &third] {
        standby.wait_for_catchup(&source);
    }
    source.stop(Stop::Fast);
    third.promote();
    third.checkpoint();
    source.follow(&third);
    source.start();
    target.change_upstream(&third);
    source.wait_for_catchup(&third);
    // Split brain: the first primary is promoted while the third is one, too.
    source.promote();
    source.checkpoint();
    insert(&source, "source");
    // More than the target's buffers hold, without a checkpoint.
    third.sql("postgres", "INSERT INTO other SELECT g FROM generate_series(1, 800000) g");
    insert(&third, "target");
    target.wait_for_catchup(&third);
    target.stop(Stop::Fast);
    third.stop(Stop::Fast);
    let pair = Pair { source, target };
    let plan = pair.assert_like_stock_and_lives(from);
    assert_eq!((timelines(&plan, "source"), timelines(&plan, "target")), (vec![1, 2, 3], vec![1, 2]));
    let control = &plan["target"]["control_file"];
    assert!(lsn(&control["min_recovery_point"]) > lsn(&plan["divergence"]["lsn"]), "{control}");
    assert!(lsn(&control["min_recovery_point"]) > lsn(&control["checkpoint"]), "{control}");
    pair.target.start();
    assert_eq!(origins(&pair.target), "common source");
    assert_eq!(pair.target.sql("postgres", "SELECT count(*) FROM other"), "1000");
}

/// The source has come to timeline 4 since.
fn source_promoted_often(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| {
        builder.on_source_after_fork(|source| {
            for origin in ["timeline 3", "timeline 4"] {
                source.promote_again();
                insert(source, origin);
            }
        })
    });
    let plan = pair.assert_like_stock_and_lives(from);
    assert_eq!((timelines(&plan, "source"), timelines(&plan, "target")), (vec![1, 2, 3, 4], vec![1]));
    for timeline in 2..=4 {
        assert!(pair.target.path(format!("pg_wal/0000000{timeline}.history")).exists(), "{timeline}");
    }
}

/// The target has been promoted since, too: its later timelines must leave no trace.
fn target_promoted_often(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| {
        builder.on_target_after_fork(|target| {
            for origin in ["timeline 2", "timeline 3"] {
                target.promote_again();
                insert(target, origin);
            }
        })
    });
    let plan = pair.assert_like_stock_and_lives(from);
    assert_eq!((timelines(&plan, "source"), timelines(&plan, "target")), (vec![1, 2], vec![1, 2, 3]));
    assert!(!pair.target.path("pg_wal/00000003.history").exists());
    let same = |file: &str| fs::read(pair.source.path(file)).unwrap() == fs::read(pair.target.path(file)).unwrap();
    assert!(same("pg_wal/00000002.history"));
}

/// The source is still about the checkpoint that follows a promotion: its control file is on timeline 1, and its
/// pages have not been on disk since before the last common checkpoint. Stock up to 15 sees nothing to do.
fn just_promoted(major: Major, from: From) {
    let slow = "checkpoint_completion_target = 0.9\nbgwriter_lru_maxpages = 0\n";
    let change = |cluster: &Cluster| {
        drop(cluster.sql("postgres", "UPDATE large SET filler = repeat('y', 500) WHERE g % 10 = 0"))
    };
    let pair = Pair::simple(major, |builder| {
        builder
            .config(slow)
            .no_checkpoint_after_promotion()
            .before_backup(|primary| {
                primary.sql(
                    "postgres",
                    "CREATE TABLE large AS SELECT g, repeat('x', 500) AS filler FROM generate_series(1, 10000) g",
                );
            })
            .before_fork(change)
            .before_fork(Cluster::checkpoint)
            .on_target_after_fork(change)
    });
    assert_eq!(pair.source.controldata()["Latest checkpoint's TimeLineID"], "1");
    let stock_target = pair.copy_target();
    let stock = stock::rewind(&stock_target, pair.source(from), &[]).success();
    let plan = Plan::of(&pair.target, pair.source(from), Pair::arguments(from));
    let _ = plan.apply(&[]).success();
    let plan = plan.json();
    assert_eq!((timelines(&plan, "source"), timelines(&plan, "target")), (vec![1, 2], vec![1]));
    assert!(lsn(&plan["backup_label"]["start"]) < lsn(&plan["checkpoint"]["redo"]), "{}", plan["backup_label"]);
    if major.0 < 16 {
        assert!(stock.stderr.contains("no rewind required"), "{stock}");
    } else {
        // The checkpoint writes pages meanwhile.
        assert_eq!(label(&stock_target), label(&pair.target));
    }
    pair.assert_lives(from);
}

/// A rewound cluster is promoted, and rewound once more: the fork is on timeline 2.
fn there_and_back(major: Major, from: From) {
    let Pair { source, target } = Pair::simple(major, |builder| builder);
    let pair = Pair { source, target };
    pair.settle(from);
    let plan = Plan::of(&pair.target, pair.source(from), Pair::arguments(from));
    let _ = plan.apply(&[]).success();
    pair.assert_lives(from);
    pair.target.start();
    pair.target.wait_for_catchup(&pair.source);
    pair.target.promote();
    pair.target.checkpoint();
    insert(&pair.target, "timeline 3");
    insert(&pair.source, "timeline 2");
    pair.source.sql("postgres", "DROP TABLE arrives");
    pair.target.stop(Stop::Fast);
    let plan = pair.assert_like_stock_and_lives(from);
    assert_eq!((timelines(&plan, "source"), timelines(&plan, "target")), (vec![1, 2], vec![1, 2, 3]));
    assert_eq!(plan["divergence"]["timeline"], 2);
    pair.target.start();
    assert_eq!(origins(&pair.target), "common source timeline 2");
}

/// Both left timeline 2 at different places, the source later and for a later number: it knew of the target's.
fn later_child_of_one_timeline(major: Major, from: From) {
    let source = primary(major);
    let target = standby_of(&source);
    source.promote_again();
    target.change_upstream(&source);
    source.checkpoint();
    target.wait_for_catchup(&source);
    target.promote();
    target.checkpoint();
    insert(&target, "timeline 3");
    insert(&source, "timeline 2");
    target.stop(Stop::Fast);
    source.restart_as_standby_of_nobody();
    // What an archive would have told.
    let history = "pg_wal/00000003.history";
    fs::copy(target.path(history), source.path(history)).unwrap();
    source.promote();
    insert(&source, "timeline 4");
    let pair = Pair { source, target };
    let plan = pair.assert_like_stock_and_lives(from);
    assert_eq!((timelines(&plan, "source"), timelines(&plan, "target")), (vec![1, 2, 4], vec![1, 2, 3]));
    assert_eq!(plan["divergence"]["timeline"], 2);
    pair.target.start();
    assert_eq!(origins(&pair.target), "common timeline 2 timeline 4");
}
