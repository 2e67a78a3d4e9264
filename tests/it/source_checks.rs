//! What a plan says of the source, of the WAL that is needed, and of what the target needs to follow: on real
//! clusters, where it warns and where it does not.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::cluster::{Cluster, InitOptions, Stop, append};
use crate::support::life::assert_follows;
use crate::support::outcome::Outcome;
use crate::support::pair::{Pair, PairBuilder};
use crate::support::replication::RecoveryConfig;
use crate::support::scratch;
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::Plan;
use crate::support::workload::{self, REWIND_USER};

/// The plan with a live source, and how planning ended.
fn planned(target: &Cluster, source: &Cluster) -> (Value, Outcome) {
    let (plan, outcome) = Plan::make(target, Source::Server(source, REWIND_USER), &["-R"]);
    (plan.json(), outcome)
}

/// A check of a plan.
#[track_caller]
fn check<'a>(plan: &'a Value, id: &str) -> &'a Value {
    let mut checks = plan["checks"].as_array().unwrap().iter().filter(|check| check["id"] == id);
    let found = checks.next().unwrap_or_else(|| panic!("no check {id} in {:#}", plan["checks"]));
    assert!(checks.next().is_none(), "{id} is there twice");
    found
}

/// Panics unless a check has this status; one that does not pass says what to do.
#[track_caller]
fn assert_check(plan: &Value, id: &str, status: &str) {
    let found = check(plan, id);
    assert_eq!(found["status"], status, "{found:#}");
    assert_eq!(found["remedy"].is_string(), status != "pass", "{found:#}");
}

/// The statements that a check advises.
fn commands(plan: &Value, id: &str) -> Vec<String> {
    let commands = check(plan, id)["commands"].as_array().unwrap();
    commands.iter().map(|command| command.as_str().unwrap().to_owned()).collect()
}

/// Runs statements one by one, and waits until their settings count.
fn run(server: &Cluster, statements: &[String]) {
    for statement in statements {
        server.sql("postgres", statement);
    }
    reload(server);
}

/// Waits until the server has read its settings again.
fn reload(server: &Cluster) {
    let before = server.sql("postgres", "SELECT pg_conf_load_time()");
    server.sql("postgres", "SELECT pg_reload_conf()");
    server.wait_for("postgres", &format!("pg_conf_load_time() > '{before}'"));
}

/// Everything that a source may lack, one after the other and at once; what is advised helps.
#[test]
fn a_live_source() {
    let pair = Pair::simple(Major(17), |builder| {
        builder.on_source_after_fork(|source| {
            source.sql("postgres", "CREATE TABLE more AS SELECT repeat('x', 500) FROM generate_series(1, 5000)");
            source.checkpoint();
        })
    });
    let Pair { source, target } = &pair;
    let (plan, _) = planned(target, source);
    let live = [
        "divergence",
        "custom_resource_managers",
        "full_page_writes",
        "primary_slot_name",
        "replay_wal",
        "source_privileges",
        "source_wal_retention",
        "standby_parameters",
    ];
    live.iter().for_each(|id| assert_check(&plan, id, "pass"));
    let fork = plan["divergence"]["lsn"].as_str().unwrap();
    let evidence = &check(&plan, "divergence")["evidence"];
    assert_eq!(evidence[0], format!("last common position: {fork} on timeline 1"));

    // What is needed lies before the last checkpoint: a new slot would not keep it.
    source.sql("postgres", "ALTER SYSTEM SET wal_keep_size = '0'");
    reload(source);
    let (plan, outcome) = planned(target, source);
    let _ = outcome.success();
    assert_check(&plan, "source_wal_retention", "warn");
    let advised = commands(&plan, "source_wal_retention");
    run(source, &advised[..2]);
    assert_check(&planned(target, source).0, "source_wal_retention", "pass");
    run(source, &advised[2..]);
    assert_eq!(source.sql("postgres", "SHOW wal_keep_size"), "0");

    // The target gets the source's settings.
    source.sql("postgres", "ALTER SYSTEM SET primary_slot_name = 'of_the_target'");
    let (plan, _) = planned(target, source);
    assert_check(&plan, "primary_slot_name", "warn");
    run(source, &commands(&plan, "primary_slot_name"));
    assert_check(&planned(target, source).0, "primary_slot_name", "pass");

    // The checkpoints to come must leave what is needed.
    source.sql("postgres", "ALTER SYSTEM RESET wal_keep_size");
    source.append_config("max_connections = 19\n");
    source.sql("postgres", "ALTER SYSTEM SET full_page_writes = off");
    reload(source);
    let (plan, outcome) = planned(target, source);
    assert_eq!((outcome.status.code(), &plan["verdict"]), (Some(4), &Value::from("impossible")), "{outcome}");
    for failed in ["full_page_writes", "standby_parameters"] {
        assert_check(&plan, failed, "fail");
        assert!(outcome.stderr.contains(failed), "{outcome}");
    }
    assert_eq!(
        check(&plan, "standby_parameters")["evidence"][0],
        "max_connections: the target will have 19, the source has 20"
    );
    // What it would have come to is worth knowing all the same.
    assert!(plan["applyable"] == false && plan["actions"].as_array().is_some_and(|all| !all.is_empty()));
    run(source, &commands(&plan, "full_page_writes"));
    source.append_config("max_connections = 20\n");

    // Privileges end a plan, with all that is known by then; what a role may not see besides is no failure.
    source.sql("postgres", "ALTER SYSTEM SET wal_keep_size = '0'");
    reload(source);
    let hidden = "REVOKE SELECT ON pg_catalog.pg_settings, pg_catalog.pg_replication_slots FROM PUBLIC;
         REVOKE EXECUTE ON FUNCTION pg_get_wal_resource_managers() FROM PUBLIC";
    source.sql("postgres", hidden);
    let (plan, outcome) = planned(target, source);
    let _ = outcome.success();
    assert_check(&plan, "primary_slot_name", "pass");
    assert_check(&plan, "source_wal_retention", "warn");
    source.sql("postgres", "REVOKE EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean) FROM rewind_user");
    let (plan, _) = planned(target, source);
    assert_check(&plan, "source_privileges", "fail");
    assert_check(&plan, "full_page_writes", "pass");
    run(source, &commands(&plan, "source_privileges"));
    let _ = planned(target, source).1.success();
}

