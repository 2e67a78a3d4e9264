//! Which settings a server will start with, as far as its data directory tells.

use super::Settings;
use crate::format::parse_postmaster_opts;

/// What a server that is started on a data directory will find set there, and on the command line that it was started
/// with before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsInForce {
    files: Settings,
    /// None where the last command line is not known.
    command_line: Option<Vec<(String, String)>>,
}

/// What is known of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InForce<'a> {
    /// It is set to this.
    Set(&'a str),
    /// Nothing sets it: it has PostgreSQL's own value.
    BuiltIn,
    /// Settings lie outside of the data directory: nobody knows.
    Unknown,
}

impl SettingsInForce {
    /// The settings in the files that there will be, and the bytes of the target's `postmaster.opts`.
    #[must_use]
    pub fn new(files: Settings, postmaster_opts: Option<&[u8]>) -> Self {
        Self { files, command_line: postmaster_opts.map(parse_postmaster_opts) }
    }

    /// What is known of a parameter (lower case).
    #[must_use]
    pub fn get(&self, parameter: &str) -> InForce<'_> {
        if let Some(value) = self.on_command_line(parameter) {
            return InForce::Set(value);
        }
        if self.has_files_elsewhere() {
            return InForce::Unknown;
        }
        match self.files.get(parameter) {
            Some(value) if self.files.is_sure(parameter) => InForce::Set(value),
            Some(_) => InForce::Unknown,
            None if self.files.are_complete() => InForce::BuiltIn,
            None => InForce::Unknown,
        }
    }

    /// Whether what [`SettingsInForce::get`] knows is all that there is: a server that is started as it was before
    /// finds nothing else.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.command_line.is_some()
    }

    /// Whether a parameter was set on the last command line: those who start the server may change that.
    #[must_use]
    pub fn is_from_command_line(&self, parameter: &str) -> bool {
        self.on_command_line(parameter).is_some()
    }

    fn on_command_line(&self, parameter: &str) -> Option<&str> {
        let mut settings = self.command_line.iter().flatten().rev();
        settings.find(|(name, _)| name == parameter).map(|(_, value)| value.as_str())
    }

    /// Whether `config_file` names another file than `postgresql.conf` in the data directory: on Debian it does, and
    /// Patroni names that very file.
    fn has_files_elsewhere(&self) -> bool {
        let Some(file) = self.on_command_line("config_file") else { return false };
        let directory = self.on_command_line("data_directory").unwrap_or_default().trim_end_matches('/');
        file.strip_suffix("/postgresql.conf").is_none_or(|place| place.trim_end_matches('/') != directory)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cluster::{FileEntry, FileKind, Inventory};
    use crate::types::ClusterPath;

    fn files(contents: &[(&str, &str)]) -> Settings {
        let entry = FileEntry { kind: FileKind::File { size: 1, modified: None }, mode: None };
        let path = |name: &str| ClusterPath::new(name.as_bytes()).unwrap();
        let listed: Inventory = contents.iter().map(|(name, _)| (path(name), entry.clone())).collect();
        let mut read = |wanted: &ClusterPath| {
            let found = contents.iter().find(|(name, _)| name.as_bytes() == wanted.as_bytes());
            Ok(found.map(|(_, text)| text.as_bytes().to_vec()))
        };
        Settings::read_with(&mut read, &listed, &|path| listed.get(path).is_some())
    }

    /// The files, the command line; max_connections, hot_standby.
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, InForce<'a>, InForce<'a>);

    #[test]
    fn what_is_not_seen_is_unknown() {
        use InForce::{BuiltIn, Set, Unknown};
        let main = ("postgresql.conf", "max_connections = 50\n");
        let outside = ("postgresql.conf", "max_connections = 50\ninclude '/etc/more.conf'\n");
        let auto = ("postgresql.auto.conf", "max_connections = '70'\n");
        let plain = "postgres \"-D\" \"/data\"";
        let given = "postgres \"-c\" \"max_connections=90\"";
        let patroni = "postgres \"-D\" \"/data/\" \"--config-file=/data/postgresql.conf\" \"--max_connections=90\"";
        let debian = "postgres \"-c\" \"config_file=/etc/postgresql.conf\"";
        let cases: [Case<'_>; 9] = [
            (&[main], plain, Set("50"), BuiltIn),
            (&[main, auto], plain, Set("70"), BuiltIn),
            (&[main, auto], given, Set("90"), BuiltIn),
            (&[outside], plain, Unknown, Unknown),
            (&[], plain, Unknown, Unknown),
            (&[auto], plain, Set("70"), Unknown),
            (&[main, auto], debian, Unknown, Unknown),
            (&[], given, Set("90"), Unknown),
            (&[main, auto], patroni, Set("90"), BuiltIn),
        ];
        for (contents, line, connections, hot_standby) in cases {
            let found = SettingsInForce::new(files(contents), Some(line.as_bytes()));
            assert_eq!(found.get("max_connections"), connections, "{contents:?} {line}");
            assert_eq!(found.get("hot_standby"), hot_standby, "{contents:?} {line}");
            assert!(found.is_certain());
        }
        let unseen = SettingsInForce::new(Settings::default(), None);
        assert_eq!((unseen.get("port"), unseen.is_certain()), (Unknown, false));
    }
}
