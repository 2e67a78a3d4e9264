//! A running server as a source, over SQL.
//!
//! The session's client encoding is `SQL_ASCII`: names arrive as the bytes that they are. The other
//! way the server takes as text only what is valid in the database's encoding; a name that is not
//! is found by its bytes in the listings of its directories. The session's search path is empty, so
//! what queries name is in `pg_catalog`.

//!
//! A call waits for a silent server for a bounded time only. A lost connection is made anew, and what was
//! under way goes on, if the new session turns out to lead to the same cluster, no less far than it was.

mod attempts;
mod client;
mod connect;
mod crew;
mod desk;
mod digests;
mod facts;
mod fetch;
mod hashes;
mod ledger;
mod listing;
mod load;
mod names;
mod patience;
mod pieces;
mod role;
mod session;
mod socket;
mod trouble;
mod unreachable;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::{
    ClusterReader, Comparison, DirectoryId, FileEntry, Hashing, Inventory, Likeness, LocalFiles, Names, PieceDigests,
    Position, Request, SMALL_FILE_LIMIT, ServerFacts, Sink, Source, SourceKind,
};
use crate::error::{Error, ErrorId, ErrorKind, Result};
use crate::format::Major;
use crate::interrupt::Interrupt;
use crate::io::conninfo::ConnInfo;
use crate::progress::Progress;
use crate::types::{ClusterPath, RelFileNumber};

pub use load::{Load, Rate};
pub use patience::Patience;

use attempts::Attempts;
use client::Limits;
use crew::{Crew, serve};
use desk::{Desk, RunId};
use fetch::{Delivered, Delivery};
use listing::Furthest;
use load::Shape;
use patience::Seen;
use pieces::Reached;
use session::{Purpose, Session};
use trouble::lost;

/// How often a pause looks at the interrupt.
const SLICE: Duration = Duration::from_millis(100);
/// The least time that a new connection gets.
const SHORTEST: Duration = Duration::from_secs(1);

/// The most requests in a run.
const REQUESTS: usize = 8192;
/// How often a file that has grown is read further: one that grows all the time is taken as it was then.
const MOST_GROWTH: u32 = 3;

/// A running server, and a session on it as long as there is one.
pub struct SqlSource {
    conninfo: ConnInfo,
    purpose: Purpose,
    patience: Patience,
    load: Load,
    session: Option<Session>,
    seen: Option<Seen>,
    /// Configuration that was read to plan with: a plan asks for it more than once, and should find the same.
    configuration: BTreeMap<ClusterPath, Option<Vec<u8>>>,
    /// What the first session and all others share.
    desk: Arc<Desk>,
    /// The other sessions.
    crew: Crew,
    /// Ends what the first session is waited for in a run that nobody needs any more.
    over: Interrupt,
}

/// Connects as every session does, and asks a question whose answer is one text, or null. Nothing is checked of the
/// server: this is for those who want to know where a connection leads.
///
/// # Errors
/// When no connection comes about, or the question fails.
pub fn ask(conninfo: &ConnInfo, patience: &Patience, question: &str) -> Result<Option<String>> {
    let limits = Limits { silence: patience.silence(), interrupt: patience.interrupt.clone(), over: Interrupt::new() };
    let mut client = unreachable::connect(conninfo, limits)?;
    let answer = client.query_one(question, &[]).and_then(|row| trouble::column(&row, 0));
    answer.map_err(|error| trouble::query_failed("cannot ask", error))
}

/// Files of configuration that are read together.
const CONFIGURATION: [&str; 4] = ["postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf"];

impl fmt::Debug for SqlSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { conninfo, seen, .. } = self;
        f.debug_struct("SqlSource").field("conninfo", conninfo).field("seen", seen).finish_non_exhaustive()
    }
}

impl SqlSource {
    /// Connects, sets a session up, and checks that the server and the role will do. A server that says
    /// that it cannot take connections just now is waited for; where none is, the address is taken for wrong.
    /// Further connections are made when they are of use, and fewer than `load` allows where the server has no more.
    ///
    /// # Errors
    /// When the connection fails, the server is of no known major, cannot be a source as it is
    /// set, or the role lacks a privilege; most of these are preconditions.
    pub fn connect(conninfo: ConnInfo, patience: Patience, load: Load) -> Result<Self> {
        Self::connect_for(Purpose::Copy, conninfo, patience, load)
    }

    /// The same for a plan, whose checks say what of the server's settings and the role's privileges will not do: they
    /// are no errors here, as long as the role may read the control file.
    ///
    /// # Errors
    /// When the connection fails, the server is of no known major, or the role may not read the control file.
    pub fn connect_to_plan(conninfo: ConnInfo, patience: Patience) -> Result<Self> {
        Self::connect_for(Purpose::Plan, conninfo, patience, Load::single())
    }

