//! Our reader decodes WAL as pg_waldump of the same major does, record by record: both sides of the
//! rich pair and logs with torn records; in order, from each page, and from single records. What is
//! cut short or damaged never gives a wrong record.
//!
//! | module | has |
//! |---|---|
//! | [`log`] | a cluster's WAL, and what our reader makes of it |
//! | [`waldump`] | what pg_waldump makes of it |
//! | [`agreement`] | that both agree, wherever the reader begins |
//! | [`meaning`] | that both agree on what records do, and to which relations |
//! | [`damage`] | real WAL cut at each page, and with each byte flipped |
//! | [`parallel`] | that several readers find what one finds |
//! | [`properties`] | any records, written by a builder |

mod agreement;
mod damage;
mod log;
mod meaning;
mod parallel;
mod properties;
mod waldump;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use pg_unfork::format::wal::Start;
use pg_unfork::format::wal::resource_manager as rm;
use pg_unfork::plan::WalScan;
use pg_unfork::types::{ForkNumber, Lsn, SegmentNumber, WalSegmentSize};

use self::agreement::{assert_decoded, is_switch};
use self::damage::CutFiles;
use self::log::{Image, Read, Wal};
use crate::support::cluster::{Cluster, InitOptions, Stop};
use crate::support::for_each_major;
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::servers::{Installation, Major};

for_each_major!(rich_pair, every_header, torn_records, switch_across_segments, resource_managers);

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
/// only, by every method of compression, top-level transactions, origins. In large segments.
fn every_header(major: Major) {
    let cluster = Cluster::initdb(major, &InitOptions { wal_segment_mib: 64, ..InitOptions::default() });
    cluster.append_config("wal_consistency_checking = 'all'\nwal_level = logical\n");
    cluster.append_config("min_wal_size = 128MB\nmax_wal_size = 256MB\n");
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

/// A segment switch that begins in the last 8 or 16 bytes of a segment ends in the next one, and leaves
/// the rest of that unused.
fn switch_across_segments(major: Major) {
    let cluster = Cluster::initdb(major, &InitOptions::default());
    cluster.start();
    cluster.checkpoint();
    let size = WalSegmentSize::new(1 << 20).expect("a legal size");
    for left in [8, 16] {
        cluster.sql("postgres", "SELECT pg_switch_wal()");
        let emit = |bytes: u64| {
            let query = format!(
                "SELECT pg_logical_emit_message(false, '', repeat('x', {bytes})); SELECT pg_current_wal_insert_lsn()"
            );
            let answer = cluster.sql("postgres", &query);
            answer.lines().last().and_then(|lsn| lsn.parse::<Lsn>().ok()).expect("a position")
        };
        // Two on one page tell what a message costs besides its bytes; the last one goes up to the mark.
        let (first, before) = (emit(800), emit(800));
        let overhead = before.since(first) - 800;
        let mark = Lsn::new(SegmentNumber::of(before, size).end(size).get() - left);
        let pages = mark.start_of(8192).since(before.start_of(8192)) / 8192;
        let reached = emit(mark.since(before) - pages * 24 - overhead);
        assert_eq!(reached, mark);
        cluster.sql("postgres", "SELECT pg_switch_wal()");
    }
    cluster.stop(Stop::Fast);
    let wal = Wal::of(&cluster);
    let records = assert_decoded(&cluster, &wal);
    let mut crossing = 0;
    for pair in records.windows(2).filter(|pair| is_switch(&pair[0])) {
        let next_segment = SegmentNumber::of(pair[0].lsn, size).end(size);
        if pair[0].end > next_segment {
            crossing += 1;
            let found = wal.read(Start::FirstOf(next_segment), wal.page_size(), 1);
            assert_eq!(found.records.first(), Some(&pair[1]), "{:?}", found.error);
        }
    }
    assert_eq!(crossing, 2);

    // Going back to the last checkpoint but one leads through those segments.
    let (last, before) = records.split_last().expect("records");
    let checkpoint = before.iter().rfind(|read| read.decoded.checkpoint.is_some()).expect("a checkpoint");
    let files = CutFiles { wal: &wal, cut: Lsn::MAX };
    let found = WalScan::new(&files, wal.format, &wal.history).last_checkpoint_before(last.lsn).expect("a checkpoint");
    assert_eq!(found.lsn, checkpoint.lsn);
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
    let operations: &[(u8, u8)] = match major.0 {
        ..=14 => &[(rm::DATABASE, 0x00), (rm::DATABASE, 0x10)],
        _ => &[(rm::DATABASE, 0x00), (rm::DATABASE, 0x10), (rm::DATABASE, 0x20)],
    };
    for operation in operations {
        assert!(records.iter().any(|read| read.operation == *operation), "{operation:?}");
    }
    for manager in ["RelMap", "MultiXact", "LogicalMessage", "Hash", "Gin", "Gist", "SPGist", "BRIN"] {
        assert!(names.contains(&manager), "{manager}");
    }
    assert!(records.iter().any(|read| read.decoded.blocks.len() > 2));
}
