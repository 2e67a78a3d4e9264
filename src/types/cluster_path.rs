//! Names of files relative to a data directory.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A relative path inside a data directory, as bytes: names need not be UTF-8.
///
/// Never absolute, never empty, no empty, `.` or `..` component, no NUL byte, and short enough
/// for the kernel. Neither a source nor a manifest is trusted to name paths, so every name from
/// outside passes through [`ClusterPath::new`]. Ordered by raw bytes, so a directory comes before
/// what is in it.
///
/// In JSON `%`, control characters, DEL and bytes that are not valid UTF-8 are written `%XX`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ClusterPath(Box<[u8]>);

/// Why a name is no path inside a data directory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path has no bytes.
    #[error("the path is empty")]
    Empty,
    /// The path begins with a slash.
    #[error("{0:?} is absolute")]
    Absolute(String),
    /// A component is empty, `.` or `..`.
    #[error("{0:?} has an empty, \".\" or \"..\" component")]
    Component(String),
    /// The path holds a byte that no file name can hold.
    #[error("{0:?} holds a NUL byte")]
    Nul(String),
    /// The path is longer than 4095 bytes, or one component longer than 255.
    #[error("a path of {0} bytes is longer than a file name can be")]
    TooLong(usize),
    /// The text form is not the one that this type writes.
    #[error(
        "{0:?} is not escaped as paths are: %XX for '%', control characters and bytes that are not UTF-8, nothing else"
    )]
    Escape(String),
}

/// `PATH_MAX` without its NUL.
const MAX_PATH: usize = 4095;
/// `NAME_MAX` of Linux's file systems.
const MAX_COMPONENT: usize = 255;

impl ClusterPath {
    /// Checks a path from outside.
    ///
    /// # Errors
    /// [`PathError`] when the path could leave the data directory or no file can have it.
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        Self::check(bytes).map(|()| Self(bytes.into()))
    }

    fn check(bytes: &[u8]) -> Result<(), PathError> {
        let shown = || escape(bytes).chars().take(200).collect::<String>();
        let component = |c: &[u8]| c.is_empty() || c == b"." || c == b"..";
        if bytes.is_empty() {
            return Err(PathError::Empty);
        }
        if bytes.len() > MAX_PATH || bytes.split(|&b| b == b'/').any(|c| c.len() > MAX_COMPONENT) {
            return Err(PathError::TooLong(bytes.len()));
        }
        if bytes.contains(&0) {
            return Err(PathError::Nul(shown()));
        }
        if bytes.starts_with(b"/") {
            return Err(PathError::Absolute(shown()));
        }
        if bytes.split(|&b| b == b'/').any(component) {
            return Err(PathError::Component(shown()));
        }
        Ok(())
    }

    /// A path again, of bytes that were one's.
    pub(crate) fn of_known(bytes: &[u8]) -> Self {
        debug_assert!(Self::new(bytes).is_ok());
        Self(bytes.into())
    }

    /// The path of `name` inside this directory.
    ///
    /// # Errors
    /// As [`ClusterPath::new`].
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        let bytes = [&self.0, b"/".as_slice(), name].concat();
        Self::check(&bytes).map(|()| Self(bytes.into()))
    }

    /// The bytes of the path.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The components, outermost first; at least one.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/')
    }

    /// The last component.
    #[must_use]
    pub fn file_name(&self) -> &[u8] {
        self.components().next_back().unwrap_or(&self.0)
    }

    /// The directory that holds this entry; none at the top level.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let end = self.0.iter().rposition(|&b| b == b'/')?;
        self.0.get(..end).map(|parent| Self(parent.into()))
    }

    /// The directories that it lies in below the data directory, innermost first.
    pub fn directories(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.0.iter().enumerate().rev().filter(|&(_, &byte)| byte == b'/');
        ends.filter_map(|(end, _)| self.0.get(..end))
    }

    /// What remains after the directory `prefix`; `None` where this path is not inside it.
    #[must_use]
    pub fn below(&self, prefix: &[u8]) -> Option<&[u8]> {
        self.0.strip_prefix(prefix)?.strip_prefix(b"/")
    }
}

