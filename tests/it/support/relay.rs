//! A bad line: a TCP relay to servers' sockets that cuts, holds or slows down what they answer.

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
    legs: VecDeque<(PathBuf, Fault)>,
    connections: usize,
    held: usize,
    released: bool,
    ended: bool,
    /// Bytes that servers have sent.
    passed: u64,
}

impl State {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().expect("the relay's state")
    }
}

impl Relay {
    /// A relay whose first connection is the first leg, and so on; the last leg is for all others.
    pub(crate) fn new(legs: &[(&Cluster, Fault)]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State::default());
        state.now().legs = legs.iter().map(|(cluster, fault)| (cluster.socket(), *fault)).collect();
        let shared = Arc::clone(&state);
        thread::spawn(move || accept(&listener, &shared));
        Self { port, state }
    }

    /// A connection string for what the relay leads to.
    pub(crate) fn conninfo(&self, user: &str) -> String {
        format!("host=127.0.0.1 port={} user={user} dbname=postgres", self.port)
    }

    /// Its port at 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
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
        let (socket, fault) = leg.expect("a leg");
        let state = Arc::clone(state);
        thread::spawn(move || {
            // Without a server the client sees its connection end.
            if let Ok(server) = UnixStream::connect(socket) {
                let _ = carry(client, server, fault, &state);
            }
        });
    }
}

/// Carries bytes both ways until one side ends, or the fault does.
fn carry(mut client: TcpStream, mut server: UnixStream, fault: Fault, state: &State) -> io::Result<()> {
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

fn answers(client: &mut TcpStream, server: &mut UnixStream, fault: Fault, state: &State) -> io::Result<()> {
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
