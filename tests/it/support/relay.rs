//! A relay between a client and a server, which does what a test wants once enough has passed.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use tempfile::TempDir;

use super::cluster::Cluster;
use super::scratch;

/// What happens when enough bytes have come from the server.
pub(crate) enum AtLimit {
    /// The connection is cut, and no other is taken.
    Cut,
    /// The server ends the client's session; everything else goes on.
    Terminate,
}

/// A socket that leads to a server.
pub(crate) struct Relay {
    directory: TempDir,
    shared: Arc<Shared>,
}

struct Shared {
    server: PathBuf,
    limit: u64,
    passed: AtomicU64,
    done: AtomicBool,
    at_limit: Box<dyn Fn() + Send + Sync>,
    cuts: bool,
}

impl Relay {
    /// A relay to a running server that acts once `limit` bytes have come from it.
    pub(crate) fn to(server: &Cluster, limit: u64, at_limit: AtLimit, user: &str) -> Self {
        let directory = scratch::directory("r");
        let listener = UnixListener::bind(directory.path().join(".s.PGSQL.5432")).expect("a socket");
        let mut end_session = server.installation().command("psql");
        end_session
            .args(["-X", "-q", "-d"])
            .arg(server.conninfo("postgres", "postgres"))
            .arg("-c")
            .arg(format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{user}'"));
        let end_session = std::sync::Mutex::new(end_session);
        let act = move || {
            let _ = end_session.lock().unwrap().output();
        };
        let cuts = matches!(at_limit, AtLimit::Cut);
        let shared = Arc::new(Shared {
            server: server.socket(),
            limit,
            passed: AtomicU64::new(0),
            done: AtomicBool::new(false),
            at_limit: if cuts { Box::new(|| ()) } else { Box::new(act) },
            cuts,
        });
        let for_connections = Arc::clone(&shared);
        thread::spawn(move || listener.incoming().for_each(|client| for_connections.take(client)));
        Self { directory, shared }
    }

    /// A connection string for a client of the relay.
    pub(crate) fn conninfo(&self, user: &str) -> String {
        format!("host={} port=5432 user={user} dbname=postgres", self.directory.path().display())
    }

    /// How many bytes have come from the server.
    pub(crate) fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn take(self: &Arc<Self>, client: io::Result<UnixStream>) {
        let Ok(client) = client else { return };
        if self.cuts && self.done.load(Ordering::SeqCst) {
            return;
        }
        let server = UnixStream::connect(&self.server).expect("the server's socket");
        let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || {
            let _ = io::copy(&mut from_client, &mut to_server);
            let _ = to_server.shutdown(Shutdown::Write);
        });
        let shared = Arc::clone(self);
        thread::spawn(move || {
            let _ = shared.forward(&server, &client);
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        });
    }

    /// Passes on what the server sends, up to the limit if the connection is cut there.
    fn forward(&self, mut server: &UnixStream, mut client: &UnixStream) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let mut count = server.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            let left = self.limit.saturating_sub(self.passed()) as usize;
            let reached = count >= left;
            if reached && self.cuts {
                count = left;
            }
            self.passed.fetch_add(count as u64, Ordering::SeqCst);
            if reached && !self.done.swap(true, Ordering::SeqCst) {
                (self.at_limit)();
            }
            client.write_all(&buffer[..count])?;
            if reached && self.cuts {
                return Ok(());
            }
        }
    }

    fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }
}
