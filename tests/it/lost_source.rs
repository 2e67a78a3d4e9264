//! A live source that goes away, hangs or is slow, and signals meanwhile.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pg_unfork::format::ControlFile;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::cluster::{Cluster, InitOptions, Stop};
use crate::support::life::assert_follows;
use crate::support::likeness::assert_equal_outcome;
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::relay::{Fault, Relay};
use crate::support::replication::RecoveryConfig;
use crate::support::servers::Major;
use crate::support::stock::{self, Source};
use crate::support::tool::{Plan, pg_unfork};
use crate::support::tree::{self, Tree};
use crate::support::workload::{self, REWIND_USER};

/// What a process may need besides the time under test.
const GRACE: Duration = Duration::from_secs(8);

/// A pair at rest, its source running.
fn running_pair(major: u16) -> Pair {
    let pair = Pair::shared(Major(major)).copy();
    pair.source.start();
    pair.source.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
    // More than one piece of a file.
    pair.source.sql("postgres", "CREATE TABLE longer AS SELECT repeat('x', 900) FROM generate_series(1, 3000)");
    pair.source.checkpoint();
    pair
}

/// A pair of which so much has to be copied that further connections are worth it.
fn large_pair(major: u16) -> Pair {
    let pair = running_pair(major);
    let table = "CREATE TABLE large AS SELECT repeat('x', 900) FROM generate_series(1, 30000)";
    pair.source.sql("postgres", table);
    pair.source.checkpoint();
    pair
}

fn plan(pair: &Pair) -> Plan {
    plan_for(&pair.target, pair)
}

fn plan_for(target: &Cluster, pair: &Pair) -> Plan {
    Plan::of(target, Source::Server(&pair.source, REWIND_USER), &["-R"])
}

/// An apply of the plan over the relay, on one connection at a time.
fn apply(plan: &Plan, relay: &Relay, arguments: &[&str]) -> Command {
    apply_with(1, plan, relay, arguments)
}

/// An apply of the plan over the relay, on so many connections at a time.
fn apply_with(jobs: usize, plan: &Plan, relay: &Relay, arguments: &[&str]) -> Command {
    let mut command = pg_unfork(&["apply", "--no-sync", "--source-server", &relay.conninfo(REWIND_USER)]);
    command.arg(plan.path()).arg("--jobs").arg(jobs.to_string()).args(arguments);
    command
}

fn is_sealed(target: &Cluster) -> bool {
    let bytes = fs::read(target.path("global/pg_control")).unwrap();
    ControlFile::parse(&bytes).is_ok_and(|control| control.is_sealed())
}

/// How many bytes a whole apply takes.
fn bytes_of_apply(pair: &Pair) -> u64 {
    let relay = Relay::new(&[(&pair.source, Fault::None)]);
    let target = pair.copy_target();
    let plan = plan_for(&target, pair);
    let _ = Outcome::of(&mut apply(&plan, &relay, &[])).success();
    relay.passed()
}

/// Places at which to disturb an apply of so many bytes: before the seal and behind it.
fn places(bytes: u64) -> [u64; 4] {
    [12_000, 25_000, bytes * 4 / 10, bytes * 9 / 10]
}

/// Runs the command and says how long that took.
fn timed(command: &mut Command) -> (Outcome, Duration) {
    let begin = Instant::now();
    let outcome = Outcome::of(command);
    (outcome, begin.elapsed())
}

fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// How the child ends, and what it wrote to standard error.
fn end(child: Child) -> (std::process::ExitStatus, String) {
    let output = child.wait_with_output().unwrap();
    (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[track_caller]
fn assert_code(outcome: &Outcome, code: i32) {
    assert_eq!(outcome.status.code(), Some(code), "{outcome}");
}

/// Whatever is cut while a plan is made, it is made; the plan is the one of an undisturbed line.
#[test]
fn a_plan_that_is_cut_is_made_all_the_same() {
    for major in [13, 18] {
        let pair = running_pair(major);
        let decided = |legs: &[(&Cluster, Fault)]| {
            let relay = Relay::new(legs);
            let conninfo = relay.conninfo(REWIND_USER);
            let (plan, outcome) = Plan::make_from(&pair.target, &["--source-server", &conninfo], &[]);
            let _ = outcome.success();
            let plan = plan.json();
            let decided: [Value; 3] = ["actions", "kept", "discarded"].map(|section| plan[section].clone());
            (decided, relay.connections(), relay.passed())
        };
        let (whole, once, bytes) = decided(&[(&pair.source, Fault::None)]);
        // One for the plan, and those for names.
        assert!((1..=5).contains(&once), "{once}");
        for tenth in [1, 3, 5, 7, 9] {
            let cut = Fault::CutAfter(bytes * tenth / 10);
            let (again, connections, _) = decided(&[(&pair.source, cut), (&pair.source, Fault::None)]);
            assert_eq!(connections, once + 1, "cut after {tenth}/10");
            assert!(again == whole, "cut after {tenth}/10");
        }
    }
}

/// A listing that takes longer than a lost source is waited for is begun again when it is cut late.
#[test]
fn a_long_listing_is_begun_again() {
    let pair = running_pair(16);
    let directory = pair.source.path("extra_many");
    fs::create_dir(&directory).unwrap();
    for number in 0..20_000 {
        fs::write(directory.join(format!("file-{number}")), "").unwrap();
    }
    let planning = |relay: &Relay| {
        let mut command = pg_unfork(&["plan", "--source-timeout", "2", "--source-server"]);
        start(command.arg(relay.conninfo(REWIND_USER)).arg("-D").arg(pair.target.data()))
    };
    let undisturbed = Relay::new(&[(&pair.source, Fault::None)]);
    let (status, stderr) = end(planning(&undisturbed));
    assert!(status.success(), "{status}: {stderr}");
    let relay = Relay::new(&[(&pair.source, Fault::Crawl(undisturbed.passed() / 6)), (&pair.source, Fault::None)]);
    let child = planning(&relay);
    let terminated = "(SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                      WHERE usename = 'rewind_user' AND query_start < now() - interval '3 s') = 1";
    pair.source.wait_for("postgres", terminated);
    let (status, stderr) = end(child);
    assert!(status.success() && relay.connections() == undisturbed.connections() + 1, "{status}: {stderr}");
}

/// A copy goes on where it was cut, however often: the outcome is stock's.
#[test]
fn a_copy_that_is_cut_goes_on() {
    for major in [14, 17] {
        let pair = running_pair(major);
        let stock_target = pair.copy_target();
        let plan = plan(&pair);
        let bytes = bytes_of_apply(&pair);
        let relay = Relay::new(&[(&pair.source, Fault::CutAfter(bytes / 7))]);
        let _ = Outcome::of(&mut apply(&plan, &relay, &[])).success();
        assert!(relay.connections() >= 7, "{} connections", relay.connections());
        let open_segment = pair.source.sql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())");
        let _ = stock::rewind(&stock_target, Source::Server(&pair.source, REWIND_USER), &["-R"]).success();
        assert_equal_outcome(&pair.target, &stock_target, &plan.json(), Some(&open_segment));
        assert_follows(&pair.target, &pair.source);
    }
}

/// The same on many connections, each cut again and again: those that are left go on.
#[test]
fn a_copy_on_many_connections_that_are_cut_goes_on() {
    for major in [13, 18] {
        let pair = large_pair(major);
        let stock_target = pair.copy_target();
        let plan = plan(&pair);
        let bytes = bytes_of_apply(&pair);
        let relay = Relay::new(&[(&pair.source, Fault::CutAfter(bytes / 6))]);
        let _ = Outcome::of(&mut apply_with(4, &plan, &relay, &[])).success();
        assert!(relay.connections() >= 6, "{} connections", relay.connections());
        let open_segment = pair.source.sql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())");
        let _ = stock::rewind(&stock_target, Source::Server(&pair.source, REWIND_USER), &["-R"]).success();
        assert_equal_outcome(&pair.target, &stock_target, &plan.json(), Some(&open_segment));
        assert_follows(&pair.target, &pair.source);
    }
}

