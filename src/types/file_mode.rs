//! Permission bits.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The permission bits of a file (`st_mode & 07777`), written in octal as `chmod` takes them: `0600`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(into = "String", try_from = "String")]
#[schemars(with = "String")]
pub struct FileMode(u32);

impl FileMode {
    /// The permission bits in `mode`.
    #[must_use]
    pub const fn new(mode: u32) -> Self {
        Self(mode & 0o7777)
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl From<FileMode> for String {
    fn from(mode: FileMode) -> Self {
        mode.to_string()
    }
}

impl TryFrom<String> for FileMode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let octal = text.len() == 4 && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        let bits = octal.then(|| u32::from_str_radix(&text, 8).ok()).flatten();
        bits.map(Self).ok_or_else(|| format!("{text:?} is no file mode of four octal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal() {
        assert_eq!(FileMode::new(0o100_600).to_string(), "0600");
        assert_eq!(FileMode::try_from("4755".to_owned()), Ok(FileMode::new(0o4755)));
        for bad in ["600", "0800", "00600", "+600", ""] {
            assert!(FileMode::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
