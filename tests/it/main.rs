//! The integration tests: real servers of every major.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub
)]

mod approval;
mod commands;
mod control_file;
mod discarded;
mod drop_in;
mod equal_files;
mod faults;
mod fetching;
mod fuzz_seeds;
mod golden;
mod hostile_database;
mod hostile_server;
mod incomplete_wal;
mod libpq;
mod lost_source;
mod missing_wal;
mod offline;
mod oracle;
mod over_tls;
mod packaging;
mod path_rules;
mod patroni;
mod pipeline;
mod programs;
mod refusals;
mod repmgr;
mod scenarios;
mod schema;
mod source_checks;
mod support;
mod target_side;
mod tidy;
mod unclean_targets;
mod wal_decoding;
mod wrappers;
