//! What is in a data directory.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::types::{ClusterPath, FileMode};

/// A file's time of last modification, to the nanosecond. Written `seconds.nanoseconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(into = "String", try_from = "String")]
#[schemars(with = "String")]
pub struct FileTime {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds within the second, below 10^9.
    pub nanoseconds: u32,
}

impl From<FileTime> for String {
    fn from(time: FileTime) -> Self {
        format!("{}.{:09}", time.seconds, time.nanoseconds)
    }
}

impl TryFrom<String> for FileTime {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parse = |text: &str| {
            let (seconds, fraction) = text.split_once('.')?;
            let digits = fraction.len() == 9 && fraction.bytes().all(|b| b.is_ascii_digit());
            Some(Self { seconds: seconds.parse().ok()?, nanoseconds: digits.then(|| fraction.parse().ok()).flatten()? })
        };
        parse(&text).ok_or_else(|| format!("{text:?} is no time of the form seconds.nanoseconds"))
    }
}

/// What kind of thing an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A directory. `pg_wal` counts as one even where it is a symlink.
    Directory,
    /// A regular file.
    File {
        /// Bytes.
        size: u64,
        /// Last modification; none where the source does not tell exactly.
        modified: Option<FileTime>,
    },
    /// A symlink.
    Symlink {
        /// The link's text.
        text: Vec<u8>,
    },
}

impl FileKind {
    /// The kind in words.
    #[must_use]
    pub fn words(&self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::File { .. } => "file",
            Self::Symlink { .. } => "symlink",
        }
    }
}

/// One entry of a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits; none where the source does not tell.
    pub mode: Option<FileMode>,
}

impl FileEntry {
    /// The size of a regular file.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        match self.kind {
            FileKind::File { size, .. } => Some(size),
            FileKind::Directory | FileKind::Symlink { .. } => None,
        }
    }
}

/// Everything in a data directory, ordered by raw bytes.
pub type Inventory = BTreeMap<ClusterPath, FileEntry>;
