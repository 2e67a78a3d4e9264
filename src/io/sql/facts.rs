//! What the server says about itself, as far as the role may see it.

use std::collections::BTreeMap;

use postgres::Row;
use postgres::types::Type;
use serde::Deserialize;

use super::client::{Parameter, Trouble};
use super::session::{FUNCTIONS, PRIVILEGES, Session, exactly};
use super::trouble::{column, is_transient, query_failed};
use crate::cluster::{ServerFacts, ServerSlot};
use crate::error::Result;
use crate::format::Major;

/// The parameters that checks look at; none that may hold a secret.
const PARAMETERS: [&str; 19] = [
    "archive_mode",
    "checkpoint_timeout",
    "data_directory",
    "full_page_writes",
    "hot_standby",
    "idle_replication_slot_timeout",
    "log_directory",
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_replication_slots",
    "max_slot_wal_keep_size",
    "max_wal_senders",
    "max_wal_size",
    "max_worker_processes",
    "server_version",
    "wal_keep_size",
    "wal_level",
    "wal_log_hints",
];

/// Who asks, and where.
const PLACE: &str =
    "SELECT textsend(quote_ident(current_user)), textsend(quote_ident(current_database())), pg_is_in_recovery()";

/// The view shows only what the role may see.
const SETTINGS: &str = "
    SELECT textsend(coalesce(json_object_agg(name, current_setting(name)), '{}')::text)
      FROM pg_settings WHERE name = ANY ($1)";

const SLOTS: &str = "
    SELECT textsend(coalesce(json_agg(json_build_object(
               'active', active, 'name', slot_name, 'physical', slot_type = 'physical', 'restart_lsn', restart_lsn,
               'temporary', temporary, 'wal_status', wal_status) ORDER BY slot_name), '[]')::text)
      FROM pg_replication_slots";

/// Not before 15.
const RESOURCE_MANAGERS: &str = "
    SELECT textsend(coalesce(json_object_agg(rm_id, rm_name) FILTER (WHERE NOT rm_builtin), '{}')::text)
      FROM pg_get_wal_resource_managers()";

const NOTHING: &str = "SELECT textsend('null')";

/// Asks for everything, in one round trip.
///
/// # Errors
/// When the connection is lost, or the server does not even say who asks.
pub(super) fn server_facts(session: &mut Session) -> Result<ServerFacts> {
    let parameters: &[Parameter<'_>] = &[(&PARAMETERS.as_slice(), Type::TEXT_ARRAY)];
    let functions: &[Parameter<'_>] = &[(&FUNCTIONS.as_slice(), Type::TEXT_ARRAY)];
    // A server that does not have the function would log an error for each plan.
    let managers = if session.major >= Major::V15 { RESOURCE_MANAGERS } else { NOTHING };
    let questions = [(PLACE, &[][..]), (PRIVILEGES, functions), (SETTINGS, parameters), (SLOTS, &[]), (managers, &[])];
    let failed = |error| query_failed("cannot ask for the settings of", error);
    let answers = session.client.ask_all(&questions).map_err(failed)?;
    let [place, privileges, settings, slots, resource_managers] = exactly(answers)?;
    let (role, database, in_recovery) = place.and_then(|row| place_of(&row)).map_err(failed)?;
    let missing_privileges = privileges.and_then(|row| column(&row, 0)).map_err(failed)?;
    Ok(ServerFacts {
        database,
        in_recovery,
        missing_privileges,
        resource_managers: known::<BTreeMap<u8, String>>(resource_managers).map_err(failed)?,
        role,
        settings: known(settings).map_err(failed)?.unwrap_or_default(),
        slots: known::<Vec<ServerSlot>>(slots).map_err(failed)?,
    })
}

fn place_of(row: &Row) -> std::result::Result<(String, String, bool), Trouble> {
    let text = |index| column(row, index).map(|bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned());
    Ok((text(0)?, text(1)?, column(row, 2)?))
}

/// What an answer says; none where the server does not tell this role, or tells something else.
fn known<T: for<'a> Deserialize<'a>>(
    answer: std::result::Result<Row, Trouble>,
) -> std::result::Result<Option<T>, Trouble> {
    match answer {
        Err(trouble @ Trouble::Interrupted) => Err(trouble),
        Err(trouble) if is_transient(&trouble) => Err(trouble),
        Err(_) => Ok(None),
        Ok(row) => {
            let json: &[u8] = column(&row, 0)?;
            Ok(serde_json::from_slice(json).ok())
        }
    }
}
