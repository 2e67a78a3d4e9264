//! From facts about two clusters to a manifest. Reads everything, writes nothing.
//!
//! `facts` collects; `checks`, `divergence`, `decide` and `wal_files` are pure functions over what
//! was collected; `scan` drives the WAL reader over the target's segments, `parallel_scan` several readers;
//! `read_wal` does so with visitors (`changed_blocks`, `discarded`); `same_timeline` does not take equal histories for an answer;
//! `build` puts the manifest together.

mod build;
mod changed_blocks;
mod checks;
mod decide;
mod discarded;
mod divergence;
mod facts;
mod parallel_scan;
mod read_wal;
mod same_timeline;
mod scan;
mod wal_files;

pub use build::{MOST_SEGMENTS, PlanOptions, end_of_source, make_plan};
pub use changed_blocks::{BlockRecorder, ChangedBlocks, UnknownRelationUpdate};
pub use decide::{Decision, DecisionContext, Undecidable, decide};
pub use divergence::{Divergence, common_ancestor};
pub use facts::{Cluster, control_facts, read_control_file, read_history};
pub use parallel_scan::Visitor;
pub use scan::{ScanEnd, WalScan};
pub use wal_files::{SourceWal, WalDecision, WalNeeds};
