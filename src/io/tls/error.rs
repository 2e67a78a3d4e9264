//! Why there is no TLS connection. No error has a secret: files are named, their contents are not shown.

use std::fmt;
use std::path::PathBuf;

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Certificates that are trusted (`sslrootcert`).
    Roots,
    /// Certificates that are trusted no longer (`sslcrl`).
    Revoked,
    /// The client's certificate (`sslcert`).
    Certificate,
    /// The key of the client's certificate (`sslkey`).
    Key,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Roots => "root certificate file",
            Self::Revoked => "certificate revocation list",
            Self::Certificate => "client certificate file",
            Self::Key => "private key file",
        })
    }
}

/// What is wrong, and who finds it wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    text: String,
    /// Whether libpq has no TLS then, either.
    is_shared: bool,
}

impl Problem {
    /// What libpq would take, or may take for all that is known.
    pub(super) fn narrow(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_shared: false }
    }

    /// The same, whoever finds it wrong if `is_shared`.
    pub(super) fn shared_if(is_shared: bool, text: impl Into<String>) -> Self {
        Self { text: text.into(), is_shared }
    }
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Self { text, is_shared: true }
    }
}

impl From<&str> for Problem {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Settings or files that no TLS connection can be made with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be used.
    #[error("{role} \"{}\" {problem}", path.display())]
    File {
        /// What it is for.
        role: Role,
        /// Which one it is.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: Problem,
    },
    /// The server's certificate shall be verified, and there is nothing to verify it with.
    #[error(
        "{}: give sslrootcert, use the system's trusted certificates with sslrootcert=system, or an sslmode that does \
         not verify the server's certificate",
        .path.as_ref().map_or_else(
            || "there is no home directory to look for the root certificate file in".to_owned(),
            |path| format!("{} \"{}\" does not exist", Role::Roots, path.display()))
    )]
    NoRoots {
        /// Where it was looked for; none without a home directory.
        path: Option<PathBuf>,
    },
    /// The system's trusted certificates are nowhere.
    #[error("the system has no trusted certificates in {places}: install them, or name a file with sslrootcert")]
    NoSystemRoots {
        /// Where they were looked for.
        places: String,
    },
    /// There is a client certificate, and nothing says where its key is.
    #[error("certificate present, but no private key file: give sslkey")]
    NoKey,
    /// The certificate must be made out to the host, and none is named.
    #[error("host name must be specified for a verified TLS connection: give host beside hostaddr")]
    NoHost,
    /// libpq knows it, this program does not.
    #[error("{what} is not supported: {remedy}")]
    NotSupported {
        /// The setting or value.
        what: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },
    /// There is a client certificate that must be asked for, on a connection where none can be.
    #[error("server did not request a TLS certificate, which sslcertmode=require wants")]
    NotAsked,
    /// The server asked for a client certificate, and there is none.
    #[error("server asked for a TLS certificate, and there is none, which sslcertmode=require wants")]
    NotSent,
}

impl TlsError {
    /// Whether `sslmode=prefer` goes on without TLS after this. libpq does after any failure of its own; what this
    /// program lacks is no reason to send in the clear what libpq would have encrypted.
    #[must_use]
    pub fn allows_plain(&self) -> bool {
        match self {
            // libpq passes over a list that it cannot use.
            Self::File { role: Role::Revoked, .. } | Self::NotSupported { .. } => false,
            Self::File { problem, .. } => problem.is_shared,
            _ => true,
        }
    }
}

/// Why a server's certificate, or what the server does with it, is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The certificate cannot be verified.
    #[error("cannot verify the server's certificate {subject}: {reason}")]
    Certificate {
        /// Whom it is made out to.
        subject: String,
        /// Why not, and what to do.
        reason: Problem,
    },
    /// The certificate is made out to another host.
    #[error("server certificate for \"{name}\"{} does not match host name \"{host}\"", others(*.more))]
    OtherHost {
        /// The first name in it.
        name: String,
        /// How many more it has.
        more: usize,
        /// The host that was connected to.
        host: String,
    },
    /// The certificate has no name at all.
    #[error("server certificate has no name to compare with host name \"{host}\"")]
    NoName {
        /// The host that was connected to.
        host: String,
    },
    /// A name or address in the certificate is malformed, perhaps on purpose.
    #[error("server certificate has a malformed name: {problem}")]
    BadName {
        /// What is wrong.
        problem: &'static str,
    },
    /// A handshake without negotiation must agree on the protocol.
    #[error(
        "direct TLS connection was established without ALPN protocol negotiation: sslnegotiation=direct needs a server \
         of PostgreSQL 17 or later"
    )]
    NoProtocol,
    /// What sslcertmode wants did not happen.
    #[error(transparent)]
    Client(#[from] TlsError),
    /// The other side ended the handshake.
    #[error("the server refused the TLS handshake: {0}")]
    Refused(Problem),
    /// The two sides do not fit.
    #[error("TLS handshake failed: {0}")]
    Failed(Problem),
}

impl HandshakeError {
    /// Whether `sslmode=prefer` goes on without TLS after this: not where libpq's might have come about.
    #[must_use]
    pub fn allows_plain(&self) -> bool {
        match self {
            Self::Certificate { reason: problem, .. } | Self::Refused(problem) | Self::Failed(problem) => {
                problem.is_shared
            }
            Self::Client(error) => error.allows_plain(),
            Self::OtherHost { .. } | Self::NoName { .. } | Self::BadName { .. } | Self::NoProtocol => true,
        }
    }
}

/// The most characters that are shown of a name.
const MOST_SHOWN: usize = 200;

/// A name from outside as it is shown: on one line, and not for ever.
pub(super) fn shown(name: &str) -> String {
    let mut shown: String = name.chars().take(MOST_SHOWN).flat_map(char::escape_debug).collect();
    if name.chars().nth(MOST_SHOWN).is_some() {
        shown.push('\u{2026}');
    }
    shown
}

/// How many names are left out.
fn others(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => " (and 1 other name)".to_owned(),
        count => format!(" (and {count} other names)"),
    }
}
