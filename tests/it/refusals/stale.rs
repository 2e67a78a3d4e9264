//! Plans that describe another target, another source, or what they were, and are not any more.

use std::fs;

use super::{Untouched, assert_refused};
use crate::support::cluster::{Cluster, Stop};
use crate::support::pair::Pair;
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::Plan;
use crate::support::tree::{self, Tree};
use crate::support::workload::REWIND_USER;

/// Whatever moved since the plan was made, apply refuses before the first write.
#[test]
fn whatever_moved() {
    let pair = Pair::shared(Major(17));
    type Move = fn(&Cluster, &Cluster);
    let moves: [(&str, Move); 5] = [
        ("postgresql.conf: has", |_, target| target.append_config("# later\n")),
        ("source has changed since the plan was made: postgresql.conf", |source, _| source.append_config("# later\n")),
        ("target: SHA-256 of global/pg_control", |_, target| {
            target.start();
            target.stop(Stop::Fast);
        }),
        ("source: SHA-256 of global/pg_control", |source, _| {
            source.start();
            source.stop(Stop::Fast);
        }),
        ("source: timeline: planned 2, found 3", |source, _| {
            fs::write(source.path("standby.signal"), "").unwrap();
            source.start();
            source.promote();
            source.checkpoint();
            source.stop(Stop::Fast);
        }),
    ];
    for (message, make_move) in moves {
        let Pair { source, target } = pair.copy();
        let plan = Plan::of(&target, Source::Directory(&source), &[]);
        make_move(&source, &target);
        let before = Tree::of(&target);
        let outcome = plan.apply(&[]);
        assert_refused(&outcome, 3, &[message]);
        assert_eq!(tree::diff(&before, &Tree::of(&target), &|_| false), [""; 0]);
    }
}

/// A live source that cannot serve the plan any more is found out before the first write.
#[test]
fn wal_that_the_source_has_dropped() {
    let Pair { source, target } = Pair::shared(Major(16)).copy();
    source.start();
    let plan = Plan::of(&target, Source::Server(&source, REWIND_USER), &[]);
    let before = Tree::of(&target);
    let segment = plan.json()["wal"]["segments"][0]["file"].as_str().unwrap().to_owned();
    fs::remove_file(source.path("pg_wal").join(&segment)).unwrap();
    let outcome = plan.apply(&[]);
    assert_refused(&outcome, 3, &[&segment, "WAL that replay needs"]);
    assert_eq!(tree::diff(&before, &Tree::of(&target), &|_| false), [""; 0]);
}

/// Another server of the cluster may stand in for the source, but not one that has written less to
/// its disk than replay on the target would make good.
#[test]
fn a_stand_in_without_a_late_enough_restart_point() {
    let mut slow = None;
    let pair = Pair::simple(Major(17), |builder| {
        builder.before_fork(|primary| {
            slow = Some(primary.standby_left_behind());
        })
    });
    let (Pair { source, target }, slow) = (pair, slow.unwrap());
    slow.change_upstream(&source);
    // More than its buffers hold: it must write, and so note that it is on the new timeline.
    source.sql("postgres", "CREATE TABLE large AS SELECT repeat('x', 1000) FROM generate_series(1, 40000)");
    slow.wait_for_catchup(&source);
    assert_eq!(slow.controldata()["Min recovery ending loc's timeline"], "2");
    let plan = Plan::of(&target, Source::Server(&source, "postgres"), &["-R"]);
    let before = Tree::of(&target);
    let refused = plan.apply(&["--source-server", &slow.conninfo("postgres", "postgres")]);
    assert_refused(&refused, 3, &["the source's last checkpoint begins at"]);
    assert_eq!(tree::diff(&before, &Tree::of(&target), &|_| false), [""; 0]);
    // With a restart point of its own it will do.
    source.checkpoint();
    slow.wait_for_catchup(&source);
    slow.checkpoint();
    let _ = plan.apply(&["--source-server", &slow.conninfo("postgres", "postgres")]).success();
    target.start();
    target.wait_for_catchup(&source);
    assert_eq!(
        target.sql("postgres", "SELECT count(*) FROM rows"),
        source.sql("postgres", "SELECT count(*) FROM rows")
    );
}

/// A plan for one pair is of no use for another one's clusters, nor for the other kind of source.
#[test]
fn other_clusters() {
    let pair = Pair::shared(Major(15)).copy();
    let other = Pair::shared(Major(16)).copy();
    let plan = Plan::of(&pair.target, Source::Directory(&pair.source), &[]);
    let before = Untouched::of(&pair);
    let before_other = Untouched::of(&other);
    let at = |option: &str, cluster: &Cluster| plan.apply(&[option, cluster.data().to_str().unwrap()]);
    // The directories of tablespaces are looked at first of all.
    let to_other = at("-D", &other.target);
    assert_refused(&to_other, 3, &["pg_tblspc/"]);
    assert_refused(&at("--source-pgdata", &other.source), 3, &["source: system_identifier: planned "]);
    before_other.check();
    before.check();
    pair.source.start();
    let live = plan.apply(&["--source-server", &pair.source.conninfo("postgres", REWIND_USER)]);
    assert_refused(&live, 3, &["source: kind: planned stopped data directory, found live server"]);
    let planned_live = Plan::of(&pair.target, Source::Server(&pair.source, REWIND_USER), &[]);
    pair.source.stop(Stop::Fast);
    let directory = pair.source.data();
    let stopped = planned_live.apply(&["--source-pgdata", directory.to_str().unwrap()]);
    assert_refused(&stopped, 3, &["source: kind: planned live server, found stopped data directory"]);
}

/// A plan that says that it is impossible is not applied.
#[test]
fn impossible_plans() {
    let pair = Pair::shared(Major(13)).copy();
    pair.target.start();
    pair.target.stop(Stop::Immediate);
    let before = Untouched::of(&pair);
    let (plan, outcome) = Plan::make(&pair.target, Source::Directory(&pair.source), &[]);
    assert_refused(&outcome, 4, &["IMPOSSIBLE", "target state: in production", "in another container"]);
    let document = plan.json();
    assert_eq!((&document["verdict"], &document["applyable"]), (&"impossible".into(), &false.into()));
    assert_refused(&plan.apply(&[]), 4, &["the plan says that it cannot be applied", "pg_unfork show"]);
    before.check();
}
