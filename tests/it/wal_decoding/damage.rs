//! Real WAL that is cut short, and real records with a byte flipped: never a wrong record.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use pg_unfork::cluster::{WalFile, WalFiles};
use pg_unfork::error::{ErrorKind, Result};
use pg_unfork::format::wal::resource_manager as rm;
use pg_unfork::format::wal::{Start, WalError, WalReader};
use pg_unfork::plan::WalScan;
use pg_unfork::types::{Lsn, SegmentNumber, WalFileName, WalSegmentSize};

use super::agreement::is_switch;
use super::log::{Read, Wal};

/// Panics unless the log, cut behind each of its pages, gives the records that are whole and no more,
/// and a scan of its files says which of them ends too early.
pub(super) fn assert_cuts(wal: &Wal, records: &[Read], error: Option<&WalError>) {
    let mut reader = WalReader::new(wal.format, Start::FirstOf(wal.start));
    let mut seen = Vec::new();
    for page in wal.bytes.chunks(wal.page_size()) {
        let fed = reader.feed(page, |record| {
            seen.push(Read::of(record, &wal.format));
            ControlFlow::<()>::Continue(())
        });
        if let Err(found) = fed {
            assert_eq!(Some(&found), error);
            break;
        }
        let cut = reader.next_page();
        let whole = records.partition_point(|read| last_byte_end(wal, read) <= cut);
        assert!(seen == records[..whole], "cut at {cut}: {:?}, {:?}", seen.last(), records.get(whole));
        match (reader.position(), seen.last()) {
            (Some(next), Some(last)) => {
                assert_eq!(next, last.end, "cut at {cut}");
                assert_cut_files(wal, last, cut);
            }
            (Some(next), None) => panic!("{next}, but there is no record before {cut}"),
            (None, None) => {}
            (None, Some(last)) => {
                let next = &records[whole];
                let torn = next.operation == (rm::XLOG, rm::XLOG_OVERWRITE_CONTRECORD);
                assert!(next.lsn < cut || torn, "cut at {cut}: {next:?}");
                assert_cut_files(wal, last, cut);
            }
        }
    }
    assert!(seen == records);
}

/// Behind the last byte of a record.
fn last_byte_end(wal: &Wal, read: &Read) -> Lsn {
    if !is_switch(read) {
        return read.end;
    }
    let end = read.lsn.plus(u64::from(read.total_length));
    let page = end.start_of(wal.format.page_size());
    if page > read.lsn { end.plus(wal.format.header_length(page)) } else { end }
}

/// A scan from the last whole record gives just that one, and names the file that is cut.
fn assert_cut_files(wal: &Wal, last: &Read, cut: Lsn) {
    let files = CutFiles { wal, cut };
    let mut seen = 0;
    let error = WalScan::new(&files, wal.format, &wal.history)
        .each(Start::Record(last.lsn), |_| {
            seen += 1;
            ControlFlow::<()>::Continue(())
        })
        .expect_err("the log is cut");
    let size = wal.format.geometry.wal_segment_size;
    // A switch leaves the rest of its segment unused, but each page of it must be there.
    let segment = SegmentNumber::of(cut, size);
    let timeline = wal.history.timeline_of_segment(segment.end(size)).expect("a timeline");
    let name = WalFileName { timeline, segment }.text(size);
    assert_eq!(seen, 1, "{error}");
    assert!(error.kind() == ErrorKind::Precondition && error.to_string().contains(&name), "{error}: {name}");
    assert!(!error.hints().is_empty());
}

/// The files of a log, cut at a position.
pub(super) struct CutFiles<'a> {
    pub(super) wal: &'a Wal,
    pub(super) cut: Lsn,
}

impl WalFiles for CutFiles<'_> {
    fn open(&self, name: WalFileName, size: WalSegmentSize) -> Result<Option<Box<dyn WalFile>>> {
        let start = name.segment.start(size);
        let file = self.wal.files.iter().find(|(begin, _)| *begin == start && start < self.cut);
        Ok(file.map(|(_, path)| {
            let file = File::open(path).expect("a segment");
            Box::new(CutFile { file, length: self.cut.since(start).min(size.bytes()) }) as Box<dyn WalFile>
        }))
    }
}

/// A file of which only the beginning is shown.
struct CutFile {
    file: File,
    length: u64,
}

impl WalFile for CutFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let room = buffer.len().min(self.length.saturating_sub(offset) as usize);
        self.file.read_exact_at(&mut buffer[..room], offset).expect("a whole segment");
        Ok(room)
    }
}

/// Panics if any record of a sample, with one of its bytes changed, is still taken for a record.
pub(super) fn assert_flips(wal: &Wal, records: &[Read]) {
    let mut flips = 0;
    for read in sample(records) {
        flips += assert_each_flip(wal, read);
    }
    assert!(flips > 20_000, "only {flips} bytes flipped");
}

/// A few records of each operation, the long ones (images, mostly) rarer.
fn sample(records: &[Read]) -> Vec<&Read> {
    let mut counts: BTreeMap<_, u32> = BTreeMap::new();
    let mut chosen = Vec::new();
    // From the end: what a workload did last is more varied than the making of the cluster.
    for read in records.iter().rev().filter(|read| read.total_length < 20_000) {
        let long = read.total_length > 1_000;
        let count = counts.entry((read.operation, read.decoded.blocks.len(), long)).or_default();
        *count += 1;
        if *count <= if long { 2 } else { 8 } {
            chosen.push(read);
        }
    }
    chosen
}

/// Flips each byte of one record, and those of the page headers within it; gives how many.
fn assert_each_flip(wal: &Wal, read: &Read) -> u32 {
    let page = wal.format.page_size();
    let first = read.lsn.start_of(page);
    let end = last_byte_end(wal, read);
    let to = end.plus(page - 1).start_of(page);
    let at = |lsn: Lsn| lsn.since(wal.start) as usize;
    let mut pages = wal.bytes[at(first)..at(to)].to_vec();
    let mut flips = 0;
    let mut in_record = 0;
    for lsn in (read.lsn.get()..end.get()).map(Lsn::new) {
        let header = lsn.offset_in(page) < wal.format.header_length(lsn.start_of(page));
        in_record += u32::from(!header);
        if !header && in_record > read.total_length {
            break; // Padding.
        }
        let byte = lsn.since(first) as usize;
        for mask in [1 << (byte % 8), 0xFF] {
            pages[byte] ^= mask;
            assert_caught(wal, read, &pages, (lsn, mask, header));
            pages[byte] ^= mask;
            flips += 1;
        }
    }
    assert!(in_record >= read.total_length);
    flips
}

fn assert_caught(wal: &Wal, read: &Read, pages: &[u8], (flipped, mask, header): (Lsn, u8, bool)) {
    let mut reader = WalReader::new(wal.format, Start::Record(read.lsn));
    let mut found = None;
    let fed = reader.feed(pages, |record| {
        found = Some(Read::of(record, &wal.format));
        ControlFlow::Break(())
    });
    match (fed, found) {
        // Not all of a page header matters.
        (Ok(_), Some(found)) => assert!(header && found == *read, "{flipped} ^ {mask:02X}: {found:?} for {read:?}"),
        // The record claims to be longer than it is: it goes on behind the pages that are there.
        (Ok(_), None) => assert!(reader.position().is_none(), "{flipped} ^ {mask:02X}: {read:?} is passed over"),
        (Err(error), _) => {
            let page = wal.format.page_size();
            let here = error.lsn >= read.lsn.start_of(page) && error.lsn < reader.next_page();
            assert!(here, "{flipped} ^ {mask:02X}: {error} for {read:?}");
        }
    }
}
