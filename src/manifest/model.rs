//! The document's types. Fields stand in the byte order of their names, which is the order in
//! which they are written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::discarded::Discarded;
use crate::cluster::{FileTime, SourceKind};
use crate::format::DbState;
use crate::types::{BlockRange, ClusterPath, FileMode, Geometry, LinkText, Lsn, TimelineHistory, TimelineId};

/// A plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    /// What is done to the target, ordered by phase and path; one action per path.
    pub actions: Vec<Action>,
    /// Whether an apply would accept this plan at all.
    pub applyable: bool,
    /// The `backup_label` that the target gets; none where nothing is rewound.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub backup_label: Option<LabelPlan>,
    /// The last checkpoint before the fork, from whose redo position the target replays.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub checkpoint: Option<CommonCheckpoint>,
    /// What was checked before planning.
    pub checks: Vec<Check>,
    /// How the target's control file is made, last of all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub control_file: Option<ControlFilePlan>,
    /// When the plan was made (RFC 3339, UTC). Not covered by the digest.
    pub created: String,
    /// `sha256:` and the digest of the document without `created` and `digest`.
    pub digest: String,
    /// The target's own work after the fork, which is lost.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub discarded: Option<Discarded>,
    /// Where the histories part.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub divergence: Option<Divergence>,
    /// How long an apply will take, roughly.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub estimate: Option<Estimate>,
    /// The version of this format, major and minor.
    pub format_version: String,
    /// Paths that stock pg_rewind would change and this plan does not.
    pub kept: Vec<Kept>,
    /// The recovery configuration of `-R`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recovery: Option<RecoveryPlan>,
    /// What an apply must know to execute the plan; one that does not must refuse.
    pub requires: Vec<String>,
    /// The rules of the person who planned, and the built-in one for logs, each with the number of paths it touched.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub rules: Vec<PathRule>,
    /// How much was looked at; only a full plan can be applied.
    #[serde(default)]
    pub scope: Scope,
    /// The cluster that the target is to follow.
    pub source: SourceSide,
    /// The cluster that is changed.
    pub target: TargetSide,
    /// What made the plan.
    pub tool: Tool,
    /// Sums over `actions`.
    pub totals: Totals,
    /// What the plan comes to.
    pub verdict: Verdict,
    /// The WAL that was read and the WAL that the target needs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wal: Option<WalPlan>,
}

/// What a plan comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The target has forked; the actions bring it back.
    Rewind,
    /// The target can follow the source as it is.
    NotNeeded,
    /// A check failed: see `checks`.
    Impossible,
}

/// How much a plan has looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All of it.
    #[default]
    Full,
    /// All of it as it was at that moment, while the target's server was running or had crashed.
    Preview,
    /// Whether a rewind is needed and possible, and nothing else.
    CheckOnly,
}

/// How long an apply will take, roughly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Estimate {
    /// What was assumed, for people.
    pub basis: String,
    /// Seconds.
    pub seconds: u64,
}

/// A rule about paths that changes what stock pg_rewind would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PathRule {
    /// What it does.
    pub kind: PathRuleKind,
    /// How many paths it touched: those in `kept`, or in `roots` of tablespaces.
    pub paths: u64,
    /// What it says: a glob, `OLD=NEW`, a policy, a directory.
    pub rule: String,
}

/// What a rule about paths does. One that is not known must be refused by an apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PathRuleKind {
    /// `--config-policy target`: the target's own settings stay.
    ConfigPolicy,
    /// `--exclude`: not fetched, not removed.
    Exclude,
    /// `--keep`: the target's own stays.
    Keep,
    /// The directory of log files of either side is left alone.
    LogDirectory,
    /// `--tablespace-mapping`: a new tablespace's location on the target.
    TablespaceMapping,
}

/// What is done to one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Action {
    /// What will be there; none after a removal. Sizes are those of planning: a live source's
    /// files may differ by then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<PathState>,
    /// What is there now; none where nothing is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<PathState>,
    /// Of a `patch`: the blocks to copy, ascending, each range `[first, count]`, below the smaller
    /// of both sizes.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub blocks: Vec<BlockRange>,
    /// What is done.
    pub kind: ActionKind,
    /// The path below the target's data directory.
    pub path: ClusterPath,
    /// When it is done.
    pub phase: Phase,
    /// Why; for people.
    pub reason: Reason,
    /// The source's file as planned, where bytes come from it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<PathState>,
}

