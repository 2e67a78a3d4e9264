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

/// The longest request for authentication, in bytes; libpq takes no longer one either.
const LONGEST_REQUEST: u32 = 2_000;
/// The longest message before the server has let the client in, in bytes; as in libpq.
const LONGEST_MESSAGE: u32 = 30_000;

/// What bytes travel on.
pub(super) enum Transport {
    /// TCP.
    Tcp(TcpStream),
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
    /// A line that is just made, TLS included if there is to be any, and that whether the server has let the client in.
    pub(super) fn begin(transport: Transport) -> (Self, Admitted) {
        let admitted = Admitted::default();
        let guard = Guard { admitted: admitted.clone(), ..Guard::default() };
        (Self { transport, guard: Some(guard) }, admitted)
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { transport, guard } = self.get_mut();
        let before = buffer.filled().len();
        let outcome = match transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
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
            Transport::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl TlsStream for Wire {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.transport {
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
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("what answers there is no PostgreSQL server"),
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
        if code == 0 {
            self.admitted.0.store(true, Ordering::Relaxed);
        }
        Ok(code == 0)
    }
}
