//! Which transactions ended after the fork, and what they had changed.

use rustc_hash::FxHashSet;

use super::codes::Sign;
use super::smallest::Smallest;
use super::time_text;
use crate::format::wal::payload::TransactionEnd;
use crate::manifest::{DiscardedCommit, TransactionCounts};
use crate::types::{Lsn, RelFileNumber};

/// How many committed transactions are listed, the first ones.
pub(super) const MOST_COMMITS: usize = 1000;
/// How many relations are listed for each of them.
pub(super) const MOST_TOUCHED: usize = 20;
/// Of how many subtransactions of each of them the relations are listed.
const MOST_SUBTRANSACTIONS: usize = 256;
/// Of how many transactions something is remembered at a time. Where there are more, none of them is taken for maintenance.
const MOST_REMEMBERED: usize = 1 << 17;
/// How many commits are looked into that might be maintenance, all of them.
const MOST_MAINTENANCE: usize = 1 << 16;
/// The smallest number that a relation of a user can have.
const FIRST_NORMAL: u32 = 16_384;

/// What is known of a transaction or subtransaction from its records.
#[derive(Debug, Default)]
struct Known {
    changes: bool,
    maintains: bool,
    touched: Touched,
}

/// The relations that a transaction changed: those of users before the catalogs.
#[derive(Debug, Default)]
struct Touched {
    relations: Vec<RelFileNumber>,
    /// Whether there are more of them.
    more: bool,
}

/// A transaction that committed.
#[derive(Debug)]
struct Commit {
    lsn: Lsn,
    time: i64,
    xid: u32,
    subtransactions: Box<[u32]>,
    /// Whether there are more subtransactions.
    more: bool,
}

/// The transactions of a part of the WAL.
///
/// Which of them did nothing but maintenance can only be said once all parts are joined: a transaction's records may
/// lie in several. As soon as one is known to have changed something, that question is settled and nothing more is
/// remembered for it; the same goes for the list of commits once a part has as many as are listed.
#[derive(Debug)]
pub(super) struct Transactions {
    counts: TransactionCounts,
    /// Whether something is known to be lost that a user has committed.
    data: bool,
    known: Smallest<u32, Known>,
    /// The latest addition to `known`.
    latest: Option<(u32, Sign, Option<RelFileNumber>)>,
    commits: Vec<Commit>,
    ends: Ends,
    prepared: Prepared,
    horizon: Horizon,
}

/// The first commit and the last one, by their positions.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    first: Option<(Lsn, i64)>,
    last: Option<(Lsn, i64)>,
}

/// Prepared transactions, each of which one part may see prepared and another one ended.
#[derive(Debug, Default)]
struct Prepared {
    open: FxHashSet<u32>,
    /// Ended; prepared elsewhere, or before the fork.
    ended: FxHashSet<u32>,
    /// Prepared, beyond those that are remembered.
    beyond: u64,
}

/// What tells the transactions that began after the fork from those that began before.
#[derive(Clone, Copy, Debug, Default)]
struct Horizon {
    /// The latest transaction of which there is a record before the fork.
    seen_before: Option<u32>,
    /// The last list of running transactions before the fork: where it is, and the transaction that was next.
    before: Option<(Lsn, u32)>,
    /// The first one after the fork.
    after: Option<(Lsn, u32)>,
}

/// What all transactions come to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) counts: TransactionCounts,
    pub(super) data: bool,
    pub(super) commits: Vec<DiscardedCommit>,
    pub(super) first_commit: Option<String>,
    pub(super) last_commit: Option<String>,
}

impl Transactions {
    /// There were none.
    pub(super) fn new() -> Self {
        Self {
            counts: TransactionCounts::default(),
            data: false,
            known: Smallest::new(MOST_REMEMBERED),
            latest: None,
            commits: Vec::new(),
            ends: Ends::default(),
            prepared: Prepared::default(),
            horizon: Horizon::default(),
        }
    }

    /// A record before the fork is of this transaction.
    pub(super) fn seen_before_fork(&mut self, xid: u32) {
        self.horizon.see(xid);
    }

    /// A list of running transactions says that this one is the next to begin.
    pub(super) fn next_is(&mut self, xid: u32, at: Lsn, after_fork: bool) {
        self.horizon.next_is(xid, at, after_fork);
    }

