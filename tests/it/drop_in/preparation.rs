//! Targets that did not stop in good order, and targets whose WAL is in an archive.

use std::fs;

use crate::support::cluster::{Cluster, Stop};
use crate::support::life::{assert_follows, assert_sound_at_rest};
use crate::support::likeness::assert_equal_outcome;
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::rewind::{command, course};
use crate::support::scratch;
use crate::support::servers::Major;
use crate::support::stock::{self, Source};
use crate::support::tool::Plan;
use crate::support::tree::{self, Tree};
use crate::support::workload::REWIND_USER;

/// A pair whose target was killed.
fn crashed(major: u16) -> Pair {
    Pair::simple(Major(major), |builder| builder.target_stop(Stop::Immediate))
}

/// Runs the drop-in with the target's own programs in `PATH`.
fn rewind(target: &Cluster, source: Source<'_>, arguments: &[&str]) -> Outcome {
    let mut command = command(target, source, arguments);
    command.env("PATH", format!("{}:/usr/bin:/bin", target.installation().bin("").display()));
    Outcome::of(&mut command)
}

/// A crashed target is recovered first, from a stopped source, with its settings elsewhere: the outcome is stock's.
#[test]
fn crashed_target_and_settings_elsewhere() {
    let Pair { source, target } = crashed(17);
    source.stop(Stop::Fast);
    let settings = scratch::directory("settings");
    let file = settings.path().join("postgresql.conf");
    fs::rename(target.path("postgresql.conf"), &file).unwrap();
    let (stock_target, planned) = (target.duplicate(), target.duplicate());
    let (from, file) = (Source::Directory(&source), format!("--config-file={}", file.display()));
    let _ = rewind(&target, from, &["--debug", &file]).success();
    let _ = stock::rewind(&stock_target, from, &["--debug", &file]).success();
    let bindir = target.installation().bin("").display().to_string();
    let plan = Plan::of(&planned, from, &["--recover-target", "--pg-bindir", &bindir, &file]);
    assert_equal_outcome(&target, &stock_target, &plan.json(), None);
}

/// The same from a live source. A dry run says how things stand and writes nothing; without recovery there is no rewind.
#[test]
fn crashed_target_and_live_source() {
    let Pair { source, target } = crashed(14);
    let from = Source::Server(&source, REWIND_USER);
    let before = Tree::of(&target);
    let dry = rewind(&target, from, &["-n", "-R"]).success();
    assert!(course(&dry.stderr).iter().any(|line| line.starts_with("pg_rewind: servers diverged at")), "{dry}");
    assert!(dry.stderr.ends_with("its own postgres would recover it before all that\n"), "{dry}");
    let refused = rewind(&target, from, &["--no-ensure-shutdown"]).failure();
    let stock = stock::rewind(&target, from, &["--no-ensure-shutdown"]).failure();
    let words = "target server must be shut down cleanly\n";
    assert!([&refused, &stock].iter().all(|outcome| outcome.stderr.contains(words)), "{refused}\n{stock}");
    assert_eq!(tree::diff(&before, &Tree::of(&target), &|_| false), [""; 0]);
    fs::write(target.path("standby.signal"), "").unwrap();
    let outcome = rewind(&target, from, &["-R"]).success();
    assert!(outcome.stderr.ends_with("pg_rewind: Done!\n"), "{outcome}");
    source.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
    assert_follows(&target, &source);
    assert_sound_at_rest(&target);
}

/// All of the target's WAL is in an archive.
#[test]
fn archived_wal() {
    let archive = scratch::directory("archive");
    let Pair { source, target } = Pair::simple(Major(16), |builder| builder);
    source.stop(Stop::Fast);
    for entry in fs::read_dir(target.path("pg_wal")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::rename(entry.path(), archive.path().join(entry.file_name())).unwrap();
        }
    }
    target.append_config(&format!("restore_command = 'cp {}/%f %p'\n", archive.path().display()));
    let from = Source::Directory(&source);
    let before = Tree::of(&target);
    let refused = rewind(&target, from, &["--no-ensure-shutdown"]).failure();
    assert!(refused.stderr.contains("pg_rewind: error: could not open file \""), "{refused}");
    let dry = rewind(&target, from, &["-n", "-c", "--no-ensure-shutdown"]).success();
    assert_eq!(tree::diff(&before, &Tree::of(&target), &|_| false), [""; 0]);
    let stock = stock::rewind(&target.duplicate(), from, &["-c", "--no-ensure-shutdown"]).success();
    assert_eq!(course(&dry.stderr), course(&stock.stderr));
    let outcome = rewind(&target, from, &["--restore-target-wal", "--no-ensure-shutdown"]).success();
    assert_eq!(course(&outcome.stderr), course(&stock.stderr));
    source.start();
    target.follow(&source);
    assert_follows(&target, &source);
}
