//! WAL records (`XLogRecord`) and their block references.
//!
//! ```text
//!  0 total length u32   4 xid u32   8 previous record LSN   16 info u8   17 rmid u8   20 CRC u32
//! 24 block, origin, toplevel-xid and main-data headers, then the data they announce
//! ```

use super::super::MajorFacts;
use super::super::bytes::{Cursor, u8_at, u32_at, u64_at};
use super::error::{WalError, WalProblem};
use crate::types::{ForkNumber, Lsn, RelFileNumber};

/// Bytes of a record's fixed header.
pub(super) const RECORD_HEADER: usize = 24;
/// Bytes of the largest record that any server can read: what `palloc` gives (`MaxAllocSize`).
pub(super) const LARGEST_RECORD: usize = 0x3FFF_FFFF;

const BLOCK_ID_LAST: u8 = 32;
const BLOCK_ID_TOPLEVEL_XID: u8 = 252;
const BLOCK_ID_ORIGIN: u8 = 253;
const BLOCK_ID_DATA_LONG: u8 = 254;
const BLOCK_ID_DATA_SHORT: u8 = 255;

const HAS_IMAGE: u8 = 0x10;
const HAS_DATA: u8 = 0x20;
const WILL_INIT: u8 = 0x40;
const SAME_RELATION: u8 = 0x80;
const IMAGE_HAS_HOLE: u8 = 0x01;

/// A record's fixed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of the whole record.
    pub total_length: u32,
    /// The transaction, or 0.
    pub xid: u32,
    /// Where the record before it begins.
    pub previous: Lsn,
    /// Flags: the upper half is the resource manager's.
    pub info: u8,
    /// The resource manager.
    pub resource_manager: u8,
    crc: u32,
}

/// A block that a record touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockReference {
    /// The reference's number in the record, 0 to 32.
    pub id: u8,
    /// The relation.
    pub relation: RelFileNumber,
    /// The fork.
    pub fork: ForkNumber,
    /// The block's number within the fork of the relation.
    pub block: u32,
    /// Whether an image of the block comes along.
    pub has_image: bool,
    /// Whether replay must use that image (otherwise it is for checks only).
    pub image_applies: bool,
    /// Whether replay makes the block anew.
    pub will_init: bool,
}

/// A record, still in the bytes that were read.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where it begins.
    pub lsn: Lsn,
    /// Where it ends: the next record begins here, or behind the page header that stands here.
    pub end: Lsn,
    /// The fixed header.
    pub header: RecordHeader,
    /// The blocks that it touches.
    pub blocks: &'a [BlockReference],
    /// Its main data.
    pub main_data: &'a [u8],
}

impl Record<'_> {
    /// The operation of the resource manager: the upper half of `info`.
    #[must_use]
    pub fn operation(&self) -> u8 {
        self.header.info & 0xF0
    }
}

impl RecordHeader {
    /// A header of this operation, for tests.
    #[cfg(test)]
    pub(crate) fn sample(resource_manager: u8, info: u8) -> Self {
        Self { total_length: 24, xid: 0, previous: Lsn::new(0), info, resource_manager, crc: 0 }
    }

    /// Reads the header and checks what can be checked without the content. `previous` is the
    /// record that must come before, where it is known.
    // Inlined, the fields stay in registers; handed back in memory they cost a twentieth of the scan.
    #[inline]
    pub(super) fn parse(bytes: &[u8], lsn: Lsn, previous: Option<Lsn>, facts: &MajorFacts) -> Result<Self, WalError> {
        let header = Self::fields(bytes).ok_or(WalProblem::Length(0).at(lsn))?;
        let known = header.resource_manager <= facts.last_resource_manager
            || (facts.custom_resource_managers && header.resource_manager >= 128);
        if !(RECORD_HEADER..=LARGEST_RECORD).contains(&(header.total_length as usize)) {
            return Err(WalProblem::Length(header.total_length).at(lsn));
        }
        if !known {
            return Err(WalProblem::ResourceManager(header.resource_manager).at(lsn));
        }
        match previous {
            Some(expected) if expected != header.previous => {
                Err(WalProblem::PreviousLink { expected, found: header.previous }.at(lsn))
            }
            None if header.previous >= lsn => Err(WalProblem::LinkNotBack(header.previous).at(lsn)),
            _ => Ok(header),
        }
    }

    #[inline]
    fn fields(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            total_length: u32_at(bytes, 0)?,
            xid: u32_at(bytes, 4)?,
            previous: Lsn::new(u64_at(bytes, 8)?),
            info: u8_at(bytes, 16)?,
            resource_manager: u8_at(bytes, 17)?,
            crc: u32_at(bytes, 20)?,
        })
    }

    /// Checks the CRC of the whole record: over its content first, then over the header.
    pub(super) fn check_crc(&self, record: &[u8], lsn: Lsn) -> Result<(), WalError> {
        let content = record.get(RECORD_HEADER..).unwrap_or_default();
        let header = record.get(..20).unwrap_or_default();
        let expected = crc32c::crc32c_append(crc32c::crc32c(content), header);
        if expected == self.crc { Ok(()) } else { Err(WalProblem::Crc { expected, found: self.crc }.at(lsn)) }
    }
}

