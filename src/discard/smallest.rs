//! A map of bounded size that keeps the same whatever the order in which it is filled.

use std::hash::Hash;

use rustc_hash::FxHashMap;

/// The values of the smallest keys, at most twice as many as are wanted in the end.
///
/// Filled in parts that are joined afterwards, it ends up the same as filled at once: none of the smallest keys of
/// all is too large for any part.
#[derive(Debug)]
pub(super) struct Smallest<K, V> {
    limit: usize,
    /// What is not smaller than this is not kept.
    cutoff: Option<K>,
    map: FxHashMap<K, V>,
}

impl<K: Copy + Ord + Hash, V: Default> Smallest<K, V> {
    /// Keeps so many.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, cutoff: None, map: FxHashMap::default() }
    }

    /// The value of a key, made if need be; none where the key is too large.
    pub(super) fn entry(&mut self, key: K) -> Option<&mut V> {
        if self.cutoff.is_some_and(|cutoff| key >= cutoff) {
            return None;
        }
        if self.map.len() >= 2 * self.limit && !self.map.contains_key(&key) {
            self.shrink();
        }
        if self.cutoff.is_some_and(|cutoff| key >= cutoff) {
            return None;
        }
        Some(self.map.entry(key).or_default())
    }

    /// The value of a key, if there is one.
    pub(super) fn get(&self, key: K) -> Option<&V> {
        self.map.get(&key)
    }

    /// Forgets a key, which will not be asked for.
    pub(super) fn forget(&mut self, key: K) {
        self.map.remove(&key);
    }

    /// Whether something was not kept.
    pub(super) fn was_cut(&self) -> bool {
        self.cutoff.is_some()
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Adds another part.
    pub(super) fn absorb(&mut self, other: Self, mut join: impl FnMut(&mut V, V)) {
        self.cut(other.cutoff);
        for (key, value) in other.map {
            if let Some(mine) = self.entry(key) {
                join(mine, value);
            }
        }
    }

    /// What is kept, in order.
    pub(super) fn into_sorted(mut self) -> Vec<(K, V)> {
        self.shrink();
        let mut entries: Vec<_> = self.map.into_iter().collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        entries
    }

    fn shrink(&mut self) {
        let mut keys: Vec<K> = self.map.keys().copied().collect();
        if keys.len() > self.limit {
            let (_, cutoff, _) = keys.select_nth_unstable(self.limit);
            let cutoff = *cutoff;
            self.cut(Some(cutoff));
        }
    }

    fn cut(&mut self, cutoff: Option<K>) {
        let Some(cutoff) = cutoff.filter(|&new| self.cutoff.is_none_or(|old| new < old)) else { return };
        self.cutoff = Some(cutoff);
        self.map.retain(|key, _| *key < cutoff);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn filled(keys: impl Iterator<Item = u32>) -> Smallest<u32, u64> {
        let mut map = Smallest::new(10);
        keys.for_each(|key| {
            if let Some(value) = map.entry(key) {
                *value += 1;
            }
            assert!(map.map.len() <= 20);
        });
        map
    }

    #[test]
    fn parts_in_any_order_keep_the_same() {
        let keys = |step: u32| (0..2000u32).map(move |n| n.wrapping_mul(step) % 500);
        let expected: Vec<(u32, u64)> = (0..10).map(|key| (key, 4)).collect();
        assert_eq!(filled(keys(7)).into_sorted(), expected);
        for parts in [2, 3, 5] {
            let mut sum = filled(std::iter::empty());
            for part in (0..parts).rev() {
                let own = keys(7).enumerate().filter(|(n, _)| n % parts == part).map(|(_, key)| key);
                sum.absorb(filled(own), |mine, more| *mine += more);
            }
            assert_eq!(sum.into_sorted(), expected);
        }
        assert_eq!(filled([3, 1, 3].into_iter()).into_sorted(), [(1, 1), (3, 2)]);
    }
}
