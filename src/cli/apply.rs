//! `pg_unfork apply`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pg_unfork::apply::{ApplyContext, Now, Outcome, already_applied, apply};
use pg_unfork::cluster::{ClusterReader, Source, SourceKind};
use pg_unfork::error::{Context, Result};
use pg_unfork::io::{DataDirectory, DirectoryStore, Lock, LockKind, SyncMethod, interrupt_on_signals};
use pg_unfork::manifest::Manifest;
use pg_unfork::report::{bytes, count};
use pg_unfork::types::LinkText;

use super::args::{ApplyArguments, SyncArgument};
use super::progress::Watch;
use super::show::read_manifest;
use super::{ExitCode, output, source};

/// Applies a plan.
pub(super) fn run(arguments: &ApplyArguments) -> Result<ExitCode> {
    let (manifest, document) = read_manifest(&arguments.file)?;
    let planned = PathBuf::from(OsStr::from_bytes(manifest.target.directory.as_bytes()));
    let mut target = DataDirectory::open(arguments.target.as_deref().unwrap_or(&planned))?;
    let _lock = Lock::take(target.path(), LockKind::Exclusive)?;
    if target.running_server()?.is_none() && already_applied(&manifest, &mut target)? {
        output::note(&describe(Outcome::AlreadyApplied, target.path()));
        return Ok(ExitCode::Done);
    }
    let sync = match (arguments.no_sync, arguments.sync_method) {
        (true, _) => SyncMethod::None,
        (false, SyncArgument::Fsync) => SyncMethod::Fsync,
        (false, SyncArgument::Syncfs) => SyncMethod::Syncfs,
    };
    let roots: Vec<_> = manifest.target.roots.iter().map(|root| (root.path.clone(), root.link.clone())).collect();
    let mut store = DirectoryStore::open(target.path(), &roots, sync)?;
    let mut source = open_source(arguments, &manifest)?;
    let outcome = apply(ApplyContext {
        manifest: &manifest,
        document: &document,
        target: &mut target,
        store: &mut store,
        source: &mut *source,
        now: &now,
        progress: &Watch::new(),
    })?;
    output::note(&describe(outcome, target.path()));
    Ok(ExitCode::Done)
}

/// The source as planned, unless the command line says where it is now.
fn open_source(arguments: &ApplyArguments, manifest: &Manifest) -> Result<Box<dyn Source>> {
    let planned = &manifest.source.address;
    // Nobody looks for signals but who waits for a server.
    let server = |conninfo| source::server(conninfo, arguments.patience.with(interrupt_on_signals()?));
    match (&arguments.pgdata, &arguments.server, manifest.source.kind) {
        (Some(directory), _, _) => source::directory(directory),
        (_, Some(conninfo), _) => server(conninfo),
        (_, _, SourceKind::StoppedDirectory) => {
            let path = LinkText::try_from(planned.clone()).context(|| "the plan names no source".to_owned())?;
            source::directory(Path::new(OsStr::from_bytes(path.as_bytes())))
        }
        (_, _, SourceKind::LiveServer) => server(planned),
    }
}

fn now() -> Now {
    let now = jiff::Zoned::now();
    Now { unix: now.timestamp().as_second(), local: now.strftime("%Y-%m-%d %H:%M:%S %Z").to_string() }
}

fn describe(outcome: Outcome, directory: &Path) -> String {
    let shown = directory.display();
    match outcome {
        Outcome::AlreadyApplied => format!("pg_unfork: this plan has been applied to {shown} already; nothing to do\n"),
        Outcome::NotNeeded { configured: true } => {
            format!("pg_unfork: no rewind needed; the recovery configuration of {shown} is written\n")
        }
        Outcome::NotNeeded { configured: false } => "pg_unfork: no rewind needed; nothing to do\n".to_owned(),
        Outcome::Rewound { bytes: copied, left, standby } => {
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
