//! Listing a data directory with several threads.
//!
//! A cluster may have hundreds of thousands of files, most of them in one directory: so not only directories are
//! shared out, but also the names of a large one. Each directory is opened once, and what is in it is looked at from
//! there.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use super::data_directory::unusable;
use super::place::{entry_of, open_directory};
use crate::cluster::rules::{PathRule, rule_of};
use crate::cluster::{FileEntry, FileKind, Listing, SpecialFile};
use crate::error::{Context, Error, Result};
use crate::progress::Progress;
use crate::types::ClusterPath;

/// Threads that walk; with a cold cache more than there are cores do not get in each other's way.
pub(super) const THREADS: usize = 4;
/// Names of one directory that a thread looks at, at a time.
const NAMES: usize = 512;

/// Lists everything below `root` by the rules of [`crate::cluster::ClusterReader::list`]. Of several errors the one at
/// the first path counts.
pub(super) fn walk(root: &Path, threads: usize, progress: &dyn Progress) -> Result<Listing> {
    let directory = open_directory(root).map_err(|error| unusable("list", root, error.into()))?;
    let walk =
        Walk { path: root, root: directory, work: Mutex::default(), changed: Condvar::new(), seen: AtomicU64::new(0) };
    walk.add(Task::Directory(None));
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map_while(|_| thread::Builder::new().spawn_scoped(scope, || walk.take_part(None)).ok())
            .collect();
        let mut found = walk.take_part(Some(progress));
        for other in others {
            let part = other.join().map_err(|_| Error::failure("a thread that lists files has died"))?;
            found.append(part);
        }
        match walk.lock().failures.pop_first() {
            Some((_, error)) => Err(error),
            None => Ok(found),
        }
    })
}

/// A walk that several threads take part in.
struct Walk<'a> {
    path: &'a Path,
    root: OwnedFd,
    work: Mutex<Work>,
    /// There is more to do, or nothing any more.
    changed: Condvar,
    /// Entries that were found.
    seen: AtomicU64,
}

/// What is to be done, and how that goes.
#[derive(Default)]
struct Work {
    tasks: Vec<Task>,
    /// Threads that are at work, and may find more to do.
    busy: usize,
    /// The failure at the first path.
    failures: BTreeMap<Vec<u8>, Error>,
}

enum Task {
    /// List this directory; the data directory itself where none.
    Directory(Option<ClusterPath>),
    /// Look at some of the names of an open directory.
    Names(Arc<Opened>, Vec<CString>),
}

/// A directory that is listed.
struct Opened {
    path: Option<ClusterPath>,
    directory: OwnedFd,
}

/// A thread is at work until this is dropped, whatever happens to it.
struct Busy<'a>(&'a Walk<'a>);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.lock().busy -= 1;
        self.0.changed.notify_all();
    }
}

impl Walk<'_> {
    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, task: Task) {
        self.lock().tasks.push(task);
        self.changed.notify_one();
    }

    /// Works until there is nothing more to do; gives what this thread has found.
    fn take_part(&self, progress: Option<&dyn Progress>) -> Listing {
        let mut found = Listing::new();
        let mut shown = 0;
        while let Some((task, _busy)) = self.next() {
            let done = match task {
                Task::Directory(path) => self.list(path, &mut found),
                Task::Names(directory, names) => self.look_at(&directory, &names, &mut found),
            };
            if let Err((path, error)) = done {
                let mut work = self.lock();
                work.failures.entry(path).or_insert(error);
                while work.failures.len() > 1 {
                    work.failures.pop_last();
                }
            }
            if let Some(progress) = progress {
                let seen = self.seen.load(Ordering::Relaxed);
                progress.advance(seen - shown);
                shown = seen;
            }
        }
        found
    }

    /// Waits for something to do; none where nothing can come any more.
    fn next(&self) -> Option<(Task, Busy<'_>)> {
        let mut work = self.lock();
        loop {
            if let Some(task) = work.tasks.pop() {
                work.busy += 1;
                return Some((task, Busy(self)));
            }
            if work.busy == 0 {
                return None;
            }
            work = self.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lists a directory, and hands on what is too much for one thread.
    fn list(&self, path: Option<ClusterPath>, found: &mut Listing) -> Outcome {
        let name = path.as_ref().map_or(Path::new("."), as_path);
        let at = path.as_ref().map_or(Vec::new(), |path| path.as_bytes().to_vec());
        let full = self.path.join(path.as_ref().map_or(Path::new(""), as_path));
        let unlistable = |error: Errno| (at.clone(), unusable("list", &full, error.into()));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match fs::openat(&self.root, name, flags, Mode::empty()) {
            // Gone since its own entry was read, or a tablespace's link that leads nowhere.
            Err(Errno::NOENT) => return Ok(()),
            opened => opened.map_err(unlistable)?,
        };
        let entries = fs::Dir::read_from(&directory).map_err(unlistable)?;
        let opened = Arc::new(Opened { path, directory });
        let mut names = Vec::new();
        for entry in entries {
            let entry = match entry {
                // Removed meanwhile, with all that was in it.
                Err(Errno::NOENT) => break,
                entry => entry.map_err(unlistable)?,
            };
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            names.push(entry.file_name().to_owned());
            if names.len() == NAMES {
                self.add(Task::Names(Arc::clone(&opened), std::mem::take(&mut names)));
            }
        }
        self.look_at(&opened, &names, found)
    }

    fn look_at(&self, directory: &Opened, names: &[CString], found: &mut Listing) -> Outcome {
        let mut first: Outcome = Ok(());
        for name in names {
            let outcome = self.look_at_one(directory, name, found);
            // Of an ordered directory's names the first that fails counts.
            if let Err((path, error)) = outcome
                && first.as_ref().err().is_none_or(|(before, _)| path < *before)
            {
                first = Err((path, error));
            }
        }
        self.seen.fetch_add(names.len() as u64, Ordering::Relaxed);
        first
    }

    fn look_at_one(&self, directory: &Opened, name: &CStr, found: &mut Listing) -> Outcome {
        let path = match &directory.path {
            Some(directory) => directory.join(name.to_bytes()),
            None => ClusterPath::new(name.to_bytes()),
        };
        let path = path
            .context(|| {
                let directory = self.path.join(directory.path.as_ref().map_or(Path::new(""), as_path));
                format!("{} holds a name that cannot be used", directory.display())
            })
            .map_err(|error| (directory.path.as_ref().map_or(Vec::new(), |path| path.as_bytes().to_vec()), error))?;
        let entry = look(directory.directory.as_fd(), name, &path, self.path)
            .map_err(|error| (path.as_bytes().to_vec(), error))?;
        if let Some(entry) = entry {
            found.add(&path, &entry);
            if descends(&path, &entry.kind) {
                self.add(Task::Directory(Some(path)));
            }
        } else if let Some(kind) = special(directory.directory.as_fd(), name) {
            found.note(path, kind);
        }
        Ok(())
    }
}

/// What came of a task: where it failed, and why.
type Outcome = std::result::Result<(), (Vec<u8>, Error)>;

fn as_path(path: &ClusterPath) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()))
}

