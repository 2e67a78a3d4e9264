//! From the words of a connection string to typed values.

use std::time::Duration;

use postgres::config::ChannelBinding;

use super::error::ConnInfoError;
use super::keyvalue::is_space;
use super::settings::{Given, Settings};

/// How much TLS is wanted (`sslmode`), in the order in which more is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only if the server insists.
    Allow,
    /// If the server offers it (libpq's default).
    Prefer,
    /// Always, whoever the server is.
    Require,
    /// Always, and the certificate must lead to a trusted one.
    VerifyCa,
    /// As [`SslMode::VerifyCa`], and the certificate must be made out to the host.
    VerifyFull,
}

/// What the session must be able to do, or the server be (`target_session_attrs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetSession {
    /// Anything.
    Any,
    /// The session can write unless it is told otherwise.
    ReadWrite,
    /// The session cannot write.
    ReadOnly,
    /// The server is no standby.
    Primary,
    /// The server is a standby.
    Standby,
    /// The server is a standby; where there is none, any server will do.
    PreferStandby,
}

/// TCP keepalive settings. `None` is the operating system's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keepalives {
    /// Whether keepalives are sent (`keepalives`, default yes).
    pub enabled: bool,
    /// Silence before the first one, whole seconds (`keepalives_idle`).
    pub idle: Option<Duration>,
    /// Time between two, whole seconds (`keepalives_interval`).
    pub interval: Option<Duration>,
    /// How many may be lost before the connection counts as dead (`keepalives_count`).
    pub count: Option<u32>,
}

const NO_KERBEROS: &str = "Kerberos encryption is not supported";

/// A word a setting can have, and its meaning or why it is refused.
pub(super) type Word<T> = (&'static str, Result<T, &'static str>);

const SSL_MODES: &[Word<SslMode>] = &[
    ("disable", Ok(SslMode::Disable)),
    ("allow", Ok(SslMode::Allow)),
    ("prefer", Ok(SslMode::Prefer)),
    ("require", Ok(SslMode::Require)),
    ("verify-ca", Ok(SslMode::VerifyCa)),
    ("verify-full", Ok(SslMode::VerifyFull)),
];

const GSS_MODES: &[Word<()>] = &[("disable", Ok(())), ("prefer", Ok(())), ("require", Err(NO_KERBEROS))];

const PROTOCOLS: &str = "3.0, 3.2 or latest";
/// The protocol that is spoken, and the one after it, which servers know since 18.
const MINIMUM_PROTOCOLS: &[Word<u8>] = &[("3.0", Ok(0)), ("3.2", Err(ONLY_3_0)), ("latest", Err(ONLY_3_0))];
const MAXIMUM_PROTOCOLS: &[Word<u8>] = &[("3.0", Ok(0)), ("3.2", Ok(2)), ("latest", Ok(2))];
const ONLY_3_0: &str = "protocol 3.0 is spoken here";
const NO_REPLICATION: &str = "a connection for replication answers no queries";

const CHANNEL_BINDINGS: &[Word<ChannelBinding>] = &[
    ("disable", Ok(ChannelBinding::Disable)),
    ("prefer", Ok(ChannelBinding::Prefer)),
    ("require", Ok(ChannelBinding::Require)),
];

const TARGET_SESSIONS: &[Word<TargetSession>] = &[
    ("any", Ok(TargetSession::Any)),
    ("read-write", Ok(TargetSession::ReadWrite)),
    ("read-only", Ok(TargetSession::ReadOnly)),
    ("primary", Ok(TargetSession::Primary)),
    ("standby", Ok(TargetSession::Standby)),
    ("prefer-standby", Ok(TargetSession::PreferStandby)),
];

const LOAD_BALANCE: &[Word<bool>] = &[("disable", Ok(false)), ("random", Ok(true))];

/// `sslmode`.
pub(super) fn ssl_mode(settings: &Settings) -> Result<SslMode, ConnInfoError> {
    let expected = "disable, allow, prefer, require, verify-ca or verify-full";
    Ok(word(settings.get("sslmode"), SSL_MODES, expected)?.unwrap_or(SslMode::Prefer))
}

/// `gssencmode`, of which nothing remains once it is checked: Kerberos is never attempted.
pub(super) fn check_gss_mode(settings: &Settings) -> Result<(), ConnInfoError> {
    word(settings.get("gssencmode"), GSS_MODES, "disable, prefer or require").map(|_| ())
}

