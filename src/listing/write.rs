//! From a listing to its bytes.

use std::io;

use super::SourceListing;
use crate::error::{Context, Result};
use crate::manifest::{digest, write_lines};

/// Fills in a listing's digest.
///
/// # Errors
/// Only where a value cannot be JSON, which no listing of this program holds.
pub fn identify(listing: &mut SourceListing) -> Result<()> {
    listing.digest = digest(listing).context(|| "cannot compute the listing's digest".to_owned())?;
    Ok(())
}

/// Writes the document of a listing. The same listing gives the same bytes, and they are never all in memory.
///
/// # Errors
/// When they cannot be written.
pub fn write_json(listing: &SourceListing, to: &mut dyn io::Write) -> io::Result<()> {
    write_lines(listing, to)
}

/// The document of a listing, with its digest filled in.
///
/// # Errors
/// As [`identify`].
pub fn to_json(listing: &mut SourceListing) -> Result<Vec<u8>> {
    identify(listing)?;
    let mut bytes = Vec::new();
    write_json(listing, &mut bytes).context(|| "cannot write the listing".to_owned())?;
    Ok(bytes)
}
