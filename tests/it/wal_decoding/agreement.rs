//! Panics where our reader and pg_waldump, or our reader and itself, disagree.

use std::collections::BTreeMap;

use pg_unfork::format::wal::resource_manager as rm;
use pg_unfork::format::wal::{Start, WalError, WalProblem};

use super::damage::{assert_cuts, assert_flips};
use super::log::{Outgoing, Read, Wal};
use super::meaning::assert_meaning;
use super::parallel::assert_in_parallel;
use super::waldump::{Theirs, waldump};
use crate::support::cluster::Cluster;
use crate::support::servers::Major;

/// Panics unless we read all of `wal` as pg_waldump does, from wherever we begin.
pub(super) fn assert_decoded(cluster: &Cluster, wal: &Wal) -> Vec<Read> {
    let Outgoing { records, error } = wal.read(Start::FirstOf(wal.start), wal.page_size(), usize::MAX);
    let theirs = waldump(cluster, wal);
    for (ours, theirs) in records.iter().zip(&theirs) {
        assert_eq!(ours.decoded, theirs.decoded);
    }
    assert_eq!(records.len(), theirs.len(), "{error:?} after {:?}, {:?}", records.last(), theirs.last());
    assert_operations(cluster.major(), &records, &theirs);
    assert_meaning(wal, &theirs);
    assert_chain(wal, &records);
    assert_end(wal, &records, error.as_ref());
    for piece in [128 << 10, wal.bytes.len()] {
        let again = wal.read(Start::FirstOf(wal.start), piece, usize::MAX);
        assert!(again.records == records && again.error == error, "fed {piece} bytes at a time");
    }
    assert_from_segments(wal, &records);
    assert_from_pages(wal, &records);
    assert_random_access(wal, &records);
    assert_cuts(wal, &records, error.as_ref());
    assert_flips(wal, &records);
    assert_in_parallel(wal, &records);
    records
}

/// Each record begins where the one before it ends, unless a torn one lies in between.
fn assert_chain(wal: &Wal, records: &[Read]) {
    for pair in records.windows(2) {
        let [before, after] = pair else { unreachable!() };
        assert_eq!(after.decoded.previous, before.lsn);
        let expected = wal.format.record_start_after(before.end);
        if after.operation == (rm::XLOG, rm::XLOG_OVERWRITE_CONTRECORD) {
            assert!(after.lsn > expected, "{after:?}");
        } else {
            assert_eq!(after.lsn, expected, "{before:?}");
        }
    }
}

/// A stopped server's last record is its checkpoint; behind it there is nothing, or the page of
/// another place.
fn assert_end(wal: &Wal, records: &[Read], error: Option<&WalError>) {
    let last = records.last().expect("records");
    let checkpoint = last.decoded.checkpoint.expect("a checkpoint at the end");
    assert_eq!(checkpoint.0, last.lsn, "a shutdown checkpoint");
    let Some(WalError { lsn, problem }) = error else {
        assert_eq!(last.end, wal.start.plus(wal.bytes.len() as u64), "an end without a reason");
        return;
    };
    let expected = match problem {
        WalProblem::Length(0) => wal.format.record_start_after(last.end),
        WalProblem::PageAddress { .. } | WalProblem::Magic { found: 0, .. } => last.end,
        other => panic!("{other}"),
    };
    assert_eq!(*lsn, expected, "{problem}");
}

/// Segments read for themselves give the same records when joined.
fn assert_from_segments(wal: &Wal, records: &[Read]) {
    let mut joined = Vec::new();
    for (begin, _) in &wal.files {
        let part = wal.read_before(Start::FirstOf(*begin), 64 << 10, begin.plus(wal.segment_size()));
        joined.extend(part.records);
    }
    assert!(joined == records, "the segments for themselves give other records");
}