/// `min_protocol_version` and `max_protocol_version`, of which nothing remains once they are checked.
pub(super) fn check_protocols(settings: &Settings) -> Result<(), ConnInfoError> {
    word(settings.non_empty("min_protocol_version"), MINIMUM_PROTOCOLS, PROTOCOLS)?;
    word(settings.non_empty("max_protocol_version"), MAXIMUM_PROTOCOLS, PROTOCOLS).map(|_| ())
}

/// `replication`: whatever asks for it is refused. A server takes any beginning of a word that says no.
pub(super) fn check_replication(settings: &Settings) -> Result<(), ConnInfoError> {
    let Some(given) = settings.non_empty("replication") else { return Ok(()) };
    let text = given.text.to_ascii_lowercase();
    let says_no = "false".starts_with(&text) || "no".starts_with(&text) || matches!(text.as_str(), "of" | "off" | "0");
    if says_no {
        return Ok(());
    }
    Err(ConnInfoError::NotSupported { setting: given.setting, reason: NO_REPLICATION })
}

/// `channel_binding`.
pub(super) fn channel_binding(settings: &Settings) -> Result<ChannelBinding, ConnInfoError> {
    let given = settings.get("channel_binding");
    Ok(word(given, CHANNEL_BINDINGS, "disable, prefer or require")?.unwrap_or(ChannelBinding::Prefer))
}

/// `target_session_attrs`.
pub(super) fn target_session(settings: &Settings) -> Result<TargetSession, ConnInfoError> {
    let expected = "any, read-write, read-only, primary, standby or prefer-standby";
    let given = settings.get("target_session_attrs");
    Ok(word(given, TARGET_SESSIONS, expected)?.unwrap_or(TargetSession::Any))
}

/// `load_balance_hosts`: whether servers are tried in random order.
pub(super) fn is_shuffled(settings: &Settings) -> Result<bool, ConnInfoError> {
    Ok(word(settings.get("load_balance_hosts"), LOAD_BALANCE, "disable or random")?.unwrap_or(false))
}

/// Finds a word in its list. Empty is not a word, as in libpq.
pub(super) fn word<T: Copy>(
    given: Option<Given<'_>>,
    words: &[Word<T>],
    expected: &'static str,
) -> Result<Option<T>, ConnInfoError> {
    let Some(given) = given else { return Ok(None) };
    match words.iter().find(|(name, _)| *name == given.text) {
        None => Err(given.invalid(expected)),
        Some((_, Ok(meaning))) => Ok(Some(*meaning)),
        Some((value, Err(reason))) => Err(ConnInfoError::ValueNotSupported { setting: given.setting, value, reason }),
    }
}

/// The four keepalive settings.
pub(super) fn keepalives(settings: &Settings) -> Result<Keepalives, ConnInfoError> {
    Ok(Keepalives {
        enabled: number(settings, "keepalives")?.is_none_or(|value| value != 0),
        idle: seconds(settings, "keepalives_idle")?,
        interval: seconds(settings, "keepalives_interval")?,
        count: positive(settings, "keepalives_count")?,
    })
}

/// A number of seconds; none if zero or less, as in libpq.
pub(super) fn seconds(settings: &Settings, name: &str) -> Result<Option<Duration>, ConnInfoError> {
    Ok(positive(settings, name)?.map(|value| Duration::from_secs(value.into())))
}

/// A number of milliseconds; none if zero or less, as in libpq.
pub(super) fn milliseconds(settings: &Settings, name: &str) -> Result<Option<Duration>, ConnInfoError> {
    Ok(positive(settings, name)?.map(|value| Duration::from_millis(value.into())))
}

fn positive(settings: &Settings, name: &str) -> Result<Option<u32>, ConnInfoError> {
    Ok(number(settings, name)?.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0))
}

/// An integer; none if the value is empty or absent.
fn number(settings: &Settings, name: &str) -> Result<Option<i32>, ConnInfoError> {
    let Some(given) = settings.non_empty(name) else { return Ok(None) };
    let number = i32::try_from(integer(given.text)).map(Some);
    number.map_err(|_| given.invalid("an integer"))
}

/// An integer with white space around it, as `strtol` reads it; far out of every range if it is
/// none.
pub(super) fn integer(text: &str) -> i64 {
    text.trim_matches(is_space).parse().unwrap_or(i64::MAX)
}
