//! From the words of a connection string to typed values.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postgres::config::{ChannelBinding, TargetSessionAttrs};

use super::error::ConnInfoError;
use super::keyvalue::is_space;
use super::settings::{Given, Settings};

/// Where the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A host name or IP address to resolve and reach by TCP.
    Tcp(String),
    /// The directory of the server's Unix socket.
    Socket(PathBuf),
}

impl Host {
    /// The host as libpq spells it.
    #[must_use]
    pub fn as_text(&self) -> &str {
        match self {
            Self::Tcp(name) => name,
            // Made from text or from the constants of `Environment`.
            Self::Socket(path) => path.to_str().unwrap_or_default(),
        }
    }
}

/// How much TLS is wanted. None is attempted by any of these; what asks for more is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only if the server insists.
    Allow,
    /// If the server offers it (libpq's default).
    Prefer,
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

const TLS: &str = "TLS is not supported yet";
const NO_KERBEROS: &str = "Kerberos encryption is not supported";
const STANDBY: &str = "the kind of server cannot be checked yet";

/// A word a setting can have, and its meaning or why it is refused.
type Word<T> = (&'static str, Result<T, &'static str>);

const SSL_MODES: &[Word<SslMode>] = &[
    ("disable", Ok(SslMode::Disable)),
    ("allow", Ok(SslMode::Allow)),
    ("prefer", Ok(SslMode::Prefer)),
    ("require", Err(TLS)),
    ("verify-ca", Err(TLS)),
    ("verify-full", Err(TLS)),
];

const GSS_MODES: &[Word<()>] = &[("disable", Ok(())), ("prefer", Ok(())), ("require", Err(NO_KERBEROS))];

const CHANNEL_BINDINGS: &[Word<ChannelBinding>] =
    &[("disable", Ok(ChannelBinding::Disable)), ("prefer", Ok(ChannelBinding::Prefer)), ("require", Err(TLS))];

const SESSION_ATTRS: &[Word<TargetSessionAttrs>] = &[
    ("any", Ok(TargetSessionAttrs::Any)),
    ("read-write", Ok(TargetSessionAttrs::ReadWrite)),
    ("read-only", Ok(TargetSessionAttrs::ReadOnly)),
    ("primary", Err(STANDBY)),
    ("standby", Err(STANDBY)),
    ("prefer-standby", Err(STANDBY)),
];

/// `sslmode`.
pub(super) fn ssl_mode(settings: &Settings) -> Result<SslMode, ConnInfoError> {
    let expected = "disable, allow, prefer, require, verify-ca or verify-full";
    Ok(word(settings.get("sslmode"), SSL_MODES, expected)?.unwrap_or(SslMode::Prefer))
}

/// `gssencmode`, of which nothing remains once it is checked: Kerberos is never attempted.
pub(super) fn check_gss_mode(settings: &Settings) -> Result<(), ConnInfoError> {
    word(settings.get("gssencmode"), GSS_MODES, "disable, prefer or require").map(|_| ())
}

/// `channel_binding`.
pub(super) fn channel_binding(settings: &Settings) -> Result<ChannelBinding, ConnInfoError> {
    let given = settings.get("channel_binding");
    Ok(word(given, CHANNEL_BINDINGS, "disable, prefer or require")?.unwrap_or(ChannelBinding::Prefer))
}

/// `target_session_attrs`.
pub(super) fn session_attrs(settings: &Settings) -> Result<TargetSessionAttrs, ConnInfoError> {
    let expected = "any, read-write, read-only, primary, standby or prefer-standby";
    let given = settings.get("target_session_attrs");
    Ok(word(given, SESSION_ATTRS, expected)?.unwrap_or(TargetSessionAttrs::Any))
}

/// Finds a word in its list. Empty is not a word, as in libpq.
fn word<T: Copy>(
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

/// `host`, or the default socket directory if there is no `hostaddr` either.
pub(super) fn host(settings: &Settings, socket_dir: &Path) -> Result<Option<Host>, ConnInfoError> {
    let Some(given) = settings.non_empty("host") else {
        let address = settings.non_empty("hostaddr");
        return Ok(address.is_none().then(|| Host::Socket(socket_dir.to_owned())));
    };
    let text = single(given)?;
    match text.as_bytes() {
        [b'/', ..] => Ok(Some(Host::Socket(PathBuf::from(text)))),
        [b'@', ..] => Err(given.invalid("a host name or a directory (abstract sockets are not supported)")),
        _ => Ok(Some(Host::Tcp(text.to_owned()))),
    }
}

/// `hostaddr`: the address to connect to, whatever the host name says.
pub(super) fn host_address(settings: &Settings) -> Result<Option<IpAddr>, ConnInfoError> {
    let Some(given) = settings.non_empty("hostaddr") else { return Ok(None) };
    single(given)?.parse().map(Some).map_err(|_| given.invalid("an IPv4 or IPv6 address"))
}

/// `port`, by default 5432.
pub(super) fn port(settings: &Settings) -> Result<u16, ConnInfoError> {
    let Some(given) = settings.non_empty("port") else { return Ok(5432) };
    let number = u16::try_from(integer(single(given)?)).ok().filter(|port| *port != 0);
    number.ok_or_else(|| given.invalid("a port number from 1 to 65535"))
}

/// Refuses lists.
fn single(given: Given<'_>) -> Result<&str, ConnInfoError> {
    if given.text.contains(',') {
        return Err(ConnInfoError::SeveralHosts { setting: given.setting });
    }
    Ok(given.text)
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
fn integer(text: &str) -> i64 {
    text.trim_matches(is_space).parse().unwrap_or(i64::MAX)
}
