//! From a manifest to a rewound directory. Decides nothing: verifies, and obeys or refuses.
//!
//! `stale` proves that both sides are as planned; `seal` makes the directory unstartable before
//! the first change; `units` executes actions, one place for all; `finish` follows the source to
//! its end and puts the real control file in place, last of all. What is done goes to the
//! `journal`, what is replaced is kept, and `images` hold what blocks were: so an apply that died can be
//! resumed, and `undo` can put everything back. `state` says which of that is the case.

mod batch;
mod clean;
mod copying;
mod differences;
mod done;
mod expected;
mod finish;
mod frame;
mod history;
mod images;
mod journal;
mod kept;
mod recovery;
mod rewritten;
mod roots;
mod seal;
mod stale;
mod state;
mod status;
mod undo;
mod units;
mod verify;
mod writer;

use crate::cluster::{Durability, ReadAt, Source, Target, TargetStore, shared_directory};
use crate::error::{Error, ErrorId, ErrorKind, Result};
use crate::format::ControlFile;
use crate::interrupt::Interrupt;
use crate::manifest::{Manifest, Phase, RecoveryPlan, Scope, Verdict, validate};
use crate::plan::{new_links, read_control_file};
use crate::progress::{Progress, Stage};
use crate::types::Lsn;

use images::Images;
use journal::Writer as Journal;
use state::State;
use units::Units;

pub use clean::{clean, unarchived_wal};
pub use history::{Actor, note};
pub use journal::{Skipped, bytes_journaled};
pub use state::{Condition, condition, is_applied};
pub use status::{Status, status};
pub use undo::{UndoContext, Undone, undo};
pub use verify::{Lines, Verification, VerifyContext, verify};

/// The time of an apply, for the rule `now`.
#[derive(Clone, Debug)]
pub struct Now {
    /// Seconds since 1970.
    pub unix: i64,
    /// RFC 3339 in UTC, for the history.
    pub utc: String,
    /// Local time as `backup_label` has it: `2026-03-01 10:00:00 CET`.
    pub local: String,
}

/// What an apply works with.
pub struct ApplyContext<'a> {
    /// The plan.
    pub manifest: &'a Manifest,
    /// The plan's document.
    pub document: &'a dyn ReadAt,
    /// The target, for reading.
    pub target: &'a mut dyn Target,
    /// The target, for writing.
    pub store: &'a mut dyn TargetStore,
    /// The source.
    pub source: &'a mut dyn Source,
    /// The time.
    pub now: &'a dyn Fn() -> Now,
    /// Who watches.
    pub progress: &'a dyn Progress,
    /// What is wished of it.
    pub options: ApplyOptions,
    /// What this apply is called, if it is not one that is resumed: unlike any other.
    pub id: &'a str,
    /// Whether somebody wants this to end.
    pub interrupt: &'a Interrupt,
    /// Who runs it.
    pub actor: &'a Actor,
}

/// How an apply is done; none of it changes what comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplyOptions {
    /// Whether what is replaced is kept, so that all can be undone.
    pub undo: bool,
    /// Whether the store makes changes durable at all.
    pub durable: bool,
    /// Bytes after which what was written is made durable and journaled; usually [`BATCH_BYTES`].
    pub batch_bytes: u64,
}

/// Bytes that are copied between two syncs.
pub const BATCH_BYTES: u64 = journal::PIECE;

/// What an apply came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target was rewound.
    Rewound {
        /// Bytes copied.
        bytes: u64,
        /// Directories left because something unknown is in them.
        left: u64,
        /// Whether the target starts as a standby.
        standby: bool,
        /// Whether all of it was made durable, by whichever run: where the last one makes changes durable, it does so
        /// for those before it, too.
        durable: bool,
    },
    /// No rewind was needed; the recovery configuration was written where the plan has one.
    NotNeeded {
        /// Whether there was one.
        configured: bool,
    },
    /// This very plan has been applied to this target before.
    AlreadyApplied,
}

impl std::fmt::Debug for ApplyContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApplyContext").field("digest", &self.manifest.digest).finish_non_exhaustive()
    }
}

impl ApplyContext<'_> {
    fn units<'b>(&'b mut self, journal: &'b mut Journal, images: Option<Images>) -> Units<'b> {
        Units {
            store: &mut *self.store,
            source: &mut *self.source,
            progress: self.progress,
            manifest: self.manifest,
            journal,
            images,
            batch_bytes: self.options.batch_bytes,
            interrupt: self.interrupt,
            bytes: 0,
            left: 0,
            owed: Vec::new(),
            unsettled: None,
        }
    }
}

