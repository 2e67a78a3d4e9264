//! The write-ahead log: pages, records, and a reader that turns the first into the second.
//!
//! The reader is fed with pages and opens nothing. See [`WalReader`].

mod error;
mod page;
pub mod payload;
mod reader;
mod record;
pub mod resource_manager;

pub use error::{WalError, WalProblem};
pub use page::{PageHeader, WalFormat};
pub use reader::{Start, WalReader};
pub use record::{BlockReference, Record, RecordHeader};
