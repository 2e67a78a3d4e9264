//! What a record does to the relations of its blocks, by its resource manager and operation.
//!
//! The numbers are the same in 13 to 19. Only names of Heap2's changed, among operations that mean the same
//! here: 0x10 to 0x40 clean up in all of them.

use crate::format::wal::RecordHeader;
use crate::format::wal::resource_manager as rm;
use crate::types::RelFileNumber;

/// What a record does to a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ddl,
    Delete,
    HintBits,
    Index,
    Insert,
    Other,
    Truncate,
    Update,
    Vacuum,
}

impl Kind {
    /// How many there are.
    pub(super) const COUNT: usize = 9;

    /// What the record with this header does to the relations of its blocks.
    #[inline]
    pub(super) fn of(header: &RecordHeader) -> Self {
        let operation = header.info & 0xF0;
        match header.resource_manager {
            rm::HEAP => heap(operation),
            rm::HEAP2 => heap2(operation),
            rm::BTREE => vacuum_if(matches!(operation, 0x70..=0x90 | 0xB0..=0xE0)),
            rm::HASH => vacuum_if(matches!(operation, 0x70..=0xC0)),
            rm::GIN => vacuum_if(matches!(operation, 0x40 | 0x50 | 0x90)),
            rm::GIST => vacuum_if(matches!(operation, 0x10 | 0x20 | 0x60)),
            rm::SPGIST => vacuum_if(matches!(operation, 0x60..=0x80)),
            rm::BRIN => Self::Index,
            rm::XLOG if operation == rm::XLOG_FPI_FOR_HINT => Self::HintBits,
            _ => Self::Other,
        }
    }
}

fn vacuum_if(cleans_up: bool) -> Kind {
    if cleans_up { Kind::Vacuum } else { Kind::Index }
}

/// The highest bit says that the page is new.
fn heap(operation: u8) -> Kind {
    match operation & 0x70 {
        HEAP_INSERT => Kind::Insert,
        HEAP_DELETE => Kind::Delete,
        HEAP_UPDATE | HEAP_HOT_UPDATE => Kind::Update,
        _ => Kind::Other,
    }
}

fn heap2(operation: u8) -> Kind {
    match operation & 0x70 {
        0x10..=0x40 => Kind::Vacuum,
        HEAP2_MULTI_INSERT => Kind::Insert,
        _ => Kind::Other,
    }
}

const HEAP_INSERT: u8 = 0x00;
const HEAP_DELETE: u8 = 0x10;
const HEAP_UPDATE: u8 = 0x20;
const HEAP_HOT_UPDATE: u8 = 0x40;
/// A row of a catalog is overwritten where it is, by no transaction: what VACUUM and ANALYZE find out, most of all.
const HEAP_INPLACE: u8 = 0x70;
const HEAP2_MULTI_INSERT: u8 = 0x50;

/// What a record says of its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// It changes what a user sees, if it commits.
    Change,
    /// It does what maintenance does.
    Maintenance,
    /// Neither.
    Nothing,
}

impl Sign {
    /// What a record says that changes rows of `relation`, or does something else to the relation of its first block.
    pub(super) fn of(header: &RecordHeader, kind: Kind, relation: RelFileNumber) -> Self {
        match header.resource_manager {
            rm::HEAP if header.info & 0x70 == HEAP_INPLACE => Self::Maintenance,
            rm::HEAP | rm::HEAP2 if matches!(kind, Kind::Insert | Kind::Update | Kind::Delete) => {
                if is_statistics(relation) { Self::Maintenance } else { Self::Change }
            }
            rm::SEQUENCE | rm::GENERIC | rm::FIRST_CUSTOM.. => Self::Change,
            _ => Self::Nothing,
        }
    }
}

/// Whether these are the rows that ANALYZE writes: of `pg_statistic`, `pg_statistic_ext_data` and their TOAST tables, as
/// long as their files are those that the cluster was made with: no other relation is given such a number.
fn is_statistics(relation: RelFileNumber) -> bool {
    matches!(relation.relation, 2619 | 2840 | 3429 | 3430) && relation.database != 0
}
