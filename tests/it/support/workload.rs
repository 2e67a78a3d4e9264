//! What the rich pair contains: every kind of relation, index and catalog change that a rewind
//! has to get right, and stray files. The SQL is in `sql/`.

use std::fs;
use std::path::Path;

use super::cluster::Cluster;

/// The role that has nothing but the four grants that pg_rewind asks for.
pub(crate) const REWIND_USER: &str = "rewind_user";

/// A file that both sides have, with different content.
pub(crate) const BOTH_FILE: &str = "extra_both/file";
/// A file that only the target has, in a directory that only the target has.
pub(crate) const TARGET_FILE: &str = "extra_target/below/it's a file";
/// A file that only the source has, in a directory that only the source has.
pub(crate) const SOURCE_FILE: &str = "extra_source/below/it's a file";

/// What every pair begins with: amcheck in every database to come, and [`REWIND_USER`].
pub(crate) fn prepare(primary: &Cluster) {
    run(primary, include_str!("sql/prepare.sql"), &[]);
}

/// The rich pair's content before there is a standby.
pub(crate) fn before_backup(primary: &Cluster) {
    let location = primary.location("elsewhere");
    let location = location.to_str().expect("a path of the tests");
    run(primary, include_str!("sql/before_backup.sql"), &[("location", location)]);
    write(primary, BOTH_FILE, "common");
}

/// What happens before and after the last common checkpoint.
pub(crate) fn before_fork(primary: &Cluster) {
    run(primary, include_str!("sql/before_fork.sql"), &[]);
}

/// What only the target knows.
pub(crate) fn on_target_after_fork(target: &Cluster) {
    let side = [("side", "target"), ("other", "source"), ("n", "3")];
    run(target, include_str!("sql/after_fork.sql"), &side);
    run(target, include_str!("sql/target.sql"), &[]);
    write(target, BOTH_FILE, "target, and longer");
    write(target, TARGET_FILE, "target");
}

/// What only the source knows.
pub(crate) fn on_source_after_fork(source: &Cluster) {
    let side = [("side", "source"), ("other", "target"), ("n", "5")];
    run(source, include_str!("sql/after_fork.sql"), &side);
    run(source, include_str!("sql/source.sql"), &[]);
    write(source, BOTH_FILE, "source");
    write(source, SOURCE_FILE, "source");
}

/// What the rich pair's indexes and materialized views answer: a text to compare between
/// clusters. Indexes that amcheck knows nothing of are read by it.
pub(crate) fn probe(cluster: &Cluster) -> String {
    cluster.sql("postgres", include_str!("sql/probe.sql"))
}

/// The prepared transactions, which only a primary shows.
pub(crate) fn prepared(primary: &Cluster) -> Vec<String> {
    let query = "SELECT gid FROM pg_prepared_xacts ORDER BY gid";
    let rows = primary.rows("postgres", query);
    rows.into_iter().flatten().collect()
}

#[track_caller]
fn run(cluster: &Cluster, script: &str, variables: &[(&str, &str)]) {
    let _ = cluster.psql("postgres", script, variables).success();
}

fn write(cluster: &Cluster, relative: &str, content: &str) {
    let path = cluster.path(relative);
    let parent: &Path = path.parent().expect("a file's directory");
    fs::create_dir_all(parent).expect("an extra directory");
    fs::write(&path, content).expect("an extra file");
}
