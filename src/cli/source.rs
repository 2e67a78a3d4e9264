//! Reaching the source that the command line or a manifest names.

use std::path::Path;

use pg_unfork::cluster::Source;
use pg_unfork::error::{Error, ErrorKind, Result};
use pg_unfork::io::conninfo::{ConnInfo, Environment};
use pg_unfork::io::{DataDirectory, Load, Patience, SqlSource, StoppedSource};

use super::output;

/// Opens a stopped source.
pub(super) fn directory(path: &Path) -> Result<Box<dyn Source>> {
    Ok(Box::new(StoppedSource::new(DataDirectory::open(path)?)))
}

/// Connects to a live source.
pub(super) fn server(conninfo: &str, patience: Patience, load: Load) -> Result<Box<dyn Source>> {
    Ok(Box::new(SqlSource::connect(resolve(conninfo)?, patience, load)?))
}

/// Connects to a live source to plan with it: what it lacks is for the plan's checks to say.
pub(super) fn server_to_plan(conninfo: &str, patience: Patience) -> Result<Box<dyn Source>> {
    Ok(Box::new(SqlSource::connect_to_plan(resolve(conninfo)?, patience)?))
}

fn resolve(conninfo: &str) -> Result<ConnInfo> {
    let resolved = ConnInfo::resolve(conninfo, &Environment::of_process()).map_err(|error| {
        Error::new(ErrorKind::Usage, "the source's connection string cannot be used").because(error)
    })?;
    if let Some(warning) = &resolved.warning {
        output::note(&format!("pg_unfork: warning: {warning}\n"));
    }
    Ok(resolved)
}
