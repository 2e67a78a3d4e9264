//! Positions in the write-ahead log.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A byte position in the WAL stream (PostgreSQL's `XLogRecPtr`).
///
/// Written as `X/X`: the upper and the lower half in hexadecimal without leading zeros, as
/// PostgreSQL 13 to 18 print it. Zero is PostgreSQL's `InvalidXLogRecPtr`: no position.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Lsn(u64);

impl Lsn {
    /// No position (`InvalidXLogRecPtr`).
    pub const INVALID: Self = Self(0);
    /// The end of the stream: larger than any position that a server reaches.
    pub const MAX: Self = Self(u64::MAX);

    /// The position `bytes` after the beginning of the stream.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes from the beginning of the stream.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether this is a position at all (not zero).
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// The position `bytes` further on, or [`Lsn::MAX`] where that overflows.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// The text of PostgreSQL 19 and later: the lower half always has eight digits.
    #[must_use]
    pub fn padded(self) -> String {
        format!("{:X}/{:08X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }

    /// Bytes from `earlier` to this position; zero where `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Bytes from the start of the page, segment or other unit of `size` bytes that holds this
    /// position. `size` of zero gives zero.
    #[must_use]
    pub const fn offset_in(self, size: u64) -> u64 {
        match self.0.checked_rem(size) {
            Some(offset) => offset,
            None => 0,
        }
    }

    /// The start of the page, segment or other unit of `size` bytes that holds this position.
    #[must_use]
    pub const fn start_of(self, size: u64) -> Self {
        Self(self.0.saturating_sub(self.offset_in(size)))
    }

    /// This position rounded up to a multiple of eight (`MAXALIGN`), where records begin.
    #[must_use]
    pub const fn aligned(self) -> Self {
        Self(self.0.saturating_add(7) & !7)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        lsn.to_string()
    }
}

impl TryFrom<String> for Lsn {
    type Error = ParseLsnError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// A text is no position of the form `X/X`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no WAL position of the form X/X (hexadecimal, at most 8 digits each)")]
pub struct ParseLsnError(String);

impl FromStr for Lsn {
    type Err = ParseLsnError;

    /// Reads `X/X`; the halves may have leading zeros, as PostgreSQL 19 writes the lower one.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let half = |digits: &str| {
            let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| ParseLsnError(text.chars().take(40).collect()))
    }
}

impl JsonSchema for Lsn {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Lsn".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "a WAL position as PostgreSQL prints it; 0/0 is none",
            "pattern": "^[0-9A-F]{1,8}/[0-9A-F]{1,8}$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_postgresqls() {
        for (bytes, text) in
            [(0, "0/0"), (0x0300_0028, "0/3000028"), (0xA_0000_00FF, "A/FF"), (u64::MAX, "FFFFFFFF/FFFFFFFF")]
        {
            assert_eq!(Lsn::new(bytes).to_string(), text);
            assert_eq!(text.parse(), Ok(Lsn::new(bytes)));
        }
        assert_eq!(Lsn::new(0xA_0000_00FF).padded(), "A/000000FF");
        assert_eq!("0/0300_0028".parse::<Lsn>().ok(), None);
        assert_eq!("1/03000028".parse(), Ok(Lsn::new(0x1_0300_0028)));
        for bad in ["", "/", "1/", "/1", "1", "1/2/3", "+1/2", "1/123456789", "g/0", " 1/2"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn arithmetic_never_overflows() {
        assert_eq!(Lsn::MAX.plus(1), Lsn::MAX);
        assert_eq!(Lsn::new(5).since(Lsn::new(9)), 0);
        assert_eq!(Lsn::new(8200).start_of(8192), Lsn::new(8192));
        assert_eq!(Lsn::new(8200).offset_in(8192), 8);
        assert_eq!(Lsn::new(9).aligned(), Lsn::new(16));
        assert_eq!(Lsn::new(16).aligned(), Lsn::new(16));
    }
}
