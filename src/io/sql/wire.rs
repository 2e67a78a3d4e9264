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
/// The longest message before the server is ready, in bytes; as in libpq.
const LONGEST_MESSAGE: u32 = 30_000;
/// The most bytes before that: what comes until then is kept, and nobody else would stop it.
const MOST: usize = 1 << 20;
/// The most bytes of an error that has no length.
const LONGEST_OLD_ERROR: usize = 2_000;

/// What bytes travel on.
pub(super) enum Transport {
    /// TCP.
    Tcp(TcpStream),
    /// TLS over TCP.
    Tls(Box<Stream<TcpStream>>),
    /// A Unix socket.
    Unix(UnixStream),
}

/// A line on which the server is yet to be ready, or is.
pub(super) struct Wire {
    transport: Transport,
    /// None once the server is ready.
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
        let (before, has_room) = (buffer.filled().len(), buffer.remaining() > 0);
        let outcome = match transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        if let (Poll::Ready(Ok(())), Some(watching)) = (&outcome, guard.as_mut()) {
            let new = buffer.filled().get(before..).unwrap_or_default();
            let seen = if new.is_empty() && has_room { watching.end().map(|()| false) } else { watching.see(new) };
            if seen.map_err(|refusal| io::Error::new(refusal.kind(), refusal))? {
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
    /// It says too much before it is ready.
    TooMuch,
    /// It says this in the way of servers before there were lengths, as those of today do when they cannot begin.
    NotNow(String),
}

impl Refusal {
    /// Whether it may pass: what that is to the socket's users.
    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::NotNow(_) => io::ErrorKind::ConnectionRefused,
            Self::Foreign | Self::Method(_) | Self::NotAsked | Self::TooMuch => io::ErrorKind::InvalidData,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("what answers there is no PostgreSQL server"),
            Self::Method(method) => write!(f, "the server asks for {method}, which require_auth does not allow"),
            Self::NotAsked => f.write_str("the server does not ask who the client is, which require_auth wants"),
            Self::TooMuch => write!(f, "the server says more than {MOST} bytes before it is ready"),
            Self::NotNow(text) => write!(f, "the server says: {text}"),
        }
    }
}

impl std::error::Error for Refusal {}

