//! The directory that we leave equals the one that stock pg_rewind leaves, and lives.

use std::fs;

use pg_unfork::types::Lsn;

use crate::support::cluster::Stop;
use crate::support::for_each_major;
use crate::support::life::{assert_can_lead, assert_follows, assert_sound_at_rest};
use crate::support::likeness::{assert_equal_outcome, label};
use crate::support::pair::Pair;
use crate::support::replication::RecoveryConfig;
use crate::support::servers::Major;
use crate::support::stock::{self, Source};
use crate::support::tool::Plan;
use crate::support::tree::{self, Tree};
use crate::support::workload::REWIND_USER;

for_each_major!(stopped_source, live_source, working_source);

/// Same pair, same outcome as stock; then it follows the source, and can lead.
fn stopped_source(major: Major) {
    let Pair { source, target } = Pair::shared(major).copy();
    let stock_target = Pair::shared(major).copy_target();
    let source_before = Tree::of(&source);
    let plan = Plan::of(&target, Source::Directory(&source), &[]);
    let _ = plan.apply(&[]).success();
    let _ = stock::rewind(&stock_target, Source::Directory(&source), &[]).success();
    assert_eq!(tree::diff(&source_before, &Tree::of(&source), &|_| false), [""; 0], "the source was written to");
    assert_equal_outcome(&target, &stock_target, &plan.json(), None);
    source.start();
    target.follow(&source);
    assert_follows(&target, &source);
    assert_sound_at_rest(&target);
    assert_can_lead(&target, &source);
}

/// The same over SQL, with no more than pg_rewind's four grants, over one connection and over many.
fn live_source(major: Major) {
    let Pair { source, target } = Pair::shared(major).copy();
    let stock_target = Pair::shared(major).copy_target();
    source.start();
    source.checkpoint();
    let plan = Plan::of(&target, Source::Server(&source, REWIND_USER), &["-R"]);
    let jobs = if major.0.is_multiple_of(2) { "1" } else { "12" };
    let _ = plan.apply(&["--jobs", jobs]).success();
    let open_segment = source.sql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())");
    let _ = stock::rewind(&stock_target, Source::Server(&source, REWIND_USER), &["-R"]).success();
    assert_equal_outcome(&target, &stock_target, &plan.json(), Some(&open_segment));
    assert!(fs::metadata(target.path("standby.signal")).unwrap().len() == 0);
    source.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
    assert_follows(&target, &source);
    assert_sound_at_rest(&target);
}

/// A standby is as good a source as a primary, running or stopped; its restart point may lie behind
/// the last common checkpoint.
fn from_a_standby(major: Major, running: bool, restart_point: bool) {
    let mut other = None;
    let pair = Pair::simple(major, |builder| {
        builder.before_fork(|primary| {
            other = Some(primary.standby_left_behind());
        })
    });
    let (Pair { source, target }, standby) = (pair, other.unwrap());
    standby.change_upstream(&source);
    source.sql("postgres", "CREATE TABLE large AS SELECT repeat('x', 1000) FROM generate_series(1, 40000)");
    standby.wait_for_catchup(&source);
    if restart_point {
        source.checkpoint();
        standby.wait_for_catchup(&source);
        standby.checkpoint();
    }
    if !running {
        standby.stop(Stop::Fast);
    }
    let stock_target = target.duplicate();
    let from = if running { Source::Server(&standby, "postgres") } else { Source::Directory(&standby) };
    let arguments: &[&str] = if running { &["-R"] } else { &[] };
    let plan = Plan::of(&target, from, arguments);
    let _ = plan.apply(&[]).success();
    let _ = stock::rewind(&stock_target, from, arguments).success();
    let wal_end = plan.json()["source"]["wal_end"].as_str().unwrap().parse::<Lsn>().unwrap();
    let open_segment = format!("0000000200000000{:08X}", (wal_end.get() - 1) >> 20);
    if restart_point {
        assert_equal_outcome(&target, &stock_target, &plan.json(), Some(&open_segment));
    } else {
        // Its background writer never rests while there is something to write.
        assert_eq!(label(&target), label(&stock_target));
        assert_eq!(plan.json()["backup_label"]["start"], plan.json()["source"]["control_file"]["redo"]);
    }
    if !running {
        standby.start();
        target.follow(&standby);
    }
    target.start();
    standby.wait_for_streaming();
    source.sql("postgres", "CREATE TABLE arrives AS SELECT 42 AS answer");
    target.wait_for_catchup(&source);
    assert_eq!(target.sql("postgres", "TABLE arrives"), "42");
    assert!(target.dump_all() == source.dump_all(), "the dumps differ");
    assert_sound_at_rest(&target);
}

#[test]
fn running_standby_with_a_restart_point() {
    from_a_standby(Major(14), true, true);
}

#[test]
fn running_standby_without_one() {
    from_a_standby(Major(18), true, false);
}

#[test]
fn stopped_standby() {
    from_a_standby(Major(16), false, true);
}

/// Stock refuses a standby of 13 as its source, and so do we.
#[test]
fn standby_of_13() {
    let Pair { source, target } = Pair::simple(Major(13), |builder| builder);
    let standby = source.basebackup_standby(RecoveryConfig::Basebackup);
    standby.start();
    let (_, outcome) = Plan::make(&target, Source::Server(&standby, "postgres"), &[]);
    assert_eq!(outcome.status.code(), Some(4), "{outcome}");
    assert!(outcome.stderr.contains("13"), "{outcome}");
}

/// A live source goes on working between plan and apply: relations grow, shrink, come and go.
fn working_source(major: Major) {
    let Pair { source, target } = Pair::shared(major).copy();
    source.start();
    source.sql("postgres", "CREATE TABLE goes AS SELECT g FROM generate_series(1, 5000) g");
    source.sql("postgres", "CREATE TABLE shrinks AS SELECT g FROM generate_series(1, 50000) g");
    source.checkpoint();
    let plan = Plan::of(&target, Source::Server(&source, REWIND_USER), &["-R"]);
    source.sql("postgres", "DROP TABLE goes");
    source.sql("postgres", "DELETE FROM shrinks WHERE g > 100");
    source.sql("postgres", "VACUUM shrinks");
    source.sql("postgres", "CREATE TABLE comes AS SELECT g, repeat('x', 500) FROM generate_series(1, 20000) g");
    source.sql("postgres", "CREATE DATABASE comes");
    source.sql("postgres", "SELECT pg_switch_wal()");
    source.sql("comes", "CREATE TABLE inside AS SELECT g FROM generate_series(1, 1000) g");
    source.checkpoint();
    let _ = plan.apply(&[]).success();
    source.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
    assert_follows(&target, &source);
    assert_sound_at_rest(&target);
}
