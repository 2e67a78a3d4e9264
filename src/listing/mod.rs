//! The listing of a source: everything that a plan asks it, as one JSON document, so that a plan can be made without it.
//!
//! `collect` asks a source and hashes what a plan may compare; `model` and `entries` are the document; `write` makes its
//! bytes, `read` takes one from outside, which is trusted in nothing; [`ListedSource`] answers a plan in the source's place.
//!
//! The document has the form of manifests: keys in byte order, an element per line, and a digest that covers all but
//! `created` and `digest`. Two listings of a source that did not move are the same but for `created`.
//!
//! # What a listing leaves open
//!
//! Of a source's WAL it has digests of whole pieces and of two records: the first one of the last timeline and the last
//! checkpoint. With these, two servers that were promoted on their own are told apart. Two copies of one primary that
//! both went on writing on its timeline are not: where both histories are equal and the target's last checkpoint is not
//! the source's, the plan says in `checks` that nothing was proven (`one_timeline`).
//!
//! Directories are not compared by their numbers in file systems, which mean nothing on another machine: that target
//! and source share none is checked by the apply.

mod collect;
mod entries;
mod model;
mod read;
mod source;
mod text;
mod write;

pub use collect::list_source;
pub use entries::{Entries, EntryKind, ListedDigests, ListedEntry};
pub use model::{
    ListedDatabase, ListedFile, ListedMoment, ListedNames, ListedPosition, ListedRecord, ListedRelation, SourceListing,
};
pub use read::{ListingError, parse};
pub use source::ListedSource;
pub use text::{FileText, HexBytes};
pub use write::{identify, to_json, write_json};

/// The version of the format that this program writes.
pub const FORMAT_VERSION: &str = "1.0";

/// The JSON Schema (2020-12) of the listing, generated from the types.
#[must_use]
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(SourceListing).to_value();
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".to_owned(), "pg_unfork source listing, format 1".into());
        object.insert("$id".to_owned(), "urn:pg_unfork:listing:v1".into());
    }
    schema
}
