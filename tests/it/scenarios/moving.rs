//! A source that goes on working while it is planned with and copied from.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;

use pg_unfork::format::ControlFile;

use super::scenarios;
use crate::support::background::{Background, meanwhile};
use crate::support::cluster::{Cluster, Stop, append};
use crate::support::life::assert_sound_at_rest;
use crate::support::likeness::From;
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::{Plan, pg_unfork};
use crate::support::tree::{self, Tree};
use crate::support::workload::REWIND_USER;

scenarios! {
    pgbench: v13 Live, v18 Live;
    files_vanish_while_listed: v14 Live, v17 Live;
    files_vanish_while_copied: v16 Live, v19 Live;
    same_names_other_contents: v15 Live, v19 Live;
    tablespace_dropped: v14 Live, v16 Live;
    pgbench_before_a_standby: v14 Live, v17 Live;
    wal_recycled: v13 Live, v18 Live;
    wal_recycled_under_apply: v15 Live, v16 Live;
    source_dies_under_apply: v17 Live, v18 Live;
    source_restarted: v15 Live, v17 Live;
    source_promoted: v14 Live, v19 Live;
    checkpoint_and_logs: v13 Live, v17 Live;
}

/// Runs a script that must succeed.
#[track_caller]
fn run(cluster: &Cluster, script: &str) {
    let _ = cluster.psql("postgres", script, &[]).success();
}

/// A plan of this pair with its live source.
#[track_caller]
fn plan(pair: &Pair) -> Plan {
    Plan::of(&pair.target, pair.source(From::Live), Pair::arguments(From::Live))
}

/// Starts pgbench on `cluster`, for longer than any test.
fn start_pgbench(cluster: &Cluster) -> Background {
    let mut command = cluster.installation().command("pgbench");
    command.args(["-n", "-c", "2", "-T", "3600"]).args(cluster.connection_options()).arg("postgres");
    let pgbench = Background::spawn(&mut command);
    cluster.wait_for("postgres", "count(*) > 500 FROM pgbench_history");
    pgbench
}

/// Ends it, and waits until `cluster` is at rest.
#[track_caller]
fn stop_pgbench(mut pgbench: Background, cluster: &Cluster) {
    pgbench.assert_runs();
    drop(pgbench);
    cluster.wait_for("postgres", "NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'pgbench')");
}

/// pgbench writes all the time, also while the target catches up.
fn pgbench(major: Major, _: From) {
    let pair = Pair::simple(major, |builder| builder);
    let Pair { source, target } = &pair;
    let mut pgbench = start_pgbench(source);
    let plan = plan(&pair);
    let planned = source.sql("postgres", "SELECT count(*) FROM pgbench_history");
    source.wait_for("postgres", &format!("count(*) > {planned} + 500 FROM pgbench_history"));
    let _ = plan.apply(&[]).success();
    pgbench.assert_runs();
    source.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
    target.start();
    source.wait_for_streaming();
    target.wait_for_catchup(source);
    stop_pgbench(pgbench, source);
    target.stop(Stop::Fast);
    pair.assert_lives(From::Live);
}

/// The source is a standby that goes on replaying what pgbench writes on its primary.
fn pgbench_before_a_standby(major: Major, _: From) {
    let mut other = None;
    let pair = Pair::simple(major, |builder| {
        builder.before_fork(|primary| {
            other = Some(primary.standby_left_behind());
        })
    });
    let (Pair { source, target }, standby) = (pair, other.unwrap());
    source.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
    standby.change_upstream(&source);
    // Its restart point must lie behind the fork.
    standby.checkpoint();
    let pgbench = start_pgbench(&source);
    let replayed = || {
        let rows = source.sql("postgres", "SELECT count(*) FROM pgbench_history");
        standby.wait_for("postgres", &format!("count(*) > {rows} FROM pgbench_history"));
    };
    replayed();
    let plan = Plan::of(&target, Source::Server(&standby, REWIND_USER), &["-R"]);
    replayed();
    let _ = plan.apply(&[]).success();
    target.start();
    standby.wait_for_streaming();
    stop_pgbench(pgbench, &source);
    target.wait_for_catchup(&source);
    assert!(target.dump_all() == source.dump_all(), "the dumps differ");
    target.assert_amcheck();
    assert_sound_at_rest(&target);
}