/// What is at `name` in a directory, which is at `path` of the data directory `root`; none for what is gone, or is
/// neither file, directory nor symlink. `pg_wal` is a directory wherever it is.
pub(super) fn look(
    directory: BorrowedFd<'_>,
    name: impl Arg + Copy,
    path: &ClusterPath,
    root: &Path,
) -> Result<Option<FileEntry>> {
    let full = || root.join(as_path(path));
    let status = match fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(status) => status,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error).context(|| format!("cannot look at {}", full().display())),
    };
    if FileType::from_raw_mode(status.st_mode) != FileType::Symlink {
        return Ok(entry_of(&status, None));
    }
    let text = match fs::readlinkat(directory, name, Vec::new()) {
        Err(Errno::NOENT) => return Ok(None),
        text => text,
    };
    let text = text.context(|| format!("cannot read the link {}", full().display()))?.into_bytes();
    let entry = entry_of(&status, Some(text));
    let is_wal = path.as_bytes() == b"pg_wal";
    Ok(entry.map(|entry| if is_wal { FileEntry { kind: FileKind::Directory, ..entry } } else { entry }))
}

/// What is at `name`, if that is neither file, directory nor symlink.
fn special(directory: BorrowedFd<'_>, name: &CStr) -> Option<SpecialFile> {
    let status = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::Socket => Some(SpecialFile::Socket),
        FileType::Fifo => Some(SpecialFile::Fifo),
        FileType::BlockDevice | FileType::CharacterDevice => Some(SpecialFile::Device),
        _ => None,
    }
}

