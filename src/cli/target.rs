//! Making a target ready to be planned for: recovered, if that is wished, and with a command for WAL that it lacks.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use pg_unfork::apply::{self, Condition};
use pg_unfork::cluster::Source;
use pg_unfork::error::{Error, ErrorId, ErrorKind, Result};
use pg_unfork::format::DbState;
use pg_unfork::interrupt::Interrupt;
use pg_unfork::io::{
    DataDirectory, DirectoryStore, Lock, LockKind, PostgresOptions, Programs, RestoreCommand, SyncMethod,
    put_back_signals, recover, signals_are_aside,
};
use pg_unfork::manifest::{CheckStatus, Manifest, Verdict};
use pg_unfork::plan::{PlanOptions, check_recoverable, common_ancestor, make_plan, read_control_file};
use pg_unfork::progress::Silent;

use super::output;

/// What a target may need before it can be planned for.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct PreparationArguments {
    /// Have WAL segments that the target's pg_wal lacks restored by the restore_command in its settings, which its own
    /// postgres tells. They are read where nobody else sees them, and never put into pg_wal.
    #[arg(short = 'c', long)]
    pub(super) restore_target_wal: bool,
    /// The same by this command, of any settings independent: %f is the segment's name, %p the path where it must go. Its environment
    /// has PG_REWIND=1.
    #[arg(long, value_name = "COMMAND", conflicts_with = "restore_target_wal")]
    pub(super) restore_command: Option<OsString>,
    /// The target's main file of settings, where it is not in its data directory and its last command line does not
    /// name it.
    #[arg(long, value_name = "FILE")]
    pub(super) config_file: Option<PathBuf>,
    /// If the target did not stop in good order, have its own postgres recover it first, in single-user mode. This writes
    /// below the target.
    #[arg(long)]
    pub(super) recover_target: bool,
    /// The directory of the target's postgres; without it, beside this program, in PATH, and where packages put it.
    #[arg(long, value_name = "DIR")]
    pub(super) pg_bindir: Option<PathBuf>,
}

impl PreparationArguments {
    /// Whether programs may be run, which must end when this one shall.
    pub(super) fn run_programs(&self) -> bool {
        self.restore_target_wal || self.restore_command.is_some() || self.recover_target
    }

    /// Refuses options that say how to do what nobody asks for.
    ///
    /// # Errors
    /// When there is one.
    pub(super) fn check(&self) -> Result<()> {
        let is_idle = !self.restore_target_wal && !self.recover_target;
        let idle = [("--config-file", &self.config_file), ("--pg-bindir", &self.pg_bindir)];
        match idle.into_iter().find(|(_, value)| is_idle && value.is_some()) {
            None => Ok(()),
            Some((option, _)) => {
                let message =
                    format!("{option} is for --restore-target-wal and --recover-target, and neither is given");
                Err(Error::new(ErrorKind::Usage, message))
            }
        }
    }

    fn programs(&self) -> Programs {
        Programs { directory: self.pg_bindir.clone() }
    }
}

/// Makes a target ready, and locks it against those who write: hold the lock while the plan is made. Whatever a recovery
/// that was killed has put aside is put back; the target is recovered if that is wished and needed; it gets a command for
/// WAL that it lacks. No server may run on it, but for a preview.
///
/// # Errors
/// When somebody else is at work on the target, it cannot or must not be recovered, or no command is to be had.
pub(super) fn prepare(
    target: &mut DataDirectory,
    source: &mut dyn Source,
    arguments: &PreparationArguments,
    options: &PlanOptions,
    interrupt: &Interrupt,
) -> Result<Lock> {
    let directory = target.path().to_owned();
    if signals_are_aside(&directory) {
        let _alone = Lock::take(&directory, LockKind::Exclusive)?;
        put_back(&directory)?;
    }
    let alone = arguments.recover_target.then(|| Lock::take(&directory, LockKind::Exclusive)).transpose()?;
    match prepare_alone(target, source, arguments, options, interrupt)? {
        Prepared::Ready => {}
        Prepared::InVain(outlook) => output::note(&format!(
            "pg_unfork: WARNING: the target is not recovered, which would be in vain: {}\n",
            reasons(&outlook)
        )),
        Prepared::Follows => {
            let message = "the target need not be rewound: the source has all of its WAL";
            return Err(Error::of(ErrorId::RecoveryFailed, message)
                .hint("start it as a standby as it is; recovered by itself it could not follow any more"));
        }
    }
    drop(alone);
    Lock::take(&directory, LockKind::Shared)
}

/// What preparing a target has come to.
#[derive(Debug)]
pub(super) enum Prepared {
    /// It can be planned for.
    Ready,
    /// It was not recovered: no plan would be possible then, as this preview says.
    InVain(Box<Manifest>),
    /// It was not recovered: it follows the source as it is, and recovered by itself it could not any more.
    Follows,
}

/// The same for those who hold the lock already, and put back what a recovery that was killed has put aside.
///
/// # Errors
/// When the target cannot or must not be recovered, or no command is to be had.
pub(super) fn prepare_alone(
    target: &mut DataDirectory,
    source: &mut dyn Source,
    arguments: &PreparationArguments,
    options: &PlanOptions,
    interrupt: &Interrupt,
) -> Result<Prepared> {
    target.stop_on(interrupt.clone());
    if let Some(command) = restore_command(target, arguments, interrupt)? {
        target.restore_by(command);
    }
    if !arguments.recover_target {
        return Ok(Prepared::Ready);
    }
    recover_target(target, source, arguments, options, interrupt)
}

