//! From WAL pages to WAL records.

use std::ops::ControlFlow;

use super::super::bytes::{u8_at, u32_at, u64_at};
use super::error::{WalError, WalProblem};
use super::page::{PageHeader, WalFormat};
use super::record::{BlockReference, LARGEST_RECORD, RECORD_HEADER, Record, RecordHeader, parse_content};
use super::resource_manager::{XLOG, XLOG_OVERWRITE_CONTRECORD, XLOG_SWITCH};
use crate::types::{Lsn, TimelineHistory, TimelineId};

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the record that begins at this position.
    Record(Lsn),
    /// At the first record that begins on or after the page at this position: what a record from
    /// before leaves on it is passed over. A segment can so be read without the one before it.
    FirstOf(Lsn),
}

/// Reads records out of pages that the caller feeds to it, in order.
///
/// Opens nothing and holds no page: a record inside one page is parsed where it lies; only one
/// that crosses pages is put together in a buffer, which grows as its pages arrive. Every record
/// is checked (length, resource manager, link to the record before, CRC, inner headers) before the
/// visitor sees it. A record torn by a crash and voided by the server afterwards
/// (`XLOG_OVERWRITE_CONTRECORD`) is passed over, as the server does.
#[derive(Debug)]
pub struct WalReader {
    format: WalFormat,
    next_page: Lsn,
    previous: Option<Lsn>,
    timeline: TimelineId,
    history: Option<TimelineHistory>,
    state: State,
    /// The bytes so far of a record that crosses pages.
    torn: Vec<u8>,
    blocks: Vec<BlockReference>,
}

/// What the next page must begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A record begins at this position, or behind the page header that stands there.
    RecordAt(Lsn),
    /// The rest of a record that this reader does not want, if any: so many bytes, from its second
    /// page on.
    PassOver(Option<u64>),
    /// More of the record that began at `lsn`.
    Continue { lsn: Lsn, total_length: u32 },
    /// A torn record that began at `torn` is void; the record that says so comes first.
    Overwritten { at: Lsn, torn: Lsn },
}

impl WalReader {
    /// A reader that begins at `start`; feed it the page that holds that position first.
    #[must_use]
    pub fn new(format: WalFormat, start: Start) -> Self {
        let (lsn, state) = match start {
            Start::Record(lsn) => (lsn, State::RecordAt(lsn)),
            Start::FirstOf(page) => (page, State::PassOver(None)),
        };
        Self {
            format,
            next_page: lsn.start_of(format.page_size()),
            previous: None,
            timeline: TimelineId::default(),
            history: None,
            state,
            torn: Vec::new(),
            blocks: Vec::new(),
        }
    }

    /// The same reader, which takes only pages of the timeline that `history` is on at their position.
    /// On the page in which a timeline begins the older one's header stays.
    #[must_use]
    pub fn along(mut self, history: &TimelineHistory) -> Self {
        self.history = Some(history.clone());
        self
    }

    /// The position of the page that must be fed next.
    #[must_use]
    pub fn next_page(&self) -> Lsn {
        self.next_page
    }

    /// Where the next record begins, once the reader stands between two records.
    #[must_use]
    pub fn position(&self) -> Option<Lsn> {
        match self.state {
            State::RecordAt(lsn) => Some(lsn),
            State::PassOver(_) | State::Continue { .. } | State::Overwritten { .. } => None,
        }
    }

