//! The document's types. Fields stand in the byte order of their names, which is the order in which they are written.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::entries::Entries;
use super::text::{FileText, HexBytes};
use crate::cluster::{Names, Position, ServerFacts, SourceKind};
use crate::manifest::Tool;
use crate::types::{ClusterPath, Lsn, RelFileNumber};

/// Everything that a plan asks a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SourceListing {
    /// Its data directory, or connection settings without secrets.
    pub address: String,
    /// The source once its files were hashed.
    pub after: ListedMoment,
    /// The source before it was listed.
    pub before: ListedMoment,
    /// When the listing was made (RFC 3339, UTC). Not covered by the digest.
    pub created: String,
    /// `sha256:` and the digest of the document without `created` and `digest`.
    pub digest: String,
    /// Everything in the data directory, in order of the paths' bytes.
    pub entries: Entries,
    /// The content of small files that a plan reads, in order of the paths; no secrets.
    pub files: Vec<ListedFile>,
    /// The version of this format, major and minor.
    pub format_version: String,
    /// How it was reached.
    pub kind: SourceKind,
    /// What databases and relations were called, as far as its server told.
    pub names: ListedNames,
    /// What `primary_conninfo` must say to follow it, without a password; none for a stopped directory.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub primary_conninfo: Option<String>,
    /// WAL records by which it is seen whether a target is on the same timeline.
    pub records: Vec<ListedRecord>,
    /// What its server says about itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server: Option<ServerFacts>,
    /// What made the listing.
    pub tool: Tool,
}

/// Where a source stood at some time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListedMoment {
    /// `global/pg_control` in hexadecimal, without the zeros at its end.
    pub control_file: HexBytes,
    /// How far a server's WAL reached; none for a stopped directory.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub position: Option<ListedPosition>,
}

/// How far a live server's WAL reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListedPosition {
    /// Whether it was a standby.
    pub in_recovery: bool,
    /// Everything before this was on its disk; of a standby: was replayed.
    pub lsn: Lsn,
}

impl From<Position> for ListedPosition {
    fn from(position: Position) -> Self {
        Self { in_recovery: position.in_recovery, lsn: position.lsn }
    }
}

impl From<ListedPosition> for Position {
    fn from(position: ListedPosition) -> Self {
        Self { in_recovery: position.in_recovery, lsn: position.lsn }
    }
}

/// What numbers were called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListedNames {
    /// Databases, by their oids.
    pub databases: Vec<ListedDatabase>,
    /// Relations, by their files.
    pub relations: Vec<ListedRelation>,
}

/// A database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListedDatabase {
    /// What it was called.
    pub name: String,
    /// Its oid.
    pub oid: u32,
}

/// A relation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListedRelation {
    /// Schema and name, quoted as SQL wants them.
    pub name: String,
    /// Its file.
    pub relation: RelFileNumber,
}

impl From<Names> for ListedNames {
    fn from(names: Names) -> Self {
        Self {
            databases: names.databases.into_iter().map(|(oid, name)| ListedDatabase { name, oid }).collect(),
            relations: names.relations.into_iter().map(|(relation, name)| ListedRelation { name, relation }).collect(),
        }
    }
}

impl ListedNames {
    /// Those of these databases and relations.
    pub(super) fn of(&self, databases: &[u32], relations: &[RelFileNumber]) -> Names {
        let wanted: BTreeSet<_> = relations.iter().collect();
        let is_wanted = |listed: &&ListedRelation| wanted.contains(&listed.relation);
        let database = |listed: &ListedDatabase| (listed.oid, listed.name.clone());
        Names {
            databases: self.databases.iter().filter(|listed| databases.contains(&listed.oid)).map(database).collect(),
            relations: self.relations.iter().filter(is_wanted).map(|l| (l.relation, l.name.clone())).collect(),
        }
    }
}

/// A small file with its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListedFile {
    /// What is in it; `%` and bytes that are not UTF-8 are %XX.
    pub content: FileText,
    /// The file.
    pub path: ClusterPath,
}

/// The bytes of a WAL record, as far as they are on the page where it begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListedRecord {
    /// How many bytes.
    pub length: u32,
    /// Where they are in the segment.
    pub offset: u64,
    /// The segment.
    pub path: ClusterPath,
    /// Their SHA-256.
    pub sha256: HexBytes,
}
