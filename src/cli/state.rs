//! `pg_unfork status`, `undo` and `clean`: what the state directory is for.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use pg_unfork::apply::{self, Actor, Condition, Status, UndoContext, Undone};
use pg_unfork::cluster::{ClusterReader, STATE_DIRECTORY, Target, UNARCHIVED};
use pg_unfork::error::{Context, Error, ErrorId, Result};
use pg_unfork::interrupt::Interrupt;
use pg_unfork::io::conninfo::Environment;
use pg_unfork::io::{DataDirectory, DirectoryStore, DocumentFile, Lock, LockKind, SyncMethod, interrupt_on_signals};
use pg_unfork::manifest::{ActionKind, Manifest, shell_word};
use pg_unfork::progress::Progress;
use pg_unfork::report::{bytes, count, why_kept};
use pg_unfork::types::{ClusterPath, LinkText, plain_lines};

use serde::Serialize;

use super::args::{CleanArguments, StatusArguments, StatusFormat, UndoArguments};
use super::progress::Watch;
use super::show::read_manifest;
use super::{ExitCode, output, target};

/// What `-N` leaves to do, for the last lines of a command.
pub(super) const NOT_DURABLE: &str = "pg_unfork: WARNING: nothing is durable yet (-N): after a crash of the machine the \
                                      directory may be half changed, and a server may start on it all the same. Run sync \
                                      before anything relies on it.\n";

/// The plan in a state directory.
pub(super) fn stored_manifest(directory: &Path) -> Result<(Manifest, DocumentFile)> {
    let file = directory.join(STATE_DIRECTORY).join("manifest.json");
    if !file.exists() {
        return Err(Error::of(ErrorId::NothingToUndo, format!("no apply has begun on {}", directory.display()))
            .hint("name the plan's file: pg_unfork apply FILE"));
    }
    read_manifest(&file)
}

/// The store of a data directory that this plan may have changed already.
pub(super) fn open_store(directory: &Path, manifest: &Manifest, sync: SyncMethod) -> Result<DirectoryStore> {
    let roots: Vec<_> = manifest.target.roots.iter().map(|root| (root.path.clone(), root.link.clone())).collect();
    let links = manifest.actions.iter().filter(|action| action.kind == ActionKind::CreateSymlink);
    let new: Vec<(ClusterPath, LinkText)> =
        links.filter_map(|action| Some((action.path.clone(), action.after.as_ref()?.link.clone()?))).collect();
    DirectoryStore::reopen(directory, &roots, &new, sync)
}

/// Who runs this program.
pub(super) fn actor() -> Actor {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let user = Environment::of_process().user_or_number();
    Actor { host, process: std::process::id(), user, version: env!("CARGO_PKG_VERSION").to_owned() }
}

/// The time, for the history.
pub(super) fn utc() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The status for programs.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    status: &'a Status,
    /// The process that is at work.
    #[serde(skip_serializing_if = "Option::is_none")]
    at_work: Option<u32>,
    /// The commands that make sense now, for a shell.
    next: Vec<String>,
}

/// Says how far an apply has come.
pub(super) fn status(arguments: &StatusArguments) -> Result<ExitCode> {
    let mut target = DataDirectory::open(&arguments.target)?;
    let mut store = DirectoryStore::open(target.path(), &[], SyncMethod::None)?;
    let manifest = stored_manifest(target.path()).ok();
    let control = target.control_file()?;
    let status = apply::status(&mut store, &control, manifest.as_ref().map(|(manifest, _)| manifest))?;
    let holder = Lock::holder(target.path());
    let text = match arguments.format {
        StatusFormat::Text => plain_lines(&describe(&status, target.path(), holder)),
        StatusFormat::Json => {
            let next = if holder.is_some() { Vec::new() } else { next(&status) };
            let command = |(command, _): &(&str, &str)| format!("pg_unfork {command} -D {}", quoted(target.path()));
            let report = Report { status: &status, at_work: holder, next: next.iter().map(command).collect() };
            let mut text = serde_json::to_string(&report).context(|| "cannot write the status".to_owned())?;
            text.push('\n');
            text
        }
    };
    match output::data(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::Done),
        written => written.context(|| "cannot write to standard output".to_owned()).map(|()| ExitCode::Done),
    }
}

