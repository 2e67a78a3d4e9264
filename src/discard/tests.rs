#![allow(clippy::unwrap_used)]

use super::transactions::{MOST_COMMITS, MOST_TOUCHED, Transactions};
use super::*;
use crate::format::Major;
use crate::format::wal::RecordHeader;
use crate::manifest::{DiscardedCommit, TransactionCounts};

const FACTS: &MajorFacts = Major::V17.facts();

fn table(relation: u32) -> RelFileNumber {
    RelFileNumber { tablespace: 1663, database: 5, relation }
}

/// A commit's or abort's main data, with subtransactions and the id of a prepared transaction.
fn ending(subtransactions: &[u32], prepared: Option<u32>) -> Vec<u8> {
    let flags = u32::from(!subtransactions.is_empty()) << 1 | u32::from(prepared.is_some()) << 4;
    let count = (!subtransactions.is_empty()).then_some(subtransactions.len() as u32);
    let words = [flags].into_iter().chain(count).chain(subtransactions.iter().copied()).chain(prepared);
    7i64.to_le_bytes().into_iter().chain(words.flat_map(u32::to_le_bytes)).collect()
}

/// What happens to transactions, at a position that only commits and lists care about.
#[derive(Clone, Debug)]
enum Event {
    Before(u32),
    Next(u64, u32),
    Does(u32, Sign, u32),
    Commit(u64, u32, Vec<u32>),
    CommitPrepared(u64, u32),
    Abort(u32, Vec<u32>),
    AbortPrepared(u32),
    Prepare(u32),
}

const FORK: u64 = 100;

fn take(transactions: &mut Transactions, event: &Event) {
    let end = |bytes: &[u8], with: &mut dyn FnMut(&TransactionEnd<'_>)| {
        with(&TransactionEnd::parse(bytes, 0x80, FACTS).unwrap());
    };
    match event {
        Event::Before(xid) => transactions.seen_before_fork(*xid),
        Event::Next(lsn, xid) => transactions.next_is(*xid, Lsn::new(*lsn), *lsn >= FORK),
        Event::Does(xid, sign, relation) => transactions.record(*xid, *sign, Some(table(*relation))),
        Event::Commit(lsn, xid, subs) => {
            end(&ending(subs, None), &mut |end| transactions.commit(Lsn::new(*lsn), *xid, end));
        }
        Event::CommitPrepared(lsn, xid) => {
            end(&ending(&[], Some(*xid)), &mut |end| transactions.commit(Lsn::new(*lsn), 0, end));
        }
        Event::Abort(xid, subs) => end(&ending(subs, None), &mut |end| transactions.abort(*xid, end)),
        Event::AbortPrepared(xid) => end(&ending(&[], Some(*xid)), &mut |end| transactions.abort(0, end)),
        Event::Prepare(xid) => transactions.prepare(*xid),
    }
}

/// What events come to, whichever parts they are found in.
#[track_caller]
fn outcome(events: &[Event]) -> (bool, TransactionCounts, Vec<DiscardedCommit>) {
    let split = |parts: usize, reverse: bool| {
        let mut all: Vec<Transactions> = (0..parts).map(|_| Transactions::new()).collect();
        for (index, event) in events.iter().enumerate() {
            take(&mut all[index % parts], event);
        }
        if reverse {
            all.reverse();
        }
        let sum = all.into_iter().reduce(|mut sum, part| {
            sum.absorb(part);
            sum
        });
        let found = sum.unwrap().finish();
        (found.data, found.counts, found.commits)
    };
    let whole = split(1, false);
    for parts in [2, 3, 7] {
        for reverse in [false, true] {
            assert_eq!(split(parts, reverse), whole, "{parts} parts of {events:?}");
        }
    }
    whole
}

