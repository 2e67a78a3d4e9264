//! What is in a data directory.

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

/// What is neither file, directory nor symlink: no entry of a data directory, as pg_rewind sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialFile {
    /// A block or character device.
    Device,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl SpecialFile {
    /// The kind in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Fifo => "named pipe",
            Self::Socket => "socket",
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

/// What is known of one entry, without its path and text, which are in [`Listing::text`].
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Where the path begins; a symlink's text follows it.
    start: usize,
    /// Bytes of a file, or of a symlink's text.
    size: u64,
    seconds: i64,
    /// [`NO_TIME`] where no time is known.
    nanoseconds: u32,
    /// [`NO_MODE`] where no mode is known.
    mode: u16,
    /// Bytes of the path, of which there are less than 4096.
    length: u16,
    kind: SlotKind,
}

#[derive(Clone, Copy, Debug)]
enum SlotKind {
    Directory,
    File,
    Symlink,
}

const NO_TIME: u32 = u32::MAX;
const NO_MODE: u16 = u16::MAX;

/// The entries of a data directory while they are collected: in any order, and of several for one path the last
/// counts.
///
/// A cluster has hundreds of thousands of files: an entry takes some 60 bytes, its path included.
#[derive(Clone, Default)]
pub struct Listing {
    text: Vec<u8>,
    slots: Vec<Slot>,
    special: Vec<(ClusterPath, SpecialFile)>,
}

impl Listing {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many entries were added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Adds an entry.
    pub fn add(&mut self, path: &ClusterPath, entry: &FileEntry) {
        let start = self.text.len();
        let bytes = path.as_bytes();
        self.text.extend_from_slice(bytes);
        let (kind, size, modified) = match &entry.kind {
            FileKind::Directory => (SlotKind::Directory, 0, None),
            FileKind::File { size, modified } => (SlotKind::File, *size, *modified),
            FileKind::Symlink { text } => {
                self.text.extend_from_slice(text);
                (SlotKind::Symlink, text.len() as u64, None)
            }
        };
        self.slots.push(Slot {
            start,
            size,
            seconds: modified.map_or(0, |time| time.seconds),
            nanoseconds: modified.map_or(NO_TIME, |time| time.nanoseconds),
            mode: entry.mode.and_then(|mode| u16::try_from(mode.bits()).ok()).unwrap_or(NO_MODE),
            length: u16::try_from(bytes.len()).unwrap_or(u16::MAX),
            kind,
        });
    }

    /// Notes something that is no entry.
    pub fn note(&mut self, path: ClusterPath, kind: SpecialFile) {
        self.special.push((path, kind));
    }

    /// Adds all of another listing.
    pub fn append(&mut self, other: Self) {
        self.special.extend(other.special);
        let base = self.text.len();
        self.text.extend_from_slice(&other.text);
        self.slots.extend(other.slots.into_iter().map(|slot| Slot { start: base + slot.start, ..slot }));
    }

    /// Puts the entries in order.
    #[must_use]
    pub fn finish(mut self) -> Inventory {
        let text = &self.text;
        // Stable, for the last of equals; and what comes directory by directory is half in order already.
        self.slots.sort_by(|a, b| path_of(text, a).cmp(path_of(text, b)));
        self.slots.reverse();
        self.slots.dedup_by(|a, b| path_of(text, a) == path_of(text, b));
        self.slots.reverse();
        self.slots.shrink_to_fit();
        self.special.sort_by(|(a, _), (b, _)| a.cmp(b));
        Inventory(self)
    }

    fn entry(&self, slot: &Slot) -> FileEntry {
        let modified =
            (slot.nanoseconds != NO_TIME).then_some(FileTime { seconds: slot.seconds, nanoseconds: slot.nanoseconds });
        let kind = match slot.kind {
            SlotKind::Directory => FileKind::Directory,
            SlotKind::File => FileKind::File { size: slot.size, modified },
            SlotKind::Symlink => {
                let from = slot.start + usize::from(slot.length);
                let end = from.saturating_add(usize::try_from(slot.size).unwrap_or(usize::MAX));
                FileKind::Symlink { text: self.text.get(from..end).unwrap_or_default().to_vec() }
            }
        };
        FileEntry { kind, mode: (slot.mode != NO_MODE).then(|| FileMode::new(u32::from(slot.mode))) }
    }
}

/// The bytes of an entry's path.
fn path_of<'t>(text: &'t [u8], slot: &Slot) -> &'t [u8] {
    text.get(slot.start..slot.start + usize::from(slot.length)).unwrap_or_default()
}

