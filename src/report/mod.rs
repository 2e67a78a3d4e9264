//! Manifests for people.

mod changes;
mod text;
mod units;

pub use changes::{changes, other_pair};
pub use text::{summary, why_kept};
pub use units::{bytes, count};
