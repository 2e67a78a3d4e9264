//! The drop-in for pg_rewind: plan and apply in one run, with pg_rewind's command line, words and exit status.
//!
//! What an earlier run has begun is gone on with. Where that can never finish, it is taken back in this very run, and
//! planned afresh. Nothing is written to standard output, and no write to standard error counts.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use pg_unfork::apply::{self, Condition, Outcome, after_first_write};
use pg_unfork::cluster::{ClusterReader, ReadAt, Source, SourceKind};
use pg_unfork::compat::{self, Caller, Kind, Line, Misuse, Options, Request, SourceOption, SyncWish};
use pg_unfork::error::{Context, Error, ErrorId, ErrorKind, Result};
use pg_unfork::format::{ControlFile, DbState, Major};
use pg_unfork::interrupt::Interrupt;
use pg_unfork::io::{
    DataDirectory, DirectoryStore, Load, Lock, LockKind, Patience, Programs, Signals, SyncMethod, is_posixly_correct,
    put_back_signals,
};
use pg_unfork::manifest::{Manifest, RecoveryPlan, Verdict, identify, write_json};
use pg_unfork::plan::{
    Cluster, PlanOptions, RewoundTo, control_facts, make_plan, read_control_file, read_history, rewound_to,
};
use pg_unfork::types::ClusterPath;

use super::applying::Applying;
use super::args::{DEFAULT_SOURCE_TIMEOUT, ProgressMode};
use super::kilobytes::Kilobytes;
use super::plan::nothing_begun;
use super::target::{PreparationArguments, Prepared, prepare_alone};
use super::{ExitCode, is_root, output, source, state};

/// The name that a link or a copy of the program must have to be a drop-in.
pub(super) const NAME: &str = "pg_rewind";

/// What a signal makes the process exit with while nothing is in hand.
const FAILED: i32 = 1;

/// How often a plan is made in one run: once more where the first one was out of date before anything was written, or
/// where an earlier one had to be taken back.
const MOST_ROUNDS: usize = 3;

/// Does what `arguments`, without the program's name, ask for.
pub(super) fn run(program: &OsStr, arguments: &[OsString]) -> ExitCode {
    output::speak_as(NAME);
    output::choose(ProgressMode::None);
    let caller = Caller { program, posix: is_posixly_correct(), is_root: is_root() };
    match compat::parse(caller, arguments) {
        Err(misuse) => misused(misuse),
        Ok(Request::Help) => answer(compat::help()),
        Ok(Request::Version) => answer(&version()),
        Ok(Request::Rewind(options)) => match rewind(&options) {
            Ok(code) => code,
            Err(error) => {
                output::error(&error);
                ExitCode::Failure
            }
        },
    }
}

fn misused(misuse: Misuse) -> ExitCode {
    let hint = misuse.hint.map(|hint| format!("pg_rewind: hint: {hint}"));
    for line in misuse.line.into_iter().chain(hint) {
        output::plain_line(&line);
    }
    ExitCode::Failure
}

fn answer(text: &str) -> ExitCode {
    match output::data(text.as_bytes()) {
        Ok(()) => ExitCode::Done,
        Err(_) => ExitCode::Failure,
    }
}

fn version() -> String {
    let majors: Vec<u32> = Major::ALL.iter().rev().map(|major| major.number()).collect();
    let found = Programs::default().nearest(&majors, &Interrupt::new());
    compat::version(
        found.as_ref().map(|postgres| postgres.version.as_str()),
        majors.first().copied().unwrap_or_default(),
    )
}

fn say(lines: impl IntoIterator<Item = Line>) {
    for line in lines {
        output::plain_line(line.to_string().trim_end());
    }
}

fn info(text: &str) {
    say([Line::new(Kind::Info, text)]);
}

/// What pg_rewind says of a directory that it cannot look at.
fn no_directory(error: Error, directory: &Path) -> Error {
    let Some(cause) = std::error::Error::source(&error).filter(|cause| cause.is::<std::io::Error>()) else {
        return error;
    };
    let cause = cause.to_string();
    let cause = cause.split(" (os error").next().unwrap_or_default();
    Error::failure(format!("could not read permissions of directory \"{}\": {cause}", directory.display()))
}