/// Everything in a data directory, ordered by raw bytes.
#[derive(Clone, Default)]
pub struct Inventory(Listing);

impl Inventory {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What is at a path; none where nothing is.
    #[must_use]
    pub fn get(&self, path: &ClusterPath) -> Option<FileEntry> {
        self.find(path.as_bytes()).map(|slot| self.0.entry(slot))
    }

    /// What was seen beside the entries, in order of path: only where this machine's file system was asked.
    #[must_use]
    pub fn special(&self) -> &[(ClusterPath, SpecialFile)] {
        &self.0.special
    }

    /// All entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = (ClusterPath, FileEntry)> {
        let Listing { text, slots, .. } = &self.0;
        slots.iter().map(|slot| (ClusterPath::of_known(path_of(text, slot)), self.0.entry(slot)))
    }

    /// What lies below a directory, however deep, in order.
    pub fn below(&self, directory: &[u8]) -> impl Iterator<Item = (ClusterPath, FileEntry)> {
        let Listing { text, slots, .. } = &self.0;
        let inside = [directory, b"/"].concat();
        let first = slots.partition_point(|slot| path_of(text, slot) < inside.as_slice());
        let rest = slots.get(first..).unwrap_or_default().iter();
        rest.map(|slot| (path_of(text, slot), slot))
            .take_while(move |(path, _)| path.starts_with(&inside))
            .map(|(path, slot)| (ClusterPath::of_known(path), self.0.entry(slot)))
    }

    /// The symlinks and their texts, in order.
    pub fn links(&self) -> impl Iterator<Item = (ClusterPath, Vec<u8>)> {
        let Listing { text, slots, .. } = &self.0;
        let links = slots.iter().filter(|slot| matches!(slot.kind, SlotKind::Symlink));
        links.filter_map(|slot| match self.0.entry(slot).kind {
            FileKind::Symlink { text: link } => Some((ClusterPath::of_known(path_of(text, slot)), link)),
            FileKind::Directory | FileKind::File { .. } => None,
        })
    }

    /// Changed by `additions`, which replace what is at their paths.
    #[must_use]
    pub fn with(self, additions: impl IntoIterator<Item = (ClusterPath, FileEntry)>) -> Self {
        let mut listing = self.0;
        additions.into_iter().for_each(|(path, entry)| listing.add(&path, &entry));
        listing.finish()
    }

    fn find(&self, path: &[u8]) -> Option<&Slot> {
        let Listing { text, slots, .. } = &self.0;
        slots.binary_search_by(|slot| path_of(text, slot).cmp(path)).ok().and_then(|place| slots.get(place))
    }
}

impl FromIterator<(ClusterPath, FileEntry)> for Inventory {
    fn from_iter<I: IntoIterator<Item = (ClusterPath, FileEntry)>>(entries: I) -> Self {
        Self::new().with(entries)
    }
}

impl std::fmt::Debug for Listing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listing").field("entries", &self.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Inventory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl PartialEq for Inventory {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Inventory {}

/// Every path that is on at least one of two sides, in order, with what each side has there.
pub fn both<'i>(
    left: &'i Inventory,
    right: &'i Inventory,
) -> impl Iterator<Item = (ClusterPath, Option<FileEntry>, Option<FileEntry>)> + use<'i> {
    let (mut lefts, mut rights) = (left.0.slots.iter().peekable(), right.0.slots.iter().peekable());
    std::iter::from_fn(move || {
        let ours = lefts.peek().map(|slot| path_of(&left.0.text, slot));
        let theirs = rights.peek().map(|slot| path_of(&right.0.text, slot));
        let path = ours.into_iter().chain(theirs).min()?;
        let on_left = if ours == Some(path) { lefts.next() } else { None };
        let on_right = if theirs == Some(path) { rights.next() } else { None };
        let entry = |side: &Inventory, slot: Option<&Slot>| slot.map(|slot| side.0.entry(slot));
        Some((ClusterPath::of_known(path), entry(left, on_left), entry(right, on_right)))
    })
}

/// The largest file that there can be, in bytes: what a JSON reader can count.
pub const LARGEST_FILE: u64 = (1 << 53) - 1;

