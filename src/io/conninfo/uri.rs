//! libpq's connection URIs: `postgresql://[user[:password]@][host][:port][/dbname][?key=value&...]`.

use percent_encoding::percent_decode_str;

use super::error::ConnInfoError;
use super::keyvalue::is_space;
use super::settings::Settings;

/// The part behind the scheme, if this is a URI. The scheme is case-sensitive, as in libpq.
pub(super) fn body(text: &str) -> Option<&str> {
    text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"))
}

/// Reads a URI whose part behind the scheme is `body`.
///
/// libpq's rules, with one restriction: an `@` in host or database name must be
/// written `%40`, because there it is nearly always the end of a badly encoded password.
///
/// # Errors
///
/// A broken URI, with a position and without any of its text, or an unknown query parameter.
pub(super) fn parse(text: &str, body: &str) -> Result<Settings, ConnInfoError> {
    let mut reader = Reader { text, settings: Settings::default() };
    let rest = reader.user_info(body)?;
    let rest = reader.hosts(rest)?;
    let (dbname, rest) = match rest.strip_prefix('/') {
        Some(rest) => split_before(rest, "?"),
        None => ("", rest),
    };
    if !dbname.is_empty() {
        let decoded = reader.part(dbname)?;
        reader.settings.store("dbname", &decoded, reader.at(dbname))?;
    }
    reader.query(rest.strip_prefix('?').unwrap_or_default())?;
    Ok(reader.settings)
}

struct Reader<'t> {
    text: &'t str,
    settings: Settings,
}

