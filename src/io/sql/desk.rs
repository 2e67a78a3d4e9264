//! Where sessions get what to ask for and hand in what has come, and whoever writes gets it in order.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postgres::Row;

use super::ledger::{Ledger, Take};
use super::load::{Load, Pace, Shape};
use super::patience::Seen;
use super::pieces::{Cutter, Read};
use super::session::Incarnation;
use crate::cluster::Request;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::io::conninfo::Endpoint;

/// How often a wait looks at the interrupt.
const SLICE: Duration = Duration::from_millis(100);
/// Runs of fewer bytes are not worth further sessions.
const WORTH_OTHERS: u64 = 4 << 20;

/// Which run something belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunId(u64);

/// What a session is to do.
#[derive(Debug)]
pub(super) enum Task {
    /// Ask for these.
    Ask(Arc<[Request]>, Vec<Arc<Read>>),
    /// Nothing just now.
    Later,
    /// The run is over, or the session leads to another server than it should.
    Over,
}

/// What an additional session is for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The run that it can help.
    pub(super) run: RunId,
    /// The server that it must lead to.
    pub(super) incarnation: Incarnation,
    /// What is known of that.
    pub(super) seen: Seen,
    /// Where that is, of all servers that the connection may lead to.
    pub(super) endpoint: Endpoint,
}

/// A run: reads for a list of requests, by any number of sessions on the same server.
#[derive(Debug)]
struct Run {
    requests: Arc<[Request]>,
    ledger: Ledger<Row>,
    /// Whether further sessions are worth it.
    large: bool,
    failure: Option<Error>,
    /// When something came last.
    came: Option<Instant>,
}

#[derive(Debug)]
struct State {
    run: Option<Run>,
    /// How many runs there were.
    runs: u64,
    /// The server that the first session leads to, or last led to.
    server: Option<(Incarnation, Seen, Endpoint)>,
    /// Whether the first session is there.
    up: bool,
    pace: Pace,
    /// Sessions that wait for something to do.
    waiting: usize,
    closed: bool,
}

impl State {
    /// The run of that number, if it is under way.
    fn run_of(&mut self, id: RunId) -> Option<&mut Run> {
        let runs = self.runs;
        self.run.as_mut().filter(|_| runs == id.0)
    }

    fn leads_to(&self, incarnation: Incarnation) -> bool {
        self.server.as_ref().is_some_and(|(now, ..)| *now == incarnation)
    }
}

/// Fails its run unless it is told that its thread has done its part: nobody must wait for one that is gone.
#[derive(Debug)]
pub(super) struct Responsible<'d> {
    desk: &'d Desk,
    id: RunId,
    done: bool,
}

impl Responsible<'_> {
    /// The part is done, or the run knows why not.
    pub(super) fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Responsible<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.desk.fail(self.id, Error::failure("a thread that reads from the source has died"));
        }
    }
}

/// Shared by whoever writes and all sessions that read.
#[derive(Debug)]
pub(super) struct Desk {
    state: Mutex<State>,
    /// There is something to ask for, or nothing any more.
    work: Condvar,
    /// Something has come, or failed.
    news: Condvar,
}