/// Where the server has no place for further connections, one is enough.
#[test]
fn a_server_without_further_connections_is_copied_from() {
    let pair = large_pair(16);
    let plan = plan(&pair);
    pair.source.sql("postgres", "ALTER ROLE rewind_user CONNECTION LIMIT 1");
    let relay = Relay::new(&[(&pair.source, Fault::None)]);
    let _ = Outcome::of(&mut apply_with(4, &plan, &relay, &["--max-rate", "64M"])).success();
    assert!(relay.connections() > 1 && pair.source.log().contains("too many connections for role"));
    assert_follows(&pair.target, &pair.source);
}

/// Further connections are only used if they lead to the same server as the first.
#[test]
fn connections_to_another_server_are_not_used() {
    let pair = large_pair(17);
    let other = Pair::shared(Major(17)).copy_source();
    other.start();
    let plan = plan(&pair);
    let relay = Relay::new(&[(&pair.source, Fault::None), (&other, Fault::None)]);
    let _ = Outcome::of(&mut apply_with(2, &plan, &relay, &["--max-rate", "64M"])).success();
    assert!(relay.connections() > 1);
    let read = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'rewind_user'";
    assert_eq!(other.sql("postgres", read), "0");
    assert_follows(&pair.target, &pair.source);
}

/// Further connections that hang or fail take nothing from the first one; a signal ends all.
#[test]
fn signals_end_an_apply_on_many_hanging_connections() {
    let pair = large_pair(15);
    let plan = plan(&pair);
    let bytes = bytes_of_apply(&pair);
    let relay = Relay::new(&[(&pair.source, Fault::HoldAfter(bytes / 5))]);
    let child = start(&mut apply_with(3, &plan, &relay, &[]));
    relay.wait_until_held();
    let begin = Instant::now();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let (status, stderr) = end(child);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?} {stderr}", begin.elapsed());
    assert_eq!(status.code(), Some(5), "{stderr}");
    assert!(stderr.contains("interrupted by a signal"), "{stderr}");
    // What came is not asked for again.
    let relay = Relay::new(&[(&pair.source, Fault::None)]);
    let _ = Outcome::of(&mut apply_with(3, &plan, &relay, &[])).success();
    assert_follows(&pair.target, &pair.source);
}

/// A source that is gone for ever is given up in time on many connections, too.
#[test]
fn many_silent_connections_are_given_up_in_time() {
    let pair = large_pair(14);
    let plan = plan(&pair);
    let legs = [Fault::HoldAfter(bytes_of_apply(&pair) / 5), Fault::HoldAfter(200_000), Fault::HoldAfter(0)];
    let relay = Relay::new(&legs.map(|fault| (&pair.source, fault)));
    let (outcome, time) = timed(&mut apply_with(3, &plan, &relay, &["--source-timeout", "2"]));
    assert_code(&outcome, 5);
    assert!(time < Duration::from_secs(4) + GRACE, "{time:?} {outcome}");
    assert!(outcome.stderr.contains("the source server was lost"), "{outcome}");
}

/// A source that is restarted, in good order or not, is waited for.
#[test]
fn a_source_that_restarts_is_waited_for() {
    for (major, mode) in [(15, Stop::Fast), (19, Stop::Immediate)] {
        let pair = running_pair(major);
        let plan = plan(&pair);
        // Between plan and apply, too.
        pair.source.stop(mode);
        pair.source.start();
        let bytes = bytes_of_apply(&pair);
        let relay = Relay::new(&[(&pair.source, Fault::HoldAfter(bytes * 6 / 10)), (&pair.source, Fault::None)]);
        let child = start(&mut apply(&plan, &relay, &["--source-timeout", "120"]));
        relay.wait_until_held();
        assert!(is_sealed(&pair.target));
        pair.source.stop(mode);
        relay.release();
        relay.wait_for_connections(3);
        pair.source.start();
        let (status, stderr) = end(child);
        assert!(status.success(), "{status}: {stderr}");
        assert_follows(&pair.target, &pair.source);
    }
}