/// Does exactly what the manifest says, or refuses before the first write. Where an apply of the same plan has
/// begun, goes on with it.
///
/// # Errors
/// [`ErrorKind::Precondition`] and [`ErrorKind::Stale`] before anything was written;
/// [`ErrorKind::Incomplete`] and [`ErrorKind::DeadEnd`] afterwards.
pub fn apply(context: ApplyContext<'_>) -> Result<Outcome> {
    let mut context = context;
    let Standing { control, condition, state, same } = standing(&mut context)?;
    match (condition, state) {
        (Condition::Applied, _) if same => Ok(Outcome::AlreadyApplied),
        (Condition::Applying, Some(state)) if same => {
            let undo = state.header.undo && context.options.undo;
            let outcome = resume(&mut context, &state).map_err(|error| after_first_write(error, undo));
            remember(&mut context, outcome)
        }
        (Condition::Applying | Condition::Undoing | Condition::Tampered, _) => Err(under_way(condition, same)),
        (_, earlier) => fresh(&mut context, control, earlier),
    }
}

/// Where a target stands before an apply.
struct Standing {
    control: ControlFile,
    condition: Condition,
    state: Option<State>,
    /// Whether its state is that of an apply of this very plan.
    same: bool,
}

fn standing(context: &mut ApplyContext<'_>) -> Result<Standing> {
    check_manifest(context.manifest)?;
    check_no_server(context.target)?;
    let control = read_control_file(context.target, "target")?;
    let state = State::read(context.store)?;
    let condition = state.as_ref().map_or(Condition::Untouched, |state| state.condition(control.as_bytes()));
    let same = state.as_ref().is_some_and(|state| state.header.digest == context.manifest.digest);
    Ok(Standing { control, condition, state, same })
}

/// Why no apply can begin where another one, or an undo, is under way.
fn under_way(condition: Condition, same: bool) -> Error {
    match condition {
        Condition::Undoing => Error::of(ErrorId::UnderWay, "an undo has begun on this target and did not finish")
            .hint("finish it first: pg_unfork undo"),
        Condition::Tampered => Error::of(
            ErrorId::Tampered,
            "an apply began on this target, and since then something else has changed global/pg_control",
        )
        .hint("the target is partly the source's; take it back (pg_unfork undo) and plan again")
        .hint("if that fails, make the target anew from a base backup"),
        _ if same => Error::of(ErrorId::UnderWay, "an apply has begun on this target"),
        _ => Error::of(ErrorId::UnderWay, "an apply of another plan has begun on this target and did not finish")
            .hint("go on with that one (pg_unfork apply -D) or take it back (pg_unfork undo -D)"),
    }
}

/// What an apply would do, were it not only asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Begin.
    Begin,
    /// Go on with what has begun.
    Resume,
    /// Nothing: this very plan has been applied to this target before.
    AlreadyApplied,
}

/// Everything that an apply looks at before its first write, and no write.
///
/// # Errors
/// As [`apply`], before anything was written.
pub fn check(context: ApplyContext<'_>) -> Result<Readiness> {
    let mut context = context;
    let Standing { control, condition, state, same } = standing(&mut context)?;
    match (condition, state) {
        (Condition::Applied, _) if same => Ok(Readiness::AlreadyApplied),
        (Condition::Applying, Some(state)) if same => {
            state.journal()?;
            check_same_source(&mut context).map_err(|error| no_way_on(error, state.header.undo))?;
            check_separate(&context)?;
            check_password(&context)?;
            Ok(Readiness::Resume)
        }
        (Condition::Applying | Condition::Undoing | Condition::Tampered, _) => Err(under_way(condition, same)),
        _ => check_fresh(&mut context, &control).map(|()| Readiness::Begin),
    }
}

/// Refuses what is not as planned, and what would keep an apply from coming to its end.
fn check_fresh(context: &mut ApplyContext<'_>, control: &ControlFile) -> Result<()> {
    refuse_sealed(control)?;
    check_separate(context)?;
    let target = stale::target_differences(context.manifest, control, context.target, context.store)?;
    let source = stale::source_differences(context.manifest, context.source).map_err(nothing_written)?;
    differences::refuse(context.manifest, &[target, source])?;
    check_password(context)?;
    if context.manifest.verdict == Verdict::NotNeeded {
        let configures = context.manifest.recovery.is_some();
        return if configures { stale::check_writable(context.manifest, context.store) } else { Ok(()) };
    }
    context.store.check_symlinks(&new_links(&context.manifest.actions))?;
    stale::check_space(context.manifest, context.store, context.options.undo)?;
    preflight(context).map_err(nothing_written)
}

