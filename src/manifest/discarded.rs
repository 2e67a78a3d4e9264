//! The part of the document that answers what is lost.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::types::{Lsn, RelFileNumber};

/// What the target did after the fork.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Discarded {
    /// Bytes of WAL.
    pub bytes: u64,
    /// The committed transactions, the first ones first, up to a limit.
    pub commits: Vec<DiscardedCommit>,
    /// How many more there are than in `commits`.
    pub commits_left_out: u64,
    /// Databases of which something is lost.
    pub databases: Vec<DiscardedDatabase>,
    /// When the first transaction committed (RFC 3339, UTC).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first_commit: Option<String>,
    /// The fork.
    pub from: Lsn,
    /// When the last transaction committed (RFC 3339, UTC).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_commit: Option<String>,
    /// How many records changed relations that are not in `relations`.
    pub records_left_out: u64,
    /// What was changed, by relation, up to a limit; in order of database, tablespace and file.
    pub relations: Vec<DiscardedRelation>,
    /// Tablespaces that were created or dropped.
    pub tablespaces: Vec<DiscardedTablespace>,
    /// The end of the target's WAL.
    pub through: Lsn,
    /// The transactions that ended, or were prepared, after the fork.
    pub transactions: TransactionCounts,
    /// What it comes to.
    pub verdict: DiscardedVerdict,
}

/// What discarded work comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiscardedVerdict {
    /// Nothing but bookkeeping of the server itself.
    Nothing,
    /// Vacuum, hint bits, checkpoints: no committed change by a user.
    MaintenanceOnly,
    /// Committed or prepared changes.
    Data,
}

/// Transactions by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TransactionCounts {
    /// Rolled back, prepared ones among them.
    pub aborted: u64,
    /// Committed, prepared ones among them.
    pub committed: u64,
    /// Prepared after the fork, and neither committed nor rolled back.
    pub prepared: u64,
    /// Subtransactions of the committed ones.
    pub subtransactions: u64,
}

/// A transaction that committed after the fork.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiscardedCommit {
    /// Where its commit record begins.
    pub lsn: Lsn,
    /// Whether it changed more relations than are in `relations`.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub more_relations: bool,
    /// The relations that it and its subtransactions changed after the fork, indexes left out; up to a limit, those of
    /// users first.
    pub relations: Vec<RelFileNumber>,
    /// When it committed (RFC 3339, UTC).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub time: Option<String>,
    /// Its transaction id.
    pub xid: u32,
}

/// A database of which something is lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiscardedDatabase {
    /// Whether it was created after the fork.
    pub created: bool,
    /// Whether it was dropped after the fork.
    pub dropped: bool,
    /// Its name on the source, where it has one there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// Its oid; 0 stands for what all databases share.
    pub oid: u32,
}

/// A tablespace that was created or dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiscardedTablespace {
    /// Whether it was created after the fork.
    pub created: bool,
    /// Whether it was dropped after the fork.
    pub dropped: bool,
    /// Its oid.
    pub oid: u32,
}

/// What was done to a relation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiscardedRelation {
    /// Blocks of its main fork that were changed and are still there, each counted once.
    pub blocks: u64,
    /// Whether its file was created after the fork: by CREATE, or by what writes a relation anew.
    pub created: bool,
    /// Whether its file was dropped after the fork.
    pub dropped: bool,
    /// Its name on the source, schema and all, quoted as SQL wants it. None for what was made after the fork: there
    /// the same number may be something else.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// The records that changed it.
    pub records: RecordCounts,
    /// Its file.
    pub relation: RelFileNumber,
}

/// WAL records by what they mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecordCounts {
    /// Files created, rewritten, given away: the traces that DDL leaves in files.
    pub ddl: u64,
    /// Rows deleted.
    pub delete: u64,
    /// Hint bits.
    pub hint_bits: u64,
    /// Entries of indexes.
    pub index: u64,
    /// Rows inserted; one record may insert many.
    pub insert: u64,
    /// Anything else: row locks, sequences, full pages, other resource managers.
    pub other: u64,
    /// Ends of files that were cut off, by VACUUM most of all: the command TRUNCATE makes a new file, which is `ddl`.
    pub truncate: u64,
    /// Rows updated.
    pub update: u64,
    /// Vacuum, pruning, freezing, visibility maps.
    pub vacuum: u64,
}
