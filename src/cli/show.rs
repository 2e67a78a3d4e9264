//! `pg_unfork show`.

use std::path::Path;

use pg_unfork::error::{Context, Error, ErrorId, Result};
use pg_unfork::io::DocumentFile;
use pg_unfork::manifest::{DocumentReader, Manifest, ManifestError, parse};
use pg_unfork::report::{html, markdown, summary};

use super::args::{ShowArguments, ShowFormat};
use super::{ExitCode, output};

/// Shows a plan.
pub(super) fn run(arguments: &ShowArguments) -> Result<ExitCode> {
    let (manifest, document) = read_manifest(&arguments.file)?;
    let name = arguments.file.display().to_string();
    // What came through a pipe is in no file that is known.
    let name = (name != "-").then_some(name.as_str());
    let written = match arguments.format {
        ShowFormat::Text => output::data(summary(&manifest, name, output::layout_of_stdout()).as_bytes()),
        ShowFormat::Markdown => output::data(markdown(&manifest, name).as_bytes()),
        ShowFormat::Html => output::data(html(&manifest, name).as_bytes()),
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
        let id = match error {
            ManifestError::Digest { .. } => ErrorId::PlanDigest,
            _ => ErrorId::ManifestInvalid,
        };
        Error::of(id, format!("{} cannot be used", file.display()))
            .because(error)
            .hint("use the file as pg_unfork plan wrote it, or make the plan again")
    })?;
    Ok((manifest, document))
}