    fn connect_for(purpose: Purpose, conninfo: ConnInfo, patience: Patience, load: Load) -> Result<Self> {
        let desk = Arc::new(Desk::new(load));
        let crew = Crew::new(Arc::clone(&desk));
        let over = Interrupt::new();
        let configuration = BTreeMap::new();
        let mut source =
            Self { conninfo, purpose, patience, load, session: None, seen: None, configuration, desk, crew, over };
        source.patiently(|_, _| Ok(()))?;
        Ok(source)
    }

    /// The bytes of a small file.
    fn read_whole(&mut self, path: &ClusterPath) -> Result<Option<Vec<u8>>> {
        let limit = SMALL_FILE_LIMIT + 1;
        let bytes = self.patiently(|session, _| session.moved_on().read_part(path, 0, limit))?;
        if bytes.as_ref().is_some_and(|bytes| bytes.len() as u64 >= limit) {
            let message = format!("{path} of the source server is larger than {SMALL_FILE_LIMIT} bytes");
            return Err(Error::failure(message));
        }
        Ok(bytes)
    }

    /// Reads the files of configuration that every cluster has, in a single round trip.
    fn read_configuration(&mut self) -> Result<()> {
        let limit = SMALL_FILE_LIMIT + 1;
        let contents = self.patiently(|session, _| session.moved_on().read_together(&CONFIGURATION, limit))?;
        for (name, content) in CONFIGURATION.iter().zip(contents) {
            let fits = |content: &Option<Vec<u8>>| content.as_ref().is_none_or(|bytes| (bytes.len() as u64) < limit);
            if let (Ok(path), Some(content)) = (ClusterPath::new(name.as_bytes()), content.filter(fits)) {
                self.configuration.insert(path, content);
            }
        }
        Ok(())
    }

    /// Does what needs a session, and does it again in a new one where the connection was lost.
    fn patiently<T>(&mut self, work: impl FnMut(&mut Session, &mut Attempts) -> Result<T>) -> Result<T> {
        self.patiently_while(|| None, work)
    }

    /// The same, where others may do it meanwhile: `went_on` is when they last got any further.
    fn patiently_while<T>(
        &mut self,
        went_on: impl Fn() -> Option<Instant>,
        mut work: impl FnMut(&mut Session, &mut Attempts) -> Result<T>,
    ) -> Result<T> {
        let mut attempts = Attempts::begin(self.patience.timeout, Instant::now());
        loop {
            self.check()?;
            let outcome = match &mut self.session {
                Some(session) => work(session, &mut attempts),
                None => match self.open(attempts.left(Instant::now())) {
                    Ok(session) => work(self.session.insert(session), &mut attempts),
                    Err(error) => Err(error),
                },
            };
            let error = match outcome {
                Err(error) if self.is_worth_another(&error) => error,
                other => return other,
            };
            self.session = None;
            self.desk.lost();
            if let Some(at) = went_on() {
                attempts.went_on(at);
            }
            match attempts.fail(Instant::now()) {
                Some(pause) => self.pause(pause)?,
                None => return Err(given_up(error, &attempts)),
            }
        }
    }

    /// Whether a failure may pass. Of a server that never was there, that cannot be said.
    fn is_worth_another(&self, error: &Error) -> bool {
        lost(error).is_some_and(|lost| lost.there || self.seen.is_some())
    }

    /// A session on the server that was seen before, if there was one.
    fn open(&mut self, left: Duration) -> Result<Session> {
        let silence = self.patience.silence();
        let known = self.seen.is_some();
        let first = if known { silence.min(left.max(SHORTEST)) } else { silence };
        let limits = Limits { silence: first, interrupt: self.patience.interrupt.clone(), over: self.over.clone() };
        let opened = Session::open(&self.conninfo, limits, self.purpose).and_then(|mut session| {
            let now = Seen::now(&mut session)?;
            Ok((session, now))
        });
        // A server that was fit before and is not now says nothing about the plan.
        let kind = |error: Error| if known { error.with_kind(ErrorKind::Interrupted) } else { error };
        let (mut session, now) = opened.map_err(kind)?;
        let now = match self.seen {
            Some(before) => before.again(now)?,
            None => now,
        };
        self.seen = Some(now);
        self.desk.leads_to(session.incarnation, now, session.client.endpoint());
        session.client.allow_silence(silence);
        Ok(session)
    }

