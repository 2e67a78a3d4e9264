//! Getting through to one of several servers, as libpq does: host by host, address by address, with TLS or without.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_postgres::config::{SslMode as EngineMode, SslNegotiation};
use tokio_postgres::tls::TlsConnect;
use tokio_postgres::{Connection, error::SqlState};

use super::client::{Line, Trouble};
use super::role::judged;
use super::socket::{Spot, foreign_peer, lookup, open};
use super::wire::{AsItIs, Transport, Wire};
use crate::io::conninfo::{ConnInfo, Endpoint, Host, SslMode, TargetSession};
use crate::io::tls::{HandshakeError, TlsError};

/// A connection that was made, and where it leads to.
pub(super) struct Connected {
    pub(super) engine: tokio_postgres::Client,
    /// The one server and address that it leads to.
    pub(super) endpoint: Endpoint,
}

/// Why one of the servers, or one of its addresses, will not do.
#[derive(Debug)]
pub(super) struct Failure {
    /// Which one, for people.
    pub(super) place: String,
    /// What happened.
    pub(super) cause: Cause,
    /// Whether no other server was tried because of it.
    pub(super) is_final: bool,
}

/// What keeps a connection from coming about.
#[derive(Debug)]
pub(super) enum Cause {
    /// The host has no address.
    Lookup(io::Error),
    /// The socket cannot be connected.
    Socket(io::Error),
    /// Nobody has answered for so long.
    Timeout(Duration),
    /// What the server says, or what the client does not like about it.
    Engine(postgres::Error),
    /// There is no TLS as it should be.
    Tls(String),
    /// There is none here, where libpq might have it.
    Narrow(String),
    /// The server runs as another user than `requirepeer` says: as the one of this number.
    Peer(u32),
    /// The server is there, and is not what it should be.
    Kind(&'static str),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup(error) => write!(f, "the host name has no address: {error}"),
            Self::Socket(error) => write!(f, "{error}"),
            Self::Timeout(time) => write!(f, "no answer for {} s", time.as_secs_f64()),
            Self::Engine(error) => f.write_str(&super::trouble::describe_engine(error)),
            Self::Tls(text) | Self::Narrow(text) => f.write_str(text),
            Self::Peer(uid) => {
                write!(f, "the server runs as the user with number {uid}, which is not the one that requirepeer names")
            }
            Self::Kind(text) => f.write_str(text),
        }
    }
}

/// Where to go on after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// With the host's next address.
    Address,
    /// With the next host.
    Host,
    /// Nowhere: another server would be told the same secrets, or answer for one that has said no.
    Nowhere,
}

/// What happened, and where to go on.
struct Stopped {
    /// What happened in the way that was tried before, with TLS or without.
    before: Option<Cause>,
    cause: Cause,
    next: Next,
}

impl Stopped {
    fn address(cause: Cause) -> Self {
        Self { before: None, cause, next: Next::Address }
    }

    fn host(cause: Cause) -> Self {
        Self { before: None, cause, next: Next::Host }
    }

    fn nowhere(cause: Cause) -> Self {
        Self { before: None, cause, next: Next::Nowhere }
    }

    fn after(self, before: Cause) -> Self {
        Self { before: Some(before), ..self }
    }
}

/// Connects to the first server that will do. Each attempt at an address may take as long as `connect_timeout` says,
/// and no longer than the line's patience with a silent server.
///
/// # Errors
/// What happened at each server that was tried.
pub(super) fn through(line: &mut Line, conninfo: &ConnInfo) -> Result<Connected, Trouble> {
    let mut tried = Vec::new();
    let first = match conninfo.target_session {
        TargetSession::PreferStandby => TargetSession::Standby,
        other => other,
    };
    let mut passes = vec![first];
    if conninfo.target_session == TargetSession::PreferStandby {
        passes.push(TargetSession::Any);
    }
    let mut endpoints: Vec<&Endpoint> = conninfo.endpoints.iter().collect();
    if conninfo.is_shuffled {
        shuffle(&mut endpoints, random);
    }
    for wanted in passes {
        for endpoint in &endpoints {
            if let Some(connected) = try_host(line, conninfo, endpoint, wanted, &mut tried)? {
                return Ok(connected);
            }
        }
    }
    Err(Trouble::Unreachable(tried))
}

