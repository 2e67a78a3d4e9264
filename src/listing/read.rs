//! From bytes to a listing. The bytes come from outside, and are never all in memory.

use serde::Deserialize;
use serde_json::Deserializer;

use super::model::{ListedMoment, SourceListing};
use super::{FORMAT_VERSION, ListedRecord};
use crate::cluster::{ReadAt, SourceKind, contradiction};
use crate::format::CONTROL_FILE_SIZE;
use crate::manifest::{DigestError, digest_of, pass};

/// Why a document is not taken for a listing.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// Not in canonical form.
    #[error(transparent)]
    Canonical(#[from] DigestError),
    /// Canonical, but not the document that the format describes.
    #[error("the document is no listing of a source: {0}")]
    Shape(#[from] serde_json::Error),
    /// Of a format that this program does not read.
    #[error("the listing has format {found:?}, this program reads {FORMAT_VERSION} and later ones of the same major")]
    Version {
        /// The version in the document.
        found: String,
    },
    /// Edited or damaged.
    #[error("the listing was changed after it was written: it says {stated}, its content gives {computed}")]
    Digest {
        /// In the document.
        stated: String,
        /// Of the document.
        computed: String,
    },
    /// Not the same bytes when it was read again.
    #[error("the document changes while it is read")]
    Changing,
    /// What no source can be.
    #[error("the listing contradicts itself: {0}")]
    Contradiction(String),
}

/// Just enough of a document to tell its version.
#[derive(Deserialize)]
struct Version {
    format_version: String,
}

/// Reads a listing: canonical form, version, shape and digest are checked, and that it does not contradict itself.
///
/// # Errors
/// [`ListingError`] with the first thing that does not hold; of what has a place in the document with its line.
pub fn parse(document: &dyn ReadAt) -> Result<SourceListing, ListingError> {
    let (computed, first) = pass(document, |reader| digest_of(reader))?;
    let (listing, second) = pass(document, |reader| {
        let mut deserializer = Deserializer::from_reader(reader);
        let listing = SourceListing::deserialize(&mut deserializer)?;
        deserializer.end().map(|()| listing)
    })
    .map_err(|error| check_stated_version(document).err().unwrap_or(error.into()))?;
    check_version(&listing.format_version)?;
    if listing.digest != computed {
        return Err(ListingError::Digest { stated: listing.digest, computed });
    }
    if first != second {
        return Err(ListingError::Changing);
    }
    contradictions(&listing).map_or(Ok(listing), |problem| Err(ListingError::Contradiction(problem)))
}

fn check_version(version: &str) -> Result<(), ListingError> {
    if version.split('.').next() == FORMAT_VERSION.split('.').next() {
        return Ok(());
    }
    Err(ListingError::Version { found: version.to_owned() })
}

/// Of a document that has no listing's shape: whether it says of which version it is, and of another one.
fn check_stated_version(document: &dyn ReadAt) -> Result<(), ListingError> {
    let (version, _) = pass(document, |reader| serde_json::from_reader::<_, Version>(reader))?;
    check_version(&version.format_version)
}

/// What its types do not rule out.
fn contradictions(listing: &SourceListing) -> Option<String> {
    let live = listing.kind == SourceKind::LiveServer;
    let is_of_kind = |moment: &ListedMoment| moment.position.is_some() == live;
    let moments = [("before", &listing.before), ("after", &listing.after)];
    for (name, moment) in moments {
        if !is_of_kind(moment) {
            return Some(format!("{name}: a server has a position, a stopped directory has none"));
        }
        if moment.control_file.0.len() > CONTROL_FILE_SIZE {
            return Some(format!("{name}: a control file has {CONTROL_FILE_SIZE} bytes"));
        }
    }
    if !live && listing.before != listing.after {
        return Some("the control file of a stopped directory has changed".to_owned());
    }
    if !live && listing.primary_conninfo.is_some() {
        return Some("primary_conninfo: nobody can connect to a stopped directory".to_owned());
    }
    let files = listing.files.windows(2).find(|pair| matches!(pair, [a, b] if a.path >= b.path));
    if let Some([_, file]) = files {
        return Some(format!("files: {} is there twice or out of order", file.path));
    }
    let databases = listing.names.databases.windows(2).find(|pair| matches!(pair, [a, b] if a.oid >= b.oid));
    if let Some([_, database]) = databases {
        return Some(format!("names: the database {} is there twice or out of order", database.oid));
    }
    let relations = listing.names.relations.windows(2).find(|pair| matches!(pair, [a, b] if a.relation >= b.relation));
    if let Some([_, named]) = relations {
        return Some(format!("names: the relation {} is there twice or out of order", named.relation));
    }
    let place = |record: &ListedRecord| (record.path.clone(), record.offset);
    let records = listing.records.windows(2).find(|pair| matches!(pair, [a, b] if place(a) >= place(b)));
    if let Some([_, record]) = records {
        return Some(format!(
            "records: the one in {} at {} is there twice or out of order",
            record.path, record.offset
        ));
    }
    if let Some(record) = listing.records.iter().find(|record| record.sha256.0.len() != 32) {
        return Some(format!("records: the one in {} has no SHA-256", record.path));
    }
    contradiction(&listing.entries.inventory)
}