/// What is done to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// The directory is made.
    CreateDirectory,
    /// The symlink is made, with the source's text.
    CreateSymlink,
    /// The source's file replaces the target's, or is new: all of it, to its end as it is then.
    CopyFile,
    /// A file that consists of blocks (a relation's, a part of the transactions' state): `blocks` are copied, a tail
    /// that only the source has is copied, one that only the target has is cut off (in phase `truncate`).
    Patch,
    /// The file, symlink or directory is removed.
    Remove,
}

/// The order of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The control file is replaced by one that no server accepts.
    Seal,
    /// WAL that replay needs, histories, and directories for them.
    Wal,
    /// Directories and symlinks.
    Create,
    /// Blocks, tails and whole files.
    Copy,
    /// Tails that only the target has.
    Truncate,
    /// What only the target has, and what is of no use any more; in descending order of path.
    Remove,
    /// WAL to the source's end, recovery configuration, `backup_label`, control file.
    Finish,
}

/// Why something is done to a path. Readers must bear with values that they do not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The target changed the blocks after the fork.
    ChangedOnTarget,
    /// The file is longer on the source.
    LongerOnSource,
    /// The file is longer on the target.
    LongerOnTarget,
    /// Both have it; it is no relation's main fork, so WAL cannot tell what changed in it.
    NotARelation,
    /// Both have it, and it consists of blocks; those that differ are copied.
    BlocksDiffer,
    /// Only the source has it.
    OnlyOnSource,
    /// Only the target has it.
    OnlyOnTarget,
    /// It means nothing to another server (temporary files, slots, pid file …).
    Excluded,
    /// Replay reads it.
    ReplayNeedsIt,
    /// A timeline history.
    TimelineHistory,
    /// A WAL segment that is not on the source's line of history after the fork.
    NotInSourceHistory,
}

/// A path's state as far as staleness and undoing need it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PathState {
    /// A symlink's text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub link: Option<LinkText>,
    /// Permission bits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode: Option<FileMode>,
    /// Last modification of a regular file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub modified: Option<FileTime>,
    /// Bytes of a regular file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
}

/// A path that stock pg_rewind would have changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Kept {
    /// The target's file, where it must not move before the apply; none where that does not matter.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<PathState>,
    /// The path.
    pub path: ClusterPath,
    /// Why it stays as it is, or is not fetched.
    pub reason: KeptReason,
    /// The rule that says so, where the reason is one: as in `rules`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
    /// The source's file, where it was compared with the target's; a stopped source's must not move.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<PathState>,
}

/// Why a path that stock pg_rewind would change is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeptReason {
    /// Only the target has this segment of the common history, and replay needs it.
    OnlyCopyOfCommonWal,
    /// The segment lies before the position where replay begins.
    BeforeReplay,
    /// The source's segment is not on its line of history, or beyond its end: recycled.
    NotReplayed,
    /// The status belongs to a segment that is not fetched.
    StatusOfUnfetchedWal,
    /// Both had the same file when the plan was made: all of its bytes were compared, or the SHA-256 of each of its
    /// pieces where the source is a server or a listing; or it has none.
    SameContent,
    /// `--config-policy target`: a file of settings.
    ConfigPolicy,
    /// `--exclude`: not fetched, not removed.
    Exclude,
    /// `--keep`: the target's own stays; where it has none, the source's comes.
    Keep,
    /// A file of a log directory.
    LogDirectory,
    /// `global/pg_control.old`, which is CloudNativePG's.
    ControlFileCopy,
}

/// A rule for a value that only an apply can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RuleName {
    /// The time of the apply.
    Now,
    /// The end of the source's WAL once everything is copied, and its timeline.
    SourceEnd,
    /// The source's file as it is when the apply ends.
    SourceAtApply,
}

/// A value that an apply fills in by a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rule {
    /// The rule.
    pub rule: RuleName,
}

/// How the target's control file is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ControlFilePlan {
    /// Whose bytes it begins with.
    pub base: RuleName,
    /// What is different in it.
    pub set: ControlFileEdits,
}

/// The fields of the control file that differ from the source's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ControlFileEdits {
    /// Up to where the target must replay before it is consistent.
    pub min_recovery_point: Rule,
    /// The timeline of that position.
    #[serde(rename = "minRecoveryPointTLI")]
    pub min_recovery_timeline: Rule,
    /// The state that makes the server recover.
    pub state: DbState,
    /// The file's time; none where the source's stays (13 and 14).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub time: Option<Rule>,
}

/// The target's `backup_label`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LabelPlan {
    /// The record of the checkpoint.
    pub checkpoint: Lsn,
    /// Where replay begins.
    pub start: Lsn,
    /// The label's START TIME.
    pub start_time: Rule,
    /// The timeline of the checkpoint.
    pub timeline: TimelineId,
}

