//! The one error type that leaves the library, and what it means for the caller.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use rustix::io::Errno;

mod id;

pub use id::ErrorId;

/// What a failure means for the person or the pipeline that ran the command.
///
/// "Written" means: below the target's data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Something failed; nothing was written.
    Failure,
    /// The work was ended early, by a signal or because the source went away; nothing was written.
    Interrupted,
    /// The plan does not describe this target or this source any more; nothing was written.
    Stale,
    /// A precondition is not met, or the wish is impossible; nothing was written.
    Precondition,
    /// Interrupted or failed after the first write.
    Incomplete,
    /// Half done, and this plan can never finish.
    DeadEnd,
    /// The command line is wrong.
    Usage,
}

/// A failure: what failed, on what, why, and what to do about it.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    id: Option<ErrorId>,
    message: String,
    hints: Vec<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The library's results.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of this kind that says `message` (lower case, no full stop).
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, id: None, message: message.into(), hints: Vec::new(), source: None }
    }

    /// The error that programs know by this name, of the kind that it has before the first write.
    pub fn of(id: ErrorId, message: impl Into<String>) -> Self {
        Self { id: Some(id), ..Self::new(id.kind(), message) }
    }

    /// Something failed that should not have: I/O, a damaged file.
    pub fn failure(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failure, message)
    }

    /// A precondition is not met.
    pub fn precondition(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Precondition, message)
    }

    /// The plan does not fit what was found.
    pub fn stale(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Stale, message)
    }

    /// The same error with its cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(cause.into());
        self
    }

    /// The same error with a sentence that says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The same error with another meaning for the caller.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// The same error under a name that programs know.
    #[must_use]
    pub fn with_id(mut self, id: ErrorId) -> Self {
        self.id = Some(id);
        self
    }

    /// The name that programs know it by: its own, that of its causes, or that of its kind.
    #[must_use]
    pub fn id(&self) -> ErrorId {
        self.own_id().unwrap_or(ErrorId::of_kind(self.kind))
    }

    /// The outermost name that says more than the kind does.
    fn own_id(&self) -> Option<ErrorId> {
        if self.id.is_some() {
            return self.id;
        }
        let mut cause = self.source();
        while let Some(inner) = cause {
            if let Some(error) = inner.downcast_ref::<Self>() {
                return error.own_id();
            }
            let system = inner.downcast_ref::<io::Error>().map(io::Error::kind);
            let system = system.or_else(|| Some(io::Error::from(*inner.downcast_ref::<Errno>()?).kind()));
            let id = system.and_then(id_of_io);
            if id.is_some() {
                return id;
            }
            cause = inner.source();
        }
        None
    }

    /// What the failure means for the caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What to do about it, a sentence each.
    #[must_use]
    pub fn hints(&self) -> &[String] {
        &self.hints
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|cause| cause as &(dyn StdError + 'static))
    }
}

/// What the system says that programs want to know.
fn id_of_io(kind: io::ErrorKind) -> Option<ErrorId> {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(ErrorId::NoSpace),
        io::ErrorKind::ReadOnlyFilesystem => Some(ErrorId::NotWritable),
        _ => None,
    }
}

/// Adds what was being done, and to what, to an error that does not know it.
pub trait Context<T> {
    /// The error becomes the cause of a failure that says `message`.
    ///
    /// # Errors
    /// The wrapped error.
    fn context(self, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| Error::failure(message()).because(cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_outermost_name_that_says_something() {
        let full = || Errno::NOSPC;
        let read_only = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
        let lost = || Error::of(ErrorId::SourceUnreachable, "lost");
        let cases = [
            (Error::failure("x"), ErrorId::Failed),
            (Error::stale("x"), ErrorId::PlanStale),
            (Error::failure("x").because("y"), ErrorId::Failed),
            (Error::failure("x").because(full()), ErrorId::NoSpace),
            (Error::failure("x").because(read_only), ErrorId::NotWritable),
            (Error::failure("x").because(Error::failure("y").because(full())), ErrorId::NoSpace),
            (Error::failure("x").because(io::Error::from(io::ErrorKind::NotFound)), ErrorId::Failed),
            (Error::precondition("x").because(lost()), ErrorId::SourceUnreachable),
            (lost().because(full()), ErrorId::SourceUnreachable),
            (lost().with_kind(ErrorKind::Incomplete), ErrorId::SourceUnreachable),
            (Error::failure("x").with_kind(ErrorKind::Incomplete), ErrorId::Incomplete),
        ];
        for (error, id) in cases {
            assert_eq!(error.id(), id, "{error:?}");
        }
        assert_eq!(lost().kind(), ErrorKind::Precondition);
    }
}
