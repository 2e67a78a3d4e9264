//! Manifests for people.

mod text;
mod units;

pub use text::summary;
pub use units::{bytes, count};
