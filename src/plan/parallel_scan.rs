//! Reading the target's WAL on several threads, and the proof that this is what one would have read.
//!
//! Each worker reads whole segments, each from its first record on, and follows it to the first record behind
//! it. Where that is the first record that the segment's own reader has found, both readers have come to the same
//! state: they have checked the same record, which begins at the same place and ends at the same place, on the
//! same page, and the former has checked its link to the record before. So whoever reads on from there sees what one
//! reader of everything would see. Where anything is otherwise, damage above all, nothing is concluded.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use super::scan::{PIECE, ScanEnd, WalScan};
use crate::error::Result;
use crate::format::wal::{Record, Start};
use crate::progress::Progress;
use crate::types::{Lsn, SegmentNumber, WalSegmentSize};

/// Bytes read at a time behind a worker's own segment, where one or two records are wanted: a page of any size.
const BEHIND: usize = 64 << 10;

/// How often it is told how far the workers are.
const TICK: Duration = Duration::from_millis(100);

/// Takes the records that one worker reads: not all, and those of one segment after those of an earlier one.
pub trait Visitor: Send {
    /// Takes one record.
    ///
    /// # Errors
    /// When the scan must fail because of it.
    fn visit(&mut self, record: &Record<'_>) -> Result<()>;
}

/// What a worker has made of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    segment: SegmentNumber,
    /// Where the first record begins that was found, in the segment or behind it.
    first: Option<Lsn>,
    /// How many of its records have been visited.
    records: u64,
    then: Then,
}

/// What comes behind a segment's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The record that begins here, which is valid and follows the segment's last one.
    Record(Lsn),
    /// Nothing: the last record ends here, where the scan ends, or behind that.
    End(Lsn),
    /// Not known: no record begins in the segment.
    PassedOver,
    /// Not known: something cannot be read.
    Failed,
}

/// A scan that several workers share.
struct Shared<'s, 'a> {
    scan: &'s WalScan<'a>,
    start: Lsn,
    end: Lsn,
    /// How many segments have been taken, in their order.
    taken: AtomicU64,
    /// Whether a segment could not be read: what lies behind it is of no use.
    failed: AtomicBool,
    /// Bytes of WAL that have been read.
    done: AtomicU64,
}

impl WalScan<'_> {
    /// Shows every record from the one at `start` on, up to the one that ends at `end`, to one of at most `workers`
    /// visitors, each made by `visitor` and given back: what [`WalScan::through`] shows to one, if that does
    /// not fail.
    ///
    /// None where that is not proven: then nothing that the visitors have taken counts, and
    /// [`WalScan::through`] must find out what is wrong, if anything is.
    pub fn in_parallel<V: Visitor>(
        &self,
        (start, end): (Lsn, Lsn),
        workers: usize,
        progress: &dyn Progress,
        visitor: impl Fn() -> V,
    ) -> Option<(ScanEnd, Vec<V>)> {
        let shared = Shared {
            scan: self,
            start,
            end,
            taken: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            done: AtomicU64::new(0),
        };
        let ((mut parts, told), visitors) = thread::scope(|scope| {
            let (sender, parts) = mpsc::channel();
            let workers: Vec<_> = (0..workers)
                .map_while(|_| {
                    let (shared, sender, visitor) = (&shared, sender.clone(), visitor());
                    let worker = thread::Builder::new().name("wal-scan".to_owned());
                    worker.spawn_scoped(scope, move || shared.work(visitor, &sender)).ok()
                })
                .collect();
            drop(sender);
            let watched = shared.watch(&parts, progress);
            let visitors = workers.into_iter().map(|worker| worker.join().ok());
            (watched, visitors.collect::<Option<Vec<V>>>())
        });
        let found = joined(start, end, self.segment_size(), &mut parts)?;
        let visitors = visitors?;
        // What lies between two segments' records belongs to neither of them.
        progress.advance(end.since(start).saturating_sub(told));
        Some((found, visitors))
    }

    fn segment_size(&self) -> WalSegmentSize {
        self.format().geometry.wal_segment_size
    }
}

impl Shared<'_, '_> {
    /// Reads segments until there are no more, or one cannot be read.
    fn work<V: Visitor>(&self, mut visitor: V, parts: &Sender<Part>) -> V {
        let mut buffer = vec![0; PIECE];
        while let Some(segment) = self.take() {
            let part = self.read(segment, &mut buffer, &mut visitor);
            if part.then == Then::Failed {
                self.failed.store(true, Ordering::Relaxed);
            }
            if parts.send(part).is_err() {
                break;
            }
        }
        visitor
    }

    /// The next segment that nobody has taken.
    fn take(&self) -> Option<SegmentNumber> {
        if self.failed.load(Ordering::Relaxed) {
            return None;
        }
        let size = self.scan.segment_size();
        let first = self.start.start_of(size.bytes());
        let begin = first.plus(self.taken.fetch_add(1, Ordering::Relaxed).saturating_mul(size.bytes()));
        (begin < self.end).then(|| SegmentNumber::of(begin, size))
    }

