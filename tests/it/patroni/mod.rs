//! Patroni calls the program in pg_rewind's place, by its own decision: the old primary comes back and streams.

mod duo;
mod etcd;
mod node;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use pg_unfork::format::ControlFile;
use serde_json::Value;

use crate::support::background::Background;
use crate::support::cluster::Cluster;
use crate::support::dropin::{Call, DropIn};
use crate::support::outcome::Outcome;
use crate::support::relay::Relay;
use crate::support::servers::Major;
use duo::Duo;
use node::Setup;

/// What most tests have. Patroni removes what it cannot rewind: nothing may ever be removed.
fn setup(major: u16, scope: &'static str, dropin: &DropIn) -> Setup {
    Setup { major: Major(major), scope, pg_rewind: dropin.wrapper(), settings_outside: false, removes: true }
}

/// The only call has done everything, and said nothing where others read.
#[track_caller]
fn assert_quiet_success(call: &Call) {
    assert_eq!((call.status, call.stdout), (Some(0), Some(0)), "{call:?}");
}

/// What cannot be the same in a data directory that somebody has made anew.
fn identity(server: &Cluster) -> (u64, u64) {
    let metadata = fs::metadata(server.data()).expect("a data directory");
    let version = fs::metadata(server.path("PG_VERSION")).expect("a cluster");
    (metadata.ino(), version.ino())
}

#[test]
fn a_primary_killed_under_load() {
    let dropin = DropIn::new();
    let mut duo = Duo::start(setup(18, "load", &dropin));
    let before = identity(&duo.old.server);
    let pgbench = |arguments: &[&str]| {
        let server = &duo.old.server;
        let mut command = server.installation().command("pgbench");
        command.args(arguments).args(server.connection_options()).arg("postgres");
        command
    };
    let _ = Outcome::of(&mut pgbench(&["-i", "-q"])).success();
    duo.new.server.wait_for_catchup(&duo.old.server);
    let mut load = Background::spawn(&mut pgbench(&["-c", "3", "-T", "600"]));
    duo.part();
    load.assert_runs();
    duo.fail_over(false);
    duo.old.start();
    duo.assert_healthy();
    let [call] = &*dropin.calls() else { panic!("{:?}", dropin.calls()) };
    assert_quiet_success(call);
    let [option, directory, source, dsn] = &*call.arguments else { panic!("{call:?}") };
    assert_eq!([option, source], ["-D", "--source-server"]);
    assert_eq!(*directory, duo.old.server.data().display().to_string());
    assert!(dsn.contains("user=rewind_user") && dsn.contains("target_session_attrs=read-write"), "{dsn}");
    assert_eq!(identity(&duo.old.server), before);
}

/// What becomes of a rewind that is cut and gone on with, and not taken back.
const GONE_ON_WITH: &[&str] = &["apply", "resume", "applied", "cleaned"];

/// What has happened to the data directory, in this order and nothing else. What was kept meanwhile is gone.
#[track_caller]
fn assert_history(server: &Cluster, wanted: &[&str]) {
    let history = fs::read_to_string(server.path(".pg_unfork/history")).expect("a history");
    let event = |line: &str| serde_json::from_str::<Value>(line).expect("an event")["event"].clone();
    let events: Vec<_> = history.lines().map(event).collect();
    assert_eq!(events, wanted, "{history}");
    let left = fs::read_dir(server.path(".pg_unfork")).expect("a state directory");
    assert_eq!(left.map(|entry| entry.expect("an entry").file_name()).collect::<Vec<_>>(), ["history"]);
}

/// Starts the old primary's node, and waits until the program is in mid-rewind.
fn start_and_wait_for_rewind(duo: &mut Duo, relay: &Relay) {
    duo.fail_over(true);
    duo.old.start();
    relay.wait_until_held();
    let control = fs::read(duo.old.server.path("global/pg_control")).expect("a control file");
    assert!(ControlFile::parse(&control).expect("a control file").is_sealed(), "{}", duo.story());
}

/// Power is cut while the rewind goes on: Patroni has it gone on with when it is started again.
#[test]
fn a_node_killed_in_mid_rewind() {
    let dropin = DropIn::new();
    let (mut duo, relay) = Duo::start_with_relay(setup(16, "node", &dropin));
    let before = identity(&duo.old.server);
    start_and_wait_for_rewind(&mut duo, &relay);
    duo.old.kill();
    relay.release();
    duo.old.start();
    duo.assert_healthy();
    assert_history(&duo.old.server, GONE_ON_WITH);
    assert_eq!(identity(&duo.old.server), before);
}