/// Looks at what a server says until it is ready, before the client gets to see it.
#[derive(Debug, Default)]
struct Guard {
    /// The beginning of the message that comes: kind, length, and the code of a request.
    header: Vec<u8>,
    /// How much of a message is still to come, and is of no interest.
    rest: usize,
    /// How much has come.
    seen: usize,
    /// What has come of an error that has no length.
    old_error: Option<Vec<u8>>,
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
            if let Some(text) = &mut self.old_error {
                return old_error(text, bytes);
            }
            let skipped = self.rest.min(bytes.len());
            self.rest -= skipped;
            self.seen += skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            if self.seen > MOST {
                return Err(Refusal::TooMuch);
            }
            let Some((first, others)) = bytes.split_first() else { return Ok(false) };
            bytes = others;
            self.seen += 1;
            self.header.push(*first);
            let is_in = self.admitted.is_so();
            match *self.header.as_slice() {
                [b'E' | b'N' | b'v'] => {}
                [b'R'] if !is_in => {}
                [b'S' | b'K'] if is_in => {}
                [b'Z'] if is_in => return Ok(true),
                [_] => return Err(Refusal::Foreign),
                [b'R', a, b, c, d] => {
                    let fits = (8..=LONGEST_REQUEST).contains(&u32::from_be_bytes([a, b, c, d]));
                    fits.then_some(()).ok_or(Refusal::Foreign)?;
                }
                [kind, a, b, c, d] => {
                    let length = u32::from_be_bytes([a, b, c, d]);
                    let fits = (4..=LONGEST_MESSAGE).contains(&length);
                    if kind == b'E' && self.seen == 5 && (!fits || length < 8) {
                        self.old_error = Some(Vec::new());
                        let _ = self.see(&[a, b, c, d])?;
                        continue;
                    }
                    fits.then_some(()).ok_or(Refusal::Foreign)?;
                    self.goes_on_after(length as usize - 4);
                }
                [_, l1, l2, l3, l4, c1, c2, c3, c4] => {
                    self.request(u32::from_be_bytes([c1, c2, c3, c4]))?;
                    self.goes_on_after(u32::from_be_bytes([l1, l2, l3, l4]) as usize - 8);
                }
                _ => {}
            }
        }
    }

    /// Nothing more will come.
    fn end(&self) -> Result<(), Refusal> {
        self.old_error.as_deref().map_or(Ok(()), |text| Err(not_now(text)))
    }

    fn goes_on_after(&mut self, rest: usize) {
        self.header.clear();
        self.rest = rest;
    }

    /// Judges a request for authentication.
    fn request(&mut self, code: u32) -> Result<(), Refusal> {
        let (method, name) = match code {
            LET_IN => {
                if self.allowed.is_some_and(|allowed| allowed.must_ask) && !self.has_asked {
                    return Err(Refusal::NotAsked);
                }
                self.admitted.0.store(true, Ordering::Relaxed);
                return Ok(());
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
        Ok(())
    }
}

/// Takes what comes of an error that ends with a NUL byte, until it ends or is long enough.
fn old_error(text: &mut Vec<u8>, bytes: &[u8]) -> Result<bool, Refusal> {
    let before = text.len();
    text.extend(bytes.iter().take_while(|byte| **byte != 0).take(LONGEST_OLD_ERROR - before));
    let is_whole = text.len() < before + bytes.len() || text.len() == LONGEST_OLD_ERROR;
    if is_whole { Err(not_now(text)) } else { Ok(false) }
}

/// The error as it is shown: on one line.
fn not_now(text: &[u8]) -> Refusal {
    let text = String::from_utf8_lossy(text);
    Refusal::NotNow(text.trim().chars().flat_map(char::escape_debug).collect())
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
                return Ok(true);
            }
        }
        guard.end()?;
        Ok(guard.admitted.is_so())
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
        let notice = [b"N\0\0\0\x06ab".as_slice(), &let_in, b"Z\0\0\0\x05I", b"S\xFF\xFF\xFF\xFF"].concat();
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
        let foreign: [&[u8]; 5] = [
            b"HTTP/1.1 400 Bad Request",
            b"S",
            &[b'R', 0, 0, 0, 7],
            &[b'R', 0, 0, 8, 0],
            &[b'N', 0x7F, 0xFF, 0xFF, 0xFF],
        ];
        for bytes in foreign {
            assert_eq!(seen("", bytes, 1), Err(Refusal::Foreign), "{bytes:?}");
        }
        assert_eq!(seen("", b"E\0\0\0\x09xyzuv", 2), Ok(false));
    }

    #[test]
    fn nobody_says_much_before_he_is_ready() {
        let let_in = request(LET_IN, b"");
        let notice = [&b"N\0\0\x70\0"[..], &[b'x'; 0x6FFC]].concat();
        let after = |bytes: &[u8], size| seen("", &[&let_in, bytes].concat(), size);
        let setting = b"S\0\0\0\x08a\0b\0";
        for size in [1, 7, 1 << 16] {
            assert_eq!(after(&[&setting[..], b"K\0\0\0\x0Cprockey!", b"Z"].concat(), size), Ok(true));
            assert_eq!(after(&notice.repeat(36), size), Ok(true));
            assert_eq!(after(&notice.repeat(38), size), Err(Refusal::TooMuch));
            assert_eq!(seen("", &notice.repeat(38), size), Err(Refusal::TooMuch));
            for foreign in [&b"S\x7F\xFF\xFF\xF0"[..], b"K\0\0\x80\0", b"D", b"E\x7F\xFF\xFF\xF0", b"R"] {
                assert_eq!(after(foreign, size), Err(Refusal::Foreign), "{foreign:?}");
            }
        }
        // Without the client being let in, there is nothing to say of it.
        assert_eq!(seen("", setting, 1), Err(Refusal::Foreign));
        assert_eq!(seen("", b"Z", 1), Err(Refusal::Foreign));
    }

    #[test]
    fn an_error_without_a_length_is_shown_and_may_pass() {
        let says = |text: &str| Err::<bool, _>(Refusal::NotNow(text.to_owned()));
        let long = [&b"E"[..], &[b'x'; 9_000]].concat();
        for size in [1, 3, 1 << 14] {
            let fork = "could not fork new process for connection";
            assert_eq!(seen("", format!("E{fork}\n\0more").as_bytes(), size), says(fork));
            assert_eq!(seen("", format!("E{fork}\n").as_bytes(), size), says(fork));
            assert_eq!(seen("", b"Ered\x1b[31m\0", size), says("red\\u{1b}[31m"));
            assert_eq!(seen("", &long, size), says(&"x".repeat(LONGEST_OLD_ERROR)));
        }
        assert_eq!(seen("", b"E\0\0\0\x03", 1), says(""));
        let kinds = [Refusal::NotNow(String::new()), Refusal::Foreign].map(|refusal| refusal.kind());
        assert_eq!(kinds, [io::ErrorKind::ConnectionRefused, io::ErrorKind::InvalidData]);
    }
}
