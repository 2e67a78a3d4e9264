//! What a source and a target are, without saying how their bytes are reached.
//!
//! The traits here are implemented in [`crate::io`]; planning and applying see nothing else of
//! the outside world.

mod compare;
mod inventory;
mod names;
pub mod rules;
mod server_facts;
mod settings;
mod settings_in_force;
mod site;
mod target;

use std::os::fd::BorrowedFd;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use compare::{Comparison, DifferingBlocks, Hashing, Holds, Likeness, LocalFiles, PieceDigests};
pub use inventory::{
    FileEntry, FileKind, FileTime, Inventory, LARGEST_FILE, Listing, SpecialFile, both, contradiction,
};
pub use names::Names;
pub use server_facts::{ServerFacts, ServerSlot, TornPages, torn_pages};
pub use settings::{ReadFile, Settings};
pub use settings_in_force::{InForce, SettingsInForce};
pub use site::{FileSystem, Site};
pub use target::{Durability, Log, NewFile, Owner, PatchFile, ReadAt, Syncing, TargetStore};

use crate::error::Result;
use crate::format::Major;
use crate::progress::Progress;
use crate::types::{ClusterPath, FileMode, LinkText, Lsn, RelFileNumber, WalFileName, WalSegmentSize};

/// The name of the directory in which an apply keeps its state, inside each file system that it
/// changes. Never an action, never copied.
pub const STATE_DIRECTORY: &str = ".pg_unfork";

/// The files in the data directory's state directory that outlive an apply: what it was, what it has done, and
/// the history of all.
pub const STATE_FILES: [&str; 5] = ["history", "journal", "manifest.json", "pg_control.before", "state.json"];

/// The directory below [`STATE_DIRECTORY`] with WAL that was never archived, which only `clean --force` drops.
pub const UNARCHIVED: &str = "unarchived";

/// The file in another root's state directory that names the apply which made it.
pub const OWNER_FILE: &str = "owner";

/// The largest file that is read whole into memory: control file, histories, settings. In bytes.
pub const SMALL_FILE_LIMIT: u64 = 16 << 20;

/// Reads facts about one cluster.
pub trait ClusterReader {
    /// The bytes of `global/pg_control`.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn control_file(&mut self) -> Result<Vec<u8>>;

    /// The bytes of a small file; `None` where it does not exist.
    ///
    /// # Errors
    /// When the file cannot be read or is larger than [`SMALL_FILE_LIMIT`].
    fn read_small(&mut self, path: &ClusterPath) -> Result<Option<Vec<u8>>>;

    /// Every file, directory and symlink of the data directory, by pg_rewind's rules: links are
    /// followed at `pg_wal` and in `pg_tblspc` only, sockets and devices are left out.
    ///
    /// # Errors
    /// When a directory cannot be read, or a name could not be one inside a data directory.
    fn list(&mut self, progress: &dyn Progress) -> Result<Inventory>;

    /// The process id of the server that runs on a directory which should be at rest; none for a
    /// cluster that is reached through its server.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn running_server(&self) -> Result<Option<i32>>;
}

/// The cluster to change, as far as a plan looks at it.
pub trait Target: ClusterReader + WalFiles + LocalFiles {
    /// Its data directory.
    fn directory(&self) -> LinkText;

    /// The data directory's permission bits.
    fn directory_mode(&self) -> FileMode;

    /// Begins what the next [`ClusterReader::list`] gives, if that can go on while something else is done. Nothing
    /// may change the cluster in between.
    fn begin_to_list(&mut self) {}

    /// The links that are followed, and their texts: `pg_wal` and the entries of `pg_tblspc`.
    fn roots(&self) -> Vec<(ClusterPath, LinkText)>;

    /// Which directories of the file system it consists of.
    fn directories(&self) -> Vec<DirectoryId>;

    /// What an apply would meet there.
    ///
    /// # Errors
    /// When a directory that it consists of cannot be opened.
    fn site(&self) -> Result<Box<dyn Site>>;

    /// Lets the `restore_command` that was given for this target restore a segment that its `pg_wal` lacks. It is never
    /// put there: [`WalFiles::open`] finds it for some time, if `check` has found nothing wrong with it.
    ///
    /// # Errors
    /// When the command fails in a way that is final, what it gave is no segment of `size`, or `check` fails.
    fn restore_segment(
        &mut self,
        name: WalFileName,
        size: WalSegmentSize,
        check: &dyn Fn(&dyn WalFile) -> Result<()>,
    ) -> Result<Restored>;