/// The same without a relay: while the server is away, there is no socket.
#[test]
fn a_socket_that_is_gone_for_a_while_is_tried_again() {
    let pair = running_pair(16);
    let plan = plan(&pair);
    let mut apply = start(pg_unfork(&["apply", "--no-sync", "--source-timeout", "120"]).arg(plan.path()));
    while !is_sealed(&pair.target) {
        assert_eq!(apply.try_wait().unwrap(), None, "apply ended before it was seen sealing");
        thread::yield_now();
    }
    let process = Pid::from_child(&apply);
    kill_process(process, Signal::STOP).unwrap();
    pair.source.stop(Stop::Fast);
    kill_process(process, Signal::CONT).unwrap();
    pair.source.start();
    let (status, stderr) = end(apply);
    assert!(status.success(), "{status}: {stderr}");
    assert_follows(&pair.target, &pair.source);
}

/// Somebody ends our sessions again and again, on a slow line: slow is not dead.
#[test]
fn terminated_sessions_and_a_slow_line_only_take_time() {
    let pair = running_pair(18);
    let plan = plan(&pair);
    let bytes = bytes_of_apply(&pair);
    let relay = Relay::new(&[(&pair.source, Fault::Crawl(bytes / 3))]);
    let ended = AtomicBool::new(false);
    let (outcome, terminated) = thread::scope(|scope| {
        let terminating = scope.spawn(|| {
            let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                             WHERE usename = 'rewind_user' AND backend_start < now() - interval '0.5 s'";
            let mut terminated = 0;
            while terminated < 3 && !ended.load(Ordering::Relaxed) {
                terminated += pair.source.sql("postgres", terminate).parse::<u32>().unwrap();
            }
            terminated
        });
        let outcome = Outcome::of(&mut apply(&plan, &relay, &["--source-timeout", "10"]));
        ended.store(true, Ordering::Relaxed);
        (outcome, terminating.join().unwrap())
    });
    let outcome = outcome.success();
    assert!(terminated >= 3 && relay.connections() > 3, "{terminated} {outcome}");
    assert_follows(&pair.target, &pair.source);
}

/// A source that is silent is given up in time, and the exit code says whether anything was written.
#[test]
fn silence_ends_in_time() {
    let pair = running_pair(16);
    let mut codes = Vec::new();
    for place in places(bytes_of_apply(&pair)) {
        let target = pair.copy_target();
        let plan = plan_for(&target, &pair);
        let before = Tree::of(&target);
        let relay = Relay::new(&[(&pair.source, Fault::HoldAfter(place)), (&pair.source, Fault::HoldAfter(0))]);
        let (outcome, time) = timed(&mut apply(&plan, &relay, &["--source-timeout", "2"]));
        let code = if is_sealed(&target) { 5 } else { 1 };
        assert_code(&outcome, code);
        assert!(time < Duration::from_secs(2) + GRACE, "{time:?} {outcome}");
        for words in ["the source server was lost", "no answer for", "--source-timeout"] {
            assert!(outcome.stderr.contains(words), "{words}: {outcome}");
        }
        if code == 1 {
            assert_eq!(tree::diff(&before, &Tree::of(&target), &|_| false), [""; 0]);
        }
        codes.push(code);
    }
    assert_eq!(codes, [1, 1, 5, 5]);
}

