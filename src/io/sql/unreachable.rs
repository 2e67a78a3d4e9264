//! What to say of a connection that did not come about.

use postgres::error::SqlState;

use super::client::{Client, Limits, Trouble};
use super::connect::{Cause, Failure};
use super::trouble::{Lost, describe, describe_engine, is_from_server, is_transient};
use crate::error::{Error, ErrorId, Result};
use crate::interrupt::Interrupt;
use crate::io::conninfo::ConnInfo;

/// Connects, and says what can be done where that fails.
pub(super) fn connect(conninfo: &ConnInfo, limits: Limits) -> Result<Client> {
    Client::connect(conninfo, limits).map_err(|trouble| not_connected(conninfo, &trouble))
}

/// The error of a connection that did not come about.
fn not_connected(conninfo: &ConnInfo, trouble: &Trouble) -> Error {
    if matches!(trouble, Trouble::Interrupted) {
        return Interrupt::error();
    }
    let tried = match trouble {
        Trouble::Unreachable(tried) => tried.as_slice(),
        _ => &[],
    };
    let message = format!("cannot connect to the source server: {}", conninfo.redacted());
    let mut failure = Error::of(ErrorId::SourceUnreachable, message);
    for hint in hints(conninfo, tried) {
        failure = failure.hint(hint);
    }
    let text = describe(trouble);
    if !is_transient(trouble) {
        return failure.because(text);
    }
    let there = tried.iter().any(|failed| matches!(&failed.cause, Cause::Engine(error) if is_from_server(error)));
    failure.because(Lost { there, text })
}

/// What to do, each thing once.
fn hints(conninfo: &ConnInfo, tried: &[Failure]) -> Vec<String> {
    let mut hints = Vec::new();
    for hint in tried.iter().flat_map(|failed| hints_for(conninfo, &failed.cause)) {
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    if hints.is_empty() {
        hints.push(NOBODY.to_owned());
    }
    hints
}

const NOBODY: &str = "check that the server runs, and host and port";

fn hints_for(conninfo: &ConnInfo, cause: &Cause) -> Vec<String> {
    let hint = match cause {
        Cause::Engine(error) => match error.code() {
            Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
                let file = conninfo.password_file.as_ref();
                let came_from = file.map(|file| format!("the password came from {}", file.display()));
                let check =
                    "check user and password, that the role may log in, and the lines of the source's pg_hba.conf";
                return came_from.into_iter().chain([check.to_owned()]).collect();
            }
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                "grant the role CONNECT on the database, or name another one with dbname="
            }
            Some(&SqlState::TOO_MANY_CONNECTIONS) => {
                "free a connection, or raise max_connections or the limit of the role or database"
            }
            Some(&SqlState::CANNOT_CONNECT_NOW) => "wait until the server is up, and try again",
            Some(&SqlState::INVALID_CATALOG_NAME) => "any database will do: name one with dbname=",
            // Without a password where one is wanted, the client gives up before the server does.
            None if describe_engine(error).contains("password missing") => {
                let give = "give a password in PGPASSWORD or in a line of the password file that fits";
                return conninfo.warning.iter().map(ToString::to_string).chain([give.to_owned()]).collect();
            }
            None if describe_engine(error).contains("SCRAM iteration count") => {
                "the client makes a password a key in 100000 rounds at most: set scram_iterations on the source to less, \
                 and its role's password anew"
            }
            None if !is_from_server(error) => NOBODY,
            None | Some(_) => "see the source server's log",
        },
        Cause::Kind(_) => "name a server that is what target_session_attrs asks for, or ask for another kind",
        Cause::Tls(_) => "check the settings whose names begin with ssl, and the certificates of both sides",
        Cause::Narrow(_) => {
            "the TLS of this program is narrower than libpq's: change what it names, or go without TLS, if that is meant, \
             by sslmode=disable"
        }
        Cause::Peer(_) => "see whose server has that socket",
        Cause::Lookup(_) | Cause::Socket(_) | Cause::Timeout(_) => NOBODY,
    };
    vec![hint.to_owned()]
}
