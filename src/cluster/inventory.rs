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

/// The largest file that there can be, in bytes: what a JSON reader can count.
pub const LARGEST_FILE: u64 = (1 << 53) - 1;

/// What an inventory says that no data directory can be; none for an honest one. A path lies in a directory,
/// or behind a link of `pg_tblspc`.
#[must_use]
pub fn contradiction(inventory: &Inventory) -> Option<String> {
    inventory.iter().find_map(|(path, entry)| {
        if let Some(size) = entry.size().filter(|&size| size > LARGEST_FILE) {
            return Some(format!("{path} has {size} bytes, more than any file"));
        }
        let parent = path.parent()?;
        let lies_in = inventory.get(&parent).map(|entry| &entry.kind);
        let follows = parent.below(b"pg_tblspc").is_some_and(|name| !name.contains(&b'/'));
        match lies_in {
            Some(FileKind::Directory) => None,
            Some(FileKind::Symlink { .. }) if follows => None,
            Some(other) => Some(format!("{path} lies in {parent}, which is a {}", other.words())),
            None => Some(format!("{path} lies in {parent}, which is not there")),
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_no_data_directory_can_be() {
        let directory = FileKind::Directory;
        let link = FileKind::Symlink { text: b"/t".to_vec() };
        let file = |size| FileKind::File { size, modified: None };
        let said = |entries: &[(&str, &FileKind)]| {
            let entry = |kind: &&FileKind| FileEntry { kind: (*kind).clone(), mode: None };
            let path = |path: &str| ClusterPath::new(path.as_bytes()).unwrap();
            contradiction(&entries.iter().map(|(name, kind)| (path(name), entry(kind))).collect())
        };
        let (small, huge) = (file(1), file(LARGEST_FILE + 1));
        assert_eq!(said(&[("a", &directory), ("a/b", &file(LARGEST_FILE)), ("c", &small)]), None);
        assert_eq!(said(&[("pg_tblspc", &directory), ("pg_tblspc/1", &link), ("pg_tblspc/1/x", &small)]), None);
        let cases: [(&[(&str, &FileKind)], &str); 5] = [
            (&[("a", &huge)], "a has 9007199254740992 bytes, more than any file"),
            (&[("a/b", &small)], "a/b lies in a, which is not there"),
            (&[("a", &small), ("a/b", &small)], "a/b lies in a, which is a file"),
            (&[("a", &link), ("a/b", &small)], "a/b lies in a, which is a symlink"),
            (
                &[
                    ("pg_tblspc", &directory),
                    ("pg_tblspc/1", &directory),
                    ("pg_tblspc/1/x", &link),
                    ("pg_tblspc/1/x/y", &small),
                ],
                "pg_tblspc/1/x/y lies in pg_tblspc/1/x, which is a symlink",
            ),
        ];
        for (entries, expected) in cases {
            assert_eq!(said(entries).as_deref(), Some(expected));
        }
    }
}