#[test]
fn the_verdict_is_data_unless_the_contrary_is_proven() {
    use Event::{Abort, AbortPrepared, Before, Commit, CommitPrepared, Does, Next, Prepare};
    use Sign::{Change, Maintenance};
    let analyze = |xid| vec![Does(xid, Maintenance, 2619), Commit(300, xid, vec![])];
    let with = |before: &[Event], mut events: Vec<Event>| {
        events.splice(0..0, before.iter().cloned());
        events
    };
    let cases = [
        ("nothing", vec![], false),
        ("a change", vec![Next(110, 50), Does(50, Change, 20_000), Commit(300, 50, vec![])], true),
        ("a change that is rolled back", vec![Does(50, Change, 20_000), Abort(50, vec![])], false),
        ("a change that does not end", vec![Does(50, Change, 20_000)], false),
        ("maintenance, known to be younger", with(&[Next(110, 50)], analyze(50)), false),
        ("maintenance that may be older", analyze(50), true),
        ("maintenance that is older", with(&[Next(110, 51)], analyze(50)), true),
        ("known by a list before the fork", with(&[Next(90, 50), Before(49)], analyze(50)), false),
        ("seen before the fork", with(&[Next(90, 50), Before(50)], analyze(50)), true),
        ("before one that was seen before the fork", with(&[Next(90, 50), Before(51)], analyze(50)), true),
        ("the last list before the fork counts", with(&[Next(90, 51), Next(80, 50)], analyze(50)), true),
        ("ids go round", with(&[Next(110, u32::MAX - 1)], analyze(3)), false),
        ("a commit without a record", vec![Next(110, 50), Commit(300, 50, vec![])], true),
        ("both", with(&[Next(110, 50), Does(50, Change, 20_000)], analyze(50)), true),
        (
            "a change in a subtransaction",
            with(&[Next(110, 50)], vec![Does(50, Maintenance, 2619), Does(51, Change, 1), Commit(300, 50, vec![51])]),
            true,
        ),
        (
            "a change in a subtransaction that is rolled back",
            with(
                &[Next(110, 50)],
                vec![Does(50, Maintenance, 2619), Does(51, Change, 1), Abort(51, vec![]), Commit(300, 50, vec![])],
            ),
            false,
        ),
        ("left prepared", vec![Prepare(50)], true),
        ("prepared and rolled back", vec![Prepare(50), Does(50, Change, 1), AbortPrepared(50)], false),
        ("prepared before the fork and rolled back", vec![AbortPrepared(50)], true),
        ("prepared before the fork and committed", vec![CommitPrepared(300, 50)], true),
    ];
    for (case, events, data) in cases {
        assert_eq!(outcome(&events).0, data, "{case}");
    }
}

#[test]
fn transactions_are_counted_and_have_their_subtransactions_relations() {
    use Event::{Abort, AbortPrepared, Commit, CommitPrepared, Does, Prepare};
    let change = |xid, relation| Does(xid, Sign::Change, relation);
    let events = [
        change(50, 20_000),
        change(51, 20_001),
        change(52, 20_002),
        change(60, 1259),
        Abort(52, vec![]),
        Commit(300, 50, vec![51]),
        Prepare(70),
        change(60, 20_003),
        Prepare(71),
        Prepare(72),
        CommitPrepared(200, 70),
        AbortPrepared(71),
        Commit(250, 60, vec![]),
    ];
    let (data, counts, commits) = outcome(&events);
    assert!(data);
    assert_eq!(counts, TransactionCounts { aborted: 2, committed: 3, prepared: 1, subtransactions: 1 });
    let found: Vec<_> = commits
        .iter()
        .map(|c| (c.lsn.get(), c.xid, c.relations.iter().map(|r| r.relation).collect::<Vec<_>>()))
        .collect();
    assert_eq!(found, [(200, 70, vec![]), (250, 60, vec![20_003, 1259]), (300, 50, vec![20_000, 20_001])]);
}

#[test]
fn lists_end_at_their_limits() {
    let many = MOST_TOUCHED as u32 + 2;
    let mut events: Vec<Event> = (0..many).map(|n| Event::Does(9, Sign::Change, 30_000 - n)).collect();
    events.push(Event::Does(9, Sign::Change, 1259));
    events.push(Event::Commit(200, 9, vec![]));
    for n in 0..MOST_COMMITS as u32 {
        events.push(Event::Does(100 + n, Sign::Change, 40_000));
        events.push(Event::Commit(201 + u64::from(n), 100 + n, vec![]));
    }
    let (_, counts, commits) = outcome(&events);
    assert_eq!((counts.committed, commits.len()), (MOST_COMMITS as u64 + 1, MOST_COMMITS));
    let expected: Vec<RelFileNumber> = (0..MOST_TOUCHED as u32).map(|n| table(30_000 - many + 1 + n)).collect();
    assert_eq!((&commits[0].relations, commits[0].more_relations), (&expected, true));
    assert!(commits[1..].iter().all(|commit| commit.relations == [table(40_000)] && !commit.more_relations));
}

