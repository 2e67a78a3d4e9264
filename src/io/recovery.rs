//! Crash recovery of a target that did not stop in good order, by its own server in single-user mode.
//!
//! A server in that mode refuses `standby.signal`, so that and `recovery.signal` are put aside into the state directory
//! meanwhile. However this ends, they are put back: by the next run, too, if this one could not.

use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::child;
use super::data_directory::unusable;
use super::postgres_options::Options;
use super::postmaster::running_postmaster;
use super::programs::Postgres;
use crate::cluster::STATE_DIRECTORY;
use crate::error::{Error, ErrorId, Result};
use crate::format::BackupLabel;
use crate::interrupt::Interrupt;

/// What makes a server a standby, or lets it recover from an archive.
const SIGNALS: [&str; 2] = ["standby.signal", "recovery.signal"];

/// Begins the names under which they are put aside.
const ASIDE: &str = "aside.";

/// What recovery is run with, besides the settings that the server had.
///
/// All WAL stays: what a rewind needs lies before the checkpoint that ends recovery, which would remove it. Nothing is
/// archived: what an archive has is not to depend on what is thrown away next. Messages go where they are read.
/// `fsync` stays as it is set: what recovery writes is made durable by nobody else.
const SETTINGS: [&str; 4] =
    ["archive_mode=off", "wal_keep_size=2147483647", "log_destination=stderr", "logging_collector=off"];

/// Lets `postgres` recover the cluster in `directory` (a real path), of which it must be sure that nobody uses it and
/// that it needs that. Its control file says afterwards whether it is at rest.
///
/// # Errors
/// When recovery fails; the cluster is then as unclean as before. When the work shall stop.
pub fn recover(directory: &Path, postgres: &Postgres, options: &Options, interrupt: &Interrupt) -> Result<()> {
    if !may_replay(&directory.join("backup_label"))? {
        let message = "the target has a backup_label that no rewind has left: it is a base backup, and has not been started since";
        return Err(Error::of(ErrorId::RecoveryFailed, message)
            .hint("start it as a standby, and stop it in good order (pg_ctl stop -m fast); recovering it by itself would make it a primary of its own")
            .hint("where it is left from an exclusive backup of a primary (PostgreSQL 13 or 14), remove it"));
    }
    // A server that is just starting must find its standby.signal.
    if let Some(pid) = running_postmaster(directory)? {
        let message = format!("a server is running on the target (process {pid})");
        return Err(Error::of(ErrorId::TargetRunning, message).hint("stop it in good order (pg_ctl stop -m fast)"));
    }
    // What is put aside is put back before the process ends.
    let _held = interrupt.hold();
    let aside = Aside::put(directory)?;
    let mut command = Command::new(&postgres.path);
    command.arg("--single").args(options.arguments());
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    // SIGTERM is not heeded while WAL is replayed.
    let ended = child::run(command.arg("template1"), Signal::QUIT, interrupt);
    aside.put_back()?;
    let ended = ended?;
    if ended.status.success() {
        return Ok(());
    }
    Err(Error::of(ErrorId::RecoveryFailed, format!("the target's recovery failed ({})", ended.status))
        .because(ended.last_lines())
        .hint("see why above; or start the target's server alone, as it was started before, and stop it in good order"))
}

/// Whether a server may replay from the label at this path, if there is one: after a rewind it becomes what its source was.
fn may_replay(label: &Path) -> Result<bool> {
    match std::fs::read(label) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(unusable("read", label, error)),
        Ok(text) => Ok(BackupLabel::of_rewind(&text).is_some()),
    }
}

/// Whether an earlier run has put something aside and did not live to put it back, or is just at it.
#[must_use]
pub fn signals_are_aside(directory: &Path) -> bool {
    SIGNALS.iter().any(|name| is_there(&place(directory, name)))
}

/// Puts back what an earlier run has put aside and did not live to put back. Says whether there was anything.
///
/// # Errors
/// When a server runs on the directory, maybe the one that the earlier run has started; or when nothing can be written.
pub fn put_back_signals(directory: &Path) -> Result<bool> {
    if !signals_are_aside(directory) {
        return Ok(false);
    }
    if let Some(pid) = running_postmaster(directory)? {
        let message = format!("the target is being recovered, or a server is running on it (process {pid})");
        return Err(Error::of(ErrorId::TargetRunning, message)
            .hint("wait until that process has ended, and run this again: it puts back standby.signal, which is put aside meanwhile"));
    }
    put_back(directory).map(|()| true)
}

/// The signal files of a directory are put aside, until this goes.
struct Aside<'a>(&'a Path);

