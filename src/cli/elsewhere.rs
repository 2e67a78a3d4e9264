//! Documents are written elsewhere: nothing below a target or a source changes.

use std::path::{Path, PathBuf};

use pg_unfork::error::{Error, Result};
use pg_unfork::io::{DataDirectory, real_directory_of};

/// Refuses to write `what` to a file below one of these clusters, or below what their links lead to.
pub(super) fn refuse_inside(what: &str, file: Option<&Path>, clusters: &[&DataDirectory]) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let real = real_directory_of(file)?;
    let own = |cluster: &&DataDirectory| -> Vec<PathBuf> {
        std::iter::once(cluster.path().to_owned()).chain(cluster.followed()).collect()
    };
    match clusters.iter().flat_map(own).find(|directory| real.starts_with(directory)) {
        None => Ok(()),
        Some(directory) => {
            Err(Error::precondition(format!("the {what} cannot be written below {}", directory.display()))
                .hint("nothing is changed below target and source: name a file elsewhere"))
        }
    }
}