/// Tables, databases and tablespaces come and go while the source's files are listed, and copied.
fn files_vanish_while_listed(major: Major, _: From) {
    let pair = Pair::simple(major, |builder| builder);
    let source = &pair.source;
    let come_and_go = |_| {
        let tables: String = (0..30).map(|n| format!("CREATE TABLE IF NOT EXISTS gone_{n} (v text);")).collect();
        run(source, &tables);
        run(source, "CREATE DATABASE gone");
        run(source, &tables.replace("CREATE TABLE IF NOT EXISTS", "DROP TABLE").replace(" (v text)", ""));
        run(source, "DROP DATABASE gone");
        // A tablespace outside of the data directory could not be made on this very host again.
        if major.0 >= 17 {
            run(source, "CREATE TABLESPACE gone LOCATION ''");
            run(source, "CREATE TABLE in_gone (v text) TABLESPACE gone");
            run(source, "DROP TABLE in_gone; DROP TABLESPACE gone");
            run(source, &"CREATE TABLESPACE gone LOCATION ''; DROP TABLESPACE gone;".repeat(100));
        }
    };
    meanwhile(come_and_go, || {
        for _ in 0..15 {
            let _ = plan(&pair);
        }
        let _ = plan(&pair).apply(&[]).success();
    });
    pair.assert_lives(From::Live);
}

/// What was planned to be copied is dropped, cut or grows, before the apply and under it.
fn files_vanish_while_copied(major: Major, _: From) {
    let many = |script: &str| (0..40).map(|n| script.replace('#', &n.to_string())).collect::<String>();
    let rows = "SELECT g, repeat('x', 200) FROM generate_series(1, 1000) g";
    let pair = Pair::simple(major, |builder| {
        builder
            .before_backup(|primary| {
                run(primary, &many(&format!("CREATE TABLE both_# AS {rows};")));
                run(primary, "CREATE DATABASE on_both");
            })
            .on_target_after_fork(|target| run(target, &many("UPDATE both_# SET g = -g WHERE g % 100 = 1;")))
            .on_source_after_fork(|source| {
                run(source, &many(&format!("CREATE TABLE new_# AS {rows};")));
                run(source, "CREATE DATABASE new");
                source.checkpoint();
            })
    });
    let source = &pair.source;
    let plan = plan(&pair);
    run(source, "DROP DATABASE on_both");
    run(source, "DROP DATABASE new");
    run(source, "CREATE DATABASE later");
    run(source, "DELETE FROM both_3 WHERE g > 20; VACUUM both_3; DROP TABLE both_4, new_4");
    run(source, "CHECKPOINT");
    let change = |round: u32| {
        run(source, &format!("DROP TABLE IF EXISTS both_{}; DROP TABLE IF EXISTS new_{}", 5 + round, 20 + round));
        run(source, &format!("INSERT INTO both_0 {rows}; DELETE FROM both_1 WHERE g > 500 - {round}; VACUUM both_1"));
        run(source, "TRUNCATE both_2; INSERT INTO both_2 VALUES (1, 'source')");
        run(source, "DROP DATABASE IF EXISTS during");
        run(source, "CREATE DATABASE during");
        run(source, "CHECKPOINT");
    };
    meanwhile(change, || {
        let _ = plan.apply(&[]).success();
    });
    pair.assert_lives(From::Live);
}

/// A database is dropped and made again under its OID: the same paths, other contents.
fn same_names_other_contents(major: Major, _: From) {
    let make = |cluster: &Cluster, origin: &str, rows: u32| {
        cluster.sql("postgres", "CREATE DATABASE again OID = 100000");
        // Of catalogs the files' names are always the same.
        let functions: String = (0..rows)
            .map(|n| format!("CREATE FUNCTION {origin}_{n}() RETURNS text LANGUAGE SQL AS 'SELECT ''{origin} {n}''';"))
            .collect();
        cluster.sql("again", &functions);
    };
    let pair = Pair::simple(major, |builder| {
        builder
            .before_backup(|primary| make(primary, "common", 500))
            .on_target_after_fork(|target| {
                target.sql("postgres", "DROP DATABASE again");
                make(target, "target", 900);
            })
            .on_source_after_fork(Cluster::checkpoint)
    });
    let source = &pair.source;
    let plan = plan(&pair);
    source.sql("postgres", "DROP DATABASE again");
    make(source, "source", 200);
    source.checkpoint();
    source.sql("postgres", "DROP DATABASE again");
    make(source, "second", 700);
    let _ = plan.apply(&[]).success();
    source.sql("postgres", "DROP DATABASE again");
    make(source, "third", 20);
    pair.assert_lives(From::Live);
    pair.target.start();
    assert_eq!(pair.target.sql("again", "SELECT count(*) FROM pg_proc WHERE proname ~ '^third_'"), "20");
}

