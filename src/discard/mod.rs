//! What the target did after the fork, which a rewind throws away: what its WAL says of it.
//!
//! | module | has |
//! |---|---|
//! | `codes` | what a record does, by its numbers |
//! | `relations` | what was done to relations, counted |
//! | `transactions` | who did it, and what became of that |
//! | `places` | databases and tablespaces |
//! | `names` | what the source calls them |
//! | `smallest` | maps of bounded size |
//!
//! # What counts as what
//!
//! A record counts once for each relation that its blocks are of, whatever the fork. Index entries are `index`, their
//! removal is `vacuum`, and so is the pruning of pages that a query does on its way. Files that are made or given away
//! are `ddl`; CREATE INDEX, VACUUM FULL, TRUNCATE and many kinds of ALTER TABLE make files, too. Where a new index is
//! filled page by page, its records are `other`. The relations of a transaction are tables, sequences and files that it made: what
//! indexes it changed follows.
//!
//! The verdict is `data` unless the contrary is proven:
//!
//! - Each transaction that committed counts, if it only took numbers from a sequence: they were given out. Each that is
//!   left prepared; each that was prepared before the fork and ended after it, since a rewind prepares it again; each
//!   message of `pg_logical_emit_message`; and what resource managers of extensions wrote outside of transactions.
//! - Rebuilding counts, too: VACUUM FULL, CLUSTER and REINDEX change catalogs as any other DDL does.
//! - Maintenance is a committed transaction that is proven to have begun after the fork, did some of what ANALYZE and
//!   VACUUM do (rows of `pg_statistic` and of `pg_statistic_ext_data`, rows of catalogs overwritten in place, truncation of a
//!   table's end) and no other change that WAL tells of. That it began after the fork is known by the lists of
//!   running transactions, which a server writes at checkpoints and every 15 seconds. Where such a list is lacking, or
//!   the statistics' files have been rewritten, the verdict is `data`.
//! - Maintenance is also everything that is not bound to a transaction (VACUUM, hint bits), and what transactions wrote
//!   that were rolled back or had not ended.
//!
//! WAL does not tell of unlogged tables: a crash empties them, and so does a rewind.

mod codes;
mod names;
mod places;
mod relations;
mod smallest;
mod transactions;

use jiff::Timestamp;

use crate::format::MajorFacts;
use crate::format::wal::Record;
use crate::format::wal::payload::{
    TransactionEnd, copied_database, created_file, first_oid, next_transaction, prepared_transaction,
    truncated_relation,
};
use crate::format::wal::resource_manager as rm;
use crate::manifest::{Discarded, DiscardedVerdict};
use crate::types::{ForkNumber, Lsn, RelFileNumber};

pub use names::{give_names, nameless};

use codes::{Kind, Sign};
use places::Places;
use relations::Relations;
use transactions::Transactions;

/// Microseconds from 1970 to 2000, where PostgreSQL's `TimestampTz` begins.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// Takes records, and finds out what is lost with them. Memory is bounded, whatever WAL says.
///
/// Each of several may see a part of the WAL, in order; joined in any order they find the same.
#[derive(Debug)]
pub struct DiscardedWork {
    fork: Lsn,
    facts: &'static MajorFacts,
    relations: Relations,
    transactions: Transactions,
    places: Places,
}

impl DiscardedWork {
    /// What comes after `fork`, in the WAL of this major.
    #[must_use]
    pub fn after(fork: Lsn, facts: &'static MajorFacts) -> Self {
        Self { fork, facts, relations: Relations::new(), transactions: Transactions::new(), places: Places::new() }
    }

    /// Takes one record. Those from before the fork may tell which transactions began there.
    #[inline]
    pub fn record(&mut self, record: &Record<'_>) {
        let header = &record.header;
        if record.lsn < self.fork {
            if header.xid != 0 {
                self.transactions.seen_before_fork(header.xid);
            }
            if (header.resource_manager, record.operation()) == (rm::STANDBY, rm::STANDBY_RUNNING) {
                self.running(record);
            }
            return;
        }
        if !record.blocks.is_empty() {
            self.blocks(record);
        }
        match header.resource_manager {
            rm::HEAP | rm::HEAP2 | rm::BTREE | rm::XLOG => {}
            _ => self.special(record),
        }
    }

    /// Counts a record for the relations that its blocks are of.
    #[inline]
    fn blocks(&mut self, record: &Record<'_>) {
        let (header, kind) = (&record.header, Kind::of(&record.header));
        let mut previous = None;
        for block in record.blocks {
            let relation = block.relation;
            let counted = previous == Some(relation)
                || record.blocks.iter().take_while(|earlier| earlier.id < block.id).any(|e| e.relation == relation);
            if counted {
                continue;
            }
            previous = Some(relation);
            self.relations.count(relation, kind);
            if kind == Kind::Index || !self.transactions.listens() {
                continue;
            }
            match Sign::of(header, kind, relation) {
                Sign::Nothing => {}
                Sign::Change if header.xid == 0 && header.resource_manager == rm::GENERIC => {}
                Sign::Change if header.xid == 0 => self.transactions.changed_for_good(),
                sign => self.transactions.record(header.xid, sign, Some(relation)),
            }
        }
    }

