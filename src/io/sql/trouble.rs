//! What a failed call means: whether the connection is lost and may be made anew, and what to say.

use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::io;

use postgres::Row;
use postgres::error::SqlState;
use postgres::types::FromSql;

use super::client::Trouble;
use super::connect::{Cause, Failure};
use super::wire::Refusal;
use crate::error::{Error, ErrorId};
use crate::interrupt::Interrupt;

/// The cause of an error behind which there may be a server that will answer again.
#[derive(Debug)]
pub(super) struct Lost {
    /// Whether a server was there at all; otherwise the address may be wrong.
    pub(super) there: bool,
    /// What happened.
    pub(super) text: String,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for Lost {}

/// What was lost, where an error says that.
pub(super) fn lost(error: &Error) -> Option<&Lost> {
    error.source()?.downcast_ref()
}

/// The failure of a query; `what` ends where the server is to be named.
pub(super) fn query_failed(what: &str, trouble: impl Into<Trouble>) -> Error {
    let trouble = trouble.into();
    if matches!(trouble, Trouble::Interrupted) {
        return Interrupt::error();
    }
    let failure = Error::failure(format!("{what} the source server"));
    let text = describe(&trouble);
    if !is_transient(&trouble) {
        return failure.because(text).hint("see the source server's log");
    }
    failure
        .with_id(ErrorId::SourceUnreachable)
        .because(Lost { there: true, text })
        .hint("see the server's log for why it ended the connection")
}

/// A value of a row.
pub(super) fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, Trouble> {
    Ok(row.try_get(index)?)
}

/// Whether the same may go well in a new session, a moment later.
pub(super) fn is_transient(trouble: &Trouble) -> bool {
    match trouble {
        Trouble::Engine(error) => is_transient_engine(error),
        Trouble::Unreachable(tried) => match tried.last() {
            Some(last) if last.is_final => may_pass(last),
            _ => tried.iter().any(may_pass),
        },
        Trouble::Silence(_) | Trouble::Closed | Trouble::WrongKind(_) => true,
        Trouble::System(_) | Trouble::Interrupted => false,
    }
}

/// Whether a server that will not do may do a moment later.
fn may_pass(failure: &Failure) -> bool {
    match &failure.cause {
        Cause::Engine(error) => is_transient_engine(error),
        Cause::Lookup(error) | Cause::Socket(error) => is_transient_io(error.kind()),
        Cause::Timeout(_) | Cause::Kind(_) => true,
        Cause::Tls(_) | Cause::Narrow(_) | Cause::Peer(_) => false,
    }
}

fn is_transient_engine(error: &postgres::Error) -> bool {
    match (error.code(), io_cause(error)) {
        (Some(state), _) => is_transient_state(state),
        (None, Some(kind)) => is_transient_io(kind),
        (None, None) => error.is_closed(),
    }
}

/// Whether a server that says this may soon say something else.
fn is_transient_state(state: &SqlState) -> bool {
    match state.code() {
        // Too many connections; stopped by the administrator; crashed; starting, stopping or recovering; idle.
        "53300" | "57P01" | "57P02" | "57P03" | "57P05" => true,
        // Violation of the protocol.
        "08P01" => false,
        // The connection failed; or replay on a standby has cancelled the query.
        code => code.starts_with("08") || code.starts_with("40"),
    }
}

/// Whether a socket that fails like this may work a moment later.
fn is_transient_io(kind: io::ErrorKind) -> bool {
    !matches!(kind, io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
}

/// Whether a server is there and says why it lets nobody in.
pub(super) fn is_from_server(error: &postgres::Error) -> bool {
    error.code().is_some() || matches!(refusal(error), Some(Refusal::NotNow(_)))
}

/// What the socket says, where it is the cause.
fn io_cause(error: &postgres::Error) -> Option<io::ErrorKind> {
    Some(error.source()?.downcast_ref::<io::Error>()?.kind())
}

/// Why the client would not go on, where it was the client.
fn refusal(error: &postgres::Error) -> Option<&Refusal> {
    error.source()?.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
}

/// The error in one text: all that the server says, or the causes one after the other.
pub(super) fn describe(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Engine(error) => describe_engine(error),
        Trouble::Unreachable(tried) => describe_tried(tried),
        Trouble::WrongKind(text) => (*text).to_owned(),
        Trouble::System(error) => error.to_string(),
        Trouble::Silence(time) => format!("no answer for {} s", time.as_secs_f64()),
        Trouble::Closed => "the connection has ended".to_owned(),
        Trouble::Interrupted => "interrupted by a signal".to_owned(),
    }
}

/// One line for each failure, as libpq has it; a server that was the only one needs no name.
fn describe_tried(tried: &[Failure]) -> String {
    if let [only] = tried {
        return only.cause.to_string();
    }
    let mut lines: Vec<String> = tried.iter().map(|failure| format!("{}: {}", failure.place, failure.cause)).collect();
    lines.dedup();
    lines.join("\n")
}

pub(super) fn describe_engine(error: &postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        let more = [error.detail(), error.hint()].into_iter().flatten();
        let parts: Vec<&str> = std::iter::once(error.message()).chain(more).collect();
        return format!("{} (SQLSTATE {})", parts.join("; "), error.code().code());
    }
    if let Some(refusal) = refusal(error) {
        return refusal.to_string();
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn states_that_pass_are_told_from_those_that_stay() {
        let pass = ["57P01", "57P02", "57P03", "57P05", "53300", "08006", "08001", "08003", "40001", "40P01"];
        let stay = ["28P01", "28000", "42501", "3D000", "42601", "58P01", "57P04", "57014", "08P01", "53200", "XX000"];
        for (codes, expected) in [(pass.as_slice(), true), (stay.as_slice(), false)] {
            for code in codes {
                assert_eq!(is_transient_state(&SqlState::from_code(code)), expected, "{code}");
            }
        }
    }

    #[test]
    fn sockets_that_may_work_again_are_told_from_those_that_do_not() {
        use io::ErrorKind::{
            ConnectionRefused, ConnectionReset, InvalidInput, NotFound, PermissionDenied, TimedOut, UnexpectedEof,
        };
        for kind in [ConnectionRefused, ConnectionReset, NotFound, TimedOut, UnexpectedEof] {
            assert!(is_transient_io(kind), "{kind}");
        }
        for kind in [PermissionDenied, InvalidInput] {
            assert!(!is_transient_io(kind), "{kind}");
        }
    }

    fn failure(place: &str, cause: Cause, is_final: bool) -> Failure {
        Failure { place: place.to_owned(), cause, is_final }
    }

    #[test]
    fn every_server_that_was_tried_is_named() {
        let refused = || Cause::Socket(io::ErrorKind::ConnectionRefused.into());
        let one = Trouble::Unreachable(vec![failure("a", refused(), false)]);
        assert_eq!(describe(&one), "connection refused");
        let two = vec![
            failure("a port 1", refused(), false),
            failure("b port 2", Cause::Kind("the session is read-only"), false),
            failure("b port 2", Cause::Kind("the session is read-only"), false),
        ];
        let expected = "a port 1: connection refused\nb port 2: the session is read-only";
        assert_eq!(describe(&Trouble::Unreachable(two)), expected);
    }

    #[test]
    fn one_server_that_may_come_back_is_enough_unless_another_has_the_last_word() {
        let dead = || failure("a", Cause::Socket(io::ErrorKind::ConnectionRefused.into()), false);
        let tls = |is_final| failure("b", Cause::Tls("no".to_owned()), is_final);
        let table = [
            (vec![dead()], true),
            (vec![failure("a", Cause::Kind("the server is a standby"), false)], true),
            (vec![failure("a", Cause::Timeout(Duration::from_secs(1)), false)], true),
            (vec![dead(), tls(false)], true),
            (vec![dead(), tls(true)], false),
            (vec![tls(false)], false),
            (vec![], false),
        ];
        for (tried, expected) in table {
            let trouble = Trouble::Unreachable(tried);
            assert_eq!(is_transient(&trouble), expected, "{trouble:?}");
        }
    }

    #[test]
    fn only_what_may_pass_is_marked_as_lost() {
        let error = query_failed("cannot ask", Trouble::Silence(Duration::from_secs(2)));
        assert!(lost(&error).is_some_and(|lost| lost.there && lost.text == "no answer for 2 s"));
        let error = query_failed("cannot ask", Trouble::Interrupted);
        assert_eq!((lost(&error).is_none(), error.kind()), (true, ErrorKind::Interrupted));
        let refused = Trouble::System(io::ErrorKind::OutOfMemory.into());
        assert!(lost(&query_failed("cannot ask", refused)).is_none());
    }
}
