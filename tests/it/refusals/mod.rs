//! What is refused, and how: the exit code that is documented, one message that says what, where, what was
//! expected and what was found, what to do about it — and nothing changed, on either side.

mod control_file;
mod histories;
mod hostile_source;
mod manifests;
mod paths;
mod places;
mod servers;
mod stale;
mod wal;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::support::cluster::Cluster;
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::tool::pg_unfork;
use crate::support::tree::{self, Tree};

/// Panics unless the program refused with this exit code, saying each of `texts` and what to do.
#[track_caller]
fn assert_refused(outcome: &Outcome, code: i32, texts: &[&str]) {
    assert_eq!(outcome.status.code(), Some(code), "{outcome}");
    for text in texts {
        assert!(outcome.stderr.contains(text), "{text:?} is not said\n{outcome}");
    }
    let advice = ["pg_unfork: hint: ", "remedy: "];
    assert!(advice.iter().any(|word| outcome.stderr.contains(word)), "nothing says what to do\n{outcome}");
}

/// Two clusters as they were, to be compared with what they are later.
struct Untouched<'a> {
    clusters: [(&'a Cluster, Tree); 2],
}

impl<'a> Untouched<'a> {
    fn of(pair: &'a Pair) -> Self {
        Self { clusters: [&pair.target, &pair.source].map(|cluster| (cluster, Tree::of(cluster))) }
    }

    /// Panics unless both are still what they were.
    #[track_caller]
    fn check(&self) {
        for (cluster, before) in &self.clusters {
            let changed = tree::diff(before, &Tree::of(cluster), &|_| false);
            assert!(changed.is_empty(), "{}: {changed:#?}", cluster.data().display());
        }
    }
}

/// Runs `attempt` while `path` is what `damage` makes of it, and then puts back what was there; panics if
/// the attempt changed what was damaged.
#[track_caller]
fn while_damaged<T>(path: &Path, damage: impl FnOnce(&Path), attempt: impl FnOnce() -> T) -> T {
    let directory = crate::support::scratch::directory("saved");
    let saved = directory.path().join("original");
    fs::rename(path, &saved).unwrap();
    let copied = Outcome::of(Command::new("cp").arg("-a").arg(&saved).arg(path));
    let _ = copied.success();
    damage(path);
    let damaged = state_of(path);
    let outcome = attempt();
    assert!(damaged == state_of(path), "{} was changed", path.display());
    remove_anything(path);
    fs::rename(&saved, path).unwrap();
    outcome
}

/// What is at a path, as far as a refusal could change it.
fn state_of(path: &Path) -> String {
    match (fs::symlink_metadata(path), fs::read(path)) {
        (Err(error), _) => error.kind().to_string(),
        (Ok(metadata), Ok(bytes)) => format!("{:?} {bytes:?}", metadata.file_type()),
        (Ok(metadata), Err(error)) => format!("{:?} {}", metadata.file_type(), error.kind()),
    }
}

/// Removes what is at a path, whatever it is.
fn remove_anything(path: &Path) {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path).unwrap(),
        _ => fs::remove_file(path).unwrap(),
    }
}

/// `pg_unfork plan` with directories that need not be clusters.
fn plan(target: impl AsRef<OsStr>, source: impl AsRef<OsStr>) -> Outcome {
    Outcome::of(
        pg_unfork(&["plan", "--allow-unreleased", "-D"])
            .arg(target.as_ref())
            .arg("--source-pgdata")
            .arg(source.as_ref()),
    )
}

/// `pg_unfork plan` of a pair whose source is stopped.
fn plan_pair(pair: &Pair) -> Outcome {
    plan(pair.target.data(), pair.source.data())
}

/// Whether the mode of a file or directory keeps these tests from reading: not if they have capabilities.
fn is_unreadable(path: &Path) -> bool {
    fs::File::open(path).is_err()
}
