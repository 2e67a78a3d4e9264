//! What is checked of the target's side, on real clusters: what goes of its own, and what an apply would meet.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use pg_unfork::format::{Major as Format, ReplicationSlot};
use pg_unfork::types::Lsn;
use serde_json::Value;

use crate::support::cluster::{Cluster, InitOptions, Stop, append};
use crate::support::life::assert_follows;
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::Plan;
use crate::support::workload::REWIND_USER;

/// A check of a plan by its name.
fn check<'p>(plan: &'p Value, id: &str) -> &'p Value {
    let mut found = plan["checks"].as_array().unwrap().iter().filter(|check| check["id"] == id);
    let check = found.next().unwrap_or_else(|| panic!("no check {id}: {:#}", plan["checks"]));
    assert!(found.next().is_none(), "{id} twice");
    check
}

#[track_caller]
fn assert_check(plan: &Value, id: &str, status: &str, words: &[&str]) {
    let check = check(plan, id);
    assert_eq!(check["status"], status, "{check:#}");
    let text = format!("{check:#}");
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in {text}");
    }
    assert_eq!(check.get("remedy").is_some(), status != "pass", "{text}");
}

/// The state file says what the server says of its slots, in every major.
#[test]
fn slots_are_read_as_servers_show_them() {
    for (major, format) in Major::ALL.into_iter().zip(Format::ALL) {
        let cluster = Cluster::initdb(major, &InitOptions::default());
        cluster.append_config("wal_level = logical\n");
        cluster.start();
        let mut making = "SELECT pg_create_physical_replication_slot('reserving', true);
             SELECT pg_create_physical_replication_slot('idle');
             SELECT pg_create_logical_replication_slot('logical', 'pgoutput');
             SELECT pg_create_logical_replication_slot('temporary', 'pgoutput', true);"
            .to_owned();
        let (mut two_phase, mut failover) = ("false", "false");
        if major.0 >= 14 {
            making.push_str("SELECT pg_create_logical_replication_slot('prepared', 'test_decoding', false, true);");
            two_phase = "two_phase";
        }
        if major.0 >= 17 {
            making.push_str("SELECT pg_create_logical_replication_slot('failing', 'pgoutput', false, false, true);");
            failover = "failover";
        }
        let query = format!(
            "SELECT slot_name, coalesce(plugin, '-'), coalesce(datoid, 0), coalesce(restart_lsn, '0/0'),
                coalesce(confirmed_flush_lsn, '0/0'), {two_phase}, {failover}
             FROM pg_replication_slots WHERE NOT temporary ORDER BY 1"
        );
        cluster.sql("postgres", &making);
        cluster.checkpoint();
        let shown = cluster.rows("postgres", &query);
        cluster.stop(Stop::Fast);
        let read = shown.iter().map(|row| {
            let bytes = fs::read(cluster.path("pg_replslot").join(&row[0]).join("state")).unwrap();
            let slot = ReplicationSlot::parse(&bytes, format.facts()).unwrap();
            assert!(slot.persistent && !slot.synced);
            let flag = |set: bool| if set { "t" } else { "f" }.to_owned();
            let lsn = |lsn: Option<Lsn>| lsn.unwrap_or_default();
            let (restart, confirmed) = (lsn(slot.restart_lsn), lsn(slot.confirmed_flush));
            assert_eq!((row[3].parse(), row[4].parse()), (Ok(restart), Ok(confirmed)), "{major}");
            vec![
                slot.name,
                slot.plugin.unwrap_or("-".to_owned()),
                slot.database.unwrap_or(0).to_string(),
                row[3].clone(),
                row[4].clone(),
                flag(slot.two_phase),
                flag(slot.failover),
            ]
        });
        let read: Vec<Vec<String>> = read.collect();
        assert_eq!(read, shown, "{major}");
        assert!(shown.len() >= 3, "{major}");
    }
}

/// Lines that a target's settings have and the source's have not, with secrets.
const OWN_SETTINGS: &str = "work_mem = '7MB' # s3cr3t\n\
    restore_command = 'KEY=s3cr3t get %f'\n\
    primary_conninfo = 'host=old.example user=u password=s3cr3t'\n\
    extension.key = 's3cr3t'\n\
    archive_cleanup_command = 's3cr3t'\n";