/// Reads what follows a record's fixed header: fills `blocks` and gives the main data.
///
/// `content` is everything behind the fixed header.
pub(super) fn parse_content<'a>(
    content: &'a [u8],
    facts: &MajorFacts,
    block_size: u32,
    blocks: &mut Vec<BlockReference>,
) -> Result<&'a [u8], &'static str> {
    const CUT: &str = "cut short";
    blocks.clear();
    let mut cursor = Cursor(content);
    let mut announced = 0usize;
    let mut main_length = 0usize;
    while cursor.0.len() > announced {
        match cursor.u8().ok_or(CUT)? {
            id @ 0..=BLOCK_ID_LAST => {
                if blocks.last().is_some_and(|last| last.id >= id) {
                    return Err("block references are out of order");
                }
                let previous = blocks.last().map(|last| last.relation);
                let (block, length) = parse_block(id, &mut cursor, previous, facts, block_size)?;
                announced = announced.saturating_add(length);
                blocks.push(block);
            }
            BLOCK_ID_TOPLEVEL_XID if facts.toplevel_xid => {
                cursor.u32().ok_or(CUT)?;
            }
            BLOCK_ID_ORIGIN => {
                cursor.u16().ok_or(CUT)?;
            }
            id @ (BLOCK_ID_DATA_SHORT | BLOCK_ID_DATA_LONG) => {
                main_length = if id == BLOCK_ID_DATA_SHORT {
                    usize::from(cursor.u8().ok_or(CUT)?)
                } else {
                    cursor.u32().ok_or(CUT)? as usize
                };
                announced = announced.saturating_add(main_length);
                break;
            }
            _ => return Err("block reference with an undefined number"),
        }
    }
    if cursor.0.len() != announced {
        return Err("announced lengths do not add up to the record's");
    }
    let main_start = announced.saturating_sub(main_length);
    cursor.0.get(main_start..).ok_or(CUT)
}

/// Reads one block reference; gives it and the bytes of image and data that it announces.
#[inline]
fn parse_block(
    id: u8,
    cursor: &mut Cursor<'_>,
    previous: Option<RelFileNumber>,
    facts: &MajorFacts,
    block_size: u32,
) -> Result<(BlockReference, usize), &'static str> {
    const CUT: &str = "block reference is cut short";
    let flags = cursor.u8().ok_or(CUT)?;
    let data_length = usize::from(cursor.u16().ok_or(CUT)?);
    if (flags & HAS_DATA != 0) != (data_length > 0) {
        return Err("a block's data flag contradicts its length");
    }
    let has_image = flags & HAS_IMAGE != 0;
    let (image_length, image_applies) = if has_image { parse_image(cursor, facts, block_size)? } else { (0, false) };
    let relation = if flags & SAME_RELATION != 0 {
        previous.ok_or("the first block refers to the relation before it")?
    } else {
        let mut number = || cursor.u32().ok_or(CUT);
        RelFileNumber { tablespace: number()?, database: number()?, relation: number()? }
    };
    let block = BlockReference {
        id,
        relation,
        fork: ForkNumber::from_number(flags & 0x0F).ok_or("a block is of an undefined fork")?,
        block: cursor.u32().ok_or(CUT)?,
        has_image,
        image_applies,
        will_init: flags & WILL_INIT != 0,
    };
    Ok((block, data_length.saturating_add(image_length)))
}

/// Reads the header of a block image; gives its length in bytes and whether replay uses it.
fn parse_image(cursor: &mut Cursor<'_>, facts: &MajorFacts, block_size: u32) -> Result<(usize, bool), &'static str> {
    const CUT: &str = "block image header is cut short";
    let length = cursor.u16().ok_or(CUT)?;
    let hole_offset = cursor.u16().ok_or(CUT)?;
    let info = cursor.u8().ok_or(CUT)?;
    let has_hole = info & IMAGE_HAS_HOLE != 0;
    let compressed = info & facts.image_flags.compressed != 0;
    let full = u32::from(length) == block_size;
    let hole_length = match (has_hole, compressed) {
        (true, true) => u32::from(cursor.u16().ok_or(CUT)?),
        (true, false) => block_size.saturating_sub(u32::from(length)),
        (false, _) => 0,
    };
    if has_hole && (hole_offset == 0 || hole_length == 0 || full) {
        return Err("a block image has a hole of no extent");
    }
    if !has_hole && hole_offset != 0 {
        return Err("a block image without a hole says where it is");
    }
    if !has_hole && !compressed && !full {
        return Err("a whole block image is not one block long");
    }
    if u32::from(length) > block_size || (compressed && full) {
        return Err("a block image is longer than a block");
    }
    Ok((usize::from(length), info & facts.image_flags.apply != 0))
}
