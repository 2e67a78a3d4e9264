//! `pg_unfork plan`.

use std::io::IsTerminal;
use std::path::Path;

use pg_unfork::cluster::{ClusterReader, Source, SourceKind, Target};
use pg_unfork::error::{Context, Error, ErrorId, ErrorKind, Result};
use pg_unfork::interrupt::Interrupt;
use pg_unfork::io::{DataDirectory, interrupt_on_signals, write_document};
use pg_unfork::listing::ListedSource;
use pg_unfork::manifest::{CheckStatus, Manifest, Verdict, identify, write_json};
use pg_unfork::plan::{PlanOptions, make_plan, read_control_file};
use pg_unfork::report::{changes, other_pair, summary};

use serde_json::json;

use super::args::{PlanArguments, ProgressMode};
use super::elsewhere::refuse_inside;
use super::progress::Watch;
use super::show::read_manifest;
use super::target::prepare;
use super::{ExitCode, list, output, source};

/// Plans, and writes the plan.
pub(super) fn run(arguments: &PlanArguments) -> Result<ExitCode> {
    arguments.preparation.check()?;
    let mut target = DataDirectory::open(&arguments.target)?;
    let listed = arguments.source.listing.as_deref().map(list::open).transpose()?;
    let listed_directory = listed.as_ref().and_then(|source| list::directory_of(source.listing()));
    let source_directory = arguments.source.pgdata.as_deref().or(listed_directory.as_deref());
    let source_directory = source_directory.map(DataDirectory::open).transpose()?;
    let clusters: Vec<&DataDirectory> = std::iter::once(&target).chain(&source_directory).collect();
    refuse_inside("plan", arguments.output.as_deref(), &clusters)?;
    if let Some(pid) = target.running_server()?
        && !arguments.preview
    {
        return Err(Error::of(ErrorId::TargetRunning, format!("a server is running on the target (process {pid})"))
            .hint("stop it in good order (pg_ctl stop -m fast), or see with --preview how things stand")
            .hint("if that process is no PostgreSQL, postmaster.pid is left from a crash: remove it"));
    }
    let interrupt = if arguments.preparation.run_programs() { interrupt_on_signals()? } else { Interrupt::new() };
    let old = arguments.compare.as_deref().map(|file| earlier_plan(file, &mut target)).transpose()?;
    let mut source = open_source(arguments, listed, &interrupt)?;
    if arguments.with_password && arguments.source.server.is_some() && source.password_setting().is_none() {
        return Err(no_password());
    }
    let options = PlanOptions {
        allow_unreleased: arguments.allow_unreleased,
        check_only: arguments.check_only,
        rules: arguments.rules.rules()?,
        write_recovery_conf: arguments.write_recovery_conf,
        with_password: arguments.with_password,
        preview: arguments.preview,
        created: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    };
    let _lock =
        prepare(&mut target, &mut *source, &arguments.preparation, &options, &interrupt).map_err(nothing_begun)?;
    let mut manifest = make_plan(&mut target, &mut *source, &options, &Watch::new()).map_err(nothing_begun)?;
    interrupt.check()?;
    identify(&mut manifest)?;
    deliver(arguments.output.as_deref(), &manifest)?;
    if let Some(old) = old {
        output::note(&changes(&old, &manifest));
    }
    Ok(exit_code(&manifest, arguments.detailed_exitcode))
}

/// What a plan comes to for a script.
fn exit_code(manifest: &Manifest, detailed: bool) -> ExitCode {
    match manifest.verdict {
        Verdict::Impossible => ExitCode::Precondition,
        Verdict::NotNeeded if manifest.recovery.is_none() => ExitCode::Done,
        Verdict::Rewind | Verdict::NotNeeded if detailed => ExitCode::Changes,
        Verdict::Rewind | Verdict::NotNeeded => ExitCode::Done,
    }
}

/// The plan to compare with: it must be one for this target.
fn earlier_plan(file: &Path, target: &mut DataDirectory) -> Result<Manifest> {
    let (old, _) = read_manifest(file)?;
    let system = read_control_file(target, "target")?.header().system_identifier.to_string();
    match other_pair(&old, &system, &target.directory()) {
        None => Ok(old),
        Some(why) => Err(Error::stale(format!("{} is a plan for another target: {why}", file.display()))
            .hint("compare with an earlier plan for this target, or leave out --compare")),
    }
}

fn open_source(
    arguments: &PlanArguments,
    listed: Option<ListedSource>,
    interrupt: &Interrupt,
) -> Result<Box<dyn Source>> {
    match (listed, &arguments.source.pgdata, &arguments.source.server) {
        (Some(listed), ..) => {
            if arguments.write_recovery_conf && listed.kind() == SourceKind::StoppedDirectory {
                let message = "-R is for a source server, and the listing is of a stopped data directory";
                return Err(Error::new(ErrorKind::Usage, message));
            }
            Ok(Box::new(listed))
        }
        (None, Some(directory), _) => source::directory(directory),
        // Where no programs are run, a signal may end the process as it always does.
        (None, None, Some(server)) => source::server_to_plan(server, arguments.patience.with(interrupt.clone())),
        (None, None, None) => Err(Error::new(ErrorKind::Usage, "no source is named")),
    }
}

/// `--with-password` without one.
fn no_password() -> Error {
    Error::precondition("--with-password, and neither the connection string nor PGPASSWORD has one")
        .hint("give it in PGPASSWORD; a password file needs none of this, the standby reads it itself")
}

/// A source that became another one while it was planned with is no dead end yet.
pub(super) fn nothing_begun(error: Error) -> Error {
    if error.kind() == ErrorKind::DeadEnd { error.with_kind(ErrorKind::Failure) } else { error }
}

/// Says what the plan comes to: in words, or to programs in what they decide by.
fn tell(manifest: &Manifest, file: Option<&str>) {
    if output::mode() != ProgressMode::Json {
        return output::coloured(&summary(manifest, file, output::layout_of_stderr()));
    }
    let of = |status| manifest.checks.iter().filter(move |check| check.status == status).map(|check| &check.id);
    output::event(json!({
        "event": "plan",
        "file": file,
        "digest": manifest.digest,
        "verdict": manifest.verdict,
        "applyable": manifest.applyable,
        "scope": manifest.scope,
        "lost": manifest.discarded.as_ref().map(|discarded| discarded.verdict),
        "failed_checks": of(CheckStatus::Fail).collect::<Vec<_>>(),
        "warnings": of(CheckStatus::Warn).collect::<Vec<_>>(),
    }));
}

fn deliver(file: Option<&Path>, manifest: &Manifest) -> Result<()> {
    let name = file.map(|file| file.display().to_string());
    if let Some(file) = file {
        write_document(file, |writer| write_json(manifest, writer))?;
    } else if !std::io::stdout().is_terminal() {
        let written = write_json(manifest, &mut std::io::stdout().lock());
        written.context(|| "cannot write the plan to standard output".to_owned())?;
    }
    tell(manifest, name.as_deref());
    if file.is_none() && std::io::stdout().is_terminal() {
        output::note("The plan was not saved: to save it, add -o plan.json\n");
    }
    Ok(())
}
