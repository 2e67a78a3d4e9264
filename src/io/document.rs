//! Reading documents outside of any cluster: manifests, listings.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::cluster::ReadAt;
use crate::error::{Context, Error, Result};

/// Bytes of the largest document that is read: room for some ten million block ranges, or three million files.
const LIMIT: u64 = 512 << 20;

/// A document in a file. What cannot be read twice (standard input, a pipe) is put into a file without a name first.
#[derive(Debug)]
pub struct DocumentFile(File);

impl DocumentFile {
    /// Opens a document; standard input where there is no path.
    ///
    /// # Errors
    /// When it cannot be read or has more than 512 MiB.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let shown = path.map_or("standard input".to_owned(), |path| path.display().to_string());
        const HINT: &str = "name the file that pg_unfork wrote";
        let opened = match path {
            Some(path) => {
                File::open(path).and_then(|file| if file.metadata()?.is_file() { Ok(file) } else { spooled(file) })
            }
            None => spooled(io::stdin().lock()),
        };
        let length = opened.and_then(|file| Ok((file.metadata()?.len(), file)));
        match length {
            Ok((length, _)) if length > LIMIT => {
                Err(Error::failure(format!("{shown} has more than {LIMIT} bytes: it is no document of pg_unfork"))
                    .hint(HINT))
            }
            Ok((_, file)) => Ok(Self(file)),
            Err(error) => Err(Error::failure(format!("cannot read {shown}")).because(error).hint(HINT)),
        }
    }
}

/// A file without a name, with what can be read only once.
fn spooled(from: impl Read) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    let _ = io::copy(&mut from.take(LIMIT + 1), &mut file)?;
    Ok(file)
}

impl ReadAt for DocumentFile {
    fn length(&self) -> Result<u64> {
        let status = self.0.metadata().context(|| "cannot look at the document".to_owned())?;
        Ok(status.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.0.read_at(buffer, offset).context(|| "cannot read the document".to_owned())
    }
}
