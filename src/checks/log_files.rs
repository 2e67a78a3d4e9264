//! Files that are not PostgreSQL's data: logs, and what people and programs have put into a data directory.

use std::collections::BTreeMap;

use super::{finding, with_lines};
use crate::manifest::{Action, ActionKind, Check, CheckStatus, Kept, KeptReason};
use crate::types::{ClusterPath, LinkText};

/// `log_files`: which files of nobody knows whom an apply would fetch, replace or remove, and how many of log directories
/// it leaves alone. `is_configuration` tells what another check speaks of.
#[must_use]
pub fn log_files(actions: &[Action], kept: &[Kept], is_configuration: &dyn Fn(&ClusterPath) -> bool) -> Check {
    let mut foreign: BTreeMap<(Vec<u8>, &str), (u64, u64)> = BTreeMap::new();
    for action in actions.iter().filter(|action| !is_configuration(&action.path)) {
        let Some(root) = foreign_root(action.path.as_bytes()) else { continue };
        let sized = if action.kind == ActionKind::Remove { &action.before } else { &action.after };
        let (paths, bytes) = foreign.entry((root.to_vec(), fate(action))).or_default();
        *paths += 1;
        *bytes = bytes.saturating_add(sized.as_ref().and_then(|state| state.size).unwrap_or(0));
    }
    let left = kept.iter().filter(|kept| kept.reason == KeptReason::LogDirectory).count();
    let logs_left = if left > 0 { format!("; {left} files of log directories are left alone") } else { String::new() };
    if foreign.is_empty() {
        let detail = format!("no files but PostgreSQL's are changed{logs_left}");
        return finding("log_files", CheckStatus::Pass, detail, None);
    }
    let count: u64 = foreign.values().map(|(paths, _)| paths).sum();
    let detail = format!("paths of logs, or not known to be PostgreSQL's, that the plan changes: {count}{logs_left}");
    let evidence = foreign.into_iter().map(|((root, fate), (paths, bytes))| {
        format!("{}: {paths} {} {fate}, {bytes} bytes", LinkText::new(&root), if paths == 1 { "path" } else { "paths" })
    });
    let remedy =
        "move to another place what must stay as it is on the target, or leave it out by a rule (--keep, --exclude)";
    with_lines(finding("log_files", CheckStatus::Warn, detail, Some(remedy)), evidence.collect(), Vec::new())
}

fn fate(action: &Action) -> &'static str {
    match (action.kind, action.before.is_some()) {
        (ActionKind::Remove, _) => "removed",
        (_, true) => "replaced by the source's",
        (_, false) => "fetched from the source",
    }
}

/// Files at the top of a data directory that PostgreSQL, or what comes with it, puts there.
const TOP_FILES: [&[u8]; 18] = [
    b"PG_VERSION",
    b"autoprewarm.blocks",
    b"autoprewarm.blocks.tmp",
    b"backup_label",
    b"backup_label.old",
    b"backup_manifest",
    b"current_logfiles",
    b"current_logfiles.tmp",
    b"logrotate",
    b"postgresql.auto.conf.tmp",
    b"postmaster.opts",
    b"postmaster.pid",
    b"promote",
    b"recovery.signal",
    b"standby.signal",
    b"tablespace_map",
    b"tablespace_map.old",
    b"pg_upgrade_output.d",
];

/// Directories in which everything counts as PostgreSQL's.
const OWN_DIRECTORIES: [&[u8]; 14] = [
    b".pg_unfork",
    b"pg_commit_ts",
    b"pg_dynshmem",
    b"pg_logical",
    b"pg_multixact",
    b"pg_notify",
    b"pg_replslot",
    b"pg_serial",
    b"pg_snapshots",
    b"pg_stat",
    b"pg_stat_tmp",
    b"pg_subtrans",
    b"pg_twophase",
    b"pg_xact",
];

/// The outermost part of a path that is not known to be PostgreSQL's; none where all of it is.
fn foreign_root(path: &[u8]) -> Option<&[u8]> {
    let parts: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
    let depth = known_depth(&parts);
    if depth >= parts.len() {
        return None;
    }
    let length: usize = parts.iter().take(depth + 1).map(|part| part.len() + 1).sum();
    path.get(..length - 1)
}

/// How many components, from the outermost on, are known to be PostgreSQL's.
fn known_depth(parts: &[&[u8]]) -> usize {
    let Some((first, rest)) = parts.split_first() else { return 0 };
    match *first {
        b"base" => 1 + database_depth(rest),
        b"global" => 1 + rest.first().map_or(0, |name| usize::from(is_global(name)) * rest.len()),
        b"pg_tblspc" => match rest {
            [] => 1,
            [oid, ..] if !is_number(oid) => 1,
            [_] => 2,
            [_, version, ..] if !version.starts_with(b"PG_") => 2,
            [_, _, below @ ..] => 3 + database_depth(below),
        },
        b"pg_wal" => 1 + rest.first().map_or(0, |name| usize::from(is_wal(name)) * rest.len()),
        name if OWN_DIRECTORIES.contains(&name) => parts.len(),
        name if TOP_FILES.contains(&name) => 1,
        _ => 0,
    }
}

/// How many components below a tablespace are known: databases and the files in them.
fn database_depth(parts: &[&[u8]]) -> usize {
    match parts {
        [name, ..] if name.starts_with(b"pgsql_tmp") => parts.len(),
        [database, rest @ ..] if is_number(database) => {
            1 + rest.first().map_or(0, |name| usize::from(is_relation(name)))
        }
        _ => 0,
    }
}

