//! What numbers are called on the source.

use std::collections::BTreeMap;

use crate::types::RelFileNumber;

/// Names of databases and of relations, those that could be found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Databases by their oids.
    pub databases: BTreeMap<u32, String>,
    /// Relations by their files: schema and name, quoted as SQL wants them.
    pub relations: BTreeMap<RelFileNumber, String>,
}