/// Directories, and the links in `pg_tblspc`.
fn descends(path: &ClusterPath, kind: &FileKind) -> bool {
    match kind {
        FileKind::Directory => rule_of(path) != PathRule::OwnState,
        FileKind::Symlink { .. } => path.below(b"pg_tblspc").is_some_and(|name| !name.contains(&b'/')),
        FileKind::File { .. } => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::cluster::{FileTime, Inventory, both};
    use crate::progress::Silent;
    use crate::types::FileMode;

    /// What the rules say, step by step.
    fn one_by_one(root: &Path, directory: Option<&ClusterPath>, found: &mut Vec<(ClusterPath, FileEntry)>) {
        let full = root.join(directory.map_or(Path::new(""), as_path));
        let Ok(entries) = std::fs::read_dir(full) else { return };
        for entry in entries {
            let name = entry.unwrap().file_name();
            let path = match directory {
                Some(directory) => directory.join(name.as_bytes()).unwrap(),
                None => ClusterPath::new(name.as_bytes()).unwrap(),
            };
            let full = root.join(as_path(&path));
            let status = std::fs::symlink_metadata(&full).unwrap();
            let nanoseconds = u32::try_from(status.mtime_nsec()).unwrap();
            let modified = Some(FileTime { seconds: status.mtime(), nanoseconds });
            let kind = if status.is_dir() || (status.is_symlink() && path.as_bytes() == b"pg_wal") {
                FileKind::Directory
            } else if status.is_symlink() {
                FileKind::Symlink { text: std::fs::read_link(&full).unwrap().as_os_str().as_bytes().to_vec() }
            } else if status.is_file() {
                FileKind::File { size: status.len(), modified }
            } else {
                continue;
            };
            let in_tablespaces = path.parent().is_some_and(|parent| parent.as_bytes() == b"pg_tblspc");
            let below = kind == FileKind::Directory || (in_tablespaces && matches!(kind, FileKind::Symlink { .. }));
            found.push((path.clone(), FileEntry { kind, mode: Some(FileMode::new(status.mode())) }));
            if below && path.file_name() != b".pg_unfork" {
                one_by_one(root, Some(&path), found);
            }
        }
    }

    /// A data directory with all that a walk meets: large and nested directories, links of each sort, names that are
    /// no text, and what is no file.
    fn directory() -> tempfile::TempDir {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("data");
        let elsewhere = scratch.path().join("elsewhere");
        for directory in ["base/5/deep/er", "empty", ".pg_unfork", "pg_tblspc", "pg_walx"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        std::fs::create_dir_all(elsewhere.join("PG_18/5")).unwrap();
        for number in 0..3 * NAMES + 7 {
            let file = root.join(format!("base/5/{number}"));
            std::fs::write(&file, vec![1; number]).unwrap();
        }
        for file in ["base/5-x", "base/5/deep/er/file", ".pg_unfork/state.json", "pg_walx/1", "a\n", "%41"] {
            std::fs::write(root.join(file), "content").unwrap();
        }
        std::fs::write(root.join(std::ffi::OsStr::from_bytes(b"base/\xff\xfe")), "x").unwrap();
        std::fs::write(elsewhere.join("PG_18/5/1"), "there").unwrap();
        std::fs::set_permissions(root.join("%41"), std::fs::Permissions::from_mode(0o4640)).unwrap();
        for (text, link) in [
            (elsewhere.to_str().unwrap(), "pg_tblspc/16400"),
            ("nowhere", "pg_tblspc/16401"),
            ("..", "pg_tblspc/16402"),
            ("../elsewhere", "pg_wal"),
            ("base", "link"),
            ("base/5", "base/link"),
        ] {
            symlink(text, root.join(link)).unwrap();
        }
        UnixListener::bind(root.join(".s.PGSQL.1")).unwrap();
        scratch
    }

    #[test]
    fn any_number_of_threads_finds_what_one_after_the_other_finds() {
        let scratch = directory();
        let root = scratch.path().join("data");
        let mut expected = Vec::new();
        one_by_one(&root, None, &mut expected);
        let expected: Inventory = expected.into_iter().collect();
        assert!(expected.iter().any(|(path, _)| path.as_bytes() == b"pg_tblspc/16402/base/\xff\xfe"));
        for threads in [1, 2, 3, 16] {
            let found = walk(&root, threads, &Silent).unwrap().finish();
            let different = both(&found, &expected).find(|(_, ours, theirs)| ours != theirs);
            assert_eq!(different, None, "{threads} threads");
            // The last one by way of a tablespace that leads to the data directory itself.
            let sockets: Vec<String> = found.special().iter().map(|(path, kind)| format!("{path} {kind:?}")).collect();
            assert_eq!(sockets, [".s.PGSQL.1 Socket", "pg_tblspc/16402/.s.PGSQL.1 Socket"]);
        }
    }

    #[test]
    fn the_first_failure_counts() {
        let scratch = directory();
        let root = scratch.path().join("data");
        // A link of a tablespace that leads to a file, to itself, and to itself again.
        for (text, link) in [("../a\n", "pg_tblspc/5"), ("6", "pg_tblspc/6"), ("60", "pg_tblspc/60")] {
            symlink(text, root.join(link)).unwrap();
        }
        let failure = |threads| walk(&root, threads, &Silent).unwrap_err().to_string();
        for _ in 0..20 {
            assert_eq!(failure(4), format!("cannot list {}", root.join("pg_tblspc/5").display()));
        }
        std::fs::remove_file(root.join("pg_tblspc/5")).unwrap();
        assert_eq!(failure(1), format!("cannot list {}", root.join("pg_tblspc/6").display()));
        assert_eq!(failure(4), failure(1));
    }

    #[test]
    fn what_vanishes_meanwhile_is_not_there() {
        let scratch = directory();
        let root = scratch.path().join("data");
        let gone = Opened { path: None, directory: open_directory(&root).unwrap() };
        let walk = Walk {
            path: &root,
            root: open_directory(&root).unwrap(),
            work: Mutex::default(),
            changed: Condvar::new(),
            seen: AtomicU64::new(0),
        };
        let mut found = Listing::new();
        let names = [c"no such file".to_owned(), c"%41".to_owned()];
        assert!(walk.look_at(&gone, &names, &mut found).is_ok());
        assert!(walk.list(Some(ClusterPath::new(b"no such directory").unwrap()), &mut found).is_ok());
        assert_eq!(found.len(), 1);
    }
}