    /// Delivers a piece of a file whose name is no text.
    fn fetch_piece(&mut self, requests: &[Request], sink: &mut dyn Sink, reached: &mut Reached) -> Result<()> {
        let most = Shape::of(Duration::ZERO, self.load).read;
        let piece = reached.next_piece(requests, most);
        let Some((piece, request)) = piece.and_then(|piece| Some((piece, requests.get(piece.request)?))) else {
            return Ok(());
        };
        while let Some(time) = self.desk.spend(piece.length) {
            self.pause(time)?;
        }
        let bytes = self.patiently(|session, _| session.read_part(&request.path, piece.offset, piece.length))?;
        Delivery::new(sink, reached, 0).piece(&piece, bytes.as_deref()).map(|_| ())
    }

    /// Delivers what is left of requests whose files' names are all text to the server, or some of it where a file
    /// has grown meanwhile: gives whether that is so. `has_grown` says that the first has.
    fn fetch_run(
        &mut self,
        requests: &[Request],
        sink: &mut dyn Sink,
        reached: &mut Reached,
        has_grown: bool,
    ) -> Result<bool> {
        let base = reached.request;
        let requests = &*reached.rest(requests);
        let load = self.load;
        let (sizes, shape, round_trip) = self.patiently(|session, _| {
            let shape = Shape::of(session.round_trip, load);
            let trusted = shape.trusts_sizes && !has_grown;
            let expected = || requests.iter().map(|request| request.expected).collect();
            let sizes = if trusted { expected() } else { session.sizes(requests)? };
            Ok((sizes, shape, session.round_trip))
        })?;
        self.crew.start(load.others(round_trip), &self.conninfo, &self.patience, shape.depth);
        let (desk, interrupt) = (Arc::clone(&self.desk), self.patience.interrupt.clone());
        let id = desk.begin(requests.into(), sizes, shape);
        self.over = Interrupt::new();
        let over = self.over.clone();
        let delivered = thread::scope(|scope| {
            let first = thread::Builder::new().name("source".to_owned());
            let first = first.spawn_scoped(scope, || {
                let guard = desk.responsible(id);
                self.serve(id, shape.depth);
                guard.done();
            });
            let delivered = first
                .map_err(|error| Error::failure("cannot start a thread").because(error))
                .and_then(|_| deliver(&desk, id, &interrupt, Delivery::new(sink, reached, base)));
            desk.end();
            over.set();
            delivered
        });
        self.over = Interrupt::new();
        if let Some(session) = &mut self.session {
            session.client.stop_when(&self.over);
        }
        delivered
    }

    /// Lets the first session do its part of a run.
    fn serve(&mut self, id: RunId, depth: usize) {
        let (desk, over) = (Arc::clone(&self.desk), self.over.clone());
        let outcome = self.patiently_while(
            || desk.came(id),
            |session, _| {
                session.client.stop_when(&over);
                serve(&desk, id, session, depth)
            },
        );
        if let Err(error) = outcome {
            desk.fail(id, error);
        }
    }

    /// Goes on unless nobody wants it any more.
    fn check(&self) -> Result<()> {
        self.patience.interrupt.check().and_then(|()| self.over.check())
    }

    fn pause(&self, pause: Duration) -> Result<()> {
        let until = Instant::now() + pause;
        loop {
            self.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(SLICE));
        }
    }
}

/// Delivers what comes in a run, in order, until all has come or a file turns out to have grown: gives whether that is so.
fn deliver(desk: &Desk, id: RunId, interrupt: &Interrupt, mut delivery: Delivery<'_>) -> Result<bool> {
    while let Some((read, row)) = desk.deliver(id, interrupt)? {
        match delivery.take(&read, &row)? {
            Delivered::Well => {}
            Delivered::Ended(request) => desk.skip(id, request),
            Delivered::Grown => return Ok(true),
        }
    }
    Ok(false)
}

/// The last failure, once nothing more is tried.
fn given_up(error: Error, attempts: &Attempts) -> Error {
    let message = format!("the source server was lost, and {} did not bring it back", attempts.account(Instant::now()));
    Error::of(ErrorId::SourceUnreachable, message)
        .with_kind(ErrorKind::Interrupted)
        .because(error)
        .hint("see that the server runs and can be reached, and run the same command again")
        .hint("--source-timeout sets how long a lost source is waited for")
}

impl ClusterReader for SqlSource {
    fn control_file(&mut self) -> Result<Vec<u8>> {
        self.patiently(|session, _| session.control_file())
    }

