//! Running a program and judging how it ended, with a message that shows everything.

use std::fmt;
use std::process::{Command, ExitStatus};

/// How a program ended and what it wrote.
#[derive(Debug, Clone)]
#[must_use = "judge it with success() or failure()"]
pub(crate) struct Outcome {
    /// The command line, for messages.
    pub(crate) command: String,
    /// Exit status, or the signal that ended it.
    pub(crate) status: ExitStatus,
    /// Standard output, with bytes that are not UTF-8 replaced.
    pub(crate) stdout: String,
    /// Standard error, with bytes that are not UTF-8 replaced.
    pub(crate) stderr: String,
}

impl Outcome {
    /// Runs `command` to its end. Standard input is empty unless the command says otherwise.
    pub(crate) fn of(command: &mut Command) -> Self {
        let line = format!("{command:?}");
        let output = command.output().unwrap_or_else(|error| panic!("cannot run {line}: {error}"));
        Self {
            command: line,
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Panics, showing everything, unless the program ended with status 0.
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        assert!(self.status.success(), "expected success of\n{self}");
        self
    }

    /// Panics, showing everything, unless the program ended with another status than 0.
    #[track_caller]
    pub(crate) fn failure(self) -> Self {
        assert!(!self.status.success(), "expected failure of\n{self}");
        self
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.command)?;
        writeln!(f, "--- {}", self.status)?;
        writeln!(f, "--- stdout\n{}", self.stdout)?;
        writeln!(f, "--- stderr\n{}", self.stderr)
    }
}
