//! Files of settings, as `postgresql.conf` is one: bytes in, names and values out.

/// A line of a file of settings that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The parameter in lower case, or `include`, `include_if_exists`, `include_dir`.
    pub name: String,
    /// Its value, without quotes.
    pub value: String,
    /// The line's number, from 1 on.
    pub line: usize,
}

impl Setting {
    /// Whether it names other files instead of setting a parameter.
    #[must_use]
    pub fn is_include(&self) -> bool {
        matches!(self.name.as_str(), "include" | "include_if_exists" | "include_dir")
    }
}

/// What a file of settings says, line by line, in order: the last one of a name counts. Lines that the server could
/// not understand either are left out. By the rules of PostgreSQL's `guc-file.l`.
#[must_use]
pub fn parse_settings(bytes: &[u8]) -> Vec<Setting> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().enumerate().filter_map(|(index, line)| parse_line(line, index + 1)).collect()
}

fn parse_line(text: &str, line: usize) -> Option<Setting> {
    let text = text.trim_start();
    let end = text.find(|c: char| !is_name(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end)?;
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let (value, after) =
        if let Some(quoted) = rest.strip_prefix('\'') { parse_quoted(quoted)? } else { parse_bare(rest) };
    let after = after.trim_start();
    let complete = after.is_empty() || after.starts_with('#');
    (complete && (!value.is_empty() || rest.starts_with('\''))).then(|| Setting {
        name: name.to_ascii_lowercase(),
        value,
        line,
    })
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.' || !c.is_ascii()
}

fn parse_bare(text: &str) -> (String, &str) {
    let end = text.find(|c: char| c.is_whitespace() || c == '#' || c == '\'').unwrap_or(text.len());
    let (value, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    (value.to_owned(), rest)
}

/// The text up to the closing quote, with doubled quotes and backslashes resolved, and what comes after it.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\'' if text.get(at + 1..).is_some_and(|rest| rest.starts_with('\'')) => {
                characters.next();
                value.push('\'');
            }
            '\'' => return Some((value, text.get(at + 1..).unwrap_or_default())),
            '\\' => {
                let (_, escaped) = characters.next()?;
                push_escaped(escaped, &mut characters, &mut value);
            }
            other => value.push(other),
        }
    }
    None
}

/// Resolves what a backslash begins: a letter for a control character, an octal number, the character itself.
fn push_escaped(escaped: char, rest: &mut std::str::CharIndices<'_>, value: &mut String) {
    match escaped {
        'b' => value.push('\u{8}'),
        'f' => value.push('\u{c}'),
        'n' => value.push('\n'),
        'r' => value.push('\r'),
        't' => value.push('\t'),
        '0'..='7' => {
            let mut number = escaped.to_digit(8).unwrap_or(0);
            for _ in 0..2 {
                let Some(digit) = rest.clone().next().and_then(|(_, c)| c.to_digit(8)) else { break };
                rest.next();
                number = number * 8 + digit;
            }
            value.push(char::from_u32(number).unwrap_or('\u{fffd}'));
        }
        other => value.push(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_the_server_reads_them() {
        let cases = [
            ("port = 5432", Some(("port", "5432"))),
            ("port 5432", Some(("port", "5432"))),
            ("  Port=5432 # of old", Some(("port", "5432"))),
            ("port=5432#x", Some(("port", "5432"))),
            ("log_directory = 'a b'", Some(("log_directory", "a b"))),
            ("x = 'it''s'", Some(("x", "it's"))),
            (r"x = 'it\'s \\ \t\101'", Some(("x", "it's \\ \tA"))),
            ("x = ''", Some(("x", ""))),
            ("include_dir 'conf.d'", Some(("include_dir", "conf.d"))),
            ("my.param = on", Some(("my.param", "on"))),
            ("# port = 1", None),
            ("", None),
            ("port", None),
            ("port =", None),
            ("port = 1 2", None),
            ("x = 'open", None),
            ("x = 'a' b", None),
            ("9x = 1", None),
        ];
        for (line, expected) in cases {
            let found = parse_settings(line.as_bytes());
            let found = found.first().map(|setting| (setting.name.as_str(), setting.value.as_str()));
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn lines_have_their_numbers() {
        let found = parse_settings(b"\n# x\na = 1\r\nb = 2\n\xff\xfe\na = 3");
        let found: Vec<_> = found.iter().map(|s| (s.line, s.name.as_str(), s.value.as_str())).collect();
        assert_eq!(found, [(3, "a", "1"), (4, "b", "2"), (6, "a", "3")]);
    }
}
