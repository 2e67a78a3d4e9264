//! The program as a drop-in for pg_rewind.

use std::cell::Cell;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::cluster::Cluster;
use super::outcome::Outcome;
use super::stock::Source;
use super::tool::{pg_unfork, source_options};

thread_local! {
    static THROUGH_DROP_IN: Cell<bool> = const { Cell::new(false) };
}

/// Runs a scenario in which every plan that is applied is only the yardstick, and the drop-in does the work.
pub(crate) fn through_the_drop_in(scenario: impl FnOnce()) {
    THROUGH_DROP_IN.set(true);
    scenario();
    THROUGH_DROP_IN.set(false);
}

/// Whether that is going on.
pub(crate) fn is_through_drop_in() -> bool {
    THROUGH_DROP_IN.get()
}

/// A command of the program under the name `pg_rewind`.
pub(crate) fn pg_rewind(arguments: &[&str]) -> Command {
    let mut command = pg_unfork(arguments);
    command.arg0("pg_rewind").stdin(Stdio::null());
    command
}

/// The command that rewinds `target`, without syncing.
pub(crate) fn command(target: &Cluster, source: Source<'_>, arguments: &[&str]) -> Command {
    let [option, source] = source_options(source);
    let mut command = pg_rewind(&["--no-sync"]);
    command.arg("-D").arg(target.data()).args([option, source]).args(arguments);
    // Links of tablespaces may lead by way of the working directory.
    command.current_dir(target.data());
    command
}

/// Rewinds `target`. Whatever comes of it, nothing is written to standard output.
#[track_caller]
pub(crate) fn rewind(target: &Cluster, source: Source<'_>, arguments: &[&str]) -> Outcome {
    silent(Outcome::of(&mut command(target, source, arguments)))
}

/// Does with the drop-in what a plan is for.
#[track_caller]
pub(crate) fn instead_of(plan: &Value) -> Outcome {
    let text = |side: &str, field: &str| plan[side][field].as_str().unwrap().to_owned();
    let option = match plan["source"]["kind"].as_str().unwrap() {
        "stopped_directory" => "--source-pgdata",
        _ => "--source-server",
    };
    let mut command = pg_rewind(&["-N", "-D", &text("target", "directory"), option, &text("source", "address")]);
    if plan.get("recovery").is_some() {
        command.arg("-R");
    }
    silent(Outcome::of(&mut command))
}

#[track_caller]
fn silent(outcome: Outcome) -> Outcome {
    assert_eq!(outcome.stdout, "", "{outcome}");
    assert!(outcome.status.code().is_some_and(|code| code <= 1), "{outcome}");
    outcome
}

/// The signal of a file that has become too large, on Linux.
const XFSZ: i32 = 25;

/// Runs the command until it writes more than 1000 KiB of a file, that is the first WAL segment, and the system kills it.
#[track_caller]
pub(crate) fn killed(command: &Command) {
    let script = "ulimit -c 0; ulimit -f 1000; exec -a pg_rewind \"$@\"";
    let mut limited = Command::new("bash");
    limited.args(["-c", script, "bash"]).arg(command.get_program()).args(command.get_args());
    let status = limited.stdin(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.signal(), Some(XFSZ), "{status}");
}

/// The lines about where both parted and what follows, which are stock's.
pub(crate) fn course(stderr: &str) -> Vec<&str> {
    let words = ["servers diverged", "source and target", "rewinding from", "no rewind required", "Done!"];
    let is_one = |line: &&str| {
        line.strip_prefix("pg_rewind: ").is_some_and(|text| words.iter().any(|word| text.starts_with(word)))
    };
    stderr.lines().filter(is_one).collect()
}
