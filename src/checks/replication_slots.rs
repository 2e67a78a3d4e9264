//! The target's replication slots, none of which stays.

use super::{finding, with_lines};
use crate::format::{ReplicationSlot, SlotError};
use crate::manifest::{Check, CheckStatus};
use crate::types::ClusterPath;

/// A slot's state file, and what it says.
pub type SlotFile = (ClusterPath, Result<ReplicationSlot, SlotError>);

/// `replication_slots`: which slots of the target vanish, as everything in `pg_replslot` does. Temporary ones are nobody's
/// loss.
#[must_use]
pub fn replication_slots(slots: &[SlotFile]) -> Check {
    let lasting = |slot: &&SlotFile| slot.1.as_ref().map_or(true, |slot| slot.persistent);
    let lost: Vec<&SlotFile> = slots.iter().filter(lasting).collect();
    if lost.is_empty() {
        return finding("replication_slots", CheckStatus::Pass, "the target has no replication slots".to_owned(), None);
    }
    let evidence = lost.iter().map(|(path, slot)| describe(path, slot)).collect();
    let commands: Vec<String> = lost.iter().filter_map(|(_, slot)| slot.as_ref().ok()).filter_map(recreation).collect();
    let logical = lost.iter().filter(|(_, slot)| slot.as_ref().is_ok_and(|slot| slot.database.is_some())).count();
    let detail = format!("{} of the target's replication slots vanish, {logical} of them logical", lost.len());
    let physical = "create the physical ones again once the target runs as a standby";
    let remedy = if logical > 0 {
        format!(
            "{physical}; a logical one cannot be made again at its position: what its consumer has not had yet is lost \
             to it, and it must begin anew, with a new slot and a new copy of the data; those with failover come with \
             the slots of the new primary if it has them"
        )
    } else {
        physical.to_owned()
    };
    with_lines(finding("replication_slots", CheckStatus::Warn, detail, Some(&remedy)), evidence, commands)
}

fn describe(path: &ClusterPath, slot: &Result<ReplicationSlot, SlotError>) -> String {
    let slot = match slot {
        Ok(slot) => slot,
        Err(error) => return format!("{path} cannot be understood: {error}"),
    };
    let mut words = vec![match (slot.database, &slot.plugin) {
        (Some(database), Some(plugin)) => format!("{}: logical, plugin {plugin}, database {database}", slot.name),
        _ => format!("{}: physical", slot.name),
    }];
    words.extend(slot.restart_lsn.map(|lsn| format!("restart_lsn {lsn}")));
    words.extend(slot.confirmed_flush.map(|lsn| format!("confirmed_flush_lsn {lsn}")));
    let flags = [(slot.two_phase, "two_phase"), (slot.failover, "failover"), (slot.synced, "synced")];
    words.extend(flags.iter().filter(|(set, _)| *set).map(|(_, word)| (*word).to_owned()));
    words.join(", ")
}

/// The statement that makes a physical slot again. A name that no server would take is none to put into a statement.
fn recreation(slot: &ReplicationSlot) -> Option<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let good = slot.database.is_none() && !slot.name.is_empty() && slot.name.chars().all(is_name);
    let reserve = if slot.restart_lsn.is_some() { ", true" } else { "" };
    good.then(|| format!("SELECT pg_create_physical_replication_slot('{}'{reserve});", slot.name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::types::Lsn;

    fn slot(name: &str) -> ReplicationSlot {
        ReplicationSlot {
            name: name.to_owned(),
            database: None,
            persistent: true,
            restart_lsn: Some(Lsn::new(0x100)),
            confirmed_flush: None,
            plugin: None,
            two_phase: false,
            synced: false,
            failover: false,
        }
    }

    fn checked(slots: Vec<Result<ReplicationSlot, SlotError>>) -> Check {
        let path = ClusterPath::new(b"pg_replslot/x/state").unwrap();
        let files: Vec<SlotFile> = slots.into_iter().map(|slot| (path.clone(), slot)).collect();
        replication_slots(&files)
    }

    #[test]
    fn nothing_is_lost_where_nothing_lasts() {
        for slots in [vec![], vec![Ok(ReplicationSlot { persistent: false, ..slot("a") })]] {
            assert_eq!(checked(slots).status, CheckStatus::Pass);
        }
    }

    #[test]
    fn each_kind_of_slot() {
        let logical = ReplicationSlot {
            database: Some(5),
            plugin: Some("pg\noutput".to_owned()),
            confirmed_flush: Some(Lsn::new(0x200)),
            failover: true,
            ..slot("b")
        };
        let idle = ReplicationSlot { restart_lsn: None, ..slot("c") };
        let found = checked(vec![Ok(slot("a")), Ok(logical), Ok(idle), Ok(slot("x'); --")), Err(SlotError::Magic(1))]);
        assert_eq!(found.status, CheckStatus::Warn);
        assert_eq!(found.detail, "5 of the target's replication slots vanish, 1 of them logical");
        assert!(found.remedy.unwrap().contains("cannot be made again"));
        let evidence = [
            "a: physical, restart_lsn 0/100",
            r"b: logical, plugin pg\noutput, database 5, restart_lsn 0/100, confirmed_flush_lsn 0/200, failover",
            "c: physical",
            "x'); --: physical, restart_lsn 0/100",
            "pg_replslot/x/state cannot be understood: it begins with 0x1, not with 0x1051ca1",
        ];
        assert_eq!(found.evidence, evidence);
        let commands = [
            "SELECT pg_create_physical_replication_slot('a', true);",
            "SELECT pg_create_physical_replication_slot('c');",
        ];
        assert_eq!(found.commands, commands);
        let physical = checked(vec![Ok(slot("a"))]);
        assert!(!physical.remedy.unwrap().contains("logical"));
    }
}