/// The text of a symlink, as bytes; in JSON escaped as [`ClusterPath`] is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(into = "String", try_from = "String")]
#[schemars(with = "String")]
pub struct LinkText(Vec<u8>);

impl LinkText {
    /// The text of a link.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The bytes of the text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for LinkText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

impl From<LinkText> for String {
    fn from(link: LinkText) -> Self {
        link.to_string()
    }
}

impl TryFrom<String> for LinkText {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes: Vec<u8> = percent_encoding::percent_decode_str(&text).collect();
        let canonical = !bytes.is_empty() && bytes.len() <= MAX_PATH && !bytes.contains(&0) && escape(&bytes) == text;
        if canonical { Ok(Self(bytes)) } else { Err(PathError::Escape(text.chars().take(200).collect())) }
    }
}

/// The text form: see [`ClusterPath`].
fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '%' || c.is_ascii_control() {
                text.push_str(&format!("%{:02X}", u32::from(c)));
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

impl fmt::Display for ClusterPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for ClusterPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<ClusterPath> for String {
    fn from(path: ClusterPath) -> Self {
        path.to_string()
    }
}

impl TryFrom<String> for ClusterPath {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes: Vec<u8> = percent_encoding::percent_decode_str(&text).collect();
        let path = Self::new(&bytes)?;
        // One path has one spelling: otherwise two entries could name the same file.
        if path.to_string() == text { Ok(path) } else { Err(PathError::Escape(text.chars().take(200).collect())) }
    }
}

impl JsonSchema for ClusterPath {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ClusterPath".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "a path below the data directory; '%', control characters and bytes that are not UTF-8 are %XX",
            "minLength": 1,
            "pattern": "^[^/\\u0000-\\u001f\\u007f][^\\u0000-\\u001f\\u007f]*$"
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_escape_are_refused() {
        for bad in ["", "/", "/etc/passwd", "..", "a/..", "../a", "a/../b", "a//b", "a/", ".", "./a", "a/./b", "a\0b"] {
            assert!(ClusterPath::new(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(ClusterPath::new(&[b'a'; 256]).is_err());
        assert!(ClusterPath::new(&b"a/".repeat(2100)).is_err());
        assert!(ClusterPath::new(b"..a/...").is_ok());
    }

    #[test]
    fn text_form_round_trips_and_is_unique() {
        let cases: [(&[u8], &str); 6] = [
            (b"base/5/1", "base/5/1"),
            (b"with 'quote' and \"\\", "with 'quote' and \"\\"),
            (b"a%b", "a%25b"),
            (b"a\nb\x7f", "a%0Ab%7F"),
            (b"\xff\xfe/x", "%FF%FE/x"),
            ("näh".as_bytes(), "näh"),
        ];
        for (bytes, text) in cases {
            let path = ClusterPath::new(bytes).unwrap();
            assert_eq!(path.to_string(), text);
            assert_eq!(ClusterPath::try_from(text.to_owned()).unwrap(), path);
        }
        for bad in ["%2e%2e/x", "a%62", "%ff", "%", "a%0ab", "%2E%2E"] {
            assert!(ClusterPath::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn parts() {
        let path = ClusterPath::new(b"pg_wal/archive_status/x.done").unwrap();
        assert_eq!(path.file_name(), b"x.done");
        assert_eq!(path.parent().unwrap().to_string(), "pg_wal/archive_status");
        assert!(path.directories().eq([b"pg_wal/archive_status".as_slice(), b"pg_wal"]));
        assert_eq!(path.below(b"pg_wal"), Some(b"archive_status/x.done".as_slice()));
        assert_eq!(path.below(b"pg_wa"), None);
        assert_eq!(ClusterPath::new(b"x").unwrap().parent(), None);
    }
}
