//! What identifies a manifest: a digest that `jq` and `sha256sum` can compute, too.
//!
//! `jq -cjS 'del(.digest,.created)' plan.json | sha256sum`

use std::fmt::{self, Write as _};
use std::io;

use serde::Deserialize as _;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use sha2::{Digest, Sha256};

/// A document whose digest cannot be computed, or which is not in canonical order.
#[derive(Debug, thiserror::Error)]
#[error("the document is no canonical JSON: {0}")]
pub struct DigestError(#[from] serde_json::Error);

/// The keys of the outermost object that the digest does not cover.
pub(super) const UNCOVERED: [&str; 2] = ["created", "digest"];

/// The largest number that a document may have, without its sign: what every JSON reader can count.
pub(super) const LARGEST_NUMBER: u64 = (1 << 53) - 1;

/// `sha256:` and the digest of a document, over its compact form with the keys as they stand and
/// without the keys `created` and `digest` of the outermost object.
///
/// The document is read once, as a stream, byte by byte (so a file wants a buffer): fields that this program does not
/// know are covered like all others.
///
/// # Errors
/// [`DigestError`] where the text is no JSON, has a duplicate or misplaced key, or a number that
/// is no integer.
pub fn digest_of(document: impl io::Read) -> Result<String, DigestError> {
    let mut hash = Sha256::new();
    let mut deserializer = serde_json::Deserializer::from_reader(document);
    Canonical { hash: &mut hash, outermost: true }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(format!("sha256:{}", hex(&hash.finalize())))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Feeds one value's compact form to the hash.
struct Canonical<'h> {
    hash: &'h mut Sha256,
    outermost: bool,
}

impl Canonical<'_> {
    fn inner(&mut self) -> Canonical<'_> {
        Canonical { hash: self.hash, outermost: false }
    }

    /// A string as `jq` writes it.
    fn string(&mut self, text: &str) {
        let mut out = String::with_capacity(text.len() + 2);
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\0'..='\u{1f}' | '\u{7f}' => {
                    let _ = write!(out, "\\u{:04x}", u32::from(c));
                }
                _ => out.push(c),
            }
        }
        out.push('"');
        self.hash.update(out);
    }
}

impl<'de> DeserializeSeed<'de> for Canonical<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Canonical<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON with integers only")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.hash.update(if value { "true" } else { "false" });
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.hash.update("null");
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        if value > LARGEST_NUMBER {
            return Err(E::custom(format_args!("{value} is larger than 2^53-1")));
        }
        self.hash.update(value.to_string());
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        if value.unsigned_abs() > LARGEST_NUMBER {
            return Err(E::custom(format_args!("{value} is smaller than -(2^53-1)")));
        }
        self.hash.update(value.to_string());
        Ok(())
    }

    fn visit_str<E>(mut self, text: &str) -> Result<(), E> {
        self.string(text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        self.hash.update("[");
        let mut first = true;
        loop {
            let separated = Separated { canonical: self.inner(), separator: if first { "" } else { "," } };
            if elements.next_element_seed(separated)?.is_none() {
                break;
            }
            first = false;
        }
        self.hash.update("]");
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        self.hash.update("{");
        let mut previous: Option<String> = None;
        let mut written = false;
        while let Some(key) = entries.next_key_seed(Key)? {
            if previous.as_ref().is_some_and(|previous| *previous >= key) {
                return Err(A::Error::custom(format_args!("key {key:?} is a duplicate or out of byte order")));
            }
            if self.outermost && UNCOVERED.contains(&key.as_str()) {
                entries.next_value::<serde::de::IgnoredAny>()?;
            } else {
                self.hash.update(if written { "," } else { "" });
                self.string(&key);
                self.hash.update(":");
                entries.next_value_seed(self.inner())?;
                written = true;
            }
            previous = Some(key);
        }
        self.hash.update("}");
        Ok(())
    }
}

/// A value with what stands before it.
struct Separated<'h> {
    canonical: Canonical<'h>,
    separator: &'static str,
}

impl<'de> DeserializeSeed<'de> for Separated<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.canonical.hash.update(self.separator);
        self.canonical.deserialize(deserializer)
    }
}

/// An object's key: ASCII, because byte order and jq's order agree on that only.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        let key = String::deserialize(deserializer)?;
        if key.is_ascii() { Ok(key) } else { Err(D::Error::custom(format_args!("key {key:?} is not ASCII"))) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sha256(text: &str) -> String {
        format!("sha256:{}", hex(&Sha256::digest(text)))
    }

    #[test]
    fn the_digest_is_that_of_the_compact_form() {
        let document = r#" {"a" : [1, -2, {"x":"\u0041\n\u001f\u007f\/é"}], "created":"now","digest":"?", "z": {"created": null, "t":true}} "#;
        let compact = r#"{"a":[1,-2,{"x":"A\n\u001f\u007f/é"}],"z":{"created":null,"t":true}}"#;
        assert_eq!(digest_of(document.as_bytes()).unwrap(), sha256(compact));
        assert_eq!(digest_of(&br#"{"created":1}"#[..]).unwrap(), sha256("{}"));
        assert_eq!(digest_of(&br#"{"a":[],"b":{}}"#[..]).unwrap(), sha256(r#"{"a":[],"b":{}}"#));
    }

    #[test]
    fn what_has_no_one_form_is_refused() {
        for bad in [
            r#"{"a":1,"a":2}"#,
            r#"{"b":1,"a":2}"#,
            r#"{"a":{"c":1,"b":1}}"#,
            r#"{"a":1.0}"#,
            r#"{"a":1e3}"#,
            r#"{"a":9007199254740992}"#,
            r#"{"a":-9007199254740992}"#,
            r#"{"ä":1}"#,
            r#"{"a":1} x"#,
            r#"{"a":1"#,
            "",
        ] {
            assert!(digest_of(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(digest_of("[".repeat(100_000).as_bytes()).is_err());
    }
}
