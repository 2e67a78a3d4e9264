//! Targets that did not stop in good order: recovered by their own server, as stock does it, and never in vain.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use tempfile::TempDir;

use crate::support::cluster::{Cluster, Stop};
use crate::support::life::{assert_follows, assert_sound_at_rest};
use crate::support::likeness::assert_equal_outcome;
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::replication::RecoveryConfig;
use crate::support::scratch;
use crate::support::servers::Major;
use crate::support::stock::{self, Source};
use crate::support::tool::{Plan, pg_unfork};
use crate::support::tree::{self, Tree};

fn bindir(cluster: &Cluster) -> String {
    cluster.installation().bin("").display().to_string()
}

/// A pair whose target was killed while it had things to do; the source is stopped.
fn crashed(major: Major, config: &str) -> Pair {
    let pair = Pair::simple(major, |builder| {
        builder.config(config).target_stop(Stop::Immediate).on_target_after_fork(|target| {
            target.checkpoint();
            target.sql("postgres", "CREATE TABLE late AS SELECT g FROM generate_series(1, 5000) g");
        })
    });
    pair.source.stop(Stop::Fast);
    pair
}

/// The file is there, and empty.
fn is_empty_file(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0)
}

/// A primary was killed; somebody has made it a standby already. Archiving is on, and nothing is archived. The outcome
/// is stock's.
fn killed_primary(major: Major) {
    let archive = scratch::directory("archive");
    let log = archive.path().join("log");
    let config = format!("archive_mode = on\narchive_command = 'echo %f >>{}; false'\n", log.display());
    let Pair { source, target } = crashed(major, &config);
    let stock_target = target.duplicate();
    let signal = target.path("standby.signal");
    fs::write(&signal, "").unwrap();
    let before = Tree::of(&target);
    let archived = fs::read(&log).unwrap_or_default();
    let (_, outcome) = Plan::make(&target, Source::Directory(&source), &[]);
    assert_eq!(outcome.status.code(), Some(4), "{outcome}");
    assert!(outcome.stderr.contains("--recover-target"), "{outcome}");
    assert_eq!(tree::diff(&before, &Tree::of(&target), &|_| false), [""; 0]);
    let bindir = bindir(&target);
    let arguments = ["--recover-target", "--pg-bindir", &bindir];
    let plan = Plan::of(&target, Source::Directory(&source), &arguments);
    assert!(is_empty_file(&signal) && !target.path(".pg_unfork").exists());
    assert_eq!(plan.json()["target"]["control_file"]["state"], "shut_down");
    assert_eq!(fs::read(&log).unwrap_or_default(), archived);
    // Once more there is nothing to recover.
    let (_, outcome) = Plan::make(&target, Source::Directory(&source), &arguments);
    let outcome = outcome.success();
    assert!(outcome.stderr.contains("needs no recovery"), "{outcome}");
    let _ = plan.apply(&[]).success();
    let _ = stock::rewind(&stock_target, Source::Directory(&source), &[]).success();
    assert!(!signal.exists());
    assert_equal_outcome(&target, &stock_target, &plan.json(), None);
    source.start();
    target.follow(&source);
    assert_follows(&target, &source);
    assert_sound_at_rest(&target);
}

#[test]
fn killed_primary_of_13() {
    killed_primary(Major(13));
}

#[test]
fn killed_primary_of_17() {
    killed_primary(Major(17));
}

