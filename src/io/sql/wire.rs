//! The line to a server, and a look at the beginning of what comes over it.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use crate::io::conninfo::{AuthMethod, RequiredAuth};
use crate::io::tls::Stream;

/// The longest request for authentication, in bytes; libpq takes no longer one either.
const LONGEST_REQUEST: u32 = 2_000;
/// The longest message before the server has let the client in, in bytes; as in libpq.
const LONGEST_MESSAGE: u32 = 30_000;

/// What bytes travel on.
pub(super) enum Transport {
    /// TCP.
    Tcp(TcpStream),
    /// TLS over TCP.
    Tls(Box<Stream<TcpStream>>),
    /// A Unix socket.
    Unix(UnixStream),
}

/// A line on which the server has yet to let the client in, or has.
pub(super) struct Wire {
    transport: Transport,
    /// None once the server has let the client in.
    guard: Option<Guard>,
}

impl Wire {
    /// A line that is just made, TLS included if there is to be any; and whether the server has let the client in, as
    /// soon as it has. The client takes part in no other authentication than is `allowed`.
    pub(super) fn begin(transport: Transport, allowed: Option<RequiredAuth>) -> (Self, Admitted) {
        let admitted = Admitted::default();
        let guard = Guard { allowed, admitted: admitted.clone(), ..Guard::default() };
        (Self { transport, guard: Some(guard) }, admitted)
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { transport, guard } = self.get_mut();
        let before = buffer.filled().len();
        let outcome = match transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        if let (Poll::Ready(Ok(())), Some(watching)) = (&outcome, guard.as_mut()) {
            let new = buffer.filled().get(before..).unwrap_or_default();
            if watching.see(new).map_err(|refusal| io::Error::new(io::ErrorKind::InvalidData, refusal))? {
                *guard = None;
            }
        }
        outcome
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl TlsStream for Wire {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.transport {
            Transport::Tls(stream) => stream.channel_binding(),
            Transport::Tcp(_) | Transport::Unix(_) => ChannelBinding::none(),
        }
    }
}

/// What the client is told in place of a TLS library: the line has TLS already, if it is to have any.
#[derive(Debug)]
pub(super) struct AsItIs;

impl TlsConnect<Wire> for AsItIs {
    type Stream = Wire;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Wire>>;

    fn connect(self, wire: Wire) -> Self::Future {
        std::future::ready(Ok(wire))
    }
}

/// Whether the server has let the client in.
#[derive(Clone, Debug, Default)]
pub(super) struct Admitted(Arc<AtomicBool>);

impl Admitted {
    /// Whether it has.
    pub(super) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why the client will not go on with what a server asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No server of PostgreSQL says that.
    Foreign,
    /// It asks for what `require_auth` does not allow.
    Method(&'static str),
    /// It does not ask, or not to the end, and `require_auth` wants it to.
    NotAsked,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("what answers there is no PostgreSQL server"),
            Self::Method(method) => write!(f, "the server asks for {method}, which require_auth does not allow"),
            Self::NotAsked => f.write_str("the server does not ask who the client is, which require_auth wants"),
        }
    }
}

impl std::error::Error for Refusal {}

/// Looks at what a server says until it lets the client in, before the client gets to see it.
#[derive(Debug, Default)]
struct Guard {
    /// The beginning of the message that comes: kind, length, and the code of a request.
    header: Vec<u8>,
    /// How much of a message is still to come, and is of no interest.
    rest: usize,
    /// What the client may take part in; none is everything.
    allowed: Option<RequiredAuth>,
    /// Whether the server has asked for something to its end.
    has_asked: bool,
    admitted: Admitted,
}

impl Guard {
    /// Looks at bytes: gives whether all has been seen that is of interest.
    fn see(&mut self, mut bytes: &[u8]) -> Result<bool, Refusal> {
        loop {
            let skipped = self.rest.min(bytes.len());
            self.rest -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((first, others)) = bytes.split_first() else { return Ok(false) };
            bytes = others;
            self.header.push(*first);
            match *self.header.as_slice() {
                [b'R' | b'E' | b'N' | b'v'] => {}
                [_] => return Err(Refusal::Foreign),
                [b'R', a, b, c, d] => {
                    let fits = (8..=LONGEST_REQUEST).contains(&u32::from_be_bytes([a, b, c, d]));
                    fits.then_some(()).ok_or(Refusal::Foreign)?;
                }
                [_, a, b, c, d] => {
                    let length = u32::from_be_bytes([a, b, c, d]);
                    let fits = (4..=LONGEST_MESSAGE).contains(&length);
                    fits.then_some(()).ok_or(Refusal::Foreign)?;
                    self.goes_on_after(length as usize - 4);
                }
                [_, l1, l2, l3, l4, c1, c2, c3, c4] => {
                    if self.request(u32::from_be_bytes([c1, c2, c3, c4]))? {
                        return Ok(true);
                    }
                    self.goes_on_after(u32::from_be_bytes([l1, l2, l3, l4]) as usize - 8);
                }
                _ => {}
            }
        }
    }

    fn goes_on_after(&mut self, rest: usize) {
        self.header.clear();
        self.rest = rest;
    }

