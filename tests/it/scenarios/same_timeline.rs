//! Clusters that did not part, or that only seem not to have parted.

use std::fs;

use serde_json::Value;

use super::histories::{insert, origins, primary, standby_of, timelines};
use super::scenarios;
use crate::support::cluster::{Cluster, Stop};
use crate::support::life::{assert_follows, assert_sound_at_rest};
use crate::support::likeness::From;
use crate::support::offline::{Listing, assert_same_offline};
use crate::support::pair::Pair;
use crate::support::servers::Major;
use crate::support::stock;
use crate::support::tool::Plan;
use crate::support::tree::{self, Tree};

scenarios! {
    same_timeline: v14 Stopped, v17 Live;
    primary_is_ancestor: v15 Stopped, v13 Live;
    nobody_wrote: v16 Stopped, v19 Live;
    standby_is_ancestor: v18 Stopped, v16 Live;
    same_number: v13 Stopped, v16 Live;
    same_number_and_place: v14 Stopped, v19 Live;
    same_number_behind: v18 Stopped, v15 Live;
    two_copies: v17 Stopped, v16 Live;
}

/// Nothing is done, and stock says so, too.
#[track_caller]
fn assert_not_needed(pair: &Pair, from: From) {
    pair.settle(from);
    let stock_target = pair.copy_target();
    let before = Tree::of(&pair.target);
    let plan = Plan::of(&pair.target, pair.source(from), &[]);
    assert_eq!(plan.json()["verdict"], "not_needed");
    assert_not_needed_offline(pair, from, &plan);
    let _ = plan.apply(&[]).success();
    assert_eq!(tree::diff(&before, &Tree::of(&pair.target), &|_| false), [""; 0]);
    let stock = stock::rewind(&stock_target, pair.source(from), &[]).success();
    assert!(stock.stderr.contains("no rewind required"), "{stock}");
}

/// With a listing the answer is the same, or the plan says that it is not proven.
#[track_caller]
fn assert_not_needed_offline(pair: &Pair, from: From, plan: &Plan) {
    let (offline, outcome) = Listing::of(pair.source(from)).plan(&pair.target, &[]);
    let _ = outcome.success();
    let offline = offline.json();
    assert_eq!(offline["verdict"], "not_needed");
    let warnings: Vec<&Value> =
        offline["checks"].as_array().unwrap().iter().filter(|c| c["status"] == "warn").collect();
    let warnings: Vec<&Value> = warnings.into_iter().filter(|check| check["id"] != "starts_as_standby").collect();
    let one_timeline = timelines(&offline, "source") == timelines(&offline, "target");
    let known = pair.source.controldata()["Latest checkpoint location"]
        == pair.target.controldata()["Latest checkpoint location"];
    if one_timeline && !known {
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert_eq!(warnings[0]["id"], "one_timeline");
    } else {
        assert_eq!(offline["checks"], plan.json()["checks"]);
    }
}

/// What numbers alone do not tell: stock finds nothing to do, we rewind.
#[track_caller]
fn assert_rewinds_where_stock_does_not(pair: &Pair, from: From) {
    pair.settle(from);
    let stock = stock::rewind(&pair.copy_target(), pair.source(from), &[]).success();
    assert!(stock.stderr.contains("no rewind required"), "{stock}");
    let (_, plan) = assert_same_offline(&pair.target, pair.source(from), Pair::arguments(from));
    let _ = plan.apply(&[]).success();
    let plan = plan.json();
    assert_eq!((timelines(&plan, "source"), timelines(&plan, "target")), (vec![1, 2], vec![1, 2]));
    assert_eq!(plan["divergence"]["timeline"], 1);
    pair.assert_lives(from);
    pair.target.start();
    assert_eq!(origins(&pair.target), "common source");
}

/// Nobody was promoted. The old primary is in order, and goes on.
pub(super) fn same_timeline(major: Major, from: From) {
    let target = primary(major);
    let source = standby_of(&target);
    insert(&target, "later");
    source.wait_for_catchup(&target);
    target.stop(Stop::Fast);
    let pair = Pair { source, target };
    assert_not_needed(&pair, from);
    pair.target.start();
    if from == From::Stopped {
        pair.source.start();
    }
    pair.target.wait_for_streaming();
    insert(&pair.target, "last");
    pair.source.wait_for_catchup(&pair.target);
    assert_eq!(origins(&pair.source), "common last later");
}