/// Tries a host's addresses; none where another host may do.
fn try_host(
    line: &mut Line,
    conninfo: &ConnInfo,
    endpoint: &Endpoint,
    wanted: TargetSession,
    tried: &mut Vec<Failure>,
) -> Result<Option<Connected>, Trouble> {
    let found = match line.run(lookup(endpoint)) {
        Ok(found) => found.map_err(Cause::Lookup),
        Err(Trouble::Silence(time)) => Err(Cause::Timeout(time)),
        Err(trouble) => return Err(trouble),
    };
    let mut spots = match found {
        Ok(spots) => spots,
        Err(cause) => {
            tried.push(Failure { place: place(endpoint, None), cause, is_final: false });
            return Ok(None);
        }
    };
    if conninfo.is_shuffled {
        shuffle(&mut spots, random);
    }
    for spot in &spots {
        let begin = Instant::now();
        let attempt = within(conninfo.connect_timeout, reach(conninfo, endpoint, spot));
        let stopped = match line.run(attempt) {
            Ok(Ok((engine, connection))) => {
                let left = conninfo.connect_timeout.map(|time| time.saturating_sub(begin.elapsed()));
                match judged(line, engine, connection, wanted, left) {
                    Ok(engine) => return Ok(Some(Connected { engine, endpoint: reached(endpoint, spot) })),
                    Err(Trouble::WrongKind(text)) => Stopped::host(Cause::Kind(text)),
                    Err(Trouble::Silence(time)) => Stopped::address(Cause::Timeout(time)),
                    // As in libpq, another one may answer better.
                    Err(Trouble::Engine(error)) => Stopped::host(Cause::Engine(error)),
                    Err(Trouble::Closed) => Stopped::host(Cause::Socket(io::ErrorKind::UnexpectedEof.into())),
                    Err(trouble) => return Err(trouble),
                }
            }
            Ok(Err(stopped)) => stopped,
            Err(Trouble::Silence(time)) => Stopped::address(Cause::Timeout(time)),
            Err(trouble) => return Err(trouble),
        };
        for cause in stopped.before.into_iter().chain([stopped.cause]) {
            tried.push(Failure { place: place(endpoint, Some(spot)), cause, is_final: stopped.next == Next::Nowhere });
        }
        match stopped.next {
            Next::Address => {}
            Next::Host => return Ok(None),
            Next::Nowhere => return Err(Trouble::Unreachable(std::mem::take(tried))),
        }
    }
    Ok(None)
}

/// The place for people.
fn place(endpoint: &Endpoint, spot: Option<&Spot>) -> String {
    let (name, port) = (endpoint.name(), endpoint.port);
    match spot {
        Some(Spot::Unix(path)) => format!("socket {}", path.display().to_string().replace('\0', "@")),
        Some(Spot::Tcp(address)) if address.ip().to_string() != name => {
            format!("{name} ({}) port {port}", address.ip())
        }
        _ => format!("{name} port {port}"),
    }
}

/// The server with the address that it was reached at.
fn reached(endpoint: &Endpoint, spot: &Spot) -> Endpoint {
    let mut reached = endpoint.clone();
    if let Spot::Tcp(address) = spot {
        reached.hostaddr = Some(address.ip());
    }
    reached
}

type Made = (tokio_postgres::Client, Connection<Wire, Wire>);

/// Bounds an attempt at an address.
async fn within<T>(time: Option<Duration>, attempt: impl Future<Output = Result<T, Stopped>>) -> Result<T, Stopped> {
    match time {
        None => attempt.await,
        Some(time) => timeout(time, attempt).await.unwrap_or(Err(Stopped::address(Cause::Timeout(time)))),
    }
}

/// With TLS or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Plain,
    Tls,
}

/// The ways that are tried one after the other. A Unix socket needs no TLS, whatever was asked for, as in libpq.
fn ways(mode: SslMode, spot: &Spot) -> &'static [Way] {
    match (spot, mode) {
        (Spot::Unix(_), _) | (_, SslMode::Disable) => &[Way::Plain],
        (_, SslMode::Allow) => &[Way::Plain, Way::Tls],
        (_, SslMode::Prefer) => &[Way::Tls, Way::Plain],
        (_, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => &[Way::Tls],
    }
}

