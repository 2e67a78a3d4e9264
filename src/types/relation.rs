//! Relations, their forks and their files.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ClusterPath;

/// The fork of a relation (`ForkNumber`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ForkNumber {
    /// The data itself.
    Main,
    /// The free space map, `_fsm`.
    FreeSpaceMap,
    /// The visibility map, `_vm`.
    VisibilityMap,
    /// The initial content of an unlogged relation, `_init`.
    Init,
}

impl ForkNumber {
    /// The fork with PostgreSQL's number 0 to 3.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Main),
            1 => Some(Self::FreeSpaceMap),
            2 => Some(Self::VisibilityMap),
            3 => Some(Self::Init),
            _ => None,
        }
    }

    /// PostgreSQL's name, as pg_waldump prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::FreeSpaceMap => "fsm",
            Self::VisibilityMap => "vm",
            Self::Init => "init",
        }
    }

    /// The fork whose files' names have this after `_`.
    fn with_suffix(suffix: &[u8]) -> Option<Self> {
        let forks = [Self::FreeSpaceMap, Self::VisibilityMap, Self::Init];
        forks.into_iter().find(|fork| fork.name().as_bytes() == suffix)
    }
}

/// What identifies a relation's storage (`RelFileLocator`): tablespace, database, relfilenode. As text, the three with
/// slashes between, as pg_waldump prints them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RelFileNumber {
    /// OID of the tablespace.
    pub tablespace: u32,
    /// OID of the database; 0 for shared relations.
    pub database: u32,
    /// The relfilenode.
    pub relation: u32,
}

impl fmt::Display for RelFileNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tablespace, self.database, self.relation)
    }
}

impl From<RelFileNumber> for String {
    fn from(number: RelFileNumber) -> Self {
        number.to_string()
    }
}

/// A text is no relation's storage of the form `tablespace/database/relfilenode`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no tablespace/database/relfilenode, each a number of at most 32 bits")]
pub struct ParseRelFileNumberError(String);

impl TryFrom<String> for RelFileNumber {
    type Error = ParseRelFileNumberError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parts: Option<Vec<u32>> = text.split('/').map(|part| oid(part.as_bytes())).collect();
        match parts.as_deref() {
            Some(&[tablespace, database, relation]) => Ok(Self { tablespace, database, relation }),
            _ => Err(ParseRelFileNumberError(text.chars().take(40).collect())),
        }
    }
}

impl JsonSchema for RelFileNumber {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RelFileNumber".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "a relation's storage: the OIDs of its tablespace and database, and its relfilenode",
            "pattern": "^(0|[1-9][0-9]{0,9})/(0|[1-9][0-9]{0,9})/(0|[1-9][0-9]{0,9})$"
        })
    }
}

/// One file of a relation's main fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelFile {
    /// The relation.
    pub number: RelFileNumber,
    /// Which file of the relation: 0 without a suffix, then `.1`, `.2` …
    pub segment: u32,
}

/// How relation files are named in one cluster: the tablespace version directory differs by
/// major and catalog version (`TABLESPACE_VERSION_DIRECTORY`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelFilePaths {
    version_directory: String,
}

/// OID of `pg_global`, whose files are in `global/`.
const GLOBAL_TABLESPACE: u32 = 1664;
/// OID of `pg_default`, whose files are in `base/`.
const DEFAULT_TABLESPACE: u32 = 1663;

impl RelFilePaths {
    /// The naming of a cluster of this major and catalog version.
    #[must_use]
    pub fn new(major: u32, catalog_version: u32) -> Self {
        Self { version_directory: format!("PG_{major}_{catalog_version}") }
    }

    /// The relation file that `path` names; `None` for every other file, other forks and
    /// temporary relations among them.
    #[must_use]
    pub fn parse(&self, path: &ClusterPath) -> Option<RelFile> {
        self.parse_fork(path).filter(|&(_, fork)| fork == ForkNumber::Main).map(|(file, _)| file)
    }

