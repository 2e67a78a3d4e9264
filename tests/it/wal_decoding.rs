//! Our reader decodes WAL as pg_waldump of the same major does, record by record: both sides of the
//! rich pair and logs with torn records; in order, from each page, and from single records.

use std::fs::{self, OpenOptions};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, symlink};
use std::path::PathBuf;

use pg_unfork::format::wal::resource_manager as rm;
use pg_unfork::format::wal::{BlockReference, Record, Start, WalError, WalFormat, WalProblem, WalReader};
use pg_unfork::format::{Checkpoint, ControlFile, parse_history};
use pg_unfork::types::{ForkNumber, Lsn, RelFileNumber, SegmentNumber, TimelineHistory, TimelineId, WalFileName};
use tempfile::TempDir;

use crate::support::cluster::{Cluster, InitOptions, Stop};
use crate::support::for_each_major;
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::scratch;
use crate::support::servers::{Installation, Major};

for_each_major!(rich_pair, every_header, torn_records, resource_managers);

fn rich_pair(major: Major) {
    let pair = Pair::shared(major);
    let target = Wal::of(&pair.target);
    let records = assert_decoded(&pair.target, &target);
    assert_rich(major, &records);
    println!("target of {major}: {} records in {} MiB", records.len(), target.bytes.len() >> 20);

    let source = Wal::of(&pair.source);
    let switch = source.history.entries()[1].begin;
    assert_ne!(switch.offset_in(source.segment_size()), 0, "the timelines part in the middle of a segment");
    let records = assert_decoded(&pair.source, &source);
    assert!(records.iter().any(|read| read.lsn < switch) && records.iter().any(|read| read.lsn > switch));
    println!("source of {major}: {} records in {} MiB", records.len(), source.bytes.len() >> 20);
}

/// What the headers of a record can say and those of the rich pair do not: images that serve checks
/// only, by every method of compression, top-level transactions, origins.
fn every_header(major: Major) {
    let cluster = Cluster::initdb(major, &InitOptions::default());
    cluster.append_config("wal_consistency_checking = 'all'\nwal_level = logical\n");
    cluster.start();
    cluster.sql("postgres", HEADERS);
    let methods: &[&str] = match major.0 {
        ..=14 => &["off", "on"],
        15 => &["off", "pglz", "lz4"], // Debian's 15 is built without zstd.
        _ => &["off", "pglz", "lz4", "zstd"],
    };
    for method in methods {
        cluster.checkpoint();
        let update = format!("SET wal_compression = {method}; UPDATE t SET v = md5(v) WHERE id % 50 = 0");
        cluster.sql("postgres", &update);
    }
    cluster.stop(Stop::Fast);
    let records = assert_decoded(&cluster, &Wal::of(&cluster));
    let images =
        |wanted| records.iter().flat_map(|read| &read.decoded.blocks).filter(move |block| block.image == wanted);
    assert!(images(Image::ForChecks).count() > 1000 && images(Image::Applies).count() > 20);
}

const HEADERS: &str = "
    CREATE TABLE t (id int PRIMARY KEY, v text);
    INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 500) g;
    BEGIN;
    SAVEPOINT a;
    INSERT INTO t VALUES (-1, 'in a subtransaction');
    SAVEPOINT b;
    INSERT INTO t VALUES (-2, 'in another');
    RELEASE SAVEPOINT a;
    PREPARE TRANSACTION 'a name, blkref #0: rel 1/2/3 fork main blk 4 (FPW); hole';
    COMMIT PREPARED 'a name, blkref #0: rel 1/2/3 fork main blk 4 (FPW); hole';
    SELECT pg_replication_origin_create('origin');
    SELECT pg_replication_origin_session_setup('origin');
    BEGIN;
    SELECT pg_replication_origin_xact_setup('0/1234', now());
    INSERT INTO t VALUES (-3, 'from elsewhere');
    COMMIT;";

/// A server that lost the end of its WAL in the middle of a record voids that record: at the end of
/// a segment (the following ones are gone) and at the end of a page (what follows is zeros).
fn torn_records(major: Major) {
    let cluster = Cluster::initdb(major, &InitOptions::default());
    for at_segment in [true, false] {
        cluster.start();
        cluster.checkpoint();
        cluster.sql("postgres", "SELECT pg_logical_emit_message(true, 'before', repeat('b', 30000))");
        cluster.sql("postgres", "SELECT pg_logical_emit_message(true, 'torn', repeat('t', 3000000))");
        cluster.stop(Stop::Immediate);
        let torn = tear(&cluster, at_segment);
        cluster.start();
        cluster.sql("postgres", "SELECT pg_logical_emit_message(true, 'after', repeat('a', 300000))");
        cluster.stop(Stop::Fast);

        let wal = Wal::of(&cluster);
        let records = assert_decoded(&cluster, &wal);
        let next = records.iter().find(|read| read.lsn >= torn).expect("records after the crash");
        let overwrites = next.lsn > torn && next.operation == (rm::XLOG, rm::XLOG_OVERWRITE_CONTRECORD);
        assert!(overwrites, "no record voids the one at {torn}: {next:?}\n{}", cluster.log());
        // Where the torn record begins, the one that voids it comes first.
        let from_torn = wal.read(Start::Record(torn), wal.page_size(), 1);
        assert_eq!(from_torn.records.first(), Some(next));
    }
}

