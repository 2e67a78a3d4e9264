//! PostgreSQL's on-disk formats: bytes in, values out.
//!
//! Every decoder here takes a slice and gives a value or an error that names what was expected,
//! what was found and where. None panics on any input, and none uses more memory than a small
//! multiple of its input. What differs between majors stands in one row per major
//! ([`major::MajorFacts`]).

mod backup_label;
mod bytes;
mod control_file;
mod history;
pub mod major;
mod page_checksum;
mod postmaster_opts;
mod replication_slot;
mod restore_command;
mod settings;
pub mod wal;

pub use backup_label::BackupLabel;
pub use control_file::{
    CONTROL_FILE_SIZE, Checkpoint, ControlFile, ControlFileError, ControlFileHeader, ControlFileSettings, DbState,
    SharedLimits,
};
pub use history::{HistoryError, parse_history};
pub use major::{ControlLayout, Major, MajorFacts};
pub use page_checksum::page_checksum;
pub use postmaster_opts::parse_postmaster_opts;
pub use replication_slot::{ReplicationSlot, SlotError};
pub use restore_command::{RestoreCommandError, expand_restore_command};
pub use settings::{Setting, parse_settings};

#[cfg(test)]
pub(crate) use control_file::tests::sample as control_file_sample;