    /// Something was changed that no commit or abort decides about.
    pub(super) fn changed_for_good(&mut self) {
        self.data = true;
    }

    /// Whether records of transactions are still of use.
    #[inline]
    pub(super) fn listens(&self) -> bool {
        !self.data || self.lists()
    }

    fn lists(&self) -> bool {
        self.commits.len() < MOST_COMMITS
    }

    /// A transaction has a record with this sign, which touches this relation.
    #[inline]
    pub(super) fn record(&mut self, xid: u32, sign: Sign, relation: Option<RelFileNumber>) {
        let latest = Some((xid, sign, relation));
        if self.latest == latest || xid == 0 || !self.listens() {
            return;
        }
        self.latest = latest;
        let lists = self.lists();
        if let Some(known) = self.known.entry(xid) {
            known.changes |= sign == Sign::Change;
            known.maintains |= sign == Sign::Maintenance;
            if let Some(relation) = relation.filter(|_| lists) {
                known.touched.add(relation);
            }
        } else {
            self.data = true;
        }
    }

    /// A transaction was prepared.
    pub(super) fn prepare(&mut self, xid: u32) {
        self.prepared.prepare(xid);
    }

    /// A transaction committed; `xid` is what its record's header says.
    pub(super) fn commit(&mut self, lsn: Lsn, xid: u32, end: &TransactionEnd<'_>) {
        let count = end.subtransactions().len();
        self.counts.committed += 1;
        self.counts.subtransactions += count as u64;
        self.ends.span((lsn, end.time));
        if let Some(prepared) = end.prepared {
            self.prepared.end(prepared);
        }
        let xid = end.prepared.unwrap_or(xid);
        let more = count > MOST_SUBTRANSACTIONS;
        let changes = |xid| self.known.get(xid).is_some_and(|known| known.changes);
        self.data = self.data
            || end.prepared.is_some()
            || end.dropped_relations().len() > 0
            || more
            || changes(xid)
            || end.subtransactions().any(changes)
            || self.commits.len() >= MOST_MAINTENANCE;
        if self.listens() {
            let subtransactions = end.subtransactions().take(MOST_SUBTRANSACTIONS).collect();
            self.commits.push(Commit { lsn, time: end.time, xid, subtransactions, more });
        }
        end.subtransactions().skip(MOST_SUBTRANSACTIONS).for_each(|xid| self.forget(xid));
    }

    /// A transaction was rolled back.
    pub(super) fn abort(&mut self, xid: u32, end: &TransactionEnd<'_>) {
        self.counts.aborted += 1;
        if let Some(prepared) = end.prepared {
            self.prepared.end(prepared);
        }
        self.forget(end.prepared.unwrap_or(xid));
        end.subtransactions().for_each(|xid| self.forget(xid));
    }

    fn forget(&mut self, xid: u32) {
        self.known.forget(xid);
        self.latest = None;
    }

    /// Adds what was found in another part of the WAL.
    pub(super) fn absorb(&mut self, other: Self) {
        self.counts.aborted += other.counts.aborted;
        self.counts.committed += other.counts.committed;
        self.counts.subtransactions += other.counts.subtransactions;
        self.data |= other.data;
        self.known.absorb(other.known, |mine, more| {
            mine.changes |= more.changes;
            mine.maintains |= more.maintains;
            mine.touched.absorb(more.touched);
        });
        self.commits.extend(other.commits);
        other.ends.first.into_iter().chain(other.ends.last).for_each(|commit| self.ends.span(commit));
        self.prepared.absorb(other.prepared);
        self.horizon.absorb(other.horizon);
    }

    /// What all transactions come to.
    pub(super) fn finish(mut self) -> Outcome {
        self.counts.prepared = self.prepared.open.len() as u64 + self.prepared.beyond;
        // What was prepared before the fork and ended after it is prepared again.
        let data = self.data
            || self.known.was_cut()
            || self.counts.prepared > 0
            || !self.prepared.ended.is_empty()
            || self.counts.committed > MOST_MAINTENANCE as u64
            || self.commits.iter().any(|commit| !self.is_maintenance(commit));
        self.commits.sort_unstable_by_key(|commit| commit.lsn);
        self.commits.truncate(MOST_COMMITS);
        let time = |commit: Option<(Lsn, i64)>| commit.and_then(|(_, time)| time_text(time));
        Outcome {
            counts: self.counts,
            data,
            commits: self.commits.iter().map(|commit| self.describe(commit)).collect(),
            first_commit: time(self.ends.first),
            last_commit: time(self.ends.last),
        }
    }

