//! Where in the WAL two clusters parted: at which record, page or segment, and what each wrote behind it.

use std::fs;
use std::path::Path;

use pg_unfork::types::Lsn;

use super::histories::{insert, lsn, primary, standby_of};
use super::scenarios;
use crate::support::cluster::{Cluster, InitOptions, Stop};
use crate::support::likeness::From;
use crate::support::pair::{Pair, PairBuilder};
use crate::support::servers::Major;

scenarios! {
    at_a_page: v13 Stopped, v18 Live;
    at_a_segment: v16 Stopped, v14 Live;
    behind_a_switch: v19 Stopped, v17 Live;
    before_a_record_of_two_segments: v15 Stopped, v13 Live;
    torn_record: v18 Stopped, v15 Live;
    half_a_record: v14 Stopped, v19 Live;
    crashed_target: v14 Stopped, v16 Live;
    nothing_but_a_checkpoint: v17 Stopped, v19 Live;
    segments_of_16_mib: v13 Stopped, v15 Live;
    segments_of_64_mib: v17 Stopped, v18 Live;
}

/// The unit at whose boundary a record shall end.
#[derive(Debug, Clone, Copy)]
enum Unit {
    Page,
    Segment,
}

const PAGE: u64 = 8192;

/// In the flags of a page, up to 18: the first record here says that the one before it is void.
const FIRST_IS_OVERWRITE_CONTRECORD: u8 = 0x08;

/// Bytes in a segment of these clusters.
const SEGMENT: u64 = 1 << 20;

/// Writes a record that fills its page to the end, the last one of a segment if wanted, and returns
/// where it begins.
fn fill(primary: &Cluster, unit: Unit) -> String {
    // Less than a page at a time, to get into the segment's last page.
    let approach = "DO $$ BEGIN
            WHILE mod(pg_current_wal_insert_lsn() - '0/0', 1048576) < 1048576 - 8192 LOOP
                PERFORM pg_logical_emit_message(false, 'f', repeat('x', 2000));
            END LOOP;
        END $$";
    // Headers, prefix and its end take 55 bytes of a record.
    let last = "SELECT lsn, pg_logical_emit_message(false, 'f', repeat('x', rest - 55))
          FROM (SELECT lsn, (8192 - mod(lsn - '0/0', 8192))::int AS rest
                  FROM pg_current_wal_insert_lsn() AS lsn OFFSET 0) AS place
         WHERE rest > 1000";
    let goal = match unit {
        Unit::Page => PAGE,
        Unit::Segment => SEGMENT,
    };
    loop {
        if matches!(unit, Unit::Segment) {
            primary.sql("postgres", approach);
        }
        match primary.rows("postgres", last).as_slice() {
            [row] if row[1].parse::<Lsn>().unwrap().get().is_multiple_of(goal) => return row[0].clone(),
            _ => drop(primary.sql("postgres", "SELECT pg_logical_emit_message(false, 'f', repeat('x', 2000))")),
        }
    }
}

/// The usual end, and the fork is where it should be.
#[track_caller]
fn assert_forked_at(pair: &Pair, from: From, unit: u64) {
    let plan = pair.assert_like_stock_and_lives(from);
    let fork = lsn(&plan["divergence"]["lsn"]);
    assert!(fork.get().is_multiple_of(unit), "{fork}");
}

/// The last common record fills its page.
fn at_a_page(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| builder.fork_behind(|primary| fill(primary, Unit::Page)));
    assert_forked_at(&pair, from, PAGE);
}

/// The last common record fills its segment.
fn at_a_segment(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| builder.fork_behind(|primary| fill(primary, Unit::Segment)));
    assert_forked_at(&pair, from, SEGMENT);
}

/// The last common record is a switch to the next segment.
fn behind_a_switch(major: Major, from: From) {
    let switch = |primary: &Cluster| {
        let row = "SELECT lsn FROM (SELECT lsn, pg_switch_wal() AS switched FROM pg_current_wal_insert_lsn() AS lsn
                   OFFSET 0) AS place WHERE switched IS NOT NULL";
        primary.sql("postgres", row)
    };
    let pair = Pair::simple(major, |builder| builder.fork_behind(switch));
    assert_forked_at(&pair, from, SEGMENT);
}

/// The target's first record of its own begins at the fork and ends two segments later.
fn before_a_record_of_two_segments(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| {
        builder.fork_behind(|primary| {
            let lsn = "SELECT lsn FROM (SELECT lsn, pg_logical_emit_message(false, 'f', 'last common') AS emitted
                       FROM pg_current_wal_insert_lsn() AS lsn OFFSET 0) AS place WHERE emitted IS NOT NULL";
            let lsn = primary.sql("postgres", lsn);
            primary.sql("postgres", "SELECT pg_logical_emit_message(false, 'f', repeat('x', 2500000))");
            lsn
        })
    });
    let plan = pair.assert_like_stock_and_lives(from);
    assert!(plan["discarded"]["bytes"].as_u64().unwrap() > 2 * SEGMENT);
}

