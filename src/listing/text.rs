//! Bytes as text.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster::SMALL_FILE_LIMIT;
use crate::manifest::hex;

/// Bytes, written in lower-case hexadecimal.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(into = "String", try_from = "String")]
#[schemars(with = "String")]
pub struct HexBytes(pub Vec<u8>);

impl fmt::Debug for HexBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HexBytes({} bytes)", self.0.len())
    }
}

impl From<HexBytes> for String {
    fn from(bytes: HexBytes) -> Self {
        hex(&bytes.0)
    }
}

impl TryFrom<String> for HexBytes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
        let bytes: Option<Vec<u8>> = bytes.collect();
        let bytes = bytes.filter(|_| rest.is_empty());
        bytes.map(Self).ok_or_else(|| "bytes are pairs of lower-case hexadecimal digits".to_owned())
    }
}

/// The content of a small file. `%` and bytes that are not valid UTF-8 are written `%XX`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(into = "String", try_from = "String")]
#[schemars(with = "String")]
pub struct FileText(Vec<u8>);

impl FileText {
    /// The content.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes of the content.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for FileText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileText({} bytes)", self.0.len())
    }
}

fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('%', "%25"));
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("%{byte:02X}")));
    }
    text
}

impl From<FileText> for String {
    fn from(text: FileText) -> Self {
        escape(&text.0)
    }
}

impl TryFrom<String> for FileText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes: Vec<u8> = percent_encoding::percent_decode_str(&text).collect();
        if bytes.len() as u64 > SMALL_FILE_LIMIT {
            return Err(format!("a small file has {} bytes, more than {SMALL_FILE_LIMIT}", bytes.len()));
        }
        if escape(&bytes) == text {
            return Ok(Self(bytes));
        }
        Err("a file's content is not escaped: %XX for '%' and bytes that are not UTF-8, nothing else".to_owned())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_go_there_and_back(bytes: Vec<u8>) {
            let text = String::from(FileText::new(bytes.clone()));
            prop_assert_eq!(FileText::try_from(text), Ok(FileText::new(bytes.clone())));
            let text = String::from(HexBytes(bytes.clone()));
            prop_assert_eq!(HexBytes::try_from(text).unwrap().0, bytes);
        }
    }

    #[test]
    fn there_is_one_spelling() {
        for bad in ["%41", "%ff", "%", "100%"] {
            assert!(FileText::try_from(bad.to_owned()).is_err(), "{bad}");
        }
        for bad in ["0", "0G", "AB", "é"] {
            assert!(HexBytes::try_from(bad.to_owned()).is_err(), "{bad}");
        }
        let large = "x".repeat(SMALL_FILE_LIMIT as usize + 1);
        assert!(FileText::try_from(large).unwrap_err().contains("more than"));
    }
}
