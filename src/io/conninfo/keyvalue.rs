//! libpq's `keyword = value` strings: reading and writing.

use super::error::ConnInfoError;
use super::settings::Settings;

/// Reads a keyword/value string.
///
/// libpq's rules: pairs are separated by white space; white space around `=` is allowed; a value
/// that is empty or has white space in it stands in single quotes; a backslash takes the next
/// character as it is, in and out of quotes.
///
/// # Errors
///
/// A pair without `=`, an open quote or an unknown keyword, each with its position.
pub(super) fn parse(text: &str) -> Result<Settings, ConnInfoError> {
    let mut settings = Settings::default();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let at = text.len() - rest.len() + 1;
        let end = rest.find(|c| c == '=' || is_space(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let after = after
            .trim_start_matches(is_space)
            .strip_prefix('=')
            .ok_or(ConnInfoError::MissingEquals { at })?
            .trim_start_matches(is_space);
        let (value, after) = match after.strip_prefix('\'') {
            None => bare(after),
            Some(quoted) => {
                let at = text.len() - after.len() + 1;
                quoted_value(quoted).ok_or(ConnInfoError::UnterminatedQuote { at })?
            }
        };
        settings.store(name, &value, at)?;
        rest = after.trim_start_matches(is_space);
    }
    Ok(settings)
}

/// A value without quotes: up to white space. A backslash at the very end stands for nothing.
fn bare(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            c if is_space(c) => return (value, text.get(at..).unwrap_or_default()),
            c => value.push(c),
        }
    }
    (value, "")
}

/// A value after its opening quote, and what follows the closing one; `None` if that is missing.
fn quoted_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '\\' => value.push(chars.next()?),
            '\'' => return Some((value, chars.as_str())),
            c => value.push(c),
        }
    }
}

/// White space as C's `isspace` has it in the C locale.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

/// Writes pairs so that [`parse`] and libpq read them back.
///
/// PostgreSQL's own rule (`appendConnStrVal`): bare if made of letters, digits, `_` and `.` only.
pub(super) fn write<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(name);
        text.push('=');
        push_value(&mut text, value);
    }
    text
}

fn push_value(text: &mut String, value: &str) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
    if !value.is_empty() && value.bytes().all(plain) {
        text.push_str(value);
        return;
    }
    text.push('\'');
    for c in value.chars() {
        if matches!(c, '\'' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('\'');
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(&'static str, String)> {
        let settings = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        settings.iter().map(|(keyword, given)| (keyword.name, given.text.to_owned())).collect()
    }

    /// The outcomes are those of PQconninfoParse in libpq 15 and 18.
    #[test]
    fn reads_what_libpq_reads() {
        let table: &[(&str, &[(&str, &str)])] = &[
            ("", &[]),
            (" \t\r\n", &[]),
            ("host = /nx port= 6", &[("host", "/nx"), ("port", "6")]),
            (r"host=/n\ x port=6", &[("host", "/n x"), ("port", "6")]),
            ("host='/n x'port=6", &[("host", "/n x"), ("port", "6")]),
            (r"host='a\'b\\c'", &[("host", r"a'b\c")]),
            (r"host=a'b\\c", &[("host", r"a'b\c")]),
            (r"user=a\", &[("user", "a")]),
            ("user=", &[("user", "")]),
            ("user='' dbname=x", &[("user", ""), ("dbname", "x")]),
            // Without quotes the value of an empty one is the next word.
            ("sslmode= host=/nx", &[("sslmode", "host=/nx")]),
            ("port=6 port=7", &[("port", "7")]),
            ("options='-c a=b\t'\x0bhost=x", &[("host", "x"), ("options", "-c a=b\t")]),
            ("requiressl=1", &[("sslmode", "require")]),
            ("requiressl=0", &[("sslmode", "prefer")]),
            ("user=\u{e9}\u{a0}x", &[("user", "\u{e9}\u{a0}x")]),
        ];
        for (text, expected) in table {
            let expected: Vec<_> = expected.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
            assert_eq!(read(text), expected, "{text:?}");
        }
    }

    #[test]
    fn refuses_with_a_position_and_no_secret() {
        let unknown = |name: &str, at| ConnInfoError::UnknownKeyword { name: name.to_owned(), at };
        let table = [
            ("host=/nx x", ConnInfoError::MissingEquals { at: 10 }),
            ("mydb", ConnInfoError::MissingEquals { at: 1 }),
            ("host='/n''x' port=6", ConnInfoError::MissingEquals { at: 10 }),
            ("host=/nx password='a", ConnInfoError::UnterminatedQuote { at: 19 }),
            (r"host='a\", ConnInfoError::UnterminatedQuote { at: 6 }),
            (r"host='a\'", ConnInfoError::UnterminatedQuote { at: 6 }),
            ("=x", unknown("", 1)),
            ("Host=x", unknown("Host", 1)),
            ("host=x foo=1", unknown("foo", 8)),
            ("password=se cret=1", unknown("***", 13)),
            ("Postgres://u:secret@h?sslmode=x", unknown("***", 1)),
        ];
        for (text, expected) in table {
            let error = parse(text).err();
            assert!(!format!("{error:?}").contains("cret"), "{text}");
            assert_eq!(error, Some(expected), "{text}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        let pairs = [("user", r"a'\ b"), ("dbname", ""), ("host", "/var/run"), ("port", "5_4.A")];
        let text = write(pairs.into_iter());
        assert_eq!(text, r"user='a\'\\ b' dbname='' host='/var/run' port=5_4.A");
        assert_eq!(read(&text), pairs.map(|(k, v)| (k, v.to_owned())));
    }
}
