//! PostgreSQL's own programs, where this one needs them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::child;
use crate::error::{Error, ErrorId, Result};
use crate::interrupt::Interrupt;

/// Where PostgreSQL's programs are looked for.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    /// The one directory that counts, where it was named.
    pub directory: Option<PathBuf>,
}

/// A `postgres` that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postgres {
    /// The program.
    pub path: PathBuf,
    /// What it says of its version, behind `postgres (PostgreSQL) `: `17.2`, `15.9 (Debian 15.9-1)`, `19rc1`.
    pub version: String,
}

impl Programs {
    /// Finds `postgres` of a major version: in the directory that was named, or else beside this program, in `PATH`,
    /// and where Debian's and RHEL's packages put it.
    ///
    /// # Errors
    /// When there is none, saying where it was looked for; or when `interrupt` is set meanwhile.
    pub fn postgres(&self, major: u32, interrupt: &Interrupt) -> Result<Postgres> {
        let mut seen = Vec::new();
        for directory in self.places(major) {
            let path = directory.join("postgres");
            if !path.is_file() {
                seen.push(format!("{}: not there", path.display()));
                continue;
            }
            match version_of(&path, interrupt)? {
                Some(version) if major_of(&version) == Some(major) => return Ok(Postgres { path, version }),
                Some(version) => seen.push(format!("{}: is of {version}", path.display())),
                None => seen.push(format!("{}: does not tell its version", path.display())),
            }
        }
        Err(Error::of(ErrorId::ProgramMissing, format!("no postgres of PostgreSQL {major} was found"))
            .hint(format!("looked at {}", seen.join("; ")))
            .hint("name the directory that has it: --pg-bindir DIR"))
    }

    /// Finds the nearest `postgres`, whatever its major: where several were installed by packages, that of the first of
    /// `majors`.
    #[must_use]
    pub fn nearest(&self, majors: &[u32], interrupt: &Interrupt) -> Option<Postgres> {
        let places = majors.iter().flat_map(|&major| self.places(major)).map(|directory| directory.join("postgres"));
        places.filter(|path| path.is_file()).find_map(|path| {
            let version = version_of(&path, interrupt).ok().flatten()?;
            Some(Postgres { path, version })
        })
    }

    fn places(&self, major: u32) -> Vec<PathBuf> {
        if let Some(directory) = &self.directory {
            return vec![directory.clone()];
        }
        let own = [std::env::args_os().next().map(PathBuf::from).filter(|path| path.components().count() > 1)];
        let own = own.into_iter().flatten().chain(std::env::current_exe().ok());
        places(own, std::env::var_os("PATH"), major)
    }
}

/// The directories to look in, each once: those of these programs, those in `PATH`, those of packages.
fn places(own: impl Iterator<Item = PathBuf>, path: Option<OsString>, major: u32) -> Vec<PathBuf> {
    let beside = own.filter_map(|program| program.parent().map(Path::to_path_buf));
    let path = path.unwrap_or_default();
    let packages = [format!("/usr/lib/postgresql/{major}/bin"), format!("/usr/pgsql-{major}/bin")];
    let all = beside.chain(std::env::split_paths(&path)).chain(packages.into_iter().map(PathBuf::from));
    let mut places: Vec<PathBuf> = Vec::new();
    for place in all.filter(|place| !place.as_os_str().is_empty()) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

/// What a `postgres` says of its version; none where it cannot be run, or says something else.
fn version_of(postgres: &Path, interrupt: &Interrupt) -> Result<Option<String>> {
    let ended = child::run(Command::new(postgres).arg("--version"), Signal::TERM, interrupt);
    interrupt.check()?;
    let said = ended.ok().filter(|ended| ended.status.success());
    let said = said.map(|ended| String::from_utf8_lossy(&ended.stdout).into_owned());
    Ok(said.and_then(|said| Some(said.trim().strip_prefix("postgres (PostgreSQL) ")?.to_owned())))
}

/// The major in a version: `17.2`, `18beta1`, `19devel`.
fn major_of(version: &str) -> Option<u32> {
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version.get(..digits)?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn majors_of_versions() {
        let cases =
            [("17.2", Some(17)), ("15.9 (Debian 15.9-1)", Some(15)), ("18beta1", Some(18)), ("19devel", Some(19))];
        for (version, major) in cases.into_iter().chain([("", None), ("x", None)]) {
            assert_eq!(major_of(version), major, "{version}");
        }
    }

    #[test]
    fn places_in_their_order() {
        let own = ["/opt/bin/pg_unfork", "/usr/bin/pg_unfork"].map(PathBuf::from);
        let found = places(own.into_iter(), Some("/usr/bin:/bin:".into()), 17);
        let expected = ["/opt/bin", "/usr/bin", "/bin", "/usr/lib/postgresql/17/bin", "/usr/pgsql-17/bin"];
        assert_eq!(found, expected.map(PathBuf::from));
    }

    #[test]
    fn only_the_right_major_is_taken() {
        let scratch = tempfile::tempdir().unwrap();
        let programs = Programs { directory: Some(scratch.path().to_owned()) };
        let write = |script: &str| {
            // Not by this process: what a test beside this one starts would hold the file open for writing.
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", "printf '#!/bin/sh\\n%s\\n' \"$1\" >postgres; chmod +x postgres", "sh", script]);
            assert!(shell.current_dir(scratch.path()).status().unwrap().success());
        };
        let find = || programs.postgres(17, &Interrupt::new());
        let refused = |what: &str| {
            let error = find().unwrap_err();
            assert_eq!(error.id(), ErrorId::ProgramMissing);
            assert!(error.hints().iter().any(|hint| hint.contains(what)), "{:?}", error.hints());
        };
        refused("postgres: not there");
        write("echo 'postgres (PostgreSQL) 16.3'");
        refused("postgres: is of 16.3");
        write("exit 1");
        refused("postgres: does not tell its version");
        write("echo 'postgres (PostgreSQL) 17.2 (Debian 17.2-1)'");
        assert_eq!(find().unwrap().version, "17.2 (Debian 17.2-1)");
    }
}
