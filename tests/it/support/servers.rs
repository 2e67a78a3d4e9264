//! The PostgreSQL installations that the tests use: `<root>/<major>/bin`, where root is
//! `PG_UNFORK_POSTGRES` or `target/postgres`.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A major version of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Major(pub(crate) u16);

impl Major {
    /// Every supported major, oldest first.
    pub(crate) const ALL: [Self; 7] = [Self(13), Self(14), Self(15), Self(16), Self(17), Self(18), Self(19)];

    /// Position in [`Major::ALL`].
    pub(crate) fn index(self) -> usize {
        usize::from(self.0 - Self::ALL[0].0)
    }
}

/// The majors by name, for tables of scenarios.
#[allow(non_upper_case_globals)]
pub(crate) mod majors {
    use super::Major;

    pub(crate) const v13: Major = Major(13);
    pub(crate) const v14: Major = Major(14);
    pub(crate) const v15: Major = Major(15);
    pub(crate) const v16: Major = Major(16);
    pub(crate) const v17: Major = Major(17);
    pub(crate) const v18: Major = Major(18);
    pub(crate) const v19: Major = Major(19);
}

impl fmt::Display for Major {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The programs of one major.
#[derive(Debug, Clone)]
pub(crate) struct Installation {
    major: Major,
    prefix: PathBuf,
}

impl Installation {
    /// The installation of `major`. A missing one fails the test: nothing is ever skipped.
    pub(crate) fn of(major: Major) -> Self {
        Self::at(major, root().join(major.to_string()))
    }

    /// The installation of `major` that has `bin` in a certain directory.
    pub(crate) fn at(major: Major, prefix: PathBuf) -> Self {
        let postgres = prefix.join("bin/postgres");
        assert!(
            postgres.exists(),
            "PostgreSQL {major} is missing: no {}. Run tests/postgres/install, or point PG_UNFORK_POSTGRES elsewhere",
            postgres.display()
        );
        Self { major, prefix }
    }

    /// Its major.
    pub(crate) fn major(&self) -> Major {
        self.major
    }

    /// Path of one of its programs.
    pub(crate) fn bin(&self, program: &str) -> PathBuf {
        self.prefix.join("bin").join(program)
    }

    /// The server's headers, which the installations of 14 to 18 have.
    pub(crate) fn headers(&self) -> PathBuf {
        self.prefix.join("include/server")
    }

    /// A command for one of its programs, in a clean environment.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin(program));
        self.clean_environment(&mut command);
        command
    }

    /// Makes a command that uses this installation independent of who runs the tests: C locale,
    /// UTC, nothing of libpq's.
    pub(crate) fn clean_environment(&self, command: &mut Command) {
        for (name, _) in env::vars_os() {
            if is_unwanted(&name) {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C").env("TZ", "UTC").env("HOME", super::scratch::root());
        // These builds have no run path, and the host's libpq may be older than theirs.
        if (14..=18).contains(&self.major.0) {
            command.env("LD_LIBRARY_PATH", self.prefix.join("lib"));
        }
    }
}

fn is_unwanted(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    [&b"PG"[..], b"LC_", b"LANG", b"LD_"].iter().any(|prefix| name.starts_with(prefix))
}

fn root() -> PathBuf {
    env::var_os("PG_UNFORK_POSTGRES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/postgres"), PathBuf::from)
}
