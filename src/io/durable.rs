//! Making changes durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use rustix::fs;

use super::place::{Place, io_error};
use crate::error::Result;
use crate::progress::{Progress, Stage};
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
    changed: Mutex<BTreeMap<ClusterPath, Place>>,
}

impl Changes {
    /// Nothing yet.
    pub(super) fn new(method: SyncMethod) -> Self {
        Self { method, changed: Mutex::default() }
    }

    /// Whether anything is made durable at all.
    pub(super) fn wanted(&self) -> bool {
        self.method != SyncMethod::None
    }

    /// Remembers what [`Changes::sync`] must make durable.
    pub(super) fn add(&self, path: &ClusterPath, place: &Place) {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.insert(path.clone(), place.clone());
    }

    /// Makes everything durable that was added since the last call.
    pub(super) fn sync(&self, progress: &dyn Progress) -> Result<()> {
        let changed = std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner));
        match self.method {
            SyncMethod::None => Ok(()),
            SyncMethod::Syncfs => sync_file_systems(&changed),
            SyncMethod::Fsync => {
                progress.begin(Stage::Sync, Some(changed.len() as u64));
                let outcome = sync_each(&changed, progress);
                progress.end();
                outcome
            }
        }
    }
}

fn sync_file_systems(changed: &BTreeMap<ClusterPath, Place>) -> Result<()> {
    let mut devices = BTreeSet::new();
    for (path, place) in changed {
        let device = fs::fstat(&place.root).map_err(|error| io_error("look at the root of", path, error))?.st_dev;
        if devices.insert(device) {
            fs::syncfs(&place.root).map_err(|error| io_error("sync the file system of", path, error))?;
        }
    }
    Ok(())
}

/// First the files, then the directories that hold them.
fn sync_each(changed: &BTreeMap<ClusterPath, Place>, progress: &dyn Progress) -> Result<()> {
    let mut parents = BTreeMap::new();
    for (path, place) in changed {
        place.sync().map_err(|error| io_error("sync", path, error))?;
        parents.insert(path.parent(), (path, place.parent()));
        progress.advance(1);
    }
    for (path, parent) in parents.values() {
        parent.sync().map_err(|error| io_error("sync the directory of", path, error))?;
    }
    Ok(())
}
