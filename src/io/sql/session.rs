//! A session: connecting, its settings, what must hold of the server and the role.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use postgres::types::{PgLsn, Type};
use postgres::{Row, Statement};

use super::client::{Client, Limits, Parameter, Trouble};
use super::fetch::READ_PIECES;
use super::trouble::{column, query_failed};
use super::unreachable;
use crate::cluster::{Position, TornPages, torn_pages};
use crate::error::{Error, ErrorId, Result};
use crate::format::{ControlFile, Major};
use crate::io::conninfo::ConnInfo;
use crate::types::Lsn;

/// The settings of pg_rewind's sessions, and names as bytes. Not every major has all. What is sent along before their
/// outcome is known names everything with its schema: a `statement_timeout` of the database's may undo them, and leave its
/// `search_path` in force.
const SETTINGS: &str = "SET statement_timeout = 0; SET lock_timeout = 0; \
     SET idle_in_transaction_session_timeout = 0; SET default_transaction_read_only = on; \
     SET client_encoding = 'SQL_ASCII'; SELECT pg_catalog.set_config('search_path', '', false); \
     SELECT pg_catalog.set_config(name, '0', false) \
       FROM pg_catalog.unnest(ARRAY['transaction_timeout', 'idle_session_timeout']) AS name \
      WHERE pg_catalog.current_setting(name, true) IS NOT NULL";

/// The functions that ordinary roles may execute only if somebody granted it.
pub(super) const FUNCTIONS: [&str; 4] = [
    "pg_catalog.pg_ls_dir(text, boolean, boolean)",
    "pg_catalog.pg_stat_file(text, boolean)",
    "pg_catalog.pg_read_binary_file(text)",
    "pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// Which file names the server takes as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Those that are UTF-8: the database's encoding is UTF-8 or none.
    Utf8,
    /// Those that are ASCII, of which every encoding is a superset.
    Other,
}

impl Encoding {
    /// The name as the server takes it; `None` where it would have to be valid but may not be.
    pub(super) fn text(self, name: &[u8]) -> Option<&str> {
        let text = std::str::from_utf8(name).ok()?;
        (self == Self::Utf8 || text.is_ascii()).then_some(text)
    }
}

/// A session on a running server, which ends where the connection does.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) encoding: Encoding,
    /// The server's major.
    pub(super) major: Major,
    /// The server that it leads to.
    pub(super) incarnation: Incarnation,
    /// How long the server's answer to a small question took at the least.
    pub(super) round_trip: Duration,
    /// The control file, where it was read and nobody has asked for it yet.
    pub(super) control: Option<Vec<u8>>,
    /// The position, where it was read together with the control file and nothing was asked since.
    position: Option<Option<Position>>,
    /// How pieces of files are read.
    pub(super) read_pieces: Statement,
}

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A plan: what is wrong with the server's settings or the role's privileges is said by its checks, all at once.
    Plan,
    /// Copying: a server or a role that will not do is refused.
    Copy,
}

/// Which server a session leads to, since when it runs: what another one would hardly have begun at the same microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Incarnation(i64);

impl Incarnation {
    /// The server that says this of when it began.
    pub(super) fn of(started: i64) -> Self {
        Self(started)
    }
}

