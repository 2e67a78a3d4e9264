//! Databases and tablespaces that came and went.

use super::smallest::Smallest;
use crate::manifest::{DiscardedDatabase, DiscardedTablespace};

/// How many are listed of each, those with the smallest numbers.
const MOST_PLACES: usize = 1 << 12;

/// What happened to databases and tablespaces.
#[derive(Debug)]
pub(super) struct Places {
    databases: Smallest<u32, Fate>,
    tablespaces: Smallest<u32, Fate>,
}

/// What happened to one of them, how often.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    created: u32,
    dropped: u32,
    /// Moved to another tablespace: copied there, and dropped where it was.
    moved: u32,
}

impl Fate {
    fn join(&mut self, other: Self) {
        self.created = self.created.saturating_add(other.created);
        self.dropped = self.dropped.saturating_add(other.dropped);
        self.moved = self.moved.saturating_add(other.moved);
    }
}

impl Places {
    /// Nothing happened.
    pub(super) fn new() -> Self {
        Self { databases: Smallest::new(MOST_PLACES), tablespaces: Smallest::new(MOST_PLACES) }
    }

    /// A database was made; `copied` is the one that it is a copy of, where its files were copied.
    pub(super) fn create_database(&mut self, oid: u32, copied: Option<u32>) {
        let fate = if copied == Some(oid) { Fate { moved: 1, ..MADE } } else { MADE };
        add(&mut self.databases, oid, Fate { created: 1 - fate.moved, ..fate });
    }

    /// A database's files were dropped, in one tablespace or all.
    pub(super) fn drop_database(&mut self, oid: u32) {
        add(&mut self.databases, oid, GONE);
    }

    /// A tablespace was made.
    pub(super) fn create_tablespace(&mut self, oid: u32) {
        add(&mut self.tablespaces, oid, MADE);
    }

    /// A tablespace was dropped.
    pub(super) fn drop_tablespace(&mut self, oid: u32) {
        add(&mut self.tablespaces, oid, GONE);
    }

    /// Whether nothing happened.
    pub(super) fn is_empty(&self) -> bool {
        self.databases.is_empty() && self.tablespaces.is_empty()
    }

    /// Adds what happened in another part of the WAL.
    pub(super) fn absorb(&mut self, other: Self) {
        self.databases.absorb(other.databases, Fate::join);
        self.tablespaces.absorb(other.tablespaces, Fate::join);
    }

    /// Databases that anything happened to or that are among `touched`, and tablespaces; in order.
    pub(super) fn finish(
        mut self,
        touched: impl Iterator<Item = u32>,
    ) -> (Vec<DiscardedDatabase>, Vec<DiscardedTablespace>) {
        touched.for_each(|oid| add(&mut self.databases, oid, Fate::default()));
        let databases = self.databases.into_sorted().into_iter().map(|(oid, fate)| DiscardedDatabase {
            created: fate.created > 0,
            dropped: fate.dropped > fate.moved,
            name: None,
            oid,
        });
        let tablespaces = self.tablespaces.into_sorted().into_iter().map(|(oid, fate)| DiscardedTablespace {
            created: fate.created > 0,
            dropped: fate.dropped > 0,
            oid,
        });
        (databases.collect(), tablespaces.collect())
    }
}

const MADE: Fate = Fate { created: 1, dropped: 0, moved: 0 };
const GONE: Fate = Fate { created: 0, dropped: 1, moved: 0 };

fn add(places: &mut Smallest<u32, Fate>, oid: u32, fate: Fate) {
    if let Some(known) = places.entry(oid) {
        known.join(fate);
    }
}
