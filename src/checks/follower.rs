//! What must hold of the settings that the target will have, so that it can follow the source.

use super::{check, finding};
use crate::cluster::{InForce, ServerSlot, SettingsInForce};
use crate::format::{Major, SharedLimits};
use crate::manifest::{Check, CheckStatus};

/// The limits of both sides.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The target's, as its server last ran.
    pub target: SharedLimits,
    /// The source's, or its primary's.
    pub source: SharedLimits,
    /// Their major.
    pub major: Major,
}

/// Whether the target will have at least as much as the source of what a standby must have: it does not start otherwise.
pub fn standby_parameters(settings: &SettingsInForce, limits: &Limits) -> Check {
    let id = "standby_parameters";
    let mut evidence = Vec::new();
    let (mut raise, mut is_certain) = (Vec::new(), settings.is_certain());
    let built_in = SharedLimits::built_in(limits.major).named();
    for ((name, needed), ((_, before), (_, built_in))) in
        limits.source.named().into_iter().zip(limits.target.named().into_iter().zip(built_in))
    {
        let known = match settings.get(name) {
            InForce::Set(value) => value.trim().parse().ok(),
            InForce::BuiltIn => Some(built_in),
            InForce::Unknown => None,
        };
        let will_have = known.unwrap_or(before);
        if will_have >= needed {
            continue;
        }
        let how = if known.is_some() { "the target will have" } else { "the target last ran with" };
        evidence.push(format!("{name}: {how} {will_have}, the source has {needed}"));
        raise.push(format!("ALTER SYSTEM SET {name} = {needed};"));
        is_certain &= known.is_some() && !settings.is_from_command_line(name);
    }
    if raise.is_empty() {
        return check(id, true, "the target will have what a standby of this source needs".to_owned(), "");
    }
    if matches!(settings.get("hot_standby"), InForce::Set(value) if is_off(value)) {
        let detail =
            "the target will have less than the source, which does not matter with hot_standby = off".to_owned();
        return Check { evidence, ..finding(id, CheckStatus::Pass, detail, None) };
    }
    let names = evidence.iter().filter_map(|line| line.split_once(':')).map(|(name, _)| name).collect::<Vec<_>>();
    let detail = format!("too low for a standby of this source: {}", names.join(", "));
    let values =
        raise.iter().filter_map(|line| line.strip_prefix("ALTER SYSTEM SET ")).map(|line| line.trim_end_matches(';'));
    let values = values.collect::<Vec<_>>().join(", ");
    if is_certain {
        let remedy = format!("in the settings that the target will have, set at least {values}; then plan again");
        return Check { evidence, ..finding(id, CheckStatus::Fail, detail, Some(&remedy)) };
    }
    let remedy = format!("see that the target is started with at least {values}; it does not start otherwise");
    Check { evidence, ..finding(id, CheckStatus::Warn, detail, Some(&remedy)) }
}

/// Whether PostgreSQL takes this for a boolean that is false: beginnings of the words will do.
fn is_off(value: &str) -> bool {
    let value = value.trim().to_ascii_lowercase();
    let begins = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
    value == "0" || begins("false", 1) || begins("no", 1) || begins("off", 2)
}

/// The slots of a source.
#[derive(Clone, Copy, Debug)]
pub struct SourceSlots<'a> {
    /// What its server says; none where it does not, or there is none.
    pub said: Option<&'a [ServerSlot]>,
    /// The names of those in its data directory.
    pub listed: &'a [String],
}