/// The last checkpoint that both histories share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CommonCheckpoint {
    /// Its record.
    pub lsn: Lsn,
    /// Its redo position.
    pub redo: Lsn,
    /// When it was taken, in seconds since 1970.
    pub time: i64,
    /// Its timeline.
    pub timeline: TimelineId,
}

/// Where the histories part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Divergence {
    /// The end of the last common record.
    pub lsn: Lsn,
    /// The timeline that both share up to there.
    pub timeline: TimelineId,
}

/// The WAL that was read and the WAL that the target needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WalPlan {
    /// What is fetched at the end of an apply, beyond the segments in `actions`.
    pub fetch: WalFetch,
    /// The segments of what was read that the target's own `pg_wal` lacked, and where they were got from to be read.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub obtained: Vec<ObtainedSegment>,
    /// What was read of the target's WAL.
    pub scanned: WalRange,
    /// The segments that replay reads, as far as they were there when the plan was made.
    pub segments: Vec<WalSegmentPlan>,
}

/// WAL to fetch by name, as the source goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WalFetch {
    /// From the segment that holds this position: complete segments before it are in `actions`.
    pub from: Lsn,
    /// Through the segment that holds this one.
    pub through: Rule,
    /// The timeline whose segments these are.
    pub timeline: TimelineId,
}

/// A segment that the target's own `pg_wal` lacked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ObtainedSegment {
    /// Its file name.
    pub file: String,
    /// Where it was got from.
    pub from: ObtainedFrom,
}

/// Where a segment was got from to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ObtainedFrom {
    /// The source's `pg_wal`, which has the same bytes before the fork.
    Source,
    /// An archive, by a `restore_command`.
    RestoreCommand,
}

/// A stretch of WAL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WalRange {
    /// The first position.
    pub from: Lsn,
    /// The position after the last.
    pub through: Lsn,
}

/// A segment that replay reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WalSegmentPlan {
    /// Its file name.
    pub file: String,
    /// Where it is.
    #[serde(rename = "where")]
    pub place: WalPlace,
}

/// Where a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WalPlace {
    /// On the source, from where it is fetched.
    Source,
    /// On the target alone, where it stays.
    Target,
    /// On both, with the same bytes: the target's stays.
    Both,
    /// On neither: the server needs a `restore_command` or the source's slot to have it.
    Missing,
}

/// The recovery configuration of `-R`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecoveryPlan {
    /// The value of `primary_conninfo`, appended to `postgresql.auto.conf`; no password.
    pub primary_conninfo: String,
    /// Whether `standby.signal` is made.
    pub standby_signal: bool,
    /// Whether the password that the apply is given is appended, in plain text.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub with_password: bool,
}

/// A precondition and what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// Statements or commands that do what `remedy` says, a line each.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub commands: Vec<String>,
    /// What was found, for people, in one line.
    pub detail: String,
    /// What was found, line by line: paths, slots, differences of settings.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub evidence: Vec<String>,
    /// The check's stable name.
    pub id: String,
    /// What to do where it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub remedy: Option<String>,
    /// How it went.
    pub status: CheckStatus,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// As it must be.
    Pass,
    /// Not as one would wish; a rewind is possible.
    Warn,
    /// No rewind is possible.
    Fail,
}

/// What a control file said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ControlFacts {
    /// `catalog_version_no`.
    pub catalog_version: u32,
    /// The record of the last checkpoint.
    pub checkpoint: Lsn,
    /// `pg_control_version`.
    pub control_version: u32,
    /// `data_checksum_version`.
    pub data_checksums: u32,
    /// The cluster's sizes.
    pub geometry: Geometry,
    /// `minRecoveryPoint`.
    pub min_recovery_point: Lsn,
    /// The last checkpoint's redo position.
    pub redo: Lsn,
    /// SHA-256 of the file, in lower-case hexadecimal.
    pub sha256: String,
    /// The state that the server left.
    pub state: DbState,
    /// `system_identifier`, decimal.
    pub system_identifier: String,
    /// The timeline that the cluster is on.
    pub timeline: TimelineId,
    /// `wal_log_hints`.
    pub wal_log_hints: bool,
}

/// The target when the plan was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TargetSide {
    /// What its control file said.
    pub control_file: ControlFacts,
    /// The data directory.
    pub directory: LinkText,
    /// The data directory's permission bits.
    pub directory_mode: FileMode,
    /// Its line of timelines.
    pub history: TimelineHistory,
    /// PostgreSQL's major.
    pub major: u32,
    /// Where links of the data directory lead; below them files are changed, too.
    pub roots: Vec<Root>,
    /// The end of its WAL.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wal_end: Option<Lsn>,
}

