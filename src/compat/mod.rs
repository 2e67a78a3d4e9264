//! pg_rewind's face: its command line and its words. Pure.
//!
//! `getopt` has the rules of GNU `getopt_long`, `options` what pg_rewind 13 to 19 accept and refuse, in their order,
//! `messages` the lines that programs and people look for. What a run does is for the caller.

mod getopt;
mod help;
mod messages;
mod options;

pub use help::{help, version};
pub use messages::{Kind, Line, after_work, before_work, copied, dry_run, map, running, to_copy};
pub use options::{Caller, Misuse, Options, Request, SourceOption, SyncWish, parse};
