//! Unclean targets whose WAL is not all in their `pg_wal`, or is their own: what their recovery would hide is never lost.

use std::fs;

use serde_json::json;

use crate::support::cluster::{Cluster, Stop};
use crate::support::life::{assert_follows, assert_sound_at_rest};
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::replication::RecoveryConfig;
use crate::support::scratch;
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::Plan;
use crate::support::tree::{self, Tree};

/// Has the target recovered and planned for; the outcome must be a refusal that says `text`, and nothing may be written.
#[track_caller]
fn refused(target: &Cluster, source: &Cluster, arguments: &[&str], text: &str) {
    let before = Tree::of(target);
    let bindir = target.installation().bin("").display().to_string();
    let arguments = [&["--recover-target", "--pg-bindir", &bindir][..], arguments].concat();
    let (_, outcome) = Plan::make(target, Source::Directory(source), &arguments);
    assert_eq!(outcome.status.code(), Some(4), "{outcome}");
    assert!(outcome.stderr.contains(text), "{text}: {outcome}");
    assert_eq!(tree::diff(&before, &Tree::of(target), &|_| false), [""; 0]);
}

/// The WAL segments of a cluster, by name.
fn segments(cluster: &Cluster) -> Vec<String> {
    let entries = fs::read_dir(cluster.path("pg_wal")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.len() == 24);
    names.sort();
    names
}

/// The segment that a position is in, on the first timeline; segments have 1 MiB.
fn segment_of(lsn: &str) -> String {
    let lsn: pg_unfork::types::Lsn = lsn.parse().unwrap();
    let number = lsn.get() >> 20;
    format!("00000001{:08X}{:08X}", number >> 12, number & 0xFFF)
}

/// A killed standby is ahead of its last restart point, and only an archive has the WAL between: the end of what is in
/// its `pg_wal` is no end, wherever the fork is. One that was started by itself has other WAL at its end; and where the
/// source has none to compare, nothing is taken for granted.
#[test]
fn killed_standbys() {
    let (mut before_fork, mut behind) = (None, None);
    let pair = Pair::simple(Major(16), |builder| {
        builder
            .target_stop(Stop::Immediate)
            .before_fork(|primary| {
                before_fork = Some(primary.standby_left_behind());
                let standby = primary.basebackup_standby(RecoveryConfig::Harness);
                standby.start();
                behind = Some(standby);
            })
            .before_fork(|primary| {
                primary.checkpoint();
                primary.sql("postgres", "CREATE TABLE early AS SELECT g FROM generate_series(1, 50000) g");
            })
            .on_target_after_fork(|target| {
                target.sql("postgres", "CREATE TABLE late AS SELECT g FROM generate_series(1, 50000) g");
                target.wait_for("postgres", "bool_and(replay_lsn = pg_current_wal_lsn()) FROM pg_stat_replication");
            })
    });
    let (before_fork, behind) = (before_fork.unwrap(), behind.unwrap());
    let source = &pair.source;
    source.stop(Stop::Fast);
    // Its pages go to disk, at a restart point before all that.
    behind.checkpoint();
    behind.stop(Stop::Immediate);
    let control = behind.controldata();
    let point = control["Minimum recovery ending location"].as_str();
    let checkpoint = segment_of(&control["Latest checkpoint location"]);
    let history = fs::read_to_string(source.path("pg_wal/00000002.history")).unwrap();
    let fork = segment_of(history.split_whitespace().nth(1).unwrap());
    assert!(checkpoint < fork && fork < segment_of(point), "{checkpoint} {fork} {point}");
    for (case, last) in [("before the fork", &checkpoint), ("behind it", &fork)] {
        let standby = behind.duplicate();
        let archive = scratch::directory("archive");
        for name in segments(&standby).iter().filter(|name| *name > last) {
            fs::rename(standby.path("pg_wal").join(name), archive.path().join(name)).unwrap();
        }
        refused(&standby, source, &[], "but the plan must read it");
        let command = format!("cp {}/%f %p", archive.path().display());
        refused(&standby, source, &["--restore-command", &command], "its own pg_wal cannot be replayed");
        let (plan, outcome) =
            Plan::make(&standby, Source::Directory(source), &["--preview", "--restore-command", &command]);
        let _ = outcome.success();
        let plan = plan.json();
        let end = |text: &str| text.parse::<pg_unfork::types::Lsn>().unwrap();
        assert_eq!(plan["verdict"], "rewind", "{case}");
        assert!(end(plan["target"]["wal_end"].as_str().unwrap()) >= end(point), "{case}");
    }
    alone_before_the_fork(&before_fork, source);
}

