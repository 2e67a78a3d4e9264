//! The write side of WAL: records in, the pages that a server of any major would write out.
//!
//! Its numbers are its own, not the reader's: what both agree on is right or wrong twice. The fuzz
//! targets use it, too, so it knows nothing of the harness.

use pg_unfork::format::Major;
use pg_unfork::format::wal::WalFormat;
use pg_unfork::types::{ForkNumber, Geometry, Lsn, RelFileNumber};

/// The `bimg_info` bit of an image with a hole.
const HAS_HOLE: u8 = 0x01;
/// Bytes of a record's fixed header.
const RECORD_HEADER: usize = 24;
/// The operation that ends a segment.
const SWITCH: u8 = 0x40;
/// The operation that voids a torn record.
const OVERWRITE_CONTRECORD: u8 = 0xD0;

/// A record to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NewRecord {
    pub(crate) xid: u32,
    pub(crate) info: u8,
    pub(crate) resource_manager: u8,
    pub(crate) blocks: Vec<NewBlock>,
    pub(crate) origin: Option<u16>,
    /// From 14 on.
    pub(crate) toplevel_xid: Option<u32>,
    pub(crate) main_data: Vec<u8>,
}

/// A block reference to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewBlock {
    pub(crate) id: u8,
    pub(crate) relation: RelFileNumber,
    pub(crate) fork: ForkNumber,
    pub(crate) block: u32,
    pub(crate) will_init: bool,
    pub(crate) image: Option<NewImage>,
    pub(crate) data: Vec<u8>,
}

/// A block's image to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewImage {
    pub(crate) applies: bool,
    /// Offset and length of the hole.
    pub(crate) hole: Option<(u16, u16)>,
    /// How it is compressed, and to how many bytes.
    pub(crate) compressed: Option<(Compression, u16)>,
}

/// How an image is compressed; 13 and 14 know only the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Pglz,
    Lz4,
    Zstd,
}

/// Where a record came to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) lsn: Lsn,
    pub(crate) previous: Lsn,
    pub(crate) total_length: u32,
    /// Behind the record's last byte.
    pub(crate) data_end: Lsn,
    /// Where the next record begins, or the page whose header comes first.
    pub(crate) end: Lsn,
}

/// A log that grows.
#[derive(Clone, Debug)]
pub(crate) struct WalBuilder {
    format: WalFormat,
    timeline: u32,
    start: Lsn,
    bytes: Vec<u8>,
    previous: Lsn,
}

/// The sizes of a usual cluster, with pages and segments of another size.
pub(crate) fn format(major: Major, wal_page_size: u32, wal_segment_size: u32) -> WalFormat {
    let geometry = Geometry::new(8192, 131_072, wal_page_size, wal_segment_size).expect("legal sizes");
    WalFormat { facts: major.facts(), geometry, system_identifier: 0x1122_3344_5566_7788 }
}

impl WalBuilder {
    /// A log whose first page is at `start`.
    pub(crate) fn new(format: WalFormat, start: Lsn) -> Self {
        Self::after(Lsn::INVALID, format, start)
    }

    /// The same, behind the record at `previous`.
    pub(crate) fn after(previous: Lsn, format: WalFormat, start: Lsn) -> Self {
        assert_eq!(start.offset_in(format.page_size()), 0, "a page begins at {start}");
        Self { format, timeline: 1, start, bytes: Vec::new(), previous }
    }

    /// Writes the pages to come on another timeline.
    pub(crate) fn set_timeline(&mut self, timeline: u32) {
        self.timeline = timeline;
    }

    /// The log so far, filled up to whole pages with zeros.
    pub(crate) fn pages(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.resize(bytes.len().next_multiple_of(self.format.page_size() as usize), 0);
        bytes
    }

    /// Writes a record.
    pub(crate) fn record(&mut self, record: &NewRecord) -> Written {
        let content = encode(record, self.format.facts.major);
        self.raw(record.xid, record.info, record.resource_manager, &content)
    }

