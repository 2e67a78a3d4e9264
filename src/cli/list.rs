//! `pg_unfork list`, and reading what it wrote.

use std::ffi::OsStr;
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pg_unfork::cluster::SourceKind;
use pg_unfork::error::{Context, Error, ErrorKind, Result};
use pg_unfork::interrupt::Interrupt;
use pg_unfork::io::{DataDirectory, DocumentFile, write_document};
use pg_unfork::listing::{ListedSource, SourceListing, identify, list_source, parse, write_json};
use pg_unfork::report::{bytes, count};
use pg_unfork::types::LinkText;

use super::args::ListArguments;
use super::elsewhere::refuse_inside;
use super::progress::Watch;
use super::{ExitCode, output, plan, source, state};

/// Lists a source, and writes the listing.
pub(super) fn run(arguments: &ListArguments) -> Result<ExitCode> {
    let is_terminal = arguments.output.is_none() && std::io::stdout().is_terminal();
    if is_terminal {
        return Err(Error::new(ErrorKind::Usage, "a listing is for programs: name a file (-o FILE) or use a pipe"));
    }
    let named = arguments.source.pgdata.as_deref();
    let mut source = match (named, &arguments.source.server) {
        (Some(directory), _) => {
            refuse_inside("listing", arguments.output.as_deref(), &[&DataDirectory::open(directory)?])?;
            source::directory(directory)?
        }
        // Nothing is written, so a signal may end the process as it always does.
        (None, Some(server)) => source::server_to_plan(server, arguments.patience.with(Interrupt::new()))?,
        (None, None) => return Err(Error::new(ErrorKind::Usage, "no source is named")),
    };
    let listed = list_source(&mut *source, state::utc(), &Watch::new());
    let mut listing = listed.map_err(plan::nothing_begun)?;
    identify(&mut listing)?;
    match &arguments.output {
        Some(file) => write_document(file, |writer| write_json(&listing, writer))?,
        None => write_json(&listing, &mut std::io::stdout().lock())
            .context(|| "cannot write the listing to standard output".to_owned())?,
    }
    output::note(&describe(&listing, arguments.output.as_deref()));
    Ok(ExitCode::Done)
}

/// Opens a listing in the source's place; `-` is standard input.
pub(super) fn open(file: &Path) -> Result<ListedSource> {
    let path = (file != Path::new("-")).then_some(file);
    let document = DocumentFile::open(path)?;
    let listing = parse(&document).map_err(|error| {
        Error::precondition(format!("{} cannot be used", file.display()))
            .because(error)
            .hint("use the file as pg_unfork list wrote it, or list the source again")
    })?;
    Ok(ListedSource::new(listing))
}

/// The data directory that was listed, if it is on this machine.
pub(super) fn directory_of(listing: &SourceListing) -> Option<PathBuf> {
    if listing.kind == SourceKind::LiveServer {
        return None;
    }
    let path = LinkText::try_from(listing.address.clone()).ok()?;
    let path = Path::new(OsStr::from_bytes(path.as_bytes()));
    DataDirectory::open(path).is_ok().then(|| path.to_owned())
}

fn describe(listing: &SourceListing, file: Option<&Path>) -> String {
    let entries = &listing.entries.inventory;
    let total = entries.iter().filter_map(|(_, entry)| entry.size()).fold(0, u64::saturating_add);
    let paths = count(entries.iter().count() as u64, "path", "paths");
    let file = file.map_or_else(|| "FILE".to_owned(), state::quoted);
    format!(
        "pg_unfork: listed: {}: {paths}, {}\npg_unfork: next: pg_unfork plan -D DIR --source-listing {file}\n",
        listing.address,
        bytes(total)
    )
}