/// When the server began, in microseconds.
pub(super) const STARTED: &str = "
    SELECT (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8";

impl Session {
    /// Connects, sets the session up, and checks that the server and the role will do for its purpose.
    pub(super) fn open(conninfo: &ConnInfo, limits: Limits, purpose: Purpose) -> Result<Self> {
        let mut client = unreachable::connect(conninfo, limits)?;
        let begin = Instant::now();
        let functions: &[Parameter<'_>] = &[(&FUNCTIONS.as_slice(), Type::TEXT_ARRAY)];
        let questions = [(FACTS, &[][..]), (PRIVILEGES, functions), (CONTROL_FILE, &[]), (POSITION, &[])];
        let failed = |error| query_failed("cannot set up a session on", error);
        let (read_pieces, answers) = client.begin(SETTINGS, READ_PIECES, &questions).map_err(failed)?;
        let round_trip = begin.elapsed();
        let [facts, privileges, control, position] = exactly(answers)?;
        let server = check(&facts.map_err(failed)?)?;
        if purpose == Purpose::Copy || control.is_err() {
            check_privileges(&mut client, privileges, server.in_recovery)?;
        }
        let control = control_file_of(control)?;
        if purpose == Purpose::Copy {
            check_images(&server, &control)?;
        }
        let (control, position) = (Some(control), Some(position_of(position)?));
        let read_pieces = read_pieces.map_err(failed)?;
        let Server { encoding, major, incarnation, .. } = server;
        Ok(Self { client, encoding, major, incarnation, round_trip, control, position, read_pieces })
    }

    /// A small question was answered in that time.
    pub(super) fn took(&mut self, time: Duration) {
        self.round_trip = self.round_trip.min(time);
    }

    /// The bytes of the control file. The position is read after it: mostly, it is asked for next.
    pub(super) fn control_file(&mut self) -> Result<Vec<u8>> {
        if let Some(control) = self.control.take() {
            return Ok(control);
        }
        let begin = Instant::now();
        let answers = self.client.ask_all(&[(CONTROL_FILE, &[]), (POSITION, &[])]);
        self.took(begin.elapsed());
        let answers = answers.map_err(|error| query_failed("cannot read global/pg_control of", error))?;
        let [control, position] = exactly(answers)?;
        let control = control_file_of(control)?;
        self.position = Some(position_of(position)?);
        Ok(control)
    }

    /// The session, for something else: what was read ahead is of another time by then.
    pub(super) fn moved_on(&mut self) -> &mut Self {
        (self.control, self.position) = (None, None);
        self
    }

    /// How far the server's WAL reaches; none where it has not begun to replay.
    pub(super) fn position(&mut self) -> Result<Option<Position>> {
        if let Some(position) = self.position.take() {
            return Ok(position);
        }
        let begin = Instant::now();
        let position = position_of(self.client.query_one(POSITION, &[]))?;
        self.took(begin.elapsed());
        Ok(position)
    }
}

const CONTROL_FILE: &str = "SELECT pg_catalog.pg_read_binary_file('global/pg_control')";

fn control_file_of(answer: std::result::Result<Row, Trouble>) -> Result<Vec<u8>> {
    answer.and_then(|row| column(&row, 0)).map_err(|error| query_failed("cannot read global/pg_control of", error))
}

/// How far the WAL reaches. A promotion in between must not be seen by one half of the answer only.
const POSITION: &str = "
    SELECT in_recovery, CASE WHEN in_recovery THEN pg_catalog.pg_last_wal_replay_lsn()
                             ELSE pg_catalog.pg_current_wal_flush_lsn() END
      FROM (SELECT pg_catalog.pg_is_in_recovery() AS in_recovery OFFSET 0) AS state";

fn position_of(answer: std::result::Result<Row, Trouble>) -> Result<Option<Position>> {
    let failed = |error| query_failed("cannot read the WAL position of", error);
    let row = answer.map_err(failed)?;
    let in_recovery = column(&row, 0).map_err(failed)?;
    let lsn: Option<PgLsn> = column(&row, 1).map_err(failed)?;
    Ok(lsn.map(|lsn| Position { lsn: Lsn::new(lsn.into()), in_recovery }))
}

/// As many answers as there were questions.
pub(super) fn exactly<const N: usize, T>(answers: Vec<T>) -> Result<[T; N]> {
    answers.try_into().map_err(|_| Error::failure("the source server does not answer all that was asked"))
}

/// What must be known of a server.
const FACTS: &str = "
    SELECT pg_catalog.current_setting('server_version'),
           pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
           pg_catalog.current_setting('full_page_writes') OPERATOR(pg_catalog.=) 'on',
           pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('server_encoding'),
           (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8";

/// What is known of a server once a session is set up.
struct Server {
    /// Which names it takes as text.
    encoding: Encoding,
    major: Major,
    /// Which one it is.
    incarnation: Incarnation,
    in_recovery: bool,
    full_page_writes: bool,
}

/// Checks that this server is one that can be a source.
fn check(row: &Row) -> Result<Server> {
    let failed = |error| query_failed("cannot set up a session on", error);
    let text: String = column(row, 0).map_err(failed)?;
    let number: i32 = column(row, 1).map_err(failed)?;
    let full_page_writes: bool = column(row, 2).map_err(failed)?;
    let in_recovery: bool = column(row, 3).map_err(failed)?;
    let encoding: &str = column(row, 4).map_err(failed)?;
    let started: i64 = column(row, 5).map_err(failed)?;

    let number = u32::try_from(number / 10_000).unwrap_or(0);
    let Some(major) = Major::ALL.into_iter().find(|major| major.number() == number) else {
        return Err(Error::precondition(format!(
            "the source server is PostgreSQL {text}, and only the majors 13 to 19 are known"
        ))
        .hint("use the pg_unfork that was made for this major"));
    };
    if major == Major::V13 && in_recovery {
        return Err(Error::precondition("the source server is a standby, which PostgreSQL 13 cannot be rewound to")
            .hint("use the primary, or promote this server first"));
    }
    let encoding = if matches!(encoding, "UTF8" | "SQL_ASCII") { Encoding::Utf8 } else { Encoding::Other };
    Ok(Server { encoding, major, incarnation: Incarnation(started), in_recovery, full_page_writes })
}

/// Checks that pages which are copied while they are written can be repaired. A control file that was being written
/// itself says nothing; it is read again.
fn check_images(server: &Server, control: &[u8]) -> Result<()> {
    let Ok(control) = ControlFile::parse(control) else { return Ok(()) };
    let refused = match torn_pages(server.in_recovery, Some(server.full_page_writes), &control.checkpoint()) {
        None => return Ok(()),
        Some(TornPages::Setting) => Error::precondition(
            "full_page_writes is off on the source server: pages copied while they are written could not be repaired",
        ),
        Some(TornPages::Checkpoint) => Error::precondition(
            "full_page_writes was off at the source's last checkpoint: pages copied while they are written could not be repaired",
        ),
    };
    Err(refused.hint("set full_page_writes = on, on its primary too, and let a checkpoint pass"))
}

/// Those of the functions that the role may not execute.
pub(super) const PRIVILEGES: &str = "
    SELECT ARRAY(SELECT function FROM pg_catalog.unnest($1::pg_catalog.text[]) WITH ORDINALITY AS f(function, n)
                  WHERE NOT pg_catalog.has_function_privilege(function, 'EXECUTE') ORDER BY n)";

/// Checks that the role may execute [`FUNCTIONS`].
fn check_privileges(client: &mut Client, answer: std::result::Result<Row, Trouble>, in_recovery: bool) -> Result<()> {
    let failed = |error| query_failed("cannot read the privileges on", error);
    let row = answer.map_err(failed)?;
    let missing: Vec<&str> = column(&row, 0).map_err(failed)?;
    if missing.is_empty() {
        return Ok(());
    }
    let query = "SELECT pg_catalog.textsend(pg_catalog.quote_ident(current_user)),
                        pg_catalog.textsend(pg_catalog.quote_ident(pg_catalog.current_database()))";
    let row = client.query_one(query, &[]).map_err(failed)?;
    let name = |index| column(&row, index).map(|name: &[u8]| String::from_utf8_lossy(name).into_owned());
    let (role, database) = (name(0).map_err(failed)?, name(1).map_err(failed)?);
    Err(privileges_missing(&missing, &role, &database, in_recovery))
}

/// The error for privileges that are missing; names are quoted as SQL wants them.
fn privileges_missing(functions: &[&str], role: &str, database: &str, in_recovery: bool) -> Error {
    let server = if in_recovery { "the source's primary" } else { "the source server" };
    let mut hint = format!("as a superuser in database {database} of {server} run:");
    for function in functions {
        let _ = write!(hint, "\nGRANT EXECUTE ON FUNCTION {function} TO {role};");
    }
    let message = format!("role {role} may not execute all functions that read the source server's files");
    Error::of(ErrorId::SourcePrivileges, message).hint(hint)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_that_may_be_invalid_are_no_text() {
        let cases: [(&[u8], bool, bool); 3] =
            [(b"base/1", true, true), ("n\u{e4}h".as_bytes(), true, false), (b"a\xff", false, false)];
        for (name, utf8, other) in cases {
            assert_eq!(Encoding::Utf8.text(name).is_some(), utf8, "{name:?}");
            assert_eq!(Encoding::Other.text(name).is_some(), other, "{name:?}");
        }
    }

    #[test]
    fn the_statements_can_be_run_as_they_are() {
        let error = privileges_missing(FUNCTIONS.get(1..2).unwrap(), "\"my role\"", "app", true);
        let expected = "as a superuser in database app of the source's primary run:\n\
             GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean) TO \"my role\";";
        assert_eq!(error.hints(), [expected]);
    }
}