/// A tablespace that is dropped on the source between plan and apply.
fn tablespace_dropped(major: Major, _: From) {
    let pair = Pair::simple(major, |builder| {
        builder
            .before_backup(|primary| {
                let location = primary.location("elsewhere");
                run(primary, &format!("CREATE TABLESPACE elsewhere LOCATION '{}'", location.display()));
                run(primary, "CREATE TABLE in_elsewhere (v) TABLESPACE elsewhere AS SELECT generate_series(1, 5000)");
            })
            .on_target_after_fork(|target| run(target, "UPDATE in_elsewhere SET v = -v WHERE v % 500 = 1"))
            .on_source_after_fork(|source| {
                run(source, "CREATE TABLE new_in_elsewhere TABLESPACE elsewhere AS TABLE in_elsewhere; CHECKPOINT");
            })
    });
    let source = &pair.source;
    let plan = plan(&pair);
    assert!(String::from_utf8(plan.document()).unwrap().contains("pg_tblspc/"));
    run(source, "DROP TABLE in_elsewhere, new_in_elsewhere; CHECKPOINT");
    run(source, "DROP TABLESPACE elsewhere");
    let _ = plan.apply(&[]).success();
    pair.assert_lives(From::Live);
    assert_eq!(fs::read_dir(pair.target.path("pg_tblspc")).unwrap().count(), 0);
}

/// Makes a primary let go of its WAL.
fn recycle_wal(cluster: &Cluster) {
    for setting in ["wal_keep_size = 0", "max_wal_size = '2MB'", "min_wal_size = '2MB'"] {
        cluster.sql("postgres", &format!("ALTER SYSTEM SET {setting}"));
    }
    cluster.sql("postgres", "SELECT pg_reload_conf()");
    for _ in 0..20 {
        run(cluster, "INSERT INTO rows (origin) VALUES ('later'); SELECT pg_switch_wal(); CHECKPOINT");
    }
}

/// The source recycles WAL that replay on the target needs and the target does not have: the plan is stale, and says
/// which segment is gone.
fn wal_recycled(major: Major, _: From) {
    let pair = Pair::simple(major, |builder| builder);
    let source = &pair.source;
    let plan = plan(&pair);
    let segments: Vec<String> = plan.json()["wal"]["segments"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|segment| segment["where"] == "source")
        .map(|segment| segment["file"].as_str().unwrap().to_owned())
        .filter(|file| source.path("pg_wal").join(file).exists())
        .collect();
    let (first, last) = (&segments[0], &segments[segments.len() - 1]);
    recycle_wal(source);
    assert!(!source.path("pg_wal").join(last).exists());
    let before = Tree::of(&pair.target);
    let outcome = plan.apply(&[]);
    assert_eq!(outcome.status.code(), Some(3), "{outcome}");
    assert!(outcome.stderr.contains(first.as_str()), "{first}: {outcome}");
    assert_eq!(tree::diff(&before, &Tree::of(&pair.target), &|_| false), [""; 0]);
}

/// Holds an apply when it has sealed the target, does `meanwhile`, and lets it go on: gives its exit code and what it
/// said. The target must be left sealed.
#[track_caller]
fn interfere(pair: &Pair, meanwhile: impl FnOnce(&Cluster)) -> (Option<i32>, String) {
    let Pair { source, target } = pair;
    // Enough for it not to be over before it is held.
    run(source, "CREATE TABLE large AS SELECT repeat('x', 1000) FROM generate_series(1, 60000); CHECKPOINT");
    let plan = plan(pair);
    let sealed = || {
        let bytes = fs::read(target.path("global/pg_control")).unwrap();
        ControlFile::parse(&bytes).is_ok_and(|control| control.is_sealed())
    };
    let mut command = pg_unfork(&["apply", "--no-sync"]);
    let mut apply = command.arg(plan.path()).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while !sealed() {
        assert_eq!(apply.try_wait().unwrap(), None, "apply ended before it was seen sealing");
        thread::yield_now();
    }
    let signal = |name: &str| {
        let _ = Outcome::of(Command::new("kill").args([name, &apply.id().to_string()])).success();
    };
    signal("-STOP");
    meanwhile(source);
    signal("-CONT");
    let outcome = apply.wait_with_output().unwrap();
    assert!(sealed(), "the target is not sealed");
    let _ = target.try_start().failure();
    (outcome.status.code(), String::from_utf8(outcome.stderr).unwrap())
}

