//! What a cluster's own files of settings say, without asking a server.

use std::collections::BTreeMap;

use super::{ClusterReader, FileKind, Inventory};
use crate::error::Result;
use crate::format::{Setting, parse_settings};
use crate::types::ClusterPath;

/// How deep files may name one another, as in PostgreSQL.
const DEEPEST: usize = 10;

/// Reads a small file; none where it is not there.
pub type ReadFile<'a> = dyn FnMut(&ClusterPath) -> Result<Option<Vec<u8>>> + 'a;

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

    /// What one file of settings gives.
    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        let values = parse_settings(text.as_bytes()).into_iter().map(|setting| (setting.name, setting.value)).collect();
        Self { values, ..Self::default() }
    }

    /// Takes the values that a server tells of over those of its files.
    #[must_use]
    pub fn told_by(mut self, server: &BTreeMap<String, String>) -> Self {
        self.values.extend(server.iter().map(|(name, value)| (name.clone(), value.clone())));
        self
    }

    /// Reads `postgresql.conf` with what it includes, and `postgresql.auto.conf`.
    ///
    /// A file that is there and cannot be read is [`Settings::unread`], like one that is elsewhere.
    #[must_use]
    pub fn read(cluster: &mut dyn ClusterReader, files: &Inventory) -> Self {
        Self::read_with(&mut |path| cluster.read_small(path), files)
    }

    /// The same where the files in `files` are read by a function: a directory that will be, not one that is.
    #[must_use]
    pub fn read_with(read: &mut ReadFile<'_>, files: &Inventory) -> Self {
        let mut settings = Self::default();
        for name in ["postgresql.conf", "postgresql.auto.conf"] {
            let is_there = ClusterPath::new(name.as_bytes()).is_ok_and(|path| files.get(&path).is_some());
            if is_there && !settings.take_file(name.as_bytes(), read, files, 0) {
                settings.unread.push(name.to_owned());
            }
        }
        settings
    }

    fn take_file(&mut self, path: &[u8], read: &mut ReadFile<'_>, files: &Inventory, depth: usize) -> bool {
        let path = ClusterPath::new(path).ok().filter(|path| files.get(path).is_some_and(|e| e.size().is_some()));
        let Some(path) = path.filter(|_| depth <= DEEPEST) else { return false };
        let Ok(Some(bytes)) = read(&path) else { return false };
        self.files.push(path.clone());
        for setting in parse_settings(&bytes) {
            if setting.is_include() {
                self.include(&setting, &path, read, files, depth + 1);
            } else {
                self.values.insert(setting.name, setting.value);
            }
        }
        true
    }

    fn include(
        &mut self,
        setting: &Setting,
        from: &ClusterPath,
        read: &mut ReadFile<'_>,
        files: &Inventory,
        depth: usize,
    ) {
        let beside = from.as_bytes().iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let named = [from.as_bytes().get(..beside).unwrap_or_default(), setting.value.as_bytes()].concat();
        let known = if setting.name == "include_dir" {
            let inside = settings_in(&named, files);
            for path in inside.iter().flatten() {
                self.take_file(path.as_bytes(), read, files, depth);
            }
            inside.is_some()
        } else {
            self.take_file(&named, read, files, depth)
        };
        let may_lack = setting.name == "include_if_exists" && !setting.value.starts_with('/');
        if !known && !may_lack {
            self.unread.push(setting.value.clone());
        }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cluster::{FileEntry, Listing};
    use crate::error::Error;
    use crate::progress::Progress;

    /// A data directory with these files; a file without text cannot be read.
    struct Files(BTreeMap<&'static str, Option<&'static str>>);

    impl Files {
        fn inventory(&self) -> Inventory {
            let mut listing = Listing::new();
            let mut add = |name: &str, kind| {
                listing.add(&ClusterPath::new(name.as_bytes()).unwrap(), &FileEntry { kind, mode: None });
            };
            for (name, text) in &self.0 {
                let size = text.map_or(1, |text| text.len() as u64);
                add(name, FileKind::File { size, modified: None });
            }
            add("conf.d", FileKind::Directory);
            listing.finish()
        }
    }

    impl ClusterReader for Files {
        fn control_file(&mut self) -> Result<Vec<u8>> {
            Ok(Vec::new())
        }

        fn read_small(&mut self, path: &ClusterPath) -> Result<Option<Vec<u8>>> {
            match self.0.get(String::from(path.clone()).as_str()) {
                Some(Some(text)) => Ok(Some(text.as_bytes().to_vec())),
                Some(None) => Err(Error::failure("permission denied")),
                None => Ok(None),
            }
        }

        fn list(&mut self, _: &dyn Progress) -> Result<Inventory> {
            Ok(self.inventory())
        }

        fn running_server(&self) -> Result<Option<i32>> {
            Ok(None)
        }
    }

    fn read(files: &[(&'static str, Option<&'static str>)]) -> Settings {
        let mut files = Files(files.iter().copied().collect());
        let inventory = files.inventory();
        Settings::read(&mut files, &inventory)
    }

    #[test]
    fn the_last_one_counts_and_files_include_files() {
        let settings = read(&[
            ("postgresql.conf", Some("a = 1\nb = 1\ninclude_dir 'conf.d'\nc = 1\ninclude 'more.conf'\n")),
            ("conf.d/1.conf", Some("a = 2\nb = 2\nc = 2\ninclude '2.inc'")),
            ("conf.d/2.inc", Some("e = 5")),
            ("conf.d/.hidden.conf", Some("a = 9")),
            ("conf.d/x.txt", Some("a = 9")),
            ("conf.d/sub/3.conf", Some("a = 9")),
            ("more.conf", Some("b = 3")),
            ("postgresql.auto.conf", Some("d = 'auto'")),
        ]);
        let values = ["a", "b", "c", "d", "e", "f"].map(|name| settings.get(name));
        assert_eq!(values, [Some("2"), Some("3"), Some("1"), Some("auto"), Some("5"), None]);
        let files: Vec<String> = settings.files.iter().cloned().map(String::from).collect();
        let expected = ["postgresql.conf", "conf.d/1.conf", "conf.d/2.inc", "more.conf", "postgresql.auto.conf"];
        assert_eq!(files, expected);
        assert!(settings.unread.is_empty());
    }

    #[test]
    fn what_cannot_be_seen_is_said() {
        let outside = "include '/etc/x.conf'\ninclude_if_exists '/etc/y.conf'\ninclude_if_exists 'none.conf'\n\
                       include 'absent.conf'\ninclude_dir 'absent.d'\ninclude '../up.conf'\ninclude 'secret.conf'";
        let settings = read(&[("postgresql.conf", Some(outside)), ("secret.conf", None)]);
        assert_eq!(read(&[("postgresql.auto.conf", None)]).unread, ["postgresql.auto.conf"]);
        assert_eq!(read(&[]), Settings::default());
        let expected = ["/etc/x.conf", "/etc/y.conf", "absent.conf", "absent.d", "../up.conf", "secret.conf"];
        assert_eq!(settings.unread, expected);
    }

    #[test]
    fn files_that_include_themselves_end() {
        let settings = read(&[("postgresql.conf", Some("a = 1\ninclude 'postgresql.conf'"))]);
        assert_eq!((settings.get("a"), settings.files.len()), (Some("1"), DEEPEST + 1));
    }
}
