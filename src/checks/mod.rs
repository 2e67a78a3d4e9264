//! What is checked before anybody says yes: pure functions from facts to entries of a manifest's `checks`.
//!
//! Each check has a stable name, what was found, and what to do. `fail` means that an apply would break or lose the
//! cluster: no switch turns it off. All checks whose facts are there run, and are reported together.
//!
//! `control_files` asks whether a rewind is possible at all. The others ask about a plan that is made: `writable`, `space`
//! and `tablespaces` whether an apply would come to its end, `unarchived_wal`, `replication_slots`, `configuration`,
//! `log_files` and `special_files` what of the target's own goes, `starts_as_standby` what its server will be.

mod configuration;
mod control_files;
mod custom_resource_managers;
mod divergence;
mod follower;
mod log_files;
mod replay_wal;
mod replication_slots;
#[cfg(test)]
mod samples;
mod secrets;
mod source_server;
mod source_wal_retention;
mod space;
mod special_files;
mod standby;
mod tablespaces;
mod unarchived_wal;
mod writable;

pub use configuration::{ConfigFile, Content, configuration, is_configuration};
pub use control_files::{Preconditions, control_files};
pub use custom_resource_managers::{CustomResourceManagers, custom_resource_managers};
pub use divergence::{ForkFacts, divergence};
pub use follower::{Limits, SourceSlots, primary_slot_name, standby_parameters};
pub use log_files::log_files;
pub use replay_wal::{OtherWal, replay_wal};
pub use replication_slots::{SlotFile, replication_slots};
pub use secrets::without_secrets;
pub use source_server::source_server;
pub use source_wal_retention::{NeededWal, source_wal_retention};
pub use space::{Room, space};
pub use special_files::special_files;
pub use standby::{Signals, starts_as_standby};
pub use tablespaces::{Tablespaces, tablespaces};
pub use unarchived_wal::unarchived_wal;
pub use writable::writable;

use crate::manifest::{Check, CheckStatus};
use crate::types::plain;

/// The most lines of evidence, or commands, that a check shows.
const MOST_LINES: usize = 200;

/// A check that passes where `ok`, and otherwise fails with a remedy.
pub(crate) fn check(id: &str, ok: bool, detail: String, remedy: &str) -> Check {
    let status = if ok { CheckStatus::Pass } else { CheckStatus::Fail };
    finding(id, status, detail, (!ok).then_some(remedy))
}

/// A check with this outcome.
pub(crate) fn finding(id: &str, status: CheckStatus, detail: String, remedy: Option<&str>) -> Check {
    let remedy = remedy.map(plain);
    let detail = plain(&detail);
    Check { commands: Vec::new(), detail, evidence: Vec::new(), id: id.to_owned(), remedy, status }
}

/// The check with its evidence and commands, bounded; what could disturb a line is escaped in detail and evidence.
fn with_lines(mut check: Check, evidence: Vec<String>, commands: Vec<String>) -> Check {
    check.detail = plain(&check.detail);
    check.evidence = bounded(evidence).iter().map(|line| plain(line)).collect();
    check.commands = bounded(commands);
    check
}

/// As many lines as are shown, and how many more there are.
fn bounded(mut lines: Vec<String>) -> Vec<String> {
    let more = lines.len().saturating_sub(MOST_LINES);
    if more > 0 {
        lines.truncate(MOST_LINES);
        lines.push(format!("and {more} more"));
    }
    lines
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

    #[test]
    fn lines_are_bounded() {
        let lines = |count: usize| vec!["x".to_owned(); count];
        assert_eq!(bounded(lines(MOST_LINES)).len(), MOST_LINES);
        let cut = bounded(lines(MOST_LINES + 3));
        assert_eq!((cut.len(), cut.last().map(String::as_str)), (MOST_LINES + 1, Some("and 3 more")));
    }
}
