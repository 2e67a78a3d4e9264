//! Manifests for people.

mod text;
mod units;

pub use text::{summary, why_kept};
pub use units::{bytes, count};
