//! The outside world: the only files, sockets and processes.
//!
//! `data_directory` reads a cluster on this machine, `target_store` changes one, `sql` reads a
//! running server; each implements traits of [`crate::cluster`]. Nothing above this module opens
//! anything.
//!
//! `programs` finds PostgreSQL's own, `postgres_options` says which cluster they shall look at, `child` runs them: for
//! `restore_command`, whose files `spare_wal` holds, and for `recovery`.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod advice;
mod beneath;
mod child;
mod compare;
pub mod conninfo;
mod copy;
mod data_directory;
mod document;
mod draft;
mod durable;
mod hash;
mod interrupt;
mod keep;
mod lock;
mod log;
mod output;
mod place;
mod posix;
mod postgres_options;
mod postmaster;
mod programs;
mod read;
mod recovery;
mod restore_command;
mod spare_wal;
mod sql;
mod target_store;
pub mod tls;
mod walk;

pub use data_directory::{DataDirectory, StoppedSource};
pub use document::DocumentFile;
pub use durable::SyncMethod;
pub use interrupt::{Signals, interrupt_on_signals};
pub use lock::{Lock, LockKind};
pub use output::{real_directory_of, write_document};
pub use posix::is_posixly_correct;
pub use postgres_options::Options as PostgresOptions;
pub use programs::{Postgres, Programs};
pub use recovery::{put_back_signals, recover, signals_are_aside};
pub use restore_command::RestoreCommand;
pub use sql::{Load, Patience, Rate, SqlSource, ask};
pub use target_store::DirectoryStore;
