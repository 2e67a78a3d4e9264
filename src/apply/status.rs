//! What can be said of a data directory, also while an apply is at work on it.

use serde::Serialize;

use super::journal::{Journal, PhaseDone, Skipped};
use super::state::{Condition, State};
use crate::cluster::TargetStore;
use crate::error::Result;
use crate::format::ControlFile;
use crate::manifest::Manifest;

/// How far an apply has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// What the state means for the control file that is there.
    pub condition: Condition,
    /// Bytes that are copied, durable and journaled.
    pub copied_bytes: u64,
    /// The plan that is or was applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Whether changes were made durable at all: without, no promise outlives a crash of the machine.
    pub durable: bool,
    /// Why the journal cannot be used, where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal_problem: Option<String>,
    /// The phase that is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<&'static str>,
    /// What the apply leaves as it is, because the target has it already or nothing reads it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
    /// Bytes that the plan copies in all.
    pub total_bytes: u64,
    /// Whether what was replaced is kept.
    pub undo: bool,
}

/// Looks at the state of a data directory with this control file; `manifest` is the state directory's plan, if it
/// can be read.
///
/// # Errors
/// When the state cannot be read.
pub fn status(store: &mut dyn TargetStore, control: &[u8], manifest: Option<&Manifest>) -> Result<Status> {
    let nothing = Status {
        condition: Condition::Untouched,
        copied_bytes: 0,
        digest: None,
        durable: false,
        journal_problem: None,
        phase: None,
        skipped: Vec::new(),
        total_bytes: 0,
        undo: false,
    };
    let Some(state) = State::read(store)? else {
        let sealed = ControlFile::parse(control).is_ok_and(|control| control.is_sealed());
        return Ok(if sealed { Status { condition: Condition::Lost, ..nothing } } else { nothing });
    };
    let condition = state.condition(control);
    let total_bytes = manifest.map_or(0, |manifest| manifest.totals.bytes);
    let journal = state.journal.as_ref().ok();
    Ok(Status {
        condition,
        copied_bytes: journal.map_or(0, Journal::bytes),
        digest: Some(state.header.digest),
        durable: state.header.durable,
        journal_problem: state.journal.as_ref().err().cloned(),
        phase: journal.filter(|_| condition == Condition::Applying).map(phase),
        skipped: journal.map_or_else(Vec::new, |journal| journal.skipped.clone()),
        total_bytes,
        undo: state.header.undo,
    })
}

/// The first phase that is not done.
fn phase(journal: &Journal) -> &'static str {
    let phases = [
        (PhaseDone::Wal, "wal"),
        (PhaseDone::Create, "create"),
        (PhaseDone::Copy, "copy"),
        (PhaseDone::Truncate, "truncate"),
        (PhaseDone::Remove, "remove"),
    ];
    phases.iter().find(|(phase, _)| !journal.phases.contains(phase)).map_or("finish", |(_, name)| name)
}
