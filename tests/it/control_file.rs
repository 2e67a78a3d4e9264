//! `global/pg_control`: ours reads what pg_controldata of the same major prints, and no server
//! starts on a sealed one.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use pg_unfork::format::{BackupLabel, ControlFile, DbState};
use pg_unfork::types::Lsn;

use crate::support::cluster::{Cluster, InitOptions, Stop, append};
use crate::support::for_each_major;
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::replication::RecoveryConfig;
use crate::support::servers::Major;

for_each_major!(fields_of_a_primary, fields_of_a_standby, fields_of_the_pair, sealed);

/// What the server says of a sealed control file.
const REFUSAL: &str = "invalid checkpoint location";

fn fields_of_a_primary(major: Major) {
    let arguments = match major.0 {
        16.. => vec!["--set=wal_log_hints=on".to_owned()],
        _ => Vec::new(),
    };
    let options = InitOptions { wal_segment_mib: 2, checksums: false, arguments, ..InitOptions::default() };
    let primary = Cluster::initdb(major, &options);
    let fresh = assert_fields(&primary, DbState::ShutDown);
    assert_eq!(fresh.settings().data_checksums, 0);
    assert_eq!(fresh.settings().wal_log_hints, major.0 >= 16);
    assert_eq!(fresh.geometry().wal_segment_size.bytes(), 2 << 20);

    primary.append_config("wal_log_hints = on\n");
    primary.start();
    assert_fields(&primary, DbState::InProduction);
    primary.checkpoint();
    primary.stop(Stop::Immediate);
    let crashed = assert_fields(&primary, DbState::InProduction);
    assert!(crashed.settings().wal_log_hints);
    assert!(crashed.checkpoint().redo < crashed.checkpoint_location(), "an online checkpoint");

    primary.start();
    primary.stop(Stop::Fast);
    let stopped = assert_fields(&primary, DbState::ShutDown);
    assert_eq!(stopped.checkpoint().redo, stopped.checkpoint_location());
    assert_eq!(stopped.min_recovery_point(), Lsn::INVALID);
}

fn fields_of_a_standby(major: Major) {
    let primary = Cluster::initdb(major, &InitOptions::default());
    primary.start();
    let standby = primary.basebackup_standby(RecoveryConfig::Basebackup);
    let backup = assert_fields(&standby, DbState::InProduction);
    assert_eq!(backup.settings().data_checksums, 1);

    standby.start();
    primary.sql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 5000)");
    standby.wait_for_catchup(&primary);
    standby.stop(Stop::Immediate);
    let crashed = assert_fields(&standby, DbState::InArchiveRecovery);
    assert!(crashed.min_recovery_point().is_valid());

    standby.start();
    primary.checkpoint();
    standby.wait_for_catchup(&primary);
    standby.stop(Stop::Fast);
    let stopped = assert_fields(&standby, DbState::ShutDownInRecovery);
    assert!(stopped.min_recovery_point() > stopped.checkpoint_location());
    assert_eq!(stopped.min_recovery_timeline().get(), 1);
    assert_eq!(stopped.header(), control_file(&primary).header());

    standby.start();
    standby.promote();
    standby.stop(Stop::Immediate);
    let promoted = assert_fields(&standby, DbState::InProduction);
    assert_eq!(promoted.timeline().get(), 2);
}

fn fields_of_the_pair(major: Major) {
    let pair = Pair::shared(major);
    let target = assert_fields(&pair.target, DbState::ShutDown);
    let source = assert_fields(&pair.source, DbState::ShutDown);
    assert_eq!(target.header(), source.header());
    assert_eq!((target.timeline().get(), source.timeline().get()), (1, 2));
}

