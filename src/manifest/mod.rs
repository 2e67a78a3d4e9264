//! The manifest: what a plan says and an apply does, as one JSON document.
//!
//! The types in `model` are the document; there is no second shape. `write` makes its bytes,
//! the same for the same plan; `digest` computes what identifies them, `hash` does so before they are
//! written; `read` takes a document
//! from outside, which is trusted in nothing; `validate` says whether it can be executed at all.

mod command;
mod digest;
mod discarded;
mod hash;
mod model;
mod read;
mod validate;
mod write;

pub use command::{plan_command, shell_word};
pub(crate) use digest::hex;
pub use digest::{DigestError, digest_of};
pub use discarded::*;
pub(crate) use hash::digest;
pub use model::*;
pub(crate) use read::pass;
pub use read::{DocumentReader, ManifestError, parse};
pub use validate::validate;
pub(crate) use write::write_lines;
pub use write::{identify, to_json, write_json};

/// The version of the format that this program writes.
pub const FORMAT_VERSION: &str = "1.0";

/// The JSON Schema (2020-12) of the manifest, generated from the types.
#[must_use]
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Manifest).to_value();
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".to_owned(), "pg_unfork manifest, format 1".into());
        object.insert("$id".to_owned(), "urn:pg_unfork:manifest:v1".into());
    }
    schema
}
