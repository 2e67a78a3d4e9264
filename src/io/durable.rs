//! Making changes durable.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::fs;

use super::beneath::OsResult;
use super::place::{Place, io_error};
use crate::cluster::Syncing;
use crate::error::{Context, Error, Result};
use crate::interrupt::Interrupt;
use crate::progress::{Progress, Silent, Stage};
use crate::types::ClusterPath;

/// How changes are made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncMethod {
    /// Each file and directory that was changed, by `fsync`.
    #[default]
    Fsync,
    /// Each file system that was changed, as a whole, by `syncfs`.
    Syncfs,
    /// Not at all (`-N`): a crash of the machine may lose them.
    None,
}

/// What was changed and must be made durable; files that are being written share it with their
/// store.
#[derive(Debug)]
pub(super) struct Changes {
    method: SyncMethod,
    changed: Mutex<BTreeMap<ClusterPath, Changed>>,
    interrupt: Interrupt,
}

impl Changes {
    /// Nothing yet. Whoever sets `interrupt` does not wait until all is durable.
    pub(super) fn new(method: SyncMethod, interrupt: Interrupt) -> Self {
        Self { method, changed: Mutex::default(), interrupt }
    }

    /// How changes are made durable.
    pub(super) fn method(&self) -> SyncMethod {
        self.method
    }

    /// Whether anything is made durable at all.
    pub(super) fn wanted(&self) -> bool {
        self.method != SyncMethod::None
    }

    /// Remembers what [`Changes::sync`] must make durable.
    pub(super) fn add(&self, path: &ClusterPath, place: &Place) {
        self.insert(path, Changed { place: place.clone(), file: None });
    }

    /// The same for a file that may have another name by then.
    pub(super) fn add_file(&self, path: &ClusterPath, place: Place, file: OwnedFd) {
        self.insert(path, Changed { place, file: Some(file) });
    }

    fn insert(&self, path: &ClusterPath, changed: Changed) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), changed);
    }

    /// Makes everything durable that was added since the last call.
    pub(super) fn sync(&self, progress: &dyn Progress) -> Result<()> {
        self.make_durable(&self.take(), progress)
    }

    /// Begins to make everything durable that was added since the last call.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn begin_sync(self: &Arc<Self>) -> Result<InBackground> {
        let (changes, changed) = (Arc::clone(self), self.take());
        let thread = thread::Builder::new().spawn(move || changes.make_durable(&changed, &Silent));
        thread.map(InBackground).context(|| "cannot start a thread".to_owned())
    }

    fn take(&self) -> BTreeMap<ClusterPath, Changed> {
        std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn make_durable(&self, changed: &BTreeMap<ClusterPath, Changed>, progress: &dyn Progress) -> Result<()> {
        match self.method {
            SyncMethod::None => Ok(()),
            SyncMethod::Syncfs => sync_file_systems(changed),
            SyncMethod::Fsync => {
                progress.begin(Stage::Sync, Some(changed.len() as u64));
                let outcome = sync_each(changed, progress, &self.interrupt);
                progress.end();
                outcome
            }
        }
    }
}

/// Something that was changed.
#[derive(Debug)]
struct Changed {
    place: Place,
    /// The file, where the place need not lead to it any more.
    file: Option<OwnedFd>,
}

impl Changed {
    fn sync(&self) -> OsResult<()> {
        match &self.file {
            Some(file) => fs::fsync(file),
            None => self.place.sync(),
        }
    }
}

/// A thread that makes changes durable.
pub(super) struct InBackground(JoinHandle<Result<()>>);

impl Syncing for InBackground {
    fn wait(self: Box<Self>) -> Result<()> {
        self.0.join().unwrap_or_else(|_| Err(Error::failure("a thread that made files durable has died")))
    }
}

