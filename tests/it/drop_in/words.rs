//! What the drop-in says, and that nobody needs to listen.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::support::cluster::{Cluster, Stop};
use crate::support::life::assert_follows;
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::rewind::{command, course, pg_rewind, rewind};
use crate::support::servers::Major;
use crate::support::stock::{self, Source};
use crate::support::tool::Plan;
use crate::support::tree::{self, Tree, modification_times};
use crate::support::workload::REWIND_USER;

/// A copy of the rich pair with its source running.
fn running_pair(major: u16) -> Pair {
    let pair = Pair::shared(Major(major)).copy();
    pair.source.start();
    pair
}

/// A run in which nobody reads what it says: standard error is closed, and of standard output a line is waited for.
#[test]
fn nobody_listens() {
    let pair = running_pair(15);
    let run = command(&pair.target, Source::Server(&pair.source, REWIND_USER), &["-P", "--debug"]);
    let mut shell = Command::new("bash");
    shell.args(["-c", "exec -a pg_rewind \"$@\" 2>&-", "bash"]).arg(run.get_program()).args(run.get_args());
    let mut child = shell.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    // As repmgr does: one line, and then the pipe is closed.
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "");
    assert!(child.wait().unwrap().success());
    assert_eq!(pair.target.controldata()["Database cluster state"], "in archive recovery");
    // A pipe that is broken is none the worse.
    let again = pair.copy_target();
    let run = command(&again, Source::Server(&pair.source, REWIND_USER), &["--debug"]);
    let mut shell = Command::new("bash");
    let script = "((exec -a pg_rewind \"$@\"); echo $? >&3) 3>status 2>&1 | true; cat status; rm status";
    shell.current_dir(again.base()).args(["-c", script, "bash"]).arg(run.get_program()).args(run.get_args());
    let outcome = Outcome::of(&mut shell).success();
    assert_eq!(outcome.stdout, "0\n", "{outcome}");
}

/// What is changed by no run that shall not change anything.
#[track_caller]
fn unchanged(target: &Cluster, run: impl FnOnce() -> Outcome) -> Outcome {
    let (before, times) = (Tree::of(target), modification_times(target));
    let outcome = run();
    assert_eq!(tree::diff(&before, &Tree::of(target), &|_| false), [""; 0], "{outcome}");
    assert_eq!(tree::different_times(&times, &modification_times(target)), [""; 0], "{outcome}");
    outcome
}

/// A dry run says what stock's says, and writes nothing; progress has pg_rewind's shape.
#[test]
fn a_dry_run_and_progress() {
    for major in [13, 19] {
        let pair = running_pair(major);
        let source = Source::Server(&pair.source, REWIND_USER);
        let dry = unchanged(&pair.target, || rewind(&pair.target, source, &["-nRP"])).success();
        let stock = stock::rewind(&pair.target, source, &["-nR"]).success();
        assert_eq!(course(&dry.stderr), course(&stock.stderr));
        assert_eq!(course(&dry.stderr).len(), 3, "{dry}");
        let outcome = rewind(&pair.target, source, &["-PR", "--debug"]).success();
        assert_eq!(course(&outcome.stderr), course(&stock.stderr));
        assert!(outcome.stderr.starts_with("pg_rewind: connected to server\npg_rewind: servers diverged"), "{outcome}");
        let copied: Vec<&str> = outcome.stderr.lines().filter(|line| line.ends_with(" copied")).collect();
        let (first, last) = (copied.first().unwrap().trim_start(), copied.last().unwrap());
        assert!(first.starts_with("0/") && first.ends_with(" kB (0%) copied"), "{outcome}");
        assert!(last.ends_with(" kB (100%) copied"), "{outcome}");
        assert!(outcome.stderr.contains("\npg_rewind: global/pg_filenode.map (COPY)") || major != 13, "{outcome}");
        assert!(outcome.stderr.contains(" (REMOVE)\n"), "{outcome}");
        for line in outcome.stderr.lines() {
            assert!(line.starts_with("pg_rewind: ") || line.ends_with(" copied"), "{line}");
        }
        let again = unchanged(&pair.target, || rewind(&pair.target, source, &[])).success();
        assert!(again.stderr.ends_with("pg_rewind: no rewind required\n"), "{again}");
        fs::remove_file(pair.target.path("standby.signal")).unwrap();
        let _ = unchanged(&pair.target, || rewind(&pair.target, source, &["-Rn"])).success();
        let again = rewind(&pair.target, source, &["-R"]).success();
        assert!(again.stderr.ends_with("pg_rewind: no rewind required\n"), "{again}");
        pair.source.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
        assert_follows(&pair.target, &pair.source);
    }
}