/// A slot that is made right after the fork keeps what is needed.
#[test]
fn a_slot_keeps_wal() {
    let pair = PairBuilder::new(Major(18))
        .fork_behind(|target| {
            target.checkpoint();
            let lsn = target.sql("postgres", "SELECT pg_current_wal_insert_lsn()");
            target.sql("postgres", "SELECT pg_logical_emit_message(true, 'last', '')");
            lsn
        })
        .on_target_after_fork(|target| insert(target, "target"))
        .build();
    let Pair { source, target } = &pair;
    source.sql("postgres", "ALTER SYSTEM SET wal_keep_size = '0'");
    reload(source);
    let (plan, _) = planned(target, source);
    assert_check(&plan, "source_wal_retention", "warn");
    let advised = commands(&plan, "source_wal_retention");
    assert!(advised[0].contains("pg_create_physical_replication_slot"), "{advised:?}");
    run(source, &advised[..1]);
    assert_check(&planned(target, source).0, "source_wal_retention", "pass");
    run(source, &advised[1..]);
    assert_check(&planned(target, source).0, "source_wal_retention", "warn");
}

/// A standby's own setting says nothing about the WAL that its primary writes.
#[test]
fn full_page_writes_of_a_standby() {
    let pair = PairBuilder::new(Major(15)).on_target_after_fork(|target| insert(target, "target")).build();
    let Pair { source: primary, target } = &pair;
    let standby = primary.basebackup_standby(RecoveryConfig::Basebackup);
    standby.start();
    let set = |server: &Cluster, value: &str| {
        server.sql("postgres", &format!("ALTER SYSTEM SET full_page_writes = {value}"));
        reload(server);
    };
    let checkpoint = || {
        primary.checkpoint();
        standby.wait_for_catchup(primary);
        standby.checkpoint();
    };
    assert_check(&planned(target, &standby).0, "full_page_writes", "pass");
    set(&standby, "off");
    assert_check(&planned(target, &standby).0, "full_page_writes", "warn");
    set(&standby, "on");
    set(primary, "off");
    checkpoint();
    let (plan, outcome) = planned(target, &standby);
    assert_eq!(outcome.status.code(), Some(4), "{outcome}");
    assert_check(&plan, "full_page_writes", "fail");
    run(primary, &commands(&plan, "full_page_writes"));
    checkpoint();
    assert_check(&planned(target, &standby).0, "full_page_writes", "pass");
}