fn is_number(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(u8::is_ascii_digit)
}

/// Whether a file of this name may be in a database's directory: forks of relations, temporary ones, too.
fn is_relation(name: &[u8]) -> bool {
    let is_known = matches!(name, b"PG_VERSION" | b"pg_filenode.map" | b"pg_filenode.map.tmp");
    let digits = |name: &[u8]| name.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = match name.strip_prefix(b"t") {
        // t3_16384, in 19 also without the backend's number.
        Some(rest) => rest.get(digits(rest)..).and_then(|rest| rest.strip_prefix(b"_")).unwrap_or(rest),
        None => name,
    };
    let (count, rest) = (digits(number), number.get(digits(number)..).unwrap_or_default());
    let fork = [b"_fsm".as_slice(), b"_vm", b"_init"].iter().find_map(|fork| rest.strip_prefix(*fork)).unwrap_or(rest);
    let segment = fork.strip_prefix(b".").map_or(fork.is_empty(), is_number);
    is_known || name.starts_with(b"pg_internal.init") || (count > 0 && segment)
}

fn is_global(name: &[u8]) -> bool {
    is_relation(name)
        || name.starts_with(b"pgsql_tmp")
        || name.starts_with(b"pg_control")
        || name.starts_with(b"config_exec_params")
}

fn is_wal(name: &[u8]) -> bool {
    let hex = |name: &[u8]| name.iter().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(byte));
    let is_segment = |name: &[u8]| name.get(..24).is_some_and(hex) && name.get(24).is_none_or(|&byte| byte == b'.');
    let is_history =
        |name: &[u8]| name.strip_suffix(b".history").is_some_and(|digits| digits.len() == 8 && hex(digits));
    matches!(name, b".pg_unfork" | b"archive_status" | b"summaries" | b"RECOVERYXLOG" | b"RECOVERYHISTORY")
        || name.starts_with(b"xlogtemp.")
        || is_segment(name)
        || is_history(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::samples::{action, path};

    #[test]
    fn what_is_known() {
        let own = [
            "PG_VERSION",
            "base",
            "base/5",
            "base/5/16384",
            "base/5/16384_fsm.1",
            "base/5/16384.12",
            "base/5/t3_16384_vm",
            "base/5/pg_filenode.map",
            "base/pgsql_tmp/pgsql_tmp1.0/x",
            "global/1262",
            "global/pg_control",
            "pg_tblspc/16400",
            "pg_tblspc/16400/PG_18_202506291",
            "pg_tblspc/16400/PG_18_202506291/5/16401_init",
            "pg_wal/000000010000000000000003",
            "pg_wal/000000010000000000000003.partial",
            "pg_wal/00000002.history",
            "pg_wal/000000010000000000000003.00000028.backup",
            "pg_wal/archive_status/x.ready",
            "pg_wal/summaries/x",
            "pg_xact/0000",
            "pg_stat/pgss",
            "standby.signal",
            "pg_logical/mappings/map-1",
            ".pg_unfork/state.json",
        ];
        for path in own {
            assert_eq!(foreign_root(path.as_bytes()), None, "{path}");
        }
        let foreign = [
            ("server.key", "server.key"),
            ("extra/a/b", "extra"),
            ("log/x", "log"),
            ("base/notes", "base/notes"),
            ("base/5/core", "base/5/core"),
            ("base/5/16384_old", "base/5/16384_old"),
            ("base/5/dir/x", "base/5/dir"),
            ("global/pg_contro", "global/pg_contro"),
            ("pg_wal/.wal-g/prefetch", "pg_wal/.wal-g"),
            ("pg_wal/00000001000000000000000", "pg_wal/00000001000000000000000"),
            ("pg_tblspc/x/y", "pg_tblspc/x"),
            ("pg_tblspc/1/data/y", "pg_tblspc/1/data"),
            ("pg_xacts/0000", "pg_xacts"),
        ];
        for (path, root) in foreign {
            let found = foreign_root(path.as_bytes()).map(String::from_utf8_lossy);
            assert_eq!(found.as_deref(), Some(root), "{path}");
        }
    }

    #[test]
    fn foreign_files_are_summed_up() {
        use ActionKind::{CopyFile, CreateDirectory, Remove};
        let checked = |actions: &[Action]| log_files(actions, &[], &|path| path.as_bytes() == b"pg_hba.conf");
        let fresh = |path: &str, kind| Action { before: None, ..action(path, kind) };
        let own = checked(&[action("base/5/16384", CopyFile), action("pg_hba.conf", CopyFile)]);
        assert_eq!((own.status, own.evidence.len()), (CheckStatus::Pass, 0));
        let found = checked(&[
            fresh("extra", CreateDirectory),
            fresh("extra/x", CopyFile),
            action("server.key", CopyFile),
            action("log/1", Remove),
            action("log/2", Remove),
            action("n\u{8}", Remove),
        ]);
        assert_eq!(found.status, CheckStatus::Warn);
        let evidence = [
            "extra: 2 paths fetched from the source, 20 bytes",
            "log: 2 paths removed, 20 bytes",
            "n%08: 1 path removed, 10 bytes",
            "server.key: 1 path replaced by the source's, 10 bytes",
        ];
        assert_eq!(found.evidence, evidence);
        let kept =
            Kept { before: None, path: path("log/1"), reason: KeptReason::LogDirectory, rule: None, source: None };
        let left = log_files(&[], &[kept], &|_| false);
        assert!(
            left.status == CheckStatus::Pass && left.detail.ends_with("; 1 files of log directories are left alone")
        );
    }
}