/// Numbers and names of the built-in resource managers.
fn resource_managers(major: Major) {
    let installation = Installation::of(major);
    let listed = Outcome::of(installation.command("pg_waldump").args(["-r", "list"])).success().stdout;
    let listed: Vec<&str> = listed.lines().collect();
    let ours: Vec<String> = (0..).map(rm::name).take(listed.len()).collect();
    assert_eq!(ours, listed);
    let facts = pg_unfork::format::Major::ALL[major.index()].facts();
    let known = usize::from(facts.last_resource_manager) + 1;
    // Before the release the number varied.
    assert!(if facts.released { known == listed.len() } else { known >= listed.len() }, "{known}");
}

/// Cuts the WAL of a crashed cluster in the middle of its last large record; gives where it begins.
fn tear(cluster: &Cluster, at_segment: bool) -> Lsn {
    let wal = Wal::of(cluster);
    let records = wal.read(Start::FirstOf(wal.start), wal.page_size(), usize::MAX).records;
    let torn = records.iter().rfind(|read| read.total_length > 3_000_000).expect("a large record");
    let first_segment_end = SegmentNumber::of(torn.lsn, wal.format.geometry.wal_segment_size);
    let first_segment_end = first_segment_end.end(wal.format.geometry.wal_segment_size);
    let cut = if at_segment { first_segment_end } else { first_segment_end.plus(3 * wal.format.page_size()) };
    for (lsn, path) in &wal.files {
        if *lsn >= cut {
            fs::remove_file(path).expect("a segment");
        } else if lsn.plus(wal.segment_size()) > cut {
            let zeros = vec![0; lsn.plus(wal.segment_size()).since(cut) as usize];
            let file = OpenOptions::new().write(true).open(path).expect("a segment");
            file.write_all_at(&zeros, cut.since(*lsn)).expect("a segment");
        }
    }
    torn.lsn
}

/// A cluster's WAL along its line of timelines, in memory.
struct Wal {
    format: WalFormat,
    history: TimelineHistory,
    start: Lsn,
    bytes: Vec<u8>,
    /// The files that it was read from, by the position where they begin.
    files: Vec<(Lsn, PathBuf)>,
}

/// What the tests compare of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Decoded {
    lsn: Lsn,
    previous: Lsn,
    total_length: u32,
    xid: u32,
    resource_manager: String,
    blocks: Vec<Block>,
    /// Redo position and timeline of a checkpoint.
    checkpoint: Option<(Lsn, TimelineId)>,
}

/// A block reference, as far as pg_waldump prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Block {
    id: u8,
    relation: RelFileNumber,
    fork: ForkNumber,
    block: u32,
    image: Image,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Image {
    None,
    Applies,
    ForChecks,
}

/// A record as our reader gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Read {
    decoded: Decoded,
    lsn: Lsn,
    end: Lsn,
    total_length: u32,
    /// Resource manager and operation.
    operation: (u8, u8),
}

/// What came of reading.
struct Outgoing {
    records: Vec<Read>,
    error: Option<WalError>,
}

impl Wal {
    /// From the oldest segment that leads to the last checkpoint without a gap, to the newest.
    fn of(cluster: &Cluster) -> Self {
        let control = fs::read(cluster.path("global/pg_control")).expect("the control file");
        let control = ControlFile::parse(&control).expect("a valid control file");
        let format = WalFormat::of(&control);
        let size = format.geometry.wal_segment_size;
        let history = history(cluster, control.timeline());
        let file = |segment: SegmentNumber| {
            let timeline = history.timeline_of_segment(segment.end(size))?;
            let path = cluster.path("pg_wal").join(WalFileName { timeline, segment }.text(size));
            path.exists().then_some((segment.start(size), path))
        };
        let last = SegmentNumber::of(control.checkpoint_location(), size);
        let mut files = Vec::new();
        let mut before = Some(last);
        while let Some(found) = before.and_then(file) {
            files.insert(0, found);
            before = before.and_then(SegmentNumber::previous);
        }
        let mut after = last.next();
        while let Some(found) = file(after) {
            files.push(found);
            after = after.next();
        }
        let bytes = files.iter().flat_map(|(_, path)| fs::read(path).expect("a segment")).collect();
        Self { format, history, start: files.first().expect("the checkpoint's segment").0, bytes, files }
    }

