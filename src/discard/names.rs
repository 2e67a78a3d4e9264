//! Names beside numbers. What was made after the fork gets none: the source may have given the same number to something
//! else. What was there before has the same number on the source as long as nobody wrote it anew.

use std::collections::BTreeSet;

use crate::cluster::Names;
use crate::manifest::Discarded;
use crate::types::RelFileNumber;

/// The databases and relations whose names on the source would be of use.
#[must_use]
pub fn nameless(discarded: &Discarded) -> (Vec<u32>, Vec<RelFileNumber>) {
    let databases = discarded.databases.iter().filter(|found| !found.created && found.oid != 0);
    let new: BTreeSet<u32> = discarded.databases.iter().filter(|found| found.created).map(|found| found.oid).collect();
    let is_old = |relation: &RelFileNumber| !new.contains(&relation.database);
    let relations = discarded.relations.iter().filter(|found| !found.created).map(|found| found.relation);
    (databases.map(|found| found.oid).collect(), relations.filter(is_old).collect())
}

/// Puts names in.
pub fn give_names(discarded: &mut Discarded, names: &Names) {
    for found in &mut discarded.databases {
        found.name = names.databases.get(&found.oid).cloned();
    }
    for found in &mut discarded.relations {
        found.name = names.relations.get(&found.relation).cloned();
    }
}