/// Patroni is asked to end while the rewind goes on. The program heeds that, and its work is gone on with.
#[test]
fn patroni_stopped_in_mid_rewind() {
    let dropin = DropIn::new();
    let setup = Setup { pg_rewind: dropin.link(), removes: false, ..setup(14, "stop", &dropin) };
    let (mut duo, relay) = Duo::start_with_relay(setup);
    let before = identity(&duo.old.server);
    start_and_wait_for_rewind(&mut duo, &relay);
    duo.old.stop();
    relay.release();
    duo.old.start();
    duo.assert_healthy();
    assert_history(&duo.old.server, &["apply", "stopped", "resume", "applied", "cleaned"]);
    assert_eq!(identity(&duo.old.server), before);
}

/// The program alone is killed: Patroni takes that for a failure, and no server starts on what is there.
#[test]
fn the_program_killed_in_mid_rewind() {
    let dropin = DropIn::new();
    let mut duo = Duo::start(Setup { removes: false, ..setup(17, "program", &dropin) });
    let before = identity(&duo.old.server);
    duo.part();
    duo.fail_over(true);
    dropin.doom_next_call();
    duo.old.start();
    duo.wait_for_words(&duo.old, "Failed to rewind from healthy primary: new");
    duo.wait_for_words(&duo.old, "control file contains invalid checkpoint location");
    assert!(dropin.calls()[0].was_killed(), "{:?}", dropin.calls());
    duo.old.kill_patroni();
    duo.old.start();
    duo.assert_healthy();
    assert_quiet_success(dropin.calls().last().expect("a call"));
    assert_history(&duo.old.server, GONE_ON_WITH);
    assert_eq!(identity(&duo.old.server), before);
}

/// A key of TLS in the data directory, which its owner can only read.
#[test]
fn a_file_that_is_read_only() {
    let dropin = DropIn::new();
    let mut duo = Duo::start(setup(19, "key", &dropin));
    for node in [&duo.old, &duo.new] {
        let key = node.server.path("server.key");
        fs::write(&key, node.name()).expect("a key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).expect("a key");
    }
    duo.part();
    duo.fail_over(true);
    duo.old.start();
    duo.assert_healthy();
    let key = duo.old.server.path("server.key");
    assert_eq!(fs::read_to_string(&key).expect("a key"), "new");
    assert_eq!(fs::metadata(&key).expect("a key").mode() & 0o777, 0o400);
    assert_eq!(dropin.calls().len(), 1);
}

/// Settings are outside of the data directory, as on Debian, and WAL that is needed is only in the archive.
fn settings_outside(major: u16, scope: &'static str) -> Vec<Call> {
    let dropin = DropIn::new();
    let mut duo = Duo::start(Setup { settings_outside: true, ..setup(major, scope, &dropin) });
    duo.part();
    let old = &duo.old.server;
    let archived = old.sql("postgres", "SELECT pg_walfile_name(pg_switch_wal())");
    old.checkpoint();
    duo.wait(&duo.old, &format!("last_archived_wal >= '{archived}' FROM pg_stat_archiver"));
    let kept = old.sql("postgres", "SELECT pg_walfile_name(redo_lsn) FROM pg_control_checkpoint()");
    duo.fail_over(true);
    let mut removed = 0;
    for entry in fs::read_dir(duo.old.server.path("pg_wal")).expect("WAL") {
        let entry = entry.expect("WAL");
        if entry.file_name().len() == 24 && *entry.file_name() < *kept {
            fs::remove_file(entry.path()).expect("WAL");
            removed += 1;
        }
    }
    assert!(removed > 1, "{removed} before {kept}");
    duo.old.start();
    duo.assert_healthy();
    assert_quiet_success(dropin.calls().last().expect("a call"));
    dropin.calls()
}

/// From 15 on Patroni says where the settings are, and the program restores what it needs.
#[test]
fn settings_outside_and_wal_in_the_archive() {
    let calls = settings_outside(15, "settings");
    let [call] = &*calls else { panic!("{calls:?}") };
    assert_eq!(call.arguments[0], "--restore-target-wal");
    assert!(call.arguments[1].starts_with("--config-file=/"), "{call:?}");
}

/// Before 15 Patroni reads which segment is missing, restores it, and calls again.
#[test]
fn settings_outside_and_wal_that_patroni_restores() {
    let calls = settings_outside(13, "missing");
    assert!(calls.len() > 1, "{calls:?}");
    assert!(calls.iter().all(|call| call.arguments[0] == "-D"), "{calls:?}");
}
