//! Several readers of one log find what one finds, or say that they do not know.

use std::sync::atomic::{AtomicU64, Ordering};

use pg_unfork::cluster::{WalFile, WalFiles};
use pg_unfork::error::{Error, Result};
use pg_unfork::format::Major;
use pg_unfork::format::wal::Record;
use pg_unfork::plan::{ScanEnd, Visitor, WalScan};
use pg_unfork::progress::{Progress, Silent, Stage};
use pg_unfork::types::{Lsn, WalFileName, WalSegmentSize};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::damage::CutFiles;
use super::log::{Read, Wal};
use super::properties::{Item, Log, Place, Plan, SEGMENT, config, item, place_of, plans_of};
use crate::support::wal_builder::{NewRecord, WalBuilder};

/// Keeps what it is shown, in the order in which it is.
#[derive(Default)]
struct Keep {
    places: Vec<Place>,
    /// Refuses the record that begins here.
    refused: Option<Lsn>,
}

impl Visitor for Keep {
    fn visit(&mut self, record: &Record<'_>) -> Result<()> {
        if self.refused == Some(record.lsn) {
            return Err(Error::failure("refused"));
        }
        assert!(self.places.last().is_none_or(|last| last.1 <= record.lsn), "{:?}, {}", self.places.last(), record.lsn);
        self.places.push(place_of(record));
        Ok(())
    }
}

/// What a scan found: its end, and its records in order.
type Found = (ScanEnd, Vec<Place>);

fn in_order(scan: &WalScan<'_>, start: Lsn, end: Lsn) -> Result<Found> {
    let mut keep = Keep::default();
    let found = scan.through(start, end, &Silent, |record| keep.visit(record))?;
    Ok((found, keep.places))
}

fn in_parallel(scan: &WalScan<'_>, start: Lsn, end: Lsn, workers: usize) -> Option<Found> {
    let told = Told(AtomicU64::new(0));
    let (found, parts) = scan.in_parallel((start, end), workers, &told, Keep::default)?;
    assert!(parts.len() <= workers);
    assert_eq!(told.0.load(Ordering::Relaxed), end.since(start), "bytes that progress was told of");
    let mut places: Vec<Place> = parts.into_iter().flat_map(|part| part.places).collect();
    places.sort_unstable();
    Some((found, places))
}

/// Adds up progress.
struct Told(AtomicU64);

impl Progress for Told {
    fn begin(&self, _: Stage, _: Option<u64>) {}
    fn advance(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }
    fn end(&self) {}
}

/// Panics unless several readers of real WAL find what one does: all of it, and from and to anywhere.
pub(super) fn assert_in_parallel(wal: &Wal, records: &[Read]) {
    let files = CutFiles { wal, cut: Lsn::MAX };
    let scan = WalScan::new(&files, wal.format, &wal.history);
    let count = records.len();
    let ranges = [(0, count), (0, 1), (count / 3, count), (count / 2, count * 2 / 3), (count - 1, count)];
    for (from, to) in ranges {
        let (start, end) = (records[from].lsn, records[to - 1].end);
        let expected: Vec<Place> = records[from..to]
            .iter()
            .map(|read| (read.lsn, read.end, read.decoded.previous, read.total_length))
            .collect();
        let one = in_order(&scan, start, end).expect("whole WAL");
        assert!(one.1 == expected);
        for workers in [1, 2, 3, 8] {
            let many = in_parallel(&scan, start, end, workers).expect("whole WAL");
            assert!(many == one, "{workers} workers, {start} to {end}: {:?}, {:?}", many.0, one.0);
        }
    }
    assert_cuts(wal, records);
}

/// Cut behind each page of its first segments, and to just before the end of a record.
fn assert_cuts(wal: &Wal, records: &[Read]) {
    let stop = wal.start.plus(3 * wal.segment_size() + wal.segment_size() / 2);
    let last = records.iter().rfind(|read| read.end <= stop).or(records.last()).expect("records");
    let (start, end) = (records[0].lsn, last.end);
    let mut cut = start.start_of(wal.format.page_size());
    let mut refused = 0;
    while cut < end {
        let files = CutFiles { wal, cut };
        let scan = WalScan::new(&files, wal.format, &wal.history);
        let error = in_order(&scan, start, end).err();
        match in_parallel(&scan, start, end, 2) {
            None => refused += 1,
            // What is missing is the unused end of a segment's switch.
            Some(found) => assert_eq!(in_order(&scan, start, end).ok(), Some(found), "cut at {cut}: {error:?}"),
        }
        cut = cut.plus(wal.format.page_size() * 5);
    }
    assert!(refused > 0);
    let files = CutFiles { wal, cut: Lsn::MAX };
    let scan = WalScan::new(&files, wal.format, &wal.history);
    let inside = Lsn::new(end.get() - 8);
    assert!(in_order(&scan, start, inside).is_err() && in_parallel(&scan, start, inside, 2).is_none());
}

/// A log as segment files; of its first one only the first page is there besides.
struct Segments<'a> {
    log: &'a Log,
    bytes: &'a [u8],
}

struct Segment {
    bytes: Vec<u8>,
}

