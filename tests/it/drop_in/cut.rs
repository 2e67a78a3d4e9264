//! Runs that are cut: the next one goes on, or begins anew by itself.

use std::fs;
use std::process::{Command, Stdio};

use pg_unfork::format::ControlFile;

use crate::support::cluster::Cluster;
use crate::support::life::{assert_follows, assert_sound_at_rest};
use crate::support::likeness::assert_equal_outcome;
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::relay::{Fault, Relay};
use crate::support::rewind::{command, killed, pg_rewind, rewind};
use crate::support::servers::Major;
use crate::support::stock::{self, Source};
use crate::support::tool::{Plan, pg_unfork};
use crate::support::tree::{self, Tree, modification_times};
use crate::support::workload::REWIND_USER;

fn is_sealed(target: &Cluster) -> bool {
    let bytes = fs::read(target.path("global/pg_control")).unwrap();
    ControlFile::parse(&bytes).is_ok_and(|control| control.is_sealed())
}

fn open_segment(source: &Cluster) -> String {
    source.sql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())")
}

/// Killed, a run is gone on with by the next one; a dry run in between says so, and leaves everything.
#[test]
fn the_next_run_goes_on() {
    let pair = Pair::shared(Major(16)).copy();
    pair.source.start();
    pair.source.checkpoint();
    let stock_target = pair.copy_target();
    let source = Source::Server(&pair.source, REWIND_USER);
    let plan = Plan::of(&pair.target, source, &["-R"]).json();
    killed(&command(&pair.target, source, &["-R"]));
    assert!(is_sealed(&pair.target));
    // What CloudNativePG does between two tries.
    let old = pair.target.path("global/pg_control.old");
    fs::copy(pair.target.path("global/pg_control"), &old).unwrap();
    let before = (Tree::of(&pair.target), modification_times(&pair.target));
    let dry = rewind(&pair.target, source, &["-R", "-n"]).success();
    assert!(dry.stderr.contains("an earlier run was cut; going on with it"), "{dry}");
    assert_eq!(tree::diff(&before.0, &Tree::of(&pair.target), &|_| false), [""; 0]);
    assert_eq!(tree::different_times(&before.1, &modification_times(&pair.target)), [""; 0]);
    let outcome = rewind(&pair.target, source, &["-R"]).success();
    assert!(outcome.stderr.contains("an earlier run was cut; going on with it"), "{outcome}");
    assert!(outcome.stderr.ends_with("pg_rewind: Done!\n"), "{outcome}");
    assert!(old.exists() && !pair.target.path(".pg_unfork/undo").exists());
    fs::remove_file(old).unwrap();
    let segment = open_segment(&pair.source);
    let _ = stock::rewind(&stock_target, source, &["-R"]).success();
    assert_equal_outcome(&pair.target, &stock_target, &plan, Some(&segment));
}

/// A source that was promoted again makes the earlier plan worthless: all is taken back and planned afresh in one run.
#[test]
fn what_can_never_finish_is_taken_back() {
    let pair = Pair::shared(Major(17)).copy();
    pair.source.start();
    let stock_target = pair.copy_target();
    let source = Source::Server(&pair.source, REWIND_USER);
    killed(&command(&pair.target, source, &["-R"]));
    pair.source.promote_again();
    pair.source.checkpoint();
    let plan = Plan::of(&stock_target, source, &["-R"]).json();
    let dry = rewind(&pair.target, source, &["-R", "-n"]).success();
    assert!(dry.stderr.contains("it would be taken back"), "{dry}");
    assert!(is_sealed(&pair.target));
    let outcome = rewind(&pair.target, source, &["-R"]).success();
    assert!(outcome.stderr.contains("can never finish: taking it back"), "{outcome}");
    let segment = open_segment(&pair.source);
    let _ = stock::rewind(&stock_target, source, &["-R"]).success();
    assert_equal_outcome(&pair.target, &stock_target, &plan, Some(&segment));
    pair.source.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
    assert_follows(&pair.target, &pair.source);
    assert_sound_at_rest(&pair.target);
}

/// The same where the source is promoted under the very run that has begun.
#[test]
fn a_source_that_is_promoted_under_a_run() {
    let pair = Pair::shared(Major(18)).copy();
    pair.source.start();
    let stock_target = pair.copy_target();
    // No plan takes so much.
    let relay = Relay::new(&[(&pair.source, Fault::HoldAfter(4 << 20))]);
    let mut run = pg_rewind(&["-N", "--source-server", &relay.conninfo(REWIND_USER), "-D"]);
    let run = run.arg(pair.target.data()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    relay.wait_until_held();
    assert!(is_sealed(&pair.target));
    pair.source.promote_again();
    pair.source.checkpoint();
    relay.release();
    let ended = run.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && text.contains("what this run began can never finish: taking it back"), "{text}");
    let source = Source::Server(&pair.source, REWIND_USER);
    let plan = Plan::of(&stock_target, source, &[]).json();
    let segment = open_segment(&pair.source);
    let _ = stock::rewind(&stock_target, source, &[]).success();
    assert_equal_outcome(&pair.target, &stock_target, &plan, Some(&segment));
}

