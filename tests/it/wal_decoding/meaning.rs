//! What is taken for lost with a log is what pg_waldump says of its records, however the log is parted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use pg_unfork::discard::DiscardedWork;
use pg_unfork::format::wal::{Start, WalReader};
use pg_unfork::manifest::{Discarded, RecordCounts, TransactionCounts};
use pg_unfork::types::{Lsn, RelFileNumber};

use super::log::Wal;
use super::waldump::Theirs;

/// What pg_waldump's lines come to.
#[derive(Debug, Default)]
struct Summary {
    relations: BTreeMap<RelFileNumber, (RecordCounts, bool, bool)>,
    counts: TransactionCounts,
    /// Position, transaction and time; and the transactions whose records belong to it.
    commits: Vec<(Lsn, u32, String, Vec<u32>)>,
    touched: BTreeMap<u32, BTreeSet<(bool, RelFileNumber)>>,
    prepared: BTreeSet<u32>,
    databases: BTreeMap<u32, (bool, bool)>,
    tablespaces: BTreeMap<u32, (bool, bool)>,
}

/// Panics unless all of `wal` means to us what pg_waldump says of it.
pub(super) fn assert_meaning(wal: &Wal, theirs: &[Theirs]) {
    let mut summary = Summary::default();
    theirs.iter().for_each(|record| summary.take(record));
    summary.counts.prepared = summary.prepared.len() as u64;
    let whole = meaning(wal, 1);
    summary.assert_equal(&whole);
    for parts in [2, 5] {
        assert_eq!(meaning(wal, parts), whole, "in {parts} parts");
    }
}

/// What we make of the log, when each of several sees some of its segments.
fn meaning(wal: &Wal, parts: usize) -> Discarded {
    let mut works: Vec<_> = (0..parts).map(|_| DiscardedWork::after(wal.start, wal.format.facts)).collect();
    let mut reader = WalReader::new(wal.format, Start::FirstOf(wal.start));
    let mut end = wal.start;
    // What comes behind the last record ends the reading, and is looked at elsewhere.
    let _ = reader.feed(&wal.bytes, |record| {
        let part = record.lsn.since(wal.start) / wal.segment_size();
        works[part as usize % parts].record(record);
        end = record.end;
        ControlFlow::<()>::Continue(())
    });
    let work = works.into_iter().rev().reduce(|mut sum, work| {
        sum.absorb(work);
        sum
    });
    work.expect("a part").finish(end, |_| 0)
}

impl Summary {
    fn take(&mut self, record: &Theirs) {
        let (manager, xid) = (record.decoded.resource_manager.as_str(), record.decoded.xid);
        let operation = record.operation.trim_end_matches("+INIT");
        let kind = kind(manager, operation);
        let relations: BTreeSet<RelFileNumber> = record.decoded.blocks.iter().map(|block| block.relation).collect();
        for relation in relations {
            self.count(relation, kind);
            if changes(manager, operation) {
                self.touch(xid, relation);
            }
        }
        let words: Vec<&str> = record.description.split(' ').collect();
        match (manager, operation) {
            ("Transaction", "COMMIT" | "COMMIT_PREPARED" | "ABORT" | "ABORT_PREPARED") => self.end(record, operation),
            ("Transaction", "PREPARE") => {
                self.prepared.insert(xid);
            }
            ("Storage", "CREATE") if !words[0].ends_with("_fsm") && !words[0].ends_with("_vm") => {
                self.count(file(words[0]), "ddl");
                self.relations.get_mut(&file(words[0])).expect("counted").1 = true;
                self.touch(xid, file(words[0]));
            }
            ("Storage", "TRUNCATE") => {
                self.count(file(words[0]), "truncate");
                self.touch(xid, file(words[0]));
            }
            ("Database", "DROP") => self.databases.entry(oid(words[1])).or_default().1 = true,
            ("Database", _) => {
                let new = oid(words.last().expect("a directory"));
                assert!(words.len() == 3 || oid(words[2]) != new, "a database that moves: {record:?}");
                self.databases.entry(new).or_default().0 = true;
            }
            ("Tablespace", "CREATE") => self.tablespaces.entry(oid(words[0])).or_default().0 = true,
            ("Tablespace", _) => self.tablespaces.entry(oid(words[0])).or_default().1 = true,
            _ => {}
        }
    }

