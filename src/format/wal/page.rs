//! WAL page headers (`XLogPageHeaderData`, `XLogLongPageHeaderData`).
//!
//! ```text
//!  0 magic u16   2 info u16   4 timeline u32   8 address LSN   16 remaining u32   (20 padding)
//! 24 system identifier u64   32 segment size u32   36 page size u32      first page of a segment
//! ```

use super::super::bytes::{u16_at, u32_at, u64_at};
use super::super::{ControlFile, MajorFacts};
use super::error::{WalError, WalProblem};
use crate::types::{Geometry, Lsn, TimelineId};

/// Bytes of the header on all pages but a segment's first.
const SHORT_HEADER: usize = 24;
/// Bytes of the header on a segment's first page.
const LONG_HEADER: usize = 40;

/// `XLP_FIRST_IS_CONTRECORD`.
const FIRST_IS_CONTRECORD: u16 = 0x0001;
/// `XLP_LONG_HEADER`.
const HAS_LONG_HEADER: u16 = 0x0002;

/// What must be known to read a cluster's WAL.
#[derive(Clone, Copy, Debug)]
pub struct WalFormat {
    /// The facts about its major.
    pub facts: &'static MajorFacts,
    /// Its sizes.
    pub geometry: Geometry,
    /// Its system identifier: each segment names it.
    pub system_identifier: u64,
}

/// A page header that has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageHeader {
    /// The timeline that the page was written on.
    pub timeline: TimelineId,
    /// Bytes of the header itself.
    pub length: usize,
    /// Bytes still to come, from this page on, of a record that began before it; zero where the
    /// page begins with a record of its own.
    pub remaining: u32,
    /// Whether a torn record before this page is void (`XLP_FIRST_IS_OVERWRITE_CONTRECORD`).
    pub voids_torn_record: bool,
}

impl WalFormat {
    /// The format of the WAL of the cluster with this control file.
    #[must_use]
    pub fn of(control: &ControlFile) -> Self {
        Self {
            facts: control.facts(),
            geometry: control.geometry(),
            system_identifier: control.header().system_identifier,
        }
    }

    /// Bytes in a page.
    #[must_use]
    pub fn page_size(&self) -> u64 {
        u64::from(self.geometry.wal_page_size)
    }

    /// Bytes of the header of the page at `page`.
    #[must_use]
    pub fn header_length(&self, page: Lsn) -> u64 {
        let first = page.offset_in(self.geometry.wal_segment_size.bytes()) == 0;
        if first { LONG_HEADER as u64 } else { SHORT_HEADER as u64 }
    }

    /// Where a record can begin that follows one ending at `end`: behind the header where `end`
    /// is the start of a page.
    #[must_use]
    pub fn record_start_after(&self, end: Lsn) -> Lsn {
        if end.offset_in(self.page_size()) == 0 { end.plus(self.header_length(end)) } else { end }
    }

    /// Reads and checks the header of the page at `address`.
    ///
    /// # Errors
    /// [`WalError`] when the page is not this cluster's page for that position.
    pub fn page_header(&self, page: &[u8], address: Lsn) -> Result<PageHeader, WalError> {
        self.checked_header(page, address).map_err(|problem| problem.at(address))
    }

    fn checked_header(&self, page: &[u8], address: Lsn) -> Result<PageHeader, WalProblem> {
        let cut = WalProblem::PartialPage(page.len());
        let magic = u16_at(page, 0).ok_or(cut.clone())?;
        let info = u16_at(page, 2).ok_or(cut.clone())?;
        let found = Lsn::new(u64_at(page, 8).ok_or(cut.clone())?);
        if magic != self.facts.wal_magic {
            return Err(WalProblem::Magic { expected: self.facts.wal_magic, found: magic });
        }
        if info & !self.facts.page_info_mask != 0 {
            return Err(WalProblem::PageFlags(info));
        }
        if found != address {
            return Err(WalProblem::PageAddress { found });
        }
        let long = info & HAS_LONG_HEADER != 0;
        let expected_length = self.header_length(address);
        if long != (expected_length == LONG_HEADER as u64) {
            return Err(WalProblem::LongHeader { present: long });
        }
        if long {
            self.check_long_header(page, cut.clone())?;
        }
        let continues = info & FIRST_IS_CONTRECORD != 0;
        let remaining = u32_at(page, 16).ok_or(cut.clone())?;
        Ok(PageHeader {
            timeline: TimelineId::new(u32_at(page, 4).ok_or(cut)?),
            length: if long { LONG_HEADER } else { SHORT_HEADER },
            remaining: if continues { remaining } else { 0 },
            voids_torn_record: info & self.facts.overwrite_contrecord != 0,
        })
    }

    fn check_long_header(&self, page: &[u8], cut: WalProblem) -> Result<(), WalProblem> {
        let system = u64_at(page, 24).ok_or(cut.clone())?;
        let segment_size = u32_at(page, 32).ok_or(cut.clone())?;
        let page_size = u32_at(page, 36).ok_or(cut)?;
        if system != self.system_identifier {
            return Err(WalProblem::SystemIdentifier { expected: self.system_identifier, found: system });
        }
        if u64::from(segment_size) != self.geometry.wal_segment_size.bytes() || page_size != self.geometry.wal_page_size
        {
            return Err(WalProblem::Sizes { segment_size, page_size });
        }
        Ok(())
    }
}