/// What an inventory says that no data directory can be; none for an honest one. A path lies in a directory,
/// or behind a link of `pg_tblspc`.
#[must_use]
pub fn contradiction(inventory: &Inventory) -> Option<String> {
    // Most entries lie where the one before them does.
    let mut good: &[u8] = b"";
    inventory.0.slots.iter().find_map(|slot| {
        let path = path_of(&inventory.0.text, slot);
        if matches!(slot.kind, SlotKind::File) && slot.size > LARGEST_FILE {
            let shown = ClusterPath::of_known(path);
            return Some(format!("{shown} has {} bytes, more than any file", slot.size));
        }
        let end = path.iter().rposition(|&byte| byte == b'/')?;
        let parent = path.get(..end).unwrap_or_default();
        if parent == good {
            return None;
        }
        let problem = cannot_hold(inventory, parent);
        if problem.is_none() {
            good = parent;
        }
        let shown = |path| ClusterPath::of_known(path).to_string();
        problem.map(|problem| format!("{} lies in {}, which is {problem}", shown(path), shown(parent)))
    })
}

/// Why nothing can lie in `parent`; none where it can.
fn cannot_hold(inventory: &Inventory, parent: &[u8]) -> Option<String> {
    let follows = parent.strip_prefix(b"pg_tblspc/").is_some_and(|name| !name.contains(&b'/'));
    match inventory.find(parent) {
        Some(Slot { kind: SlotKind::Directory, .. }) => None,
        Some(Slot { kind: SlotKind::Symlink, .. }) if follows => None,
        Some(slot) => Some(format!("a {}", inventory.0.entry(slot).kind.words())),
        None => Some("not there".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

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

    /// Paths of few names, so that they meet, and of names that are no text.
    fn paths() -> impl Strategy<Value = ClusterPath> {
        let name = prop_oneof![Just(b"a".to_vec()), Just(b"a-".to_vec()), Just(b"\xff".to_vec()), Just(b"b".to_vec())];
        vec(name, 1..4).prop_map(|names| ClusterPath::new(&names.join(b"/".as_slice())).unwrap())
    }

    fn entries() -> impl Strategy<Value = FileEntry> {
        let time = option::of((any::<i64>(), 0..1_000_000_000_u32));
        let time = time.prop_map(|time| time.map(|(seconds, nanoseconds)| FileTime { seconds, nanoseconds }));
        let kind = prop_oneof![
            Just(FileKind::Directory),
            (any::<u64>(), time).prop_map(|(size, modified)| FileKind::File { size, modified }),
            vec(any::<u8>(), 0..5).prop_map(|text| FileKind::Symlink { text }),
        ];
        (kind, option::of(any::<u32>())).prop_map(|(kind, mode)| FileEntry { kind, mode: mode.map(FileMode::new) })
    }

    fn maps() -> impl Strategy<Value = Vec<(ClusterPath, FileEntry)>> {
        vec((paths(), entries()), 0..20)
    }

    proptest! {
        #[test]
        fn an_inventory_is_an_ordered_map(first in maps(), second in maps(), asked in paths()) {
            let map: BTreeMap<_, _> = first.iter().chain(&second).cloned().collect();
            let mut listing = Listing::new();
            first.iter().for_each(|(path, entry)| listing.add(path, entry));
            let mut more = Listing::new();
            second.iter().for_each(|(path, entry)| more.add(path, entry));
            listing.append(more);
            let inventory = listing.finish();
            prop_assert!(inventory.iter().eq(map.clone()));
            prop_assert_eq!(inventory.get(&asked), map.get(&asked).cloned());
            let below = map.clone().into_iter().filter(|(path, _)| path.below(asked.as_bytes()).is_some());
            prop_assert!(inventory.below(asked.as_bytes()).eq(below));
            let links = map.clone().into_iter().filter_map(|(path, entry)| match entry.kind {
                FileKind::Symlink { text } => Some((path, text)),
                FileKind::Directory | FileKind::File { .. } => None,
            });
            prop_assert!(inventory.links().eq(links));
            prop_assert_eq!(first.into_iter().collect::<Inventory>().with(second), inventory);
        }

        #[test]
        fn two_sides_are_joined_by_path(left in maps(), right in maps()) {
            let maps = [&left, &right].map(|side| side.iter().cloned().collect::<BTreeMap<_, _>>());
            let paths: BTreeSet<_> = maps.iter().flat_map(BTreeMap::keys).cloned().collect();
            let expected = paths.into_iter().map(|path| {
                let [ours, theirs] = maps.each_ref().map(|map| map.get(&path).cloned());
                (path, ours, theirs)
            });
            let (left, right): (Inventory, Inventory) = (left.into_iter().collect(), right.into_iter().collect());
            prop_assert!(both(&left, &right).eq(expected));
        }
    }
}