/// Puts back what a recovery that was killed has put aside. Call this while nobody else can be at work on the target.
///
/// # Errors
/// When a server runs on it, or nothing can be written.
pub(super) fn put_back(directory: &Path) -> Result<()> {
    if put_back_signals(directory)? {
        output::note(
            "pg_unfork: put back standby.signal or recovery.signal, which a recovery that was killed had put aside\n",
        );
    }
    Ok(())
}

fn restore_command(
    target: &mut DataDirectory,
    arguments: &PreparationArguments,
    interrupt: &Interrupt,
) -> Result<Option<RestoreCommand>> {
    let is_named = arguments.restore_command.is_some();
    if !is_named && !arguments.restore_target_wal {
        return Ok(None);
    }
    let major = read_control_file(target, "target")?.facts().major;
    if let Some(command) = &arguments.restore_command {
        return RestoreCommand::new(command, major, output::note, interrupt.clone()).map(Some);
    }
    let postgres = arguments.programs().postgres(major.number(), interrupt)?;
    let settings = PostgresOptions::of(target.path(), arguments.config_file.as_deref(), major);
    RestoreCommand::of_target(&postgres, &settings, major, output::note, interrupt.clone()).map(Some)
}

fn recover_target(
    target: &mut DataDirectory,
    source: &mut dyn Source,
    arguments: &PreparationArguments,
    options: &PlanOptions,
    interrupt: &Interrupt,
) -> Result<Prepared> {
    let control = read_control_file(target, "target")?;
    if control.is_sealed() {
        return Err(Error::of(ErrorId::UnderWay, "target is sealed: an apply began on it and did not finish")
            .hint("go on with it (pg_unfork apply -D DIR) or take it back (pg_unfork undo -D DIR)"));
    }
    if control.state().is_clean() {
        output::note("pg_unfork: the target stopped in good order and needs no recovery\n");
        return Ok(Prepared::Ready);
    }
    let postgres = arguments.programs().postgres(control.facts().major.number(), interrupt)?;
    let settings = PostgresOptions::of(target.path(), arguments.config_file.as_deref(), control.facts().major);
    let preview = PlanOptions { check_only: true, preview: true, ..options.clone() };
    let outlook = make_plan(target, source, &preview, &Silent)?;
    match outlook_of(&outlook, control.state()) {
        Outlook::Recover => {}
        Outlook::Impossible => return Ok(Prepared::InVain(Box::new(outlook))),
        Outlook::Follows => return Ok(Prepared::Follows),
    }
    if control.state() == DbState::InArchiveRecovery {
        let mut store = DirectoryStore::open(target.path(), &[], SyncMethod::None)?;
        if apply::condition(&mut store, control.as_bytes())? == Condition::Applied {
            return Err(Error::of(ErrorId::UnderWay, "the target was rewound, and no server has run on it since")
                .hint("take that back (pg_unfork undo -D DIR), or drop what that needs (pg_unfork clean -D DIR)"));
        }
    }
    // Of its own WAL alone, as its server will.
    check_recoverable(&mut DataDirectory::open(target.path())?)?;
    output::note("pg_unfork: the target did not stop in good order: its postgres recovers it\n");
    recover(target.path(), &postgres, &settings, interrupt)?;
    let recovered = read_control_file(target, "target")?;
    if recovered.checkpoint_location() < control.min_recovery_point() {
        let message = format!(
            "recovery has ended at {}, but the target's data had come to {}",
            recovered.checkpoint_location(),
            control.min_recovery_point()
        );
        return Err(Error::of(ErrorId::RecoveryFailed, message)
            .hint("the target's data are damaged: make it anew from a base backup"));
    }
    if recovered.state().is_clean() {
        output::note("pg_unfork: the target is recovered\n");
        return Ok(Prepared::Ready);
    }
    Err(Error::of(ErrorId::RecoveryFailed, "recovery has ended, but the target's control file does not say so")
        .hint("start the target's server alone, as it was started before, and stop it in good order"))
}

/// Why a plan is impossible.
fn reasons(manifest: &Manifest) -> String {
    let failed = manifest.checks.iter().filter(|check| check.status == CheckStatus::Fail);
    failed.map(|check| check.detail.as_str()).collect::<Vec<_>>().join("; ")
}

/// What recovering a target would come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outlook {
    /// It can be rewound then, or need not be.
    Recover,
    /// No plan would be possible: there is no reason to write anything.
    Impossible,
    /// The source has all of its WAL. What ends its recovery would be WAL that the source does not have, in the middle of
    /// what it has.
    Follows,
}

/// What a preview says of recovering a target in this state. One whose WAL ends just where the histories part, or on the
/// source's timeline, where it is a primary, is recovered as pg_rewind does it.
fn outlook_of(preview: &Manifest, state: DbState) -> Outlook {
    let fork = common_ancestor(&preview.source.history, &preview.target.history).map(|found| found.lsn);
    let ends_before = preview.target.wal_end.zip(fork).is_some_and(|(end, fork)| end < fork);
    match preview.verdict {
        Verdict::Impossible => Outlook::Impossible,
        Verdict::NotNeeded if ends_before || state == DbState::InArchiveRecovery => Outlook::Follows,
        Verdict::NotNeeded | Verdict::Rewind => Outlook::Recover,
    }
}
