//! WAL of any major: pages from anywhere, and records whose CRC is right but whose content is not.
//!
//! Input: major, mode, then either whole pages (mode even; the first one says where it lies and
//! whose it is) or records for the builder (mode odd), some of whose bytes are damaged afterwards.
#![no_main]

#[allow(dead_code)]
#[path = "../../tests/it/support/wal_builder.rs"]
mod wal_builder;

use std::ops::ControlFlow;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use pg_unfork::cluster::{WalFile, WalFiles};
use pg_unfork::discard::DiscardedWork;
use pg_unfork::error::Result;
use pg_unfork::format::wal::{Record, Start, WalError, WalFormat, WalReader};
use pg_unfork::format::{Checkpoint, Major};
use pg_unfork::plan::{ChangedBlocks, KnownFile, WalScan};
use pg_unfork::progress::Silent;
use pg_unfork::types::{Lsn, RelFile, RelFileNumber, TimelineHistory, TimelineId};
use pg_unfork::types::{WalFileName, WalSegmentSize};
use wal_builder::WalBuilder;

const SEGMENT: u32 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Some(([major, mode], rest)) = data.split_first_chunk() else { return };
    let major = Major::ALL[usize::from(*major) % Major::ALL.len()];
    let page_size = if mode & 2 == 0 { 8192 } else { 1024 };
    let mut format = wal_builder::format(major, page_size, SEGMENT);
    let (start, bytes) = if mode & 1 == 0 { pages(&mut format, rest) } else { built(format, rest) };
    read_all(format, start, &bytes);
    scan(format, start, &bytes);
});

/// The input as pages, at the position that the first one claims.
fn pages(format: &mut WalFormat, input: &[u8]) -> (Lsn, Vec<u8>) {
    let number = |at: usize| input.get(at..at + 8).map_or(0, |n| u64::from_le_bytes(n.try_into().unwrap()));
    let start = Lsn::new(number(8)).start_of(format.page_size());
    if start.offset_in(u64::from(SEGMENT)) == 0 {
        format.system_identifier = number(24);
    }
    let mut bytes = input.to_vec();
    bytes.resize(bytes.len().next_multiple_of(format.page_size() as usize), 0);
    (start, bytes)
}

/// Records made of the input: resource manager, info, length, content; a length beyond the input
/// begins the list of bytes to damage.
fn built(format: WalFormat, mut input: &[u8]) -> (Lsn, Vec<u8>) {
    let start = Lsn::new(u64::from(SEGMENT) - 2 * format.page_size());
    let mut log = WalBuilder::new(format, start);
    while let Some(([manager, info, low, high], rest)) = input.split_first_chunk() {
        input = rest;
        let Some((content, rest)) = rest.split_at_checked(usize::from(u16::from_le_bytes([*low, *high]))) else { break };
        input = rest;
        log.raw(u32::from(*info), *info, *manager, content);
    }
    let mut bytes = log.pages();
    for damage in input.chunks_exact(4) {
        let at = usize::from(u16::from_le_bytes([damage[0], damage[1]])) | usize::from(damage[2]) << 16;
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= damage[3];
        }
    }
    (start, bytes)
}

/// What is seen of a record, without what borrows from the reader.
type Seen = (Lsn, Lsn, u32, usize, usize);

/// Records, and how the reading ended, feeding `pages` pages at a time.
fn read(format: WalFormat, start: Start, bytes: &[u8], pages: usize) -> (Vec<Seen>, Option<WalError>, Option<Lsn>) {
    let mut reader = WalReader::new(format, start);
    let mut seen = Vec::new();
    for piece in bytes.chunks(pages * format.page_size() as usize) {
        let fed = reader.feed(piece, |record| {
            seen.push((record.lsn, record.end, record.header.total_length, record.blocks.len(), record.main_data.len()));
            ControlFlow::<()>::Continue(())
        });
        if let Err(error) = fed {
            return (seen, Some(error), None);
        }
    }
    (seen, None, reader.position())
}

