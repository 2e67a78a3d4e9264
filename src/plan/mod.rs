//! From facts about two clusters to a manifest. Reads everything, writes nothing.
//!
//! `facts` collects; `crate::checks`, `divergence`, `decide`, `path_rules` and `wal_files` are pure functions over what
//! was collected; `scan` drives the WAL reader over the target's segments, `parallel_scan` several readers;
//! `read_wal` does so with visitors (`changed_blocks`, `crate::discard`); `missing_wal` gets what `pg_wal` lacks;
//! `same_timeline` and `rewound` do not take equal histories for an answer; `recoverable` says whether a target's own
//! server may recover it; `equal_files` takes out what need not be copied, `provable` says for which files of a source
//! that question can arise;
//! `estimate` says how long it takes; `all_paths` decides on
//! every path, `build` puts the manifest together. `preflight` and `space` tell what would keep an
//! apply from it, for the apply itself, too; `checking` and `target_checks` ask what is checked.
//!
//! # A live source's files that are equal
//!
//! A live source is compared as it is while the plan is made, and goes on working until the apply. What is equal then is
//! what a copy at that moment would have brought; so the question is for which files a copy that is so much older than
//! the end of the apply will do. Replay begins before the fork, at or before the redo position of the source's last
//! checkpoint before the comparison, and the target is not consistent before it has come to the end that the source
//! has at the end of the apply. (That end is at least the one that the source has after the comparison: the plan notes
//! it, so that no server that lags behind can stand in for it.) What the source changes after a comparison is in the
//! WAL between, if WAL tells of it at all:
//!
//! - Segments of SLRUs (`pg_xact`, `pg_multixact`, `pg_commit_ts`): pages are zeroed, bits and members are set, and
//!   segments are truncated by records that are replayed whatever the page holds. Each page stands for itself.
//!   `pg_subtrans`, `pg_notify` and `pg_serial` are never copied.
//! - Visibility maps: bits are set by records; they are cleared by the replay of what happens to the heap's page,
//!   unconditionally. Pages torn by the read are repaired as those of relations are, by full page images.
//! - Free space maps: WAL does not tell of them, and the server bears with any content, of each page on its own: it
//!   corrects what turns out to be wrong. Stock pg_rewind copies them from a working server, too.
//! - `pg_filenode.map`: records hold the whole map. `_init` forks: their pages are logged whole when they are made.
//!   Prepared transactions, replication origins and the files of logical decoding: made or made good by records.
//! - Timeline histories never change. WAL segments do not either, once the source's WAL has come to their end; others
//!   are copied. Their archive status changes, and WAL does not tell: it is copied.
//! - What is left are files of people and programs: settings, certificates, logs. Those that were equal stay as they
//!   were in both when the plan was made, whatever the source's become.

mod all_paths;
mod build;
mod changed_blocks;
mod checking;
mod decide;
mod divergence;
mod equal_files;
mod estimate;
mod facts;
mod missing_wal;
mod new_tablespaces;
mod parallel_scan;
mod path_rules;
mod preflight;
mod provable;
mod read_wal;
mod recoverable;
mod rewound;
mod same_timeline;
mod scan;
mod settings_after;
mod space;
mod target_checks;
mod wal_files;

pub use build::{MOST_SEGMENTS, PlanOptions, end_of_source, make_plan};
pub(crate) use build::{changing_role, refuse_running};
pub use changed_blocks::{BlockRecorder, ChangedBlocks, KnownFile, UnknownRelationUpdate};
pub use decide::{Decision, DecisionContext, Undecidable, decide};
pub use divergence::{Divergence, common_ancestor};
pub use facts::{Cluster, control_facts, read_control_file, read_history};
pub use missing_wal::{MissingSegment, missing_segment};
pub use parallel_scan::Visitor;
pub use path_rules::{ConfigPolicy, PathRules};
pub use preflight::{new_links, obstacles};
pub use provable::ProvableSource;
pub use recoverable::check_recoverable;
pub use rewound::{RewoundTo, rewound_to};
pub use scan::{CheckpointSearch, LogEnd, ScanEnd, WalScan};
pub use space::rooms;
pub use wal_files::{SourceWal, WalDecision, WalNeeds};
