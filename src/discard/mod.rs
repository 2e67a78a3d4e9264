//! What the target did after the fork, which a rewind throws away.

use jiff::Timestamp;

use crate::format::wal::Record;
use crate::format::wal::resource_manager as rm;
use crate::manifest::{Discarded, DiscardedVerdict, TransactionCounts};
use crate::types::Lsn;

/// Microseconds from 1970 to 2000, where PostgreSQL's `TimestampTz` begins.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// Where a commit's record begins, and when it was: microseconds since 2000.
type Commit = (Lsn, i64);

/// Counts the transactions that ended after the fork.
#[derive(Debug)]
pub(crate) struct DiscardedWork {
    fork: Lsn,
    counts: TransactionCounts,
    first_commit: Option<Commit>,
    last_commit: Option<Commit>,
}

impl DiscardedWork {
    /// Counts from `fork` on.
    #[must_use]
    pub(crate) fn after(fork: Lsn) -> Self {
        Self { fork, counts: TransactionCounts::default(), first_commit: None, last_commit: None }
    }

    /// Takes one record.
    pub(crate) fn record(&mut self, record: &Record<'_>) {
        if record.lsn < self.fork || record.header.resource_manager != rm::TRANSACTION {
            return;
        }
        match record.header.info & rm::TRANSACTION_OPERATION {
            rm::TRANSACTION_COMMIT | rm::TRANSACTION_COMMIT_PREPARED => {
                self.counts.committed += 1;
                let time = record.main_data.first_chunk().map(|bytes| i64::from_le_bytes(*bytes));
                self.span(time.map(|time| (record.lsn, time)));
            }
            rm::TRANSACTION_ABORT | rm::TRANSACTION_ABORT_PREPARED => self.counts.aborted += 1,
            _ => {}
        }
    }

    /// Adds what was counted in other parts of the WAL, wherever they lie.
    pub(crate) fn absorb(&mut self, other: &Self) {
        self.counts.aborted += other.counts.aborted;
        self.counts.committed += other.counts.committed;
        self.span(other.first_commit);
        self.span(other.last_commit);
    }

    /// Widens the span of commits.
    fn span(&mut self, commit: Option<Commit>) {
        let Some(commit) = commit else { return };
        if self.first_commit.is_none_or(|first| commit.0 < first.0) {
            self.first_commit = Some(commit);
        }
        if self.last_commit.is_none_or(|last| commit.0 > last.0) {
            self.last_commit = Some(commit);
        }
    }

    /// What was counted, with the end of the target's WAL.
    #[must_use]
    pub(crate) fn finish(self, end: Lsn) -> Discarded {
        Discarded {
            bytes: end.since(self.fork),
            first_commit: self.first_commit.and_then(|(_, time)| time_text(time)),
            from: self.fork,
            last_commit: self.last_commit.and_then(|(_, time)| time_text(time)),
            through: end,
            commits: Vec::new(),
            commits_left_out: self.counts.committed,
            databases: Vec::new(),
            relations: Vec::new(),
            tablespaces: Vec::new(),
            verdict: if self.counts.committed > 0 { DiscardedVerdict::Data } else { DiscardedVerdict::MaintenanceOnly },
            transactions: self.counts,
        }
    }
}

/// RFC 3339 in UTC, from microseconds since 2000.
fn time_text(microseconds: i64) -> Option<String> {
    let time = Timestamp::from_microsecond(microseconds.checked_add(POSTGRES_EPOCH)?).ok()?;
    Some(time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_wal_add_up_in_any_order() {
        let part = |commits: &[(u64, i64)], aborted| {
            let mut part = DiscardedWork::after(Lsn::new(10));
            commits.iter().for_each(|&(lsn, time)| part.span(Some((Lsn::new(lsn), time))));
            part.counts =
                TransactionCounts { aborted, committed: commits.len() as u64, ..TransactionCounts::default() };
            part
        };
        // By position, whatever the clock said.
        let parts = [part(&[(20, 5), (50, 1)], 1), part(&[], 4), part(&[(30, 9), (60, 3)], 2), part(&[(40, 0)], 0)];
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
            let mut sum = DiscardedWork::after(Lsn::new(10));
            order.iter().for_each(|&index| sum.absorb(&parts[index]));
            let found = sum.finish(Lsn::new(100));
            assert_eq!(
                found.transactions,
                TransactionCounts { aborted: 7, committed: 5, ..TransactionCounts::default() }
            );
            assert_eq!((found.first_commit, found.last_commit), (time_text(5), time_text(3)));
        }
    }

    #[test]
    fn times_count_from_2000() {
        assert_eq!(time_text(0).as_deref(), Some("2000-01-01T00:00:00Z"));
        assert_eq!(time_text(825_000_000_500_000).as_deref(), Some("2026-02-21T14:40:00.5Z"));
        assert_eq!(time_text(i64::MAX), None);
    }
}
