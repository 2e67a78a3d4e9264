//! What a running server says about itself, as far as a plan is checked against it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::format::Checkpoint;
use crate::types::Lsn;

/// What the source's server says about itself. What the role may not see is missing: that is never a failure. Listings
/// hold it: fields stand in the byte order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerFacts {
    /// The database that was connected to, quoted as SQL wants it.
    pub database: String,
    /// Whether the server is a standby.
    pub in_recovery: bool,
    /// Those of the functions that read files which the role may not execute, with their types of arguments.
    pub missing_privileges: Vec<String>,
    /// The resource managers of extensions that are loaded: names by number. None where that is not known: before 15.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resource_managers: Option<BTreeMap<u8, String>>,
    /// The role that was connected as, quoted as SQL wants it.
    pub role: String,
    /// Parameters by name, as `SHOW` shows them; those that this role may not see are missing. None that may hold a
    /// secret is ever asked for.
    pub settings: BTreeMap<String, String>,
    /// Replication slots, by name; none where that is not known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub slots: Option<Vec<ServerSlot>>,
}

/// A replication slot of a running server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerSlot {
    /// Whether somebody is using it just now.
    pub active: bool,
    /// Its name.
    pub name: String,
    /// Whether it is a physical one.
    pub physical: bool,
    /// From where on it keeps WAL; none where it keeps none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub restart_lsn: Option<Lsn>,
    /// Whether it goes with the session that made it.
    pub temporary: bool,
    /// Whether the WAL that it is to keep is there: `reserved`, `extended`, `unreserved`, `lost`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wal_status: Option<String>,
}

impl ServerFacts {
    /// A parameter that is an amount of memory or WAL, in bytes; none where it is not known, or no such amount (-1).
    #[must_use]
    pub fn bytes(&self, parameter: &str) -> Option<u64> {
        bytes_of(self.settings.get(parameter)?)
    }

    /// Whether a parameter is known to be on or off.
    #[must_use]
    pub fn is_on(&self, parameter: &str) -> Option<bool> {
        match self.settings.get(parameter)?.as_str() {
            "on" => Some(true),
            "off" => Some(false),
            _ => None,
        }
    }
}

/// Why a page that is copied while the server writes it could not be repaired by replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TornPages {
    /// `full_page_writes` is off on a primary.
    Setting,
    /// It was off when the last checkpoint was taken: pages changed since then may have no image in the WAL.
    Checkpoint,
}

/// Whether pages that a live server is writing can be copied, and if not, why.
///
/// A standby shows its own setting, which says nothing about its primary's WAL: for it, the checkpoint tells.
#[must_use]
pub fn torn_pages(in_recovery: bool, full_page_writes: Option<bool>, checkpoint: &Checkpoint) -> Option<TornPages> {
    if !in_recovery && full_page_writes == Some(false) {
        return Some(TornPages::Setting);
    }
    (!checkpoint.full_page_writes).then_some(TornPages::Checkpoint)
}

/// Bytes of what `SHOW` shows of an amount of memory: a number and a unit, which zero lacks.
fn bytes_of(shown: &str) -> Option<u64> {
    let digits = shown.find(|c: char| !c.is_ascii_digit()).unwrap_or(shown.len());
    let (number, unit) = shown.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let shift = match unit.trim_start() {
        "" | "B" => 0,
        "kB" => 10,
        "MB" => 20,
        "GB" => 30,
        "TB" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_shown() {
        let cases = [
            ("0", Some(0)),
            ("1GB", Some(1 << 30)),
            ("80MB", Some(80 << 20)),
            ("8kB", Some(8192)),
            ("2TB", Some(2 << 40)),
            ("-1", None),
            ("", None),
            ("5min", None),
            ("99999999999999999999", None),
            ("18446744073709551615TB", None),
        ];
        for (shown, expected) in cases {
            assert_eq!(bytes_of(shown), expected, "{shown}");
        }
    }
}