    /// Writes a record whose content, everything behind the fixed header, is any bytes.
    pub(crate) fn raw(&mut self, xid: u32, info: u8, resource_manager: u8, content: &[u8]) -> Written {
        self.begin_page(0, 0);
        let (lsn, previous) = (self.position(), self.previous);
        let bytes = self.sealed(xid, info, resource_manager, content);
        self.put(&bytes);
        let data_end = self.position();
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.previous = lsn;
        Written { lsn, previous, total_length: bytes.len() as u32, data_end, end: self.position() }
    }

    /// Writes the record that leaves the rest of the segment unused.
    pub(crate) fn switch(&mut self) -> Written {
        let written = self.raw(0, SWITCH, 0, &[]);
        let size = self.format.geometry.wal_segment_size.bytes();
        let end = written.end.plus(size - 1).start_of(size);
        self.bytes.resize(end.since(self.start) as usize, 0);
        Written { end, ..written }
    }

    /// Writes the beginning of a record up to the end of the `pages`-th page, and the record that
    /// voids it, as a server does that crashed there. `None`, and nothing written, where the record
    /// is too short to be torn.
    pub(crate) fn torn(&mut self, record: &NewRecord, pages: usize) -> Option<(Lsn, Written)> {
        let (length, previous) = (self.bytes.len(), self.previous);
        let torn = self.record(record).lsn;
        let page = self.format.page_size();
        let cut = torn.start_of(page).plus(page * pages as u64);
        let keep = cut.since(self.start) as usize;
        let whole = self.bytes.len();
        self.previous = previous;
        if keep >= whole {
            self.bytes.truncate(length);
            return None;
        }
        self.bytes.truncate(keep);
        self.begin_page(0, overwrite_flag(self.format.facts.major));
        let main_data = [torn.get().to_le_bytes(), [0; 8]].concat();
        let voids = NewRecord { info: OVERWRITE_CONTRECORD, main_data, ..NewRecord::default() };
        Some((torn, self.record(&voids)))
    }

    fn position(&self) -> Lsn {
        self.start.plus(self.bytes.len() as u64)
    }

    /// The bytes of a record at this position.
    fn sealed(&self, xid: u32, info: u8, resource_manager: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(((RECORD_HEADER + content.len()) as u32).to_le_bytes());
        bytes.extend(xid.to_le_bytes());
        bytes.extend(self.previous.get().to_le_bytes());
        bytes.extend([info, resource_manager, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(content), &bytes);
        bytes.extend(crc.to_le_bytes());
        bytes.extend(content);
        bytes
    }

    /// Writes a record's bytes over as many pages as it takes.
    fn put(&mut self, mut record: &[u8]) {
        let page = self.format.page_size();
        while !record.is_empty() {
            self.begin_page(record.len() as u32, 0x0001);
            let room = (page - self.position().offset_in(page)) as usize;
            let (part, rest) = record.split_at(room.min(record.len()));
            self.bytes.extend(part);
            record = rest;
        }
    }

    /// Writes a page header where one is due.
    fn begin_page(&mut self, remaining: u32, flags: u16) {
        let address = self.position();
        if address.offset_in(self.format.page_size()) != 0 {
            return;
        }
        let segment_size = self.format.geometry.wal_segment_size.bytes();
        let first = address.offset_in(segment_size) == 0;
        self.bytes.extend(magic(self.format.facts.major).to_le_bytes());
        self.bytes.extend((flags | if first { 0x0002 } else { 0 }).to_le_bytes());
        self.bytes.extend(self.timeline.to_le_bytes());
        self.bytes.extend(address.get().to_le_bytes());
        self.bytes.extend(remaining.to_le_bytes());
        self.bytes.extend([0; 4]);
        if first {
            self.bytes.extend(self.format.system_identifier.to_le_bytes());
            self.bytes.extend((segment_size as u32).to_le_bytes());
            self.bytes.extend(self.format.geometry.wal_page_size.to_le_bytes());
        }
    }
}

/// `XLOG_PAGE_MAGIC`.
fn magic(major: Major) -> u16 {
    match major {
        Major::V13 => 0xD106,
        Major::V14 => 0xD10D,
        Major::V15 => 0xD110,
        Major::V16 => 0xD113,
        Major::V17 => 0xD116,
        Major::V18 => 0xD118,
        Major::V19 => 0xD122,
    }
}

/// `XLP_FIRST_IS_OVERWRITE_CONTRECORD`.
fn overwrite_flag(major: Major) -> u16 {
    if major == Major::V19 { 0x0004 } else { 0x0008 }
}

/// The methods that a major can compress images with.
pub(crate) fn compressions(major: Major) -> &'static [Compression] {
    let all = &[Compression::Pglz, Compression::Lz4, Compression::Zstd];
    if major <= Major::V14 { &all[..1] } else { all }
}