impl WalFiles for Segments<'_> {
    fn open(&self, name: WalFileName, size: WalSegmentSize) -> Result<Option<Box<dyn WalFile>>> {
        let Log { start, format, .. } = self.log;
        let (begin, end) = (name.segment.start(size), name.segment.end(size));
        if end <= *start || begin.since(*start) >= self.bytes.len() as u64 && begin > *start {
            return Ok(None);
        }
        let mut first = WalBuilder::new(*format, begin);
        first.raw(0, 0x20, 0, &[]);
        let mut bytes = first.pages();
        if begin < *start {
            bytes.resize(start.since(begin) as usize, 0);
        } else {
            bytes.clear();
        }
        let from = begin.since(*start) as usize;
        let to = (end.since(*start) as usize).min(self.bytes.len());
        bytes.extend(&self.bytes[from..to]);
        Ok(Some(Box::new(Segment { bytes })))
    }
}

impl WalFile for Segment {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let rest = self.bytes.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// Items of which some reach over segments.
fn items(major: Major) -> impl Strategy<Value = Item> {
    let long = (0..2_600_000_usize, any::<u8>()).prop_map(|(length, byte)| {
        let main_data = vec![byte; length];
        Item::Record(NewRecord { resource_manager: 10, main_data, ..NewRecord::default() })
    });
    let medium = (0..400_000_usize).prop_map(|length| {
        let main_data = vec![7; length];
        Item::Record(NewRecord { resource_manager: 10, main_data, ..NewRecord::default() })
    });
    prop_oneof![20 => item(major), 1 => Just(Item::Switch), 2 => medium, 1 => long]
}

fn logs() -> impl Strategy<Value = Plan> {
    plans_of(2..25, items)
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn many_readers_find_what_one_finds(plan in logs(), from in any::<Index>(), to in any::<Index>()) {
        let log = plan.write();
        prop_assume!(!log.records.is_empty());
        let files = Segments { log: &log, bytes: &log.bytes };
        let scan = WalScan::new(&files, log.format, &log.history);
        let from = from.index(log.records.len());
        let to = from + to.index(log.records.len() - from);
        for (from, to) in [(0, log.records.len() - 1), (from, to)] {
            let (start, end) = (log.records[from].written.lsn, log.records[to].written.end);
            let one = in_order(&scan, start, end).expect("a whole log");
            prop_assert_eq!(one.0, ScanEnd { end, records: (to - from + 1) as u64 });
            for workers in 1..=4 {
                let many = in_parallel(&scan, start, end, workers);
                prop_assert!(many.as_ref() == Some(&one), "{} workers: {:?}, {:?}", workers, many, one);
            }
        }
    }

    /// What one reader refuses, many do not take; what it takes in spite of the damage they take alike or not.
    #[test]
    fn many_readers_take_no_damage(plan in logs(), flips in vec((any::<Index>(), 1..=255_u8), 12), cut in any::<Index>()) {
        let log = plan.write();
        prop_assume!(!log.records.is_empty());
        let (start, end) = (log.records[0].written.lsn, log.records[log.records.len() - 1].written.end);
        let agree = |bytes: &[u8]| {
            let files = Segments { log: &log, bytes };
            let scan = WalScan::new(&files, log.format, &log.history);
            let one = in_order(&scan, start, end).ok();
            for workers in [1, 2, 3] {
                let many = in_parallel(&scan, start, end, workers);
                assert!(many.is_none() || many == one, "{workers} workers: {:?}, {:?}", many.map(|m| m.0), one.map(|o| o.0));
            }
        };
        let mut bytes = log.bytes.clone();
        for (index, mask) in flips {
            let at = index.index(bytes.len());
            bytes[at] ^= mask;
            agree(&bytes);
            bytes[at] ^= mask;
        }
        // Each page's header is where readers begin, or not.
        for page in (0..bytes.len()).step_by(SEGMENT as usize).map(|at| at - at % log.format.page_size() as usize) {
            bytes[page + 16] ^= 8;
            agree(&bytes);
            bytes[page + 16] ^= 8;
        }
        let page = log.format.page_size() as usize;
        agree(&bytes[..cut.index(bytes.len()) / page * page]);
    }

    /// Cut behind every page.
    #[test]
    fn many_readers_miss_no_page(plan in plans_of(2..6, items)) {
        let log = plan.write();
        prop_assume!(!log.records.is_empty());
        let (start, end) = (log.records[0].written.lsn, log.records[log.records.len() - 1].written.end);
        let page = log.format.page_size() as usize;
        let pages = log.bytes.len() / page;
        // All of a short log, the ends of a long one.
        for count in (0..pages).filter(|count| pages < 200 || *count < 50 || pages - count < 50) {
            let files = Segments { log: &log, bytes: &log.bytes[..count * page] };
            let scan = WalScan::new(&files, log.format, &log.history);
            let one = in_order(&scan, start, end).ok();
            let many = in_parallel(&scan, start, end, 2);
            prop_assert!(many.is_none() || many == one, "{} of {} pages", count, pages);
        }
    }

    /// A record that no visitor takes.
    #[test]
    fn many_readers_refuse_what_a_visitor_refuses(plan in logs(), refused in any::<Index>()) {
        let log = plan.write();
        prop_assume!(!log.records.is_empty());
        let files = Segments { log: &log, bytes: &log.bytes };
        let scan = WalScan::new(&files, log.format, &log.history);
        let (start, end) = (log.records[0].written.lsn, log.records[log.records.len() - 1].written.end);
        let refused = Some(log.records[refused.index(log.records.len())].written.lsn);
        for workers in 1..=3 {
            let visitor = || Keep { refused, ..Keep::default() };
            prop_assert!(scan.in_parallel((start, end), workers, &Silent, visitor).is_none());
        }
    }
}