/// Settings elsewhere, which the last command line names, and which name another data directory; or which are named to
/// us. A program that is asked in vain, a plan that would be impossible, a backup: nothing is written then.
#[test]
fn settings_elsewhere_and_what_keeps_from_recovering() {
    let Pair { source, target } = crashed(Major(15), "");
    let outside = scratch::directory("etc");
    let file = outside.path().join("postgresql.conf");
    fs::rename(target.path("postgresql.conf"), &file).unwrap();
    let mut settings = fs::read_to_string(&file).unwrap();
    settings.push_str("data_directory = '/nowhere/at/all'\n");
    fs::write(&file, settings).unwrap();
    let bindir = bindir(&target);
    let from = Source::Directory(&source);
    let before = Tree::of(&target);
    let refused = |target: &Cluster, from: Source<'_>, arguments: &[&str], code: i32, text: &str| {
        let (_, outcome) = Plan::make(target, from, &[&["--recover-target"][..], arguments].concat());
        assert_eq!(outcome.status.code(), Some(code), "{outcome}");
        assert!(outcome.stderr.contains(text), "{outcome}");
    };
    refused(&target, from, &["--pg-bindir", "/nowhere"], 4, "looked at /nowhere/postgres: not there");
    let older = crate::support::servers::Installation::of(Major(14)).bin("").display().to_string();
    refused(&target, from, &["--pg-bindir", &older], 4, "is of 14");
    refused(&target, from, &["--preview"], 64, "cannot be used with");
    let other = Pair::shared(Major(15));
    refused(&target, Source::Directory(&other.source), &["--pg-bindir", &bindir], 4, "same_system");
    refused(&target, from, &["--pg-bindir", &bindir], 4, "could not access the server configuration file");
    fs::write(target.path("backup_label"), "START WAL LOCATION: 0/1 (file x)\n").unwrap();
    refused(&target, from, &["--pg-bindir", &bindir], 4, "the target has a backup_label");
    fs::remove_file(target.path("backup_label")).unwrap();
    assert_eq!(tree::diff(&before, &Tree::of(&target), &|path| path == Path::new("postmaster.pid")), [""; 0]);
    let named = target.duplicate();
    let shown = file.display().to_string();
    let _ = Plan::of(&named, from, &["--recover-target", "--pg-bindir", &bindir, "--config-file", &shown]);
    let line = format!("postgres \"-D\" \"/etc/xyz\" \"-c\" \"config_file={shown}\"\n");
    fs::write(target.path("postmaster.opts"), line).unwrap();
    let plan = Plan::of(&target, from, &["--recover-target", "--pg-bindir", &bindir]);
    assert_eq!(plan.json()["verdict"], "rewind");
}

/// A standby in place of PostgreSQL's program: it notes that it runs, and the first time waits to be killed, for good.
fn waiting_program(cluster: &Cluster) -> (TempDir, PathBuf) {
    let directory = scratch::directory("bin");
    let pid = directory.path().join("pid");
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = --single ] && [ ! -e {0} ]; then echo $$ >{0}.new; mv {0}.new {0}; trap '' TERM QUIT; exec sleep 60; fi\nexec {1} \"$@\"\n",
        pid.display(),
        cluster.installation().bin("postgres").display()
    );
    // Not by this process: what another test starts would hold the file open for writing.
    let mut shell = Command::new("sh");
    shell.args(["-c", "printf %s \"$1\" >postgres; chmod +x postgres", "sh", &script]).current_dir(directory.path());
    let _ = Outcome::of(&mut shell).success();
    (directory, pid)
}

fn start(target: &Cluster, source: &Cluster, bindir: &Path, pid: &Path) -> Child {
    let mut program = pg_unfork(&["plan", "--recover-target", "--allow-unreleased", "--pg-bindir"]);
    program.arg(bindir).arg("-D").arg(target.data()).arg("--source-pgdata").arg(source.data());
    let child = program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !pid.exists() {
        thread::yield_now();
    }
    child
}

fn kill(signal: &str, pid: &str) {
    let _ = Outcome::of(Command::new("kill").args([signal, pid.trim()])).success();
}