    fn count(&mut self, relation: RelFileNumber, kind: &str) {
        let counts = &mut self.relations.entry(relation).or_default().0;
        let count = match kind {
            "ddl" => &mut counts.ddl,
            "delete" => &mut counts.delete,
            "hint_bits" => &mut counts.hint_bits,
            "index" => &mut counts.index,
            "insert" => &mut counts.insert,
            "truncate" => &mut counts.truncate,
            "update" => &mut counts.update,
            "vacuum" => &mut counts.vacuum,
            _ => &mut counts.other,
        };
        *count += 1;
    }

    fn touch(&mut self, xid: u32, relation: RelFileNumber) {
        self.touched.entry(xid).or_default().insert((relation.relation < 16_384, relation));
    }

    /// `2026-11-22 11:32:24.742046 UTC; rels: base/5/1; subxacts: 7 8; inval msgs: …`, `7: ` before it if prepared.
    fn end(&mut self, record: &Theirs, operation: &str) {
        let mut pieces = record.description.split("; ");
        let first = pieces.next().expect("a time");
        let (xid, time) = match first.split_once(": ") {
            Some((xid, time)) if operation.ends_with("_PREPARED") => (xid.parse().expect("a transaction"), time),
            _ => (record.decoded.xid, first),
        };
        self.prepared.remove(&xid);
        let mut belong = vec![xid];
        for piece in pieces {
            if let Some(list) = piece.strip_prefix("rels: ") {
                for path in list.split(' ') {
                    self.count(file(path), "ddl");
                    self.relations.get_mut(&file(path)).expect("counted").2 = true;
                }
            } else if let Some(list) = piece.strip_prefix("subxacts: ") {
                belong.extend(list.split(' ').map(|xid| xid.parse::<u32>().expect("a transaction")));
            }
        }
        if operation.starts_with("ABORT") {
            self.counts.aborted += 1;
            return;
        }
        self.counts.committed += 1;
        self.counts.subtransactions += belong.len() as u64 - 1;
        let time = time.strip_suffix(" UTC").expect("UTC").replacen(' ', "T", 1) + "Z";
        let time: jiff::Timestamp = time.parse().expect("a time");
        self.commits.push((record.decoded.lsn, xid, time.to_string(), belong));
    }

    fn assert_equal(&self, ours: &Discarded) {
        for found in &ours.relations {
            let theirs = self.relations.get(&found.relation);
            assert_eq!(theirs, Some(&(found.records, found.created, found.dropped)), "{}", found.relation);
        }
        assert_eq!((ours.relations.len(), ours.records_left_out), (self.relations.len(), 0));
        assert_eq!(ours.transactions, self.counts);
        assert!(self.commits.len() <= 1000);
        for (found, (lsn, xid, time, belong)) in ours.commits.iter().zip(&self.commits) {
            let touched: BTreeSet<_> = belong.iter().filter_map(|xid| self.touched.get(xid)).flatten().collect();
            let relations: Vec<RelFileNumber> = touched.iter().take(20).map(|(_, relation)| *relation).collect();
            assert_eq!((found.lsn, found.xid, found.time.as_ref()), (*lsn, *xid, Some(time)));
            assert_eq!((&found.relations, found.more_relations), (&relations, touched.len() > 20), "{xid}");
        }
        assert_eq!((ours.commits.len(), ours.commits_left_out), (self.commits.len(), 0));
        let times = |commit: Option<&(Lsn, u32, String, Vec<u32>)>| commit.map(|commit| commit.2.clone());
        assert_eq!(ours.first_commit, times(self.commits.first()));
        assert_eq!(ours.last_commit, times(self.commits.last()));
        let mut databases = self.databases.clone();
        self.relations.keys().for_each(|relation| {
            databases.entry(relation.database).or_default();
        });
        let found = ours.databases.iter().map(|found| (found.oid, (found.created, found.dropped)));
        assert_eq!(found.collect::<BTreeMap<_, _>>(), databases);
        let found = ours.tablespaces.iter().map(|found| (found.oid, (found.created, found.dropped)));
        assert_eq!(found.collect::<BTreeMap<_, _>>(), self.tablespaces);
    }
}