/// A link of the data directory that is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Root {
    /// The link's text.
    pub link: LinkText,
    /// The link: `pg_wal`, or an entry of `pg_tblspc`.
    pub path: ClusterPath,
}

/// The source when the plan was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceSide {
    /// Its data directory, or connection settings without secrets.
    pub address: String,
    /// What its control file said.
    pub control_file: ControlFacts,
    /// Its line of timelines.
    pub history: TimelineHistory,
    /// How it was reached.
    pub kind: SourceKind,
    /// PostgreSQL's major.
    pub major: u32,
    /// How far its WAL reached.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wal_end: Option<Lsn>,
}

/// What made the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    /// The program.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Sums over the actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    /// Blocks copied into files that both have.
    pub blocks: u64,
    /// Bytes copied in all: blocks, tails and whole files.
    pub bytes: u64,
    /// Files copied whole.
    pub files_copied: u64,
    /// Files patched.
    pub files_patched: u64,
    /// Directories and symlinks made.
    pub paths_created: u64,
    /// Files, symlinks and directories removed.
    pub paths_removed: u64,
    /// Bytes cut off or removed.
    pub removed_bytes: u64,
    /// Bytes that an apply keeps for an undo: blocks, tails and files as they were.
    pub undo_bytes: u64,
}

impl Action {
    /// Bytes that the action copies, by the sizes of planning.
    #[must_use]
    pub fn copied_bytes(&self, block_size: u32) -> u64 {
        let size = |state: &Option<PathState>| state.as_ref().and_then(|s| s.size).unwrap_or(0);
        match self.kind {
            ActionKind::CopyFile => size(&self.source),
            ActionKind::Patch => {
                let blocks: u64 = self.blocks.iter().map(|range| u64::from(range.count)).sum();
                blocks
                    .saturating_mul(u64::from(block_size))
                    .saturating_add(size(&self.after).saturating_sub(size(&self.before)))
            }
            ActionKind::CreateDirectory | ActionKind::CreateSymlink | ActionKind::Remove => 0,
        }
    }
}

impl Action {
    /// Bytes of blocks and tails that are kept for an undo: what they hold is copied before it is overwritten or cut
    /// off. Replaced and removed files are kept themselves.
    #[must_use]
    pub fn image_bytes(&self, block_size: u32) -> u64 {
        if self.kind != ActionKind::Patch {
            return 0;
        }
        let size = |state: &Option<PathState>| state.as_ref().and_then(|s| s.size).unwrap_or(0);
        let blocks: u64 = self.blocks.iter().map(|range| u64::from(range.count)).sum();
        let cut = size(&self.before).saturating_sub(size(&self.after));
        blocks.saturating_mul(u64::from(block_size)).saturating_add(cut)
    }

    /// Bytes that the file systems cannot reuse while all that is kept for an undo is there.
    #[must_use]
    pub fn kept_bytes(&self, block_size: u32) -> u64 {
        let before = self.before.as_ref().and_then(|state| state.size).unwrap_or(0);
        match self.kind {
            ActionKind::CopyFile | ActionKind::Remove => before,
            _ => self.image_bytes(block_size),
        }
    }
}

impl Totals {
    /// The sums over `actions`.
    #[must_use]
    pub fn of(actions: &[Action], block_size: u32) -> Self {
        let size = |state: &Option<PathState>| state.as_ref().and_then(|s| s.size).unwrap_or(0);
        let mut totals = Self::default();
        for action in actions {
            totals.bytes = totals.bytes.saturating_add(action.copied_bytes(block_size));
            totals.undo_bytes = totals.undo_bytes.saturating_add(action.kept_bytes(block_size));
            match action.kind {
                ActionKind::CreateDirectory | ActionKind::CreateSymlink => totals.paths_created += 1,
                ActionKind::CopyFile => totals.files_copied += 1,
                ActionKind::Patch => {
                    totals.files_patched += 1;
                    totals.blocks += action.blocks.iter().map(|range| u64::from(range.count)).sum::<u64>();
                    let cut = size(&action.before).saturating_sub(size(&action.after));
                    totals.removed_bytes = totals.removed_bytes.saturating_add(cut);
                }
                ActionKind::Remove => {
                    totals.paths_removed += 1;
                    totals.removed_bytes = totals.removed_bytes.saturating_add(size(&action.before));
                }
            }
        }
        totals
    }
}