/// A pair whose target has slots, un-archived WAL and settings of its own, and both have files of people.
fn pair_with_its_own(major: Major) -> Pair {
    let pair = Pair::simple(major, |builder| {
        builder
            .config("wal_level = logical\narchive_mode = on\narchive_command = 'KEY=s3cr3t false %p'\n")
            .on_target_after_fork(|target| {
                target.sql("postgres", "SELECT pg_create_physical_replication_slot('physical', true)");
                target.sql("postgres", "SELECT pg_create_logical_replication_slot('logical', 'pgoutput')");
                target.sql("postgres", "SELECT pg_switch_wal()");
            })
    });
    let Pair { source, target } = &pair;
    target.append_config(OWN_SETTINGS);
    append(&target.path("pg_hba.conf"), "host all all ::1/128 ldap ldapserver=l ldapbindpasswd=s3cr3t\n");
    fs::create_dir(target.path("log")).unwrap();
    fs::write(target.path("log/old.log"), "old").unwrap();
    fs::write(target.path("notes\u{1b}"), "notes").unwrap();
    fs::create_dir(source.path("extra")).unwrap();
    fs::write(source.path("extra/file"), "extra").unwrap();
    drop(UnixListener::bind(target.path("socket")).unwrap());
    let _ = Outcome::of(Command::new("mkfifo").arg(target.path("base/pipe"))).success();
    symlink("/nowhere", target.path("elsewhere")).unwrap();
    pair
}

/// Takes away, or saves, what the warnings speak of, as their remedies say.
fn make_good(pair: &Pair) {
    let Pair { source, target } = pair;
    for path in ["log/old.log", "notes\u{1b}", "socket", "base/pipe", "elsewhere"] {
        fs::remove_file(target.path(path)).unwrap();
    }
    fs::remove_dir(target.path("log")).unwrap();
    fs::remove_dir_all(source.path("extra")).unwrap();
    for slot in ["physical", "logical"] {
        fs::remove_dir_all(target.path("pg_replslot").join(slot)).unwrap();
    }
    for file in ["postgresql.conf", "postgresql.auto.conf", "pg_hba.conf"] {
        fs::copy(source.path(file), target.path(file)).unwrap();
    }
    for status in fs::read_dir(target.path("pg_wal/archive_status")).unwrap() {
        let ready = status.unwrap().path();
        fs::rename(&ready, ready.with_extension("done")).unwrap();
    }
}

/// The checks without words that have digits: how far a live source's WAL reaches changes by itself.
fn without_numbers(checks: &Value) -> Vec<String> {
    let text = serde_json::to_string_pretty(checks).unwrap();
    let is_word = |word: &&str| !word.bytes().any(|byte| byte.is_ascii_digit());
    text.lines().map(|line| line.split_whitespace().filter(is_word).collect::<Vec<_>>().join(" ")).collect()
}

/// Everything of the target's own that goes is said, with what to do and without secrets; where nothing goes, all
/// checks pass.
#[test]
fn what_goes_of_the_targets_own() {
    let pair = pair_with_its_own(Major(17));
    let Pair { source, target } = &pair;
    let server = Source::Server(source, REWIND_USER);
    let warned = Plan::of(target, server, &[]);
    let document = warned.json();
    let first_ready = first_of(&target.path("pg_wal/archive_status"), ".ready");
    let segment = first_ready.trim_end_matches(".ready");
    let archive_command = format!("postgres -D {} -C archive_command", target.data().display());
    assert_check(&document, "unarchived_wal", "warn", &[segment, &archive_command, ".pg_unfork/undo", "--no-undo"]);
    let slots = [
        "2 of the target's replication slots vanish, 1 of them logical",
        "physical: physical, restart_lsn ",
        "logical: logical, plugin pgoutput, database ",
        ", confirmed_flush_lsn ",
        "SELECT pg_create_physical_replication_slot('physical', true);",
    ];
    assert_check(&document, "replication_slots", "warn", &slots);
    let special = ["socket: socket, stays", "base/pipe: named pipe, stays", "elsewhere -> /nowhere: is removed"];
    assert_check(&document, "special_files", "warn", &special);
    let settings = [
        "+++ source: postgresql.conf",
        "-work_mem = 7MB\"",
        "-restore_command = ***",
        "-primary_conninfo = host=old.example user=u password=***",
        "-extension.key = ***",
        "-host all all ::1/128 ldap ldapserver=l ldapbindpasswd=***",
        "--config-policy target",
    ];
    assert_check(&document, "configuration", "warn", &settings);
    let logs = "2 files of log directories are left alone";
    let files = ["extra: 2 paths fetched", logs, "notes%1B: 1 path removed", "elsewhere: 1 path"];
    assert_check(&document, "log_files", "warn", &files);
    assert_check(&document, "starts_as_standby", "warn", &["SECOND PRIMARY", "-R"]);
    let text = String::from_utf8(warned.document()).unwrap();
    assert!(!text.contains("s3cr3t") && !text.contains('\u{1b}'));
    let commands = check(&document, "replication_slots")["commands"].clone();
    let again = Plan::of(target, server, &[]).json();
    assert_eq!(without_numbers(&again["checks"]), without_numbers(&document["checks"]), "said the same way");

    make_good(&pair);
    let good = Plan::of(target, server, &["-R"]);
    let document = good.json();
    for id in [
        "writable",
        "tablespaces",
        "space",
        "unarchived_wal",
        "replication_slots",
        "special_files",
        "configuration",
        "log_files",
        "starts_as_standby",
    ] {
        assert_check(&document, id, "pass", &[]);
    }
    assert_check(&document, "configuration", "pass", &["-R appends primary_conninfo = user=rewind_user "]);
    let _ = good.apply(&[]).success();
    source.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
    assert_follows(target, source);
    let statement = commands[0].as_str().unwrap();
    assert!(target.sql("postgres", statement).starts_with("(physical,0/"), "{statement}");
}