/// What an operation does, by its name.
fn kind(manager: &str, operation: &str) -> &'static str {
    let cleans_up: &[&str] = match manager {
        "Heap2" => &[
            "CLEAN",
            "CLEANUP_INFO",
            "FREEZE_PAGE",
            "PRUNE",
            "PRUNE_ON_ACCESS",
            "PRUNE_VACUUM_CLEANUP",
            "PRUNE_VACUUM_SCAN",
            "VACUUM",
            "VISIBLE",
        ],
        "Btree" => {
            &["DELETE", "MARK_PAGE_HALFDEAD", "META_CLEANUP", "REUSE_PAGE", "UNLINK_PAGE", "UNLINK_PAGE_META", "VACUUM"]
        }
        "Hash" => {
            &["DELETE", "MOVE_PAGE_CONTENTS", "SPLIT_CLEANUP", "SQUEEZE_PAGE", "UPDATE_META_PAGE", "VACUUM_ONE_PAGE"]
        }
        "Gin" => &["DELETE_PAGE", "VACUUM_DATA_LEAF_PAGE", "VACUUM_PAGE"],
        "Gist" => &["DELETE", "PAGE_DELETE", "PAGE_REUSE"],
        "SPGist" => &["VACUUM_LEAF", "VACUUM_REDIRECT", "VACUUM_ROOT"],
        _ => &[],
    };
    match (manager, operation) {
        _ if cleans_up.contains(&operation) => "vacuum",
        ("Btree" | "Hash" | "Gin" | "Gist" | "SPGist" | "BRIN", _) => "index",
        ("Heap", "INSERT") | ("Heap2", "MULTI_INSERT") => "insert",
        ("Heap", "UPDATE" | "HOT_UPDATE") => "update",
        ("Heap", "DELETE") => "delete",
        ("XLOG", "FPI_FOR_HINT") => "hint_bits",
        _ => "other",
    }
}

/// Whether an operation's relations are among those that its transaction changed.
fn changes(manager: &str, operation: &str) -> bool {
    match manager {
        "Heap" | "Heap2" => {
            matches!(kind(manager, operation), "insert" | "update" | "delete") || operation == "INPLACE"
        }
        "Sequence" | "Generic" => true,
        _ => false,
    }
}

/// `base/5/16384`, `global/1262`, `pg_tblspc/16400/PG_15_202209061/5/77_init`.
fn file(path: &str) -> RelFileNumber {
    let parts: Vec<&str> = path.split('/').collect();
    let number = |text: &str| text.split('_').next().and_then(|digits| digits.parse().ok()).expect("a number");
    match parts.as_slice() {
        ["global", relation] => RelFileNumber { tablespace: 1664, database: 0, relation: number(relation) },
        ["base", database, relation] => {
            RelFileNumber { tablespace: 1663, database: number(database), relation: number(relation) }
        }
        ["pg_tblspc", tablespace, _, database, relation] => {
            RelFileNumber { tablespace: number(tablespace), database: number(database), relation: number(relation) }
        }
        _ => panic!("{path:?}"),
    }
}

/// The last number of a path.
fn oid(path: &str) -> u32 {
    path.rsplit('/').next().and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{path:?}"))
}