/// Connects to an address in one of the ways that the mode allows.
async fn reach(conninfo: &ConnInfo, endpoint: &Endpoint, spot: &Spot) -> Result<Made, Stopped> {
    let ways = ways(conninfo.ssl_mode, spot);
    let (first, second) = (ways.first().copied().unwrap_or(Way::Plain), ways.get(1).copied());
    match attempt(conninfo, endpoint, spot, first, second).await {
        Err(Attempted::OtherWay(cause)) => match second {
            Some(second) => {
                let made = attempt(conninfo, endpoint, spot, second, None).await;
                made.map_err(|error| error.stopped().after(cause))
            }
            None => Err(Stopped::nowhere(cause)),
        },
        other => other.map_err(Attempted::stopped),
    }
}

/// How an attempt in one way failed.
enum Attempted {
    /// The other way may do, if there is one.
    OtherWay(Cause),
    /// It will not.
    Stopped(Stopped),
}

impl Attempted {
    fn stopped(self) -> Stopped {
        match self {
            Self::OtherWay(cause) => Stopped::nowhere(cause),
            Self::Stopped(stopped) => stopped,
        }
    }
}

/// Connects in one way. Where a server has no TLS and another way is left that needs none, the connection goes on so.
async fn attempt(
    conninfo: &ConnInfo,
    endpoint: &Endpoint,
    spot: &Spot,
    way: Way,
    other: Option<Way>,
) -> Result<Made, Attempted> {
    let transport =
        open(conninfo, spot).await.map_err(|error| Attempted::Stopped(Stopped::address(Cause::Socket(error))))?;
    let peer = foreign_peer(&transport, conninfo).map_err(Cause::Socket);
    if let Some(cause) = peer.map_or_else(Some, |peer| peer.map(Cause::Peer)) {
        return Err(Attempted::Stopped(Stopped::nowhere(cause)));
    }
    let mut config = conninfo.config(endpoint);
    let transport = match (way, transport) {
        (Way::Tls, Transport::Tcp(stream)) if conninfo.tls.is_direct => secure(conninfo, endpoint, stream).await?,
        (Way::Tls, Transport::Tcp(stream)) => match ask_for_tls(stream).await.map_err(final_tls)? {
            (stream, true) => secure(conninfo, endpoint, stream).await?,
            (stream, false) if other == Some(Way::Plain) => Transport::Tcp(stream),
            (_, false) => {
                let text = "the server has no TLS, which is asked for".to_owned();
                return Err(Attempted::Stopped(Stopped::nowhere(Cause::Tls(text))));
            }
        },
        (_, transport) => transport,
    };
    // The line is as it should be by now: the client is to take its word for it.
    let is_plain = !matches!(transport, Transport::Tls(_));
    config.ssl_mode(if is_plain { EngineMode::Disable } else { EngineMode::Require });
    config.ssl_negotiation(SslNegotiation::Direct);
    let (wire, admitted) = Wire::begin(transport, conninfo.required_auth);
    let made = config.connect_raw(wire, AsItIs).await.map_err(|error| match error.code() {
        Some(&SqlState::CANNOT_CONNECT_NOW) => Attempted::Stopped(Stopped::host(Cause::Engine(error))),
        Some(_) if !admitted.is_so() => Attempted::OtherWay(Cause::Engine(error)),
        _ => Attempted::Stopped(Stopped::nowhere(Cause::Engine(error))),
    })?;
    if is_plain {
        let stopped = |error: TlsError| Attempted::Stopped(Stopped::nowhere(Cause::Tls(error.to_string())));
        conninfo.tls.check_plain().map_err(stopped)?;
    }
    Ok(made)
}

fn final_tls(error: io::Error) -> Attempted {
    Attempted::Stopped(Stopped::nowhere(Cause::Socket(error)))
}

/// Asks the server for TLS: gives whether it agrees.
async fn ask_for_tls(mut stream: TcpStream) -> io::Result<(TcpStream, bool)> {
    /// The length of the message, and a number in place of a protocol's version.
    const REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];
    stream.write_all(&REQUEST).await?;
    let mut answer = [0];
    stream.read_exact(&mut answer).await?;
    match &answer {
        b"S" => Ok((stream, true)),
        b"N" => Ok((stream, false)),
        // What else it says is not worth reading: nobody knows yet who that is.
        b"E" => Err(io::Error::other("the server answers with an error when it is asked for TLS")),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "what answers there is no PostgreSQL server")),
    }
}