/// A server that does not answer at all is no source; without patience nothing is tried again.
#[test]
fn where_nobody_answers() {
    let pair = running_pair(14);
    let silent = Relay::new(&[(&pair.source, Fault::HoldAfter(0))]);
    let planning = |relay: &Relay, timeout| {
        let conninfo = relay.conninfo(REWIND_USER);
        let mut command = pg_unfork(&["plan", "--source-timeout", timeout, "--source-server", &conninfo, "-D"]);
        timed(command.arg(pair.target.data()))
    };
    let (outcome, time) = planning(&silent, "2");
    assert_code(&outcome, 4);
    assert!(outcome.stderr.contains("cannot connect") && time < GRACE, "{time:?} {outcome}");
    let cut = Relay::new(&[(&pair.source, Fault::CutAfter(9000))]);
    let (outcome, time) = planning(&cut, "0");
    assert_code(&outcome, 1);
    assert!(outcome.stderr.contains("1 attempt") && time < GRACE, "{time:?} {outcome}");
    assert_eq!(cut.connections(), 1);
    // Nobody listens: that is found out at once, whatever the patience.
    let (outcome, time) =
        timed(pg_unfork(&["plan", "--source-server", "host=127.0.0.1 port=1 user=x", "-D"]).arg(pair.target.data()));
    assert_code(&outcome, 4);
    assert!(outcome.stderr.contains("cannot connect") && time < GRACE, "{time:?} {outcome}");
}

/// Where a lost connection's address leads afterwards must be the same cluster on the same timeline.
#[test]
fn another_server_behind_the_address_is_not_taken() {
    let pair = running_pair(17);
    let other = Pair::shared(Major(17)).copy_source();
    let stranger = {
        let cluster = Cluster::initdb(Major(17), &InitOptions::default());
        cluster.start();
        workload::prepare(&cluster);
        cluster
    };
    other.start();
    let promoted = other.basebackup_standby(RecoveryConfig::Basebackup);
    promoted.start();
    promoted.wait_for_catchup(&other);
    promoted.promote();
    promoted.checkpoint();
    let bytes = bytes_of_apply(&pair);
    for (elsewhere, what) in [(&stranger, "another cluster"), (&promoted, "another timeline")] {
        let mut codes = Vec::new();
        for place in places(bytes) {
            let target = pair.copy_target();
            let plan = plan_for(&target, &pair);
            let relay = Relay::new(&[(&pair.source, Fault::CutAfter(place)), (elsewhere, Fault::None)]);
            let outcome = Outcome::of(&mut apply(&plan, &relay, &[]));
            let code = if is_sealed(&target) { 6 } else { 3 };
            assert_code(&outcome, code);
            assert!(outcome.stderr.contains(what), "{outcome}");
            codes.push(code);
        }
        assert_eq!(codes, [3, 3, 6, 6]);
    }
}

/// A server that has not come as far as the one before is waited for until it has.
#[test]
fn a_server_that_lags_is_waited_for() {
    let pair = running_pair(18);
    let standby = pair.source.basebackup_standby(RecoveryConfig::Basebackup);
    standby.start();
    standby.wait_for_catchup(&pair.source);
    standby.sql("postgres", "SELECT pg_wal_replay_pause()");
    pair.source.sql("postgres", "CREATE TABLE further AS SELECT 1 AS one");
    pair.source.checkpoint();
    let plan = plan(&pair);
    let bytes = bytes_of_apply(&pair);
    let legs = [(&pair.source, Fault::CutAfter(bytes * 7 / 10)), (&standby, Fault::None)];
    let relay = Relay::new(&legs);
    let target = pair.copy_target();
    let behind = plan_for(&target, &pair);
    let outcome = Outcome::of(&mut apply(&behind, &relay, &["--source-timeout", "2"]));
    assert_code(&outcome, 5);
    assert!(outcome.stderr.contains("is not back yet") && outcome.stderr.contains("but was at"), "{outcome}");
    let relay = Relay::new(&legs);
    let child = start(&mut apply(&plan, &relay, &["--source-timeout", "120"]));
    relay.wait_for_connections(4);
    pair.source.checkpoint();
    standby.sql("postgres", "SELECT pg_wal_replay_resume()");
    standby.wait_for_catchup(&pair.source);
    standby.checkpoint();
    let (status, stderr) = end(child);
    assert!(status.success(), "{status}: {stderr}");
    assert_follows(&pair.target, &pair.source);
}

