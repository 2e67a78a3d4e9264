//! pg_unfork (architecture below).
#![allow(missing_docs)]
pub mod apply;
pub mod cluster;
pub mod error;
pub mod format;
pub mod io;
pub mod manifest;
pub mod plan;
pub mod progress;
pub mod report;
pub mod types;
