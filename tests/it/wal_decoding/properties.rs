//! Any records, written by the builder: what is written is read, and what is damaged is not.

use std::ops::{ControlFlow, Range};

use pg_unfork::discard::DiscardedWork;
use pg_unfork::format::Major;
use pg_unfork::format::wal::{BlockReference, Record, Start, WalError, WalFormat, WalProblem, WalReader};
use pg_unfork::types::{ForkNumber, Lsn, RelFileNumber, TimelineHistory, TimelineId};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::support::wal_builder::{self, NewBlock, NewImage, NewRecord, WalBuilder, Written};

pub(super) const SEGMENT: u32 = 1 << 20;
const XLOG_SWITCH: (u8, u8) = (0, 0x40);

/// A log to be written.
#[derive(Debug)]
pub(super) struct Plan {
    format: WalFormat,
    start: Lsn,
    items: Vec<Item>,
}

#[derive(Clone, Debug)]
pub(super) enum Item {
    Record(NewRecord),
    /// A record that is torn at the end of its first, or second page, and void.
    Torn(NewRecord, usize),
    Switch,
    NextTimeline,
}

/// A log, and what a reader must find in it.
pub(super) struct Log {
    pub(super) format: WalFormat,
    pub(super) start: Lsn,
    pub(super) bytes: Vec<u8>,
    pub(super) records: Vec<Expected>,
    pub(super) history: TimelineHistory,
}

#[derive(Debug)]
pub(super) struct Expected {
    pub(super) written: Written,
    /// As it was written; none for a switch and for what voids a torn record.
    record: Option<NewRecord>,
    /// Where the record begins that this one voids.
    voids: Option<Lsn>,
}

/// What a reader says of a record, apart from its content.
pub(super) type Place = (Lsn, Lsn, Lsn, u32);

fn place(written: &Written) -> Place {
    (written.lsn, written.end, written.previous, written.total_length)
}

impl Plan {
    pub(super) fn write(&self) -> Log {
        let mut builder = WalBuilder::new(self.format, self.start);
        let mut records: Vec<Expected> = Vec::new();
        let (mut ancestors, mut timeline) = (Vec::new(), 1);
        for item in &self.items {
            let (written, record, voids) = match item {
                Item::Record(record) => (builder.record(record), Some(record.clone()), None),
                Item::Torn(record, pages) => match builder.torn(record, *pages) {
                    Some((torn, written)) => (written, None, Some(torn)),
                    None => continue,
                },
                Item::Switch => (builder.switch(), None, None),
                Item::NextTimeline => {
                    let end = records.last().map_or(self.start, |last| last.written.end);
                    ancestors.push((TimelineId::new(timeline), end));
                    timeline += 1;
                    builder.set_timeline(timeline);
                    continue;
                }
            };
            records.push(Expected { written, record, voids });
        }
        let history = TimelineHistory::new(&ancestors, TimelineId::new(timeline));
        Log { format: self.format, start: self.start, bytes: builder.pages(), records, history }
    }
}

impl Log {
    /// Pages written by hand, on the first timeline.
    fn of_pages(format: WalFormat, start: Lsn, bytes: Vec<u8>) -> Self {
        Self { format, start, bytes, records: Vec::new(), history: TimelineHistory::new(&[], TimelineId::new(1)) }
    }

    fn places(&self) -> Vec<Place> {
        self.records.iter().map(|expected| place(&expected.written)).collect()
    }

    /// The pages from the one with `lsn` on.
    fn from(&self, lsn: Lsn) -> &[u8] {
        &self.bytes[lsn.start_of(self.format.page_size()).since(self.start) as usize..]
    }