/// What will not pass is not tried again.
#[test]
fn a_refusal_is_final() {
    let pair = running_pair(15);
    let plan = plan(&pair);
    let bytes = bytes_of_apply(&pair);
    let relay = Relay::new(&[(&pair.source, Fault::HoldAfter(bytes * 7 / 10)), (&pair.source, Fault::None)]);
    let child = start(&mut apply(&plan, &relay, &["--source-timeout", "600"]));
    relay.wait_until_held();
    pair.source.sql("postgres", "ALTER ROLE rewind_user NOLOGIN");
    pair.source.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rewind_user'");
    relay.release();
    let (status, stderr) = end(child);
    assert_eq!(status.code(), Some(5), "{stderr}");
    assert!(stderr.contains("is not permitted to log in"), "{stderr}");
    assert_eq!(relay.connections(), 2);
    let begin = Instant::now();
    let (_, outcome) = Plan::make(&pair.copy_target(), Source::Server(&pair.source, REWIND_USER), &[]);
    assert_code(&outcome, 4);
    assert!(begin.elapsed() < GRACE, "{outcome}");
}

/// A server that has no place for us just now is waited for, also at first.
#[test]
fn a_full_server_is_waited_for() {
    let pair = running_pair(13);
    pair.source.sql("postgres", "ALTER ROLE rewind_user CONNECTION LIMIT 1");
    let holding = Relay::new(&[(&pair.source, Fault::HoldAfter(9000)), (&pair.source, Fault::None)]);
    let planning = |relay: &Relay| {
        let mut command = pg_unfork(&["plan", "--source-timeout", "120", "--source-server"]);
        start(command.arg(relay.conninfo(REWIND_USER)).arg("-D").arg(pair.target.data()))
    };
    let first = planning(&holding);
    holding.wait_until_held();
    let waiting = Relay::new(&[(&pair.source, Fault::None)]);
    let second = planning(&waiting);
    waiting.wait_for_connections(3);
    assert!(pair.source.log().contains("too many connections for role"));
    holding.release();
    for child in [first, second] {
        let (status, stderr) = end(child);
        assert!(status.success(), "{status}: {stderr}");
    }
}

/// A signal ends a command whose source hangs, and the exit code says whether anything was written.
#[test]
fn signals_end_a_hanging_apply() {
    let pair = running_pair(19);
    let mut codes = Vec::new();
    let signals = [Signal::TERM, Signal::INT, Signal::HUP, Signal::TERM];
    for (signal, place) in signals.into_iter().zip(places(bytes_of_apply(&pair))) {
        let target = pair.copy_target();
        let plan = plan_for(&target, &pair);
        let relay = Relay::new(&[(&pair.source, Fault::HoldAfter(place))]);
        let child = start(&mut apply(&plan, &relay, &[]));
        relay.wait_until_held();
        let begin = Instant::now();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let (status, stderr) = end(child);
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?} {stderr}", begin.elapsed());
        let code = if is_sealed(&target) { 5 } else { 1 };
        assert_eq!(status.code(), Some(code), "{stderr}");
        assert!(stderr.contains("interrupted by a signal"), "{stderr}");
        codes.push(code);
    }
    assert_eq!(codes, [1, 1, 5, 5]);
}

/// Planning writes nothing, so a signal just ends it.
#[test]
fn signals_end_a_hanging_plan() {
    let pair = running_pair(14);
    let relay = Relay::new(&[(&pair.source, Fault::HoldAfter(9000))]);
    let mut command = pg_unfork(&["plan", "--source-server", &relay.conninfo(REWIND_USER), "-D"]);
    let child = start(command.arg(pair.target.data()));
    relay.wait_until_held();
    let begin = Instant::now();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let (status, stderr) = end(child);
    assert!(begin.elapsed() < Duration::from_secs(5), "{stderr}");
    assert_eq!(status.signal(), Some(15), "{stderr}");
}
