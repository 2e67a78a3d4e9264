//! `require_auth`: which ways of proving who the client is it is willing to take part in.

use super::error::ConnInfoError;
use super::settings::{Given, Settings};

/// A way in which a server asks who the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// The password itself.
    Password,
    /// A hash of the password.
    Md5,
    /// A proof that the client knows the password.
    Scram,
    /// Another one, which is never taken part in: GSSAPI, SSPI, OAuth.
    Other,
}

/// The ways that are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequiredAuth {
    password: bool,
    md5: bool,
    scram: bool,
    /// Whether the server must ask at all.
    pub must_ask: bool,
}

impl RequiredAuth {
    /// Whether the client may take part in this.
    #[must_use]
    pub fn allows(&self, method: AuthMethod) -> bool {
        match method {
            AuthMethod::Password => self.password,
            AuthMethod::Md5 => self.md5,
            AuthMethod::Scram => self.scram,
            AuthMethod::Other => true,
        }
    }
}

const METHODS: [&str; 7] = ["password", "md5", "gss", "sspi", "scram-sha-256", "oauth", "none"];
const EXPECTED: &str = "a list of password, md5, gss, sspi, scram-sha-256, oauth and none, each at most once, all with a ! \
                        in front or none";

/// `require_auth`; none where everything is allowed.
pub(super) fn required_auth(settings: &Settings) -> Result<Option<RequiredAuth>, ConnInfoError> {
    settings.non_empty("require_auth").map(parse).transpose()
}

fn parse(given: Given<'_>) -> Result<RequiredAuth, ConnInfoError> {
    let invalid = || given.invalid(EXPECTED);
    let is_negative = given.text.starts_with('!');
    let mut named: Vec<&str> = Vec::new();
    for item in given.text.split(',') {
        let (negated, name) = item.strip_prefix('!').map_or((false, item), |name| (true, name));
        if negated != is_negative || named.contains(&name) || !METHODS.contains(&name) {
            return Err(invalid());
        }
        named.push(name);
    }
    let allowed = |name| named.contains(&name) != is_negative;
    Ok(RequiredAuth {
        password: allowed("password"),
        md5: allowed("md5"),
        scram: allowed("scram-sha-256"),
        must_ask: !allowed("none"),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Result<[bool; 4], String>> {
        let mut settings = Settings::default();
        settings.store("require_auth", text, 1).unwrap();
        let shown = |auth: RequiredAuth| [auth.password, auth.md5, auth.scram, auth.must_ask];
        required_auth(&settings).map(|auth| auth.map(shown)).map_err(|error| error.to_string()).transpose()
    }

    #[test]
    fn a_list_allows_or_forbids() {
        let table = [
            ("", None),
            ("password", Some([true, false, false, true])),
            ("md5,scram-sha-256", Some([false, true, true, true])),
            ("none", Some([false, false, false, false])),
            ("scram-sha-256,none", Some([false, false, true, false])),
            ("gss,sspi,oauth", Some([false, false, false, true])),
            ("!password", Some([false, true, true, false])),
            ("!password,!none", Some([false, true, true, true])),
            ("!none", Some([true, true, true, true])),
        ];
        for (text, expected) in table {
            assert_eq!(read(text), expected.map(Ok), "{text}");
        }
        for text in ["s3cret", "md5,md5", "!md5,!md5", "md5,!none", "!md5,none", "md5,", ",md5", "!", " md5", "!!md5"] {
            let error = read(text).unwrap().unwrap_err();
            assert!(error.contains("\"require_auth\": expected a list of") && !error.contains("s3cret"), "{error}");
        }
    }
}
