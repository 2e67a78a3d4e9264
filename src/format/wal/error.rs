//! What can be wrong with WAL.

use crate::types::{Lsn, TimelineId};

/// WAL that cannot be read, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("WAL at {lsn}: {problem}")]
pub struct WalError {
    /// The page or the record concerned.
    pub lsn: Lsn,
    /// What is wrong.
    pub problem: WalProblem,
}

/// What is wrong with a page or a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalProblem {
    /// The page was written by another major, or is no WAL page.
    #[error("page magic is {found:04X}, expected {expected:04X}")]
    Magic {
        /// For this cluster's major.
        expected: u16,
        /// In the page.
        found: u16,
    },
    /// The page has flags that this major does not know.
    #[error("page flags are {0:04X}, with bits that are not defined")]
    PageFlags(u16),
    /// The page belongs elsewhere: a recycled segment, or a gap.
    #[error("page address is {found}, expected the page's own position (the segment is recycled, or of another place)")]
    PageAddress {
        /// In the page.
        found: Lsn,
    },
    /// A segment's first page must have the long header, and only that one.
    #[error("page {} a long header, which {} a segment's first page has", if *.present { "has" } else { "lacks" }, if *.present { "only" } else { "each of" })]
    LongHeader {
        /// Whether it is there.
        present: bool,
    },
    /// The segment is another cluster's.
    #[error("the segment is of system {found}, expected {expected}")]
    SystemIdentifier {
        /// This cluster's.
        expected: u64,
        /// In the page.
        found: u64,
    },
    /// The segment was written with other sizes.
    #[error(
        "the segment has {segment_size} bytes and pages of {page_size}, by its own header; the control file says otherwise"
    )]
    Sizes {
        /// `xlp_seg_size`.
        segment_size: u32,
        /// `xlp_xlog_blcksz`.
        page_size: u32,
    },
    /// The page is another branch's: the segment's file has another one's content.
    #[error("page is of timeline {found}, expected {expected}: the segment's content is of another timeline")]
    Timeline {
        /// By the history.
        expected: TimelineId,
        /// In the page.
        found: TimelineId,
    },
    /// Timelines only rise along the log.
    #[error("page is of timeline {found}, after a page of timeline {before}")]
    TimelineFalls {
        /// In the page.
        found: TimelineId,
        /// In the page before.
        before: TimelineId,
    },
    /// The position lies inside a page header or behind a record's beginning.
    #[error("no record can begin here")]
    NoRecordStart,
    /// A page should go on with a record and does not, or the reverse.
    #[error("the page {} a record that began before it, expected {expected} bytes of it", if *.found == 0 { "does not continue".to_owned() } else { format!("has {found} bytes of") })]
    Continuation {
        /// Bytes that the record still needs.
        expected: u64,
        /// What the page header says.
        found: u32,
    },
    /// The record's length is impossible; zero where the log ends.
    #[error("record length is {0}, expected 24 to 1073741823")]
    Length(u32),
    /// The record is of a resource manager that this major does not have.
    #[error("resource manager {0} does not exist")]
    ResourceManager(u8),
    /// The record does not link to the one before it.
    #[error("record links back to {found}, expected {expected}")]
    PreviousLink {
        /// The record before.
        expected: Lsn,
        /// In the record.
        found: Lsn,
    },
    /// The record links to itself or forward.
    #[error("record links back to {0}, which is not before it")]
    LinkNotBack(Lsn),
    /// The record's content is damaged.
    #[error("record CRC is {found:08X}, its content gives {expected:08X}")]
    Crc {
        /// Computed.
        expected: u32,
        /// In the record.
        found: u32,
    },
    /// The record's inner headers contradict each other.
    #[error("record headers: {0}")]
    Headers(&'static str),
    /// What voids a torn record is not the record that must stand there.
    #[error("the page voids a torn record, but no record says so")]
    NotOverwritten,
    /// The reader was fed something that is no run of whole pages.
    #[error("{0} bytes are no whole number of WAL pages")]
    PartialPage(usize),
}

impl WalProblem {
    /// The problem at a position.
    pub(super) fn at(self, lsn: Lsn) -> WalError {
        WalError { lsn, problem: self }
    }
}
