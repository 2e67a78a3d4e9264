//! Writing to the terminal. A closed stdout or stderr never ends the work.

use std::error::Error as _;
use std::io::{Read, Write};

use pg_unfork::error::Error;

/// Writes to standard error, come what may.
pub(super) fn note(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Writes data to standard output.
pub(super) fn data(bytes: &[u8]) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush())
}

/// Writes data to standard output as it comes.
pub(super) fn stream(mut from: impl Read) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    std::io::copy(&mut from, &mut stdout).and_then(|_| stdout.flush())
}

/// Writes an error with its causes and what to do.
pub(super) fn error(error: &Error) {
    let mut text = format!("pg_unfork: error: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text.push('\n');
    for hint in error.hints() {
        text.push_str(&format!("pg_unfork: hint: {hint}\n"));
    }
    note(&text);
}
