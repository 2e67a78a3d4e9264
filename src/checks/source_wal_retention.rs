//! How long a live source keeps the WAL that a rewind needs: between plan and apply lies an approval.

use super::finding;
use crate::cluster::{ServerFacts, ServerSlot};
use crate::manifest::{Check, CheckStatus};
use crate::types::{Lsn, SegmentNumber, WalSegmentSize, plain};

/// What is needed of the source's WAL, and where the source is.
#[derive(Clone, Copy, Debug)]
pub struct NeededWal {
    /// The beginning of the first segment that is needed from the source.
    pub from: Lsn,
    /// Where the source's WAL ended.
    pub end: Lsn,
    /// The redo position of its last checkpoint, from where on it keeps WAL for itself and for new slots.
    pub redo: Lsn,
    /// Bytes in a segment: WAL is kept and dropped by segments.
    pub size: WalSegmentSize,
}

impl NeededWal {
    /// Whether what keeps WAL from a position on keeps all that is needed.
    fn is_kept_from(&self, lsn: Lsn) -> bool {
        SegmentNumber::of(lsn, self.size) <= SegmentNumber::of(self.from, self.size)
    }
}

/// PostgreSQL's own `max_wal_size`, where the source does not tell.
const MAX_WAL_SIZE: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// What keeps the WAL that is needed, and for how long.
///
/// A slot that nobody uses keeps it until it is dropped, as long as nothing bounds it. `wal_keep_size`, and the bound
/// of slots, keep it until the source has written so much more; that is enough here if it is more than what the source
/// writes between two checkpoints (`max_wal_size`).
pub fn source_wal_retention(facts: &ServerFacts, needed: NeededWal) -> Check {
    let id = "source_wal_retention";
    let behind = needed.end.since(needed.from);
    let enough = facts.bytes("max_wal_size").unwrap_or(MAX_WAL_SIZE);
    let slots = facts.slots.as_deref().unwrap_or_default();
    let bound = facts.bytes("max_slot_wal_keep_size");
    let idle = facts.settings.get("idle_replication_slot_timeout").is_some_and(|timeout| timeout != "0");
    let holds = |slot: &&ServerSlot| keeps(slot, &needed);
    let pinned = slots.iter().filter(holds).find(|slot| !slot.active);
    let kept = facts.bytes("wal_keep_size").unwrap_or(0);
    let is_lasting =
        |slot: &&ServerSlot| !idle && room(bound, held_by(slot, needed.end)).is_none_or(|room| room >= enough);
    if let Some(slot) = pinned.filter(is_lasting) {
        let detail = format!("replication slot {} of the source keeps the WAL that is needed", slot.name);
        return finding(id, CheckStatus::Pass, detail, None);
    }
    if room(Some(kept), behind).is_some_and(|room| room >= enough) {
        let detail = format!("wal_keep_size of the source, {}, keeps the WAL that is needed for some time", mb(kept));
        return finding(id, CheckStatus::Pass, detail, None);
    }
    let mut evidence = vec![
        format!("needed from the source: WAL from {} on, {} by now", needed.from, mb(behind)),
        plain(&format!("wal_keep_size of the source: {}", shown(facts, "wal_keep_size"))),
    ];
    evidence.extend(facts.slots.is_none().then(|| "replication slots of the source: not known".to_owned()));
    evidence.extend(slots.iter().filter(holds).map(|slot| said_of(slot, facts, idle)));
    evidence
        .extend(facts.settings.get("archive_mode").map(|mode| plain(&format!("archive_mode of the source: {mode}"))));
    let detail = "nothing makes the source keep the WAL that is needed until the plan is applied".to_owned();
    let (remedy, commands) = how_to_keep(facts, needed, behind, enough);
    Check { commands, evidence, ..finding(id, CheckStatus::Warn, detail, Some(&remedy)) }
}

/// Whether a slot keeps all that is needed just now.
fn keeps(slot: &ServerSlot, needed: &NeededWal) -> bool {
    let is_there = !matches!(slot.wal_status.as_deref(), Some("unreserved" | "lost"));
    is_there && !slot.temporary && slot.restart_lsn.is_some_and(|lsn| needed.is_kept_from(lsn))
}

/// How much WAL a slot keeps by now.
fn held_by(slot: &ServerSlot, end: Lsn) -> u64 {
    end.since(slot.restart_lsn.unwrap_or(end))
}

/// How much more WAL may be written before a bound is reached; none where nothing bounds.
fn room(bound: Option<u64>, behind: u64) -> Option<u64> {
    bound.map(|bound| bound.saturating_sub(behind))
}

fn said_of(slot: &ServerSlot, facts: &ServerFacts, idle: bool) -> String {
    let why = if slot.active {
        "keeps it now, but is in use, and will move on".to_owned()
    } else if idle {
        format!("keeps it until idle_replication_slot_timeout ({})", shown(facts, "idle_replication_slot_timeout"))
    } else {
        format!("keeps it up to max_slot_wal_keep_size ({})", shown(facts, "max_slot_wal_keep_size"))
    };
    plain(&format!("replication slot {}: {why}", slot.name))
}