/// Panics unless our fields are what pg_controldata prints and the state is `state`.
#[track_caller]
fn assert_fields(cluster: &Cluster, state: DbState) -> ControlFile {
    let control = control_file(cluster);
    let printed = cluster.controldata();
    let mut ours = fields(&control);
    ours.insert("Database cluster state", state.words().to_owned());
    for (label, value) in ours {
        let theirs = printed.get(label).unwrap_or_else(|| panic!("no {label:?} in {printed:#?}"));
        assert_eq!(normal(theirs), value, "{label}");
    }
    assert_eq!(control.state(), state);
    assert_eq!(control.facts().major.number(), u32::from(cluster.major().0));
    assert!(!control.is_sealed());
    control
}

/// All that we read, in pg_controldata's words.
fn fields(control: &ControlFile) -> BTreeMap<&'static str, String> {
    let header = control.header();
    let geometry = control.geometry();
    let checkpoint = control.checkpoint();
    let settings = control.settings();
    let limits = settings.limits;
    let on_off = |on| if on { "on" } else { "off" }.to_owned();
    BTreeMap::from([
        ("Latest checkpoint's full_page_writes", on_off(checkpoint.full_page_writes)),
        ("max_connections setting", limits.max_connections.to_string()),
        ("max_worker_processes setting", limits.max_worker_processes.to_string()),
        ("max_wal_senders setting", limits.max_wal_senders.to_string()),
        ("max_prepared_xacts setting", limits.max_prepared_transactions.to_string()),
        ("max_locks_per_xact setting", limits.max_locks_per_transaction.to_string()),
        ("pg_control version number", header.control_version.to_string()),
        ("Catalog version number", header.catalog_version.to_string()),
        ("Database system identifier", header.system_identifier.to_string()),
        ("Database cluster state", control.state().words().to_owned()),
        ("pg_control last modified", time(control.time())),
        ("Latest checkpoint location", control.checkpoint_location().to_string()),
        ("Latest checkpoint's REDO location", checkpoint.redo.to_string()),
        ("Latest checkpoint's TimeLineID", checkpoint.timeline.to_string()),
        ("Time of latest checkpoint", time(checkpoint.time)),
        ("Minimum recovery ending location", control.min_recovery_point().to_string()),
        ("Min recovery ending loc's timeline", control.min_recovery_timeline().to_string()),
        ("wal_log_hints setting", on_off(settings.wal_log_hints)),
        ("Database block size", geometry.block_size.to_string()),
        ("Blocks per segment of large relation", geometry.relation_segment_blocks.to_string()),
        ("WAL block size", geometry.wal_page_size.to_string()),
        ("Bytes per WAL segment", geometry.wal_segment_size.bytes().to_string()),
        ("Data page checksum version", settings.data_checksums.to_string()),
    ])
}

/// A value of pg_controldata with positions written in one way: 19 pads them with zeros.
fn normal(value: &str) -> String {
    value.parse::<Lsn>().map_or_else(|_| value.to_owned(), |lsn| lsn.to_string())
}

/// A time as pg_controldata prints it (`%c` of the C locale, in UTC).
fn time(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds).expect("a time").to_zoned(TimeZone::UTC);
    time.strftime("%a %b %e %H:%M:%S %Y").to_string()
}

fn control_file(cluster: &Cluster) -> ControlFile {
    let bytes = fs::read(cluster.path("global/pg_control")).expect("the control file");
    ControlFile::parse(&bytes).expect("a valid control file")
}

