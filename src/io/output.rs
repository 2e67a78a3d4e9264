//! Writing documents outside of any cluster: manifests, listings.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};

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
