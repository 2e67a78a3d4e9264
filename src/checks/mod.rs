//! What is checked before anybody says yes: pure functions from facts to entries of a manifest's `checks`.
//!
//! Each check has a stable name, what was found, and what to do. `fail` means that an apply would break or lose the
//! cluster: no switch turns it off. All checks whose facts are there run, and are reported together.

mod control_files;
mod custom_resource_managers;
mod divergence;
mod follower;
mod replay_wal;
mod source_server;
mod source_wal_retention;

pub use control_files::{Preconditions, control_files};
pub use custom_resource_managers::{CustomResourceManagers, custom_resource_managers};
pub use divergence::{ForkFacts, divergence};
pub use follower::{Limits, SourceSlots, primary_slot_name, standby_parameters};
pub use replay_wal::{OtherWal, replay_wal};
pub use source_server::source_server;
pub use source_wal_retention::{NeededWal, source_wal_retention};

use crate::manifest::{Check, CheckStatus};

/// A check that passes where `ok`, and otherwise fails with a remedy.
pub(crate) fn check(id: &str, ok: bool, detail: String, remedy: &str) -> Check {
    let status = if ok { CheckStatus::Pass } else { CheckStatus::Fail };
    finding(id, status, detail, (!ok).then_some(remedy))
}

/// A check with this outcome.
pub(crate) fn finding(id: &str, status: CheckStatus, detail: String, remedy: Option<&str>) -> Check {
    let remedy = remedy.map(one_line);
    let detail = one_line(&detail);
    Check { commands: Vec::new(), detail, evidence: Vec::new(), id: id.to_owned(), remedy, status }
}

/// The text with control characters escaped: names come from servers, and what people read is a line.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_one_line() {
        let found = finding("id", CheckStatus::Warn, "a\nb\u{1b}[1m\u{85}".to_owned(), Some("c\r\td é"));
        assert_eq!(found.detail, r"a\nb\u{1b}[1m\u{85}");
        assert_eq!(found.remedy.as_deref(), Some(r"c\r\td é"));
    }
}