    /// Takes a record of a resource manager that mostly says what it does in its main data.
    fn special(&mut self, record: &Record<'_>) {
        let (header, data) = (&record.header, record.main_data);
        match (header.resource_manager, record.operation()) {
            (rm::TRANSACTION, _) => self.transaction(record),
            (rm::STORAGE, rm::STORAGE_CREATE) => {
                if let Some((relation, ForkNumber::Main | ForkNumber::Init)) = created_file(data) {
                    self.relations.create(relation);
                    self.transactions.record(header.xid, Sign::Change, Some(relation));
                }
            }
            (rm::STORAGE, rm::STORAGE_TRUNCATE) => {
                if let Some(relation) = truncated_relation(data) {
                    self.relations.count(relation, Kind::Truncate);
                    self.transactions.record(header.xid, Sign::Maintenance, Some(relation));
                }
            }
            (rm::DATABASE | rm::TABLESPACE | rm::RELATION_MAP, _) => {
                self.place(record);
                self.transactions.record(header.xid, Sign::Change, None);
            }
            (rm::STANDBY, rm::STANDBY_RUNNING) => self.running(record),
            (rm::LOGICAL_MESSAGE, _) => self.message(record),
            (rm::FIRST_CUSTOM.., _) if header.xid == 0 => self.transactions.changed_for_good(),
            (rm::FIRST_CUSTOM.., _) => self.transactions.record(header.xid, Sign::Change, None),
            _ => {}
        }
    }

    fn transaction(&mut self, record: &Record<'_>) {
        let (header, data) = (&record.header, record.main_data);
        let operation = header.info & rm::TRANSACTION_OPERATION;
        let end = || TransactionEnd::parse(data, header.info, self.facts);
        let is_commit = matches!(operation, rm::TRANSACTION_COMMIT | rm::TRANSACTION_COMMIT_PREPARED);
        if is_commit && end().is_none() {
            // Whatever it is, it is committed.
            self.transactions.changed_for_good();
        }
        let dropped = match operation {
            rm::TRANSACTION_COMMIT | rm::TRANSACTION_COMMIT_PREPARED => end().map(|end| {
                self.transactions.commit(record.lsn, header.xid, &end);
                end.dropped_relations()
            }),
            rm::TRANSACTION_ABORT | rm::TRANSACTION_ABORT_PREPARED => end().map(|end| {
                self.transactions.abort(header.xid, &end);
                end.dropped_relations()
            }),
            rm::TRANSACTION_PREPARE => {
                match prepared_transaction(data) {
                    Some(xid) => self.transactions.prepare(xid),
                    None => self.transactions.changed_for_good(),
                }
                None
            }
            _ => None,
        };
        dropped.into_iter().flatten().for_each(|relation| self.relations.drop(relation));
    }

    /// A database or a tablespace is made or dropped.
    fn place(&mut self, record: &Record<'_>) {
        let (operation, data) = (record.operation(), record.main_data);
        let Some(oid) = first_oid(data) else { return };
        match record.header.resource_manager {
            rm::DATABASE if Some(&operation) == self.facts.database_operations.last() => self.places.drop_database(oid),
            rm::DATABASE => {
                let copied = copied_database(data).filter(|_| operation == rm::DATABASE_COPY);
                self.places.create_database(oid, copied);
            }
            rm::TABLESPACE if operation == rm::TABLESPACE_CREATE => self.places.create_tablespace(oid),
            rm::TABLESPACE if operation == rm::TABLESPACE_DROP => self.places.drop_tablespace(oid),
            _ => {}
        }
    }

    fn running(&mut self, record: &Record<'_>) {
        if let Some(next) = next_transaction(record.main_data) {
            self.transactions.next_is(next, record.lsn, record.lsn >= self.fork);
        }
    }

    /// A message goes with its transaction, or is out at once.
    fn message(&mut self, record: &Record<'_>) {
        let transactional = record.main_data.get(4).is_some_and(|&flag| flag != 0);
        if transactional {
            self.transactions.record(record.header.xid, Sign::Change, None);
        } else {
            self.transactions.changed_for_good();
        }
    }

    /// Adds what was found in another part of the WAL, wherever it lies.
    pub fn absorb(&mut self, other: Self) {
        self.relations.absorb(other.relations);
        self.transactions.absorb(other.transactions);
        self.places.absorb(other.places);
    }

    /// What was found, with the end of the target's WAL; `blocks` gives the number of a relation's changed blocks.
    #[must_use]
    pub fn finish(self, end: Lsn, blocks: impl Fn(RelFileNumber) -> u64) -> Discarded {
        let untouched = self.relations.is_empty() && self.places.is_empty();
        let found = self.transactions.finish();
        let (relations, records_left_out) = self.relations.finish(blocks);
        let (databases, tablespaces) = self.places.finish(relations.iter().map(|found| found.relation.database));
        let verdict = match (found.data, untouched && found.counts.committed == 0) {
            (true, _) => DiscardedVerdict::Data,
            (false, true) => DiscardedVerdict::Nothing,
            (false, false) => DiscardedVerdict::MaintenanceOnly,
        };
        Discarded {
            bytes: end.since(self.fork),
            commits_left_out: found.counts.committed.saturating_sub(found.commits.len() as u64),
            commits: found.commits,
            databases,
            first_commit: found.first_commit,
            from: self.fork,
            last_commit: found.last_commit,
            records_left_out,
            relations,
            tablespaces,
            through: end,
            transactions: found.counts,
            verdict,
        }
    }
}

/// RFC 3339 in UTC, from microseconds since 2000.
fn time_text(microseconds: i64) -> Option<String> {
    let time = Timestamp::from_microsecond(microseconds.checked_add(POSTGRES_EPOCH)?).ok()?;
    Some(time.to_string())
}

#[cfg(test)]
mod tests;
