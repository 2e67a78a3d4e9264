//! What was asked for, with defaults.

use std::path::PathBuf;

use crate::io::conninfo::Secret;

/// How much of a server's certificate is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// That it leads to a trusted one, if there is a file of trusted ones (`sslmode` up to `require`).
    IfRoots,
    /// That it leads to a trusted one (`verify-ca`).
    Chain,
    /// That it leads to a trusted one and is made out to the host (`verify-full`).
    Host,
}

/// Where trusted certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// Nowhere: no file is named, and there is no home directory.
    None,
    /// In a file.
    File(PathBuf),
    /// Where OpenSSL looks by default (`sslrootcert=system`).
    System {
        /// A file with all of them, which need not be there.
        file: PathBuf,
        /// Directories of files with hashed names, which need not be there.
        directories: Vec<PathBuf>,
    },
}

/// When the client shows its certificate (`sslcertmode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertMode {
    /// Never.
    Disable,
    /// If the server asks and there is one.
    Allow,
    /// The server must ask and there must be one.
    Require,
}

/// The files of the client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// When it is shown.
    pub mode: CertMode,
    /// The certificate, which need not be there; none without a home directory.
    pub certificate: Option<PathBuf>,
    /// Its key; none without a home directory.
    pub key: Option<PathBuf>,
    /// Whether the key was named, rather than found at its default place.
    pub key_is_named: bool,
    /// The password of an encrypted key.
    pub password: Option<Secret>,
}

impl ClientFiles {
    /// Whether the key is named as one in an OpenSSL engine.
    pub(super) fn is_engine(&self) -> bool {
        let has_colon = |path: &PathBuf| path.as_os_str().as_encoded_bytes().contains(&b':');
        self.key_is_named && self.key.as_ref().is_some_and(has_colon)
    }
}

/// A version of TLS, or of what came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.0.
    Tls10,
    /// TLS 1.1.
    Tls11,
    /// TLS 1.2, the oldest that this program speaks.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// How TLS is made, as libpq's settings have it. Nothing is read before a connection is made, so that files may be
/// replaced while a plan or an apply goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// How much is verified.
    pub verify: Verify,
    /// With what.
    pub roots: Roots,
    /// Certificates that are trusted no longer, heeded if the file is there; none without a home directory.
    pub revoked: Option<PathBuf>,
    /// Whether there is a directory of such lists, which is not supported.
    pub has_revoked_directory: bool,
    /// The client's certificate.
    pub client: ClientFiles,
    /// Whether TLS begins without asking the server first (`sslnegotiation=direct`).
    pub is_direct: bool,
    /// Whether the server is told the host's name (`sslsni`).
    pub sends_name: bool,
    /// The oldest version that is accepted; none is the oldest that there is.
    pub oldest: Option<Version>,
    /// The newest version that is accepted; none is the newest that there is.
    pub newest: Option<Version>,
    /// Whether the keys of the session shall be written to a file, which is not supported.
    pub logs_keys: bool,
}