/// The `bimg_info` bits of an image, but for the hole.
fn image_info(image: &NewImage, major: Major) -> u8 {
    let old = major <= Major::V14;
    let applies = match (image.applies, old) {
        (false, _) => 0,
        (true, true) => 0x04,
        (true, false) => 0x02,
    };
    let compressed = match image.compressed {
        None => 0,
        Some((Compression::Pglz, _)) if old => 0x02,
        Some((Compression::Pglz, _)) => 0x04,
        Some((Compression::Lz4, _)) => 0x08,
        Some((Compression::Zstd, _)) => 0x10,
    };
    applies | compressed
}

/// Everything behind a record's fixed header.
fn encode(record: &NewRecord, major: Major) -> Vec<u8> {
    let (mut headers, mut data) = (Vec::new(), Vec::new());
    let mut relation = None;
    for block in &record.blocks {
        encode_block(block, relation, major, &mut headers, &mut data);
        relation = Some(block.relation);
    }
    if let Some(origin) = record.origin {
        headers.push(253);
        headers.extend(origin.to_le_bytes());
    }
    if let Some(xid) = record.toplevel_xid {
        headers.push(252);
        headers.extend(xid.to_le_bytes());
    }
    match record.main_data.len() {
        0 => {}
        short @ 1..=255 => headers.extend([255, short as u8]),
        long => {
            headers.push(254);
            headers.extend((long as u32).to_le_bytes());
        }
    }
    headers.extend(data);
    headers.extend(&record.main_data);
    headers
}

fn encode_block(
    block: &NewBlock,
    previous: Option<RelFileNumber>,
    major: Major,
    headers: &mut Vec<u8>,
    data: &mut Vec<u8>,
) {
    let same = previous == Some(block.relation);
    let flag = |set, bit| if set { bit } else { 0 };
    let flags = block.fork as u8
        | flag(block.image.is_some(), 0x10)
        | flag(!block.data.is_empty(), 0x20)
        | flag(block.will_init, 0x40)
        | flag(same, 0x80);
    headers.extend([block.id, flags]);
    headers.extend((block.data.len() as u16).to_le_bytes());
    if let Some(image) = &block.image {
        let (offset, hole) = image.hole.unwrap_or_default();
        let length = image.compressed.map_or(8192 - hole, |(_, length)| length);
        headers.extend(length.to_le_bytes());
        headers.extend(offset.to_le_bytes());
        headers.push(image_info(image, major) | flag(image.hole.is_some(), HAS_HOLE));
        if image.hole.is_some() && image.compressed.is_some() {
            headers.extend(hole.to_le_bytes());
        }
        data.extend((0..length).map(|n| n as u8));
    }
    if !same {
        for number in [block.relation.tablespace, block.relation.database, block.relation.relation] {
            headers.extend(number.to_le_bytes());
        }
    }
    headers.extend(block.block.to_le_bytes());
    data.extend(&block.data);
}