/// No server starts on a sealed control file, whatever else the directory asks for; with the
/// original in its place again, it starts.
fn sealed(major: Major) {
    let cluster = Cluster::initdb(major, &InitOptions::default());
    cluster.append_config("restore_command = 'false'\n");
    cluster.start();
    let backup = cluster.basebackup_standby(RecoveryConfig::Basebackup);
    cluster.stop(Stop::Fast);
    let streamed = fs::read_to_string(backup.path("backup_label")).expect("the label of a base backup");
    assert!(streamed.contains("BACKUP METHOD: streamed"), "{streamed}");

    let original = control_file(&cluster);
    let rewound = rewind_label(&original);
    seal(&cluster);
    refuses_in_every_mode(&cluster);
    for label in [rewound.as_str(), streamed.as_str()] {
        fs::write(cluster.path("backup_label"), label).expect("backup_label");
        refuses_in_every_mode(&cluster);
        let found = fs::read_to_string(cluster.path("backup_label")).expect("backup_label");
        assert_eq!(found, label, "a refused server has changed the label");
    }
    fs::remove_file(cluster.path("backup_label")).expect("backup_label");
    fs::write(cluster.path("global/pg_control"), original.as_bytes()).expect("the control file");
    cluster.start();
    assert_eq!(cluster.sql("postgres", "SELECT pg_is_in_recovery()"), "f");

    // A base backup as it came, with its own label and standby.signal.
    let whole = control_file(&backup);
    seal(&backup);
    assert_refuses(&backup);
    fs::write(backup.path("global/pg_control"), whole.as_bytes()).expect("the control file");
    backup.start();
    assert_eq!(backup.sql("postgres", "SELECT pg_is_in_recovery()"), "t");
}

fn rewind_label(control: &ControlFile) -> String {
    let checkpoint = control.checkpoint();
    let label = BackupLabel {
        start: checkpoint.redo,
        timeline: checkpoint.timeline,
        checkpoint: control.checkpoint_location(),
    };
    label.render(control.facts(), control.geometry().wal_segment_size, "2026-03-01 10:00:00 UTC")
}

/// Seals a stopped cluster's control file and checks what can be read from it.
fn seal(cluster: &Cluster) {
    let original = control_file(cluster);
    let sealed = original.clone().sealed();
    fs::write(cluster.path("global/pg_control"), sealed.as_bytes()).expect("the control file");

    let mut command = cluster.installation().command("pg_controldata");
    let outcome = Outcome::of(command.arg("-D").arg(cluster.data())).success();
    assert!(!outcome.stdout.contains("WARNING") && outcome.stderr.is_empty(), "{outcome}");
    let printed = cluster.controldata();
    assert_eq!(printed["Database cluster state"], "shut down");
    assert_eq!(printed["Database system identifier"], original.header().system_identifier.to_string());
    assert_eq!(normal(&printed["Latest checkpoint location"]), sealed.checkpoint_location().to_string());

    let read = control_file(cluster);
    assert!(read.is_sealed() && !original.is_sealed());
    assert_eq!(read.header(), original.header());
    assert_eq!(read.geometry(), original.geometry());
    assert_eq!(read.settings(), original.settings());
    assert_eq!(read.checkpoint(), original.checkpoint());
}

/// Neither plain nor as a standby nor to recover from an archive.
#[track_caller]
fn refuses_in_every_mode(cluster: &Cluster) {
    assert_refuses(cluster);
    for signal in ["standby.signal", "recovery.signal"] {
        append(&cluster.path(signal), "");
        assert_refuses(cluster);
        fs::remove_file(cluster.path(signal)).expect("the signal file");
    }
}

/// Neither pg_ctl nor a single-user backend gets a server to run, and each says why.
#[track_caller]
fn assert_refuses(cluster: &Cluster) {
    let control = fs::read(cluster.path("global/pg_control")).expect("the control file");
    let said = cluster.log().matches(REFUSAL).count();
    let outcome = cluster.try_start().failure();
    assert!(!cluster.is_running(), "{outcome}");
    assert_eq!(cluster.log().matches(REFUSAL).count(), said + 1, "{}", cluster.log());

    let mut single = cluster.installation().command("postgres");
    single.arg("--single").arg("-D").arg(cluster.data()).arg("postgres").stdin(Stdio::null());
    let outcome = Outcome::of(&mut single).failure();
    assert!(outcome.stderr.contains(REFUSAL), "{outcome}");
    assert!(!cluster.is_running(), "{outcome}");

    let after = fs::read(cluster.path("global/pg_control")).expect("the control file");
    assert!(control == after, "a refused server has changed the control file");
}