/// One lock for the whole run, so that nobody else begins in between.
fn rewind(options: &Options) -> Result<ExitCode> {
    let signals = Signals::watch(FAILED)?;
    let directory = Path::new(&options.target);
    let target = DataDirectory::open(directory).map_err(|error| no_directory(error, directory))?;
    let kind = if options.dry_run { LockKind::Shared } else { LockKind::Exclusive };
    let _lock = Lock::take(target.path(), kind)?;
    if options.dry_run {
        say(compat::dry_run());
    }
    let sync = match (options.no_sync, options.sync_method) {
        (true, _) => SyncMethod::None,
        (false, SyncWish::Fsync) => SyncMethod::Fsync,
        (false, SyncWish::Syncfs) => SyncMethod::Syncfs,
    };
    let progress = Kilobytes::new(options.progress);
    let mut run = Run { options, target, signals, sync, progress };
    for _ in 1..MOST_ROUNDS {
        match run.round()? {
            Round::Over(code) => return Ok(code),
            Round::Again => run.target = DataDirectory::open(directory)?,
        }
    }
    match run.round()? {
        Round::Over(code) => Ok(code),
        Round::Again => Err(Error::failure("target or source do not come to rest").hint("run it again when they have")),
    }
}

/// What a round has come to.
enum Round {
    /// The end of the run.
    Over(ExitCode),
    /// Things stand differently now: another plan is needed.
    Again,
}

struct Run<'a> {
    options: &'a Options,
    target: DataDirectory,
    signals: Signals,
    sync: SyncMethod,
    progress: Kilobytes,
}

