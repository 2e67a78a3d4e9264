//! PostgreSQL's own pg_rewind, which the outcome of ours is compared with.

use std::fs;
use std::process::Command;

use super::cluster::Cluster;
use super::outcome::Outcome;

/// Where pg_rewind reads the source.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    /// The data directory of a stopped cluster.
    Directory(&'a Cluster),
    /// A running server, as this role.
    Server(&'a Cluster, &'a str),
}

/// Runs the pg_rewind of the target's major on the stopped `target`, without syncing.
pub(crate) fn rewind(target: &Cluster, source: Source<'_>, arguments: &[&str]) -> Outcome {
    Outcome::of(&mut command(target, source, arguments))
}

/// The command that [`rewind`] runs.
pub(crate) fn command(target: &Cluster, source: Source<'_>, arguments: &[&str]) -> Command {
    let mut command = target.installation().command("pg_rewind");
    command.arg("-D").arg(target.data()).arg("--no-sync");
    match source {
        Source::Directory(source) => command.arg("--source-pgdata").arg(source.data()),
        Source::Server(source, user) => command.arg("--source-server").arg(source.conninfo("postgres", user)),
    };
    command.args(arguments);
    command
}

/// Makes good a defect of pg_rewind 13: a database that only the source has, because one side made
/// or the other dropped it after the fork, arrives without its PG_VERSION. Returns how many files were missing.
pub(crate) fn restore_missing_pg_version(target: &Cluster) -> usize {
    let mut restored = 0;
    for entry in fs::read_dir(target.path("base")).expect("base") {
        let directory = entry.expect("base").path();
        let version = directory.join("PG_VERSION");
        let is_database = directory.join("pg_filenode.map").exists();
        if is_database && !version.exists() {
            fs::copy(target.path("PG_VERSION"), version).expect("PG_VERSION");
            restored += 1;
        }
    }
    restored
}