    /// Whether a transaction is proven to have begun after the fork, to have done what maintenance does, and nothing
    /// else that WAL tells of.
    fn is_maintenance(&self, commit: &Commit) -> bool {
        let known = || self.records_of(commit);
        self.horizon.began_after_fork(commit.xid) && known().any(|k| k.maintains) && !known().any(|k| k.changes)
    }

    fn records_of<'a>(&'a self, commit: &'a Commit) -> impl Iterator<Item = &'a Known> {
        std::iter::once(commit.xid).chain(commit.subtransactions.iter().copied()).filter_map(|xid| self.known.get(xid))
    }

    fn describe(&self, commit: &Commit) -> DiscardedCommit {
        let mut touched = Touched { relations: Vec::new(), more: commit.more };
        for known in self.records_of(commit) {
            known.touched.relations.iter().for_each(|&relation| touched.add(relation));
            touched.more |= known.touched.more;
        }
        DiscardedCommit {
            lsn: commit.lsn,
            more_relations: touched.more,
            relations: touched.relations,
            time: time_text(commit.time),
            xid: commit.xid,
        }
    }
}

impl Touched {
    fn add(&mut self, relation: RelFileNumber) {
        let rank = |r: &RelFileNumber| (r.relation < FIRST_NORMAL, *r);
        let Err(place) = self.relations.binary_search_by_key(&rank(&relation), rank) else { return };
        if place < MOST_TOUCHED {
            self.relations.insert(place, relation);
        }
        self.more |= place >= MOST_TOUCHED || self.relations.len() > MOST_TOUCHED;
        self.relations.truncate(MOST_TOUCHED);
    }

    fn absorb(&mut self, other: Self) {
        other.relations.into_iter().for_each(|relation| self.add(relation));
        self.more |= other.more;
    }
}

impl Ends {
    fn span(&mut self, commit: (Lsn, i64)) {
        if self.first.is_none_or(|first| commit.0 < first.0) {
            self.first = Some(commit);
        }
        if self.last.is_none_or(|last| commit.0 > last.0) {
            self.last = Some(commit);
        }
    }
}

impl Prepared {
    fn prepare(&mut self, xid: u32) {
        if self.ended.remove(&xid) {
            return;
        }
        if self.open.len() < MOST_REMEMBERED {
            self.open.insert(xid);
        } else {
            self.beyond += 1;
        }
    }

    fn end(&mut self, xid: u32) {
        if !self.open.remove(&xid) && self.ended.len() < MOST_REMEMBERED {
            self.ended.insert(xid);
        }
    }

    fn absorb(&mut self, other: Self) {
        other.open.into_iter().for_each(|xid| self.prepare(xid));
        other.ended.into_iter().for_each(|xid| self.end(xid));
        self.beyond += other.beyond;
    }
}

impl Horizon {
    fn see(&mut self, xid: u32) {
        if self.seen_before.is_none_or(|latest| precedes(latest, xid)) {
            self.seen_before = Some(xid);
        }
    }

    fn next_is(&mut self, xid: u32, at: Lsn, after_fork: bool) {
        if after_fork {
            self.after = self.after.filter(|&(first, _)| first < at).or(Some((at, xid)));
        } else {
            self.before = self.before.filter(|&(last, _)| last > at).or(Some((at, xid)));
        }
    }

    fn absorb(&mut self, other: Self) {
        other.seen_before.into_iter().for_each(|xid| self.see(xid));
        other.before.into_iter().for_each(|(at, xid)| self.next_is(xid, at, false));
        other.after.into_iter().for_each(|(at, xid)| self.next_is(xid, at, true));
    }

    /// Whether a transaction is proven to have no record before the fork.
    fn began_after_fork(&self, xid: u32) -> bool {
        let unseen = self.seen_before.is_none_or(|latest| precedes(latest, xid));
        self.after.is_some_and(|(_, next)| !precedes(xid, next))
            || (unseen && self.before.is_some_and(|(_, next)| !precedes(xid, next)))
    }
}

/// Whether a transaction began before another: ids go round.
fn precedes(xid: u32, other: u32) -> bool {
    xid.wrapping_sub(other).cast_signed() < 0
}
