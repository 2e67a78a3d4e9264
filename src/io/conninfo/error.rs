//! What can be wrong with a connection string and with the environment that completes it.
//!
//! No error carries a value that the user wrote: a mistake in quoting can move part of a password
//! into any value or even into a keyword. Errors give the keyword and the position instead.

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;

/// Where a setting came from, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// The keyword stood in the connection string.
    Option(&'static str),
    /// The environment variable supplied the value.
    Variable(&'static str),
    /// The service that was named has the keyword.
    Service(&'static str),
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(keyword) => write!(f, "connection option \"{keyword}\""),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Service(keyword) => write!(f, "option \"{keyword}\" of the service"),
        }
    }
}

/// A connection string, or its environment, that cannot be used.
///
/// Positions count bytes from 1. No variant contains a value from the string, so every message may
/// be logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnInfoError {
    /// The string holds a NUL byte, which libpq could not even receive.
    #[error("the connection string has a NUL byte at position {at}")]
    Nul {
        /// Position of the byte.
        at: usize,
    },
    /// A keyword is not followed by an equals sign.
    #[error(
        "missing \"=\" after the keyword at position {at} in the connection string \
         (a value with spaces needs single quotes)"
    )]
    MissingEquals {
        /// Position of the keyword.
        at: usize,
    },
    /// A single quote is never closed.
    #[error("unterminated quoted string in the connection string: the quote at position {at} is not closed")]
    UnterminatedQuote {
        /// Position of the opening quote.
        at: usize,
    },
    /// The keyword is none of libpq's.
    #[error("invalid connection option \"{name}\" at position {at}")]
    UnknownKeyword {
        /// The keyword, or `***` where it might be a piece of a password.
        name: String,
        /// Position of the keyword.
        at: usize,
    },
    /// libpq knows the keyword, this program cannot act on it.
    #[error("{setting} is not supported: {reason}")]
    NotSupported {
        /// The setting in question.
        setting: Setting,
        /// What is missing.
        reason: &'static str,
    },
    /// libpq knows the value, this program cannot act on it.
    #[error("{setting} has the value \"{value}\", which is not supported: {reason}")]
    ValueNotSupported {
        /// The setting in question.
        setting: Setting,
        /// The value, one of a closed list of words.
        value: &'static str,
        /// What is missing.
        reason: &'static str,
    },
    /// The value is safe only with a stronger `sslmode` than there is.
    #[error("{setting} has the value \"{value}\", which needs sslmode {needed}")]
    NeedsMode {
        /// The setting in question.
        setting: Setting,
        /// The value, one of a closed list of words.
        value: &'static str,
        /// The modes that will do.
        needed: &'static str,
    },
    /// The value is not one that the setting can have.
    #[error("invalid value of {setting}: expected {expected}")]
    InvalidValue {
        /// The setting in question.
        setting: Setting,
        /// What would be right.
        expected: &'static str,
    },
    /// Hosts, addresses and ports are not equally many.
    #[error("{setting} has {found} items for {servers} servers")]
    Count {
        /// The list in question.
        setting: Setting,
        /// How many items it has.
        found: usize,
        /// How many servers there are: as many as addresses, or hosts where there are none.
        servers: usize,
    },
    /// The service that was named is in none of the files.
    #[error("the service is not defined in {}", list(files))]
    NoService {
        /// The files that were looked for, in order.
        files: Vec<PathBuf>,
    },
    /// A service file cannot be read.
    #[error("the service file {} cannot be read: {kind}", path.display())]
    ServiceFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        kind: ErrorKind,
    },
    /// A line of a service file is wrong.
    #[error("line {line} of the service file {}: {problem}", path.display())]
    ServiceLine {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// The rule that it breaks.
        problem: &'static str,
    },
    /// A variable cannot be read as text.
    #[error("environment variable {name} is not valid UTF-8 or contains a NUL byte")]
    VariableNotText {
        /// Name of the variable.
        name: &'static str,
    },
    /// The URI breaks a rule of its syntax.
    #[error("invalid connection URI at position {at}: {problem}")]
    Uri {
        /// Position of the first byte that is wrong.
        at: usize,
        /// The rule.
        problem: &'static str,
    },
    /// No user name was given and the operating system has none either.
    #[error("no user name was given, and user ID {uid} has no entry in /etc/passwd")]
    NoUserName {
        /// Effective user ID of this process.
        uid: u32,
    },
}

fn list(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}
