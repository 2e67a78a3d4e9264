//! What a cluster's own files of settings say, without asking a server.

use std::collections::{BTreeMap, BTreeSet};

use super::{ClusterReader, FileKind, Inventory};
use crate::error::Result;
use crate::format::{Setting, parse_settings};
use crate::types::ClusterPath;

/// How deep files may name one another, as in PostgreSQL.
const DEEPEST: usize = 10;
/// How many files are read, each as often as it is named.
const MOST_FILES: usize = 500;

/// Reads a small file; none where it is not there.
pub type ReadFile<'a> = dyn FnMut(&ClusterPath) -> Result<Option<Vec<u8>>> + 'a;

/// The settings that the files in a data directory give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<String, String>,
    /// Parameters that nothing unread can have set again.
    sure: BTreeSet<String>,
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

    /// Whether all files of settings were read, the main one among them.
    #[must_use]
    pub fn are_complete(&self) -> bool {
        self.unread.is_empty() && self.files.iter().any(|file| file.as_bytes() == b"postgresql.conf")
    }

    /// Whether what [`Settings::get`] says is not overridden by a file that could not be read.
    #[must_use]
    pub fn is_sure(&self, name: &str) -> bool {
        self.sure.contains(name)
    }

    /// What one file of settings gives.
    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        let mut settings = Self::default();
        parse_settings(text.as_bytes()).into_iter().for_each(|setting| settings.set(setting));
        settings
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
        Self::read_with(&mut |path| cluster.read_small(path), files, &|path| files.get(path).is_some())
    }

    /// The same where the files in `files` are read by a function: a directory that will be, not one that is. `is_there`
    /// says whether anything is at a path, in `files` or not.
    #[must_use]
    pub fn read_with(read: &mut ReadFile<'_>, files: &Inventory, is_there: &dyn Fn(&ClusterPath) -> bool) -> Self {
        let mut settings = Self::default();
        let mut from = Files { read, files, is_there };
        for name in ["postgresql.conf", "postgresql.auto.conf"] {
            if from.has(name.as_bytes()) && !settings.take_file(name.as_bytes(), &mut from, 0) {
                settings.leave_unread(name);
            }
        }
        settings
    }

    fn set(&mut self, setting: Setting) {
        self.sure.insert(setting.name.clone());
        self.values.insert(setting.name, setting.value);
    }

    /// What could not be read may have set anything.
    fn leave_unread(&mut self, name: &str) {
        self.unread.push(name.to_owned());
        self.sure.clear();
    }

    fn take_file(&mut self, path: &[u8], from: &mut Files<'_>, depth: usize) -> bool {
        let path = ClusterPath::new(path).ok().filter(|path| from.files.get(path).is_some_and(|e| e.size().is_some()));
        let may_read = depth <= DEEPEST && self.files.len() < MOST_FILES;
        let Some(path) = path.filter(|_| may_read) else { return false };
        let Ok(Some(bytes)) = (from.read)(&path) else { return false };
        self.files.push(path.clone());
        for setting in parse_settings(&bytes) {
            if setting.is_include() {
                self.include(&setting, &path, from, depth + 1);
            } else {
                self.set(setting);
            }
        }
        true
    }

    fn include(&mut self, setting: &Setting, by: &ClusterPath, from: &mut Files<'_>, depth: usize) {
        let beside = by.as_bytes().iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let named = [by.as_bytes().get(..beside).unwrap_or_default(), setting.value.as_bytes()].concat();
        let known = if setting.name == "include_dir" {
            let inside = if self.files.len() < MOST_FILES { settings_in(&named, from.files) } else { None };
            let taken = inside.as_ref().map(|inside| {
                let taken = inside.iter().filter(|path| self.take_file(path.as_bytes(), from, depth)).count();
                taken == inside.len()
            });
            taken.unwrap_or(false)
        } else {
            self.take_file(&named, from, depth)
        };
        let lacks = setting.name == "include_if_exists" && ClusterPath::new(&named).is_ok() && !from.has(&named);
        if !known && !lacks {
            self.leave_unread(&setting.value);
        }
    }
}

/// Where files of settings are read from.
struct Files<'a> {
    read: &'a mut ReadFile<'a>,
    files: &'a Inventory,
    is_there: &'a dyn Fn(&ClusterPath) -> bool,
}

impl Files<'_> {
    fn has(&self, path: &[u8]) -> bool {
        ClusterPath::new(path).is_ok_and(|path| (self.is_there)(&path))
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
    let taken = files.iter().filter(|(path, entry)| entry.size().is_some() && is_taken(path)).map(|(path, _)| path);
    Some(taken.take(MOST_FILES + 1).collect())
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
    fn files_that_include_one_another_without_end_are_not_read_for_ever() {
        let many = "include 'postgresql.conf'\n".repeat(100);
        let many: &'static str = Box::leak(many.into_boxed_str());
        let settings = read(&[("postgresql.conf", Some(many))]);
        assert_eq!(settings.files.len(), MOST_FILES);
        assert!(!settings.unread.is_empty());
    }

    #[test]
    fn what_is_not_read_may_have_set_anything() {
        let settings = read(&[
            ("postgresql.conf", Some("a = 1\ninclude '/etc/x.conf'\nb = 2")),
            ("postgresql.auto.conf", Some("c = 3")),
        ]);
        assert_eq!(["a", "b", "c", "d"].map(|name| settings.is_sure(name)), [false, true, true, false]);
        assert_eq!(settings.get("a"), Some("1"));
    }

    #[test]
    fn files_that_include_themselves_end() {
        let settings = read(&[("postgresql.conf", Some("a = 1\ninclude 'postgresql.conf'"))]);
        assert_eq!((settings.get("a"), settings.files.len()), (Some("1"), DEEPEST + 1));
    }
}