impl Run<'_> {
    /// Goes on with what stands here, or plans and applies.
    fn round(&mut self) -> Result<Round> {
        if let Some(process) = self.target.running_server()? {
            say(compat::running(process));
            return Ok(Round::Over(ExitCode::Failure));
        }
        if !self.options.dry_run && put_back_signals(self.target.path())? {
            info("put back standby.signal or recovery.signal, which a recovery that was killed had put aside");
        }
        match self.condition()? {
            Condition::Applying => self.go_on(),
            Condition::Undoing => self.take_back("an undo of an earlier run was cut"),
            Condition::Tampered => self.take_back_tampered(),
            Condition::Applied => match self.rewound(true)? {
                Some(round) => Ok(round),
                None => self.afresh(),
            },
            Condition::Untouched
            | Condition::Prepared
            | Condition::Superseded
            | Condition::Lost
            | Condition::Undone => self.afresh(),
        }
    }

    /// Goes on with an apply that was cut.
    fn go_on(&mut self) -> Result<Round> {
        let (manifest, document) = state::stored_manifest(self.target.path())?;
        info("an earlier run was cut; going on with it");
        self.announce(&manifest);
        match self.resume(&manifest, &document) {
            Ok(outcome) => Ok(Round::Over(outcome)),
            Err(error) if error.kind() == ErrorKind::DeadEnd => {
                output::warning(&error);
                self.take_back("what an earlier run began can never finish")
            }
            Err(error) => Err(error),
        }
    }

    fn resume(&mut self, manifest: &Manifest, document: &dyn ReadAt) -> Result<ExitCode> {
        let unfinished = |error| after_first_write(error, true);
        let mut source = self.source_to_copy().map_err(unfinished)?;
        let major = read_control_file(&mut self.target, "target")?.facts().major;
        if self.recovery(&*source, major) != manifest.recovery {
            let message = "what an earlier run began has another recovery configuration";
            return Err(Error::new(ErrorKind::DeadEnd, message));
        }
        self.apply(manifest, document, &mut *source)
    }

    /// Takes back what an earlier run has changed.
    fn take_back(&mut self, why: &str) -> Result<Round> {
        let (manifest, _) = state::stored_manifest(self.target.path())?;
        if self.options.dry_run {
            // Who asks whether a rewind is needed looks for where both parted.
            self.announce(&manifest);
            info(&format!("{why}: it would be taken back, and another rewind planned"));
            return Ok(Round::Over(ExitCode::Done));
        }
        info(&format!("{why}: taking it back"));
        self.signals.wait_for_what_is_in_hand();
        let interrupt = self.signals.interrupt();
        state::take_back(&mut self.target, &manifest, self.sync, &self.progress, interrupt)?;
        Ok(Round::Again)
    }

    /// A control file that somebody has put back (CloudNativePG does where it finds an empty one) proves that no server
    /// has run; behind any other one may have.
    fn take_back_tampered(&mut self) -> Result<Round> {
        let control = self.target.control_file()?;
        let (manifest, _) = state::stored_manifest(self.target.path())?;
        let found = ControlFile::parse(&control).map(|control| control_facts(&control).sha256);
        if found.is_ok_and(|sha256| sha256 == manifest.target.control_file.sha256) {
            return self.take_back("an earlier run was cut, and the control file from before it is back");
        }
        let message = "an earlier run was cut, and since then something else has changed global/pg_control";
        Err(Error::of(ErrorId::Tampered, message)
            .hint("take back what it had changed (pg_unfork undo), and look at the directory before anything else")
            .hint("if that fails, make the target anew from a base backup"))
    }

    /// What was rewound, and has not been started since, is as good as it was then if the source still has all that
    /// it was rewound to. `applied` says that the state directory knows of that rewind, too.
    fn rewound(&mut self, applied: bool) -> Result<Option<Round>> {
        let control = read_control_file(&mut self.target, "target")?;
        if !self.is_rewound(&control)? {
            // Without the label a server would replay from the source's last checkpoint, and miss what was before.
            let why = "the target was rewound, and its backup_label has been changed or removed since";
            return if applied { self.take_back(why).map(Some) } else { Ok(None) };
        }
        let major = control.facts().major;
        let history = read_history(&mut self.target, control.timeline(), "target")?;
        let mut source = self.source_to_plan()?;
        match rewound_to(&Cluster { control, history }, &self.target, &mut *source)? {
            found @ (RewoundTo::Here | RewoundTo::Unknown) => {
                info("the target was rewound already, and no server has run on it since");
                if found == RewoundTo::Unknown {
                    info("the source has no WAL of that time any more: it must come from its archive");
                }
                let round = self.not_required(&*source, major)?;
                if applied && !self.options.dry_run {
                    // The run that did it may have died before that.
                    let (manifest, _) = state::stored_manifest(self.target.path())?;
                    self.clean(&manifest);
                }
                Ok(Some(round))
            }
            // An address may lead to a server that lags behind.
            RewoundTo::Ahead => Err(rewound_elsewhere()),
            RewoundTo::Elsewhere if applied => {
                self.take_back("the target was rewound for a source that has gone another way").map(Some)
            }
            RewoundTo::AnotherSystem if applied => Err(Error::of(
                ErrorId::Failed,
                "the target was rewound already, and the source is a server of another cluster",
            )
            .hint("nothing was changed; name the source that the target belongs to")),
            RewoundTo::Elsewhere | RewoundTo::AnotherSystem => Ok(None),
        }
    }

    /// What `-R` comes to with this source, the password included, as with stock.
    fn recovery(&self, source: &dyn Source, major: Major) -> Option<RecoveryPlan> {
        let primary_conninfo = self.options.write_recovery_conf.then(|| source.primary_conninfo(major)).flatten()?;
        let with_password = source.password_setting().is_some();
        Some(RecoveryPlan { primary_conninfo, standby_signal: true, with_password })
    }

    /// Whether the target was rewound, and no server has run on it since.
    fn is_rewound(&mut self, control: &ControlFile) -> Result<bool> {
        let label = ClusterPath::new(b"backup_label").context(|| "no such name".to_owned())?;
        let label = self.target.read_small(&label)?.unwrap_or_default();
        let is_ours = label.split(|&byte| byte == b'\n').any(|line| line == b"BACKUP METHOD: pg_rewind");
        Ok(control.state() == DbState::InArchiveRecovery && is_ours)
    }

    /// Ends a run on a target for which no plan can be made, and none needs to be: with `-R` it becomes a standby.
    fn not_required(&self, source: &dyn Source, major: Major) -> Result<Round> {
        if let Some(recovery) = self.recovery(source, major).filter(|_| !self.options.dry_run) {
            let mut store = DirectoryStore::open(self.target.path(), &[], self.sync)?;
            apply::configure(&mut store, &recovery, source, &self.progress)?;
        }
        info("no rewind required");
        Ok(Round::Over(ExitCode::Done))
    }

    /// Plans, and does what was planned.
    fn afresh(&mut self) -> Result<Round> {
        if let Some(round) = self.rewound(false)? {
            return Ok(round);
        }
        let mut source = self.source_to_plan()?;
        if self.options.progress && source.kind() == SourceKind::LiveServer {
            info("connected to server");
        }
        let control = read_control_file(&mut self.target, "target")?;
        // That it was rewound to this source would have been found above.
        let is_elsewhere = self.is_rewound(&control)?;
        let is_unclean = !control.state().is_clean() && !control.is_sealed() && self.options.ensure_shutdown;
        let options = PlanOptions {
            // Where recovery comes first, a dry run can only say how things stand.
            preview: is_unclean && self.options.dry_run,
            // pg_rewind of a major works on that major, and has no option for it.
            allow_unreleased: true,
            write_recovery_conf: self.options.write_recovery_conf,
            with_password: self.options.write_recovery_conf && source.password_setting().is_some(),
            created: state::utc(),
            ..PlanOptions::default()
        };
        match self.prepare(&mut *source, &options, is_unclean)? {
            Prepared::Ready => {}
            Prepared::Follows if is_elsewhere => return Err(rewound_elsewhere()),
            Prepared::Follows => {
                info("the target was not shut down cleanly, but the source has all of its WAL: it is left as it is");
                return self.not_required(&*source, control.facts().major);
            }
            Prepared::InVain(outlook) => {
                say(compat::before_work(&outlook, &self.shown()));
                return Ok(Round::Over(ExitCode::Failure));
            }
        }
        let planned = make_plan(&mut self.target, &mut *source, &options, &self.progress);
        let mut manifest = planned.map_err(nothing_begun)?;
        self.signals.interrupt().check()?;
        drop(source);
        identify(&mut manifest)?;
        if is_elsewhere && manifest.verdict == Verdict::NotNeeded {
            return Err(rewound_elsewhere());
        }
        self.announce(&manifest);
        if manifest.verdict == Verdict::Impossible {
            return Ok(Round::Over(ExitCode::Failure));
        }
        if options.preview {
            info("the target was not shut down cleanly: its own postgres would recover it before all that");
            return Ok(Round::Over(ExitCode::Done));
        }
        if manifest.verdict == Verdict::NotNeeded && (manifest.recovery.is_none() || self.options.dry_run) {
            return Ok(Round::Over(ExitCode::Done));
        }
        self.carry_out(&manifest)
    }

    /// Applies a plan that was just made.
    fn carry_out(&mut self, manifest: &Manifest) -> Result<Round> {
        let mut document = Vec::new();
        write_json(manifest, &mut document).context(|| "cannot write the plan".to_owned())?;
        let done = self.source_to_copy().and_then(|mut source| self.apply(manifest, &document, &mut *source));
        match done {
            // Nothing was written: what has moved meanwhile belongs into another plan.
            Err(error) if error.kind() == ErrorKind::Stale => {
                output::warning(&error);
                Ok(Round::Again)
            }
            Err(error) if error.kind() == ErrorKind::DeadEnd => {
                output::warning(&error);
                self.take_back("what this run began can never finish")
            }
            done => done.map(Round::Over),
        }
    }

    /// Has an unclean target recovered, and arranges for WAL that it lacks.
    fn prepare(&mut self, source: &mut dyn Source, options: &PlanOptions, is_unclean: bool) -> Result<Prepared> {
        let arguments = PreparationArguments {
            restore_target_wal: self.options.restore_target_wal,
            config_file: self.options.config_file.as_ref().map(PathBuf::from),
            recover_target: is_unclean && !self.options.dry_run,
            ..PreparationArguments::default()
        };
        if arguments.run_programs() {
            // What is run must not outlive this program.
            self.signals.wait_for_what_is_in_hand();
        }
        prepare_alone(&mut self.target, source, &arguments, options, self.signals.interrupt()).map_err(nothing_begun)
    }

    /// Applies a plan, or goes on with it; a dry run only looks at everything that an apply would look at.
    fn apply(&mut self, manifest: &Manifest, document: &dyn ReadAt, source: &mut dyn Source) -> Result<ExitCode> {
        let condition = self.condition()?;
        let interrupt = self.signals.interrupt().clone();
        let applying = Applying {
            manifest,
            document,
            sync: self.sync,
            undo: true,
            progress: &self.progress,
            interrupt: &interrupt,
        };
        let mut store = applying.open_store(&self.target, condition)?;
        if self.options.dry_run {
            applying.run(&mut self.target, &mut store, source, apply::check)?;
            if manifest.verdict == Verdict::Rewind {
                info("Done!");
            }
            return Ok(ExitCode::Done);
        }
        if self.options.progress {
            say([compat::to_copy(manifest)]);
        }
        self.signals.wait_for_what_is_in_hand();
        let outcome = applying.run(&mut self.target, &mut store, source, apply::apply);
        self.progress.last_line(outcome.is_ok());
        let outcome = outcome?;
        if let Outcome::Rewound { standby, left, durable, .. } = outcome {
            drop(store);
            self.clean(manifest);
            say(compat::after_work(left, standby, !durable));
            info("Done!");
        }
        Ok(ExitCode::Done)
    }

    /// Nobody is there to undo what went well; but WAL that no archive has may be wanted.
    fn clean(&self, manifest: &Manifest) {
        let unarchived = apply::unarchived_wal(manifest);
        if !unarchived.is_empty() {
            let directory = self.target.path().join(".pg_unfork/undo");
            let text = format!(
                "WAL of the target that was never archived is kept in \"{}\": {}",
                directory.display(),
                unarchived.join(", ")
            );
            return say([
                Line::new(Kind::Warning, &text),
                Line::new(
                    Kind::Hint,
                    "copy it if anybody needs it, then drop it with pg_unfork clean --force; the next rewind moves it to .pg_unfork/unarchived",
                ),
            ]);
        }
        // The target is rewound, whatever is left beside it.
        let dropped = DataDirectory::open(self.target.path())
            .and_then(|mut target| state::drop_kept(&mut target, Some(manifest), false));
        if let Err(error) = dropped {
            output::warning(&error);
        }
    }

    /// Says what a plan comes to.
    fn announce(&self, manifest: &Manifest) {
        say(compat::before_work(manifest, &self.shown()));
        if self.options.debug {
            say(compat::map(manifest));
        }
    }

    fn condition(&mut self) -> Result<Condition> {
        let control = self.target.control_file()?;
        let mut store = DirectoryStore::open(self.target.path(), &[], SyncMethod::None)?;
        apply::condition(&mut store, &control)
    }

    /// The target's directory as it was given.
    fn shown(&self) -> String {
        self.options.target.to_string_lossy().into_owned()
    }

    fn patience(&self) -> Patience {
        Patience { timeout: DEFAULT_SOURCE_TIMEOUT, interrupt: self.signals.interrupt().clone() }
    }

    fn source_to_plan(&self) -> Result<Box<dyn Source>> {
        match &self.options.source {
            SourceOption::Directory(directory) => source::directory(Path::new(directory)),
            SourceOption::Server(conninfo) => source::server_to_plan(text(conninfo)?, self.patience()),
        }
    }

    fn source_to_copy(&self) -> Result<Box<dyn Source>> {
        match &self.options.source {
            SourceOption::Directory(directory) => source::directory(Path::new(directory)),
            SourceOption::Server(conninfo) => source::server(text(conninfo)?, self.patience(), Load::new(None, None)),
        }
    }
}

/// Why no rewind of a target is "not required" that was rewound to another source, or further than this one has come.
fn rewound_elsewhere() -> Error {
    Error::precondition("the target was rewound to WAL that the source does not have, and no server has run on it since")
        .hint("if the source only lags behind, run it again when it has caught up; else make the target anew from a base backup")
}

/// A connection string is text, in any encoding that PostgreSQL knows; we know one.
fn text(conninfo: &OsStr) -> Result<&str> {
    conninfo.to_str().ok_or_else(|| {
        Error::new(ErrorKind::Usage, "the source's connection string cannot be used: it is not in UTF-8")
    })
}
