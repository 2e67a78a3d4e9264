//! Control files that do not fit each other, or are none.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pg_unfork::format::{ControlFile, ControlLayout};

use super::{Untouched, assert_refused, is_unreadable, plan_pair, while_damaged};
use crate::support::cluster::Cluster;
use crate::support::pair::Pair;
use crate::support::servers::Major;

/// Where a field is, and what is written there.
type Edit = (fn(&ControlLayout) -> usize, u32);

const SYSTEM: fn(&ControlLayout) -> usize = |_| 0;
const CONTROL_VERSION: fn(&ControlLayout) -> usize = |_| 8;
const CATALOG_VERSION: fn(&ControlLayout) -> usize = |_| 12;
const STATE: fn(&ControlLayout) -> usize = |_| 16;
const BLOCK_SIZE: fn(&ControlLayout) -> usize = |layout| layout.block_size;
const SEGMENT_BLOCKS: fn(&ControlLayout) -> usize = |layout| layout.block_size + 4;
const WAL_PAGE_SIZE: fn(&ControlLayout) -> usize = |layout| layout.wal_page_size;
const WAL_SEGMENT_SIZE: fn(&ControlLayout) -> usize = |layout| layout.wal_page_size + 4;
const CHECKSUMS: fn(&ControlLayout) -> usize = |layout| layout.data_checksums;
const HINTS: fn(&ControlLayout) -> usize = |layout| layout.wal_log_hints;

/// Writes fields into a control file, with the CRC that belongs to them.
pub(super) fn edit(path: &Path, edits: &[Edit]) {
    let mut bytes = fs::read(path).unwrap();
    let layout = ControlFile::parse(&bytes).unwrap().facts().control;
    for (offset, value) in edits {
        let offset = offset(&layout);
        bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }
    let crc = crc32c::crc32c(&bytes[..layout.crc]);
    bytes[layout.crc..layout.crc + 4].copy_from_slice(&crc.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

fn control_file(cluster: &Cluster) -> std::path::PathBuf {
    cluster.path("global/pg_control")
}

/// Each field that must be equal, other on one side; both values are said.
#[test]
fn clusters_that_do_not_fit() {
    let pair = Pair::shared(Major(13)).copy();
    let before = Untouched::of(&pair);
    let cases: [(Edit, &[&str]); 8] = [
        ((SYSTEM, 4711), &["same_system", "target ", "source ", "two different clusters"]),
        ((BLOCK_SIZE, 16384), &["same_sizes", "16384 131072 8192 1048576", "8192 131072 8192 1048576"]),
        ((SEGMENT_BLOCKS, 4096), &["same_sizes", "8192 4096 8192 1048576"]),
        ((WAL_PAGE_SIZE, 4096), &["same_sizes", "8192 131072 4096 1048576"]),
        ((WAL_SEGMENT_SIZE, 16 << 20), &["same_sizes", "8192 131072 8192 16777216"]),
        ((CHECKSUMS, 0), &["same_checksums", "data checksums: ", " off", " on", "pg_checksums"]),
        ((CHECKSUMS, 2), &["same_checksums", "changing (state 2)"]),
        ((STATE, 6), &["state: in production", "FAILED"]),
    ];
    for (change, texts) in cases {
        for cluster in [&pair.target, &pair.source] {
            let outcome = while_damaged(&control_file(cluster), |path| edit(path, &[change]), || plan_pair(&pair));
            assert_refused(&outcome, 4, texts);
        }
    }
    before.check();
}

/// A cluster of another major is none to follow.
#[test]
fn another_major() {
    let pair = Pair { source: Pair::shared(Major(16)).copy_source(), target: Pair::shared(Major(15)).copy_target() };
    let before = Untouched::of(&pair);
    let texts = ["same_system", "same_version", "target 15 (catalog 202209061)", "source 16 (catalog 202307071)"];
    assert_refused(&plan_pair(&pair), 4, &texts);
    before.check();
}

/// Without checksums and without wal_log_hints nobody knows which blocks changed.
#[test]
fn changes_that_wal_does_not_tell_of() {
    let pair = Pair::shared(Major(18)).copy();
    for cluster in [&pair.target, &pair.source] {
        edit(&control_file(cluster), &[(CHECKSUMS, 0)]);
    }
    let before = Untouched::of(&pair);
    assert_refused(
        &plan_pair(&pair),
        4,
        &["changes_are_logged", "data checksums off, wal_log_hints off", "base backup"],
    );
    before.check();
    edit(&control_file(&pair.target), &[(HINTS, 1)]);
    let _ = plan_pair(&pair).success();
}

/// Each state but the two that a stopped server leaves, on either side.
#[test]
fn states() {
    let pair = Pair::shared(Major(14)).copy();
    let before = Untouched::of(&pair);
    let states = [
        (0, "starting up"),
        (3, "shutting down"),
        (4, "in crash recovery"),
        (5, "in archive recovery"),
        (6, "in production"),
    ];
    for (number, words) in states {
        for (side, cluster) in [("target", &pair.target), ("source", &pair.source)] {
            let outcome =
                while_damaged(&control_file(cluster), |path| edit(path, &[(STATE, number)]), || plan_pair(&pair));
            assert_refused(&outcome, 4, &[&format!("{side} state: {words}"), "pg_ctl stop"][..1]);
        }
    }
    before.check();
}

/// What is no control file, on either side.
#[test]
fn what_is_no_control_file() {
    let pair = Pair::shared(Major(19)).copy();
    let before = Untouched::of(&pair);
    let cut = |length: usize| move |path: &Path| write(path, |bytes| bytes.resize(length, 0));
    let field = |offset, value| move |path: &Path| edit(path, &[(offset, value)]);
    type Damage<'a> = Box<dyn Fn(&Path) + 'a>;
    let cases: Vec<(Damage<'_>, &str)> = vec![
        (Box::new(|path| fs::remove_file(path).unwrap()), "has no global/pg_control"),
        (Box::new(cut(0)), "has 0 bytes, expected 8192"),
        (Box::new(cut(8191)), "has 8191 bytes, expected 8192"),
        (Box::new(cut(8193)), "has 8193 bytes, expected 8192"),
        (Box::new(|path| write(path, |bytes| bytes[100] ^= 1)), "its content gives"),
        (Box::new(|path| write(path, |bytes| bytes.fill(0))), "control file version 0 with catalog version 0"),
        (Box::new(field(CONTROL_VERSION, 942)), "control file version 942"),
        (Box::new(field(CATALOG_VERSION, 201_707_211)), "catalog version 201707211 belongs to no PostgreSQL"),
        (Box::new(field(STATE, 7)), "state is 7, expected 0 to 6"),
        (Box::new(field(BLOCK_SIZE, 8193)), "8193"),
        (Box::new(field(WAL_SEGMENT_SIZE, 3 << 20)), "3145728"),
        (
            Box::new(|path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            }),
            "s a directory",
        ),
        (Box::new(|path| fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap()), "ermission denied"),
    ];
    for (damage, message) in cases {
        for (side, cluster) in [("target", &pair.target), ("source", &pair.source)] {
            let path = control_file(cluster);
            let attempt = || (is_unreadable(&path), plan_pair(&pair));
            let (unreadable, outcome) = while_damaged(&path, &damage, attempt);
            if message.contains("denied") && !unreadable {
                continue;
            }
            assert_refused(&outcome, 4, &[message, "pg_control"]);
            let names_it = [format!("the {side}'s"), cluster.data().display().to_string()];
            assert!(names_it.iter().any(|name| outcome.stderr.lines().next().unwrap().contains(name)), "{outcome}");
        }
    }
    before.check();
}

fn write(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}
