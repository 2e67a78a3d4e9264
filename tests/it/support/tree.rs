//! What a directory contains, and how two directories differ.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::cluster::Cluster;

/// One entry of a tree, without what may differ between equal trees (times, inode).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `file`, `directory`, `link`, `socket`, `fifo` or `other`.
    pub(crate) kind: &'static str,
    /// Size of a file, 0 for everything else.
    pub(crate) size: u64,
    /// Permission bits; those of a link are always the same.
    pub(crate) mode: u32,
    /// Where a link leads, with the cluster's own directory written `{base}`.
    pub(crate) link: Option<Vec<u8>>,
    /// SHA-256 of a file's content; none where it may not be read.
    pub(crate) sha256: Option<[u8; 32]>,
}

/// Everything below a directory, as it was when it was read. What is behind `pg_wal` and behind
/// the links in `pg_tblspc` belongs to it, as it does for PostgreSQL.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    root: PathBuf,
    base: PathBuf,
    /// By path relative to the root, as bytes.
    pub(crate) entries: BTreeMap<Vec<u8>, Entry>,
}

impl Tree {
    /// Reads a cluster's data directory.
    pub(crate) fn of(cluster: &Cluster) -> Self {
        Self::read(&cluster.data(), cluster.base())
    }

    /// Reads `root`; links below `base` are recorded relative to it.
    pub(crate) fn read(root: &Path, base: &Path) -> Self {
        let mut tree = Self { root: root.to_owned(), base: base.to_owned(), entries: BTreeMap::new() };
        tree.read_directory(Path::new(""));
        tree
    }

    /// The entry of a path.
    pub(crate) fn get(&self, path: impl AsRef<OsStr>) -> Option<&Entry> {
        self.entries.get(path.as_ref().as_bytes())
    }

    fn read_directory(&mut self, below: &Path) {
        let directory = self.root.join(below);
        let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        for entry in entries {
            let path = below.join(entry.expect("a directory entry").file_name());
            self.read_entry(&path);
        }
    }

    fn read_entry(&mut self, path: &Path) {
        let absolute = self.root.join(path);
        let metadata = fs::symlink_metadata(&absolute).expect("a directory entry");
        let entry = self.entry(&absolute, &metadata);
        let descend = metadata.is_dir() || (metadata.is_symlink() && is_followed(path));
        self.entries.insert(path.as_os_str().as_bytes().to_vec(), entry);
        if descend {
            self.read_directory(path);
        }
    }

    fn entry(&self, path: &Path, metadata: &Metadata) -> Entry {
        let is_file = metadata.is_file();
        Entry {
            kind: kind(metadata),
            size: if is_file { metadata.len() } else { 0 },
            mode: metadata.mode() & 0o7777,
            link: metadata.is_symlink().then(|| self.link_text(path)),
            sha256: is_file.then(|| content(path)).flatten(),
        }
    }

    fn link_text(&self, path: &Path) -> Vec<u8> {
        let text = fs::read_link(path).expect("a link");
        match text.strip_prefix(&self.base) {
            Ok(below) => Path::new("{base}").join(below).into_os_string().into_vec(),
            Err(_) => text.into_os_string().into_vec(),
        }
    }
}

/// Times of last modification of files, by path.
pub(crate) type Times = BTreeMap<PathBuf, (i64, i64)>;

/// When the files of a cluster were last modified.
pub(crate) fn modification_times(cluster: &Cluster) -> Times {
    let tree = Tree::of(cluster);
    let files = tree.entries.iter().filter(|(_, entry)| entry.kind == "file");
    let times = files.map(|(path, _)| {
        let path = PathBuf::from(OsStr::from_bytes(path));
        let metadata = fs::symlink_metadata(tree.root.join(&path)).expect("a file");
        (path, (metadata.mtime(), metadata.mtime_nsec()))
    });
    times.filter(|(path, _)| !is_own_state(path)).collect()
}

/// The paths whose times differ.
pub(crate) fn different_times(left: &Times, right: &Times) -> Vec<String> {
    let differ = left.iter().filter(|(path, time)| right.get(*path) != Some(time));
    differ.map(|(path, _)| path.display().to_string()).collect()
}

/// Whether a path belongs to the program under test.
pub(crate) fn is_own_state(path: &Path) -> bool {
    path.components().any(|component| component.as_os_str() == ".pg_unfork")
}

/// One line per path in which two trees differ, apart from the paths to `ignore`. If both
/// directories still are what they were, a line about content says where it differs.
pub(crate) fn diff(left: &Tree, right: &Tree, ignore: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let mut paths: Vec<&Vec<u8>> = left.entries.keys().chain(right.entries.keys()).collect();
    paths.sort();
    paths.dedup();
    paths
        .into_iter()
        .map(|path| Path::new(OsStr::from_bytes(path)))
        .filter(|path| !ignore(path))
        .filter_map(|path| difference(left, right, path))
        .collect()
}

fn difference(left: &Tree, right: &Tree, path: &Path) -> Option<String> {
    let (a, b) = match (left.get(path), right.get(path)) {
        (Some(a), Some(b)) if a == b => return None,
        (Some(a), Some(b)) => (a, b),
        (Some(a), None) => return Some(format!("{path:?}: only left ({})", a.kind)),
        (None, Some(b)) => return Some(format!("{path:?}: only right ({})", b.kind)),
        (None, None) => return None,
    };
    let mut line = format!("{path:?}:");
    if a.kind != b.kind {
        write!(line, " {} / {}", a.kind, b.kind).unwrap();
    }
    if a.mode != b.mode {
        write!(line, " mode {:04o} / {:04o}", a.mode, b.mode).unwrap();
    }
    if a.size != b.size {
        write!(line, " size {} / {}", a.size, b.size).unwrap();
    }
    if a.link != b.link {
        write!(line, " link {} / {}", text(a), text(b)).unwrap();
    }
    if a.sha256 != b.sha256 {
        let place = first_difference(&left.root.join(path), &right.root.join(path));
        write!(line, " content{place}").unwrap();
    }
    Some(line)
}

fn text(entry: &Entry) -> String {
    let bytes = entry.link.as_deref().unwrap_or(b"none");
    String::from_utf8_lossy(bytes).into_owned()
}

fn first_difference(left: &Path, right: &Path) -> String {
    let (Ok(a), Ok(b)) = (fs::read(left), fs::read(right)) else {
        return String::new();
    };
    let first = a.iter().zip(&b).position(|(a, b)| a != b);
    first.map_or_else(String::new, |at| format!(" from byte {at} (block {} + {})", at / 8192, at % 8192))
}

fn is_followed(path: &Path) -> bool {
    path == Path::new("pg_wal") || path.parent() == Some(Path::new("pg_tblspc"))
}

fn kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    match () {
        () if kind.is_file() => "file",
        () if kind.is_dir() => "directory",
        () if kind.is_symlink() => "link",
        () if kind.is_socket() => "socket",
        () if kind.is_fifo() => "fifo",
        () => "other",
    }
}

/// The digest of a file's content; none where it may not be read.
fn content(path: &Path) -> Option<[u8; 32]> {
    match digest(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
        outcome => Some(outcome.expect("a readable file")),
    }
}

fn digest(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hash.finalize().into());
        }
        hash.update(&buffer[..count]);
    }
}
