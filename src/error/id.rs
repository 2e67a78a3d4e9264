//! The names of failures, for programs.

use super::ErrorKind;

/// What failed, by a name that never changes its meaning. New ones may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorId {
    /// Something failed, and no other id says what.
    Failed,
    /// A signal ended the work.
    Interrupted,
    /// The target, or the source, is not as planned any more.
    PlanStale,
    /// A precondition is not met, and no other id says which.
    Precondition,
    /// Something failed after the first write, and no other id says what.
    Incomplete,
    /// The plan can never finish, and no other id says why.
    HalfDone,
    /// The command line is wrong.
    Usage,
    /// The program was run as root.
    RunsAsRoot,
    /// Another pg_unfork is at work on the data directory.
    Locked,
    /// A server is running on the target.
    TargetRunning,
    /// A server is running on the directory of a source that must be stopped.
    SourceRunning,
    /// A directory is no PostgreSQL data directory, or cannot be opened as one.
    NotACluster,
    /// Something in the target cannot be changed by the user who runs the program.
    NotWritable,
    /// A file system has not enough room.
    NoSpace,
    /// Target and source share a directory.
    SameCluster,
    /// A control file is missing, damaged, or of an unknown version.
    ControlFileDamaged,
    /// A timeline history file is missing or damaged.
    HistoryDamaged,
    /// WAL that a plan must read, or that replay needs, is not there.
    WalMissing,
    /// WAL of the target cannot be read or understood.
    WalDamaged,
    /// The source server cannot be reached, or was lost and did not come back.
    SourceUnreachable,
    /// The role may not read the files of the source server.
    SourcePrivileges,
    /// The source is another cluster than planned.
    SourceIdentity,
    /// The source is on another timeline than planned.
    SourceTimeline,
    /// The document is no manifest, or none that this version can execute.
    ManifestInvalid,
    /// The plan was changed after it was written, or is not the one that was meant.
    PlanDigest,
    /// The plan says of itself that it cannot be applied.
    PlanNotApplyable,
    /// An apply or an undo has begun on the target and must be finished first.
    UnderWay,
    /// Nothing was applied, or nothing was kept to undo it with.
    NothingToUndo,
    /// What an apply noted in its state directory is damaged or gone.
    StateDamaged,
    /// Something else changed the control file of a target while an apply was under way.
    Tampered,
    /// `verify` found that the target is not what the apply left.
    NotSound,
    /// A program of PostgreSQL's that is needed was not found.
    ProgramMissing,
    /// The `restore_command` of the target cannot be used, or failed in a way that no other try makes good.
    RestoreCommand,
    /// The target could not be recovered.
    RecoveryFailed,
}

impl ErrorId {
    /// All of them.
    pub const ALL: [Self; 34] = [
        Self::Failed,
        Self::Interrupted,
        Self::PlanStale,
        Self::Precondition,
        Self::Incomplete,
        Self::HalfDone,
        Self::Usage,
        Self::RunsAsRoot,
        Self::Locked,
        Self::TargetRunning,
        Self::SourceRunning,
        Self::NotACluster,
        Self::NotWritable,
        Self::NoSpace,
        Self::SameCluster,
        Self::ControlFileDamaged,
        Self::HistoryDamaged,
        Self::WalMissing,
        Self::WalDamaged,
        Self::SourceUnreachable,
        Self::SourcePrivileges,
        Self::SourceIdentity,
        Self::SourceTimeline,
        Self::ManifestInvalid,
        Self::PlanDigest,
        Self::PlanNotApplyable,
        Self::UnderWay,
        Self::NothingToUndo,
        Self::StateDamaged,
        Self::Tampered,
        Self::NotSound,
        Self::ProgramMissing,
        Self::RestoreCommand,
        Self::RecoveryFailed,
    ];

    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::PlanStale => "plan_stale",
            Self::Precondition => "precondition",
            Self::Incomplete => "incomplete",
            Self::HalfDone => "half_done",
            Self::Usage => "usage",
            Self::RunsAsRoot => "runs_as_root",
            Self::Locked => "locked",
            Self::TargetRunning => "target_running",
            Self::SourceRunning => "source_running",
            Self::NotACluster => "not_a_cluster",
            Self::NotWritable => "not_writable",
            Self::NoSpace => "no_space",
            Self::SameCluster => "same_cluster",
            Self::ControlFileDamaged => "control_file_damaged",
            Self::HistoryDamaged => "history_damaged",
            Self::WalMissing => "wal_missing",
            Self::WalDamaged => "wal_damaged",
            Self::SourceUnreachable => "source_unreachable",
            Self::SourcePrivileges => "source_privileges",
            Self::SourceIdentity => "source_identity",
            Self::SourceTimeline => "source_timeline",
            Self::ManifestInvalid => "manifest_invalid",
            Self::PlanDigest => "plan_digest",
            Self::PlanNotApplyable => "plan_not_applyable",
            Self::UnderWay => "under_way",
            Self::NothingToUndo => "nothing_to_undo",
            Self::StateDamaged => "state_damaged",
            Self::Tampered => "tampered",
            Self::NotSound => "not_sound",
            Self::ProgramMissing => "program_missing",
            Self::RestoreCommand => "restore_command",
            Self::RecoveryFailed => "recovery_failed",
        }
    }

    /// What such a failure means before the first write.
    #[must_use]
    pub const fn kind(self) -> ErrorKind {
        match self {
            Self::Failed | Self::NotSound => ErrorKind::Failure,
            Self::Interrupted => ErrorKind::Interrupted,
            Self::PlanStale | Self::SourceIdentity | Self::SourceTimeline => ErrorKind::Stale,
            Self::Precondition
            | Self::RunsAsRoot
            | Self::Locked
            | Self::TargetRunning
            | Self::SourceRunning
            | Self::NotACluster
            | Self::NotWritable
            | Self::NoSpace
            | Self::SameCluster
            | Self::ControlFileDamaged
            | Self::HistoryDamaged
            | Self::WalMissing
            | Self::WalDamaged
            | Self::SourceUnreachable
            | Self::SourcePrivileges
            | Self::ManifestInvalid
            | Self::PlanDigest
            | Self::PlanNotApplyable
            | Self::UnderWay
            | Self::NothingToUndo
            | Self::ProgramMissing
            | Self::RestoreCommand
            | Self::RecoveryFailed => ErrorKind::Precondition,
            Self::Incomplete => ErrorKind::Incomplete,
            Self::HalfDone | Self::StateDamaged | Self::Tampered => ErrorKind::DeadEnd,
            Self::Usage => ErrorKind::Usage,
        }
    }

    /// The name of a failure of which only the kind is known.
    #[must_use]
    pub const fn of_kind(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Failure => Self::Failed,
            ErrorKind::Interrupted => Self::Interrupted,
            ErrorKind::Stale => Self::PlanStale,
            ErrorKind::Precondition => Self::Precondition,
            ErrorKind::Incomplete => Self::Incomplete,
            ErrorKind::DeadEnd => Self::HalfDone,
            ErrorKind::Usage => Self::Usage,
        }
    }
}