/// However a recovery is ended, standby.signal comes back: at once after a signal, with the next run after SIGKILL.
#[test]
fn killed_in_the_middle() {
    let Pair { source, target } = crashed(Major(19), "");
    let signal = target.path("standby.signal");
    fs::write(&signal, "kept").unwrap();
    let before = Tree::of(&target);
    let unchanged = |but: &dyn Fn(&Path) -> bool| tree::diff(&before, &Tree::of(&target), but);
    let (bindir, pid) = waiting_program(&target);
    let mut child = start(&target, &source, bindir.path(), &pid);
    assert!(!signal.exists());
    // What heeds no other signal is killed on a second one, before the program ends.
    for _ in 0..2 {
        kill("-TERM", &child.id().to_string());
    }
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(unchanged(&|_| false), [""; 0]);
    let waiting = fs::read_to_string(&pid).unwrap();
    assert!(!Path::new("/proc").join(waiting.trim()).exists());
    fs::remove_file(&pid).unwrap();
    let mut child = start(&target, &source, bindir.path(), &pid);
    kill("-KILL", &child.id().to_string());
    child.wait().unwrap();
    assert!(!signal.exists() && target.path(".pg_unfork").exists());
    // What still runs may be at work.
    let waiting = fs::read_to_string(&pid).unwrap();
    fs::write(target.path("postmaster.pid"), format!("-{waiting}")).unwrap();
    let (_, outcome) = Plan::make(&target, Source::Directory(&source), &[]);
    assert_eq!(outcome.status.code(), Some(4), "{outcome}");
    kill("-KILL", &waiting);
    while fs::read_to_string(format!("/proc/{}/stat", waiting.trim())).is_ok_and(|stat| !stat.contains(") Z ")) {
        thread::yield_now();
    }
    fs::remove_file(target.path("postmaster.pid")).unwrap();
    let (_, outcome) = Plan::make(&target, Source::Directory(&source), &[]);
    assert!(outcome.stderr.contains("put back standby.signal"), "{outcome}");
    assert_eq!(unchanged(&|path| path == Path::new("postmaster.pid")), [""; 0]);
    let bindir = bindir.path().display().to_string();
    let plan = Plan::of(&target, Source::Directory(&source), &["--recover-target", "--pg-bindir", &bindir]);
    assert_eq!(fs::read(&signal).unwrap(), b"kept");
    assert_eq!(plan.json()["verdict"], "rewind");
}

/// A standby that was killed behind the fork is recovered and rewound; one before it can follow as it is, and stays as
/// it is.
#[test]
fn killed_standbys() {
    let (mut before_fork, mut behind) = (None, None);
    let pair = Pair::simple(Major(16), |builder| {
        builder
            .before_fork(|primary| {
                let standby = primary.basebackup_standby(RecoveryConfig::Harness);
                standby.start();
                behind = Some(standby);
            })
            .before_fork(|primary| before_fork = Some(primary.standby_left_behind()))
            .on_target_after_fork(|target| {
                target.sql("postgres", "CREATE TABLE late AS SELECT g FROM generate_series(1, 5000) g");
                target.wait_for("postgres", "bool_and(replay_lsn = pg_current_wal_lsn()) FROM pg_stat_replication");
            })
    });
    let (before_fork, behind) = (before_fork.unwrap(), behind.unwrap());
    let bindir = bindir(&behind);
    let arguments = ["--recover-target", "--pg-bindir", &bindir];
    let source = &pair.source;
    source.stop(Stop::Fast);
    before_fork.stop(Stop::Immediate);
    let before = Tree::of(&before_fork);
    let (_, outcome) = Plan::make(&before_fork, Source::Directory(source), &arguments);
    assert_eq!(outcome.status.code(), Some(4), "{outcome}");
    assert!(outcome.stderr.contains("the target need not be rewound"), "{outcome}");
    assert_eq!(tree::diff(&before, &Tree::of(&before_fork), &|_| false), [""; 0]);
    behind.stop(Stop::Immediate);
    let plan = Plan::of(&behind, Source::Directory(source), &arguments);
    assert!(behind.path("standby.signal").exists());
    let _ = plan.apply(&[]).success();
    source.start();
    behind.follow(source);
    assert_follows(&behind, source);
    assert_sound_at_rest(&behind);
}

/// Whoever recovers a standby by hand, before the fork, parts it from the source there: that is not taken for a target
/// that follows.
#[test]
fn recovered_by_hand_before_the_fork() {
    let mut standby = None;
    let pair =
        Pair::simple(Major(14), |builder| builder.before_fork(|primary| standby = Some(primary.standby_left_behind())));
    let standby = standby.unwrap();
    pair.source.stop(Stop::Fast);
    standby.stop(Stop::Immediate);
    fs::remove_file(standby.path("standby.signal")).unwrap();
    let mut single = standby.installation().command("postgres");
    let _ = Outcome::of(single.arg("--single").arg("-D").arg(standby.data()).arg("template1")).success();
    let (_, outcome) = Plan::make(&standby, Source::Directory(&pair.source), &[]);
    assert_eq!(outcome.status.code(), Some(4), "{outcome}");
    assert!(outcome.stderr.contains("but the source has other WAL there"), "{outcome}");
}
