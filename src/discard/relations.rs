//! What was done to relations, counted.

use super::codes::Kind;
use super::smallest::Smallest;
use crate::manifest::{DiscardedRelation, RecordCounts};
use crate::types::RelFileNumber;

/// How many relations are listed, those with the smallest numbers.
const MOST_RELATIONS: usize = 1 << 15;
/// How many relations are counted without being looked up: a power of two.
const NEAR: usize = 16;

/// What was done to one relation.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    records: [u64; Kind::COUNT],
    created: bool,
    dropped: bool,
}

/// What was done to which relation.
#[derive(Debug)]
pub(super) struct Relations {
    all: Smallest<RelFileNumber, Done>,
    /// The latest ones, added to `all` when another takes the place.
    near: [Option<(RelFileNumber, Done)>; NEAR],
    records: u64,
}

impl Relations {
    /// Nothing was done.
    pub(super) fn new() -> Self {
        Self { all: Smallest::new(MOST_RELATIONS), near: [None; NEAR], records: 0 }
    }

    /// A record did this to a relation.
    #[inline]
    pub(super) fn count(&mut self, relation: RelFileNumber, kind: Kind) {
        self.change(relation, kind, |_| ());
    }

    /// A record made a relation's file.
    pub(super) fn create(&mut self, relation: RelFileNumber) {
        self.change(relation, Kind::Ddl, |done| done.created = true);
    }

    /// A record gave a relation's file away.
    pub(super) fn drop(&mut self, relation: RelFileNumber) {
        self.change(relation, Kind::Ddl, |done| done.dropped = true);
    }

    #[inline]
    fn change(&mut self, relation: RelFileNumber, kind: Kind, change: impl FnOnce(&mut Done)) {
        self.records += 1;
        let place = relation.relation.wrapping_mul(0x9E37_79B1) >> (u32::BITS - NEAR.ilog2());
        let Some(near) = self.near.get_mut(place as usize) else { return };
        if near.is_none_or(|(held, _)| held != relation)
            && let Some((held, done)) = near.replace((relation, Done::default()))
        {
            add(&mut self.all, held, done);
        }
        if let Some((_, done)) = near {
            if let Some(records) = done.records.get_mut(kind as usize) {
                *records += 1;
            }
            change(done);
        }
    }

    fn settle(&mut self) {
        for (relation, done) in self.near.iter_mut().filter_map(Option::take) {
            add(&mut self.all, relation, done);
        }
    }

    /// Whether nothing was done.
    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Adds what was counted in another part of the WAL.
    pub(super) fn absorb(&mut self, mut other: Self) {
        self.settle();
        other.settle();
        self.records += other.records;
        self.all.absorb(other.all, Done::join);
    }

    /// The relations in order, and how many records there were of others; `blocks` gives the number of a relation's
    /// changed blocks.
    pub(super) fn finish(mut self, blocks: impl Fn(RelFileNumber) -> u64) -> (Vec<DiscardedRelation>, u64) {
        self.settle();
        let all = self.all.into_sorted();
        let listed: u64 = all.iter().flat_map(|(_, done)| done.records).sum();
        let mut relations: Vec<DiscardedRelation> = all
            .into_iter()
            .map(|(relation, done)| DiscardedRelation {
                blocks: blocks(relation),
                created: done.created,
                dropped: done.dropped,
                name: None,
                records: counts(done.records),
                relation,
            })
            .collect();
        relations.sort_unstable_by_key(|found| {
            (found.relation.database, found.relation.tablespace, found.relation.relation)
        });
        (relations, self.records.saturating_sub(listed))
    }
}

impl Done {
    fn join(&mut self, other: Self) {
        self.created |= other.created;
        self.dropped |= other.dropped;
        self.records.iter_mut().zip(other.records).for_each(|(mine, theirs)| *mine += theirs);
    }
}

fn add(all: &mut Smallest<RelFileNumber, Done>, relation: RelFileNumber, done: Done) {
    if let Some(known) = all.entry(relation) {
        known.join(done);
    }
}

fn counts(records: [u64; Kind::COUNT]) -> RecordCounts {
    let of = |kind: Kind| records.get(kind as usize).copied().unwrap_or_default();
    RecordCounts {
        ddl: of(Kind::Ddl),
        delete: of(Kind::Delete),
        hint_bits: of(Kind::HintBits),
        index: of(Kind::Index),
        insert: of(Kind::Insert),
        other: of(Kind::Other),
        truncate: of(Kind::Truncate),
        update: of(Kind::Update),
        vacuum: of(Kind::Vacuum),
    }
}
