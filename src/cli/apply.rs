//! `pg_unfork apply`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use pg_unfork::apply::{Condition, Outcome, Readiness, after_first_write, apply, check, condition, is_applied};
use pg_unfork::cluster::{ClusterReader, Source, SourceKind};
use pg_unfork::error::{Context, Error, ErrorId, ErrorKind, Result};
use pg_unfork::interrupt::Interrupt;
use pg_unfork::io::{DataDirectory, DirectoryStore, Lock, LockKind, interrupt_on_signals};
use pg_unfork::manifest::Manifest;
use pg_unfork::report::{bytes, count};
use pg_unfork::types::LinkText;

use super::applying::Applying;
use super::args::ApplyArguments;
use super::progress::Watch;
use super::show::read_manifest;
use super::{ExitCode, output, source, state, target};

/// Applies a plan.
pub(super) fn run(arguments: &ApplyArguments) -> Result<ExitCode> {
    let named = arguments.file.as_deref().map(read_manifest).transpose()?;
    let planned = named.as_ref().map(|(manifest, _)| state::path_of(&manifest.target.directory).to_owned());
    let directory = arguments.target.clone().or(planned);
    let directory = directory.ok_or_else(|| Error::precondition("no target is named").hint("name it: -D DIR"))?;
    let mut target = DataDirectory::open(&directory)?;
    let directory = target.path().to_owned();
    let _lock = Lock::take(&directory, LockKind::Exclusive)?;
    target::put_back(&directory)?;
    let (manifest, document) = named.map_or_else(|| state::stored_manifest(&directory), Ok)?;
    expect(arguments.expect_digest.as_deref(), &manifest)?;
    let sync = arguments.sync.method();
    let control = target.control_file()?;
    let mut own = DirectoryStore::open(&directory, &[], sync)?;
    if target.running_server()?.is_none() && is_applied(&mut own, &control, &manifest.digest)? {
        output::note(&describe(Outcome::AlreadyApplied, &directory));
        return Ok(ExitCode::Done);
    }
    let condition = condition(&mut own, &control)?;
    // Whatever keeps an apply from going on: the target is sealed.
    let unfinished = |error| match condition {
        Condition::Applying => after_first_write(error, !arguments.no_undo),
        _ => error,
    };
    let interrupt = interrupt_on_signals()?;
    let applying = Applying {
        manifest: &manifest,
        document: &document,
        sync,
        undo: !arguments.no_undo,
        progress: &Watch::new(),
        interrupt: &interrupt,
    };
    let mut store = applying.open_store(&target, condition).map_err(unfinished)?;
    let mut source = open_source(arguments, &manifest, &interrupt).map_err(unfinished)?;
    if arguments.check {
        output::note(&readiness(applying.run(&mut target, &mut store, &mut *source, check)?, &directory));
        return Ok(ExitCode::Done);
    }
    let outcome = applying.run(&mut target, &mut store, &mut *source, apply)?;
    output::note(&describe(outcome, &directory));
    if matches!(outcome, Outcome::Rewound { .. }) && !arguments.no_undo {
        output::note(&way_back(&directory));
    }
    if matches!(outcome, Outcome::Rewound { durable: false, .. }) {
        output::note(state::NOT_DURABLE);
    }
    Ok(ExitCode::Done)
}

/// Only the plan that was approved is applied.
fn expect(digest: Option<&str>, manifest: &Manifest) -> Result<()> {
    let Some(expected) = digest else { return Ok(()) };
    let digits = expected.strip_prefix("sha256:").unwrap_or(expected);
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Error::new(ErrorKind::Usage, format!("--expect-digest {expected:?} is not the digest of a plan"))
            .hint("it is sha256: and 64 hexadecimal digits, as in the plan's \"digest\""));
    }
    if manifest.digest.strip_prefix("sha256:").is_some_and(|found| found.eq_ignore_ascii_case(digits)) {
        return Ok(());
    }
    let message = format!("this is not the plan that is expected: expected sha256:{digits}, found {}", manifest.digest);
    Err(Error::of(ErrorId::PlanDigest, message)
        .with_kind(ErrorKind::Stale)
        .hint("apply the plan that was approved, or have this one approved: pg_unfork show"))
}

/// The source as planned, unless the command line says where it is now.
fn open_source(arguments: &ApplyArguments, manifest: &Manifest, interrupt: &Interrupt) -> Result<Box<dyn Source>> {
    let planned = &manifest.source.address;
    let server = |conninfo| source::server(conninfo, arguments.patience.with(interrupt.clone()), arguments.load.load());
    match (&arguments.pgdata, &arguments.server, manifest.source.kind) {
        (Some(directory), _, _) => source::directory(directory),
        (_, Some(conninfo), _) => server(conninfo),
        (_, _, SourceKind::StoppedDirectory) if arguments.load.max_rate.is_some() => {
            let message = "--max-rate is for a source server, and the plan's source is a stopped data directory";
            Err(Error::new(ErrorKind::Usage, message))
        }
        (_, _, SourceKind::StoppedDirectory) => {
            let path = LinkText::try_from(planned.clone()).context(|| "the plan names no source".to_owned())?;
            source::directory(Path::new(OsStr::from_bytes(path.as_bytes())))
        }
        (_, _, SourceKind::LiveServer) => server(planned),
    }
}

fn describe(outcome: Outcome, directory: &Path) -> String {
    let shown = directory.display();
    match outcome {
        Outcome::AlreadyApplied => format!("pg_unfork: this plan has been applied to {shown} already; nothing to do\n"),
        Outcome::NotNeeded { configured: true } => {
            format!("pg_unfork: no rewind needed; the recovery configuration of {shown} is written\n")
        }
        Outcome::NotNeeded { configured: false } => "pg_unfork: no rewind needed; nothing to do\n".to_owned(),
        Outcome::Rewound { bytes: copied, left, standby, .. } => {
            let mut text = format!("pg_unfork: applied: {shown} is rewound, {} copied\n", bytes(copied));
            if left > 0 {
                let what = count(left, "directory is", "directories are");
                text.push_str(&format!("pg_unfork: {what} left, because something unknown is inside\n"));
            }
            text.push_str(if standby {
                "pg_unfork: next: start the server; it replays the source's WAL and follows it as a standby\n"
            } else {
                "pg_unfork: WARNING: there is no standby.signal: started as it is, this server becomes a SECOND PRIMARY \
                 on the source's timeline. Create standby.signal and set primary_conninfo first.\n"
            });
            text
        }
    }
}

/// What `--check` has found.
fn readiness(readiness: Readiness, directory: &Path) -> String {
    let shown = directory.display();
    match readiness {
        Readiness::Begin => {
            format!("pg_unfork: nothing stands in the way of an apply to {shown}; nothing was written\n")
        }
        Readiness::Resume => {
            format!("pg_unfork: an apply to {shown} has begun, and can be gone on with; nothing was written\n")
        }
        Readiness::AlreadyApplied => describe(Outcome::AlreadyApplied, directory),
    }
}

/// What is still possible, until a server has run.
fn way_back(directory: &Path) -> String {
    let shown = state::quoted(directory);
    format!("pg_unfork: to go back instead: pg_unfork undo -D {shown}; once satisfied: pg_unfork clean -D {shown}\n")
}
