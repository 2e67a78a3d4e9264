//! The values collected for one connection before they are interpreted.

use std::collections::BTreeMap;

use super::environment::Environment;
use super::error::{ConnInfoError, Setting};
use super::keywords::{self, Handling, KEYWORDS, Keyword};

/// Keyword values from the connection string and the environment.
///
/// Holds passwords as plain text, so it has no `Debug` and does not outlive `resolve`.
#[derive(Default)]
pub(super) struct Settings {
    /// Values by position in [`KEYWORDS`].
    values: BTreeMap<usize, Value>,
    /// Whether a secret keyword has been stored, after which an unknown keyword may be the rest of
    /// a badly quoted secret.
    saw_secret: bool,
}

struct Value {
    text: String,
    setting: Setting,
}

/// A value and where it came from.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) text: &'a str,
    pub(super) setting: Setting,
}

impl Given<'_> {
    /// An error that says which values this setting can have.
    pub(super) fn invalid(self, expected: &'static str) -> ConnInfoError {
        ConnInfoError::InvalidValue { setting: self.setting, expected }
    }
}

impl Settings {
    /// Stores a value from the connection string; a later one replaces an earlier one, as in libpq.
    ///
    /// `at` is the keyword's position, from 1.
    ///
    /// # Errors
    ///
    /// The keyword is unknown.
    pub(super) fn store(&mut self, name: &str, value: &str, at: usize) -> Result<(), ConnInfoError> {
        // libpq translates the keyword of PostgreSQL 7 and earlier.
        let (name, value) = match (name, value.starts_with('1')) {
            ("requiressl", true) => ("sslmode", "require"),
            ("requiressl", false) => ("sslmode", "prefer"),
            _ => (name, value),
        };
        let Some((index, keyword)) = keywords::find(name).and_then(with_keyword) else {
            return Err(self.unknown(name, at));
        };
        self.saw_secret |= keyword.is_secret();
        let setting = Setting::Option(keyword.name);
        self.values.insert(index, Value { text: value.to_owned(), setting });
        Ok(())
    }

    /// Adds a value that a service has for a keyword, unless there is one. Whether libpq knows the keyword.
    pub(super) fn add(&mut self, name: &str, value: &str) -> bool {
        let Some((index, keyword)) = keywords::find(name).and_then(with_keyword) else { return false };
        let setting = Setting::Service(keyword.name);
        self.values.entry(index).or_insert_with(|| Value { text: value.to_owned(), setting });
        true
    }

    fn unknown(&self, name: &str, at: usize) -> ConnInfoError {
        let plain =
            name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        let name = if plain && !self.saw_secret { name } else { "***" };
        ConnInfoError::UnknownKeyword { name: name.to_owned(), at }
    }

    /// Adds the `PG*` variables for keywords that the string left out. As in libpq, a keyword that
    /// the string gives an empty value is not left out.
    ///
    /// # Errors
    ///
    /// A variable that would be used is not text.
    pub(super) fn fill_from(&mut self, environment: &Environment) -> Result<(), ConnInfoError> {
        for (index, keyword) in KEYWORDS.iter().enumerate() {
            let Some(name) = keyword.variable.filter(|_| !self.values.contains_key(&index)) else {
                continue;
            };
            if let Some(text) = environment.text(name)? {
                self.values.insert(index, Value { text, setting: Setting::Variable(name) });
            } else if keyword.name == "sslmode" && requires_ssl(environment)? {
                let setting = Setting::Variable(REQUIRE_SSL);
                self.values.insert(index, Value { text: "require".to_owned(), setting });
            }
        }
        Ok(())
    }

    /// Refuses settings that nothing here acts on.
    ///
    /// # Errors
    ///
    /// The first unsupported setting, in the order of [`KEYWORDS`].
    pub(super) fn refuse_unsupported(&self) -> Result<(), ConnInfoError> {
        for (keyword, value) in self.iter() {
            if let Handling::Refused(reason) = keyword.handling {
                return Err(ConnInfoError::NotSupported { setting: value.setting, reason });
            }
        }
        Ok(())
    }

    /// The value of a keyword, which may be empty.
    pub(super) fn get(&self, name: &str) -> Option<Given<'_>> {
        let value = self.values.get(&keywords::find(name)?)?;
        Some(Given { text: &value.text, setting: value.setting })
    }

    /// The value of a keyword unless it is absent or empty.
    pub(super) fn non_empty(&self, name: &str) -> Option<Given<'_>> {
        self.get(name).filter(|given| !given.text.is_empty())
    }

    /// Everything given, in the order of [`KEYWORDS`].
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static Keyword, Given<'_>)> {
        self.values.iter().filter_map(|(index, value)| {
            let keyword = KEYWORDS.get(*index)?;
            Some((keyword, Given { text: &value.text, setting: value.setting }))
        })
    }
}

const REQUIRE_SSL: &str = "PGREQUIRESSL";

/// libpq's old variable: a value that begins with 1 asks for TLS, others are ignored.
fn requires_ssl(environment: &Environment) -> Result<bool, ConnInfoError> {
    Ok(environment.text(REQUIRE_SSL)?.is_some_and(|value| value.starts_with('1')))
}

fn with_keyword(index: usize) -> Option<(usize, &'static Keyword)> {
    KEYWORDS.get(index).map(|keyword| (index, keyword))
}
