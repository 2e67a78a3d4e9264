//! From bytes to a manifest. The bytes come from outside.

use super::{DigestError, FORMAT_VERSION, Manifest, digest_of};

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
}

/// Just enough of a document to tell its version.
#[derive(serde::Deserialize)]
struct Version {
    format_version: String,
}

/// Reads a manifest: canonical form, version, shape and digest are checked, nothing else.
///
/// # Errors
/// [`ManifestError`] with the first thing that does not hold.
pub fn parse(document: &[u8]) -> Result<Manifest, ManifestError> {
    let computed = digest_of(document)?;
    let version: Version = serde_json::from_slice(document)?;
    if version.format_version.split('.').next() != FORMAT_VERSION.split('.').next() {
        return Err(ManifestError::Version { found: version.format_version });
    }
    let manifest: Manifest = serde_json::from_slice(document)?;
    if manifest.digest != computed {
        return Err(ManifestError::Digest { stated: manifest.digest, computed });
    }
    Ok(manifest)
}
