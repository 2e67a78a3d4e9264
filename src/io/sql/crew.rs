//! Sessions that serve runs: the first, and further ones that come when they are worth it and may fail.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::attempts::Attempts;
use super::client::Limits;
use super::desk::{Desk, RunId, Task, Wanted};
use super::fetch::Flight;
use super::patience::{Patience, Seen};
use super::session::{Purpose, Session};
use super::trouble::lost;
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::io::conninfo::ConnInfo;

/// How often a further session may fail or be lost before the others go on without it.
const FAILURES: u32 = 3;

/// The sessions besides the first, each with a thread of its own.
#[derive(Debug)]
pub(super) struct Crew {
    desk: Arc<Desk>,
    /// Ends what the threads wait for.
    over: Interrupt,
    /// The most that there are threads for.
    most: usize,
    /// Those that were begun with.
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Nobody yet.
    pub(super) fn new(desk: Arc<Desk>) -> Self {
        Self { desk, over: Interrupt::new(), most: usize::MAX, threads: Vec::new() }
    }

    /// Begins with so many threads, unless they are there. Each makes a session when one is worth it.
    pub(super) fn start(&mut self, others: usize, conninfo: &ConnInfo, patience: &Patience, depth: usize) {
        while self.threads.len() < others.min(self.most) {
            let helper = Helper {
                conninfo: conninfo.clone(),
                patience: patience.clone(),
                desk: Arc::clone(&self.desk),
                over: self.over.clone(),
                depth,
            };
            // Without a thread there are fewer sessions.
            match thread::Builder::new().name("source".to_owned()).spawn(move || helper.work()) {
                Ok(thread) => self.threads.push(thread),
                Err(_) => self.most = self.threads.len(),
            }
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.over.set();
        self.desk.close();
        for thread in self.threads.drain(..) {
            // One that panicked has nothing to say.
            let _ = thread.join();
        }
    }
}

/// Who keeps up a further session.
struct Helper {
    conninfo: ConnInfo,
    patience: Patience,
    desk: Arc<Desk>,
    over: Interrupt,
    depth: usize,
}

impl Helper {
    fn work(&self) {
        let mut session: Option<Session> = None;
        let mut attempts = Attempts::begin(self.patience.timeout, Instant::now());
        let mut failures = 0;
        while let Some(wanted) = self.desk.wanted() {
            // A session on another server than the first's is none.
            let known = session.take().filter(|session| session.incarnation == wanted.incarnation);
            let Some(mut live) = known.or_else(|| self.open(&wanted)) else {
                failures += 1;
                match attempts.fail(Instant::now()) {
                    Some(pause) if failures < FAILURES => self.desk.pause(pause),
                    _ => return,
                }
                continue;
            };
            let guard = self.desk.responsible(wanted.run);
            let served = serve(&self.desk, wanted.run, &mut live, self.depth);
            guard.done();
            match served {
                Ok(()) => session = Some(live),
                Err(error) if lost(&error).is_some() => failures += 1,
                Err(error) => self.desk.fail(wanted.run, error),
            }
            if failures >= FAILURES {
                return;
            }
        }
    }

    /// A session that leads to the wanted server. Whatever else it meets is no reason for the others not to go on.
    fn open(&self, wanted: &Wanted) -> Option<Session> {
        let limits = Limits {
            silence: self.patience.silence(),
            interrupt: self.patience.interrupt.clone(),
            over: self.over.clone(),
        };
        let conninfo = self.conninfo.only_to(wanted.endpoint.clone());
        let mut session = Session::open(&conninfo, limits, Purpose::Copy).ok()?;
        let same = session.incarnation == wanted.incarnation;
        let now = Seen::now(&mut session).ok()?;
        (same && wanted.seen.again(now).is_ok()).then_some(session)
    }
}

/// Does what is to be done in a run, with several queries under way, until the run is over or the session leads to
/// another server than the first one.
pub(super) fn serve(desk: &Desk, id: RunId, session: &mut Session, depth: usize) -> Result<()> {
    let mut flights = VecDeque::new();
    let outcome = fly(desk, id, session, depth, &mut flights);
    desk.give_back(id, flights.into_iter().flat_map(Flight::into_reads));
    outcome
}

fn fly(desk: &Desk, id: RunId, session: &mut Session, depth: usize, flights: &mut VecDeque<Flight>) -> Result<()> {
    loop {
        while flights.len() < depth {
            match desk.take(id, session.incarnation, flights.is_empty()) {
                Task::Over => return Ok(()),
                Task::Later => break,
                Task::Ask(requests, reads) => match session.ask(&requests, &reads) {
                    Ok(asked) => flights.push_back(Flight::new(asked, reads)),
                    Err(error) => {
                        desk.give_back(id, reads);
                        return Err(error);
                    }
                },
            }
        }
        let Some(flight) = flights.front_mut() else { continue };
        match session.next(flight)? {
            None => drop(flights.pop_front()),
            Some((read, row, bytes)) => {
                if !desk.arrive(id, session.incarnation, &read, row, bytes) {
                    return Ok(());
                }
                flight.answered();
            }
        }
    }
}
