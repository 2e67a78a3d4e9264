//! Which paths of a data directory mean something special.

use super::STATE_DIRECTORY;
use crate::types::{ClusterPath, WalFileName, WalSegmentSize};

/// Files that are left out wherever they are, by exact name (pg_rewind's `excludeFiles`).
const EXCLUDED_NAMES: [&[u8]; 7] = [
    b"postgresql.auto.conf.tmp",
    b"current_logfiles.tmp",
    b"backup_label",
    b"tablespace_map",
    b"backup_manifest",
    b"postmaster.pid",
    b"postmaster.opts",
];

/// Directories whose content is left out, at any depth; the directory itself is not
/// (pg_rewind's `excludeDirContents`).
const EXCLUDED_CONTENTS: [&[u8]; 7] =
    [b"pg_stat_tmp", b"pg_replslot", b"pg_dynshmem", b"pg_notify", b"pg_serial", b"pg_snapshots", b"pg_subtrans"];

/// What a rule says about a path before both sides are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathRule {
    /// Compared like any other.
    Compare,
    /// The control file, which the last step of an apply writes.
    ControlFile,
    /// The copy of the control file that CloudNativePG makes before a rewind, and removes afterwards.
    ControlFileCopy,
    /// The state of an apply of this program.
    OwnState,
    /// A file that an operating system puts beside others; pg_rewind leaves it alone.
    Foreign,
    /// Of no use to another server: not fetched, and removed where it is.
    Excluded,
}

/// The rule for a path.
#[must_use]
pub fn rule_of(path: &ClusterPath) -> PathRule {
    let name = path.file_name();
    if path.as_bytes() == b"global/pg_control" {
        PathRule::ControlFile
    } else if path.as_bytes() == b"global/pg_control.old" {
        PathRule::ControlFileCopy
    } else if is_own_state(path) {
        PathRule::OwnState
    } else if contains(path.as_bytes(), b".DS_Store") {
        PathRule::Foreign
    } else if contains(path.as_bytes(), b"/pgsql_tmp")
        || EXCLUDED_NAMES.contains(&name)
        || name.starts_with(b"pg_internal.init")
        || EXCLUDED_CONTENTS.iter().any(|directory| path.below(directory).is_some())
    {
        PathRule::Excluded
    } else {
        PathRule::Compare
    }
}

/// Where the server keeps data that a rewind must reach.
const DATA_DIRECTORIES: [&[u8]; 9] = [
    b"base",
    b"global",
    b"pg_commit_ts",
    b"pg_logical",
    b"pg_multixact",
    b"pg_replslot",
    b"pg_twophase",
    b"pg_wal",
    b"pg_xact",
];

/// Whether what is at a path is data that a rewind must reach, so that a symlink there, which is not
/// followed, would hide it. The links of `pg_wal` and of tablespaces themselves are followed.
#[must_use]
pub fn holds_data(path: &ClusterPath) -> bool {
    let parts: Vec<&[u8]> = path.components().take(3).collect();
    match parts.as_slice() {
        [b"pg_wal"] | [b"pg_tblspc", _] => false,
        [b"pg_tblspc", ..] => true,
        [first, ..] => DATA_DIRECTORIES.contains(first),
        [] => false,
    }
}

/// Directories of the server's own, besides those with data; what it keeps in `pg_stat` and `pg_stat_tmp` it can lose.
const SERVERS_DIRECTORIES: [&[u8]; 6] =
    [b"pg_dynshmem", b"pg_notify", b"pg_serial", b"pg_snapshots", b"pg_subtrans", b"pg_tblspc"];

/// Files in the data directory that say what it is and how it is recovered.
const SERVERS_FILES: [&[u8]; 5] =
    [b"PG_VERSION", b"backup_label", b"postmaster.pid", b"recovery.signal", b"tablespace_map"];

