//! The program itself, killed: what its user sees, and runs next.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use pg_unfork::format::ControlFile;

use super::on;
use crate::support::cluster::{Cluster, Stop};
use crate::support::life::{assert_follows, assert_sound_at_rest};
use crate::support::likeness::From;
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::{Plan, pg_unfork};
use crate::support::tree::{self, Tree, modification_times};
use crate::support::workload::REWIND_USER;

fn is_sealed(target: &Cluster) -> bool {
    let bytes = fs::read(target.path("global/pg_control")).unwrap();
    ControlFile::parse(&bytes).is_ok_and(|control| control.is_sealed())
}

/// The signal of a file that has become too large, on Linux.
const XFSZ: i32 = 25;

/// Kills an apply when the target is sealed: the system does, when it writes more than 1000 KiB of a file. That is
/// the first WAL segment.
#[track_caller]
pub(crate) fn kill_sealed(plan: &Plan, target: &Cluster) {
    let program = pg_unfork(&[]).get_program().to_owned();
    let mut command = std::process::Command::new("bash");
    command.args(["-c", "ulimit -c 0; ulimit -f 1000; exec \"$@\"", "bash"]).arg(program).arg("apply").arg(plan.path());
    let status = command.stdin(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.signal(), Some(XFSZ), "{status}");
    assert!(is_sealed(target));
}

#[track_caller]
pub(super) fn assert_refused(outcome: &Outcome, code: i32, text: &str) {
    assert_eq!(outcome.status.code(), Some(code), "{outcome}");
    assert!(outcome.stderr.contains(text), "{text:?} is not in {outcome}");
}

/// What can be done with a target on which an apply was killed, and what cannot.
#[test]
fn a_killed_apply_can_be_gone_on_with() {
    let Pair { source, target } = Pair::shared(Major(18)).copy();
    source.start();
    let reader = Source::Server(&source, REWIND_USER);
    let plan = Plan::of(&target, reader, &["-R"]);
    let other = Plan::of(&target, reader, &[]);
    kill_sealed(&plan, &target);
    let copy = target.duplicate();
    let start = copy.try_start().failure();
    assert!(copy.log().contains("invalid checkpoint location"), "{start}\n{}", copy.log());
    let status = on(&target, "status").success().stdout;
    assert!(status.starts_with("applying: ") && status.contains("phase: "), "{status}");
    for command in ["apply", "undo"] {
        assert!(status.contains(&format!("next: pg_unfork {command} -D {}", target.data().display())), "{status}");
    }
    assert!(!status.contains("resetwal"), "{status}");
    let json = Outcome::of(pg_unfork(&["status", "--format", "json", "-D"]).arg(target.data())).success().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["condition"], "applying");
    let next = ["apply", "undo"].map(|command| format!("pg_unfork {command} -D {}", target.data().display()));
    assert_eq!(json["next"], serde_json::json!(next));
    assert_refused(&other.apply(&[]), 4, "an apply of another plan has begun");
    assert_refused(&on(&target, "clean"), 4, "an apply or an undo is under way");
    let (_, planned) = Plan::make(&target, reader, &[]);
    assert_refused(&planned, 4, "target is sealed");
    let _ = on(&target, "apply").success();
    source.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
    assert_follows(&target, &source);
    assert_sound_at_rest(&target);
    assert_refused(&on(&target, "undo"), 4, "a server has run here since");
    let history = fs::read_to_string(target.path(".pg_unfork/history")).unwrap();
    let events: Vec<_> = history.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect();
    let events: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["apply", "resume", "applied"]);
}

/// A killed apply is taken back; so is a killed undo.
#[test]
fn a_killed_apply_can_be_taken_back() {
    let Pair { source, target } = Pair::shared(Major(14)).copy();
    let (before, times) = (Tree::of(&target), modification_times(&target));
    let plan = Plan::of(&target, Source::Directory(&source), &[]);
    kill_sealed(&plan, &target);
    let mut undo = pg_unfork(&["undo", "-D"]).arg(target.data()).stderr(Stdio::null()).spawn().unwrap();
    thread::sleep(Duration::from_millis(3));
    undo.kill().unwrap();
    let _ = undo.wait().unwrap();
    assert!(is_sealed(&target));
    let _ = on(&target, "undo").success();
    assert_eq!(tree::diff(&before, &Tree::of(&target), &tree::is_own_state), [""; 0]);
    assert_eq!(tree::different_times(&times, &modification_times(&target)), [""; 0]);
}