/// A new slot reserves WAL from the last checkpoint on. What is needed from before that only `wal_keep_size` keeps.
fn how_to_keep(facts: &ServerFacts, needed: NeededWal, behind: u64, enough: u64) -> (String, Vec<String>) {
    if needed.is_kept_from(needed.redo) {
        let remedy = "make a slot on the source that keeps it, and drop the slot when the target follows";
        let commands = [
            "SELECT pg_catalog.pg_create_physical_replication_slot('pg_unfork', true);",
            "SELECT pg_catalog.pg_drop_replication_slot('pg_unfork'); -- when the target follows",
        ];
        return (remedy.to_owned(), commands.map(str::to_owned).to_vec());
    }
    let remedy = format!(
        "raise wal_keep_size on the source, and set it back when the target follows (a new slot keeps WAL only from {} on)",
        needed.redo
    );
    let wanted = behind.saturating_add(enough.saturating_mul(2)).div_ceil(MIB);
    let reload = "SELECT pg_catalog.pg_reload_conf();".to_owned();
    let mut commands = vec![format!("ALTER SYSTEM SET wal_keep_size = '{wanted}MB';"), reload.clone()];
    let before = facts.settings.get("wal_keep_size").filter(|before| before.bytes().all(|b| b.is_ascii_alphanumeric()));
    let back = match before {
        Some(before) => format!("ALTER SYSTEM SET wal_keep_size = '{before}';"),
        None => "ALTER SYSTEM RESET wal_keep_size;".to_owned(),
    };
    commands.extend([back, reload].map(|statement| format!("{statement} -- when the target follows")));
    (remedy, commands)
}

fn shown<'a>(facts: &'a ServerFacts, parameter: &str) -> &'a str {
    facts.settings.get(parameter).map_or("not known", String::as_str)
}

fn mb(bytes: u64) -> String {
    format!("{}MB", bytes.div_ceil(MIB))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Segments of 1 MiB; 50 of them by now.
    fn needed() -> NeededWal {
        let size = WalSegmentSize::new(1 << 20).unwrap();
        NeededWal { from: Lsn::new(100 * MIB), end: Lsn::new(150 * MIB), redo: Lsn::new(140 * MIB), size }
    }

    fn slot(name: &str, restart: u64) -> ServerSlot {
        ServerSlot {
            active: false,
            name: name.to_owned(),
            physical: true,
            restart_lsn: Some(Lsn::new(restart * MIB)),
            temporary: false,
            wal_status: Some("reserved".to_owned()),
        }
    }

    fn server(settings: &[(&str, &str)], slots: &[ServerSlot]) -> ServerFacts {
        let settings = [&[("max_wal_size", "64MB")], settings].concat();
        ServerFacts {
            settings: settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            slots: Some(slots.to_vec()),
            ..ServerFacts::default()
        }
    }

    #[test]
    fn a_slot_or_a_size_keeps_wal() {
        use CheckStatus::{Pass, Warn};
        let unbounded = [("max_slot_wal_keep_size", "-1"), ("wal_keep_size", "0")];
        let active = ServerSlot { active: true, ..slot("a", 90) };
        let lost = ServerSlot { wal_status: Some("lost".to_owned()), ..slot("a", 90) };
        let temporary = ServerSlot { temporary: true, ..slot("a", 90) };
        let empty = ServerSlot { restart_lsn: None, ..slot("a", 90) };
        let cases = [
            ("nothing", server(&unbounded, &[]), Warn),
            ("slot", server(&unbounded, &[slot("a", 100)]), Pass),
            ("later slot", server(&unbounded, &[slot("a", 101)]), Warn),
            ("slot in use", server(&unbounded, &[active]), Warn),
            ("lost slot", server(&unbounded, &[lost]), Warn),
            ("temporary slot", server(&unbounded, &[temporary]), Warn),
            ("empty slot", server(&unbounded, &[empty]), Warn),
            ("bounded slot", server(&[("max_slot_wal_keep_size", "123MB")], &[slot("a", 90)]), Warn),
            ("widely bounded slot", server(&[("max_slot_wal_keep_size", "124MB")], &[slot("a", 90)]), Pass),
            ("slot that times out", server(&[("idle_replication_slot_timeout", "1d")], &[slot("a", 90)]), Warn),
            ("slot that never does", server(&[("idle_replication_slot_timeout", "0")], &[slot("a", 90)]), Pass),
            ("size", server(&[("wal_keep_size", "114MB")], &[]), Pass),
            ("small size", server(&[("wal_keep_size", "113MB")], &[]), Warn),
            ("nothing known", ServerFacts::default(), Warn),
        ];
        for (case, facts, status) in cases {
            let found = source_wal_retention(&facts, needed());
            assert_eq!(found.status, status, "{case}");
            assert_eq!(found.commands.is_empty(), status == Pass, "{case}");
        }
    }

    #[test]
    fn a_slot_is_advised_where_it_would_help() {
        let facts = server(&[("wal_keep_size", "16MB")], &[]);
        let slot = source_wal_retention(&facts, NeededWal { redo: Lsn::new(100 * MIB + 9), ..needed() }).commands;
        assert_eq!(
            slot.first().map(String::as_str),
            Some("SELECT pg_catalog.pg_create_physical_replication_slot('pg_unfork', true);")
        );
        let size = source_wal_retention(&facts, needed()).commands;
        let expected = [
            "ALTER SYSTEM SET wal_keep_size = '178MB';",
            "SELECT pg_catalog.pg_reload_conf();",
            "ALTER SYSTEM SET wal_keep_size = '16MB'; -- when the target follows",
            "SELECT pg_catalog.pg_reload_conf(); -- when the target follows",
        ];
        assert_eq!(size, expected);
    }
}
