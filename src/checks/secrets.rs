//! What of a configuration may be shown: a manifest is read by many, and must not hold a secret.
//!
//! Where it is not known that a value is harmless, it is not shown. Comments are never shown: they may say anything.

use crate::format::parse_settings;
use crate::types::{ClusterPath, plain};

/// What stands for a value that is not shown.
pub(super) const HIDDEN: &str = "***";

/// Parts of the names of things that are secret, or of what tells of them.
const SECRET_WORDS: [&str; 13] = [
    "passwd",
    "password",
    "passphrase",
    "secret",
    "token",
    "credential",
    "apikey",
    "api_key",
    "access_key",
    "private_key",
    "encryption_key",
    "signature",
    "-----begin",
];

/// Settings whose names tell of secrets, and whose values are none.
const HARMLESS: [&str; 1] = ["password_encryption"];

/// Settings that name files, directories and slots: a plan goes by them.
const NAMES: [&str; 6] =
    ["data_directory", "include", "include_dir", "include_if_exists", "log_directory", "primary_slot_name"];

/// Settings of connections that are no secrets, as libpq names them.
const CONNECTION: [&str; 25] = [
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "gssencmode",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "port",
    "require_auth",
    "sslcert",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
    "sslkey",
    "sslcompression",
];

/// Options of records in `pg_hba.conf` that are no secrets.
const HBA_OPTIONS: [&str; 19] = [
    "map",
    "clientcert",
    "clientname",
    "include_realm",
    "krb_realm",
    "compat_realm",
    "upn_username",
    "ldapserver",
    "ldapport",
    "ldapscheme",
    "ldaptls",
    "ldapprefix",
    "ldapsuffix",
    "ldapbasedn",
    "ldapbinddn",
    "ldapsearchattribute",
    "pamservice",
    "pam_use_hostname",
    "radiusservers",
];

/// A file of configuration with what may be shown of it, and no comments: of settings where `has_settings` says so, of
/// records where its name does, otherwise empty. What [`super::configuration`] shows of it is what it shows of the file.
#[must_use]
pub fn without_secrets(path: &ClusterPath, has_settings: bool, bytes: &[u8]) -> Vec<u8> {
    let mut lines = if bytes.contains(&0) {
        Vec::new()
    } else if has_settings {
        let settings = parse_settings(bytes).into_iter();
        settings
            .map(|setting| format!("{} = '{}'", setting.name, quoted(&shown_value(&setting.name, &setting.value))))
            .collect()
    } else if is_records(path) {
        shown_records(bytes)
    } else {
        Vec::new()
    };
    lines.push(String::new());
    lines.join("\n").into_bytes()
}

/// Whether a file holds records, as `pg_hba.conf` does.
pub(super) fn is_records(path: &ClusterPath) -> bool {
    matches!(path.as_bytes(), b"pg_hba.conf" | b"pg_ident.conf")
}

/// A value as it stands between quotes in a file of settings.
fn quoted(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\'', "''")
}

/// A setting as `name = value`.
pub(super) fn shown_setting(name: &str, value: &str) -> String {
    format!("{} = {}", plain(name), shown_value(name, value))
}

fn shown_value(name: &str, value: &str) -> String {
    if name == "primary_conninfo" {
        shown_conninfo(value)
    } else if hides_value(name, value) {
        HIDDEN.to_owned()
    } else {
        plain(value)
    }
}

/// Whether a setting's value may be, or hold, a secret. Those of extensions are not known: only switches and numbers of
/// theirs are shown.
fn hides_value(name: &str, value: &str) -> bool {
    if value.is_empty() || (NAMES.contains(&name) && !value.contains("://")) {
        return false;
    }
    let is_harmless = HARMLESS.contains(&name);
    let named = name.ends_with("_command") || tells_of_secret(name);
    (named && !is_harmless) || (name.contains('.') && !is_switch(value)) || may_hold_secret(value)
}

fn tells_of_secret(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| text.contains(word))
}

/// Whether a text speaks of secrets, or holds an address with a user in it.
fn may_hold_secret(text: &str) -> bool {
    let address = text.find("://").and_then(|at| text.get(at..)).is_some_and(|rest| rest.contains('@'));
    address || tells_of_secret(text)
}

fn is_switch(value: &str) -> bool {
    let word = matches!(value.to_ascii_lowercase().as_str(), "" | "on" | "off" | "true" | "false" | "yes" | "no");
    let number = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || b"+-. ".contains(&byte));
    word || (is_number && value.len() - number.len() <= 3)
}

