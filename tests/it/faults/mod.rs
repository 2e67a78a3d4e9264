//! An apply that dies, fails, is gone on with or taken back: from the first write on one can go forward or back at any
//! instant, and no server starts in between.

mod case;
mod damage;
mod deaths;
mod kills;
mod odd;
mod power;
mod undoing;
mod verifying;

pub(crate) use kills::kill_sealed;

use crate::support::cluster::Cluster;
use crate::support::outcome::Outcome;
use crate::support::tool::pg_unfork;

/// Runs a command on the target.
pub(crate) fn on(target: &Cluster, command: &str) -> Outcome {
    Outcome::of(pg_unfork(&[command, "-D"]).arg(target.data()))
}
