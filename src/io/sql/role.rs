//! Whether a server is what `target_session_attrs` asks for.

use std::time::Duration;

use postgres::SimpleQueryMessage;
use tokio::time::timeout;
use tokio_postgres::Connection;

use super::client::{Line, Trouble};
use super::wire::Wire;
use crate::io::conninfo::TargetSession;

/// Puts the connection on the line and judges the server, which may take as long as is left: gives the client if it
/// will do.
pub(super) fn judged(
    line: &mut Line,
    engine: tokio_postgres::Client,
    connection: Connection<Wire, Wire>,
    wanted: TargetSession,
    left: Option<Duration>,
) -> Result<tokio_postgres::Client, Trouble> {
    // Since 14, the server says both on its own.
    let said = |name| connection.parameter(name).map(|value| value == "on");
    let (standby, read_only) = (said("in_hot_standby"), said("default_transaction_read_only"));
    line.carry(connection);
    let verdict = match wanted {
        TargetSession::Any => Ok(()),
        TargetSession::ReadWrite | TargetSession::ReadOnly => {
            let is_read_only = match (standby, read_only) {
                (Some(standby), Some(read_only)) => standby || read_only,
                _ => ask(line, &engine, "SHOW transaction_read_only", "on", left)?,
            };
            match (wanted, is_read_only) {
                (TargetSession::ReadWrite, true) => Err("the session is read-only"),
                (TargetSession::ReadOnly, false) => Err("the session is not read-only"),
                _ => Ok(()),
            }
        }
        TargetSession::Primary | TargetSession::Standby | TargetSession::PreferStandby => {
            let is_standby = match standby {
                Some(standby) => standby,
                None => ask(line, &engine, "SELECT pg_catalog.pg_is_in_recovery()", "t", left)?,
            };
            match (wanted, is_standby) {
                (TargetSession::Primary, true) => Err("the server is a standby"),
                (TargetSession::Standby | TargetSession::PreferStandby, false) => Err("the server is not a standby"),
                _ => Ok(()),
            }
        }
    };
    match verdict {
        Ok(()) => Ok(engine),
        Err(text) => {
            drop(engine);
            line.end();
            Err(Trouble::WrongKind(text))
        }
    }
}

/// Asks something that is true if the answer is this.
fn ask(
    line: &mut Line,
    engine: &tokio_postgres::Client,
    sql: &str,
    truth: &str,
    left: Option<Duration>,
) -> Result<bool, Trouble> {
    let query = engine.simple_query(sql);
    let answer = line.wait(async {
        match left {
            None => query.await.map(Some),
            Some(left) => timeout(left, query).await.map_or(Ok(None), |answer| answer.map(Some)),
        }
    })?;
    let answer = answer.ok_or_else(|| Trouble::Silence(left.unwrap_or_default()))?;
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten(),
        _ => None,
    });
    Ok(row == Some(truth))
}
