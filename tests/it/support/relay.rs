//! A bad line: a TCP relay to servers' sockets or ports that cuts, holds or slows down what they answer.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::cluster::Cluster;

/// How long a connection may be waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a crawling line rests between two steps.
const STEP: Duration = Duration::from_millis(10);

/// What happens to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It is cut when the server has sent so many bytes.
    CutAfter(u64),
    /// What the server sends after so many bytes does not arrive until [`Relay::release`].
    HoldAfter(u64),
    /// No more than so many bytes arrive in a second.
    Crawl(u64),
}

/// A relay. Its connections end with it.
#[derive(Debug)]
pub(crate) struct Relay {
    port: u16,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    now: Mutex<Now>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Now {
    /// Where the next connections lead, and what happens to them; the last for all others.
    legs: VecDeque<(Place, Fault)>,
    connections: usize,
    held: usize,
    released: bool,
    ended: bool,
    /// Bytes that servers have sent.
    passed: u64,
}

/// Where a server is.
#[derive(Debug, Clone)]
enum Place {
    Socket(PathBuf),
    Port(u16),
}

impl Place {
    fn connect(&self) -> io::Result<Server> {
        match self {
            Self::Socket(path) => UnixStream::connect(path).map(Server::Unix),
            Self::Port(port) => TcpStream::connect(("127.0.0.1", *port)).map(Server::Tcp),
        }
    }
}

/// A connection to a server.
enum Server {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Server {
    fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
        }
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.shutdown(how),
            Self::Tcp(stream) => stream.shutdown(how),
        }
    }
}

impl Read for Server {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Server {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.flush(),
            Self::Tcp(stream) => stream.flush(),
        }
    }
}

impl State {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().expect("the relay's state")
    }
}

impl Relay {
    /// A relay whose first connection is the first leg, and so on; the last leg is for all others.
    pub(crate) fn new(legs: &[(&Cluster, Fault)]) -> Self {
        Self::to(legs.iter().map(|(cluster, fault)| (Place::Socket(cluster.socket()), *fault)).collect())
    }

    /// The same to the ports of servers that listen on 127.0.0.1: TLS passes.
    pub(crate) fn to_ports(legs: &[(&Cluster, Fault)]) -> Self {
        Self::to(legs.iter().map(|(cluster, fault)| (Place::Port(cluster.port()), *fault)).collect())
    }

    fn to(legs: VecDeque<(Place, Fault)>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State::default());
        state.now().legs = legs;
        let shared = Arc::clone(&state);
        thread::spawn(move || accept(&listener, &shared));
        Self { port, state }
    }

    /// Its port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A connection string for what the relay leads to.
    pub(crate) fn conninfo(&self, user: &str) -> String {
        format!("host=127.0.0.1 port={} user={user} dbname=postgres", self.port)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.state.now().connections
    }

    /// How many bytes servers have sent.
    pub(crate) fn passed(&self) -> u64 {
        self.state.now().passed
    }

    /// Waits until a connection is held.
    #[track_caller]
    pub(crate) fn wait_until_held(&self) {
        self.wait_while(|now| now.held == 0);
    }

    /// Waits until so many connections were made.
    #[track_caller]
    pub(crate) fn wait_for_connections(&self, count: usize) {
        self.wait_while(|now| now.connections < count);
    }

    #[track_caller]
    fn wait_while(&self, condition: impl Fn(&Now) -> bool) {
        let state = self.state.changed.wait_timeout_while(self.state.now(), PATIENCE, |now| condition(now));
        let (now, waited) = state.expect("the state");
        assert!(!waited.timed_out(), "waited in vain: {now:?}");
    }

    /// Lets what is held go on, for ever.
    pub(crate) fn release(&self) {
        self.state.now().released = true;
        self.state.changed.notify_all();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.now().ended = true;
        self.state.changed.notify_all();
        // The listener looks at that when somebody comes.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    for client in listener.incoming() {
        let (Ok(client), mut now) = (client, state.now()) else { return };
        if now.ended {
            return;
        }
        now.connections += 1;
        state.changed.notify_all();
        let leg = if now.legs.len() > 1 { now.legs.pop_front() } else { now.legs.front().cloned() };
        let (place, fault) = leg.expect("a leg");
        let state = Arc::clone(state);
        thread::spawn(move || {
            // Without a server the client sees its connection end.
            if let Ok(server) = place.connect() {
                let _ = carry(client, server, fault, &state);
            }
        });
    }
}

/// Carries bytes both ways until one side ends, or the fault does.
fn carry(mut client: TcpStream, mut server: Server, fault: Fault, state: &State) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let outcome = answers(&mut client, &mut server, fault, state);
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    outcome
}

fn answers(client: &mut TcpStream, server: &mut Server, fault: Fault, state: &State) -> io::Result<()> {
    let mut buffer = [0; 16384];
    let mut sent = 0;
    loop {
        let most = match fault {
            Fault::None => buffer.len(),
            Fault::CutAfter(limit) if sent >= limit => return Ok(()),
            Fault::HoldAfter(limit) if sent >= limit => {
                hold(state);
                buffer.len()
            }
            Fault::CutAfter(limit) | Fault::HoldAfter(limit) => (limit - sent).min(buffer.len() as u64) as usize,
            Fault::Crawl(rate) => {
                thread::sleep(STEP);
                (rate / 100).clamp(1, buffer.len() as u64) as usize
            }
        };
        let read = server.read(&mut buffer[..most])?;
        if read == 0 || state.now().ended {
            return Ok(());
        }
        client.write_all(&buffer[..read])?;
        sent += read as u64;
        state.now().passed += read as u64;
    }
}

/// Waits until what is held may go on.
fn hold(state: &State) {
    let deadline = Instant::now() + 2 * PATIENCE;
    let mut now = state.now();
    now.held += 1;
    state.changed.notify_all();
    while !now.released && !now.ended && Instant::now() < deadline {
        now = state.changed.wait_timeout(now, PATIENCE).expect("the state").0;
    }
}
