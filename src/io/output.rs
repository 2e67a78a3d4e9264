//! Documents outside of any cluster: manifests.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};

/// Bytes of the largest document that is read: room for some ten million block ranges.
const LIMIT: u64 = 512 << 20;

/// Writes a document so that its file is whole or absent at any instant: under a temporary name,
/// synced, renamed; mode 0600. `content` writes what is in it.
///
/// # Errors
/// When the directory or the disk does not allow it, or `content` fails.
pub fn write_document(path: &Path, content: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let shown = path.display();
    let write = || -> std::io::Result<()> {
        let name = path.file_name().ok_or(std::io::ErrorKind::InvalidInput)?;
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}", std::process::id()));
        let temporary = parent.join(temporary);
        let mut file = std::fs::File::create(&temporary)?;
        let written = file
            .set_permissions(std::fs::Permissions::from_mode(0o600))
            .and_then(|()| content(&mut file))
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::rename(&temporary, path));
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        written?;
        std::fs::File::open(parent)?.sync_all()
    };
    write().context(|| format!("cannot write {shown}"))
}

/// The real path of the directory in which a document would be written.
///
/// # Errors
/// When there is no such directory.
pub fn real_directory_of(document: &Path) -> Result<PathBuf> {
    let parent = document.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::canonicalize(parent).context(|| format!("cannot write {}", document.display()))
}

/// Reads a document; standard input where there is no path.
///
/// # Errors
/// When it cannot be read or has more than 512 MiB.
pub fn read_document(path: Option<&Path>) -> Result<Vec<u8>> {
    let shown = path.map_or("standard input".to_owned(), |path| path.display().to_string());
    let mut bytes = Vec::new();
    let read = match path {
        Some(path) => std::fs::File::open(path).and_then(|file| file.take(LIMIT + 1).read_to_end(&mut bytes)),
        None => std::io::stdin().lock().take(LIMIT + 1).read_to_end(&mut bytes),
    };
    read.map_err(|error| {
        Error::failure(format!("cannot read {shown}")).because(error).hint("name the file that pg_unfork plan wrote")
    })?;
    if bytes.len() as u64 > LIMIT {
        return Err(Error::failure(format!("{shown} has more than {LIMIT} bytes: it is no manifest"))
            .hint("name the file that pg_unfork plan wrote"));
    }
    Ok(bytes)
}