fn alone_before_the_fork(standby: &Cluster, source: &Cluster) {
    standby.stop(Stop::Immediate);
    let forgetful = source.duplicate();
    for name in segments(&forgetful) {
        fs::remove_file(forgetful.path("pg_wal").join(name)).unwrap();
    }
    refused(standby, &forgetful, &[], "whether the source has the same WAL at its end");
    refused(standby, source, &[], "the target need not be rewound");
    fs::remove_file(standby.path("standby.signal")).unwrap();
    standby.start();
    standby.sql("postgres", "CREATE TABLE mine AS SELECT 1 AS a");
    standby.stop(Stop::Immediate);
    refused(standby, source, &[], "but the source has other WAL there");
}

/// A gap in a killed primary's WAL is not its end.
#[test]
fn a_gap() {
    let Pair { source, target } = Pair::simple(Major(18), |builder| {
        builder.target_stop(Stop::Immediate).on_target_after_fork(|target| {
            target.checkpoint();
            target.sql("postgres", "CREATE TABLE late AS SELECT g FROM generate_series(1, 50000) g");
        })
    });
    source.stop(Stop::Fast);
    let checkpoint = segment_of(&target.controldata()["Latest checkpoint location"]);
    let gap = segments(&target).into_iter().find(|name| *name > checkpoint).unwrap();
    fs::remove_file(target.path("pg_wal").join(gap)).unwrap();
    refused(&target, &source, &[], "is missing, but later ones are there");
}

/// Rewound, never started, and what would take that back is dropped: another source can still be named. What is rewound to it
/// then is what the first source was.
#[test]
fn rewound_for_another_source() {
    let mut other = None;
    let Pair { source, target } =
        Pair::simple(Major(17), |builder| builder.before_fork(|primary| other = Some(primary.standby_left_behind())));
    let other = other.unwrap();
    other.promote();
    other.sql("postgres", "CREATE TABLE others AS SELECT g FROM generate_series(1, 100) g");
    other.checkpoint();
    source.sql(
        "postgres",
        "UPDATE rows SET origin = 'first'; CREATE TABLE firsts AS SELECT g FROM generate_series(1, 50000) g",
    );
    for cluster in [&source, &other] {
        cluster.stop(Stop::Fast);
    }
    let _ = Plan::of(&target, Source::Directory(&source), &[]).apply(&[]).success();
    refused(&target, &other, &[], "the target was rewound, and no server has run on it since");
    let mut clean = crate::support::tool::pg_unfork(&["clean", "--force", "-D"]);
    let _ = Outcome::of(clean.arg(target.data())).success();
    let bindir = target.installation().bin("").display().to_string();
    let short = target.duplicate();
    let last = segment_of(&short.controldata()["Minimum recovery ending location"]).replacen("00000001", "00000002", 1);
    fs::remove_file(short.path("pg_wal").join(last)).unwrap();
    refused(&short, &other, &[], "but the plan must read it");
    let plan = Plan::of(&target, Source::Directory(&other), &["--recover-target", "--pg-bindir", &bindir]);
    assert_eq!(plan.json()["verdict"], json!("rewind"));
    let _ = plan.apply(&[]).success();
    other.start();
    target.follow(&other);
    assert_follows(&target, &other);
    assert_sound_at_rest(&target);
}
