//! pg_rewind's options, and what it says of those that do not do.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::getopt::{Spec, getopt};

/// Where the source is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceOption {
    /// `--source-pgdata`: a stopped data directory.
    Directory(OsString),
    /// `--source-server`: a connection string.
    Server(OsString),
}

/// How changes are made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncWish {
    /// Each file.
    #[default]
    Fsync,
    /// Each file system.
    Syncfs,
}

/// A rewind as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `-D`: the target's data directory, as given.
    pub target: OsString,
    /// The source.
    pub source: SourceOption,
    /// `-n`: change nothing.
    pub dry_run: bool,
    /// `-N`: do not wait for the disk.
    pub no_sync: bool,
    /// `-P`: tell how far it is.
    pub progress: bool,
    /// `-R`: make the target a standby of the source.
    pub write_recovery_conf: bool,
    /// `-c`: restore missing WAL by the target's `restore_command`.
    pub restore_target_wal: bool,
    /// Not `--no-ensure-shutdown`: let an unclean target recover first.
    pub ensure_shutdown: bool,
    /// `--debug`.
    pub debug: bool,
    /// `--config-file`: the target's settings, where they lie elsewhere.
    pub config_file: Option<OsString>,
    /// `--sync-method`.
    pub sync_method: SyncWish,
}

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `--help`, as the first argument.
    Help,
    /// `--version`, as the first argument.
    Version,
    /// A rewind.
    Rewind(Box<Options>),
}

/// A command line that does not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misuse {
    /// The line that says so; none where stock says nothing.
    pub line: Option<String>,
    /// The hint under it.
    pub hint: Option<&'static str>,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The name that the program was called by, for mistakes that the C library reports.
    pub program: &'a OsStr,
    /// Whether `POSIXLY_CORRECT` is set.
    pub posix: bool,
    /// Whether the effective user is root.
    pub is_root: bool,
}

#[derive(Clone, Copy, Debug)]
enum Key {
    Help,
    Version,
    Target,
    RecoveryConf,
    SourceDirectory,
    SourceServer,
    NoEnsureShutdown,
    ConfigFile,
    RestoreWal,
    DryRun,
    NoSync,
    Progress,
    Debug,
    SyncMethod,
}

/// In the order of pg_rewind's table, in which the C library lists what a cut name may mean.
const SPECS: [Spec<Key>; 14] = [
    flag(Key::Help, "help", None),
    value(Key::Target, "target-pgdata", Some(b'D')),
    flag(Key::RecoveryConf, "write-recovery-conf", Some(b'R')),
    value(Key::SourceDirectory, "source-pgdata", None),
    value(Key::SourceServer, "source-server", None),
    flag(Key::NoEnsureShutdown, "no-ensure-shutdown", None),
    value(Key::ConfigFile, "config-file", None),
    flag(Key::Version, "version", None),
    flag(Key::RestoreWal, "restore-target-wal", Some(b'c')),
    flag(Key::DryRun, "dry-run", Some(b'n')),
    flag(Key::NoSync, "no-sync", Some(b'N')),
    flag(Key::Progress, "progress", Some(b'P')),
    flag(Key::Debug, "debug", None),
    value(Key::SyncMethod, "sync-method", None),
];

const fn flag(key: Key, long: &'static str, short: Option<u8>) -> Spec<Key> {
    Spec { key, long, short, takes_value: false }
}

const fn value(key: Key, long: &'static str, short: Option<u8>) -> Spec<Key> {
    Spec { key, long, short, takes_value: true }
}

const TRY: &str = "Try \"pg_rewind --help\" for more information.";
const AS_WHOM: &str = "You must run pg_rewind as the PostgreSQL superuser.";

/// The options as they are found, before anything is known to be there.
#[derive(Debug, Default)]
struct Found {
    target: Option<OsString>,
    directory: Option<OsString>,
    server: Option<OsString>,
    config_file: Option<OsString>,
    sync_method: SyncWish,
    dry_run: bool,
    no_sync: bool,
    progress: bool,
    write_recovery_conf: bool,
    restore_target_wal: bool,
    no_ensure_shutdown: bool,
    debug: bool,
}

/// Understands `arguments`, without the program's name, as pg_rewind does: all options of 13 to 19, whatever the major.
/// Of an option that is repeated, the last one counts.
///
/// # Errors
/// What pg_rewind would say, in its order, before it touches anything.
pub fn parse(caller: Caller<'_>, arguments: &[OsString]) -> Result<Request, Misuse> {
    match arguments.first().map(|argument| argument.as_bytes()) {
        Some(b"--help" | b"-?") => return Ok(Request::Help),
        Some(b"--version" | b"-V") => return Ok(Request::Version),
        _ => {}
    }
    let parsed = getopt(&SPECS, arguments, caller.posix);
    let mut found = Found::default();
    for (key, value) in parsed.options {
        found.set(key, value)?;
    }
    if let Some(mistake) = parsed.mistake {
        return Err(misuse(format!("{}: {mistake}", caller.program.to_string_lossy())));
    }
    found.check(&parsed.operands, caller.is_root).map(|options| Request::Rewind(Box::new(options)))
}