    /// Whether it has come to where a record of its own begins: what a record from before the start leaves is
    /// behind it.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        !matches!(self.state, State::PassOver(_))
    }

    /// Reads the records in `pages`, whole pages from [`WalReader::next_page`] on.
    ///
    /// `visit` sees each record once, in order, and may end the reading; then the rest of `pages`
    /// is not looked at and the reader must not be fed again.
    ///
    /// # Errors
    /// [`WalError`] at the first page or record that is not valid; `visit` has then seen every
    /// valid record before it.
    pub fn feed<B>(
        &mut self,
        pages: &[u8],
        mut visit: impl FnMut(&Record<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, WalError> {
        let size = self.format.geometry.wal_page_size as usize;
        if !pages.len().is_multiple_of(size) {
            return Err(WalProblem::PartialPage(pages.len()).at(self.next_page));
        }
        for page in pages.chunks_exact(size) {
            let address = self.next_page;
            self.next_page = address.plus(self.format.page_size());
            if matches!(self.state, State::RecordAt(lsn) if lsn >= self.next_page) {
                // Behind a segment switch: unused.
                continue;
            }
            let header = self.format.page_header(page, address)?;
            self.check_timeline(header.timeline, address).map_err(|problem| problem.at(address))?;
            self.timeline = header.timeline;
            if let ControlFlow::Break(value) = self.read_page(page, address, header, &mut visit)? {
                return Ok(ControlFlow::Break(value));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Checks the timeline of the page at `address`.
    fn check_timeline(&self, found: TimelineId, address: Lsn) -> Result<(), WalProblem> {
        match self.history.as_ref().and_then(|history| history.timeline_at(address)) {
            Some(expected) if found != expected => Err(WalProblem::Timeline { expected, found }),
            _ if found < self.timeline => Err(WalProblem::TimelineFalls { found, before: self.timeline }),
            _ => Ok(()),
        }
    }

    fn read_page<B>(
        &mut self,
        page: &[u8],
        address: Lsn,
        header: PageHeader,
        visit: &mut impl FnMut(&Record<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, WalError> {
        let body = address.plus(header.length as u64);
        match self.state {
            State::RecordAt(lsn) => self.begin_page(lsn, address, body, header)?,
            State::PassOver(expected) => self.pass_over(page, address, header, expected)?,
            State::Continue { lsn, .. } if header.voids_torn_record => {
                self.torn.clear();
                self.state = State::Overwritten { at: body, torn: lsn };
            }
            State::Continue { lsn, total_length } => {
                if let ControlFlow::Break(value) =
                    self.continue_record(page, address, header, (lsn, total_length), visit)?
                {
                    return Ok(ControlFlow::Break(value));
                }
            }
            State::Overwritten { .. } => {}
        }
        self.read_records(page, address, visit)
    }

    /// Checks that a record can begin at `lsn`, which lies on this page.
    fn begin_page(&mut self, lsn: Lsn, address: Lsn, body: Lsn, header: PageHeader) -> Result<(), WalError> {
        if lsn == address {
            self.state = State::RecordAt(body);
        } else if lsn < body {
            return Err(WalProblem::NoRecordStart.at(lsn));
        }
        let start = if lsn == address { body } else { lsn };
        if start == body && header.remaining != 0 {
            return Err(WalProblem::Continuation { expected: 0, found: header.remaining }.at(address));
        }
        Ok(())
    }

    /// Passes over what a record from before leaves on this page.
    fn pass_over(
        &mut self,
        page: &[u8],
        address: Lsn,
        header: PageHeader,
        expected: Option<u64>,
    ) -> Result<(), WalError> {
        let remaining = u64::from(header.remaining);
        match expected {
            Some(expected) if remaining != expected && !header.voids_torn_record => {
                return Err(WalProblem::Continuation { expected, found: header.remaining }.at(address));
            }
            _ => {}
        }
        let body = page.get(header.length..).unwrap_or_default();
        let end = address.plus(header.length as u64).plus(remaining).aligned();
        self.state = if let Some(left) = remaining.checked_sub(body.len() as u64).filter(|&left| left > 0) {
            State::PassOver(Some(left))
        } else if ends_switch(body, header.remaining as usize) {
            let size = self.format.geometry.wal_segment_size.bytes();
            State::RecordAt(end.plus(size - 1).start_of(size))
        } else {
            State::RecordAt(end)
        };
        Ok(())
    }

    /// Takes this page's part of a record; visits the record once it is whole.
    fn continue_record<B>(
        &mut self,
        page: &[u8],
        address: Lsn,
        header: PageHeader,
        (lsn, total_length): (Lsn, u32),
        visit: &mut impl FnMut(&Record<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, WalError> {
        let missing = u64::from(total_length).saturating_sub(self.torn.len() as u64);
        if u64::from(header.remaining) != missing {
            return Err(WalProblem::Continuation { expected: missing, found: header.remaining }.at(address));
        }
        let body = page.get(header.length..).unwrap_or_default();
        let part = body.get(..header.remaining as usize).unwrap_or(body);
        self.torn.extend_from_slice(part);
        if (part.len() as u64) < missing {
            return Ok(ControlFlow::Continue(()));
        }
        let end = address.plus(header.length as u64).plus(part.len() as u64).aligned();
        let bytes = std::mem::take(&mut self.torn);
        let flow = self.finish_record(&bytes, lsn, end, visit);
        self.torn = bytes;
        self.torn.clear();
        flow
    }

    /// Reads the records that begin on this page.
    fn read_records<B>(
        &mut self,
        page: &[u8],
        address: Lsn,
        visit: &mut impl FnMut(&Record<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, WalError> {
        loop {
            let (State::RecordAt(lsn) | State::Overwritten { at: lsn, .. }) = self.state else {
                return Ok(ControlFlow::Continue(()));
            };
            let offset = lsn.since(address);
            if offset >= page.len() as u64 {
                return Ok(ControlFlow::Continue(()));
            }
            let rest = page.get(offset as usize..).unwrap_or_default();
            let total_length = u32_at(rest, 0).unwrap_or(0);
            if !(RECORD_HEADER..=LARGEST_RECORD).contains(&(total_length as usize)) {
                return Err(WalProblem::Length(total_length).at(lsn));
            }
            let Some(bytes) = rest.get(..total_length as usize) else {
                return self.tear(rest, lsn, total_length);
            };
            let end = lsn.plus(u64::from(total_length)).aligned();
            if let ControlFlow::Break(value) = self.finish_record(bytes, lsn, end, visit)? {
                return Ok(ControlFlow::Break(value));
            }
        }
    }

    /// Keeps the part of a record that its first page holds.
    fn tear<B>(&mut self, part: &[u8], lsn: Lsn, total_length: u32) -> Result<ControlFlow<B>, WalError> {
        if part.len() >= RECORD_HEADER {
            RecordHeader::parse(part, lsn, self.previous, self.format.facts)?;
        }
        self.torn.clear();
        self.torn.extend_from_slice(part);
        self.state = State::Continue { lsn, total_length };
        Ok(ControlFlow::Continue(()))
    }

    /// Checks a whole record and shows it to the visitor.
    fn finish_record<B>(
        &mut self,
        bytes: &[u8],
        lsn: Lsn,
        end: Lsn,
        visit: &mut impl FnMut(&Record<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, WalError> {
        let facts = self.format.facts;
        let header = RecordHeader::parse(bytes, lsn, self.previous, facts)?;
        header.check_crc(bytes, lsn)?;
        let content = bytes.get(RECORD_HEADER..).unwrap_or_default();
        let main_data = parse_content(content, facts, self.format.geometry.block_size, &mut self.blocks)
            .map_err(|problem| WalProblem::Headers(problem).at(lsn))?;
        let mut record = Record { lsn, end, header, blocks: &self.blocks, main_data };
        if let State::Overwritten { torn, .. } = self.state {
            check_overwrite(&record, torn)?;
        }
        if header.resource_manager == XLOG && record.operation() == XLOG_SWITCH {
            let size = self.format.geometry.wal_segment_size.bytes();
            record.end = end.plus(size - 1).start_of(size);
        }
        self.previous = Some(lsn);
        self.state = State::RecordAt(record.end);
        Ok(visit(&record))
    }
}

/// Whether the `remaining` bytes at the beginning of a page end a segment switch that began before
/// the page: the last 8 or 16 bytes of its header, which is all of it. What sets it apart from other
/// records that end with such bytes is that no record follows.
fn ends_switch(body: &[u8], remaining: usize) -> bool {
    let Some(kind) = remaining.checked_sub(8).filter(|_| matches!(remaining, 8 | 16)) else { return false };
    let is_switch = u8_at(body, kind).is_some_and(|info| info & 0xF0 == XLOG_SWITCH)
        && u8_at(body, kind.saturating_add(1)) == Some(XLOG);
    is_switch && u32_at(body, remaining) == Some(0)
}

/// Checks that `record` says that the record torn at `torn` is void.
fn check_overwrite(record: &Record<'_>, torn: Lsn) -> Result<(), WalError> {
    let is_overwrite = record.header.resource_manager == XLOG && record.operation() == XLOG_OVERWRITE_CONTRECORD;
    let names = u64_at(record.main_data, 0).map(Lsn::new);
    if is_overwrite && names == Some(torn) { Ok(()) } else { Err(WalProblem::NotOverwritten.at(record.lsn)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Major, control_file_sample};

    /// A page at `address` whose only record claims `length` bytes.
    fn claiming(format: &WalFormat, address: Lsn, length: u32) -> Vec<u8> {
        let mut page = vec![0; 8192];
        page[..2].copy_from_slice(&format.facts.wal_magic.to_le_bytes());
        page[8..16].copy_from_slice(&address.get().to_le_bytes());
        page[24..28].copy_from_slice(&length.to_le_bytes());
        page
    }

    #[test]
    fn the_end_of_a_switch_is_told_from_other_ends_of_records() {
        let switch = [&[7; 8][..], &[0x40, 0, 0, 0, 1, 2, 3, 4]].concat();
        let unused = [0; 8];
        let next = 24_u64.to_le_bytes();
        let cases = [
            (&switch[..], &unused, true),
            (&switch[8..], &unused, true),
            (&switch[..], &next, false),
            // Not the end of a header, which is aligned: what follows is padding, then a record.
            (&switch[1..], &unused, false),
            (&[0x40, 1, 0, 0, 1, 2, 3, 4][..], &unused, false),
            (&[0x50, 0, 0, 0, 1, 2, 3, 4][..], &unused, false),
            (&[][..], &unused, false),
        ];
        for (tail, behind, expected) in cases {
            assert_eq!(ends_switch(&[tail, behind].concat(), tail.len()), expected, "{tail:?}, {behind:?}");
        }
        assert!(!ends_switch(&switch, 16) && !ends_switch(&[], 8), "nothing says that no record follows");
    }

    #[test]
    fn a_record_costs_the_memory_of_the_pages_that_came() {
        for major in Major::ALL {
            let format = WalFormat::of(&control_file_sample(major, |_| ()));
            let start = Lsn::new(0x10_2000);
            let mut reader = WalReader::new(format, Start::Record(start));
            let mut missing = u32::try_from(LARGEST_RECORD).unwrap();
            for index in 0..64_u32 {
                let address = start.plus(8192 * u64::from(index));
                let mut page = claiming(&format, address, missing);
                if index > 0 {
                    page[2] = 1;
                    page[16..20].copy_from_slice(&missing.to_le_bytes());
                }
                assert_eq!(reader.feed(&page, |_| ControlFlow::<()>::Continue(())), Ok(ControlFlow::Continue(())));
                missing -= 8192 - 24;
                let fed = 8192 * (index as usize + 1);
                assert!(reader.torn.len() < fed && reader.torn.capacity() <= 2 * fed, "{}", reader.torn.capacity());
            }
            assert_eq!(reader.position(), None);
        }
    }

    #[test]
    fn no_record_is_larger_than_servers_make_them() {
        let format = WalFormat::of(&control_file_sample(Major::V18, |_| ()));
        let start = Lsn::new(0x10_2000);
        let limit = u32::try_from(LARGEST_RECORD).unwrap();
        for (length, fits) in [(23, false), (24, true), (limit, true), (limit + 1, false), (u32::MAX, false)] {
            let mut reader = WalReader::new(format, Start::Record(start));
            let fed = reader.feed(&claiming(&format, start, length), |_| ControlFlow::<()>::Continue(()));
            let is_length =
                fed.is_err_and(|error| matches!(error.problem, WalProblem::Length(found) if found == length));
            assert_eq!(is_length, !fits, "{length}");
        }
    }
}
