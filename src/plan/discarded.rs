//! What the target did after the fork, which a rewind throws away.

use jiff::Timestamp;

use crate::format::wal::Record;
use crate::format::wal::resource_manager as rm;
use crate::manifest::{Discarded, TransactionCounts};
use crate::types::Lsn;

/// Microseconds from 1970 to 2000, where PostgreSQL's `TimestampTz` begins.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// Counts the transactions that ended after the fork.
#[derive(Debug)]
pub(super) struct DiscardedWork {
    fork: Lsn,
    counts: TransactionCounts,
    first_commit: Option<i64>,
    last_commit: Option<i64>,
}

impl DiscardedWork {
    /// Counts from `fork` on.
    #[must_use]
    pub(super) fn after(fork: Lsn) -> Self {
        Self { fork, counts: TransactionCounts::default(), first_commit: None, last_commit: None }
    }

    /// Takes one record.
    pub(super) fn record(&mut self, record: &Record<'_>) {
        if record.lsn < self.fork || record.header.resource_manager != rm::TRANSACTION {
            return;
        }
        match record.header.info & rm::TRANSACTION_OPERATION {
            rm::TRANSACTION_COMMIT | rm::TRANSACTION_COMMIT_PREPARED => {
                self.counts.committed += 1;
                let time = record.main_data.first_chunk().map(|bytes| i64::from_le_bytes(*bytes));
                self.first_commit = self.first_commit.or(time);
                self.last_commit = time.or(self.last_commit);
            }
            rm::TRANSACTION_ABORT | rm::TRANSACTION_ABORT_PREPARED => self.counts.aborted += 1,
            _ => {}
        }
    }

    /// What was counted, with the end of the target's WAL.
    #[must_use]
    pub(super) fn finish(self, end: Lsn) -> Discarded {
        Discarded {
            bytes: end.since(self.fork),
            first_commit: self.first_commit.and_then(time_text),
            from: self.fork,
            last_commit: self.last_commit.and_then(time_text),
            through: end,
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
    fn times_count_from_2000() {
        assert_eq!(time_text(0).as_deref(), Some("2000-01-01T00:00:00Z"));
        assert_eq!(time_text(825_000_000_500_000).as_deref(), Some("2026-02-21T14:40:00.5Z"));
        assert_eq!(time_text(i64::MAX), None);
    }
}