#[test]
fn records_mean_what_their_numbers_say() {
    let header = |resource_manager, info| RecordHeader::sample(resource_manager, info);
    let cases = [
        (rm::HEAP, 0x00, Kind::Insert),
        (rm::HEAP, 0x80, Kind::Insert),
        (rm::HEAP, 0x10, Kind::Delete),
        (rm::HEAP, 0x20, Kind::Update),
        (rm::HEAP, 0xC0, Kind::Update),
        (rm::HEAP, 0x60, Kind::Other),
        (rm::HEAP, 0x70, Kind::Other),
        (rm::HEAP2, 0x10, Kind::Vacuum),
        (rm::HEAP2, 0x40, Kind::Vacuum),
        (rm::HEAP2, 0xD0, Kind::Insert),
        (rm::HEAP2, 0x60, Kind::Other),
        (rm::BTREE, 0x00, Kind::Index),
        (rm::BTREE, 0x60, Kind::Index),
        (rm::BTREE, 0xA0, Kind::Index),
        (rm::BTREE, 0xC0, Kind::Vacuum),
        (rm::HASH, 0xB0, Kind::Vacuum),
        (rm::GIN, 0x90, Kind::Vacuum),
        (rm::GIN, 0x80, Kind::Index),
        (rm::GIST, 0x10, Kind::Vacuum),
        (rm::SPGIST, 0x50, Kind::Index),
        (rm::SPGIST, 0x60, Kind::Vacuum),
        (rm::BRIN, 0x90, Kind::Index),
        (rm::XLOG, 0xA0, Kind::HintBits),
        (rm::XLOG, 0xB0, Kind::Other),
        (rm::SEQUENCE, 0x00, Kind::Other),
        (200, 0x00, Kind::Other),
    ];
    for (manager, info, kind) in cases {
        assert_eq!(Kind::of(&header(manager, info)), kind, "{manager} {info:02X}");
    }
    let sign = |manager, info, relation| {
        let header = header(manager, info);
        Sign::of(&header, Kind::of(&header), relation)
    };
    assert_eq!(sign(rm::HEAP, 0x40, table(2619)), Sign::Maintenance);
    assert_eq!(sign(rm::HEAP, 0x40, table(12_619)), Sign::Change);
    assert_eq!(sign(rm::HEAP, 0x70, table(1259)), Sign::Maintenance);
    assert_eq!(sign(rm::HEAP, 0x60, table(20_000)), Sign::Nothing);
    assert_eq!(sign(rm::SEQUENCE, 0x00, table(20_000)), Sign::Change);
    assert_eq!(sign(rm::HEAP2, 0x20, table(20_000)), Sign::Nothing);
}

#[test]
fn a_database_that_moves_is_neither_made_nor_dropped() {
    let mut places = Places::new();
    places.create_database(7, Some(1));
    places.create_database(8, Some(8));
    places.drop_database(8);
    places.drop_database(9);
    places.create_database(10, Some(10));
    let mut other = Places::new();
    other.drop_database(10);
    other.drop_database(10);
    other.create_tablespace(30);
    other.create_tablespace(31);
    other.drop_tablespace(31);
    places.absorb(other);
    let (databases, tablespaces) = places.finish([7, 0].into_iter());
    let found: Vec<_> = databases.iter().map(|found| (found.oid, found.created, found.dropped)).collect();
    let expected = [(0, false, false), (7, true, false), (8, false, false), (9, false, true), (10, false, true)];
    assert_eq!(found, expected);
    let found: Vec<_> = tablespaces.iter().map(|found| (found.oid, found.created, found.dropped)).collect();
    assert_eq!(found, [(30, true, false), (31, true, true)]);
}

#[test]
fn times_count_from_2000() {
    assert_eq!(time_text(0).as_deref(), Some("2000-01-01T00:00:00Z"));
    assert_eq!(time_text(825_000_000_500_000).as_deref(), Some("2026-02-21T14:40:00.5Z"));
    assert_eq!(time_text(i64::MAX), None);
}
