//! Who did what to a data directory: `.pg_unfork/history`, one JSON object per line. Outlives everything else in the
//! state directory.

use serde::Serialize;

use crate::cluster::TargetStore;
use crate::error::{Context, Result};

/// Who works on a data directory, for its history.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The machine's name.
    pub host: String,
    /// The process id there.
    pub process: u32,
    /// The user's name, or number.
    pub user: String,
    /// The program's version.
    pub version: String,
}

/// A line of the history.
#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    event: &'a str,
    digest: &'a str,
    host: &'a str,
    user: &'a str,
    process: u32,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Adds a line. `time` is RFC 3339 in UTC.
///
/// # Errors
/// When it cannot be written.
pub fn note(
    store: &mut dyn TargetStore,
    actor: &Actor,
    time: &str,
    event: &str,
    digest: &str,
    error: Option<&crate::error::Error>,
) -> Result<()> {
    let error = error.map(ToString::to_string);
    let Actor { host, process, user, version } = actor;
    let line = Line { time, event, digest, host, user, process: *process, version, error };
    let mut text = serde_json::to_vec(&line).context(|| "cannot write the history".to_owned())?;
    text.push(b'\n');
    let Some(mut log) = store.open_log(None, "history", true)? else { return Ok(()) };
    let length = log.length()?;
    let mut last = [b'\n'];
    log.read_at(&mut last, length.saturating_sub(1))?;
    if length > 0 && last != *b"\n" {
        // A line that was being written when the process died.
        text.insert(0, b'\n');
    }
    log.append(&text)?;
    log.sync()
}
