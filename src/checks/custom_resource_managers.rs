//! Whether extensions wrote WAL of their own, which their library must read.

use std::collections::BTreeMap;

use super::{check, finding};
use crate::manifest::{Check, CheckStatus};
use crate::types::plain;

/// The first number of an extension's resource manager; the last one is 255.
const FIRST: u8 = 128;

/// Which resource managers of extensions wrote WAL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CustomResourceManagers(u128);

impl CustomResourceManagers {
    /// Notes the resource manager of a record.
    pub fn note(&mut self, resource_manager: u8) {
        if let Some(place) = resource_manager.checked_sub(FIRST) {
            self.0 |= 1 << place;
        }
    }

    /// Adds those that somebody else has noted.
    pub fn absorb(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Their numbers, ascending.
    fn numbers(self) -> impl Iterator<Item = u8> {
        (FIRST..=u8::MAX).filter(move |number| self.0 >> (number - FIRST) & 1 == 1)
    }
}

/// Warns of those that wrote the target's WAL since the last common checkpoint. `loaded` are those of the source's
/// server, by number, where it tells.
pub fn custom_resource_managers(seen: CustomResourceManagers, loaded: Option<&BTreeMap<u8, String>>) -> Check {
    let id = "custom_resource_managers";
    let seen: Vec<u8> = seen.numbers().collect();
    if seen.is_empty() {
        return check(id, true, "no extension wrote WAL of its own on the target".to_owned(), "");
    }
    let numbers = seen.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let detail = format!("extensions wrote WAL of their own on the target: resource managers {numbers}");
    let line = |number: &u8| match loaded.map(|loaded| loaded.get(number)) {
        Some(Some(name)) => format!("{number}: {}", plain(name)),
        Some(None) => format!("{number}: not loaded on the source"),
        None => number.to_string(),
    };
    let remedy = "see that shared_preload_libraries of the target will have their libraries; that such an extension names each block which it changes, and keeps no files of its own, only its authors can say";
    let evidence = seen.iter().map(line).collect();
    Check { evidence, ..finding(id, CheckStatus::Warn, detail, Some(remedy)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_of_extensions_are_noted() {
        let mut first = CustomResourceManagers::default();
        [0, 21, 127].into_iter().for_each(|number| first.note(number));
        assert_eq!(custom_resource_managers(first, None).status, CheckStatus::Pass);
        let mut second = CustomResourceManagers::default();
        [255, 128, 128, 200].into_iter().for_each(|number| second.note(number));
        first.absorb(second);
        let found = custom_resource_managers(first, None);
        assert_eq!(
            (found.status, found.evidence),
            (CheckStatus::Warn, ["128", "200", "255"].map(str::to_owned).to_vec())
        );
        let loaded = BTreeMap::from([(128, "mine".to_owned()), (200, "other".to_owned())]);
        let found = custom_resource_managers(first, Some(&loaded));
        assert_eq!(found.evidence, ["128: mine", "200: other", "255: not loaded on the source"]);
        assert!(found.detail.ends_with(" 128, 200, 255"), "{}", found.detail);
    }
}