    /// Reads `bytes`, which begin where `start` lies, in pieces of so many pages, over and over.
    fn read(&self, start: Start, mut bytes: &[u8], pieces: &[usize], mut visit: impl FnMut(&Record<'_>)) -> End {
        let mut reader = WalReader::new(self.format, start);
        for pages in pieces.iter().cycle() {
            let (piece, rest) = bytes.split_at((pages * self.format.page_size() as usize).min(bytes.len()));
            bytes = rest;
            let fed = reader.feed(piece, |record| {
                visit(record);
                ControlFlow::<()>::Continue(())
            });
            match fed {
                Err(error) => return End::Error(error),
                Ok(_) if bytes.is_empty() => return End::Pages(reader.position()),
                Ok(_) => {}
            }
        }
        unreachable!("pieces never end")
    }

    /// The places of what is read from the beginning.
    fn places_in(&self, bytes: &[u8]) -> (Vec<Place>, End) {
        let mut places = Vec::new();
        let end = self.read(Start::FirstOf(self.start), bytes, &[1], |record| places.push(place_of(record)));
        (places, end)
    }
}

/// How a reading ended.
#[derive(Debug, PartialEq)]
enum End {
    /// The pages did, and the next record begins here, or in no place that is known.
    Pages(Option<Lsn>),
    Error(WalError),
}

pub(super) fn place_of(record: &Record<'_>) -> Place {
    (record.lsn, record.end, record.header.previous, record.header.total_length)
}

fn assert_content(record: &Record<'_>, expected: &NewRecord) {
    assert_eq!(record.header.xid, expected.xid);
    assert_eq!(record.header.info, expected.info);
    assert_eq!(record.header.resource_manager, expected.resource_manager);
    assert!(record.main_data == expected.main_data);
    let blocks: Vec<_> = expected.blocks.iter().map(reference).collect();
    assert_eq!(record.blocks, blocks);
}

fn reference(block: &NewBlock) -> BlockReference {
    BlockReference {
        id: block.id,
        relation: block.relation,
        fork: block.fork,
        block: block.block,
        has_image: block.image.is_some(),
        image_applies: block.image.as_ref().is_some_and(|image| image.applies),
        will_init: block.will_init,
    }
}

fn majors() -> impl Strategy<Value = Major> {
    select(&Major::ALL[..])
}

fn plans(items: Range<usize>) -> impl Strategy<Value = Plan> {
    plans_of(items, item)
}

/// Logs of so many items, from the last pages of a segment on, most of them.
pub(super) fn plans_of<S: Strategy<Value = Item>>(
    items: Range<usize>,
    item: impl Fn(Major) -> S + Clone,
) -> impl Strategy<Value = Plan> {
    let place = (select(&[1024_u32, 8192, 65536][..]), 0_u64..5, 0_u64..6);
    (majors(), place).prop_flat_map(move |(major, (page_size, segment, pages_before))| {
        let format = wal_builder::format(major, page_size, SEGMENT);
        let end = (segment + 1) * u64::from(SEGMENT);
        let start = Lsn::new(end - pages_before * u64::from(page_size));
        vec(item(major), items.clone()).prop_map(move |items| Plan { format, start, items })
    })
}

pub(super) fn item(major: Major) -> impl Strategy<Value = Item> {
    prop_oneof![
        30 => record(major).prop_map(Item::Record),
        2 => (record(major), 1..3_usize).prop_map(|(record, pages)| Item::Torn(record, pages)),
        1 => Just(Item::Switch),
        1 => Just(Item::NextTimeline),
    ]
}

fn record(major: Major) -> impl Strategy<Value = NewRecord> {
    let built_in = 0..=21_u8;
    let manager = if major >= Major::V15 { prop_oneof![built_in, 128..=255_u8].boxed() } else { built_in.boxed() };
    let kind = (manager, any::<u8>())
        .prop_filter("a switch has its own item", |(manager, info)| (*manager, info & 0xF0) != XLOG_SWITCH);
    let toplevel_xid = if major >= Major::V14 { option::of(any::<u32>()).boxed() } else { Just(None).boxed() };
    let blocks = btree_map(0..=32_u8, block(major), 0..5);
    (any::<u32>(), kind, blocks, option::of(any::<u16>()), toplevel_xid, data(100_000)).prop_map(
        |(xid, (resource_manager, info), blocks, origin, toplevel_xid, main_data)| {
            let blocks = blocks.into_iter().map(|(id, block)| NewBlock { id, ..block }).collect();
            NewRecord { xid, info, resource_manager, blocks, origin, toplevel_xid, main_data }
        },
    )
}

/// Records that mean something, or nearly, to whoever asks what is lost: few transactions, and main data of small numbers.
fn meant(major: Major) -> impl Strategy<Value = Item> {
    let custom = if major >= Major::V15 { 200 } else { 20 };
    let managers = [1_u8, 1, 1, 2, 4, 5, 7, 8, 9, 10, 11, 15, custom, 21];
    let word = prop_oneof![6 => 0..6_u32, 1 => any::<u32>(), 2 => select(&[1663_u32, 16_384, 0x1F, 0x12][..])];
    let main_data = (vec(word, 0..16), 0..4_usize).prop_map(|(words, cut)| {
        let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        bytes[..bytes.len().saturating_sub(cut)].to_vec()
    });
    let blocks = btree_map(0..=3_u8, block(major), 0..3);
    (0..6_u32, select(managers.to_vec()), any::<u8>(), blocks, main_data).prop_map(
        |(xid, resource_manager, info, blocks, main_data)| {
            let small = |block| NewBlock { image: None, data: Vec::new(), ..block };
            let blocks = blocks.into_iter().map(|(id, block)| small(NewBlock { id, ..block })).collect();
            Item::Record(NewRecord { xid, info, resource_manager, blocks, origin: None, toplevel_xid: None, main_data })
        },
    )
}

/// What does not depend on how a log was parted, even where a transaction ends twice.
fn sums(work: DiscardedWork, end: Lsn) -> impl PartialEq + std::fmt::Debug {
    let found = work.finish(end, |_| 0);
    let counts = (found.transactions.committed, found.transactions.aborted, found.transactions.subtransactions);
    (found.relations, found.databases, found.tablespaces, counts, found.commits.len(), found.first_commit)
}

fn block(major: Major) -> impl Strategy<Value = NewBlock> {
    let relation = select(&[(1663, 5, 16384), (1663, 5, 16385), (1664, 0, 1262)][..]);
    let fork = (0..4_u8).prop_map(|number| ForkNumber::from_number(number).expect("a fork"));
    let (number, init) = (any::<u32>(), any::<bool>());
    (relation, fork, number, init, option::of(image(major)), data(65_535)).prop_map(
        |((tablespace, database, relation), fork, block, will_init, image, data)| {
            let relation = RelFileNumber { tablespace, database, relation };
            NewBlock { id: 0, relation, fork, block, will_init, image, data }
        },
    )
}

fn image(major: Major) -> impl Strategy<Value = NewImage> {
    let hole = (1..8192_u16, 1..8192_u16);
    let compressed = (select(wal_builder::compressions(major)), 1..8192_u16);
    (any::<bool>(), option::of(hole), option::of(compressed)).prop_map(|(applies, hole, compressed)| NewImage {
        applies,
        hole,
        compressed,
    })
}

/// Bytes, mostly few, sometimes up to `limit`.
fn data(limit: usize) -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![20 => 0..50_usize, 4 => 200..2000_usize, 1 => 2000..=limit];
    (length, any::<u8>()).prop_map(|(length, first)| (0..length).map(|n| (n as u8).wrapping_add(first)).collect())
}

