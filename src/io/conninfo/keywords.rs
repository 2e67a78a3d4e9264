//! libpq's connection keywords up to PostgreSQL 19, in libpq's order, and what becomes of each.

/// What this program does with a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// Acted on as libpq would (perhaps not for every value).
    Understood,
    /// Acted on here and never handed on: what it has led to is.
    Consumed,
    /// Accepted without effect here, because it only matters to things this program never does:
    /// Kerberos, OAuth, TLS compression, an encoding other than UTF-8. Handed on to the standby.
    Ignored,
    /// Accepted and ignored by libpq 13, refused by later ones, so never handed on.
    Obsolete,
    /// Refused, for this reason.
    Refused(&'static str),
}

/// One connection keyword of libpq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keyword {
    /// The keyword as written in a connection string.
    pub name: &'static str,
    /// Environment variable with the default, if libpq has one.
    pub variable: Option<&'static str>,
    /// What becomes of it.
    pub handling: Handling,
    /// Values that mean the same as leaving it out. They are not handed on: older versions of libpq may not know the
    /// keyword.
    pub neutral: &'static [&'static str],
}

impl Keyword {
    const fn neutral(self, neutral: &'static [&'static str]) -> Self {
        Self { neutral, ..self }
    }

    /// Whether the value is secret and must never be printed or stored.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        matches!(
            self.name,
            "password" | "sslpassword" | "scram_client_key" | "scram_server_key" | "oauth_client_secret"
        )
    }
}

const fn row(name: &'static str, variable: &'static str, handling: Handling) -> Keyword {
    let variable = if variable.is_empty() { None } else { Some(variable) };
    Keyword { name, variable, handling, neutral: &[] }
}

use Handling::{Consumed, Ignored, Obsolete, Refused, Understood};

const KEYS: Handling = Refused("SCRAM takes a password here, not keys made of one");

/// Every keyword of libpq 13 to 19, in the order of libpq 19 (`PQconninfoOptions`), with the two
/// that libpq 13 still accepted where that version had them.
pub const KEYWORDS: &[Keyword] = &[
    row("authtype", "", Obsolete),
    row("service", "PGSERVICE", Consumed),
    row("servicefile", "PGSERVICEFILE", Consumed),
    row("user", "PGUSER", Understood),
    row("password", "PGPASSWORD", Understood),
    row("passfile", "PGPASSFILE", Understood),
    row("channel_binding", "PGCHANNELBINDING", Understood),
    row("connect_timeout", "PGCONNECT_TIMEOUT", Understood),
    row("dbname", "PGDATABASE", Understood),
    row("host", "PGHOST", Understood),
    row("hostaddr", "PGHOSTADDR", Understood),
    row("port", "PGPORT", Understood),
    row("client_encoding", "PGCLIENTENCODING", Ignored),
    row("tty", "", Obsolete),
    row("options", "PGOPTIONS", Understood),
    row("application_name", "PGAPPNAME", Understood),
    row("fallback_application_name", "", Understood),
    row("keepalives", "", Understood),
    row("keepalives_idle", "", Understood),
    row("keepalives_interval", "", Understood),
    row("keepalives_count", "", Understood),
    row("tcp_user_timeout", "", Understood),
    row("sslmode", "PGSSLMODE", Understood),
    row("sslnegotiation", "PGSSLNEGOTIATION", Understood).neutral(&["postgres"]),
    row("sslcompression", "PGSSLCOMPRESSION", Ignored),
    row("sslcert", "PGSSLCERT", Understood),
    row("sslkey", "PGSSLKEY", Understood),
    row("sslcertmode", "PGSSLCERTMODE", Understood).neutral(&["allow"]),
    row("sslpassword", "", Understood),
    row("sslrootcert", "PGSSLROOTCERT", Understood),
    row("sslcrl", "PGSSLCRL", Understood),
    row("sslcrldir", "PGSSLCRLDIR", Understood),
    row("sslsni", "PGSSLSNI", Understood).neutral(&["1"]),
    row("requirepeer", "PGREQUIREPEER", Understood),
    row("require_auth", "PGREQUIREAUTH", Understood),
    row("min_protocol_version", "PGMINPROTOCOLVERSION", Understood).neutral(&["3.0"]),
    row("max_protocol_version", "PGMAXPROTOCOLVERSION", Understood).neutral(&["3.0", "3.2", "latest"]),
    row("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Understood).neutral(&["TLSv1.2"]),
    row("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Understood),
    row("gssencmode", "PGGSSENCMODE", Understood),
    row("krbsrvname", "PGKRBSRVNAME", Ignored),
    row("gsslib", "PGGSSLIB", Ignored),
    row("gssdelegation", "PGGSSDELEGATION", Ignored).neutral(&["0"]),
    row("replication", "", Consumed),
    row("target_session_attrs", "PGTARGETSESSIONATTRS", Understood),
    row("load_balance_hosts", "PGLOADBALANCEHOSTS", Understood).neutral(&["disable"]),
    row("scram_client_key", "", KEYS),
    row("scram_server_key", "", KEYS),
    row("oauth_issuer", "", Ignored),
    row("oauth_client_id", "", Ignored),
    row("oauth_client_secret", "", Ignored),
    row("oauth_scope", "", Ignored),
    row("oauth_ca_file", "PGOAUTHCAFILE", Ignored),
    row("sslkeylogfile", "", Understood),
];

/// Position of a keyword in [`KEYWORDS`]. Keywords are case-sensitive, as in libpq.
pub(super) fn find(name: &str) -> Option<usize> {
    KEYWORDS.iter().position(|keyword| keyword.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_variables_are_unique() {
        for (index, keyword) in KEYWORDS.iter().enumerate() {
            assert_eq!(find(keyword.name), Some(index));
            let twins =
                KEYWORDS.iter().filter(|other| keyword.variable.is_some() && other.variable == keyword.variable);
            assert!(twins.count() <= 1, "{}", keyword.name);
        }
        assert_eq!(find("User"), None);
        assert_eq!(KEYWORDS.len(), 54);
    }
}
