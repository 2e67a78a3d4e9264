//! The large part of a listing: some hundred thousand files. Neither written nor read as a whole.

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use super::text::HexBytes;
use crate::cluster::{FileEntry, FileKind, FileTime, Hashing, Inventory, LARGEST_FILE, Listing, PieceDigests};
use crate::types::{ClusterPath, FileMode, LinkText};

/// What is in a data directory, and digests of the files that a plan may compare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// Everything.
    pub inventory: Inventory,
    /// The digests: bytes in a piece, and SHA-256 of each.
    digests: BTreeMap<ClusterPath, (u32, PieceDigests)>,
}

impl Entries {
    /// These entries, and what was hashed of them.
    #[must_use]
    pub fn new(inventory: Inventory, hashed: impl IntoIterator<Item = (Hashing, PieceDigests)>) -> Self {
        let known = hashed.into_iter().filter(|(_, digests)| !digests.is_empty());
        Self { inventory, digests: known.map(|(file, digests)| (file.path, (file.piece, digests))).collect() }
    }

    /// The digests of a file, and the bytes in a piece; none where there are none.
    #[must_use]
    pub fn digests(&self, path: &ClusterPath) -> Option<(u32, &PieceDigests)> {
        self.digests.get(path).map(|(piece, digests)| (*piece, digests))
    }

    fn iter(&self) -> impl Iterator<Item = ListedEntry> {
        self.inventory.iter().map(|(path, entry)| {
            let digests = self.digests.get(&path).map(|(piece, digests)| ListedDigests {
                piece: *piece,
                sha256: HexBytes(digests.as_flattened().to_vec()),
            });
            ListedEntry::new(path, entry, digests)
        })
    }
}

/// What an entry of a listing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symlink.
    Symlink,
}

/// One entry of a data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListedEntry {
    /// Digests of a file that a plan may compare.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub digests: Option<ListedDigests>,
    /// What it is.
    pub kind: EntryKind,
    /// A symlink's text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub link: Option<LinkText>,
    /// Permission bits, where the source tells.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode: Option<FileMode>,
    /// Last modification of a file of a stopped source.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub modified: Option<FileTime>,
    /// The path below the data directory.
    pub path: ClusterPath,
    /// Bytes of a file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
}

/// The digests of a file, piece by piece.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListedDigests {
    /// Bytes in a piece; the last one may be shorter.
    pub piece: u32,
    /// SHA-256 of each piece, 64 hexadecimal digits each, one after the other.
    pub sha256: HexBytes,
}

impl ListedEntry {
    fn new(path: ClusterPath, entry: FileEntry, digests: Option<ListedDigests>) -> Self {
        let mode = entry.mode;
        let (kind, link, size, modified) = match entry.kind {
            FileKind::Directory => (EntryKind::Directory, None, None, None),
            FileKind::File { size, modified } => (EntryKind::File, None, Some(size), modified),
            FileKind::Symlink { text } => {
                (EntryKind::Symlink, (!text.is_empty()).then(|| LinkText::new(&text)), None, None)
            }
        };
        Self { digests, kind, link, mode, modified, path, size }
    }

    /// The entry, if what is said of it belongs together.
    fn check(&self) -> Result<FileEntry, String> {
        let wrong = |what: &str| Err(format!("{}: {what}", self.path));
        let kind = match (self.kind, self.size, &self.link) {
            (EntryKind::File, Some(size), None) if size <= LARGEST_FILE => {
                FileKind::File { size, modified: self.modified }
            }
            (EntryKind::File, Some(_), None) => return wrong("more bytes than any file has"),
            (EntryKind::File, ..) => return wrong("a file has a size and no link's text"),
            (EntryKind::Directory, None, None) => FileKind::Directory,
            (EntryKind::Directory, ..) => return wrong("a directory has neither a size nor a link's text"),
            (EntryKind::Symlink, None, link) => {
                FileKind::Symlink { text: link.as_ref().map(|link| link.as_bytes().to_vec()).unwrap_or_default() }
            }
            (EntryKind::Symlink, Some(_), _) => return wrong("a symlink has no size"),
        };
        if self.modified.is_some() && self.kind != EntryKind::File {
            return wrong("only a file has a time");
        }
        Ok(FileEntry { kind, mode: self.mode })
    }

    /// The digests, if they can be those of this entry.
    fn check_digests(&self) -> Result<Option<(u32, PieceDigests)>, String> {
        let Some(ListedDigests { piece, sha256 }) = &self.digests else { return Ok(None) };
        let (digests, rest) = sha256.0.as_chunks::<32>();
        let most = self.size.unwrap_or(0).div_ceil(u64::from((*piece).max(1)));
        if *piece == 0 || !rest.is_empty() || digests.len() as u64 > most {
            return Err(format!("{}: the digests are not those of {most} pieces of {piece} bytes", self.path));
        }
        Ok(Some((*piece, digests.to_vec())))
    }
}

impl Serialize for Entries {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the entries of a data directory")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Entries, A::Error> {
        let (mut listing, mut digests) = (Listing::new(), BTreeMap::new());
        let mut previous: Option<ClusterPath> = None;
        while let Some(listed) = elements.next_element::<ListedEntry>()? {
            if previous.as_ref().is_some_and(|previous| *previous >= listed.path) {
                return Err(A::Error::custom(format_args!("{} is there twice or out of order", listed.path)));
            }
            listing.add(&listed.path, &listed.check().map_err(A::Error::custom)?);
            if let Some(found) = listed.check_digests().map_err(A::Error::custom)? {
                digests.insert(listed.path.clone(), found);
            }
            previous = Some(listed.path);
        }
        Ok(Entries { inventory: listing.finish(), digests })
    }
}

impl JsonSchema for Entries {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Entries".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Vec::<ListedEntry>::json_schema(generator)
    }
}