/// A connection string with those of its settings that are no secrets.
pub(super) fn shown_conninfo(text: &str) -> String {
    if text.contains("://") {
        return shown_uri(text);
    }
    let Some(settings) = keywords_and_values(text) else { return HIDDEN.to_owned() };
    let shown = settings.iter().map(|(keyword, value)| {
        let hidden = !CONNECTION.contains(&keyword.as_str()) || may_hold_secret(value);
        format!("{}={}", plain(keyword), if hidden { HIDDEN.to_owned() } else { conninfo_word(&plain(value)) })
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// A value as it stands in a connection string.
fn conninfo_word(value: &str) -> String {
    if !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == '\'' || c == '\\') {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
}

/// Where a connection URI leads: without the user, who may come with a password, and without parameters.
fn shown_uri(uri: &str) -> String {
    // libpq takes what comes before the at sign for user and password, question marks and all.
    let cut = uri.find(['?', '#']).unwrap_or(uri.len());
    if uri.rfind('@').is_some_and(|at| at > cut) {
        return HIDDEN.to_owned();
    }
    let (address, parameters) = uri.split_once(['?', '#']).map_or((uri, ""), |(address, _)| (address, "?***"));
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    let known = matches!(scheme, "postgres" | "postgresql");
    match rest.rsplit_once('@') {
        _ if !known => HIDDEN.to_owned(),
        Some((_, place)) => format!("{scheme}://{HIDDEN}@{}{parameters}", plain(place)),
        None => format!("{scheme}://{}{parameters}", plain(rest)),
    }
}

/// The settings of a connection string, by libpq's rules; none where it does not follow them.
fn keywords_and_values(text: &str) -> Option<Vec<(String, String)>> {
    let mut settings = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (keyword, after) = rest.split_once('=')?;
        let keyword = keyword.trim_end();
        if keyword.is_empty() || keyword.contains(|c: char| c.is_whitespace() || c == '\'' || c == '\\') {
            return None;
        }
        let (value, after) = value_of(after.trim_start())?;
        settings.push((keyword.to_ascii_lowercase(), value));
        rest = after.trim_start();
    }
    Some(settings)
}

/// A value, quoted or not, and what comes after it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let (quoted, body) = text.strip_prefix('\'').map_or((false, text), |body| (true, body));
    let mut value = String::new();
    let mut characters = body.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => value.push(characters.next()?.1),
            '\'' if quoted => return Some((value, body.get(at + 1..)?)),
            c if !quoted && c.is_whitespace() => return Some((value, body.get(at..)?)),
            c => value.push(c),
        }
    }
    (!quoted).then_some((value, ""))
}

/// The records of a `pg_hba.conf` or `pg_ident.conf`, without comments.
pub(super) fn shown_records(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n").replace("\\\n", "");
    let records = text.lines().map(words_of).filter(|words| !words.is_empty());
    records.map(|words| shown_record(&words)).collect()
}

/// A record up to the first word that tells of a secret: what comes behind that may be one.
fn shown_record(words: &[String]) -> String {
    let mut shown = Vec::new();
    for word in words {
        let (option, value) =
            word.split_once('=').map_or((word.as_str(), None), |(option, value)| (option, Some(value)));
        let is_known = value.is_none() || HBA_OPTIONS.contains(&option);
        let hidden = !is_known || may_hold_secret(value.unwrap_or(option));
        // The method of this name is no secret.
        if !hidden || word == "password" {
            shown.push(plain(word));
            continue;
        }
        shown.push(if value.is_some() { format!("{}={HIDDEN}", plain(option)) } else { HIDDEN.to_owned() });
        if tells_of_secret(word) {
            break;
        }
    }
    shown.join(" ")
}