impl<'a> Aside<'a> {
    /// Puts aside what there is, durably.
    fn put(directory: &'a Path) -> Result<Self> {
        if SIGNALS.iter().any(|name| is_there(&directory.join(name))) {
            let state = directory.join(STATE_DIRECTORY);
            match std::fs::DirBuilder::new().mode(0o700).create(&state) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(unusable("make", &state, error)),
                _ => {}
            }
            sync(directory)?;
        }
        let aside = Self(directory);
        for name in SIGNALS {
            rename(&directory.join(name), &place(directory, name))?;
        }
        sync_both(directory)?;
        Ok(aside)
    }

    /// Puts all back, durably.
    fn put_back(self) -> Result<()> {
        put_back(self.0)
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        // Again, where an error came before.
        let _ = put_back(self.0);
    }
}

/// Puts back what was put aside; what has been made in its place meanwhile stays.
fn put_back(directory: &Path) -> Result<()> {
    let state = directory.join(STATE_DIRECTORY);
    for name in SIGNALS {
        let own = directory.join(name);
        if is_there(&own) {
            remove(&place(directory, name))?;
        } else {
            rename(&place(directory, name), &own)?;
        }
    }
    sync_both(directory)?;
    // Only if nothing else is in it.
    if std::fs::remove_dir(state).is_ok() {
        sync(directory)?;
    }
    Ok(())
}

/// Where a file is while it is put aside.
fn place(directory: &Path, name: &str) -> PathBuf {
    directory.join(STATE_DIRECTORY).join(format!("{ASIDE}{name}"))
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn sync_both(directory: &Path) -> Result<()> {
    let state = directory.join(STATE_DIRECTORY);
    if state.exists() {
        sync(&state)?;
    }
    sync(directory)
}

/// Renames a file, if it is there.
fn rename(from: &Path, to: &Path) -> Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(unusable("rename", from, error)),
        _ => Ok(()),
    }
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(unusable("remove", path, error)),
        _ => Ok(()),
    }
}

fn sync(directory: &Path) -> Result<()> {
    let synced = std::fs::File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| unusable("sync", directory, error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::format::Major;

    fn recover_by(script: &str, directory: &Path) -> Result<()> {
        // The script is what the shell reads: it stands for a server.
        let program = directory.join("postgres");
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "printf '#!/bin/sh\n%s\n' \"$1\" >postgres; chmod +x postgres", "sh", script]);
        assert!(shell.current_dir(directory).status().unwrap().success());
        let postgres = Postgres { path: program, version: "17.0".to_owned() };
        recover(directory, &postgres, &Options::of(directory, None, Major::V17), &Interrupt::new())
    }

    #[test]
    fn signal_files_are_put_aside_and_always_put_back() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path();
        let there = |name: &str| directory.join(name).exists();
        for name in SIGNALS {
            std::fs::write(directory.join(name), name).unwrap();
        }
        let script = format!("cd {} && [ ! -e standby.signal ] && [ ! -e recovery.signal ]", directory.display());
        recover_by(&script, directory).unwrap();
        assert!(SIGNALS.iter().all(|name| there(name)) && !there(STATE_DIRECTORY));
        let error = recover_by("echo 'it is broken' >&2; exit 3", directory).unwrap_err();
        assert_eq!(error.id(), ErrorId::RecoveryFailed);
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("it is broken"));
        assert!(SIGNALS.iter().all(|name| there(name)) && !there(STATE_DIRECTORY));
    }

    #[test]
    fn the_next_run_puts_back() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path();
        assert!(!put_back_signals(directory).unwrap());
        std::fs::write(directory.join("standby.signal"), "its content").unwrap();
        std::mem::forget(Aside::put(directory).unwrap());
        assert!(!directory.join("standby.signal").exists());
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        std::fs::write(directory.join("postmaster.pid"), format!("-{}\n", child.id())).unwrap();
        assert_eq!(put_back_signals(directory).unwrap_err().id(), ErrorId::TargetRunning);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(put_back_signals(directory).unwrap());
        assert_eq!(std::fs::read(directory.join("standby.signal")).unwrap(), b"its content");
        assert!(!directory.join(STATE_DIRECTORY).exists());
    }

    #[test]
    fn a_backup_is_not_recovered() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("backup_label"), "").unwrap();
        assert_eq!(recover_by("true", scratch.path()).unwrap_err().id(), ErrorId::RecoveryFailed);
        let rewound = "START WAL LOCATION: 0/3000028 (file 000000020000000000000003)\nCHECKPOINT LOCATION: 0/3000060\nBACKUP METHOD: pg_rewind\n";
        std::fs::write(scratch.path().join("backup_label"), rewound).unwrap();
        recover_by("true", scratch.path()).unwrap();
    }
}
