//! What connection settings take from the process and the machine, as a value.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::ConnInfoError;

/// The socket directory of Debian, Red Hat and most other packages.
const PACKAGED_SOCKET_DIR: &str = "/var/run/postgresql";
/// The socket directory of PostgreSQL as it comes from its authors.
const ORIGINAL_SOCKET_DIR: &str = "/tmp";

/// Variables, user and directories that stand in for what a connection string leaves out.
///
/// A value rather than calls to the system, so that the outcome depends on nothing else. `Debug`
/// prints the names of the variables without their values.
#[derive(Clone)]
pub struct Environment {
    variables: BTreeMap<String, OsString>,
    uid: u32,
    user: Option<String>,
    home: Option<PathBuf>,
    socket_dir: PathBuf,
    /// OpenSSL's variables for what the system trusts: a file, and directories.
    trusted: (Option<OsString>, Option<OsString>),
}

impl Environment {
    /// This process's variables, the effective user's name and home directory (from `/etc/passwd`,
    /// the home directory from `HOME` if set), and the default socket directory:
    /// `/var/run/postgresql` if it exists, else `/tmp`.
    #[must_use]
    pub fn of_process() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let passwd = fs::read("/etc/passwd").unwrap_or_default();
        let (user, home) = passwd_entry(&passwd, uid).unzip();
        let packaged = Path::new(PACKAGED_SOCKET_DIR);
        let socket_dir = if packaged.is_dir() { packaged } else { Path::new(ORIGINAL_SOCKET_DIR) };
        let mut environment = Self { uid, user, home, ..Self::bare(socket_dir) };
        environment.set_variables(std::env::vars_os());
        environment
    }

    /// An environment made of these variables only; `user` is the operating system's user name.
    #[must_use]
    pub fn fixed<K, V>(variables: impl IntoIterator<Item = (K, V)>, user: Option<&str>, socket_dir: &Path) -> Self
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let mut environment = Self { user: user.map(str::to_owned), ..Self::bare(socket_dir) };
        environment.set_variables(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        environment
    }

    fn bare(socket_dir: &Path) -> Self {
        let socket_dir = socket_dir.to_owned();
        Self { variables: BTreeMap::new(), uid: 0, user: None, home: None, socket_dir, trusted: (None, None) }
    }

    /// Keeps libpq's variables and two of OpenSSL's, and takes the home directory from `HOME`.
    fn set_variables(&mut self, variables: impl Iterator<Item = (OsString, OsString)>) {
        for (name, value) in variables {
            match name.into_string() {
                Ok(name) if name == "HOME" && !value.is_empty() => self.home = Some(value.into()),
                Ok(name) if name == "SSL_CERT_FILE" => self.trusted.0 = Some(value),
                Ok(name) if name == "SSL_CERT_DIR" => self.trusted.1 = Some(value),
                Ok(name) if name.starts_with("PG") => {
                    self.variables.insert(name, value);
                }
                _ => {}
            }
        }
    }

    /// The value of a variable; `None` if it is not set.
    ///
    /// # Errors
    ///
    /// The value is not UTF-8 or has a NUL byte.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>, ConnInfoError> {
        let Some(value) = self.variables.get(name) else { return Ok(None) };
        match value.to_str() {
            Some(text) if !text.contains('\0') => Ok(Some(text.to_owned())),
            _ => Err(ConnInfoError::VariableNotText { name }),
        }
    }

    /// Name of the operating system's user.
    ///
    /// # Errors
    ///
    /// The user has no name.
    pub(super) fn user(&self) -> Result<String, ConnInfoError> {
        self.user.clone().ok_or(ConnInfoError::NoUserName { uid: self.uid })
    }

    /// Name of the operating system's user, or its number where it has none.
    #[must_use]
    pub fn user_or_number(&self) -> String {
        self.user.clone().unwrap_or_else(|| self.uid.to_string())
    }

    /// The user's home directory, if known.
    pub(super) fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// What `SSL_CERT_FILE` and `SSL_CERT_DIR` say that OpenSSL trusts.
    pub(super) fn trusted(&self) -> (Option<&OsStr>, Option<&OsStr>) {
        (self.trusted.0.as_deref(), self.trusted.1.as_deref())
    }

    /// Where a server on this machine has its socket unless told otherwise.
    pub(super) fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("variables", &self.variables.keys())
            .field("uid", &self.uid)
            .field("user", &self.user)
            .field("home", &self.home)
            .field("socket_dir", &self.socket_dir)
            .finish()
    }
}

/// The name of the operating system's user of this number, as `/etc/passwd` has it.
#[must_use]
pub fn user_name(uid: u32) -> Option<String> {
    passwd_entry(&fs::read("/etc/passwd").ok()?, uid).map(|(name, _)| name)
}

/// Name and home directory of a user in a file like `/etc/passwd`.
fn passwd_entry(passwd: &[u8], uid: u32) -> Option<(String, PathBuf)> {
    passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let fields: Vec<&str> = std::str::from_utf8(line).ok()?.split(':').collect();
        match fields.as_slice() {
            [name, _, id, _, _, home, ..] if !name.is_empty() && id.parse() == Ok(uid) => {
                Some(((*name).to_owned(), PathBuf::from(home)))
            }
            _ => None,
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn finds_a_user_by_number() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\n#x\n:x:7:7::/:\nbad:x:seven\n\xff:x:7::::\npg:x:7:7:,:/var/lib/pg:/bin/sh\n";
        assert_eq!(passwd_entry(passwd, 0), Some(("root".to_owned(), "/root".into())));
        assert_eq!(passwd_entry(passwd, 7), Some(("pg".to_owned(), "/var/lib/pg".into())));
        assert_eq!(passwd_entry(passwd, 8), None);
    }

    #[test]
    fn keeps_values_out_of_debug() {
        let environment = Environment::fixed([("PGPASSWORD", "s3cret"), ("LANG", "C")], None, Path::new("/s"));
        let debug = format!("{environment:?}");
        assert!(debug.contains("PGPASSWORD") && !debug.contains("s3cret") && !debug.contains("LANG"), "{debug}");
        assert_eq!(environment.text("LANG"), Ok(None));
        assert_eq!(environment.user(), Err(ConnInfoError::NoUserName { uid: 0 }));
    }

    #[test]
    fn a_variable_must_be_text() {
        for value in [OsString::from_vec(vec![b'a', 0xff]), OsString::from("a\0b")] {
            let environment = Environment::fixed([("PGHOST", value)], None, Path::new("/s"));
            assert_eq!(environment.text("PGHOST"), Err(ConnInfoError::VariableNotText { name: "PGHOST" }));
        }
    }

    #[test]
    fn the_process_has_a_user_and_a_socket_directory() {
        let environment = Environment::of_process();
        assert!(environment.socket_dir().is_absolute());
        assert!(environment.home().is_none_or(|home| !home.as_os_str().is_empty()));
    }
}