/// WAL that neither side has can only come from an archive.
#[test]
fn wal_on_neither_side() {
    let pair = Pair::simple(Major(16), |builder| {
        builder.on_source_after_fork(|source| {
            for _ in 0..3 {
                insert(source, "source");
                source.sql("postgres", "SELECT pg_switch_wal()");
            }
        })
    });
    let Pair { source, target } = &pair;
    source.stop(Stop::Fast);
    let of = |arguments: &[&str]| Plan::make(target, Source::Directory(source), arguments);
    let segments = of(&[]).0.json()["wal"]["segments"].clone();
    let segments: Vec<&str> =
        segments.as_array().unwrap().iter().map(|entry| entry["file"].as_str().unwrap()).collect();
    let gone = segments[segments.len() - 2];
    let archive = scratch::directory("archive");
    fs::rename(source.path("pg_wal").join(gone), archive.path().join(gone)).unwrap();
    // Its settings still name the server that it once followed.
    assert_check(&of(&[]).0.json(), "replay_wal", "warn");
    append(&source.path("postgresql.auto.conf"), "primary_conninfo = ''\n");
    // Whoever makes it a standby later may know more.
    assert_check(&of(&[]).0.json(), "replay_wal", "warn");
    source.start();
    let (plan, outcome) = Plan::make(target, Source::Server(source, "postgres"), &["-R"]);
    source.stop(Stop::Fast);
    assert_eq!(outcome.status.code(), Some(4), "{outcome}");
    let plan = plan.json();
    assert_check(&plan, "replay_wal", "fail");
    let lines = check(&plan, "replay_wal")["evidence"].to_string();
    assert!(lines.contains(&format!("{gone}: MISSING")), "{lines}");
    // What replay would read is said all the same.
    assert!(plan["wal"]["segments"].as_array().unwrap().len() >= segments.len());

    source.append_config(&restore_from(archive.path()));
    let (plan, outcome) = of(&[]);
    let _ = outcome.success();
    assert_check(&plan.json(), "replay_wal", "warn");
    let _ = plan.apply(&[]).success();
    source.start();
    target.follow(source);
    assert_follows(target, source);
}

/// A setting that restores from a directory.
fn restore_from(archive: &Path) -> String {
    format!("restore_command = 'cp {}/%f %p'\n", archive.display())
}

/// A standby that has received WAL from behind the fork without replaying it needs no rewind, but must not find
/// that WAL when it is started.
#[test]
fn received_and_not_replayed() {
    let primary = Cluster::initdb(Major(14), &InitOptions::default());
    primary.start();
    workload::prepare(&primary);
    let standby = || {
        let standby = primary.basebackup_standby(RecoveryConfig::Basebackup);
        standby.start();
        standby
    };
    let (target, source) = (standby(), standby());
    insert(&primary, "common");
    [&target, &source].into_iter().for_each(|standby| standby.wait_for_catchup(&primary));
    source.leave_upstream();
    target.sql("postgres", "SELECT pg_wal_replay_pause()");
    target.wait_for("postgres", "pg_get_wal_replay_pause_state() = 'paused'");
    insert(&primary, "target");
    let end = primary.wal_end();
    target.wait_for("postgres", &format!("pg_last_wal_receive_lsn() >= '{end}'"));
    source.promote();
    source.checkpoint();
    target.stop(Stop::Fast);
    let (plan, outcome) = planned(&target, &source);
    let _ = outcome.success();
    assert_eq!(plan["verdict"], "not_needed");
    assert_check(&plan, "divergence", "warn");
    let remedy = check(&plan, "divergence")["remedy"].as_str().unwrap();
    let first = remedy.split(' ').find(|word| word.starts_with("00000001")).unwrap();
    let elsewhere = scratch::directory("elsewhere");
    for entry in fs::read_dir(target.path("pg_wal")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.len() == 24 && name.as_str() >= first && name.starts_with("00000001") {
            fs::rename(target.path("pg_wal").join(&name), elsewhere.path().join(&name)).unwrap();
        }
    }
    assert_check(&planned(&target, &source).0, "divergence", "pass");
    target.follow(&source);
    assert_follows(&target, &source);
}

/// Adds rows that say where they were written.
fn insert(cluster: &Cluster, origin: &str) {
    let table = "CREATE TABLE IF NOT EXISTS rows (id bigserial PRIMARY KEY, origin text NOT NULL)";
    cluster.sql("postgres", table);
    cluster.sql("postgres", &format!("INSERT INTO rows (origin) SELECT '{origin}' FROM generate_series(1, 1000)"));
}