/// The first name in a directory that ends so.
fn first_of(directory: &Path, suffix: &str) -> String {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(suffix)).min().unwrap()
}

/// Room that is not there, a link that leads in a circle, a slot that is damaged, signal files: each is said.
#[test]
fn what_an_apply_would_meet() {
    let pair = Pair::shared(Major(14)).copy();
    let Pair { source, target } = &pair;
    let make = || Plan::make(target, Source::Directory(source), &[]);
    let sparse = |path: &Path, size: u64| {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
        let before = file.metadata().unwrap().len();
        file.set_len(size).unwrap();
        before
    };

    // What is longer on the target is kept for an undo when it is cut off.
    let (plan, outcome) = make();
    let _ = outcome.success();
    let document = plan.json();
    assert_check(&document, "space", "pass", &[]);
    assert_check(&document, "starts_as_standby", "warn", &["SECOND PRIMARY"]);
    let patched = document["actions"].as_array().unwrap().iter().find(|action| action["kind"] == "patch").unwrap();
    let patched = target.path(patched["path"].as_str().unwrap());
    let size = sparse(&patched, 1 << 42);
    let (plan, outcome) = make();
    let _ = outcome.success();
    assert_check(&plan.json(), "space", "warn", &["bytes are free", "--no-undo"]);
    sparse(&patched, size);

    // Both sides' own, together.
    sparse(&source.path("huge"), 1 << 50);
    fs::write(source.path("recovery.signal"), "").unwrap();
    fs::write(target.path("standby.signal"), "").unwrap();
    fs::create_dir(target.path("pg_replslot/damaged")).unwrap();
    fs::write(target.path("pg_replslot/damaged/state"), "damaged").unwrap();
    let (plan, outcome) = make();
    assert_eq!(outcome.status.code(), Some(4), "{outcome}");
    assert!(outcome.stderr.contains("FAILED: space: there is no room for the plan"), "{outcome}");
    let document = plan.json();
    assert_check(&document, "space", "fail", &["bytes are free, the plan needs 1125900"]);
    assert_eq!((&document["applyable"], &document["verdict"]), (&Value::from(false), &Value::from("impossible")));
    assert_check(&document, "starts_as_standby", "warn", &["recovery.signal and no standby.signal"]);
    assert_check(
        &document,
        "replication_slots",
        "warn",
        &["pg_replslot/damaged/state cannot be understood: it begins with"],
    );
    let _ = plan.apply(&[]).failure();
    fs::remove_file(source.path("huge")).unwrap();
    fs::rename(source.path("recovery.signal"), source.path("standby.signal")).unwrap();
    let (plan, outcome) = make();
    let _ = outcome.success();
    assert_check(&plan.json(), "starts_as_standby", "pass", &["will have standby.signal"]);

    // What no plan sees, in the way of a directory.
    fs::create_dir(source.path("odd")).unwrap();
    fs::write(source.path("odd/file"), "odd").unwrap();
    drop(UnixListener::bind(target.path("odd")).unwrap());
    let (plan, outcome) = make();
    assert_eq!(outcome.status.code(), Some(4), "{outcome}");
    assert_check(&plan.json(), "special_files", "fail", &["odd: socket, is in the way"]);
    assert_check(&plan.json(), "writable", "fail", &["odd/file: what is in its directory's place is no directory"]);
    fs::remove_file(target.path("odd")).unwrap();

    // Circles, where something is read through them and where it is not.
    let link = target.links().remove(0);
    let text = fs::read_link(&link).unwrap();
    fs::remove_file(&link).unwrap();
    symlink(&link, &link).unwrap();
    let (_, outcome) = make();
    assert_eq!(outcome.status.code(), Some(4), "{outcome}");
    assert!(outcome.stderr.contains("leads back to itself"), "{outcome}");
    fs::remove_file(&link).unwrap();
    symlink("/nowhere", &link).unwrap();
    let (plan, outcome) = make();
    assert_eq!(outcome.status.code(), Some(4), "{outcome}");
    assert_check(&plan.json(), "tablespaces", "fail", &["which cannot be opened", "mount or restore"]);
    fs::remove_file(&link).unwrap();
    symlink(text, link).unwrap();
}