/// An apply from its beginning.
fn fresh(context: &mut ApplyContext<'_>, control: ControlFile, earlier: Option<State>) -> Result<Outcome> {
    check_fresh(context, &control)?;
    if context.manifest.verdict == Verdict::NotNeeded {
        return not_needed(context);
    }
    let mut journal = seal::prepare(context, &control, earlier)?;
    note_event(context, "apply", None)?;
    seal::seal(context, &mut journal, &control)?;
    let outcome = execute(context, &mut journal, None);
    let outcome = outcome.map_err(|error| after_first_write(error, context.options.undo));
    remember(context, outcome)
}

/// Writes into the history how an apply ended.
fn remember(context: &mut ApplyContext<'_>, outcome: Result<Outcome>) -> Result<Outcome> {
    let noted = match &outcome {
        Ok(_) => note_event(context, "applied", None),
        Err(error) => note_event(context, "stopped", Some(error)),
    };
    // The outcome counts, not the note of it.
    let _ = noted;
    outcome
}

fn note_event(context: &mut ApplyContext<'_>, event: &str, error: Option<&Error>) -> Result<()> {
    note(context.store, context.actor, &(context.now)().utc, event, &context.manifest.digest, error)
}

/// Goes on with an apply that has begun: the target is sealed.
fn resume(context: &mut ApplyContext<'_>, state: &State) -> Result<Outcome> {
    state.journal()?;
    let header = state::Header {
        undo: state.header.undo && context.options.undo,
        durable: state.header.durable && context.options.durable,
        ..state.header.clone()
    };
    if header != state.header {
        header.write(context.store)?;
    }
    context.options.undo = header.undo;
    check_same_source(context).map_err(|error| no_way_on(error, header.undo))?;
    check_separate(context)?;
    check_password(context)?;
    // Going on must not depend on room for a line of history.
    let _ = note_event(context, "resume", None);
    let mut journal = state::open_journal(context.store)?;
    if !journal.journal().sealed {
        journal.write(vec![journal::Record::Sealed])?;
    }
    execute(context, &mut journal, Some(&header))
}

/// An apply that has begun and whose source is not as planned any more is at a dead end.
fn no_way_on(error: Error, undo: bool) -> Error {
    let hint = if undo { UNDO } else { BASE_BACKUP };
    if error.kind() == ErrorKind::Stale { error.with_kind(ErrorKind::DeadEnd).hint(hint) } else { error }
}

/// What is gone on with must come from where it began.
fn check_same_source(context: &mut ApplyContext<'_>) -> Result<()> {
    let source = stale::source_differences(context.manifest, context.source)?;
    differences::refuse(context.manifest, &[source])
}

/// A password that is to be written at the end must be there from the beginning.
fn check_password(context: &ApplyContext<'_>) -> Result<()> {
    context.manifest.recovery.as_ref().map_or(Ok(None), |plan| recovery::password(plan, context.source)).map(|_| ())
}

const UNDO: &str = "this plan can never finish with this source: take it back (pg_unfork undo) and plan again";
const BASE_BACKUP: &str = "this plan can never finish with this source: make the target anew from a base backup";

fn check_separate(context: &ApplyContext<'_>) -> Result<()> {
    match shared_directory(&context.target.directories(), &context.source.directories()) {
        Some(shared) => Err(Error::of(ErrorId::SameCluster, shared).hint("name two different clusters")),
        None => Ok(()),
    }
}

fn check_manifest(manifest: &Manifest) -> Result<()> {
    if manifest.scope == Scope::Preview {
        let message = "the plan is a preview, made while the target could still change, and cannot be applied";
        return Err(Error::of(ErrorId::PlanNotApplyable, message)
            .hint("stop the target in good order (pg_ctl stop -m fast), and plan again without --preview"));
    }
    if !manifest.applyable || manifest.verdict == Verdict::Impossible {
        return Err(Error::of(ErrorId::PlanNotApplyable, "the plan says that it cannot be applied")
            .hint("see why: pg_unfork show"));
    }
    let problems = validate(manifest);
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::of(ErrorId::ManifestInvalid, format!("the manifest cannot be executed: {}", problems.join("; ")))
        .hint("make the plan again, with this version of pg_unfork"))
}