/// Begins TLS on a connection whose server has agreed to it, or will have to.
async fn secure(conninfo: &ConnInfo, endpoint: &Endpoint, stream: TcpStream) -> Result<Transport, Attempted> {
    let connector = conninfo.tls.connector(endpoint.host.as_ref().map(Host::as_text));
    let connector = connector.map_err(|error| without_tls(error.to_string(), error.allows_plain()))?;
    let stream = connector.connect(stream).await.map_err(|error| match error.downcast::<io::Error>() {
        Ok(error) => Attempted::OtherWay(Cause::Socket(*error)),
        Err(error) => {
            let own = error.downcast_ref::<HandshakeError>();
            without_tls(error.to_string(), own.is_some_and(HandshakeError::allows_plain))
        }
    })?;
    Ok(Transport::Tls(Box::new(stream)))
}

/// What it means that there is no TLS: whether the other way may do.
fn without_tls(text: String, allows_plain: bool) -> Attempted {
    if allows_plain {
        Attempted::OtherWay(Cause::Tls(text))
    } else {
        Attempted::Stopped(Stopped::nowhere(Cause::Narrow(text)))
    }
}

/// Brings things into random order. `pick` gives a number below the one that it is given.
fn shuffle<T>(things: &mut [T], mut pick: impl FnMut(usize) -> usize) {
    for count in (2..=things.len()).rev() {
        things.swap(count - 1, pick(count));
    }
}

/// A number below `limit`, which is not zero, that nobody can foresee.
fn random(limit: usize) -> usize {
    let number = RandomState::new().build_hasher().finish();
    usize::try_from(number % (limit.max(1) as u64)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_keeps_everything() {
        let mut things: Vec<usize> = (0..8).collect();
        shuffle(&mut things, |_| 0);
        assert_eq!(things, [1, 2, 3, 4, 5, 6, 7, 0]);
        shuffle(&mut things, |limit| limit - 1);
        assert_eq!(things, [1, 2, 3, 4, 5, 6, 7, 0]);
        shuffle(&mut things, random);
        things.sort_unstable();
        assert_eq!(things, (0..8).collect::<Vec<_>>());
        assert!((1..100).all(|limit| random(limit) < limit));
        // Nobody can foresee it: of this many numbers, not all are the same.
        let first = random(1 << 30);
        assert!((0..8).any(|_| random(1 << 30) != first));
    }

    #[test]
    fn a_mode_asks_for_tls_as_libpq_does() {
        let tcp = Spot::Tcp(([127, 0, 0, 1], 1).into());
        let unix = Spot::Unix("/run".into());
        let table = [
            (SslMode::Disable, &[Way::Plain][..]),
            (SslMode::Allow, &[Way::Plain, Way::Tls]),
            (SslMode::Prefer, &[Way::Tls, Way::Plain]),
            (SslMode::Require, &[Way::Tls]),
            (SslMode::VerifyCa, &[Way::Tls]),
            (SslMode::VerifyFull, &[Way::Tls]),
        ];
        for (mode, expected) in table {
            assert_eq!(ways(mode, &tcp), expected, "{mode:?}");
            assert_eq!(ways(mode, &unix), [Way::Plain], "{mode:?}");
        }
    }

    #[test]
    fn places_are_named_for_people() {
        let endpoint = Endpoint::new(Host::Socket("@pg".into()), 7);
        assert_eq!(place(&endpoint, Some(&Spot::Unix("\0pg/.s.PGSQL.7".into()))), "socket @pg/.s.PGSQL.7");
        let endpoint = Endpoint::new(Host::Tcp("h".to_owned()), 7);
        let spot = Spot::Tcp(([127, 0, 0, 1], 7).into());
        assert_eq!(place(&endpoint, Some(&spot)), "h (127.0.0.1) port 7");
        assert_eq!(place(&endpoint, None), "h port 7");
        assert_eq!(reached(&endpoint, &spot).hostaddr, Some([127, 0, 0, 1].into()));
    }
}