    fn page_size(&self) -> usize {
        self.format.geometry.wal_page_size as usize
    }

    fn segment_size(&self) -> u64 {
        self.format.geometry.wal_segment_size.bytes()
    }

    /// Reads at most `limit` records, feeding `piece` bytes at a time.
    fn read(&self, start: Start, piece: usize, limit: usize) -> Outgoing {
        self.read_while(start, piece, |records, _| records.len() < limit)
    }

    /// Reads the records that begin before `stop`.
    fn read_before(&self, start: Start, piece: usize, stop: Lsn) -> Outgoing {
        self.read_while(start, piece, |_, record| record.lsn < stop)
    }

    /// Reads records while `wanted`, given those so far and the next one, is true.
    fn read_while(&self, start: Start, piece: usize, wanted: impl Fn(&[Read], &Record<'_>) -> bool) -> Outgoing {
        let mut reader = WalReader::new(self.format, start);
        let mut records = Vec::new();
        let from = reader.next_page().since(self.start) as usize;
        for pages in self.bytes[from..].chunks(piece) {
            let flow = reader.feed(pages, |record| {
                if !wanted(&records, record) {
                    return ControlFlow::Break(());
                }
                records.push(Read::of(record, &self.format));
                ControlFlow::Continue(())
            });
            match flow {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return Outgoing { records, error: None },
                Err(error) => return Outgoing { records, error: Some(error) },
            }
        }
        Outgoing { records, error: None }
    }
}

fn history(cluster: &Cluster, timeline: TimelineId) -> TimelineHistory {
    if timeline.get() == 1 {
        return TimelineHistory::new(&[], timeline);
    }
    let text = fs::read(cluster.path(format!("pg_wal/{:08X}.history", timeline.get()))).expect("the history");
    parse_history(&text, timeline).expect("a valid history")
}

impl Read {
    fn of(record: &Record<'_>, format: &WalFormat) -> Self {
        let operation = (record.header.resource_manager, record.operation());
        let is_checkpoint = [rm::XLOG_CHECKPOINT_SHUTDOWN, rm::XLOG_CHECKPOINT_ONLINE]
            .map(|kind| (rm::XLOG, kind))
            .contains(&operation);
        let checkpoint =
            is_checkpoint.then(|| Checkpoint::parse(record.main_data, format.facts).expect("a checkpoint"));
        let decoded = Decoded {
            lsn: record.lsn,
            previous: record.header.previous,
            total_length: record.header.total_length,
            xid: record.header.xid,
            resource_manager: rm::name(record.header.resource_manager),
            blocks: record.blocks.iter().map(Block::of).collect(),
            checkpoint: checkpoint.map(|checkpoint| (checkpoint.redo, checkpoint.timeline)),
        };
        Self { decoded, lsn: record.lsn, end: record.end, total_length: record.header.total_length, operation }
    }
}

impl Block {
    fn of(reference: &BlockReference) -> Self {
        let image = match (reference.has_image, reference.image_applies) {
            (false, _) => Image::None,
            (true, true) => Image::Applies,
            (true, false) => Image::ForChecks,
        };
        let BlockReference { id, relation, fork, block, .. } = *reference;
        Self { id, relation, fork, block, image }
    }
}

/// Panics unless we read all of `wal` as pg_waldump does, from wherever we begin.
fn assert_decoded(cluster: &Cluster, wal: &Wal) -> Vec<Read> {
    let Outgoing { records, error } = wal.read(Start::FirstOf(wal.start), wal.page_size(), usize::MAX);
    let theirs = waldump(cluster, wal);
    for (ours, theirs) in records.iter().zip(&theirs) {
        assert_eq!(ours.decoded, *theirs);
    }
    assert_eq!(records.len(), theirs.len(), "{error:?} after {:?}, {:?}", records.last(), theirs.last());
    assert_chain(wal, &records);
    assert_end(wal, &records, error.as_ref());
    for piece in [128 << 10, wal.bytes.len()] {
        let again = wal.read(Start::FirstOf(wal.start), piece, usize::MAX);
        assert!(again.records == records && again.error == error, "fed {piece} bytes at a time");
    }
    assert_from_segments(wal, &records);
    assert_from_pages(wal, &records);
    assert_random_access(wal, &records);
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

fn is_switch(read: &Read) -> bool {
    read.operation == (rm::XLOG, rm::XLOG_SWITCH)
}

/// Panics unless the records are of many kinds, so that agreement about them means something.
fn assert_rich(major: Major, records: &[Read]) {
    let blocks = || records.iter().flat_map(|read| &read.decoded.blocks);
    for fork in [ForkNumber::Main, ForkNumber::FreeSpaceMap, ForkNumber::VisibilityMap, ForkNumber::Init] {
        assert!(blocks().any(|block| block.fork == fork), "no {fork:?}");
    }
    for image in [Image::None, Image::Applies] {
        assert!(blocks().any(|block| block.image == image), "no {image:?}");
    }
    let mut tablespaces: Vec<u32> = blocks().map(|block| block.relation.tablespace).collect();
    tablespaces.sort_unstable();
    tablespaces.dedup();
    assert!(tablespaces.len() >= 3, "{tablespaces:?}");
    let mut names: Vec<&str> = records.iter().map(|read| read.decoded.resource_manager.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert!(names.len() >= 18, "{major}: {names:?}");
    assert!(records.iter().any(is_switch));
    assert!(records.iter().any(|read| read.decoded.blocks.len() > 2));
}

/// What pg_waldump says of the whole of `wal`. It follows no history: the files get names of one
/// timeline.
fn waldump(cluster: &Cluster, wal: &Wal) -> Vec<Decoded> {
    let directory: TempDir = scratch::directory("waldump");
    let size = wal.format.geometry.wal_segment_size;
    let link = |lsn: Lsn| {
        let segment = SegmentNumber::of(lsn, size);
        directory.path().join(WalFileName { timeline: TimelineId::new(1), segment }.text(size))
    };
    for (lsn, path) in &wal.files {
        symlink(path, link(*lsn)).expect("a link to a segment");
    }
    let newest = wal.files.last().expect("a segment").0;
    let mut command = cluster.installation().command("pg_waldump");
    let outcome = Outcome::of(command.arg("--bkp-details").args([link(wal.start), link(newest)]));
    // It always fails, if only where there are no more records.
    let mut records = Vec::new();
    for line in outcome.stdout.lines() {
        if let Some(record) = line.strip_prefix("rmgr: ") {
            records.push(parse_record(record).unwrap_or_else(|| panic!("{line:?}")));
        } else if let Some(block) = line.strip_prefix("\tblkref #") {
            let record = records.last_mut().expect("a record before its blocks");
            record.blocks.push(parse_block(block).unwrap_or_else(|| panic!("{line:?}")));
        } else {
            assert!(line.is_empty() || line.starts_with("first record is after "), "{line:?}");
        }
    }
    assert!(!records.is_empty(), "{outcome}");
    records
}

/// `Heap  len (rec/tot):  54/  54, tx:  733, lsn: 0/030001C8, prev 0/03000190, desc: …`
fn parse_record(line: &str) -> Option<Decoded> {
    let (name, rest) = line.split_once(" len (rec/tot): ")?;
    let (_record, rest) = rest.split_once('/')?;
    let (total, rest) = rest.split_once(", tx: ")?;
    let (xid, rest) = rest.split_once(", lsn: ")?;
    let (lsn, rest) = rest.split_once(", prev ")?;
    let (previous, text) = rest.split_once(", desc: ")?;
    Some(Decoded {
        lsn: lsn.parse().ok()?,
        previous: previous.parse().ok()?,
        total_length: total.trim().parse().ok()?,
        xid: xid.trim().parse().ok()?,
        resource_manager: name.trim().to_owned(),
        blocks: Vec::new(),
        checkpoint: if name.trim() == "XLOG" { parse_checkpoint(text) } else { None },
    })
}

/// `CHECKPOINT_ONLINE redo 0/30001C8; tli 1; …`
fn parse_checkpoint(text: &str) -> Option<(Lsn, TimelineId)> {
    let rest = text.strip_prefix("CHECKPOINT_SHUTDOWN ").or(text.strip_prefix("CHECKPOINT_ONLINE "))?;
    let (redo, rest) = rest.strip_prefix("redo ")?.split_once("; tli ")?;
    let (timeline, _) = rest.split_once(';')?;
    Some((redo.parse().ok()?, TimelineId::new(timeline.parse().ok()?)))
}

/// `0: rel 1663/5/16384 fork main blk 0 (FPW); hole: offset: 52, length: 7000`
fn parse_block(line: &str) -> Option<Block> {
    let (id, rest) = line.split_once(": rel ")?;
    let (relation, rest) = rest.split_once(" fork ")?;
    let (fork, rest) = rest.split_once(" blk ")?;
    let (block, image) = rest.split_once(' ').unwrap_or((rest, ""));
    let mut numbers = relation.split('/').map(str::parse);
    let mut number = || numbers.next()?.ok();
    let relation = RelFileNumber { tablespace: number()?, database: number()?, relation: number()? };
    let fork = (0..4).filter_map(ForkNumber::from_number).find(|known| known.name() == fork)?;
    let image = match image.split_once(';').map_or(image, |(flag, _)| flag) {
        "" => Image::None,
        "(FPW)" => Image::Applies,
        "(FPW for WAL verification)" => Image::ForChecks,
        _ => return None,
    };
    Some(Block { id: id.parse().ok()?, relation, fork, block: block.parse().ok()?, image })
}
