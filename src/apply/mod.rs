//! From a manifest to a rewound directory. Decides nothing: verifies, and obeys or refuses.
//!
//! `stale` proves that both sides are as planned; `seal` makes the directory unstartable before
//! the first change; `units` executes actions, one place for all; `finish` follows the source to
//! its end and puts the real control file in place, last of all.

mod finish;
mod seal;
mod space;
mod stale;
mod units;

use crate::cluster::{Source, Target, TargetStore, shared_directory};
use crate::error::{Error, ErrorKind, Result};
use crate::format::ControlFile;
use crate::manifest::{ActionKind, Manifest, Phase, Verdict, validate};
use crate::plan::read_control_file;
use crate::progress::{Progress, Stage};

use seal::State;
use units::Units;

/// The time of an apply, for the rule `now`.
#[derive(Clone, Debug)]
pub struct Now {
    /// Seconds since 1970.
    pub unix: i64,
    /// Local time as `backup_label` has it: `2026-03-01 10:00:00 CET`.
    pub local: String,
}

/// What an apply works with.
pub struct ApplyContext<'a> {
    /// The plan.
    pub manifest: &'a Manifest,
    /// The plan's document, byte for byte.
    pub document: &'a [u8],
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
}

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

/// Does exactly what the manifest says, or refuses before the first write.
///
/// # Errors
/// [`ErrorKind::Precondition`] and [`ErrorKind::Stale`] before anything was written;
/// [`ErrorKind::Incomplete`] and [`ErrorKind::DeadEnd`] afterwards.
pub fn apply(context: ApplyContext<'_>) -> Result<Outcome> {
    let mut context = context;
    check_manifest(context.manifest)?;
    check_no_server(context.target)?;
    let control = read_control_file(context.target, "target")?;
    if already_applied(context.manifest, context.target)? {
        return Ok(Outcome::AlreadyApplied);
    }
    refuse_sealed(&control)?;
    if let Some(shared) = shared_directory(&context.target.directories(), &context.source.directories()) {
        return Err(Error::precondition(shared).hint("name two different clusters"));
    }
    stale::check_target(context.manifest, &control, context.target, context.store)?;
    stale::check_source(context.manifest, context.source).map_err(nothing_written)?;
    if context.manifest.verdict == Verdict::NotNeeded {
        return not_needed(&mut context);
    }
    preflight(&mut context).map_err(nothing_written)?;
    seal::seal(&mut context, control)?;
    execute(&mut context).map_err(after_first_write)
}

/// Whether this very plan has been applied to this target, and nothing has changed it since. Needs
/// no source.
///
/// # Errors
/// When the target cannot be read.
pub fn already_applied(manifest: &Manifest, target: &mut dyn Target) -> Result<bool> {
    let state = State::read(target)?;
    let control = target.control_file()?;
    Ok(state.is_some_and(|state| state.is_finished_by(&manifest.digest, &control)))
}

fn check_manifest(manifest: &Manifest) -> Result<()> {
    if !manifest.applyable || manifest.verdict == Verdict::Impossible {
        return Err(Error::precondition("the plan says that it cannot be applied").hint("see why: pg_unfork show"));
    }
    let problems = validate(manifest);
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::precondition(format!("the manifest cannot be executed: {}", problems.join("; ")))
        .hint("make the plan again, with this version of pg_unfork"))
}

fn check_no_server(target: &dyn Target) -> Result<()> {
    match target.running_server()? {
        None => Ok(()),
        Some(pid) => Err(Error::precondition(format!("a server is running on the target (process {pid})"))
            .hint("stop it in good order (pg_ctl stop -m fast), and plan again if it wrote anything")
            .hint("if that process is no PostgreSQL, postmaster.pid is left from a crash: remove it")),
    }
}

/// Everything that can be known to fail is known before the first write.
fn preflight(context: &mut ApplyContext<'_>) -> Result<()> {
    check_links(context.manifest, context.store)?;
    stale::check_writable(context.manifest, context.store)?;
    space::check_space(context.manifest, context.store)?;
    finish::source_end(context.manifest, context.source)?;
    stale::check_readable(context.manifest, context.source)
}

/// Before the first write a plan that can never finish is only stale.
fn nothing_written(error: Error) -> Error {
    if error.kind() == ErrorKind::DeadEnd { error.with_kind(ErrorKind::Stale) } else { error }
}

/// The locations of new tablespaces must be fit before anything is written.
fn check_links(manifest: &Manifest, store: &dyn TargetStore) -> Result<()> {
    let links = manifest.actions.iter().filter(|action| action.kind == ActionKind::CreateSymlink);
    let links: Vec<_> =
        links.filter_map(|action| Some((&action.path, action.after.as_ref()?.link.as_ref()?.as_bytes()))).collect();
    store.check_symlinks(&links)
}

fn refuse_sealed(control: &ControlFile) -> Result<()> {
    if !control.is_sealed() {
        return Ok(());
    }
    Err(Error::precondition("an apply began on this target and did not finish; it cannot be resumed by this version")
        .hint("the target is sealed: no server can start on it, and its data is partly the source's")
        .hint("make the target anew from a base backup of the source"))
}

/// From the first write on, whatever fails leaves a sealed target behind.
fn after_first_write(error: Error) -> Error {
    let kind = if error.kind() == ErrorKind::DeadEnd { ErrorKind::DeadEnd } else { ErrorKind::Incomplete };
    error.with_kind(kind).hint("the target is sealed: no server can start on it until it has been made whole")
}

/// With `-R` a target that needs no rewind gets its recovery configuration, and nothing else.
fn not_needed(context: &mut ApplyContext<'_>) -> Result<Outcome> {
    let Some(recovery) = &context.manifest.recovery else {
        return Ok(Outcome::NotNeeded { configured: false });
    };
    stale::check_writable(context.manifest, context.store)?;
    let written = finish::write_recovery(context.store, recovery).and_then(|()| context.store.sync(context.progress));
    written.map_err(|error| error.with_kind(ErrorKind::Incomplete))?;
    Ok(Outcome::NotNeeded { configured: true })
}

/// Everything after the seal.
fn execute(context: &mut ApplyContext<'_>) -> Result<Outcome> {
    let manifest = context.manifest;
    context.progress.begin(Stage::Copy, Some(manifest.totals.bytes));
    let mut units = Units::new(context.store, context.source, context.progress, manifest);
    let phases = [Phase::Wal, Phase::Create, Phase::Copy, Phase::Truncate, Phase::Remove];
    let done = phases.into_iter().try_for_each(|phase| units.phase(phase));
    let (mut bytes, left) = (units.bytes(), units.left());
    let finished = done.and_then(|()| finish::finish(context, &mut bytes));
    if finished.is_err() {
        context.progress.end();
    }
    let standby = finished?;
    Ok(Outcome::Rewound { bytes, left, standby })
}