/// What keeps stock from a rewind keeps us, with the same words first.
#[test]
fn refusals() {
    let pair = Pair::shared(Major(16)).copy();
    let (source, target) = (Source::Directory(&pair.source), &pair.target);
    let same = |outcome: &Outcome, stock: &Outcome| {
        let first = |text: &str| text.lines().next().unwrap().to_owned();
        assert_eq!(outcome.status.code(), Some(1), "{outcome}");
        assert_eq!(first(&outcome.stderr), first(&stock.stderr), "{outcome}");
    };
    // Stock would work on its own directory.
    let itself = unchanged(target, || rewind(target, Source::Directory(target), &[])).failure();
    assert!(itself.stderr.contains("pg_rewind: error: "), "{itself}");
    let other = Cluster::initdb(Major(16), &crate::support::cluster::InitOptions::default());
    let from_other = Source::Directory(&other);
    same(&unchanged(target, || rewind(target, from_other, &[])), &stock::rewind(target, from_other, &[]));
    pair.source.start();
    same(&unchanged(target, || rewind(target, source, &[])), &stock::rewind(target, source, &[]));
    let outcome = rewind(&pair.source, Source::Directory(target), &["--no-ensure-shutdown"]).failure();
    assert!(outcome.stderr.starts_with("pg_rewind: error: target server must be shut down cleanly\n"), "{outcome}");
    let nowhere = ["-D", "/nonexistent", "--source-pgdata"];
    let outcome = Outcome::of(pg_rewind(&nowhere).arg(target.data())).failure();
    assert!(outcome.stderr.starts_with("pg_rewind: error: could not read permissions of directory"), "{outcome}");
    pair.source.stop(Stop::Fast);
    let segment = pair.missing_segment();
    fs::remove_file(target.path(format!("pg_wal/{segment}"))).unwrap();
    // The path as it was given, relative or not, is what Patroni looks for.
    let mut relative = pg_rewind(&["-D", "./data/", "--source-pgdata"]);
    let outcome = Outcome::of(relative.arg(pair.source.data()).current_dir(target.base()));
    let line =
        format!("pg_rewind: error: could not open file \"./data/pg_wal/{segment}\": No such file or directory\n");
    assert!(outcome.status.code() == Some(1) && outcome.stderr.contains(&line), "{outcome}");
    let stock = stock::rewind(target, source, &[]).failure();
    let line = format!("could not open file \"{}/pg_wal/{segment}\": ", target.data().display());
    let outcome = unchanged(target, || rewind(target, source, &[])).failure();
    assert!([&stock, &outcome].iter().all(|outcome| outcome.stderr.contains(&line)), "{stock}\n{outcome}");
}

impl Pair {
    /// The segment that the target must have first of all.
    fn missing_segment(&self) -> String {
        self.target.controldata()["Latest checkpoint's REDO WAL file"].clone()
    }
}

/// Where no rewind is needed, `-R` is done all the same, and nothing without it.
#[test]
fn recovery_configuration_where_no_rewind_is_needed() {
    let pair = Pair::shared(Major(17)).copy();
    let standby = pair.source.duplicate();
    pair.source.start();
    let source = Source::Server(&pair.source, REWIND_USER);
    let outcome = unchanged(&standby, || rewind(&standby, source, &[])).success();
    assert_eq!(course(&outcome.stderr).last().unwrap(), &"pg_rewind: no rewind required");
    let stock = stock::rewind(&standby.duplicate(), source, &["-R"]).success();
    let outcome = unchanged(&standby, || rewind(&standby, source, &["-R", "-n"])).success();
    assert_eq!(course(&outcome.stderr), course(&stock.stderr));
    let outcome = rewind(&standby, source, &["-R"]).success();
    assert_eq!(course(&outcome.stderr), course(&stock.stderr));
    pair.source.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
    assert_follows(&standby, &pair.source);
}

