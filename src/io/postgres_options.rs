//! How a server's own program is told which cluster it shall look at.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::format::{Major, parse_postmaster_opts};

/// Settings of a command line that are not taken over: which cluster is looked at is said anew.
const OWN: [&str; 2] = ["config_file", "data_directory"];

/// The options that make `postgres` see a cluster as its server did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    directory: PathBuf,
    config_file: Option<PathBuf>,
    /// What the command line of the last start said besides.
    settings: Vec<(String, String)>,
}

impl Options {
    /// For the cluster in `directory` (a real path), with the command line in its `postmaster.opts`. Its main file of
    /// settings is `config_file`, or the one that the command line names; where neither says so and the data directory
    /// has none, the one that Debian's packages use.
    #[must_use]
    pub fn of(directory: &Path, config_file: Option<&Path>, major: Major) -> Self {
        let last_start = std::fs::read(directory.join("postmaster.opts")).unwrap_or_default();
        let settings = parse_postmaster_opts(&last_start);
        let named = settings.iter().rev().find(|(name, _)| name == "config_file").map(|(_, file)| PathBuf::from(file));
        let lacks = !directory.join("postgresql.conf").exists();
        let config_file = config_file
            .map(Path::to_path_buf)
            .or_else(|| named.filter(|file| file.exists()))
            .or_else(|| debian_file(directory, major).filter(|file| lacks && file.exists()));
        let settings = settings.into_iter().filter(|(name, _)| !OWN.contains(&name.as_str())).collect();
        Self { directory: directory.to_path_buf(), config_file, settings }
    }

    /// As arguments of `postgres`. A `data_directory` in the settings must not lead to another cluster.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let assigned = |name: &str, value: &Path| {
            let mut text = OsString::from(format!("{name}="));
            text.push(value);
            text
        };
        let mut arguments: Vec<OsString> = vec!["-D".into(), self.directory.clone().into_os_string()];
        for (name, value) in &self.settings {
            arguments.extend(["-c".into(), format!("{name}={value}").into()]);
        }
        arguments.extend(["-c".into(), assigned("data_directory", &self.directory)]);
        if let Some(file) = &self.config_file {
            arguments.extend(["-c".into(), assigned("config_file", file)]);
        }
        arguments
    }
}

/// Debian keeps the settings of the cluster in `…/MAJOR/NAME` in `/etc/postgresql/MAJOR/NAME`.
fn debian_file(directory: &Path, major: Major) -> Option<PathBuf> {
    let name = directory.file_name()?;
    let version = major.number().to_string();
    let is_theirs = directory.parent()?.file_name()? == version.as_str();
    is_theirs.then(|| Path::new("/etc/postgresql").join(version).join(name).join("postgresql.conf"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn arguments(directory: &Path, file: Option<&Path>) -> Vec<String> {
        let arguments = Options::of(directory, file, Major::V17).arguments();
        arguments.into_iter().map(|argument| argument.into_string().unwrap()).collect()
    }

    #[test]
    fn the_last_command_line_counts_but_for_the_cluster() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path();
        let shown = directory.display().to_string();
        let elsewhere = directory.join("elsewhere.conf");
        std::fs::write(&elsewhere, "").unwrap();
        assert_eq!(arguments(directory, None), ["-D", &shown, "-c", &format!("data_directory={shown}")]);
        let line = format!(
            "postgres \"-D\" \"/another\" \"-c\" \"config_file={}\" \"--shared_preload_libraries=x\"\n",
            elsewhere.display()
        );
        std::fs::write(directory.join("postmaster.opts"), line).unwrap();
        let mut expected = vec![
            "-D".to_owned(),
            shown.clone(),
            "-c".to_owned(),
            "shared_preload_libraries=x".to_owned(),
            "-c".to_owned(),
            format!("data_directory={shown}"),
            "-c".to_owned(),
            format!("config_file={}", elsewhere.display()),
        ];
        assert_eq!(arguments(directory, None), expected);
        expected[7] = "config_file=/mine.conf".to_owned();
        assert_eq!(arguments(directory, Some(Path::new("/mine.conf"))), expected);
        std::fs::remove_file(&elsewhere).unwrap();
        expected.truncate(6);
        assert_eq!(arguments(directory, None), expected);
    }

    #[test]
    fn debians_place() {
        let file = |directory: &str| debian_file(Path::new(directory), Major::V15);
        let expected = PathBuf::from("/etc/postgresql/15/main/postgresql.conf");
        assert_eq!(file("/var/lib/postgresql/15/main"), Some(expected));
        assert_eq!(file("/var/lib/postgresql/14/main"), None);
        assert_eq!(file("/srv/data"), None);
    }
}