    /// The same for a segment that is had from elsewhere: `read` gives a part of it from an offset on, an empty one at
    /// its end, and none where there is no such segment. Says whether there was.
    ///
    /// # Errors
    /// When `read` or `check` fails, what was read is no segment of `size`, or there is no room for it.
    fn take_segment(
        &mut self,
        name: WalFileName,
        size: WalSegmentSize,
        read: &mut dyn FnMut(u64) -> Result<Option<Vec<u8>>>,
        check: &dyn Fn(&dyn WalFile) -> Result<()>,
    ) -> Result<bool>;
}

/// What a `restore_command` has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It has restored the segment.
    Yes,
    /// It was tried in vain.
    NotThere,
    /// None was given.
    NoCommand,
}

/// A directory of a file system, whatever path leads to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryId {
    /// What it is within the cluster: the data directory, `pg_wal`, a tablespace.
    pub name: String,
    /// The file system's device number.
    pub device: u64,
    /// The directory's inode number.
    pub inode: u64,
    /// Device and inode number of each directory that it lies in, innermost first.
    pub ancestors: Vec<(u64, u64)>,
}

impl DirectoryId {
    /// Whether it lies in `other`, however deep.
    fn is_inside(&self, other: &Self) -> bool {
        self.ancestors.contains(&(other.device, other.inode))
    }
}

/// How two clusters share a directory, or lie in one another; none where they do not.
#[must_use]
pub fn shared_directory(target: &[DirectoryId], source: &[DirectoryId]) -> Option<String> {
    let pairs = || target.iter().flat_map(|ours| source.iter().map(move |theirs| (ours, theirs)));
    let same = pairs().find(|(ours, theirs)| (ours.device, ours.inode) == (theirs.device, theirs.inode));
    if let Some((ours, theirs)) = same {
        return Some(format!("the target's {} is the source's {}", ours.name, theirs.name));
    }
    pairs().find_map(|(ours, theirs)| {
        let (ours_name, theirs_name) = (&ours.name, &theirs.name);
        match (ours.is_inside(theirs), theirs.is_inside(ours)) {
            (true, _) => Some(format!("the target's {ours_name} lies inside the source's {theirs_name}")),
            (_, true) => Some(format!("the source's {theirs_name} lies inside the target's {ours_name}")),
            _ => None,
        }
    })
}

/// Opens WAL segments, for several threads at once.
pub trait WalFiles: Sync {
    /// Opens a segment; `None` where there is no such file.
    ///
    /// # Errors
    /// When the file is there but cannot be opened.
    fn open(&self, name: WalFileName, size: WalSegmentSize) -> Result<Option<Box<dyn WalFile>>>;
}

/// An open WAL segment.
pub trait WalFile {
    /// Reads up to `buffer.len()` bytes at `offset`; fewer only where the file ends.
    ///
    /// # Errors
    /// When reading fails.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize>;

    /// Whether it is from elsewhere than the cluster's own `pg_wal`.
    fn is_spare(&self) -> bool {
        false
    }
}

/// How a source is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// A data directory whose server is stopped: nothing in it may move.
    StoppedDirectory,
    /// A running server, over SQL: it goes on working.
    LiveServer,
}

/// How far a live server's WAL reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Everything before this is on the server's disk. A primary's flush position; for a standby
    /// its control file's minimum recovery point says more, and this is what it has replayed.
    pub lsn: Lsn,
    /// Whether the server is a standby.
    pub in_recovery: bool,
}

/// A part of a file to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The file.
    pub path: ClusterPath,
    /// The first byte.
    pub offset: u64,
    /// How many bytes; to the file's end, as it is then, where none.
    pub length: Option<u64>,
    /// How long the file is thought to be, in bytes: a hint, where it is read to its end.
    pub expected: u64,
}

/// Takes what a source delivers for a list of requests; `index` is the request's place in it.
///
/// A request is delivered by any number of calls with rising offsets, in the order of the
/// requests. A file that ends early gives less than was asked for.
pub trait Sink {
    /// Bytes of the file from `offset` on.
    ///
    /// # Errors
    /// When they cannot be taken; the fetch then ends with this error.
    fn bytes(&mut self, index: usize, offset: u64, data: &[u8]) -> Result<()>;