/// Whether a path belongs to what the server, or its recovery, must find as a rewind leaves it: no rule of a person may
/// leave it out.
#[must_use]
pub fn is_servers_own(path: &ClusterPath) -> bool {
    let first = path.components().next().unwrap_or_default();
    let own = |list: &[&[u8]]| list.contains(&first);
    own(&DATA_DIRECTORIES)
        || own(&SERVERS_DIRECTORIES)
        || SERVERS_FILES.contains(&path.as_bytes())
        || is_own_state(path)
}

/// Whether a link at this path is that of a tablespace, which leads to a root of the cluster. Other links are only
/// kept as they are.
#[must_use]
pub fn is_tablespace_link(path: &ClusterPath) -> bool {
    path.below(b"pg_tblspc").is_some_and(|name| !name.contains(&b'/'))
}

/// Whether a path is, or lies in, a state directory: at the top of the data directory, of
/// `pg_wal` or of a tablespace's location.
fn is_own_state(path: &ClusterPath) -> bool {
    let parts: Vec<&[u8]> = path.components().take(3).collect();
    let name = STATE_DIRECTORY.as_bytes();
    match parts.as_slice() {
        [first, ..] if *first == name => true,
        [b"pg_wal", second, ..] => *second == name,
        [b"pg_tblspc", _, third] => *third == name,
        _ => false,
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// Where the server keeps the state of transactions in segments of pages (SLRUs), as far as a rewind reaches them.
const PAGED_STATE: [&[u8]; 4] = [b"pg_xact", b"pg_commit_ts", b"pg_multixact/offsets", b"pg_multixact/members"];

/// Whether a path is that of a segment of an SLRU: its pages are `BLCKSZ` bytes long, and WAL tells of every change.
#[must_use]
pub fn is_slru_segment(path: &ClusterPath) -> bool {
    let hex = |name: &[u8]| name.iter().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(b));
    // Long names: from 17 on, where segments are numbered by 64 bits.
    let is_segment = |name: &[u8]| matches!(name.len(), 4..=6 | 15) && hex(name);
    PAGED_STATE.iter().any(|directory| path.below(directory).is_some_and(is_segment))
}

/// What a path in `pg_wal` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalPath {
    /// A segment.
    Segment(WalFileName),
    /// A segment that a promotion cut short, `<segment>.partial`.
    Partial,
    /// A timeline history.
    History,
    /// `archive_status/<segment>.ready` or `.done`.
    SegmentStatus(WalFileName),
    /// `archive_status/<segment>.partial.ready` or `.done`.
    PartialStatus,
    /// Anything else.
    Other,
}

/// Classifies a path; `None` outside `pg_wal`.
#[must_use]
pub fn wal_path(path: &ClusterPath, size: WalSegmentSize) -> Option<WalPath> {
    let name = path.below(b"pg_wal")?;
    let kind = if let Some(segment) = WalFileName::parse(name, size) {
        WalPath::Segment(segment)
    } else if is_partial(name, size) {
        WalPath::Partial
    } else if is_history(name) {
        WalPath::History
    } else {
        let status = name.strip_prefix(b"archive_status/");
        let segment = status.and_then(|s| s.strip_suffix(b".ready").or(s.strip_suffix(b".done")));
        match segment {
            Some(name) if is_partial(name, size) => WalPath::PartialStatus,
            Some(name) => WalFileName::parse(name, size).map_or(WalPath::Other, WalPath::SegmentStatus),
            None => WalPath::Other,
        }
    };
    Some(kind)
}

fn is_partial(name: &[u8], size: WalSegmentSize) -> bool {
    name.strip_suffix(b".partial").is_some_and(|segment| WalFileName::parse(segment, size).is_some())
}