/// The words of a record: parted by blanks outside of double quotes, up to a comment.
fn words_of(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '#' if !quoted => break,
            c if c.is_whitespace() && !quoted => words.push(std::mem::take(&mut word)),
            c => {
                quoted ^= c == '"';
                word.push(c);
            }
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        let cases = [
            ("port", "5432", "port = 5432"),
            ("work_mem", "4MB", "work_mem = 4MB"),
            ("password_encryption", "md5", "password_encryption = md5"),
            ("cluster_name", "a\u{202e}\nb", r"cluster_name = a\u{202e}\nb"),
            ("archive_command", "cp %p /a/%f", "archive_command = ***"),
            ("restore_command", "KEY=x get %f", "restore_command = ***"),
            ("restore_command", "", "restore_command = "),
            ("primary_slot_name", "token_1", "primary_slot_name = token_1"),
            ("include_dir", "secrets.d", "include_dir = secrets.d"),
            ("log_directory", "password_logs", "log_directory = password_logs"),
            ("ssl_passphrase_command", "echo x", "ssl_passphrase_command = ***"),
            ("oauth_client_secret", "x", "oauth_client_secret = ***"),
            ("event_source", "https://me:pw@host/", "event_source = ***"),
            ("search_path", "my_password", "search_path = ***"),
            ("pgext.salt", "abc", "pgext.salt = ***"),
            ("pgext.level", "12ms", "pgext.level = 12ms"),
            ("pgext.pin", "1234abcd", "pgext.pin = ***"),
            ("pgext.on", "On", "pgext.on = On"),
            ("primary_conninfo", "host=a password=b", "primary_conninfo = host=a password=***"),
        ];
        let path = ClusterPath::new(b"postgresql.conf").unwrap();
        for (name, value, expected) in cases {
            assert_eq!(shown_setting(name, value), expected);
            let line = format!("{name} = '{}' # comment", quoted(value).replace('\n', "\\n"));
            let public = without_secrets(&path, true, line.as_bytes());
            assert!(!String::from_utf8_lossy(&public).contains("comment"), "{line}");
            let again = parse_settings(&public).into_iter().map(|setting| shown_setting(&setting.name, &setting.value));
            assert_eq!(again.collect::<Vec<_>>(), [expected]);
        }
        assert_eq!(without_secrets(&ClusterPath::new(b"pg_hosts.conf").unwrap(), false, b"secret"), b"");
    }

    #[test]
    fn connection_strings() {
        let cases = [
            ("", ""),
            ("host=a  port = 5432 user='it\\'s me'", r"host=a port=5432 user='it\'s me'"),
            ("host=a PASSWORD='b c' sslpassword=d\\ e passfile=/f", "host=a password=*** sslpassword=*** passfile=***"),
            ("options='-c a=b'", "options=***"),
            ("host=a password='b", "***"),
            ("host", "***"),
            ("'host'=a", "***"),
            ("password b host=a", "***"),
            ("host=a password=b\\", "***"),
            ("postgresql://me:pw@host:1/db?password=x", "postgresql://***@host:1/db?***"),
            ("postgres://me:p@w@host/db", "postgres://***@host/db"),
            ("postgresql://me:s3cr?et@host/db", "***"),
            ("postgresql://me:s3cr#et@host/db?a=b", "***"),
            ("postgres://host/db", "postgres://host/db"),
            ("http://host/db", "***"),
            ("host=a user=x dbname=postgres://me:pw@b", "***"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown_conninfo(text), expected, "{text}");
            assert_eq!(shown_conninfo(expected), expected, "shown again");
        }
    }

    #[test]
    fn records() {
        let text = b"# password\n\
            host all all 0.0.0.0/0 scram-sha-256 # secret\r\n\
            \n\
            host \"a # b\" all all ldap ldapserver=l map=m ldapbindpasswd=\"se cret\" ldaptls=1\n\
            host all all all radius radiussecrets=\\\n  \"x,y\" radiusservers=r\n\
            host all all all ldap ldapbind\\\npasswd=x ldapurl=ldap://u:p@h\n\
            host all all all ldap ldapurl=ldap://u:p@h ldapbasedn=ldap://u:p@h ldaptls=1\n\
            local all all password\n\
            m /^(.*)@x$ \\1\n";
        let expected = [
            "host all all 0.0.0.0/0 scram-sha-256",
            "host \"a # b\" all all ldap ldapserver=l map=m ldapbindpasswd=***",
            "host all all all radius radiussecrets=***",
            "host all all all ldap ldapbindpasswd=***",
            "host all all all ldap ldapurl=*** ldapbasedn=*** ldaptls=1",
            "local all all password",
            "m /^(.*)@x$ \\1",
        ];
        assert_eq!(shown_records(text), expected);
        let path = ClusterPath::new(b"pg_hba.conf").unwrap();
        assert_eq!(shown_records(&without_secrets(&path, false, text)), expected);
    }
}
