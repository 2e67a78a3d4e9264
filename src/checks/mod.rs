//! What is checked before anybody says yes: pure functions from facts to entries of a manifest's `checks`.
//!
//! Each check has a stable name, what was found, and what to do. `fail` means that an apply would break or lose the
//! cluster: no switch turns it off. All checks whose facts are there run, and are reported together.

mod control_files;

pub use control_files::{Preconditions, control_files};

use crate::manifest::{Check, CheckStatus};

/// A check that passes where `ok`, and otherwise fails with a remedy.
pub(crate) fn check(id: &str, ok: bool, detail: String, remedy: &str) -> Check {
    let status = if ok { CheckStatus::Pass } else { CheckStatus::Fail };
    finding(id, status, detail, (!ok).then_some(remedy))
}

/// A check with this outcome.
pub(crate) fn finding(id: &str, status: CheckStatus, detail: String, remedy: Option<&str>) -> Check {
    let remedy = remedy.map(str::to_owned);
    Check { commands: Vec::new(), detail, evidence: Vec::new(), id: id.to_owned(), remedy, status }
}