/// A run that shall configure recovery otherwise than what was begun takes that back: without `-R`, or with a password.
#[test]
fn another_wish() {
    let pair = Pair::shared(Major(19)).copy();
    pair.source.start();
    let source = Source::Server(&pair.source, REWIND_USER);
    let again = pair.copy_target();
    for (target, first, second, password) in
        [(&pair.target, &["-R"][..], &[][..], ""), (&again, &["-R"], &["-R"], "secret")]
    {
        killed(&command(target, source, first));
        let mut run = command(target, source, second);
        if !password.is_empty() {
            run.env("PGPASSWORD", password);
        }
        let outcome = Outcome::of(&mut run).success();
        assert!(outcome.stderr.contains("another recovery configuration"), "{outcome}");
        assert!(outcome.stderr.ends_with("pg_rewind: Done!\n") && !outcome.stderr.contains("secret"), "{outcome}");
        assert_eq!(target.path("standby.signal").exists(), !second.is_empty());
        let settings = fs::read_to_string(target.path("postgresql.auto.conf")).unwrap();
        assert_eq!(settings.contains("password=secret"), !password.is_empty(), "{settings}");
    }
}

/// So is what was begun where somebody has put the control file back.
#[test]
fn another_control_file() {
    let pair = Pair::shared(Major(13)).copy();
    let source = Source::Directory(&pair.source);
    let (stock_target, control) = (pair.copy_target(), fs::read(pair.target.path("global/pg_control")).unwrap());
    let plan = Plan::of(&pair.target, source, &[]).json();
    killed(&command(&pair.target, source, &[]));
    fs::write(pair.target.path("global/pg_control"), &control).unwrap();
    let outcome = rewind(&pair.target, source, &[]).success();
    assert!(outcome.stderr.contains("the control file from before it is back: taking it back"), "{outcome}");
    let _ = stock::rewind(&stock_target, source, &[]).success();
    assert_equal_outcome(&pair.target, &stock_target, &plan, None);
    // Behind any other one a server may have run.
    let target = Pair::shared(Major(13)).copy_target();
    killed(&command(&target, source, &[]));
    let other = ControlFile::parse(&control).unwrap().with_state(pg_unfork::format::DbState::InProduction);
    fs::write(target.path("global/pg_control"), other.as_bytes()).unwrap();
    let before = Tree::of(&target);
    let outcome = rewind(&target, source, &[]).failure();
    assert!(outcome.stderr.contains("something else has changed global/pg_control"), "{outcome}");
    assert_eq!(tree::diff(&before, &Tree::of(&target), &|_| false), [""; 0]);
}

/// An undo that was begun by hand and was cut is brought to its end first.
#[test]
fn an_undo_that_was_cut() {
    let pair = Pair::shared(Major(14)).copy();
    let source = Source::Directory(&pair.source);
    let stock_target = pair.copy_target();
    let plan = Plan::of(&pair.target, source, &[]).json();
    killed(&command(&pair.target, source, &[]));
    let mut limited = Command::new("bash");
    let script = "ulimit -c 0; ulimit -f 0; exec \"$@\"";
    limited.args(["-c", script, "bash"]).arg(pg_unfork(&[]).get_program()).args(["undo", "-D"]).arg(pair.target.data());
    let status = limited.stdin(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(!status.success());
    let _ = rewind(&pair.target, source, &[]).success();
    let _ = stock::rewind(&stock_target, source, &[]).success();
    assert_equal_outcome(&pair.target, &stock_target, &plan, None);
}

/// A signal ends a run with status 1 and soon, before the first write and behind it; the next run goes on.
#[test]
fn signals() {
    let pair = Pair::shared(Major(15)).copy();
    pair.source.start();
    let sealed = |relay: &Relay| {
        let conninfo = relay.conninfo(REWIND_USER);
        let mut run = pg_rewind(&["-N", "-R", "--source-server", &conninfo, "-D"]);
        let run = run.arg(pair.target.data()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        relay.wait_until_held();
        let pid = run.id().to_string();
        let _ = Outcome::of(Command::new("kill").args(["-TERM", &pid])).success();
        let ended = run.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(1), "{}", String::from_utf8_lossy(&ended.stderr));
        is_sealed(&pair.target)
    };
    assert!(!sealed(&Relay::new(&[(&pair.source, Fault::HoldAfter(12_000))])));
    // No plan takes so much.
    assert!(sealed(&Relay::new(&[(&pair.source, Fault::HoldAfter(4 << 20))])));
    let _ = rewind(&pair.target, Source::Server(&pair.source, REWIND_USER), &["-R"]).success();
    pair.source.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
    assert_follows(&pair.target, &pair.source);
}