/// Whether the slot that the target will stream from is there.
pub fn primary_slot_name(settings: &SettingsInForce, slots: SourceSlots<'_>) -> Check {
    let id = "primary_slot_name";
    let name = match settings.get(id) {
        InForce::Set(name) if !name.is_empty() => name,
        InForce::Set(_) | InForce::BuiltIn => {
            return check(id, true, "the target will use no replication slot".to_owned(), "");
        }
        InForce::Unknown => {
            let detail = "whether the target will use a replication slot is set outside of its data directory";
            return check(id, true, detail.to_owned(), "");
        }
    };
    let found = slots.said.and_then(|slots| slots.iter().find(|slot| slot.name == name));
    let is_listed = slots.said.is_none() && slots.listed.iter().any(|listed| listed == name);
    let quoted = format!("'{}'", name.replace('\'', "\'\'"));
    let make = format!("SELECT pg_catalog.pg_create_physical_replication_slot({quoted}, true);");
    let make_anew = vec![format!("SELECT pg_catalog.pg_drop_replication_slot({quoted});"), make.clone()];
    let is_lost = |slot: &&ServerSlot| slot.wal_status.as_deref() == Some("lost");
    let (detail, remedy, commands) = match found {
        None if is_listed => return check(id, true, format!("the source has the target's slot {name}"), ""),
        Some(slot) if slot.physical && !is_lost(&slot) => {
            return check(id, true, format!("the source has the target's slot {name}"), "");
        }
        None => (
            format!("the target will stream from replication slot {name}, which the source does not have"),
            "make the slot on the source, or take primary_slot_name out of the target's settings after the apply",
            vec![make],
        ),
        Some(slot) if slot.physical => (
            format!("the target will stream from replication slot {name}, which has lost its WAL"),
            "make the slot on the source anew",
            make_anew,
        ),
        Some(_) => (
            format!("the target will stream from replication slot {name}, which is a logical one on the source"),
            "set another primary_slot_name for the target after the apply",
            Vec::new(),
        ),
    };
    Check { commands, ..finding(id, CheckStatus::Warn, detail, Some(remedy)) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cluster::{FileEntry, FileKind, Inventory, Settings};
    use crate::types::ClusterPath;

    /// A target with this postgresql.conf, started with these options; without either where that is none.
    fn settings(text: Option<&str>, options: Option<&str>) -> SettingsInForce {
        let path = ClusterPath::new(b"postgresql.conf").unwrap();
        let entry = FileEntry { kind: FileKind::File { size: 1, modified: None }, mode: None };
        let listed: Inventory = text.map(|_| (path, entry)).into_iter().collect();
        let mut read = |_: &ClusterPath| Ok(text.map(|text| text.as_bytes().to_vec()));
        let files = Settings::read_with(&mut read, &listed, &|path| listed.get(path).is_some());
        SettingsInForce::new(files, options.map(str::as_bytes))
    }

    #[test]
    fn only_what_is_surely_too_low_fails() {
        use CheckStatus::{Fail, Pass, Warn};
        let plain = Some("postgres \"-D\" \"/data\"");
        let raised = Some("postgres \"-D\" \"/data\" \"--max_connections=200\"");
        let source = SharedLimits { max_connections: 200, ..SharedLimits::built_in(Major::V17) };
        let low = SharedLimits::built_in(Major::V17);
        let cases = [
            (Some("max_connections = 200"), plain, low, Pass),
            (Some("max_connections = 199"), plain, low, Fail),
            (Some("max_connections = 199"), None, low, Warn),
            (Some("max_connections = 199"), raised, low, Pass),
            (Some(""), plain, source, Fail),
            (Some("include '/etc/x'"), plain, low, Warn),
            (Some("include '/etc/x'"), plain, source, Pass),
            (Some("max_connections = many"), plain, low, Warn),
            (None, plain, low, Warn),
            (None, plain, source, Pass),
            (Some("max_connections = 199\nhot_standby = off"), plain, low, Pass),
        ];
        for (text, options, target, status) in cases {
            let limits = Limits { target, source, major: Major::V17 };
            let found = standby_parameters(&settings(text, options), &limits);
            assert_eq!(found.status, status, "{text:?} {options:?}: {found:?}");
            let names = found.evidence.iter().all(|line| line.starts_with("max_connections: "));
            assert!(names && (status == Pass || found.remedy.unwrap().contains("max_connections = 200")));
        }
    }

    #[test]
    fn booleans_have_many_forms() {
        for value in ["off", "of", "OFF", "false", "f", "no", "N", "0"] {
            assert!(is_off(value), "{value}");
        }
        for value in ["on", "o", "true", "yes", "1", "", "offf"] {
            assert!(!is_off(value), "{value}");
        }
    }

    #[test]
    fn each_limit_counts() {
        let none = SharedLimits::default();
        let alone = [
            SharedLimits { max_connections: 1001, ..none },
            SharedLimits { max_worker_processes: 1001, ..none },
            SharedLimits { max_wal_senders: 1001, ..none },
            SharedLimits { max_prepared_transactions: 1001, ..none },
            SharedLimits { max_locks_per_transaction: 1001, ..none },
        ];
        for (source, (name, _)) in alone.into_iter().zip(none.named()) {
            let limits = Limits { target: none, source, major: Major::V19 };
            let found = standby_parameters(&settings(Some(""), Some("postgres")), &limits);
            assert_eq!(found.status, CheckStatus::Fail);
            assert!(found.detail.ends_with(&format!(": {name}")), "{}", found.detail);
        }
    }

    /// postgresql.conf, what the server says, what is listed; the outcome, and how many statements are advised.
    type Case<'a> = (Option<&'a str>, Option<&'a [ServerSlot]>, &'a [String], CheckStatus, usize);

    #[test]
    fn the_slot_must_be_a_physical_one_that_is_there() {
        use CheckStatus::{Pass, Warn};
        let slot = |physical, status: &str| {
            let wal_status = Some(status.to_owned());
            let (name, restart_lsn) = ("mine".to_owned(), None);
            [ServerSlot { active: false, name, physical, restart_lsn, temporary: false, wal_status }]
        };
        let (good, logical, lost) = (slot(true, "reserved"), slot(false, "reserved"), slot(true, "lost"));
        let listed = ["mine".to_owned()];
        let set = Some("primary_slot_name = 'mine'");
        let cases: [Case<'_>; 9] = [
            (set, Some(&good), &[], Pass, 0),
            (set, Some(&logical), &listed, Warn, 0),
            (set, Some(&lost), &listed, Warn, 2),
            (set, Some(&[]), &listed, Warn, 1),
            (set, None, &listed, Pass, 0),
            (set, None, &[], Warn, 1),
            (Some("primary_slot_name = ''"), None, &[], Pass, 0),
            (Some(""), None, &[], Pass, 0),
            (None, None, &[], Pass, 0),
        ];
        for (text, said, listed, status, statements) in cases {
            let found = primary_slot_name(&settings(text, None), SourceSlots { said, listed });
            assert_eq!((found.status, found.commands.len()), (status, statements), "{text:?} {found:?}");
        }
        let odd = primary_slot_name(
            &settings(Some("primary_slot_name = 'a''b'"), None),
            SourceSlots { said: None, listed: &[] },
        );
        assert_eq!(odd.commands, ["SELECT pg_catalog.pg_create_physical_replication_slot('a''b', true);"]);
    }
}