    /// Visits the records that begin in a segment, and looks for the one behind them.
    fn read(&self, segment: SegmentNumber, buffer: &mut [u8], visitor: &mut impl Visitor) -> Part {
        let size = self.scan.segment_size();
        let begin = segment.start(size);
        let start = if begin <= self.start { Start::Record(self.start) } else { Start::FirstOf(begin) };
        let behind = segment.end(size).min(self.end);
        let mut part = Part { segment, first: None, records: 0, then: Then::PassedOver };
        let mut told = None;
        part.then = self.follow(start, buffer, |record| {
            part.first = part.first.or(Some(record.lsn));
            if record.lsn >= behind {
                return ControlFlow::Break(Then::Record(record.lsn));
            }
            part.records += 1;
            let since = told.get_or_insert(record.lsn);
            let is_last = record.end >= behind;
            if is_last || record.end.since(*since) >= PIECE as u64 {
                self.done.fetch_add(record.end.since(*since), Ordering::Relaxed);
                *since = record.end;
            }
            match visitor.visit(record) {
                Err(_) => ControlFlow::Break(Then::Failed),
                Ok(()) if record.end >= self.end => ControlFlow::Break(Then::End(record.end)),
                Ok(()) => ControlFlow::Continue(()),
            }
        });
        part
    }

    /// Reads a segment, and what follows as far as a record of the segment, or the one behind it, needs that.
    fn follow(&self, start: Start, buffer: &mut [u8], mut visit: impl FnMut(&Record<'_>) -> ControlFlow<Then>) -> Then {
        let mut reader = self.scan.reader(start);
        let mut room = buffer.len();
        loop {
            let buffer = buffer.get_mut(..room).unwrap_or_default();
            match self.scan.read_segment(&mut reader, buffer, &mut visit) {
                Ok(ControlFlow::Break(then)) => return then,
                Ok(ControlFlow::Continue(())) if !reader.has_begun() => return Then::PassedOver,
                Ok(ControlFlow::Continue(())) => room = room.min(BEHIND),
                Err(_) => return Then::Failed,
            }
        }
    }

    /// Collects what the workers find, and tells how far they are; gives how many bytes were told of.
    fn watch(&self, parts: &Receiver<Part>, progress: &dyn Progress) -> (Vec<Part>, u64) {
        let total = self.end.since(self.start);
        let (mut found, mut told) = (Vec::new(), 0);
        loop {
            match parts.recv_timeout(TICK) {
                Ok(part) => found.push(part),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return (found, told),
            }
            let done = self.done.load(Ordering::Relaxed).min(total);
            progress.advance(done.saturating_sub(told));
            told = told.max(done);
        }
    }
}

/// What was read, if `parts` prove that it is all there is from the record at `start` to the one that ends at `end`.
fn joined(start: Lsn, end: Lsn, size: WalSegmentSize, parts: &mut [Part]) -> Option<ScanEnd> {
    parts.sort_unstable_by_key(|part| part.segment);
    let mut records = 0;
    let mut then = Then::Record(start);
    for part in parts {
        match then {
            Then::Record(next) if next < part.segment.end(size) => {
                if part.first != Some(next) {
                    return None;
                }
                records += part.records;
                then = part.then;
            }
            // A record, or a segment switch, reaches over all of this segment, or over all that the scan needs of it.
            Then::Record(_) | Then::End(_) if part.records == 0 => {}
            _ => return None,
        }
    }
    (then == Then::End(end)).then_some(ScanEnd { end, records })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u32 = 1 << 20;

    /// The part of the segment `number`, with positions in units of a hundredth of a segment, more or less.
    fn part(number: u64, first: Option<u64>, records: u64, then: Then) -> Part {
        let size = WalSegmentSize::new(SIZE).unwrap();
        Part { segment: SegmentNumber::of(at(number * 100), size), first: first.map(at), records, then }
    }

    fn at(hundredths: u64) -> Lsn {
        Lsn::new(hundredths * (u64::from(SIZE) / 100 + 1))
    }

    fn record(hundredths: u64) -> Then {
        Then::Record(at(hundredths))
    }

    #[test]
    fn only_what_meets_is_joined() {
        use Then::{Failed, PassedOver};
        let size = WalSegmentSize::new(SIZE).unwrap();
        let end = Then::End(at(390));
        let first = part(1, Some(150), 7, record(210));
        let second = part(2, Some(210), 5, record(305));
        let third = part(3, Some(305), 3, end);
        let cases = [
            ("three segments", vec![third, first, second], Some(15)),
            ("one segment", vec![part(1, Some(150), 7, end)], Some(7)),
            ("nothing", vec![], None),
            ("no end", vec![first, second], None),
            ("another end", vec![first, second, part(3, Some(305), 3, Then::End(at(391)))], None),
            ("no beginning", vec![second, third], None),
            ("another beginning", vec![part(1, Some(151), 7, record(210)), second, third], None),
            ("a gap", vec![first, third], None),
            ("parts that do not meet", vec![first, part(2, Some(211), 5, record(305)), third], None),
            ("a segment that nothing is known of", vec![first, part(2, None, 0, Failed), third], None),
            ("one that is damaged behind", vec![first, part(2, Some(210), 5, Failed), third], None),
            (
                "a record over a segment",
                vec![part(1, Some(150), 7, record(305)), part(2, None, 0, PassedOver), third],
                Some(10),
            ),
            (
                "a switch over a segment",
                vec![part(1, Some(150), 7, record(305)), part(2, Some(305), 0, record(305)), third],
                Some(10),
            ),
            (
                "records in a segment that was passed over",
                vec![part(1, Some(150), 7, record(305)), second, third],
                None,
            ),
            (
                "the end in the next segment",
                vec![part(1, Some(150), 7, end), part(2, None, 0, PassedOver), part(3, None, 0, Failed)],
                Some(7),
            ),
            ("records behind the end", vec![part(1, Some(150), 7, end), part(2, Some(210), 1, Failed)], None),
        ];
        for (case, mut parts, records) in cases {
            let expected = records.map(|records| ScanEnd { end: at(390), records });
            assert_eq!(joined(at(150), at(390), size, &mut parts), expected, "{case}");
        }
    }
}