fn sync_file_systems(changed: &BTreeMap<ClusterPath, Changed>) -> Result<()> {
    let mut devices = BTreeSet::new();
    let mut sync = |path: &ClusterPath, on: BorrowedFd<'_>| {
        let device = fs::fstat(on).map_err(|error| io_error("look at the file system of", path, error))?.st_dev;
        if devices.insert(device) {
            fs::syncfs(on).map_err(|error| io_error("sync the file system of", path, error))?;
        }
        Ok(())
    };
    for (path, Changed { place, file }) in changed {
        sync(path, place.root.as_fd())?;
        // Something may be mounted below the root.
        match file {
            Some(file) => sync(path, file.as_fd())?,
            None => sync(path, place.nearest().map_err(|error| io_error("open", path, error))?.as_fd())?,
        }
    }
    Ok(())
}

/// Files that are synced at a time: a journaling file system writes its journal once for all of them.
const AT_A_TIME: usize = 8;

/// First the files, then the directories that hold them.
fn sync_each(changed: &BTreeMap<ClusterPath, Changed>, progress: &dyn Progress, interrupt: &Interrupt) -> Result<()> {
    let files: Vec<_> = changed.iter().collect();
    for part in files.chunks(256) {
        sync_together(part, "sync", Changed::sync, interrupt)?;
        progress.advance(part.len() as u64);
    }
    let parents = directories(changed);
    let parents: Vec<_> = parents.iter().map(|(path, parent)| (*path, parent)).collect();
    sync_together(&parents, "sync the directory of", Place::sync, interrupt)
}

/// Syncs several at a time; gives the first failure.
fn sync_together<T: Sync>(
    changed: &[(&ClusterPath, &T)],
    what: &str,
    sync: impl Fn(&T) -> OsResult<()> + Sync,
    interrupt: &Interrupt,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((path, one)) = changed.get(next.fetch_add(1, Ordering::Relaxed)) {
            interrupt.check_grace()?;
            sync(one).map_err(|error| io_error(what, path, error))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..AT_A_TIME.min(changed.len())).map(|_| scope.spawn(work)).collect();
        let own = work();
        let others = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(Error::failure("a thread that made files durable has died")))
        });
        others.fold(own, Result::and)
    })
}

/// The directories of what was changed, by where they are: a draft's directory is not that of the path which it is for.
fn directories(changed: &BTreeMap<ClusterPath, Changed>) -> Vec<(&ClusterPath, Place)> {
    let parents = changed.iter().map(|(path, changed)| (path, changed.place.parent()));
    let distinct: BTreeMap<_, _> =
        parents.map(|(path, parent)| ((parent.root.as_raw_fd(), parent.rest.clone()), (path, parent))).collect();
    distinct.into_values().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use super::*;
    use crate::io::place::open_directory;

    #[test]
    fn each_directory_that_was_changed_is_made_durable() {
        let open = || Arc::new(open_directory(Path::new("/")).unwrap());
        let (root, other) = (open(), open());
        let changed = [
            ("pg_wal/1", &root, "pg_wal/1"),
            ("pg_wal/2", &root, "pg_wal/2"),
            // A draft that is gone on with later, of a file in the same directory.
            ("pg_wal/3", &root, ".pg_unfork/new.3"),
            ("pg_tblspc/1/pg_wal/1", &other, "pg_wal/1"),
        ];
        let changed: BTreeMap<_, _> = changed
            .into_iter()
            .map(|(path, root, rest)| {
                let place = Place { root: Arc::clone(root), rest: PathBuf::from(rest) };
                (ClusterPath::new(path.as_bytes()).unwrap(), Changed { place, file: None })
            })
            .collect();
        let mut found: Vec<_> =
            directories(&changed).into_iter().map(|(_, place)| (place.root.as_raw_fd(), place.rest)).collect();
        found.sort();
        let mut expected = vec![(&root, ".pg_unfork"), (&root, "pg_wal"), (&other, "pg_wal")]
            .into_iter()
            .map(|(root, rest)| (root.as_raw_fd(), PathBuf::from(rest)))
            .collect::<Vec<_>>();
        expected.sort();
        assert_eq!(found, expected);
    }
}