/// The first record from each page on is the next one that begins on it or later.
fn assert_from_pages(wal: &Wal, records: &[Read]) {
    let page_size = wal.page_size();
    let last = records.last().expect("records").lsn;
    let mut pages = 0;
    for offset in (0..wal.bytes.len()).step_by(page_size) {
        let page = wal.start.plus(offset as u64);
        let next = records.partition_point(|read| read.lsn < page);
        let unused = next > 0 && is_switch(&records[next - 1]) && records[next - 1].end > page;
        if page > last || unused {
            continue;
        }
        let found = wal.read(Start::FirstOf(page), page_size, 1);
        assert_eq!(found.records.first(), records.get(next), "from the page at {page}: {:?}", found.error);
        pages += 1;
    }
    assert!(pages > 0);
}

/// Single records, among them all that cross pages, are the same when read for themselves.
fn assert_random_access(wal: &Wal, records: &[Read]) {
    let page = wal.format.page_size();
    let crosses = |read: &Read| read.lsn.offset_in(page) + u64::from(read.total_length) > page;
    let mut crossing = 0;
    for (index, read) in records.iter().enumerate() {
        crossing += usize::from(crosses(read));
        if crosses(read) || index % 97 == 0 {
            let found = wal.read(Start::Record(read.lsn), wal.page_size(), 1);
            assert_eq!(found.records.first(), Some(read), "{:?}", found.error);
        }
    }
    assert!(crossing > 0, "no record crosses pages");
}

pub(super) fn is_switch(read: &Read) -> bool {
    read.operation == (rm::XLOG, rm::XLOG_SWITCH)
}

/// pg_waldump prints an operation's name, not its number: the same number has the same name and the
/// reverse, and those that a rewind looks at have the names that they should have.
fn assert_operations(major: Major, records: &[Read], theirs: &[Theirs]) {
    let mut names = BTreeMap::new();
    let mut numbers = BTreeMap::new();
    for (ours, theirs) in records.iter().zip(theirs) {
        let (manager, name) = (ours.operation.0, theirs.operation.as_str());
        let mask = if manager == rm::TRANSACTION { rm::TRANSACTION_OPERATION } else { 0xF0 };
        let number = ours.info & mask;
        assert_eq!(*names.entry((manager, number)).or_insert(name), name, "{ours:?}");
        assert_eq!(*numbers.entry((manager, name)).or_insert(number), number, "{ours:?}");
    }
    let databases: &[(u8, u8, &str)] = match major.0 {
        ..=14 => &[(rm::DATABASE, 0x00, "CREATE"), (rm::DATABASE, 0x10, "DROP")],
        _ => &[
            (rm::DATABASE, 0x00, "CREATE_FILE_COPY"),
            (rm::DATABASE, 0x10, "CREATE_WAL_LOG"),
            (rm::DATABASE, 0x20, "DROP"),
        ],
    };
    for &(manager, number, name) in OPERATIONS.iter().chain(databases) {
        assert!(names.get(&(manager, number)).is_none_or(|&found| found == name), "{manager} {number:02X}: {name}");
        assert!(numbers.get(&(manager, name)).is_none_or(|&found| found == number), "{manager} {number:02X}: {name}");
    }
}

/// The operations that a rewind looks at, as pg_waldump names them.
const OPERATIONS: [(u8, u8, &str); 10] = [
    (rm::XLOG, rm::XLOG_CHECKPOINT_SHUTDOWN, "CHECKPOINT_SHUTDOWN"),
    (rm::XLOG, rm::XLOG_CHECKPOINT_ONLINE, "CHECKPOINT_ONLINE"),
    (rm::XLOG, rm::XLOG_SWITCH, "SWITCH"),
    (rm::XLOG, rm::XLOG_OVERWRITE_CONTRECORD, "OVERWRITE_CONTRECORD"),
    (rm::TRANSACTION, rm::TRANSACTION_COMMIT, "COMMIT"),
    (rm::TRANSACTION, rm::TRANSACTION_ABORT, "ABORT"),
    (rm::TRANSACTION, rm::TRANSACTION_COMMIT_PREPARED, "COMMIT_PREPARED"),
    (rm::TRANSACTION, rm::TRANSACTION_ABORT_PREPARED, "ABORT_PREPARED"),
    (rm::STORAGE, rm::STORAGE_CREATE, "CREATE"),
    (rm::STORAGE, rm::STORAGE_TRUNCATE, "TRUNCATE"),
];