    fn read_small(&mut self, path: &ClusterPath) -> Result<Option<Vec<u8>>> {
        let is_configuration = self.purpose == Purpose::Plan && path.as_bytes().ends_with(b".conf");
        if !is_configuration {
            return self.read_whole(path);
        }
        if self.configuration.is_empty() {
            self.read_configuration()?;
        }
        if let Some(known) = self.configuration.get(path) {
            return Ok(known.clone());
        }
        let content = self.read_whole(path)?;
        self.configuration.insert(path.clone(), content.clone());
        Ok(content)
    }

    fn list(&mut self, progress: &dyn Progress) -> Result<Inventory> {
        let mut furthest = Furthest::nothing();
        self.patiently(|session, attempts| {
            let outcome = listing::list(&mut session.moved_on().client, progress, &mut furthest);
            attempts.went_on(furthest.at);
            outcome
        })
    }

    fn running_server(&self) -> Result<Option<i32>> {
        Ok(None)
    }
}

impl Source for SqlSource {
    fn kind(&self) -> SourceKind {
        SourceKind::LiveServer
    }

    fn address(&self) -> String {
        self.conninfo.redacted()
    }

    fn directories(&self) -> Vec<DirectoryId> {
        Vec::new()
    }

    fn primary_conninfo(&self, major: Major) -> Option<String> {
        Some(self.conninfo.primary_conninfo(major >= Major::V18))
    }

    fn password_setting(&self) -> Option<String> {
        self.conninfo.password_setting()
    }

    fn position(&mut self) -> Result<Option<Position>> {
        let position = self.patiently(|session, _| session.position())?.ok_or_else(|| {
            Error::failure("the source server has not begun to replay WAL, so it cannot tell how far it is")
                .hint("try again when it is further")
        })?;
        if let Some(seen) = &mut self.seen {
            seen.reached(position.lsn);
        }
        Ok(Some(position))
    }

    fn server_facts(&mut self) -> Result<Option<ServerFacts>> {
        self.patiently(|session, _| facts::server_facts(session.moved_on())).map(Some)
    }

    fn entry(&mut self, path: &ClusterPath) -> Result<Option<FileEntry>> {
        Err(Error::failure(format!("a running server cannot tell for sure what {path} is")))
    }

    fn read_part(&mut self, path: &ClusterPath, offset: u64, length: u32) -> Result<Option<Vec<u8>>> {
        self.patiently(|session, _| session.moved_on().read_part(path, offset, length.into()))
    }

    fn digests(&mut self, files: &[Hashing], progress: &dyn Progress) -> Result<Vec<PieceDigests>> {
        hashes::digests(self, files, progress)
    }

    fn compare(
        &mut self,
        files: &[Comparison],
        target: &dyn LocalFiles,
        progress: &dyn Progress,
    ) -> Result<Vec<Likeness>> {
        digests::compare(self, files, target, progress)
    }

    fn names(&mut self, databases: &[u32], relations: &[RelFileNumber]) -> Names {
        self.begin_names(databases.to_vec(), relations.to_vec())()
    }

    fn begin_names(&mut self, databases: Vec<u32>, relations: Vec<RelFileNumber>) -> Box<dyn FnOnce() -> Names> {
        let finder = self.name_finder().filter(|_| !databases.is_empty() || !relations.is_empty());
        let Some(finder) = finder else { return Box::new(Names::default) };
        let asking =
            thread::Builder::new().name("names".to_owned()).spawn(move || finder.find_names(&databases, &relations));
        Box::new(move || asking.ok().and_then(|asking| asking.join().ok()).unwrap_or_default())
    }

    fn all_names(&mut self) -> Names {
        self.name_finder().map(|finder| finder.find_all_names()).unwrap_or_default()
    }

    fn fetch(&mut self, requests: &[Request], sink: &mut dyn Sink) -> Result<()> {
        let mut reached = Reached::nothing();
        let (mut growing, mut growth) = (None, 0);
        while let Some(next) = requests.get(reached.request) {
            let (encoding, is_text) =
                self.patiently(|session, _| Ok((session.moved_on().encoding, session.is_text(next))))?;
            if !is_text {
                self.fetch_piece(requests, sink, &mut reached)?;
                continue;
            }
            let text = |request: &&Request| encoding.text(request.path.as_bytes()).is_some();
            let left = requests.get(reached.request..).unwrap_or_default();
            let count = left.iter().take(REQUESTS).take_while(text).count();
            let run = requests.get(..reached.request + count).unwrap_or_default();
            let has_grown = growing == Some(reached.request);
            if self.fetch_run(run, sink, &mut reached, has_grown)? {
                growth = if growing == Some(reached.request) { growth + 1 } else { 1 };
                growing = Some(reached.request);
                if growth > MOST_GROWTH {
                    reached.end_of(reached.request);
                }
            }
        }
        Ok(())
    }
}
