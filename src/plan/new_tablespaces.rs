//! Whether a new tablespace can be at another place than on the source.
//!
//! Replaying the record of CREATE TABLESPACE makes the link anew, with the source's location, whatever is there. So a
//! mapping holds only where that record is not replayed: the tablespace was there when the histories parted, and
//! the target has dropped it since.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::scan::WalScan;
use crate::checks::{check, finding};
use crate::cluster::rules::is_tablespace_link;
use crate::error::Result;
use crate::format::wal::resource_manager as rm;
use crate::format::wal::{Record, Start};
use crate::manifest::{Action, ActionKind, Check, CheckStatus};
use crate::types::{ClusterPath, Lsn};

/// What the target's WAL says of tablespaces, by OID.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TablespaceRecords {
    /// Those that were created, before the fork or after it.
    created: BTreeSet<u32>,
    /// Those that were dropped.
    dropped: BTreeSet<u32>,
    /// Whether all of the WAL could be read that is replayed and that the target has.
    complete: bool,
}

impl TablespaceRecords {
    /// Reads the target's WAL from where replay begins up to its end.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn read(scan: &WalScan<'_>, start: Lsn, end: Lsn) -> Result<Self> {
        let mut found = Self::default();
        let first = scan.format().record_start_after(start);
        scan.each(Start::Record(first), |record| {
            found.take(record);
            if record.end >= end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        found.complete = true;
        Ok(found)
    }

    fn take(&mut self, record: &Record<'_>) {
        if record.header.resource_manager != rm::TABLESPACE {
            return;
        }
        let Some(oid) = record.main_data.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)) else { return };
        match record.operation() {
            rm::TABLESPACE_CREATE => self.created.insert(oid),
            rm::TABLESPACE_DROP => self.dropped.insert(oid),
            _ => false,
        };
    }

    /// Whether replay leaves the link of a tablespace alone that only the source has.
    fn leaves_alone(&self, oid: u32) -> bool {
        self.complete && self.dropped.contains(&oid) && !self.created.contains(&oid)
    }
}

/// The locations of new tablespaces that a mapping has moved: by the path of the link, the source's and the target's.
pub(super) type Moved = BTreeMap<ClusterPath, (String, String)>;

/// The check of tablespaces that a mapping has moved; none where there are none.
pub(super) fn check_moved(moved: &Moved, records: &TablespaceRecords) -> Option<Check> {
    if moved.is_empty() {
        return None;
    }
    let oid = |path: &ClusterPath| std::str::from_utf8(path.file_name()).ok().and_then(|name| name.parse().ok());
    let back = |path: &&ClusterPath| !oid(path).is_some_and(|oid| records.leaves_alone(oid));
    let back: Vec<&ClusterPath> = moved.keys().filter(back).collect();
    let id = "tablespace_mapping";
    if back.is_empty() {
        let detail = format!("new tablespaces that go elsewhere than on the source: {}", moved.len());
        return Some(check(id, true, detail, ""));
    }
    let detail =
        format!("replay would lead the links of {} new tablespaces to the source's locations again", back.len());
    let remedy = "CREATE TABLESPACE is in the WAL that the target replays, with the source's location: make that a symlink \
                  to the wanted one on the target's machine, and plan without the mapping";
    let mut check = finding(id, CheckStatus::Fail, detail, Some(remedy));
    let mapped = back.iter().filter_map(|path| Some((path, moved.get(*path)?)));
    let (evidence, commands) = mapped
        .map(|(path, (old, new))| {
            let words = [new, old].map(|word| crate::manifest::shell_word(word.as_bytes()));
            (format!("{path}: {old} to {new}"), format!("ln -s {}", words.join(" ")))
        })
        .unzip();
    (check.evidence, check.commands) = (evidence, commands);
    Some(check)
}

/// Whether an action makes the link of a tablespace.
pub(super) fn makes_tablespace(action: &Action) -> bool {
    action.kind == ActionKind::CreateSymlink && is_tablespace_link(&action.path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_holds_where_nothing_is_created_again() {
        let set = |oids: &[u32]| oids.iter().copied().collect::<BTreeSet<u32>>();
        let path = |oid| ClusterPath::new(format!("pg_tblspc/{oid}").as_bytes()).unwrap();
        let moved: Moved = [(path(7), ("/it's".to_owned(), "/new".to_owned()))].into();
        let cases = [
            (set(&[]), set(&[7]), true, CheckStatus::Pass),
            (set(&[8]), set(&[7, 8]), true, CheckStatus::Pass),
            (set(&[]), set(&[8]), true, CheckStatus::Fail),
            (set(&[7]), set(&[7]), true, CheckStatus::Fail),
            (set(&[]), set(&[7]), false, CheckStatus::Fail),
        ];
        for (created, dropped, complete, expected) in cases {
            let records = TablespaceRecords { created, dropped, complete };
            let check = check_moved(&moved, &records).unwrap();
            assert_eq!(check.status, expected, "{records:?}");
            let commands: &[&str] = if expected == CheckStatus::Fail { &["ln -s /new \"/it's\""] } else { &[] };
            assert_eq!(check.commands, commands);
        }
        assert_eq!(check_moved(&Moved::new(), &TablespaceRecords::default()), None);
    }
}