fn describe(status: &Status, directory: &Path, holder: Option<u32>) -> String {
    let shown = quoted(directory);
    let mut text = String::new();
    let (word, meaning) = words(status.condition);
    let _ = writeln!(text, "{word}: {meaning}");
    if let Some(digest) = &status.digest {
        let _ = writeln!(text, "plan: {digest}");
    }
    if let Some(phase) = status.phase {
        let (done, total) = (bytes(status.copied_bytes), bytes(status.total_bytes));
        let _ = writeln!(text, "phase: {phase}; {done} of {total} copied");
    }
    for skipped in &status.skipped {
        let (files, total) = (count(skipped.paths, "file", "files"), bytes(skipped.bytes));
        let total = if skipped.bytes > 0 { format!(" ({total})") } else { String::new() };
        let _ = writeln!(text, "left: {files} {}{total}", why_kept(skipped.reason));
    }
    if let Some(problem) = &status.journal_problem {
        let _ = writeln!(text, "journal: cannot be used: {problem}");
    }
    if !status.durable && status.digest.is_some() {
        let _ = writeln!(
            text,
            "durable: no (-N): a kill of pg_unfork is survived; after a crash of the machine neither the apply nor an undo \
             can be relied on: make the target anew from a base backup"
        );
    }
    if let Some(process) = holder {
        let _ = writeln!(text, "at work: process {process}");
        return text;
    }
    let next = next(status);
    for (command, purpose) in &next {
        let _ = writeln!(text, "next: pg_unfork {command} -D {shown}    # {purpose}");
    }
    if next.is_empty() && matches!(status.condition, Condition::Tampered | Condition::Lost) {
        let _ = writeln!(text, "next: make the target anew from a base backup of the source");
    }
    text
}

/// A path as a shell takes it.
pub(super) fn quoted(path: &Path) -> String {
    shell_word(path.as_os_str().as_bytes())
}

/// A condition's name, and what it means.
pub(super) fn words(condition: Condition) -> (&'static str, &'static str) {
    match condition {
        Condition::Untouched => ("untouched", "no apply has begun here"),
        Condition::Prepared => ("prepared", "an apply was about to begin; nothing has been changed"),
        Condition::Applying => ("applying", "an apply has begun and is not finished; no server starts on it"),
        Condition::Applied => ("applied", "an apply is finished; no server has run since"),
        Condition::Superseded => ("superseded", "a server has run since the last apply, or this is a clone"),
        Condition::Tampered => (
            "tampered",
            "an apply has begun, then something else changed global/pg_control; do not start a server here",
        ),
        Condition::Lost => {
            ("lost", "an apply has begun and is not finished, and what it noted is gone; no server starts on it")
        }
        Condition::Undoing => ("undoing", "an undo has begun and is not finished; no server starts on it"),
        Condition::Undone => ("undone", "an apply was taken back; all is as it was before"),
    }
}

/// The commands that make sense now.
fn next(status: &Status) -> Vec<(&'static str, &'static str)> {
    let go_on = ("apply", "go on with it");
    let go_back = ("undo", "take it back");
    match status.condition {
        Condition::Applying if !status.undo => vec![go_on],
        Condition::Applying if status.journal_problem.is_some() => vec![go_back],
        Condition::Applying => vec![go_on, go_back],
        Condition::Applied if status.undo => vec![go_back, ("clean", "drop what is kept for that")],
        Condition::Applied | Condition::Superseded => vec![("clean", "drop what is kept")],
        Condition::Tampered if status.undo => vec![go_back],
        Condition::Prepared => vec![("apply", "begin it"), ("clean", "forget it")],
        Condition::Undoing => vec![("undo", "go on with it")],
        _ => Vec::new(),
    }
}

