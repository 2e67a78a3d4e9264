//! `pg_unfork show`.

use std::path::Path;

use pg_unfork::error::{Context, Error, Result};
use pg_unfork::io::DocumentFile;
use pg_unfork::manifest::{DocumentReader, Manifest, parse};
use pg_unfork::report::summary;

use super::args::{ShowArguments, ShowFormat};
use super::{ExitCode, output};

/// Shows a plan.
pub(super) fn run(arguments: &ShowArguments) -> Result<ExitCode> {
    let (manifest, document) = read_manifest(&arguments.file)?;
    let written = match arguments.format {
        ShowFormat::Text => output::data(summary(&manifest, Some(&arguments.file.display().to_string())).as_bytes()),
        ShowFormat::Json => output::stream(DocumentReader::new(&document)),
    };
    match written {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::Done),
        written => written.context(|| "cannot write to standard output".to_owned()).map(|()| ExitCode::Done),
    }
}

/// Reads a manifest and gives it with its document; `-` is standard input.
pub(super) fn read_manifest(file: &Path) -> Result<(Manifest, DocumentFile)> {
    let path = (file != Path::new("-")).then_some(file);
    let document = DocumentFile::open(path)?;
    let manifest = parse(&document).map_err(|error| {
        Error::precondition(format!("{} cannot be used", file.display()))
            .because(error)
            .hint("use the file as pg_unfork plan wrote it, or make the plan again")
    })?;
    Ok((manifest, document))
}