    /// The relation file that `path` names, of whatever fork; `None` for every other file, temporary relations among
    /// them.
    #[must_use]
    pub fn parse_fork(&self, path: &ClusterPath) -> Option<(RelFile, ForkNumber)> {
        let parts: Vec<&[u8]> = path.components().collect();
        let (tablespace, database, name) = match parts.as_slice() {
            [b"global", name] => (GLOBAL_TABLESPACE, 0, name),
            [b"base", database, name] => (DEFAULT_TABLESPACE, oid(database)?, name),
            [b"pg_tblspc", tablespace, version, database, name] if *version == self.version_directory.as_bytes() => {
                (oid(tablespace)?, oid(database)?, name)
            }
            _ => return None,
        };
        let mut halves = name.splitn(2, |&b| b == b'.');
        let mut parts = halves.next()?.splitn(2, |&b| b == b'_');
        let relation = oid(parts.next()?)?;
        let fork = match parts.next() {
            None => ForkNumber::Main,
            Some(name) => ForkNumber::with_suffix(name)?,
        };
        let segment = match halves.next() {
            None => 0,
            Some(digits) => oid(digits).filter(|&n| n > 0)?,
        };
        Some((RelFile { number: RelFileNumber { tablespace, database, relation }, segment }, fork))
    }
}

/// Reads a canonical decimal number that fits 32 bits: no sign, no blank, no leading zero.
fn oid(digits: &[u8]) -> Option<u32> {
    let canonical = digits.iter().all(u8::is_ascii_digit) && (digits.len() == 1 || !digits.starts_with(b"0"));
    if canonical { std::str::from_utf8(digits).ok()?.parse().ok() } else { None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn relation_files_are_recognised_by_their_exact_form() {
        let paths = RelFilePaths::new(15, 202_209_061);
        let file = |tablespace, database, relation, segment| {
            Some(RelFile { number: RelFileNumber { tablespace, database, relation }, segment })
        };
        let cases = [
            ("global/1262", file(1664, 0, 1262, 0)),
            ("base/5/16384", file(1663, 5, 16384, 0)),
            ("base/5/16384.12", file(1663, 5, 16384, 12)),
            ("pg_tblspc/16400/PG_15_202209061/5/77.1", file(16400, 5, 77, 1)),
            ("pg_tblspc/16400/PG_14_202107181/5/77", None),
            ("base/5/16384.0", None),
            ("base/5/16384.01", None),
            ("base/5/016384", None),
            ("base/5/4294967296", None),
            ("base/5/4294967295", file(1663, 5, u32::MAX, 0)),
            ("base/5/16384_fsm", None),
            ("base/5/16384_vm.1", None),
            ("base/5/t3_16384", None),
            ("base/5/pg_filenode.map", None),
            ("base/5/16384.", None),
            ("base/5/.1", None),
            ("base/16384", None),
            ("global/pg_control", None),
            ("base/+5/1", None),
        ];
        for (path, expected) in cases {
            assert_eq!(paths.parse(&ClusterPath::new(path.as_bytes()).unwrap()), expected, "{path}");
        }
    }

    #[test]
    fn storage_reads_as_it_is_written() {
        let number = RelFileNumber { tablespace: 1663, database: 0, relation: u32::MAX };
        assert_eq!(RelFileNumber::try_from(number.to_string()), Ok(number));
        for bad in ["", "1/2", "1/2/3/4", "1/2/", "1/02/3", "1/-2/3", "1/2/4294967296", "1/2/3 "] {
            assert!(RelFileNumber::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn forks_are_recognised_by_their_suffix() {
        use ForkNumber::{FreeSpaceMap, Init, Main, VisibilityMap};
        let paths = RelFilePaths::new(15, 202_209_061);
        let cases = [
            ("base/5/16384", Some((0, Main))),
            ("base/5/16384.3", Some((3, Main))),
            ("base/5/16384_fsm", Some((0, FreeSpaceMap))),
            ("global/1262_vm", Some((0, VisibilityMap))),
            ("pg_tblspc/16400/PG_15_202209061/5/16384_init", Some((0, Init))),
            ("base/5/16384_vm.1", Some((1, VisibilityMap))),
            ("base/5/16384_main", None),
            ("base/5/16384_", None),
            ("base/5/16384_fsm_vm", None),
            ("base/5/16384.1_fsm", None),
            ("base/5/t3_16384", None),
            ("base/5/t3_16384_fsm", None),
        ];
        for (path, expected) in cases {
            let found = paths.parse_fork(&ClusterPath::new(path.as_bytes()).unwrap());
            assert_eq!(found.map(|(file, fork)| (file.segment, fork)), expected, "{path}");
        }
    }
}