/// The primary was stopped in good order before its standby was promoted: it can just follow.
fn primary_is_ancestor(major: Major, from: From) {
    let target = primary(major);
    let source = standby_of(&target);
    source.wait_for_catchup(&target);
    // Its standby has its shutdown checkpoint: it waits for that.
    target.stop(Stop::Fast);
    source.promote();
    insert(&source, "source");
    let pair = Pair { source, target };
    assert_not_needed(&pair, from);
    if from == From::Stopped {
        pair.source.start();
    }
    pair.target.follow(&pair.source);
    assert_follows(&pair.target, &pair.source);
    assert_sound_at_rest(&pair.target);
}

/// And nothing was written since, on neither side.
fn nobody_wrote(major: Major, from: From) {
    let target = primary(major);
    let source = standby_of(&target);
    source.wait_for_catchup(&target);
    target.stop(Stop::Fast);
    source.promote();
    let pair = Pair { source, target };
    assert_not_needed(&pair, from);
}

/// A standby that had stopped before the fork, too.
fn standby_is_ancestor(major: Major, from: From) {
    let old = primary(major);
    let source = standby_of(&old);
    let target = standby_of(&old);
    target.wait_for_catchup(&old);
    target.stop(Stop::Fast);
    insert(&old, "later");
    source.wait_for_catchup(&old);
    source.promote();
    insert(&source, "source");
    let pair = Pair { source, target };
    assert_not_needed(&pair, from);
    if from == From::Stopped {
        pair.source.start();
    }
    pair.target.follow(&pair.source);
    assert_follows(&pair.target, &pair.source);
    assert_sound_at_rest(&pair.target);
}

/// Both were promoted on their own and call different timelines 2. Stock compares the numbers only.
fn same_number(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| {
        builder.on_target_after_fork(|target| {
            target.promote_again();
            insert(target, "timeline 2");
        })
    });
    assert_rewinds_where_stock_does_not(&pair, from);
}

/// Two standbys, promoted on their own at the end of the same WAL.
fn promoted_twice(major: Major) -> Pair {
    let old = primary(major);
    let (source, target) = (standby_of(&old), standby_of(&old));
    for standby in [&source, &target] {
        standby.wait_for_catchup(&old);
    }
    // Both get its shutdown checkpoint before it ends.
    old.stop(Stop::Fast);
    for (standby, origin) in [(&source, "source"), (&target, "target")] {
        standby.promote();
        insert(standby, origin);
    }
    target.stop(Stop::Fast);
    Pair { source, target }
}

/// Even their histories are equal.
fn same_number_and_place(major: Major, from: From) {
    let pair = promoted_twice(major);
    insert(&pair.source, "source");
    let switch = |cluster: &Cluster| fs::read_to_string(cluster.path("pg_wal/00000002.history")).unwrap();
    assert_eq!(switch(&pair.source), switch(&pair.target));
    assert_rewinds_where_stock_does_not(&pair, from);
}

/// And the target has written more than the source.
fn same_number_behind(major: Major, from: From) {
    let pair = promoted_twice(major);
    pair.target.start();
    pair.target.sql("postgres", "CREATE TABLE more AS SELECT repeat('x', 100) FROM generate_series(1, 20000)");
    pair.target.stop(Stop::Fast);
    assert_rewinds_where_stock_does_not(&pair, from);
}

/// One of two copies of a primary follows the other: where on their timeline they part, nothing tells.
fn two_copies(major: Major, from: From) {
    let target = primary(major);
    target.stop(Stop::Fast);
    let source = target.duplicate();
    for cluster in [&source, &target] {
        cluster.start();
        insert(cluster, "each its own");
    }
    target.stop(Stop::Fast);
    insert(&source, "source");
    let pair = Pair { source, target };
    pair.settle(from);
    let before = Tree::of(&pair.target);
    let (plan, outcome) = Plan::make(&pair.target, pair.source(from), &[]);
    assert_eq!(outcome.status.code(), Some(4), "{outcome}");
    assert!(outcome.stderr.contains("both are on timeline 1, but the target's last checkpoint"), "{outcome}");
    assert_eq!(plan.json()["verdict"], "impossible");
    assert_not_needed_offline(&pair, from, &plan);
    assert_eq!(tree::diff(&before, &Tree::of(&pair.target), &|_| false), [""; 0]);
}