/// The pieces do not matter, records come in order, and beginning at one of them gives the rest.
fn read_all(format: WalFormat, start: Lsn, bytes: &[u8]) {
    let by_one = read(format, Start::FirstOf(start), bytes, 1);
    assert_eq!(by_one, read(format, Start::FirstOf(start), bytes, 3));
    let mut before = start;
    for (lsn, end, length, blocks, main_data) in &by_one.0 {
        assert!(*lsn >= before && *end >= lsn.plus(u64::from(*length)), "{lsn} to {end}, after {before}");
        assert!(*blocks <= 33 && *main_data < *length as usize, "{lsn}");
        before = *end;
    }
    if let Some((last, _, _, _, _)) = by_one.0.last() {
        let page = last.start_of(format.page_size());
        let rest = bytes.get(page.since(start) as usize..).unwrap_or_default();
        let again = read(format, Start::Record(*last), rest, 1);
        assert_eq!(again.0.first(), by_one.0.last());
        assert_eq!((again.1, again.2), (by_one.1, by_one.2));
    }
}

/// The questions that a plan asks.
fn scan(format: WalFormat, start: Lsn, bytes: &[u8]) {
    let history = TimelineHistory::new(&[], TimelineId::new(1));
    let files = Memory::new(format, start, bytes);
    let scan = WalScan::new(&files, format, &history);
    let (records, _, _) = read(format, Start::FirstOf(start), bytes, 1);
    let relation = RelFileNumber { tablespace: 1663, database: 5, relation: 16384 };
    for &(lsn, end, ..) in records.iter().take(3) {
        let file = KnownFile { file: RelFile { number: relation, segment: 0 }, length: 200, shared: 100 };
        let blocks = ChangedBlocks::new(format.facts, 131_072, [file]);
        let last = records.last().map_or(end, |record| record.1);
        let mut recorder = blocks.recorder();
        let work = || DiscardedWork::after(end, format.facts);
        let (mut whole, mut parts) = (work(), [work(), work()]);
        let mut count = 0;
        let _ = scan.through(lsn, last, &Silent, |record: &Record<'_>| {
            let _ = Checkpoint::parse(record.main_data, format.facts);
            whole.record(record);
            parts[count % 2].record(record);
            count += 1;
            let taken = recorder.record(record, record.lsn >= end);
            taken.map_err(|error| pg_unfork::error::Error::failure(error.to_string()))
        });
        let [first, mut second] = parts;
        second.absorb(first);
        // Which transaction changed what depends on the order where one ends twice.
        let sums = |work: DiscardedWork| {
            let found = work.finish(last, |_| 0);
            let ended = (found.transactions.committed, found.transactions.aborted);
            (found.relations, found.databases, found.tablespaces, ended, found.commits.len())
        };
        assert_eq!(sums(second), sums(whole));
        assert!(blocks.lost().values().all(|&count| count <= 200));
        for range in blocks.ranges(RelFile { number: relation, segment: 0 }) {
            assert!(range.end() <= 100, "{range:?}");
        }
        if let Ok(checkpoint) = scan.last_checkpoint_before(end) {
            assert!(checkpoint.lsn < end);
        }
        if let Ok(found) = scan.last_record_end(last) {
            assert!(found <= last);
        }
    }
}

/// A log as the segment files of which it is a part. What lies before it in its first segment is
/// missing, but for the first page, which is looked at wherever a segment is entered.
#[derive(Debug)]
struct Memory {
    start: Lsn,
    bytes: Arc<[u8]>,
    first_page: Arc<[u8]>,
}

impl Memory {
    fn new(format: WalFormat, start: Lsn, bytes: &[u8]) -> Self {
        let mut first = WalBuilder::new(format, start.start_of(u64::from(SEGMENT)));
        first.raw(0, 0x20, 0, &[]);
        Self { start, bytes: bytes.into(), first_page: first.pages().into() }
    }
}

impl WalFiles for Memory {
    fn open(&self, name: WalFileName, size: WalSegmentSize) -> Result<Option<Box<dyn WalFile>>> {
        let (begin, end) = (name.segment.start(size), name.segment.end(size));
        if end <= self.start || begin > self.start.plus(self.bytes.len() as u64) {
            return Ok(None);
        }
        let Self { start, bytes, first_page } = self;
        Ok(Some(Box::new(Segment { begin, end, start: *start, bytes: bytes.clone(), first_page: first_page.clone() })))
    }
}

#[derive(Debug)]
struct Segment {
    begin: Lsn,
    end: Lsn,
    start: Lsn,
    bytes: Arc<[u8]>,
    first_page: Arc<[u8]>,
}

impl WalFile for Segment {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let position = self.begin.plus(offset);
        let room = buffer.len().min(self.end.since(position) as usize);
        let rest = if position < self.start {
            self.first_page.get(offset as usize..).unwrap_or_default()
        } else {
            self.bytes.get(position.since(self.start) as usize..).unwrap_or_default()
        };
        let count = rest.len().min(room);
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}
