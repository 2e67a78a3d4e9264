//! What the process exits with. "Written" means below the target's data directory.

use pg_unfork::error::ErrorKind;

/// The exit codes; unknown means failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitCode {
    /// 0: done, or nothing to do.
    Done,
    /// 1: failure, nothing written.
    Failure,
    /// 2: the plan has changes (only with `--detailed-exitcode`).
    Changes,
    /// 3: the plan is stale or belongs elsewhere, nothing written.
    Stale,
    /// 4: a precondition is not met, or the plan is impossible; nothing written.
    Precondition,
    /// 5: failed after the first write.
    Incomplete,
    /// 6: half done, and this plan can never finish.
    DeadEnd,
    /// 64: the command line is wrong.
    Usage,
}

impl From<ErrorKind> for ExitCode {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Failure | ErrorKind::Interrupted => Self::Failure,
            ErrorKind::Stale => Self::Stale,
            ErrorKind::Precondition => Self::Precondition,
            ErrorKind::Incomplete => Self::Incomplete,
            ErrorKind::DeadEnd => Self::DeadEnd,
            ErrorKind::Usage => Self::Usage,
        }
    }
}

impl ExitCode {
    /// The number.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failure => 1,
            Self::Changes => 2,
            Self::Stale => 3,
            Self::Precondition => 4,
            Self::Incomplete => 5,
            Self::DeadEnd => 6,
            Self::Usage => 64,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}