impl<'t> Reader<'t> {
    /// User name and password, if an `@` comes before the first slash. Returns what follows.
    fn user_info(&mut self, body: &'t str) -> Result<&'t str, ConnInfoError> {
        let (info, after) = split_before(body, "@/");
        let Some(rest) = after.strip_prefix('@') else { return Ok(body) };
        let (user, password) = info.split_once(':').unwrap_or((info, ""));
        for (keyword, value) in [("user", user), ("password", password)] {
            self.store_decoded(keyword, value)?;
        }
        Ok(rest)
    }

    /// A host name, an address or an IPv6 address in brackets, and what follows it.
    fn host(&self, rest: &'t str) -> Result<(&'t str, &'t str), ConnInfoError> {
        let Some(inner) = rest.strip_prefix('[') else {
            return Ok(split_before(rest, ":/?,"));
        };
        let Some((host, after)) = inner.split_once(']') else {
            return Err(self.error(rest, "the bracket of the IPv6 address is not closed"));
        };
        if host.is_empty() {
            return Err(self.error(inner, "the IPv6 address is empty"));
        }
        if !after.is_empty() && !after.starts_with([':', '/', '?', ',']) {
            return Err(self.error(after, "expected \":\", \"/\" or \"?\" after the IPv6 address"));
        }
        Ok((host, after))
    }

    /// Hosts and their ports, and what follows them. Lists are stored as such.
    fn hosts(&mut self, mut rest: &'t str) -> Result<&'t str, ConnInfoError> {
        let at = self.at(rest);
        let (mut hosts, mut ports) = (String::new(), String::new());
        // What is white space only hides a variable.
        let (mut has_hosts, mut has_ports) = (false, false);
        loop {
            let (host, after) = self.host(rest)?;
            hosts.push_str(&self.part(host)?);
            has_hosts |= !host.is_empty();
            rest = after;
            if let Some(after) = rest.strip_prefix(':') {
                let (port, after) = split_before(after, "/?,");
                ports.push_str(&self.part(port)?);
                has_ports |= !port.is_empty();
                rest = after;
            }
            let Some(after) = rest.strip_prefix(',') else { break };
            hosts.push(',');
            ports.push(',');
            (has_hosts, has_ports) = (true, true);
            rest = after;
        }
        if has_hosts {
            self.settings.store("host", &hosts, at)?;
        }
        if has_ports {
            self.settings.store("port", &ports, at)?;
        }
        Ok(rest)
    }

    /// A host, a port or the database name, decoded.
    fn part(&self, value: &'t str) -> Result<String, ConnInfoError> {
        match value.find('@') {
            None => self.decode(value),
            Some(at) => {
                let problem = "unexpected \"@\" (in user name and password write @ as %40 and / as %2F)";
                Err(self.error(value.get(at..).unwrap_or_default(), problem))
            }
        }
    }

    /// Stores an encoded value. An empty part counts as left out, so that the environment can fill
    /// it in.
    fn store_decoded(&mut self, keyword: &'static str, value: &'t str) -> Result<(), ConnInfoError> {
        if value.is_empty() {
            return Ok(());
        }
        let decoded = self.decode(value)?;
        self.settings.store(keyword, &decoded, self.at(value))
    }

    /// The parameters behind the question mark.
    fn query(&mut self, mut rest: &'t str) -> Result<(), ConnInfoError> {
        while !rest.is_empty() {
            let (pair, after) = rest.split_once('&').unwrap_or((rest, ""));
            let Some((keyword, value)) = pair.split_once('=') else {
                return Err(self.error(rest, "a query parameter has no \"=\""));
            };
            if let Some((_, extra)) = value.split_once('=') {
                return Err(self.error(extra, "a query parameter has a second \"=\" (write it as %3D)"));
            }
            let (name, value) = (self.decode(keyword)?, self.decode(value)?);
            // The one JDBC parameter that libpq translates.
            match (name.as_str(), value.as_str()) {
                ("ssl", "true") => self.settings.store("sslmode", "require", self.at(keyword))?,
                (name, value) => self.settings.store(name, value, self.at(keyword))?,
            }
            rest = after;
        }
        Ok(())
    }

    /// Undoes percent-encoding. White space around a value is dropped and white space inside must
    /// be encoded (libpq since PostgreSQL 17).
    fn decode(&self, value: &'t str) -> Result<String, ConnInfoError> {
        let value = value.trim_matches(is_space);
        if let Some(at) = value.find(is_space) {
            let problem = "unexpected white space (write a space as %20)";
            return Err(self.error(value.get(at..).unwrap_or_default(), problem));
        }
        for (at, _) in value.match_indices('%') {
            let token = value.get(at..).unwrap_or_default();
            match token.as_bytes() {
                [_, b'0', b'0', ..] => return Err(self.error(token, "%00 is not allowed")),
                [_, hi, lo, ..] if hi.is_ascii_hexdigit() && lo.is_ascii_hexdigit() => {}
                _ => return Err(self.error(token, "\"%\" must be followed by two hexadecimal digits")),
            }
        }
        let decoded = percent_decode_str(value).decode_utf8();
        decoded.map(String::from).map_err(|_| self.error(value, "the value is not valid UTF-8 once decoded"))
    }

    fn error(&self, rest: &str, problem: &'static str) -> ConnInfoError {
        ConnInfoError::Uri { at: self.at(rest), problem }
    }

    /// Position, from 1, of a part of the text.
    fn at(&self, part: &str) -> usize {
        (part.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize) + 1
    }
}

/// Splits before the first of these characters, or at the end.
fn split_before<'a>(text: &'a str, stops: &str) -> (&'a str, &'a str) {
    text.split_at(text.find(|c| stops.contains(c)).unwrap_or(text.len()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(&'static str, String)>, ConnInfoError> {
        let settings = parse(text, body(text).unwrap())?;
        Ok(settings.iter().map(|(keyword, given)| (keyword.name, given.text.to_owned())).collect())
    }

    #[test]
    fn knows_a_uri_by_its_scheme() {
        assert_eq!(body("postgres://x"), Some("x"));
        assert_eq!(body("postgresql://"), Some(""));
        for text in ["Postgres://x", " postgres://x", "postgres:/x", "host=postgres://"] {
            assert_eq!(body(text), None, "{text}");
        }
    }

    /// The outcomes are those of PQconninfoParse in libpq 18.
    #[test]
    fn reads_what_libpq_reads() {
        let table: &[(&str, &[(&str, &str)])] = &[
            ("postgresql://", &[]),
            ("postgres:///", &[]),
            ("postgresql:// /db", &[("dbname", "db"), ("host", "")]),
            ("postgresql://h", &[("host", "h")]),
            ("postgresql://h:", &[("host", "h")]),
            ("postgresql://:7", &[("port", "7")]),
            ("postgresql://@h", &[("host", "h")]),
            ("postgresql://u@", &[("user", "u")]),
            (
                "postgresql://u:p@h:7/d",
                &[("user", "u"), ("password", "p"), ("dbname", "d"), ("host", "h"), ("port", "7")],
            ),
            ("postgresql://:p@h", &[("password", "p"), ("host", "h")]),
            ("postgresql://u:a:b?c@h", &[("user", "u"), ("password", "a:b?c"), ("host", "h")]),
            ("postgresql://u%40x:p%3a%2F%25@h", &[("user", "u@x"), ("password", "p:/%"), ("host", "h")]),
            ("postgresql://%2Frun%2fpg/d/e", &[("dbname", "d/e"), ("host", "/run/pg")]),
            ("postgresql:///d?host=/run/pg&port=7&", &[("dbname", "d"), ("host", "/run/pg"), ("port", "7")]),
            ("postgresql://[::1]:7/d", &[("dbname", "d"), ("host", "::1"), ("port", "7")]),
            ("postgresql://[::1]?%64bname=d", &[("dbname", "d"), ("host", "::1")]),
            ("postgresql://a,b", &[("host", "a,b"), ("port", ",")]),
            ("postgresql://a:1,[::1]:2,:3/d", &[("dbname", "d"), ("host", "a,::1,"), ("port", "1,2,3")]),
            ("postgresql://u@%2Frun,b:2?port=5", &[("user", "u"), ("host", "/run,b"), ("port", "5")]),
            ("postgresql://h?host=g", &[("host", "g")]),
            ("postgresql://h/d?ssl=true", &[("dbname", "d"), ("host", "h"), ("sslmode", "require")]),
            ("postgresql://h/?options=-c%20a%3Db", &[("host", "h"), ("options", "-c a=b")]),
            ("postgresql://h?application_name=", &[("host", "h"), ("application_name", "")]),
            ("postgresql://h/%C3%A9", &[("dbname", "\u{e9}"), ("host", "h")]),
        ];
        for (text, expected) in table {
            let expected: Vec<_> = expected.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
            assert_eq!(read(text).as_ref(), Ok(&expected), "{text}");
        }
    }

    #[test]
    fn refuses_with_a_position_and_no_secret() {
        let table = [
            ("postgresql://[::1", "at position 14: the bracket"),
            ("postgresql://[]", "at position 15: the IPv6 address is empty"),
            ("postgresql://[::1]x", "at position 19: expected"),
            ("postgresql://h/%zz", "at position 16: \"%\""),
            ("postgresql://h/a%4", "at position 17: \"%\""),
            ("postgresql://h/%", "at position 16: \"%\""),
            ("postgresql://h/%\u{e9}", "at position 16: \"%\""),
            ("postgresql://h/%00", "at position 16: %00"),
            ("postgresql://h/%ff", "at position 16: the value is not valid UTF-8"),
            ("postgresql://h x/", "at position 15: unexpected white space"),
            ("postgresql://u:se@cret@h/", "at position 23: unexpected \"@\""),
            ("postgresql://u:se/cret@h/", "at position 23: unexpected \"@\""),
            ("postgresql://u:%secret@h/", "at position 16: \"%\""),
            ("postgresql://h?a", "at position 16: a query parameter has no"),
            ("postgresql://h?port=1&&", "at position 23: a query parameter has no"),
            ("postgresql://h?port=7=8", "at position 23: a query parameter has a second"),
            ("postgresql://h?Foo=1", "invalid connection option \"Foo\" at position 16"),
            ("postgresql://h?ssl=false", "invalid connection option \"ssl\" at position 16"),
            ("postgresql://h?password=se&cret=1", "invalid connection option \"***\" at position 28"),
        ];
        for (text, expected) in table {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
            assert!(!message.contains("cret"), "{message}");
        }
    }
}
