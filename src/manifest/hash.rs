//! The digest of a manifest (or another document) that is at hand, without its bytes: what [`super::digest_of`] finds in
//! those.

use std::cell::Cell;
use std::io::{self, BufWriter, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};
use sha2::{Digest, Sha256};

use super::DigestError;
use super::digest::{LARGEST_NUMBER, UNCOVERED, hex};

/// `sha256:` and the digest of a document, which is never in memory as bytes.
///
/// # Errors
/// [`DigestError`] where it has a number that no document may have.
pub(crate) fn digest(document: &impl Serialize) -> Result<String, DigestError> {
    let mut hash = Sha256::new();
    let muted = Cell::new(false);
    let mut writer = Muted { inner: BufWriter::new(&mut hash), muted: &muted };
    let compact = Compact { muted: &muted, depth: 0, key: None, is_first: true };
    document.serialize(&mut Serializer::with_formatter(&mut writer, compact))?;
    writer.flush().map_err(serde_json::Error::io)?;
    drop(writer);
    Ok(format!("sha256:{}", hex(&hash.finalize())))
}

/// Passes on what is written, or does not.
struct Muted<'m, W> {
    inner: W,
    muted: &'m Cell<bool>,
}

impl<W: Write> Write for Muted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.muted.get() { Ok(bytes.len()) } else { self.inner.write(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The compact form as `jq` writes it, without what the digest does not cover.
struct Compact<'m> {
    muted: &'m Cell<bool>,
    depth: usize,
    /// The key of the outermost object that is being written.
    key: Option<String>,
    /// Whether no key of the outermost object was written yet.
    is_first: bool,
}

impl Formatter for Compact<'_> {
    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth += 1;
        writer.write_all(b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        writer.write_all(b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if self.depth == 1 {
            self.key = Some(String::new());
            return Ok(());
        }
        CompactFormatter.begin_object_key(writer, first)
    }

    fn end_object_key<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        let Some(key) = self.key.take() else { return Ok(()) };
        if UNCOVERED.contains(&key.as_str()) {
            self.muted.set(true);
            return Ok(());
        }
        writer.write_all(if self.is_first { b"\"" } else { b",\"" })?;
        self.is_first = false;
        writer.write_all(key.as_bytes())?;
        writer.write_all(b"\"")
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        if self.depth == 1 {
            self.muted.set(false);
        }
        Ok(())
    }

    fn begin_string<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.key.is_some() { Ok(()) } else { writer.write_all(b"\"") }
    }

    fn end_string<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.key.is_some() { Ok(()) } else { writer.write_all(b"\"") }
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if let Some(key) = &mut self.key {
            key.push_str(fragment);
            return Ok(());
        }
        let mut parts = fragment.split('\u{7f}');
        writer.write_all(parts.next().unwrap_or_default().as_bytes())?;
        parts.try_for_each(|part| {
            self.write_char_escape(writer, CharEscape::AsciiControl(0x7f))?;
            writer.write_all(part.as_bytes())
        })
    }

    fn write_u64<W: ?Sized + Write>(&mut self, writer: &mut W, value: u64) -> io::Result<()> {
        if value > LARGEST_NUMBER {
            return Err(io::Error::other(format!("{value} is larger than 2^53-1")));
        }
        CompactFormatter.write_u64(writer, value)
    }

    fn write_i64<W: ?Sized + Write>(&mut self, writer: &mut W, value: i64) -> io::Result<()> {
        if value.unsigned_abs() > LARGEST_NUMBER {
            return Err(io::Error::other(format!("{value} is beyond 2^53-1")));
        }
        CompactFormatter.write_i64(writer, value)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::manifest::digest_of;

    fn compact(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = Vec::new();
        let muted = Cell::new(false);
        let formatter = Compact { muted: &muted, depth: 0, key: None, is_first: true };
        let mut writer = Muted { inner: &mut bytes, muted: &muted };
        value.serialize(&mut Serializer::with_formatter(&mut writer, formatter))?;
        Ok(bytes)
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..=LARGEST_NUMBER).prop_map(Value::from),
            (-9_007_199_254_740_991_i64..0).prop_map(Value::from),
            vec(prop_oneof![any::<char>(), (0..=0x7f_u8).prop_map(char::from)], 0..6)
                .prop_map(|text| Value::from(text.into_iter().collect::<String>())),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::from),
                btree_map(keys(), inner, 0..4).prop_map(|map| map.into_iter().collect::<Value>()),
            ]
        })
    }

    fn keys() -> impl Strategy<Value = String> {
        prop_oneof![Just("created".to_owned()), Just("digest".to_owned()), "[a-z]{1,3}"]
    }

    proptest! {
        /// Whatever a document holds.
        #[test]
        fn the_written_form_is_the_one_that_is_read(document in btree_map(keys(), values(), 0..6)) {
            let text = serde_json::to_vec(&document).unwrap();
            let written = format!("sha256:{}", hex(&Sha256::digest(compact(&document).unwrap())));
            prop_assert_eq!(written, digest_of(&*text).unwrap());
        }
    }

    #[test]
    fn numbers_that_cannot_be_read_are_not_written() {
        let of = |value: Value| compact(&BTreeMap::from([("a", value)])).is_ok();
        assert!(of(LARGEST_NUMBER.into()) && of((-9_007_199_254_740_991_i64).into()));
        assert!(!of((LARGEST_NUMBER + 1).into()) && !of((-9_007_199_254_740_992_i64).into()));
    }
}