pub(super) fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(150))]

    /// Whatever records say, and however the log is parted.
    #[test]
    fn what_is_lost_adds_up(plan in prop_oneof![plans_of(1..60, meant).boxed(), plans(1..25).boxed()], fork in any::<Index>()) {
        let log = plan.write();
        prop_assume!(!log.records.is_empty());
        let fork = fork.get(&log.records).written.lsn;
        let work = || DiscardedWork::after(fork, log.format.facts);
        let (mut whole, mut parts) = (work(), [work(), work(), work()]);
        let mut count = 0;
        log.read(Start::FirstOf(log.start), &log.bytes, &[1], |record| {
            whole.record(record);
            parts[count % 3].record(record);
            count += 1;
        });
        let joined = parts.into_iter().rev().reduce(|mut sum, part| {
            sum.absorb(part);
            sum
        });
        prop_assert_eq!(sums(joined.expect("a part"), fork), sums(whole, fork));
    }

    /// Whatever the pieces are, and from wherever the reading begins.
    #[test]
    fn what_is_written_is_read(plan in plans(1..25), pieces in vec(1..9_usize, 1..4)) {
        let log = plan.write();
        let mut expected = log.records.iter();
        let mut places = Vec::new();
        let end = log.read(Start::FirstOf(log.start), &log.bytes, &pieces, |record| {
            places.push(place_of(record));
            if let Some(written) = expected.next().and_then(|next| next.record.as_ref()) {
                assert_content(record, written);
            }
        });
        prop_assert_eq!(&places, &log.places());
        assert_at_end(&log, &end);
        for (index, expected) in log.records.iter().enumerate() {
            let begins = expected.voids.into_iter().chain([expected.written.lsn]);
            for lsn in begins {
                let mut rest = Vec::new();
                log.read(Start::Record(lsn), log.from(lsn), &pieces, |record| rest.push(place_of(record)));
                prop_assert_eq!(&rest, &places[index..], "from {}", lsn);
            }
        }
        for page in log.bytes.chunks(log.format.page_size() as usize).enumerate().filter(|(_, page)| page[0] != 0) {
            let page = log.start.plus(page.0 as u64 * log.format.page_size());
            let mut rest = Vec::new();
            log.read(Start::FirstOf(page), log.from(page), &pieces, |record| rest.push(place_of(record)));
            let first = places.partition_point(|place| place.0 < page);
            prop_assert_eq!(&rest, &places[first..], "from the page at {}", page);
        }
    }

    /// It is caught, at the record or at a page's header, or harmless: never another record.
    #[test]
    fn a_flipped_byte_is_caught_or_harmless(plan in plans(1..8), flips in vec((any::<Index>(), 1..=255_u8), 40)) {
        let log = plan.write();
        prop_assume!(!log.bytes.is_empty());
        let places = log.places();
        let mut bytes = log.bytes.clone();
        for (index, mask) in flips {
            let at = index.index(bytes.len());
            let lsn = log.start.plus(at as u64);
            bytes[at] ^= mask;
            // The first page's header alone says what a record before it leaves on it.
            let from = log.records.first().map_or(log.start, |first| first.voids.unwrap_or(first.written.lsn));
            let mut found = Vec::new();
            let end = log.read(Start::Record(from), &bytes, &[1], |record| found.push(place_of(record)));
            prop_assert!(places.starts_with(&found), "{} ^ {:02X}: {:?} for {:?}", lsn, mask, found, places);
            let hit = |written: &Written| {
                let header = lsn.offset_in(log.format.page_size())
                    < log.format.header_length(lsn.start_of(log.format.page_size()));
                !header && written.lsn <= lsn && lsn < written.data_end
            };
            if let Some(index) = log.records.iter().position(|expected| hit(&expected.written)) {
                prop_assert!(found.len() <= index, "{} ^ {:02X} is in a record that is read", lsn, mask);
            }
            if found.len() < places.len() {
                prop_assert!(!matches!(end, End::Pages(Some(_))), "{} ^ {:02X}: {:?}", lsn, mask, end);
            }
            bytes[at] ^= mask;
        }
    }

    /// As a crash leaves it: zeros from some byte on, or no more pages.
    #[test]
    fn a_cut_log_gives_what_is_whole(plan in plans(1..12), cut in any::<Index>()) {
        let log = plan.write();
        prop_assume!(!log.bytes.is_empty());
        let at = cut.index(log.bytes.len());
        let lsn = log.start.plus(at as u64);
        let mut bytes = log.bytes.clone();
        bytes[at..].fill(0);
        let (found, end) = log.places_in(&bytes);
        let whole = log.records.iter().take_while(|expected| expected.written.data_end <= lsn).count();
        // The last bytes of the next one may be zeros anyway.
        prop_assert!(log.places().starts_with(&found), "cut at {}: {:?}", lsn, found);
        prop_assert!((whole..=whole + 1).contains(&found.len()), "cut at {}: {} of {}", lsn, found.len(), whole);
        if found.len() == whole + 1 {
            let first = lsn.since(log.start) as usize;
            let last = log.records[whole].written.data_end.since(log.start) as usize;
            prop_assert!(log.bytes[first..last].iter().all(|&byte| byte == 0));
        }
        let last = found.last().map_or(lsn, |place| place.1).max(lsn.plus(log.format.page_size()));
        prop_assert!(!matches!(&end, End::Error(error) if error.lsn > last), "{:?}", end);

        let pages = at - at % log.format.page_size() as usize;
        let (found, end) = log.places_in(&log.bytes[..pages]);
        prop_assert!(log.places().starts_with(&found));
        prop_assert!(matches!(end, End::Pages(_)), "{:?}", end);
        let page = log.start.plus(pages as u64);
        let whole = log.records.iter().take_while(|expected| expected.written.data_end <= page).count();
        prop_assert_eq!(found.len(), whole);
    }

    /// A right CRC says nothing of what is in the record.
    #[test]
    fn any_content_is_read_or_refused(
        major in majors(),
        contents in vec((any::<u8>(), any::<u8>(), headers()), 1..6),
    ) {
        let format = wal_builder::format(major, 8192, SEGMENT);
        let mut builder = WalBuilder::new(format, Lsn::new(u64::from(SEGMENT)));
        let written: Vec<_> =
            contents.iter().map(|(manager, info, content)| builder.raw(7, *info, *manager, content)).collect();
        let log = Log::of_pages(format, Lsn::new(u64::from(SEGMENT)), builder.pages());
        let mut found = Vec::new();
        let end = log.read(Start::FirstOf(log.start), &log.bytes, &[1], |record| {
            assert!(record.main_data.len() + 24 <= record.header.total_length as usize);
            assert!(record.blocks.windows(2).all(|pair| pair[0].id < pair[1].id));
            found.push(record.lsn);
        });
        let begins: Vec<_> = written.iter().map(|written| written.lsn).collect();
        prop_assert!(begins.starts_with(&found));
        if let (End::Error(error), Some(next)) = (end, begins.get(found.len())) {
            prop_assert_eq!(error.lsn, *next);
            let expected = matches!(error.problem, WalProblem::Headers(_) | WalProblem::ResourceManager(_));
            prop_assert!(expected, "{}", error);
        }
    }

    /// Pages whose header is right, with anything in them.
    #[test]
    fn any_bytes_are_read_or_refused(
        major in majors(),
        page_count in 1..4_usize,
        remaining in any::<[u32; 4]>(),
        bytes in vec(any::<u8>(), 4096),
        lengths in any::<[u16; 4]>(),
    ) {
        let format = wal_builder::format(major, 1024, SEGMENT);
        let mut builder = WalBuilder::new(format, Lsn::new(u64::from(SEGMENT)));
        builder.raw(0, 0, 2, &bytes[..page_count * 1024]);
        let mut pages = builder.pages();
        for (index, page) in pages.chunks_mut(1024).enumerate() {
            let (header, body) = page.split_at_mut(if index == 0 { 40 } else { 24 });
            header[16..20].copy_from_slice(&remaining[index % 4].to_le_bytes());
            body.copy_from_slice(&bytes[index * 24..index * 24 + body.len()]);
            // A length that is possible, or nothing but the length would be looked at.
            body[..4].copy_from_slice(&u32::from(lengths[index % 4]).to_le_bytes());
        }
        let log = Log::of_pages(format, Lsn::new(u64::from(SEGMENT)), pages);
        let places = log.places_in(&log.bytes).0;
        prop_assert!(places.is_empty(), "{:?}", places);
    }
}