/// WAL that no archive has is not thrown away with what is kept for an undo; CloudNativePG's file is nobody else's.
#[test]
fn what_stays() {
    let pair = Pair::shared(Major(14)).copy();
    let segment = pair.missing_segment();
    let status = format!("pg_wal/archive_status/{segment}.ready");
    fs::write(pair.target.path(&status), "").unwrap();
    pair.target.append_config("archive_mode = on\n");
    for cluster in [&pair.source, &pair.target] {
        fs::write(cluster.path("global/pg_control.old"), cluster.base().display().to_string()).unwrap();
    }
    // As an attempt of stock that was cut leaves it, and as repmgr does.
    fs::write(pair.target.path("backup_label"), "START WAL LOCATION: 0/0 (file 000000010000000000000000)\n").unwrap();
    fs::write(pair.target.path("standby.signal"), "").unwrap();
    let outcome = rewind(&pair.target, Source::Directory(&pair.source), &[]).success();
    assert!(outcome.stderr.contains(&format!("pg_rewind: warning: WAL of the target that was never archived is kept in \"{}/.pg_unfork/undo\": {segment}\n", pair.target.data().display())), "{outcome}");
    assert!(pair.target.path(".pg_unfork/undo").exists());
    let old = fs::read_to_string(pair.target.path("global/pg_control.old")).unwrap();
    assert_eq!(old, pair.target.base().display().to_string());
    let _ = Outcome::of(crate::support::tool::pg_unfork(&["undo", "-D"]).arg(pair.target.data())).success();
    assert!(pair.target.path(status).exists());
}

/// WAL of the common history that only the target has is not removed.
#[test]
fn wal_that_only_the_target_has() {
    let pair = Pair::shared(Major(15)).copy();
    let source = Source::Directory(&pair.source);
    let plan = Plan::of(&pair.target, source, &[]).json();
    let segment = plan["wal"]["segments"][0]["file"].as_str().unwrap();
    fs::remove_file(pair.source.path(format!("pg_wal/{segment}"))).unwrap();
    let line = format!("pg_rewind: Not removing file \"pg_wal/{segment}\" because it is required for recovery\n");
    let outcome = rewind(&pair.target, source, &["--debug"]).success();
    assert!(outcome.stderr.contains(&line), "{outcome}");
    assert!(pair.target.path(format!("pg_wal/{segment}")).exists());
}

/// The source's own files may change while it is read from: stock's test lets them grow by its own messages.
#[test]
fn files_that_grow() {
    let pair = Pair::shared(Major(18)).copy();
    let growing = pair.source.path("grows");
    fs::write(&growing, "a line\n").unwrap();
    let run = command(&pair.target, Source::Directory(&pair.source), &["--debug"]);
    let (before, mut shell) = (Tree::of(&pair.target), Command::new("bash"));
    let script = "log=$1; shift; exec -a pg_rewind \"$@\" 2>>\"$log\"";
    shell.args(["-c", script, "bash"]).arg(&growing).arg(run.get_program()).args(run.get_args());
    let outcome = Outcome::of(&mut shell);
    let text = fs::read_to_string(&growing).unwrap();
    assert_eq!(outcome.status.code(), Some(1), "{outcome}\n{text}");
    assert!(["warning: ", "the source has changed", "error: "].iter().all(|words| text.contains(words)), "{text}");
    assert_eq!(tree::diff(&before, &Tree::of(&pair.target), &|_| false), [""; 0]);
    // At rest it is rewound.
    let _ = rewind(&pair.target, Source::Directory(&pair.source), &[]).success();
    assert_eq!(fs::read(pair.target.path("grows")).unwrap(), fs::read(&growing).unwrap());
}
