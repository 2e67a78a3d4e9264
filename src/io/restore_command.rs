//! Running a target's `restore_command`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::event::{Timespec, poll};
use rustix::process::Signal;

use super::child::{self, Ended};
use super::postgres_options::Options;
use super::programs::Postgres;
use crate::error::{Context, Error, ErrorId, Result};
use crate::format::{Major, expand_restore_command};
use crate::interrupt::Interrupt;

/// How long is waited before each further try, after one that failed and was not fatal.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];

/// Tells a command that a rewind asks, not recovery.
const REWIND_VARIABLE: &str = "PG_REWIND";

/// A command that restores WAL segments from an archive.
#[derive(Clone, Debug)]
pub struct RestoreCommand {
    text: Vec<u8>,
    major: Major,
    notes: fn(&str),
    interrupt: Interrupt,
}

/// How a try ended.
enum Tried {
    /// The file is there.
    Restored,
    /// It may work yet, or the archive has no such file.
    Failed(String),
}

impl RestoreCommand {
    /// The command `text` for a target of `major`. What it writes to standard error is given to `notes`, as whole lines
    /// and within bounds.
    ///
    /// # Errors
    /// When it has placeholders that cannot be filled in.
    pub fn new(text: &OsStr, major: Major, notes: fn(&str), interrupt: Interrupt) -> Result<Self> {
        let text = text.as_bytes().to_vec();
        if text.is_empty() {
            return Err(Error::of(ErrorId::RestoreCommand, "restore_command is not set on the target")
                .hint("set it in the target's settings, or name a command: --restore-command"));
        }
        expand(&text, "", Path::new(""), major)?;
        Ok(Self { text, major, notes, interrupt })
    }

    /// The `restore_command` that a target's settings have, as `postgres` tells.
    ///
    /// # Errors
    /// When the settings cannot be read or have none, or it cannot be used.
    pub fn of_target(
        postgres: &Postgres,
        options: &Options,
        major: Major,
        notes: fn(&str),
        interrupt: Interrupt,
    ) -> Result<Self> {
        let mut command = Command::new(&postgres.path);
        command.args(options.arguments()).args(["-C", "restore_command"]);
        let ended = child::run(&mut command, Signal::TERM, &interrupt)?;
        if !ended.status.success() {
            let failure = "postgres cannot tell the target's restore_command".to_owned();
            return Err(Error::of(ErrorId::RestoreCommand, failure)
                .because(ended.last_lines())
                .hint("if the target's postgresql.conf lies elsewhere, name it: --config-file FILE")
                .hint("or name the command itself: --restore-command"));
        }
        let text = ended.stdout.trim_ascii_end();
        Self::new(OsStr::from_bytes(text), major, notes, interrupt)
    }

    /// Asks for the segment called `file`, which is to be put at `path`: again after a pause, where that fails and is
    /// not fatal. Says whether it is there.
    ///
    /// # Errors
    /// When the command cannot be run, was ended by a signal, or has an exit status above 125, as a shell has that does
    /// not find what it shall run.
    pub(super) fn restore(&self, file: &str, path: &Path) -> Result<bool> {
        let command = expand(&self.text, file, path, self.major)?;
        let mut pauses = PAUSES.iter();
        loop {
            match self.try_once(&command, file, path)? {
                Tried::Restored => return Ok(true),
                Tried::Failed(how) => {
                    (self.notes)(&format!("pg_unfork: restore_command did not restore {file}: {how}\n"));
                }
            }
            // What it may have left must not be taken for the file.
            remove_if_there(path)?;
            let Some(&pause) = pauses.next() else { return Ok(false) };
            self.pause(pause)?;
        }
    }

    fn try_once(&self, command: &[u8], file: &str, path: &Path) -> Result<Tried> {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(OsStr::from_bytes(command)).env(REWIND_VARIABLE, "1");
        let ended = child::run(&mut shell, Signal::TERM, &self.interrupt)?;
        let said = ended.last_lines();
        if !said.is_empty() {
            let lines: String = said.lines().map(|line| format!("pg_unfork: restore_command: {line}\n")).collect();
            (self.notes)(&lines);
        }
        if let Some(how) = fatal(ended.status) {
            return Err(refused(file, how, &ended));
        }
        Ok(match ended.status.code() {
            Some(0) if path.symlink_metadata().is_ok() => Tried::Restored,
            Some(0) => Tried::Failed("it succeeded, but there is no file".to_owned()),
            code => Tried::Failed(format!("exit status {}", code.unwrap_or_default())),
        })
    }