fn check_no_server(target: &dyn Target) -> Result<()> {
    match target.running_server()? {
        None => Ok(()),
        Some(pid) => {
            Err(Error::of(ErrorId::TargetRunning, format!("a server is running on the target (process {pid})"))
                .hint("stop it in good order (pg_ctl stop -m fast), and plan again if it wrote anything")
                .hint("if that process is no PostgreSQL, postmaster.pid is left from a crash: remove it"))
        }
    }
}

/// Everything that can be known to fail is known before the first write.
fn preflight(context: &mut ApplyContext<'_>) -> Result<()> {
    stale::check_writable(context.manifest, context.store)?;
    finish::source_end(context.manifest, context.source, Lsn::INVALID)?;
    stale::check_readable(context.manifest, context.source)
}

/// Before the first write a plan that can never finish is only stale.
fn nothing_written(error: Error) -> Error {
    if error.kind() == ErrorKind::DeadEnd { error.with_kind(ErrorKind::Stale) } else { error }
}

fn refuse_sealed(control: &ControlFile) -> Result<()> {
    if !control.is_sealed() {
        return Ok(());
    }
    Err(Error::of(ErrorId::StateDamaged, "an apply has begun on this target, and what it noted in .pg_unfork is gone")
        .with_kind(ErrorKind::Precondition)
        .hint("the target is sealed: no server can start on it, and its data may be partly the source's")
        .hint("make the target anew from a base backup of the source"))
}

/// From the first write on, whatever fails leaves a sealed target behind.
/// `undo` says whether it can be taken back.
#[must_use]
pub fn after_first_write(error: Error, undo: bool) -> Error {
    let kind = if error.kind() == ErrorKind::DeadEnd { ErrorKind::DeadEnd } else { ErrorKind::Incomplete };
    let back = if undo { " or undone (pg_unfork undo)" } else { "" };
    error
        .with_kind(kind)
        .hint(format!("the target is sealed: no server starts on it until the apply is finished (run it again){back}"))
}

/// With `-R` a target that needs no rewind gets its recovery configuration, and nothing else.
fn not_needed(context: &mut ApplyContext<'_>) -> Result<Outcome> {
    let Some(recovery) = &context.manifest.recovery else {
        return Ok(Outcome::NotNeeded { configured: false });
    };
    configure(context.store, recovery, context.source, context.progress)?;
    Ok(Outcome::NotNeeded { configured: true })
}

/// Makes a target that needs no rewind a standby, durably: appends to `postgresql.auto.conf`, and creates
/// `standby.signal`.
///
/// # Errors
/// [`ErrorKind::Incomplete`] when that cannot be written.
pub fn configure(
    store: &mut dyn TargetStore,
    recovery: &RecoveryPlan,
    source: &dyn Source,
    progress: &dyn Progress,
) -> Result<()> {
    let written =
        recovery::write_recovery(store, recovery, source, Durability::Now).and_then(|()| store.sync(progress));
    written.map_err(|error| error.with_kind(ErrorKind::Incomplete))
}

/// Everything after the seal; where an earlier run may have done some of it, `begun` is what the state says of that.
fn execute(context: &mut ApplyContext<'_>, journal: &mut Journal, begun: Option<&state::Header>) -> Result<Outcome> {
    let again = begun.is_some();
    let images = if context.options.undo { Some(Images::resume(context.store, journal.journal())?) } else { None };
    let again_copied = if again { rewritten::copy_rewritten(context, journal)? } else { 0 };
    context.progress.begin(Stage::Copy, Some(context.manifest.totals.bytes));
    let mut units = context.units(journal, images);
    let phases = [Phase::Wal, Phase::Create, Phase::Copy, Phase::Truncate, Phase::Remove];
    let checked = if again { units.redo_rewritten() } else { Ok(()) };
    let done = checked.and_then(|()| phases.into_iter().try_for_each(|phase| units.phase(phase)));
    let (mut bytes, left) = (units.bytes + again_copied, units.left);
    let finished = done.and_then(|()| finish::finish(context, journal, &mut bytes, begun));
    if finished.is_err() {
        context.progress.end();
    }
    let standby = finished?;
    Ok(Outcome::Rewound { bytes, left, standby, durable: context.options.durable })
}
