//! What a cluster's own files of settings say, without asking a server.

use std::collections::BTreeMap;

use super::{ClusterReader, FileKind, Inventory};
use crate::error::Result;
use crate::format::{Setting, parse_settings};
use crate::types::ClusterPath;

/// How deep files may name one another, as in PostgreSQL.
const DEEPEST: usize = 10;

/// The settings that the files in a data directory give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<String, String>,
    /// Files that were read: `postgresql.conf`, what it includes, `postgresql.auto.conf`.
    pub files: Vec<ClusterPath>,
    /// Files that are named and could not be read: outside the data directory, or not there. What they say is unknown.
    pub unread: Vec<String>,
}

impl Settings {
    /// The value of a parameter (lower case), if a file gives it one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Reads `postgresql.conf` with what it includes, and `postgresql.auto.conf`.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn read(cluster: &mut dyn ClusterReader, files: &Inventory) -> Result<Self> {
        let mut settings = Self::default();
        settings.take_file(b"postgresql.conf", cluster, files, 0)?;
        settings.take_file(b"postgresql.auto.conf", cluster, files, 0)?;
        Ok(settings)
    }

    fn take_file(
        &mut self,
        path: &[u8],
        cluster: &mut dyn ClusterReader,
        files: &Inventory,
        depth: usize,
    ) -> Result<bool> {
        let path = ClusterPath::new(path).ok().filter(|path| files.get(path).is_some_and(|e| e.size().is_some()));
        let Some(path) = path.filter(|_| depth <= DEEPEST) else { return Ok(false) };
        let Some(bytes) = cluster.read_small(&path)? else { return Ok(false) };
        self.files.push(path.clone());
        for setting in parse_settings(&bytes) {
            if setting.is_include() {
                self.include(&setting, &path, cluster, files, depth + 1)?;
            } else {
                self.values.insert(setting.name, setting.value);
            }
        }
        Ok(true)
    }

    fn include(
        &mut self,
        setting: &Setting,
        from: &ClusterPath,
        cluster: &mut dyn ClusterReader,
        files: &Inventory,
        depth: usize,
    ) -> Result<()> {
        let beside = from.as_bytes().iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let named = [from.as_bytes().get(..beside).unwrap_or_default(), setting.value.as_bytes()].concat();
        let known = if setting.name == "include_dir" {
            let inside = settings_in(&named, files);
            for path in inside.iter().flatten() {
                self.take_file(path.as_bytes(), cluster, files, depth)?;
            }
            inside.is_some()
        } else {
            self.take_file(&named, cluster, files, depth)?
        };
        let may_lack = setting.name == "include_if_exists" && !setting.value.starts_with('/');
        if !known && !may_lack {
            self.unread.push(setting.value.clone());
        }
        Ok(())
    }
}

/// The files that `include_dir` takes, in its order: `*.conf` not hidden, directly in a directory; none where that is
/// no directory of the cluster.
fn settings_in(directory: &[u8], files: &Inventory) -> Option<Vec<ClusterPath>> {
    let directory = ClusterPath::new(directory).ok()?;
    files.get(&directory).filter(|entry| entry.kind == FileKind::Directory)?;
    let is_taken = |path: &ClusterPath| {
        path.below(directory.as_bytes()).is_some_and(|name| {
            !name.contains(&b'/') && !name.starts_with(b".") && name.ends_with(b".conf") && name.len() > 5
        })
    };
    Some(files.iter().filter(|(path, entry)| entry.size().is_some() && is_taken(path)).map(|(path, _)| path).collect())
}
