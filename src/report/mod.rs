//! Manifests for people: one report, made once, and a renderer for each place where it is read.
//!
//! Names from outside are told from the report's own words from the beginning. No renderer lets one of them become
//! markup, a command of the terminal, or a mention of somebody.

mod changes;
mod content;
mod html;
mod markdown;
mod sections;
mod text;
mod units;

pub use changes::{changes, other_pair};
pub use html::html;
pub use markdown::{MARKDOWN_LIMIT, markdown};
pub use sections::why_kept;
pub use text::{Layout, summary};
pub use units::{bytes, count, number};
