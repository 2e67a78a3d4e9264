//! What starts servers and decides about them: etcd, Patroni and repmgr, below `PG_UNFORK_ORCHESTRATORS` or
//! `target/orchestrators`. And processes of theirs, which are known by where they work.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::servers::Installation;

/// How long a condition may take to become true, on a machine that does other things, too.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where they are. What is missing fails the test: nothing is ever skipped.
pub(crate) fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let root = env::var_os("PG_UNFORK_ORCHESTRATORS")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/orchestrators"), PathBuf::from);
        assert!(
            root.join("bin/etcd").exists(),
            "{} has no etcd. Run tests/orchestrators/install, or point PG_UNFORK_ORCHESTRATORS elsewhere",
            root.display()
        );
        root
    })
}

/// A program of Patroni's, by the Python that runs it. It and what it starts find the programs of `installation`.
pub(crate) fn python(installation: &Installation) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    installation.clean_environment(&mut command);
    let bin = installation.bin("");
    let path = env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", bin.display()));
    command.env("PYTHONPATH", root().join("python")).env("PYTHONDONTWRITEBYTECODE", "1").arg("-s");
    command
}

/// An address of this machine that no other process of the tests uses: of any port below those that systems give out,
/// every process of the tests has its own.
pub(crate) fn address() -> String {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    format!("127.{}.{b}.{c}", u16::from(a) + 64)
}

/// Ends all processes that work in `directory` or below, at once and with no chance to do anything.
pub(crate) fn kill_all_below(directory: &Path) {
    let mut killed = BTreeSet::new();
    eventually(
        || format!("processes in {} to be gone", directory.display()),
        || {
            killed.extend(processes_below(directory));
            for number in &killed {
                let _ = Pid::from_raw(*number).map(|pid| kill_process(pid, Signal::KILL));
            }
            // Who looks at lock files asks for the number, which is free only when the parent has seen the end.
            let gone = |number: &i32| !Path::new(&format!("/proc/{number}")).exists();
            killed.iter().all(gone).then_some(())
        },
    );
}

/// Panics if a process works in `directory` or below.
#[track_caller]
pub(crate) fn assert_nothing_runs_below(directory: &Path) {
    let found = processes_below(directory);
    assert!(found.is_empty(), "{found:?} work in {}", directory.display());
}

/// The processes that work in `directory` or below, but for those that have ended and wait for their parents.
fn processes_below(directory: &Path) -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc");
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let works_there = |pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
    numbers.filter(works_there).collect()
}

/// Asks again and again until there is an answer; panics with what was waited for after a long time.
#[track_caller]
pub(crate) fn eventually<T>(wanted: impl Fn() -> String, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {}", wanted());
        thread::sleep(Duration::from_millis(50));
    }
}