/// The source recycles WAL that is still to be copied: this plan can never finish, and says why.
fn wal_recycled_under_apply(major: Major, _: From) {
    let pair = Pair::simple(major, |builder| builder);
    let (code, said) = interfere(&pair, recycle_wal);
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("the source no longer has pg_wal/0000000"), "{said}");
}

/// The source crashes under an apply.
fn source_dies_under_apply(major: Major, _: From) {
    let pair = Pair::simple(major, |builder| builder);
    let (code, said) = interfere(&pair, |source| source.stop(Stop::Immediate));
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("source"), "{said}");
}

/// The source is restarted between plan and apply, in good order and after a crash.
fn source_restarted(major: Major, _: From) {
    let mut pair = Pair::simple(major, |builder| builder);
    for mode in [Stop::Fast, Stop::Immediate] {
        let copy = pair.copy_target();
        let target = std::mem::replace(&mut pair.target, copy);
        pair.source.sql("postgres", "ALTER ROLE rewind_user NOREPLICATION");
        pair.source.sql("postgres", "DROP TABLE IF EXISTS arrives");
        pair.source.checkpoint();
        let plan = plan(&pair);
        run(&pair.source, "INSERT INTO rows (origin) SELECT 'before the restart' FROM generate_series(1, 500)");
        pair.source.stop(mode);
        pair.source.start();
        run(&pair.source, "INSERT INTO rows (origin) SELECT 'after the restart' FROM generate_series(1, 500)");
        let _ = plan.apply(&[]).success();
        pair.assert_lives(From::Live);
        pair.target = target;
    }
}

/// The source is on another timeline when the plan is applied.
fn source_promoted(major: Major, _: From) {
    let pair = Pair::simple(major, |builder| builder);
    let source = &pair.source;
    let plan = plan(&pair);
    source.stop(Stop::Fast);
    append(&source.path("standby.signal"), "");
    source.start();
    source.promote();
    source.checkpoint();
    let before = Tree::of(&pair.target);
    let outcome = plan.apply(&[]);
    assert_eq!(outcome.status.code(), Some(3), "{outcome}");
    assert!(outcome.stderr.contains("source: timeline: planned 2, found 3"), "{outcome}");
    assert_eq!(tree::diff(&before, &Tree::of(&pair.target), &|_| false), [""; 0]);
    // A fresh plan does.
    let _ = self::plan(&pair).apply(&[]).success();
    pair.assert_lives(From::Live);
}

/// A slow checkpoint is on its way, the server's log grows inside of the data directory, and WAL is archived and
/// summarized.
fn checkpoint_and_logs(major: Major, _: From) {
    let mut config = String::from(
        "archive_mode = on\narchive_command = true\nmax_wal_size = 10GB\n\
                  logging_collector = on\nlog_statement = all\nlog_checkpoints = on\nlog_filename = 'all.log'\n\
                  log_rotation_age = 0\n",
    );
    if major.0 >= 17 {
        config.push_str("summarize_wal = on\n");
    }
    let pair = Pair::simple(major, |builder| builder.config(&config));
    let source = &pair.source;
    let log = source.path("log/all.log");
    let starting = || fs::read_to_string(&log).unwrap().matches("checkpoint starting: force wait").count();
    let checkpoints = starting();
    run(source, "UPDATE pgbench_accounts SET abalance = 2 WHERE aid % 50 = 1");
    let backup =
        if major.0 >= 15 { "SELECT pg_backup_start('slow')" } else { "SELECT pg_start_backup('slow', false, false)" };
    let mut command = source.installation().command("psql");
    command.args(["-X", "-c", backup, "-d"]).arg(source.conninfo("postgres", "postgres"));
    let mut slow = Background::spawn(&mut command);
    while starting() == checkpoints {
        slow.assert_runs();
        thread::yield_now();
    }
    let chatter = |_| run(source, "SELECT repeat('x', 1000) \\g /dev/null\nSELECT pg_switch_wal()");
    meanwhile(chatter, || {
        let plan = plan(&pair);
        let _ = plan.apply(&[]).success();
    });
    slow.assert_runs();
    // This one does not take its time, and takes the other with it.
    source.checkpoint();
    assert!(fs::metadata(pair.target.path("log/all.log")).unwrap().len() > 0);
    pair.assert_lives(From::Live);
}