/// Killed again and again at any moment, an apply comes to its end: nothing durable is done twice.
fn killed_all_the_time(major: Major, from: From, arguments: &[&str]) {
    let pair = Pair::shared(major).copy();
    if from == From::Live {
        pair.source.start();
        pair.source.checkpoint();
    }
    let plan = Plan::of(&pair.target, pair.source(from), Pair::arguments(from));
    let mut kills = 0;
    let mut patience = Duration::from_millis(5);
    loop {
        let begun = Instant::now();
        let mut command = pg_unfork(&["apply"]);
        let command = command.arg(plan.path()).args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
        let mut apply = command.spawn().unwrap();
        let status = loop {
            if let Some(status) = apply.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() >= patience {
                apply.kill().unwrap();
                break apply.wait().unwrap();
            }
            thread::sleep(Duration::from_millis(1));
        };
        if status.success() {
            break;
        }
        assert_eq!(status.signal(), Some(9));
        kills += 1;
        patience += Duration::from_millis(7);
    }
    assert!(kills > 2, "{kills} kills");
    let _ = on(&pair.target, "verify").success();
    pair.assert_lives(from);
}

#[test]
fn killed_all_the_time_with_a_live_source() {
    killed_all_the_time(Major(16), From::Live, &["--jobs", "8"]);
}

#[test]
fn killed_all_the_time_with_a_live_source_and_without_undo() {
    killed_all_the_time(Major(14), From::Live, &["--no-undo", "--jobs", "1"]);
}

#[test]
fn killed_all_the_time_with_a_stopped_source() {
    killed_all_the_time(Major(13), From::Stopped, &[]);
}

#[test]
fn killed_all_the_time_with_a_stopped_source_and_without_undo() {
    killed_all_the_time(Major(17), From::Stopped, &["--no-undo"]);
}

/// Nobody has to listen: neither closed streams nor broken pipes stop an apply or an undo.
#[test]
fn nobody_listens() {
    let Pair { source, target } = Pair::shared(Major(15)).copy();
    let before = Tree::of(&target);
    let plan = Plan::of(&target, Source::Directory(&source), &[]);
    let run = |arguments: &[&str], redirection: &str| {
        let program = pg_unfork(&[]).get_program().to_owned();
        let script = format!("exec \"$@\" {redirection}");
        let mut command = std::process::Command::new("bash");
        let _ =
            Outcome::of(command.args(["-o", "pipefail", "-c", &script, "bash"]).arg(program).args(arguments)).success();
    };
    let (file, directory) = (plan.path(), target.data());
    let (file, directory) = (file.to_str().unwrap(), directory.to_str().unwrap());
    run(&["apply", file], ">&- 2>&-");
    run(&["status", "-D", directory], "2>&-");
    run(&["undo", "-D", directory], "> >(true) 2> >(true)");
    assert_eq!(tree::diff(&before, &Tree::of(&target), &tree::is_own_state), [""; 0]);
}

/// Somebody lifts the seal: the apply cannot end any more, but what was replaced can be put back.
#[test]
fn a_lifted_seal_is_a_dead_end() {
    let Pair { source, target } = Pair::shared(Major(15)).copy();
    let before = Tree::of(&target);
    let plan = Plan::of(&target, Source::Directory(&source), &[]);
    kill_sealed(&plan, &target);
    let control = fs::read(target.path("global/pg_control")).unwrap();
    let lifted = ControlFile::parse(&control).unwrap().with_time(7);
    fs::write(target.path("global/pg_control"), lifted.as_bytes()).unwrap();
    assert!(on(&target, "status").success().stdout.starts_with("tampered: "));
    assert_refused(&on(&target, "apply"), 6, "something else has changed global/pg_control");
    let undone = on(&target, "undo").success();
    assert!(undone.stderr.contains("WARNING"), "{undone}");
    assert_eq!(tree::diff(&before, &Tree::of(&target), &tree::is_own_state), [""; 0]);
}

/// A source that has gone to another timeline can never end the apply; an undo can.
#[test]
fn a_source_on_another_timeline_is_a_dead_end() {
    let Pair { source, target } = Pair::shared(Major(17)).copy();
    let before = Tree::of(&target);
    let plan = Plan::of(&target, Source::Directory(&source), &[]);
    kill_sealed(&plan, &target);
    fs::write(source.path("standby.signal"), "").unwrap();
    source.start();
    source.promote();
    source.checkpoint();
    source.stop(crate::support::cluster::Stop::Fast);
    assert_refused(&plan.apply(&[]), 6, "timeline");
    let _ = on(&target, "undo").success();
    assert_eq!(tree::diff(&before, &Tree::of(&target), &tree::is_own_state), [""; 0]);
}

