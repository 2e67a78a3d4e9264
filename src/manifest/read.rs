//! From bytes to a manifest. The bytes come from outside, and are never all in memory.

use std::fmt;
use std::io::{self, BufReader, Read};

use serde_json::Deserializer;
use sha2::{Digest as _, Sha256};

use super::{DigestError, FORMAT_VERSION, Manifest, digest_of};
use crate::cluster::ReadAt;

/// Why a document is not taken for a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not in canonical form.
    #[error(transparent)]
    Canonical(#[from] DigestError),
    /// Canonical, but not the document that the format describes.
    #[error("the document is no manifest: {0}")]
    Shape(#[from] serde_json::Error),
    /// Of a format that this program does not read.
    #[error("the manifest has format {found:?}, this program reads {FORMAT_VERSION} and later ones of the same major")]
    Version {
        /// The version in the document.
        found: String,
    },
    /// Edited or damaged.
    #[error("the manifest was changed after it was written: it says {stated}, its content gives {computed}")]
    Digest {
        /// In the document.
        stated: String,
        /// Of the document.
        computed: String,
    },
    /// Not the same bytes when it was read again.
    #[error("the document changes while it is read")]
    Changing,
}

/// The bytes of a document, one after the other.
pub struct DocumentReader<'d> {
    document: &'d dyn ReadAt,
    offset: u64,
}

impl<'d> DocumentReader<'d> {
    /// From the first byte on.
    #[must_use]
    pub fn new(document: &'d dyn ReadAt) -> Self {
        Self { document, offset: 0 }
    }
}

impl fmt::Debug for DocumentReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DocumentReader").field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl Read for DocumentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.document.read_at(buffer, self.offset).map_err(io::Error::other)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Just enough of a document to tell its version.
#[derive(serde::Deserialize)]
struct Version {
    format_version: String,
}

/// Bytes that are read at a time.
const BUFFER: usize = 64 << 10;

/// Reads a manifest: canonical form, version, shape and digest are checked, nothing else.
///
/// # Errors
/// [`ManifestError`] with the first thing that does not hold.
pub fn parse(document: &dyn ReadAt) -> Result<Manifest, ManifestError> {
    let (computed, first) = pass(document, |reader| digest_of(reader))?;
    let (manifest, second) = pass(document, |reader| {
        let mut deserializer = Deserializer::from_reader(reader);
        let manifest: Manifest = serde::Deserialize::deserialize(&mut deserializer)?;
        deserializer.end().map(|()| manifest)
    })
    .map_err(|error| check_stated_version(document).err().unwrap_or(error.into()))?;
    check_version(&manifest.format_version)?;
    if manifest.digest != computed {
        return Err(ManifestError::Digest { stated: manifest.digest, computed });
    }
    if first == second { Ok(manifest) } else { Err(ManifestError::Changing) }
}

/// Reads a document once; gives what it held, and the SHA-256 of its bytes.
pub(crate) fn pass<T, E>(
    document: &dyn ReadAt,
    read: impl FnOnce(&mut dyn Read) -> Result<T, E>,
) -> Result<(T, [u8; 32]), E> {
    let hashed = Hashed { inner: DocumentReader::new(document), hash: Sha256::new() };
    let mut reader = BufReader::with_capacity(BUFFER, hashed);
    let value = read(&mut reader)?;
    Ok((value, reader.into_inner().hash.finalize().into()))
}

/// A reader, and the hash of what came from it.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

fn check_version(version: &str) -> Result<(), ManifestError> {
    if version.split('.').next() == FORMAT_VERSION.split('.').next() {
        return Ok(());
    }
    Err(ManifestError::Version { found: version.to_owned() })
}

/// Of a document that has no manifest's shape: whether it says of which version it is, and of another one.
fn check_stated_version(document: &dyn ReadAt) -> Result<(), ManifestError> {
    let reader = BufReader::with_capacity(BUFFER, DocumentReader::new(document));
    let version: Version = serde_json::from_reader(reader)?;
    check_version(&version.format_version)
}
