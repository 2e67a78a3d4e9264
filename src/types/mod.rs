//! The vocabulary of the project: positions, timelines, names and sizes.
//!
//! Values only: no I/O, no file format, no other module of this crate.

mod block;
mod cluster_path;
mod file_mode;
mod geometry;
mod lsn;
mod plain;
mod relation;
mod timeline;
mod wal_segment;

pub use block::BlockRange;
pub use cluster_path::{ClusterPath, LinkText, PathError};
pub use file_mode::FileMode;
pub use geometry::{Geometry, GeometryError};
pub use lsn::{Lsn, ParseLsnError};
pub use plain::{plain, plain_json, plain_lines};
pub use relation::{ForkNumber, ParseRelFileNumberError, RelFile, RelFileNumber, RelFilePaths};
pub use timeline::{HistoryEntry, TimelineHistory, TimelineId};
pub use wal_segment::{SegmentNumber, WalFileName, WalSegmentSize};