    /// Judges a request for authentication: gives whether it is the one that lets the client in.
    fn request(&mut self, code: u32) -> Result<bool, Refusal> {
        let (method, name) = match code {
            LET_IN => {
                if self.allowed.is_some_and(|allowed| allowed.must_ask) && !self.has_asked {
                    return Err(Refusal::NotAsked);
                }
                self.admitted.0.store(true, Ordering::Relaxed);
                return Ok(true);
            }
            PASSWORD => (AuthMethod::Password, "the password in clear text"),
            MD5 => (AuthMethod::Md5, "an MD5 hash of the password"),
            SASL | SASL_CONTINUE | SASL_FINAL => (AuthMethod::Scram, "SASL"),
            // The client knows none of these.
            _ => (AuthMethod::Other, "another method"),
        };
        if self.allowed.is_some_and(|allowed| !allowed.allows(method)) {
            return Err(Refusal::Method(name));
        }
        self.has_asked |= matches!(code, PASSWORD | MD5 | SASL_FINAL);
        Ok(false)
    }
}

/// Requests for authentication.
const LET_IN: u32 = 0;
const PASSWORD: u32 = 3;
const MD5: u32 = 5;
const SASL: u32 = 10;
const SASL_CONTINUE: u32 = 11;
const SASL_FINAL: u32 = 12;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::io::conninfo::{ConnInfo, Environment};

    fn request(code: u32, more: &[u8]) -> Vec<u8> {
        let length = u32::try_from(8 + more.len()).unwrap();
        [b"R".as_slice(), &length.to_be_bytes(), &code.to_be_bytes(), more].concat()
    }

    /// What the guard says to bytes that come in pieces of this size, and how many it took.
    fn seen(allowed: &str, bytes: &[u8], size: usize) -> Result<bool, Refusal> {
        let text = format!("require_auth='{allowed}'");
        let environment = Environment::fixed::<&str, &str>([], Some("u"), Path::new("/s"));
        let allowed = ConnInfo::resolve(&text, &environment).unwrap().required_auth;
        let mut guard = Guard { allowed, ..Guard::default() };
        for piece in bytes.chunks(size) {
            if guard.see(piece)? {
                assert!(guard.admitted.is_so());
                return Ok(true);
            }
            assert!(!guard.admitted.is_so());
        }
        Ok(false)
    }

    #[test]
    fn only_what_is_allowed_is_shown_to_the_client() {
        let let_in = request(LET_IN, b"");
        let scram = [
            request(SASL, b"SCRAM-SHA-256\0\0"),
            request(SASL_CONTINUE, b"r=x,s=y,i=1"),
            request(SASL_FINAL, b"v=z"),
            let_in.clone(),
        ]
        .concat();
        let half = [request(SASL, b"SCRAM-SHA-256\0\0"), let_in.clone()].concat();
        let md5 = [request(MD5, b"salt"), let_in.clone()].concat();
        let password = [request(PASSWORD, b""), let_in.clone()].concat();
        let notice = [b"N\0\0\0\x06ab".as_slice(), &let_in, b"S\xFF\xFF\xFF\xFF"].concat();
        let gss = request(7, b"");
        let asks = |name| Err(Refusal::Method(name));
        let table: &[(&str, &[u8], Result<bool, Refusal>)] = &[
            ("", &let_in, Ok(true)),
            ("", &scram, Ok(true)),
            ("", &notice, Ok(true)),
            ("", &gss, Ok(false)),
            ("none", &let_in, Ok(true)),
            ("!none", &let_in, Err(Refusal::NotAsked)),
            ("md5", &let_in, Err(Refusal::NotAsked)),
            ("md5", &md5, Ok(true)),
            ("password", &md5, asks("an MD5 hash of the password")),
            ("!md5", &md5, asks("an MD5 hash of the password")),
            ("!md5", &password, Ok(true)),
            ("scram-sha-256", &scram, Ok(true)),
            ("scram-sha-256", &password, asks("the password in clear text")),
            ("scram-sha-256", &half, Err(Refusal::NotAsked)),
            ("none", &scram, asks("SASL")),
            ("md5,none", &scram, asks("SASL")),
        ];
        for (allowed, bytes, expected) in table {
            for size in [1, 4, 5, 9, bytes.len()] {
                assert_eq!(seen(allowed, bytes, size), *expected, "{allowed} {size} {bytes:?}");
            }
        }
    }

    #[test]
    fn what_is_no_server_is_known_at_once() {
        let foreign: [&[u8]; 6] = [
            b"HTTP/1.1 400 Bad Request",
            b"S",
            &[b'R', 0, 0, 0, 7],
            &[b'R', 0, 0, 8, 0],
            &[b'E', 0, 0, 0, 3],
            &[b'E', 0x7F, 0xFF, 0xFF, 0xFF],
        ];
        for bytes in foreign {
            assert_eq!(seen("", bytes, 1), Err(Refusal::Foreign), "{bytes:?}");
        }
        assert_eq!(seen("", b"E\0\0\0\x05x", 2), Ok(false));
    }
}
