//! Running programs, and measuring them as a whole.

use std::fs::File;
use std::ops::Add as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use wait4::Wait4 as _;

use super::Result;

/// What a process cost from its start to its end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Time that passed.
    pub(crate) wall: Duration,
    /// Time on a CPU, in user and kernel mode.
    pub(crate) cpu: Duration,
    /// Highest resident set, in bytes.
    pub(crate) peak: u64,
}

impl Cost {
    /// The cost of both, one after the other.
    pub(crate) fn then(self, next: Self) -> Self {
        Self { wall: self.wall.add(next.wall), cpu: self.cpu.add(next.cpu), peak: self.peak.max(next.peak) }
    }
}

/// Runs a program that must succeed; what it says goes to the file `log`.
pub(crate) fn measure(command: &mut Command, log: &Path) -> Result<Cost> {
    let log_file = File::create(log)?;
    command.stdin(Stdio::null()).stderr(log_file.try_clone()?);
    command.stdout(if command.get_program() == "cat" { Stdio::null() } else { Stdio::from(log_file) });
    let start = Instant::now();
    let end = command.spawn()?.wait4()?;
    let wall = start.elapsed();
    if !end.status.success() {
        return Err(format!("{command:?}: {}\n{}", end.status, std::fs::read_to_string(log)?).into());
    }
    Ok(Cost { wall, cpu: end.rusage.utime + end.rusage.stime, peak: end.rusage.maxrss })
}

/// Runs a program that must succeed, and gives what it says.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