impl Desk {
    /// A desk where nothing is to be done.
    pub(super) fn new(load: Load) -> Self {
        let state = State { run: None, runs: 0, server: None, up: false, pace: load.pace(), waiting: 0, closed: false };
        Self { state: Mutex::new(state), work: Condvar::new(), news: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first session leads to this server, which is there.
    pub(super) fn leads_to(&self, incarnation: Incarnation, seen: Seen, endpoint: &Endpoint) {
        let mut state = self.state();
        (state.server, state.up) = (Some((incarnation, seen, endpoint.clone())), true);
        self.work.notify_all();
    }

    /// The first session is lost.
    pub(super) fn lost(&self) {
        self.state().up = false;
    }

    /// A run for these requests, whose files are so large, begins.
    pub(super) fn begin(&self, requests: Arc<[Request]>, sizes: Vec<u64>, shape: Shape) -> RunId {
        let bytes = requests.iter().zip(&sizes).fold(0_u64, |sum, (request, size)| {
            sum.saturating_add(request.length.unwrap_or_else(|| size.saturating_sub(request.offset)))
        });
        let ledger = Ledger::new(Cutter::new(Arc::clone(&requests), sizes, shape), shape);
        let mut state = self.state();
        state.runs += 1;
        state.run = Some(Run { requests, ledger, large: bytes >= WORTH_OTHERS, failure: None, came: None });
        self.work.notify_all();
        RunId(state.runs)
    }

    /// The run is over, whether all has come or not.
    pub(super) fn end(&self) {
        self.state().run = None;
        self.work.notify_all();
    }

    /// Nothing will be done any more.
    pub(super) fn close(&self) {
        let mut state = self.state();
        (state.run, state.closed) = (None, true);
        self.work.notify_all();
    }

    /// The run cannot go on.
    pub(super) fn fail(&self, id: RunId, error: Error) {
        if let Some(run) = self.state().run_of(id) {
            run.failure.get_or_insert(error);
        }
        self.news.notify_all();
    }

    /// For a thread without which the run cannot come to its end.
    pub(super) fn responsible(&self, id: RunId) -> Responsible<'_> {
        Responsible { desk: self, id, done: false }
    }

    /// Something is asked for beside all runs; how long to wait, and ask again, where that is too early.
    pub(super) fn spend(&self, bytes: u64) -> Option<Duration> {
        let (mut state, now) = (self.state(), Instant::now());
        let wait = state.pace.wait(now);
        if wait.is_zero() {
            state.pace.spend(bytes, now);
        }
        Some(wait).filter(|wait| !wait.is_zero())
    }

    /// When something came last in that run.
    pub(super) fn came(&self, id: RunId) -> Option<Instant> {
        self.state().run_of(id)?.came
    }

    /// What a session on that server is to do; one that is idle waits until there is something.
    pub(super) fn take(&self, id: RunId, incarnation: Incarnation, idle: bool) -> Task {
        let mut state = self.state();
        loop {
            if !state.leads_to(incarnation) {
                return Task::Over;
            }
            let mut pace = state.pace.clone();
            let Some(run) = state.run_of(id) else { return Task::Over };
            let wait = match run.ledger.take(&mut pace, Instant::now()) {
                Take::Reads(reads) => {
                    let requests = Arc::clone(&run.requests);
                    state.pace = pace;
                    return Task::Ask(requests, reads);
                }
                _ if !idle => return Task::Later,
                Take::Wait(time) => Some(time),
                Take::Full | Take::Nothing => None,
            };
            state.waiting += 1;
            state = match wait {
                Some(time) => self.work.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0,
                None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
            state.waiting -= 1;
        }
    }

    /// Waits until a further session is worth it; none when there is nothing to do any more.
    pub(super) fn wanted(&self) -> Option<Wanted> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            let id = RunId(state.runs);
            let useful = state.run.as_ref().is_some_and(|run| run.large && run.ledger.has_work());
            if let Some((incarnation, seen, endpoint)) = &state.server
                && state.up
                && useful
            {
                return Some(Wanted { run: id, incarnation: *incarnation, seen: *seen, endpoint: endpoint.clone() });
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for a while, unless nothing is to be done any more.
    pub(super) fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut state = self.state();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                return;
            }
            state = self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes an answer, of so many bytes, from a session on that server; whether the run goes on.
    pub(super) fn arrive(&self, id: RunId, incarnation: Incarnation, read: &Read, row: Row, bytes: u64) -> bool {
        let mut state = self.state();
        if !state.leads_to(incarnation) {
            return false;
        }
        state.pace.refund(read.length.saturating_sub(bytes));
        let Some(run) = state.run_of(id) else { return false };
        run.ledger.arrive(read, row);
        run.came = Some(Instant::now());
        if run.ledger.is_ready() {
            self.news.notify_all();
        }
        true
    }

    /// These will not be answered by who took them.
    pub(super) fn give_back(&self, id: RunId, reads: impl IntoIterator<Item = Arc<Read>>) {
        if let Some(run) = self.state().run_of(id) {
            run.ledger.give_back(reads);
        }
        self.work.notify_all();
    }

    /// Waits for the next answer; none at the end of the run.
    pub(super) fn deliver(&self, id: RunId, interrupt: &Interrupt) -> Result<Option<(Arc<Read>, Row)>> {
        let mut state = self.state();
        loop {
            let waiting = state.waiting > 0;
            let Some(run) = state.run_of(id) else { return Ok(None) };
            if let Some(next) = run.ledger.deliver() {
                if waiting && run.ledger.has_room() {
                    self.work.notify_all();
                }
                return Ok(Some(next));
            }
            if run.ledger.is_done() {
                return Ok(None);
            }
            if let Some(error) = run.failure.take() {
                return Err(error);
            }
            interrupt.check()?;
            state = self.news.wait_timeout(state, SLICE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// No more is asked for of this request.
    pub(super) fn skip(&self, id: RunId, request: usize) {
        if let Some(run) = self.state().run_of(id) {
            run.ledger.skip(request);
        }
    }
}
