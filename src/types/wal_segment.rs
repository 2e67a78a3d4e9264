//! WAL segments and their file names.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Lsn, TimelineId};

/// Bytes in a WAL segment: a power of two from 1 MiB to 1 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(into = "u32", try_from = "u32")]
#[schemars(with = "u32")]
pub struct WalSegmentSize(u32);

impl WalSegmentSize {
    /// The size, where it is a legal one.
    #[must_use]
    pub const fn new(bytes: u32) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= 1 << 20 && bytes <= 1 << 30 { Some(Self(bytes)) } else { None }
    }

    /// Bytes in a segment.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }

    /// Segments in 4 GiB of WAL: where the last part of a segment's name wraps.
    const fn per_xlog_id(self) -> u64 {
        (1 << 32) / self.bytes()
    }
}

impl From<WalSegmentSize> for u32 {
    fn from(size: WalSegmentSize) -> Self {
        size.0
    }
}

impl TryFrom<u32> for WalSegmentSize {
    type Error = String;

    fn try_from(bytes: u32) -> Result<Self, Self::Error> {
        Self::new(bytes).ok_or_else(|| format!("{bytes} is no WAL segment size (a power of two from 1 MiB to 1 GiB)"))
    }
}

/// The number of a WAL segment: its first byte's position divided by the segment size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNumber(u64);

impl SegmentNumber {
    /// The segment that holds the byte at `lsn`.
    #[must_use]
    pub const fn of(lsn: Lsn, size: WalSegmentSize) -> Self {
        Self(lsn.get() / size.bytes())
    }

    /// The position of the segment's first byte.
    #[must_use]
    pub const fn start(self, size: WalSegmentSize) -> Lsn {
        Lsn::new(self.0.saturating_mul(size.bytes()))
    }

    /// The position after the segment's last byte.
    #[must_use]
    pub const fn end(self, size: WalSegmentSize) -> Lsn {
        self.start(size).plus(size.bytes())
    }

    /// The segment after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The segment before this one; none before the first.
    #[must_use]
    pub fn previous(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }
}

/// The identity of a WAL segment file: its timeline and its number.
///
/// PostgreSQL's file name is 24 upper-case hexadecimal digits: the timeline, then the number's
/// quotient and remainder by the segments in 4 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalFileName {
    /// The timeline in the name.
    pub timeline: TimelineId,
    /// The segment's number.
    pub segment: SegmentNumber,
}

impl WalFileName {
    /// The file name for a cluster with segments of `size`.
    #[must_use]
    pub fn text(self, size: WalSegmentSize) -> String {
        let per_id = size.per_xlog_id();
        format!("{:08X}{:08X}{:08X}", self.timeline.get(), self.segment.0 / per_id, self.segment.0 % per_id)
    }

    /// Reads a file name; `None` where it is not one of a segment of `size`.
    #[must_use]
    pub fn parse(name: &[u8], size: WalSegmentSize) -> Option<Self> {
        let hex = |b: &u8| b.is_ascii_digit() || (b'A'..=b'F').contains(b);
        if name.len() != 24 || !name.iter().all(hex) {
            return None;
        }
        let text = std::str::from_utf8(name).ok()?;
        let part = |range| u32::from_str_radix(text.get(range)?, 16).ok();
        let (timeline, high, low) = (part(0..8)?, part(8..16)?, part(16..24)?);
        let (high, low) = (u64::from(high), u64::from(low));
        let per_id = size.per_xlog_id();
        (low < per_id)
            .then(|| Self { timeline: TimelineId::new(timeline), segment: SegmentNumber(high * per_id + low) })
    }
}

impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_at_both_ends_of_the_sizes() {
        let cases = [
            (1 << 20, 0x2_0010_0000, "000000010000000200000001"),
            (16 << 20, 0x2_FF00_0000, "0000000100000002000000FF"),
            (1 << 30, 0x2_C000_0000, "000000010000000200000003"),
        ];
        for (bytes, lsn, name) in cases {
            let size = WalSegmentSize::new(bytes).unwrap();
            let file = WalFileName { timeline: TimelineId::new(1), segment: SegmentNumber::of(Lsn::new(lsn), size) };
            assert_eq!(file.text(size), name);
            assert_eq!(WalFileName::parse(name.as_bytes(), size), Some(file));
            assert_eq!(file.segment.start(size), Lsn::new(lsn));
        }
    }

    #[test]
    fn other_names_are_no_segments() {
        let size = WalSegmentSize::new(16 << 20).unwrap();
        for name in
            ["", "00000001", "00000001000000020000000a", "000000010000000200000100", "0000000100000002000000FF.partial"]
        {
            assert_eq!(WalFileName::parse(name.as_bytes(), size), None, "{name}");
        }
        assert_eq!(WalSegmentSize::new(3 << 20), None);
        assert_eq!(WalSegmentSize::new(1 << 19), None);
    }
}