/// Takes back what the apply of this plan, the state directory's, has changed.
///
/// # Errors
/// Those of [`apply::undo`].
pub(super) fn take_back(
    target: &mut DataDirectory,
    manifest: &Manifest,
    sync: SyncMethod,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<Undone> {
    let directory = target.path().to_owned();
    let control = target.control_file()?;
    let condition = apply::condition(&mut DirectoryStore::open(&directory, &[], SyncMethod::None)?, &control)?;
    let store = match condition {
        Condition::Applying | Condition::Applied | Condition::Tampered | Condition::Undoing => {
            open_store(&directory, manifest, sync)?
        }
        // The plan's locations may be another cluster's.
        _ => DirectoryStore::open(&directory, &target.roots(), sync)?,
    };
    let mut store = store.stopping_on(interrupt.clone());
    let context = UndoContext { manifest, target, store: &mut store, progress, interrupt, actor: &actor(), time: &utc };
    apply::undo(context)
}

/// Takes an apply back.
pub(super) fn undo(arguments: &UndoArguments) -> Result<ExitCode> {
    let mut target = DataDirectory::open(&arguments.target)?;
    let _lock = Lock::take(target.path(), LockKind::Exclusive)?;
    target::put_back(target.path())?;
    let (manifest, _) = stored_manifest(target.path())?;
    let directory = target.path().to_owned();
    let interrupt = interrupt_on_signals()?;
    let outcome = take_back(&mut target, &manifest, arguments.sync.method(), &Watch::new(), &interrupt)?;
    let shown = directory.display();
    let again = "make a fresh plan, or start the server as it was";
    let not_durable = arguments.sync.method() == SyncMethod::None && matches!(outcome, Undone::Restored { .. });
    output::note(&match outcome {
        Undone::Restored { tampered: false } => {
            format!("pg_unfork: undone: {shown} is as it was before the apply\npg_unfork: next: {again}\n")
        }
        Undone::Restored { tampered: true } => format!(
            "pg_unfork: undone: {shown} has again what the apply had replaced\npg_unfork: WARNING: something else had \
             changed global/pg_control meanwhile; what else that changed is not known. Check the directory before \
             starting a server on it.\n"
        ),
        Undone::Already => format!("pg_unfork: {shown} is undone already; nothing to do\n"),
        Undone::Nothing => format!("pg_unfork: nothing had been changed in {shown}; nothing to do\n"),
    });
    if not_durable {
        output::note(NOT_DURABLE);
    }
    Ok(ExitCode::Done)
}

/// Drops what is kept for an undo of this plan, the state directory's; says whether anything was. `force` is needed where
/// WAL goes that was never archived.
///
/// # Errors
/// Those of [`apply::clean`].
pub(super) fn drop_kept(target: &mut DataDirectory, manifest: Option<&Manifest>, force: bool) -> Result<bool> {
    let control = target.control_file()?;
    let mut store = DirectoryStore::open(target.path(), &target.roots(), SyncMethod::Fsync)?;
    let mut done = apply::clean(&mut store, target, &control, manifest, force)?;
    if force {
        done |= store.drop_unarchived()?;
    }
    if done {
        apply::note(&mut store, &actor(), &utc(), "cleaned", manifest.map_or("", |m| &m.digest), None)?;
    }
    Ok(done)
}

/// Drops what is kept for an undo.
pub(super) fn clean(arguments: &CleanArguments) -> Result<ExitCode> {
    let mut target = DataDirectory::open(&arguments.target)?;
    let directory = target.path().to_owned();
    let _lock = Lock::take(&directory, LockKind::Exclusive)?;
    target::put_back(&directory)?;
    let manifest = stored_manifest(&directory).ok().map(|(manifest, _)| manifest);
    let done = drop_kept(&mut target, manifest.as_ref(), arguments.force)?;
    let shown = directory.display();
    output::note(&if done {
        format!("pg_unfork: nothing is kept in {shown} any more but the history\n")
    } else {
        format!("pg_unfork: nothing was kept in {shown}; nothing to do\n")
    });
    let left = DirectoryStore::open(&directory, &target.roots(), SyncMethod::None)?.unarchived()?;
    if !left.is_empty() {
        output::note(&format!(
            "pg_unfork: WARNING: WAL that was never archived, set aside by an earlier apply, stays in \
             {STATE_DIRECTORY}/{UNARCHIVED}: {}. Once nobody needs it: pg_unfork clean --force\n",
            left.join(", ")
        ));
    }
    Ok(ExitCode::Done)
}

/// A directory's name on the command line, from a manifest.
pub(super) fn path_of(text: &LinkText) -> &Path {
    Path::new(OsStr::from_bytes(text.as_bytes()))
}