/// The last record of a segment is a switch, and reaches into the next one, which it leaves unused but
/// for its own end.
#[test]
fn a_switch_across_segments_is_passed_over() {
    for (major, left) in Major::ALL.into_iter().flat_map(|major| [(major, 8), (major, 16)]) {
        let format = wal_builder::format(major, 8192, SEGMENT);
        let segment = u64::from(SEGMENT);
        let mut builder = WalBuilder::new(format, Lsn::new(2 * segment - 8192));
        let main_data = vec![0; 8192 - 24 - (24 + 5) - left];
        let filler = builder.record(&NewRecord { resource_manager: 10, main_data, ..NewRecord::default() });
        let switch = builder.switch();
        let next = builder.record(&NewRecord { resource_manager: 10, ..NewRecord::default() });
        assert_eq!((switch.lsn.plus(left as u64), switch.end), (Lsn::new(2 * segment), Lsn::new(3 * segment)));
        let start = Lsn::new(2 * segment - 8192);
        let log = Log::of_pages(format, start, builder.pages());
        assert_eq!(log.places_in(&log.bytes).0, [filler, switch, next].map(|written| place(&written)));
        let mut found = Vec::new();
        let from = Lsn::new(2 * segment);
        log.read(Start::FirstOf(from), log.from(from), &[1], |record| found.push(place_of(record)));
        assert_eq!(found, [place(&next)], "{major}, {left} bytes");
    }
}