fn is_history(name: &[u8]) -> bool {
    let hex = |b: &u8| b.is_ascii_digit() || (b'A'..=b'F').contains(b);
    name.strip_suffix(b".history").is_some_and(|digits| digits.len() == 8 && digits.iter().all(hex))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_pg_rewinds() {
        use PathRule::{Compare, ControlFile, ControlFileCopy, Excluded, Foreign, OwnState};
        let cases = [
            ("global/pg_control", ControlFile),
            ("global/pg_control.old", ControlFileCopy),
            ("base/pg_control.old", Compare),
            ("base/5/16384", Compare),
            ("backup_label", Excluded),
            ("backup_label.old", Compare),
            ("base/5/backup_label", Excluded),
            ("base/5/pg_internal.init.123", Excluded),
            ("global/pg_internal.init", Excluded),
            ("base/pgsql_tmp", Excluded),
            ("base/pgsql_tmp/pgsql_tmp1.0", Excluded),
            ("pgsql_tmp", Compare),
            ("pg_replslot", Compare),
            ("pg_replslot/a/state", Excluded),
            ("pg_replslots/a", Compare),
            ("pg_stat_tmp/db_0.stat", Excluded),
            ("postmaster.pid", Excluded),
            ("sub/.DS_Store", Foreign),
            (".pg_unfork", OwnState),
            (".pg_unfork/state.json", OwnState),
            ("pg_wal/.pg_unfork/x", OwnState),
            ("pg_tblspc/16400/.pg_unfork", OwnState),
            ("base/.pg_unfork", Compare),
        ];
        for (path, rule) in cases {
            assert_eq!(rule_of(&ClusterPath::new(path.as_bytes()).unwrap()), rule, "{path}");
        }
    }

    #[test]
    fn links_that_hide_data() {
        let hides = |path: &str| holds_data(&ClusterPath::new(path.as_bytes()).unwrap());
        for path in ["base", "base/5", "pg_xact", "pg_wal/archive_status", "pg_tblspc", "pg_tblspc/16400/PG_18_1/5"] {
            assert!(hides(path), "{path}");
        }
        for path in ["pg_wal", "pg_tblspc/16400", "postgresql.conf", "log", "pg_stat_tmp", "based"] {
            assert!(!hides(path), "{path}");
        }
    }

    #[test]
    fn segments_of_slrus() {
        let is = |path: &str| is_slru_segment(&ClusterPath::new(path.as_bytes()).unwrap());
        let segments = ["pg_xact/0000", "pg_xact/1000F", "pg_multixact/members/14078", "pg_commit_ts/000000000000001"];
        for path in segments {
            assert!(is(path), "{path}");
        }
        let others = [
            "pg_xact",
            "pg_xact/000",
            "pg_xact/000g",
            "pg_xact/a/0000",
            "pg_multixact/0000",
            "pg_subtrans/0000",
            "0000",
        ];
        for path in others {
            assert!(!is(path), "{path}");
        }
    }

    #[test]
    fn wal_names() {
        let size = WalSegmentSize::new(16 << 20).unwrap();
        let kind = |path: &str| wal_path(&ClusterPath::new(path.as_bytes()).unwrap(), size);
        assert!(matches!(kind("pg_wal/000000010000000000000003"), Some(WalPath::Segment(_))));
        assert_eq!(kind("pg_wal/000000010000000000000003.partial"), Some(WalPath::Partial));
        assert_eq!(kind("pg_wal/00000002.history"), Some(WalPath::History));
        assert!(matches!(kind("pg_wal/archive_status/000000010000000000000003.done"), Some(WalPath::SegmentStatus(_))));
        assert_eq!(kind("pg_wal/archive_status/000000010000000000000003.partial.ready"), Some(WalPath::PartialStatus));
        assert_eq!(kind("pg_wal/archive_status/00000002.history.ready"), Some(WalPath::Other));
        assert_eq!(kind("pg_wal/000000010000000000000003.00000028.backup"), Some(WalPath::Other));
        assert_eq!(kind("pg_wal/xlogtemp.77"), Some(WalPath::Other));
        assert_eq!(kind("base/1"), None);
    }
}
