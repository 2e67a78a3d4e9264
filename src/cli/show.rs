//! `pg_unfork show`.

use std::path::Path;

use pg_unfork::error::{Context, Error, Result};
use pg_unfork::io::read_document;
use pg_unfork::manifest::{Manifest, parse};
use pg_unfork::report::summary;

use super::args::{ShowArguments, ShowFormat};
use super::{ExitCode, output};

/// Shows a plan.
pub(super) fn run(arguments: &ShowArguments) -> Result<ExitCode> {
    let (manifest, document) = read_manifest(&arguments.file)?;
    let text = match arguments.format {
        ShowFormat::Text => summary(&manifest, Some(&arguments.file.display().to_string())).into_bytes(),
        ShowFormat::Json => document,
    };
    match output::data(&text) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::Done),
        written => written.context(|| "cannot write to standard output".to_owned()).map(|()| ExitCode::Done),
    }
}

/// Reads a manifest and gives it with its bytes; `-` is standard input.
pub(super) fn read_manifest(file: &Path) -> Result<(Manifest, Vec<u8>)> {
    let path = (file != Path::new("-")).then_some(file);
    let document = read_document(path)?;
    let manifest = parse(&document).map_err(|error| {
        Error::precondition(format!("{} cannot be used", file.display()))
            .because(error)
            .hint("use the file as pg_unfork plan wrote it, or make the plan again")
    })?;
    Ok((manifest, document))
}