/// Where a reading begins in the middle of a record, that record's pages must fit together, or whole
/// records could be passed over with it.
#[test]
fn what_is_passed_over_fits_together() {
    for major in Major::ALL {
        let format = wal_builder::format(major, 8192, SEGMENT);
        let mut builder = WalBuilder::new(format, Lsn::new(u64::from(SEGMENT) - 8192));
        builder.raw(1, 0, 10, &[0; 9000]);
        builder.raw(1, 0, 10, &[0; 10_000]);
        let start = Lsn::new(u64::from(SEGMENT) - 8192);
        let log = Log::of_pages(format, start, builder.pages());
        let page = start.plus(8192);
        let mut pages = log.from(page).to_vec();
        // The rest of the first record claims to fill the page, and the second record's beginning.
        pages[16..20].copy_from_slice(&9000_u32.to_le_bytes());
        let end = log.read(Start::FirstOf(page), &pages, &[1], |record| panic!("{record:?}"));
        let expected = 9000 - (8192 - 40);
        let End::Error(WalError { lsn, problem: WalProblem::Continuation { expected: found, .. } }) = end else {
            panic!("{end:?}")
        };
        assert_eq!((lsn, found), (page.plus(8192), expected), "{major}");
    }
}

/// Behind the last record there is nothing, or zeros.
fn assert_at_end(log: &Log, end: &End) {
    let Some(last) = log.records.last().map(|expected| expected.written.end) else {
        return;
    };
    let all = log.start.plus(log.bytes.len() as u64);
    match end {
        End::Pages(position) => assert!(*position == Some(last) && last >= all, "{position:?}, {last}"),
        End::Error(error) => assert!(error.problem == WalProblem::Length(0) && error.lsn == last, "{error}"),
    }
}

/// Bytes that look like the headers of a record more often than chance would have it.
fn headers() -> impl Strategy<Value = Vec<u8>> {
    let id = prop_oneof![4 => 0..=33_u8, 1 => 250..=255_u8];
    let piece = (id, vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 1..25));
    vec(piece, 0..6).prop_map(|pieces| pieces.into_iter().flat_map(|(id, rest)| [vec![id], rest].concat()).collect())
}