/// What an orchestrator wrote meanwhile is kept aside, and overwritten.
#[test]
fn files_that_somebody_rewrote_meanwhile() {
    let pair = Pair::shared(Major(13));
    let Pair { source, target } = pair.copy();
    let before = Tree::of(&target);
    let plan = Plan::of(&target, Source::Directory(&source), &[]);
    kill_sealed(&plan, &target);
    fs::write(target.path("postgresql.conf"), "rewritten").unwrap();
    let _ = plan.apply(&[]).success();
    assert_eq!(fs::read(target.path("postgresql.conf")).unwrap(), fs::read(source.path("postgresql.conf")).unwrap());
    // If it was rewritten before it was copied, that is what was there to be kept.
    let original = fs::read(pair.target.path("postgresql.conf")).unwrap();
    let _ = on(&target, "undo").success();
    let restored = fs::read(target.path("postgresql.conf")).unwrap();
    assert!(restored == original || restored == b"rewritten");
    let other = |path: &std::path::Path| tree::is_own_state(path) || path.ends_with("postgresql.conf");
    assert_eq!(tree::diff(&before, &Tree::of(&target), &other), [""; 0]);
}

/// The same with files that take a while to copy.
#[test]
fn large_files_that_somebody_rewrote_meanwhile() {
    let Pair { source, target } = Pair::shared(Major(16)).copy();
    let names = ["a", "b", "c"];
    for name in names {
        for cluster in [&source, &target] {
            fs::write(cluster.path(name), name.repeat(5 << 20)).unwrap();
        }
    }
    let plan = Plan::of(&target, Source::Directory(&source), &[]);
    kill_sealed(&plan, &target);
    for name in names {
        fs::write(target.path(name), "rewritten").unwrap();
    }
    let _ = plan.apply(&[]).success();
    for name in names {
        assert!(fs::read(target.path(name)).unwrap() == fs::read(source.path(name)).unwrap(), "{name}");
    }
    let _ = on(&target, "undo").success();
    for name in names {
        assert_eq!(fs::read_to_string(target.path(name)).unwrap(), "rewritten");
    }
}

/// What was kept goes with `clean`, and with it the way back; WAL that was never archived goes only by force.
#[test]
fn cleaning() {
    let Pair { source, target } = Pair::shared(Major(19)).copy();
    let segment = "000000010000000000000099";
    target.append_config("archive_mode = on\n");
    fs::write(target.path(format!("pg_wal/{segment}")), vec![0; 1 << 20]).unwrap();
    fs::write(target.path(format!("pg_wal/archive_status/{segment}.ready")), "").unwrap();
    let plan = Plan::of(&target, Source::Directory(&source), &[]);
    let _ = plan.apply(&[]).success();
    assert_refused(&on(&target, "clean"), 4, segment);
    let _ = Outcome::of(pg_unfork(&["clean", "--force", "-D"]).arg(target.data())).success();
    let left: Vec<_> = fs::read_dir(target.path(".pg_unfork")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["history"]);
    assert_refused(&on(&target, "undo"), 4, "no apply has begun");
    assert!(on(&target, "status").success().stdout.starts_with("untouched: "));
    let again = on(&target, "clean").success();
    assert!(again.stderr.contains("nothing to do"), "{again}");
}

/// What no archive has outlives the next apply, under its own name.
#[test]
fn unarchived_wal_outlives_the_next_apply() {
    let Pair { source, target } = Pair::shared(Major(18)).copy();
    let segment = "000000010000000000000099";
    target.append_config("archive_mode = on\n");
    fs::write(target.path(format!("pg_wal/{segment}")), "only here").unwrap();
    fs::write(target.path(format!("pg_wal/archive_status/{segment}.ready")), "").unwrap();
    let _ = Plan::of(&target, Source::Directory(&source), &[]).apply(&[]).success();
    fs::write(target.path("standby.signal"), "").unwrap();
    target.start();
    target.promote();
    target.stop(Stop::Fast);
    // It goes on from where the target has.
    source.start();
    source.stop(Stop::Fast);
    let _ = Plan::of(&target, Source::Directory(&source), &[]).apply(&[]).success();
    let aside = target.path(format!(".pg_unfork/unarchived/{segment}"));
    assert_eq!(fs::read_to_string(&aside).unwrap(), "only here");
    let _ = on(&target, "undo").success();
    let cleaned = on(&target, "clean").success();
    assert!(cleaned.stderr.contains(&format!(".pg_unfork/unarchived: {segment}.")), "{cleaned}");
    assert!(aside.exists());
    let _ = Outcome::of(pg_unfork(&["clean", "--force", "-D"]).arg(target.data())).success();
    let left: Vec<_> = fs::read_dir(target.path(".pg_unfork")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["history"]);
}

/// Without what is kept there is no way back, and no need of room for it.
#[test]
fn no_undo() {
    let Pair { source, target } = Pair::shared(Major(15)).copy();
    let plan = Plan::of(&target, Source::Directory(&source), &[]);
    let _ = plan.apply(&["--no-undo"]).success();
    let kept = fs::read_dir(target.path(".pg_unfork/undo")).map_or(0, Iterator::count);
    assert_eq!(kept, 0);
    assert_refused(&on(&target, "undo"), 4, "--no-undo");
}
