//! A long line: a TCP relay to a server's socket on which every byte is on its way for a while.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::Result;

/// The most that one read takes off a socket.
const PIECE: usize = 64 * 1024;
/// The most pieces that are on their way in one direction: more than a local socket carries in a delay of 10 ms.
const PIECES: usize = 1024;

/// A relay. It takes no further connections when it is dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    port: u16,
    ended: Arc<AtomicBool>,
}

impl Relay {
    /// A relay to the server at `socket`; what it carries arrives `delay` later, in each direction.
    pub(crate) fn start(socket: &Path, delay: Duration) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let ended = Arc::new(AtomicBool::new(false));
        let (socket, seen) = (socket.to_owned(), Arc::clone(&ended));
        thread::spawn(move || accept(&listener, &socket, delay, &seen));
        Ok(Self { port, ended })
    }

    /// A connection string for what the relay leads to.
    pub(crate) fn conninfo(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // The listener looks at that when somebody comes.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn accept(listener: &TcpListener, socket: &PathBuf, delay: Duration, ended: &AtomicBool) {
    for client in listener.incoming() {
        if ended.load(Ordering::Relaxed) {
            return;
        }
        // Without a server the client sees its connection end.
        let _ = client.and_then(|client| join(client, UnixStream::connect(socket)?, delay));
    }
}

/// Carries what each side sends to the other.
fn join(client: TcpStream, server: UnixStream, delay: Duration) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
    carry(from_client, to_server, delay, |server| server.shutdown(Shutdown::Write));
    carry(server, client, delay, |client| client.shutdown(Shutdown::Write));
    Ok(())
}

/// Carries one direction: one thread takes what comes and notes when it is due, another hands it over then. So any
/// number of pieces is on the line at once.
fn carry<R, W>(mut from: R, to: W, delay: Duration, close: fn(&W) -> io::Result<()>)
where
    R: Read + Send + 'static,
    W: Write + Send + 'static,
{
    let (line, arrivals) = sync_channel(PIECES);
    thread::spawn(move || {
        let mut buffer = vec![0; PIECE];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let piece = buffer.get(..length).unwrap_or_default().to_vec();
            if line.send((Instant::now() + delay, piece)).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || hand_over(&arrivals, to, close));
}

fn hand_over<W: Write>(arrivals: &Receiver<(Instant, Vec<u8>)>, mut to: W, close: fn(&W) -> io::Result<()>) {
    for (due, piece) in arrivals {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&piece).is_err() {
            return;
        }
    }
    let _ = close(&to);
}