    /// Waits, unless the work shall stop.
    fn pause(&self, pause: Duration) -> Result<()> {
        const TICK: Duration = Duration::from_millis(50);
        let mut left = pause;
        while !left.is_zero() {
            self.interrupt.check()?;
            let now = left.min(TICK);
            let timeout = Timespec::try_from(now).context(|| "no such time".to_owned())?;
            let _ = poll(&mut [], Some(&timeout));
            left -= now;
        }
        self.interrupt.check()
    }
}

fn expand(text: &[u8], file: &str, path: &Path, major: Major) -> Result<Vec<u8>> {
    expand_restore_command(text, file.as_bytes(), path.as_os_str().as_bytes(), major).map_err(|error| {
        Error::of(ErrorId::RestoreCommand, "the target's restore_command cannot be used")
            .because(error)
            .hint("name a command for this purpose: --restore-command, with %f and %p alone")
    })
}

/// What PostgreSQL takes for more than a file that is not in the archive: a signal, and statuses with which shells say
/// that there was a signal or that there is no such program.
fn fatal(status: ExitStatus) -> Option<String> {
    match (status.signal(), status.code()) {
        (Some(signal), _) => Some(format!("signal {signal}")),
        (None, Some(code)) if code > 125 => Some(format!("exit status {code}")),
        _ => None,
    }
}

fn refused(file: &str, how: String, ended: &Ended) -> Error {
    let error = Error::of(ErrorId::RestoreCommand, format!("restore_command failed on {file} with {how}"));
    let said = ended.last_lines();
    let error = if said.is_empty() { error } else { error.because(said) };
    error.hint("run the command by hand, as the user that owns the data directory, and make good what it lacks")
}

/// Removes what may be at `path`.
fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A directory for one restored segment, readable by its owner alone, whose name a command can recognise.
#[derive(Debug)]
pub(super) struct Staging {
    directory: tempfile::TempDir,
}

impl Staging {
    /// Makes one below the system's directory for temporary files.
    pub(super) fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("pg_unfork-").tempdir();
        let directory = directory.context(|| "cannot make a directory for restored WAL (see TMPDIR)".to_owned())?;
        let staging = Self { directory };
        std::fs::create_dir(staging.wal()).context(|| format!("cannot make {}", staging.wal().display()))?;
        Ok(staging)
    }

    fn wal(&self) -> PathBuf {
        self.directory.path().join("pg_wal")
    }

    /// Where a segment is restored to.
    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.wal().join(file)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn restore(script: &str) -> (Result<bool>, Vec<u8>) {
        let staging = Staging::new().unwrap();
        let command = RestoreCommand::new(OsStr::new(script), Major::V17, |_| (), Interrupt::new()).unwrap();
        let path = staging.path("SEG");
        let outcome = command.restore("SEG", &path);
        (outcome, std::fs::read(path).unwrap_or_default())
    }

    #[test]
    fn statuses_mean_what_they_mean_to_postgresql() {
        let restored = |script| restore(script).0.map_err(|error| error.to_string());
        assert_eq!(restore("echo $PG_REWIND %f >%p").1, b"1 SEG\n");
        assert_eq!(restored("echo x >%p; exit 1"), Ok(false));
        assert_eq!(restored("true"), Ok(false));
        assert_eq!(restored("exit 125"), Ok(false));
        for (script, how) in [
            ("exit 126", "exit status 126"),
            ("no_such_program_at_all", "exit status 127"),
            ("exit 137", "exit status 137"),
            ("kill -TERM $$", "signal 15"),
            ("kill -KILL $$", "signal 9"),
        ] {
            assert_eq!(restored(script), Err(format!("restore_command failed on SEG with {how}")), "{script}");
        }
    }

    #[test]
    fn what_fails_is_tried_again() {
        let scratch = tempfile::tempdir().unwrap();
        let counter = scratch.path().join("tries");
        let script =
            |limit: usize| format!("echo x >>{0}; [ $(wc -l <{0}) -ge {limit} ] && echo x >%p", counter.display());
        assert!(restore(&script(PAUSES.len() + 1)).0.unwrap());
        std::fs::remove_file(&counter).unwrap();
        assert!(!restore(&script(99)).0.unwrap());
        assert_eq!(std::fs::read(&counter).unwrap().len(), 2 * (PAUSES.len() + 1));
    }

    #[test]
    fn what_cannot_be_filled_in_is_refused_at_once() {
        for text in ["", "x %r", "x %d"] {
            let refused = RestoreCommand::new(OsStr::new(text), Major::V16, |_| (), Interrupt::new());
            assert_eq!(refused.unwrap_err().id(), ErrorId::RestoreCommand, "{text}");
        }
    }
}
