//! What an apply would meet where it works, without changing anything: so a plan can tell it beforehand.

use crate::error::Result;
use crate::types::{ClusterPath, LinkText};

/// A file system that holds a part of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Its device number.
    pub device: u64,
    /// Bytes that this user may still write there.
    pub free: u64,
    /// A directory on it, for people.
    pub shown: String,
}

/// The data directory that is to be changed, as far as the way there is concerned. Paths never leave it: no symlink is
/// followed but those at `pg_wal` and in `pg_tblspc` that the target had when this was opened.
pub trait Site {
    /// What would keep this process from changing what is at `path`, in place or by replacing or
    /// removing it; none where nothing would, or where its directory is not there yet.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn obstacle(&self, path: &ClusterPath, in_place: bool) -> Result<Option<&'static str>>;

    /// The file system that `path` is on, or would be; `new_link` is the planned link, and its
    /// text, that it lies beneath, where it lies beneath one.
    ///
    /// # Errors
    /// When the system does not tell.
    fn file_system(&self, path: &ClusterPath, new_link: Option<(&ClusterPath, &LinkText)>) -> Result<FileSystem>;

    /// Whether [`super::TargetStore::create_symlink`] would make all of these links: a tablespace's location
    /// must exist, be ours, be empty and lie outside of the cluster and of the others.
    ///
    /// # Errors
    /// When it would not.
    fn check_symlinks(&self, links: &[(&ClusterPath, &[u8])]) -> Result<()>;

    /// The root that `path` lies beneath, by its link; none for the data directory.
    fn root_link(&self, path: &ClusterPath) -> Option<ClusterPath>;
}
