//! The drop-in for pg_rewind: its command line, what it says, and what becomes of a run that was cut.

mod again;
mod command_line;
mod cut;
mod preparation;
mod words;