    /// The open file itself, from which the sink takes what the request asks for.
    ///
    /// # Errors
    /// When it cannot be taken; the fetch then ends with this error.
    fn file(&mut self, index: usize, file: BorrowedFd<'_>) -> Result<()>;

    /// The file does not exist any more.
    ///
    /// # Errors
    /// When that is not acceptable; the fetch then ends with this error.
    fn gone(&mut self, index: usize) -> Result<()>;
}

/// The cluster to follow.
pub trait Source: ClusterReader {
    /// How it is reached.
    fn kind(&self) -> SourceKind;

    /// Where it is, for people: a path, or connection settings without secrets.
    fn address(&self) -> String;

    /// Which directories of this machine's file systems it consists of; none for a server.
    fn directories(&self) -> Vec<DirectoryId>;

    /// What `primary_conninfo` must say to follow it, for a server of this major; none for a
    /// stopped directory.
    fn primary_conninfo(&self, major: Major) -> Option<String>;

    /// The password that it was connected to with, as a setting to append to `primary_conninfo`; none where none was
    /// given, or a password file has it, which a standby reads itself. A secret: never shown, only written where
    /// somebody asked for that.
    fn password_setting(&self) -> Option<String> {
        None
    }

    /// How far its WAL reaches; none for a stopped directory, whose control file tells.
    ///
    /// # Errors
    /// When the server cannot be asked.
    fn position(&mut self) -> Result<Option<Position>>;

    /// What is at `path`, where the source can tell for sure that nothing has moved; `None` where
    /// nothing is. A live server is never asked.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn entry(&mut self, path: &ClusterPath) -> Result<Option<FileEntry>>;

    /// Up to `length` bytes of a file from `offset` on, fewer where it ends; `None` where it does not exist.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn read_part(&mut self, path: &ClusterPath, offset: u64, length: u32) -> Result<Option<Vec<u8>>>;

    /// Whether a file holds these bytes at `offset`.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn holds(&mut self, path: &ClusterPath, offset: u64, bytes: &[u8]) -> Result<Holds> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let found = self.read_part(path, offset, length)?;
        Ok(found.map_or(Holds::NoFile, |found| if found == bytes { Holds::Yes } else { Holds::No }))
    }

    /// Hashes pieces of its files, one list each, in their order. A source that cannot says so by empty lists.
    ///
    /// # Errors
    /// When the source cannot be reached. Of a file that cannot be read there are no digests.
    fn digests(&mut self, files: &[Hashing], progress: &dyn Progress) -> Result<Vec<PieceDigests>> {
        let _ = progress;
        Ok(vec![Vec::new(); files.len()])
    }

    /// Compares files of the target with its own, one [`Likeness`] each, in their order. A live source's files may
    /// change meanwhile: each block is compared as it is when its turn comes.
    ///
    /// # Errors
    /// When the source cannot be reached. A file that cannot be read is [`Likeness::Different`].
    fn compare(
        &mut self,
        files: &[Comparison],
        target: &dyn LocalFiles,
        progress: &dyn Progress,
    ) -> Result<Vec<Likeness>>;

    /// Whether files can be read that nothing names beforehand: not of a listing.
    fn has_files(&self) -> bool {
        true
    }

    /// Delivers parts of files, in the order of `requests`.
    ///
    /// # Errors
    /// When reading fails, or the sink refuses.
    fn fetch(&mut self, requests: &[Request], sink: &mut dyn Sink) -> Result<()>;

    /// What its server says about itself; none for a stopped directory.
    ///
    /// # Errors
    /// When the server cannot be asked.
    fn server_facts(&mut self) -> Result<Option<ServerFacts>> {
        Ok(None)
    }

    /// What databases, by their oids, and relations, by their files, are called on it, as far as its server tells in
    /// a few seconds; nothing for a stopped directory. Nothing depends on it.
    fn names(&mut self, _databases: &[u32], _relations: &[RelFileNumber]) -> Names {
        Names::default()
    }

    /// Begins to look for what [`Source::names`] gives, where that can go on while the source is asked other things;
    /// what comes back waits for it.
    fn begin_names(&mut self, databases: Vec<u32>, relations: Vec<RelFileNumber>) -> Box<dyn FnOnce() -> Names> {
        let names = self.names(&databases, &relations);
        Box::new(move || names)
    }

    /// What all databases and relations are called on it, up to a limit, as far as its server tells in a minute;
    /// nothing for a stopped directory. Nothing depends on it.
    fn all_names(&mut self) -> Names {
        Names::default()
    }

    /// Another handle on the same source, for a thread of its own; none where there is only this one.
    fn another(&self) -> Option<Box<dyn Source + Send>> {
        None
    }
}