impl Found {
    fn set(&mut self, key: Key, value: Option<OsString>) -> Result<(), Misuse> {
        match key {
            // Only as the first argument.
            Key::Help | Key::Version => return Err(Misuse { line: None, hint: Some(TRY) }),
            Key::Target => self.target = value,
            Key::SourceDirectory => self.directory = value,
            Key::SourceServer => self.server = value,
            Key::ConfigFile => self.config_file = value,
            Key::SyncMethod => self.sync_method = sync_method(&value.unwrap_or_default())?,
            Key::RecoveryConf => self.write_recovery_conf = true,
            Key::NoEnsureShutdown => self.no_ensure_shutdown = true,
            Key::RestoreWal => self.restore_target_wal = true,
            Key::DryRun => self.dry_run = true,
            Key::NoSync => self.no_sync = true,
            Key::Progress => self.progress = true,
            Key::Debug => self.debug = true,
        }
        Ok(())
    }

    fn check(self, operands: &[OsString], is_root: bool) -> Result<Options, Misuse> {
        let source = match (self.directory, self.server) {
            (None, None) => return Err(error("no source specified (--source-pgdata or --source-server)")),
            (Some(_), Some(_)) => {
                return Err(error("only one of --source-pgdata or --source-server can be specified"));
            }
            (Some(directory), None) => SourceOption::Directory(directory),
            (None, Some(server)) => SourceOption::Server(server),
        };
        let Some(target) = self.target else {
            return Err(error("no target data directory specified (--target-pgdata)"));
        };
        if self.write_recovery_conf && matches!(source, SourceOption::Directory(_)) {
            return Err(error("no source server information (--source-server) specified for --write-recovery-conf"));
        }
        if let Some(first) = operands.first() {
            let first = first.to_string_lossy();
            return Err(error(&format!("too many command-line arguments (first is \"{first}\")")));
        }
        if is_root {
            let line = Some("pg_rewind: error: cannot be executed by \"root\"".to_owned());
            return Err(Misuse { line, hint: Some(AS_WHOM) });
        }
        Ok(Options {
            target,
            source,
            dry_run: self.dry_run,
            no_sync: self.no_sync,
            progress: self.progress,
            write_recovery_conf: self.write_recovery_conf,
            restore_target_wal: self.restore_target_wal,
            ensure_shutdown: !self.no_ensure_shutdown,
            debug: self.debug,
            config_file: self.config_file,
            sync_method: self.sync_method,
        })
    }
}

fn sync_method(name: &OsStr) -> Result<SyncWish, Misuse> {
    match name.as_bytes() {
        b"fsync" => Ok(SyncWish::Fsync),
        b"syncfs" => Ok(SyncWish::Syncfs),
        _ => {
            let line = format!("pg_rewind: error: unrecognized sync method: {}", name.to_string_lossy());
            Err(Misuse { line: Some(line), hint: None })
        }
    }
}

fn error(text: &str) -> Misuse {
    misuse(format!("pg_rewind: error: {text}"))
}

fn misuse(line: String) -> Misuse {
    Misuse { line: Some(line), hint: Some(TRY) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str], is_root: bool) -> Result<Request, Misuse> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        parse(Caller { program: OsStr::new("/bin/pg_rewind"), posix: false, is_root }, &arguments)
    }

    fn rewind(options: Options) -> Result<Request, Misuse> {
        Ok(Request::Rewind(Box::new(options)))
    }

    #[test]
    fn nothing_more_than_needed() {
        let expected = Options {
            target: "x".into(),
            source: SourceOption::Directory("a".into()),
            dry_run: false,
            no_sync: false,
            progress: false,
            write_recovery_conf: false,
            restore_target_wal: false,
            ensure_shutdown: true,
            debug: false,
            config_file: None,
            sync_method: SyncWish::Fsync,
        };
        assert_eq!(parsed(&["-D", "x", "--source-pgdata=a"], false), rewind(expected));
    }

    #[test]
    fn everything_in_any_order() {
        let all = [
            "--config-f",
            "f",
            "--source-s=host=a",
            "-cnNPR",
            "--debug",
            "--no-e",
            "--sync-method",
            "syncfs",
            "-Dx",
            "--target-pgdata=y",
            "--sync-method=fsync",
            "--sync-method=syncfs",
        ];
        let expected = Options {
            target: "y".into(),
            source: SourceOption::Server("host=a".into()),
            dry_run: true,
            no_sync: true,
            progress: true,
            write_recovery_conf: true,
            restore_target_wal: true,
            ensure_shutdown: false,
            debug: true,
            config_file: Some("f".into()),
            sync_method: SyncWish::Syncfs,
        };
        assert_eq!(parsed(&all, false), rewind(expected));
    }

    #[test]
    fn help_and_version_come_first_or_not_at_all() {
        for first in ["--help", "-?"] {
            assert_eq!(parsed(&[first, "--bogus"], true), Ok(Request::Help));
        }
        for first in ["--version", "-V"] {
            assert_eq!(parsed(&[first], true), Ok(Request::Version));
        }
        let silent = Err(Misuse { line: None, hint: Some(TRY) });
        assert_eq!(parsed(&["-n", "--help"], false), silent);
        assert_eq!(parsed(&["--vers"], false), silent);
    }

    #[test]
    fn root_is_refused_last() {
        let line = |arguments: &[&str]| parsed(arguments, true).unwrap_err().line.unwrap();
        assert!(line(&["-D", "x", "--source-pgdata=a", "y"]).contains("too many"));
        assert!(line(&["-D", "x", "--source-pgdata=a"]).contains("root"));
    }
}