/// The target crashed in the middle of a record, and voided it when it was started again.
fn torn_record(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| builder.on_target_after_fork(tear_a_record));
    pair.assert_like_stock_and_lives(from);
}

/// Makes the end of the running server's WAL a record of which only a part is there, and lets it recover.
fn tear_a_record(server: &Cluster) {
    let (segment, kept) = emit_large_record(server);
    server.stop(Stop::Immediate);
    let path = server.path("pg_wal").join(&segment);
    copy_beginning(&path, &path, kept);
    server.start();
    server.sql("postgres", "INSERT INTO rows (origin) VALUES ('target')");
    let flags = fs::read(&path).unwrap()[kept + 2];
    assert!(flags & FIRST_IS_OVERWRITE_CONTRECORD != 0, "{flags:#x}");
}

/// Writes a record of several pages, all in one segment: the segment, and where it goes on to its third page.
fn emit_large_record(server: &Cluster) -> (String, usize) {
    let emit = "SELECT pg_walfile_name(lsn), mod(lsn - '0/0', 1048576)
          FROM (SELECT lsn, pg_logical_emit_message(true, 'f', repeat('x', 100000)) AS emitted
                  FROM pg_current_wal_insert_lsn() AS lsn OFFSET 0) AS place WHERE emitted IS NOT NULL";
    server.move_to_middle_of_segment();
    let row = server.rows("postgres", emit).remove(0);
    let begin: usize = row[1].parse().unwrap();
    (row[0].clone(), (begin / 8192 + 2) * 8192)
}

/// Copies the first `kept` bytes of a segment; behind them there is nothing.
fn copy_beginning(from: &Path, to: &Path, kept: usize) {
    let mut bytes = fs::read(from).unwrap();
    bytes[kept..].fill(0);
    fs::write(to, bytes).unwrap();
}

/// The source had got only the first pages of a record when it was promoted: the fork is before it.
fn half_a_record(major: Major, from: From) {
    let target = primary(major);
    let source = standby_of(&target);
    target.checkpoint();
    source.wait_for_catchup(&target);
    source.sql("postgres", "ALTER SYSTEM SET primary_conninfo = ''");
    source.stop(Stop::Fast);
    let (segment, kept) = emit_large_record(&target);
    let segment = Path::new("pg_wal").join(segment);
    copy_beginning(&target.path(&segment), &source.path(&segment), kept);
    source.start();
    source.promote();
    insert(&source, "source");
    insert(&target, "target");
    target.stop(Stop::Fast);
    let pair = Pair { source, target };
    let plan = pair.assert_like_stock_and_lives(from);
    let fork = lsn(&plan["divergence"]["lsn"]);
    let kept = kept as u64;
    assert!((kept - 2 * PAGE..kept - PAGE).contains(&(fork.get() % SEGMENT)), "{fork}");
}

/// The target was killed, recovered from that, and stopped.
fn crashed_target(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| {
        builder.on_target_after_fork(|target| {
            target.stop(Stop::Immediate);
            target.start();
        })
    });
    pair.assert_like_stock_and_lives(from);
}

/// The target has only its shutdown checkpoint beyond the fork; the source nothing but its promotion.
fn nothing_but_a_checkpoint(major: Major, from: From) {
    let pair = PairBuilder::new(major).no_checkpoint_after_promotion().build();
    let plan = pair.assert_like_stock_and_lives(from);
    assert_eq!(plan["discarded"]["transactions"]["committed"], 0);
}

fn segments_of_16_mib(major: Major, from: From) {
    segments_of(16, major, from);
}

fn segments_of_64_mib(major: Major, from: From) {
    segments_of(64, major, from);
}

/// The fork is in the second segment, both sides go on to the third.
fn segments_of(mib: u32, major: Major, from: From) {
    let options = InitOptions { wal_segment_mib: mib, ..InitOptions::default() };
    let switch = |cluster: &Cluster| drop(cluster.sql("postgres", "SELECT pg_switch_wal()"));
    let pair = Pair::simple(major, |builder| {
        builder
            .init(options)
            .config("max_wal_size = 1GB\nmin_wal_size = 256MB\n")
            .on_target_after_fork(switch)
            .on_source_after_fork(switch)
    });
    let plan = pair.assert_like_stock_and_lives(from);
    assert_eq!(plan["target"]["control_file"]["geometry"]["wal_segment_size"], mib << 20);
}
