//! What is known about a cluster before anything is decided.

use sha2::{Digest, Sha256};

use crate::cluster::ClusterReader;
use crate::error::{Context, Error, Result};
use crate::format::{ControlFile, ControlFileError, parse_history};
use crate::manifest::ControlFacts;
use crate::types::{ClusterPath, TimelineHistory, TimelineId};

/// A cluster's control file and line of timelines.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its control file.
    pub control: ControlFile,
    /// Its line of timelines, up to the one that it is on.
    pub history: TimelineHistory,
}

/// How often a control file is read again whose CRC does not fit: a live server may be writing it.
const TORN_READS: usize = 10;

/// Reads and checks a control file. One whose CRC does not fit is read again, as long as its bytes
/// change: a running server may have been writing it.
///
/// # Errors
/// When it cannot be read, or is no control file of a known major.
pub fn read_control_file(cluster: &mut dyn ClusterReader, whose: &str) -> Result<ControlFile> {
    let mut bytes = cluster.control_file()?;
    let mut tries = 0;
    loop {
        let error = match ControlFile::parse(&bytes) {
            Ok(control) => return Ok(control),
            Err(error) => error,
        };
        tries += 1;
        let again = cluster.control_file()?;
        let torn = matches!(error, ControlFileError::Crc { .. }) && again != bytes;
        if !torn || tries == TORN_READS {
            let failure = Error::precondition(format!("the {whose}'s global/pg_control cannot be used"));
            return Err(failure.hint(control_file_hint(&error)).because(error));
        }
        bytes = again;
    }
}

/// What to do about a control file that cannot be used.
fn control_file_hint(error: &ControlFileError) -> &'static str {
    match error {
        ControlFileError::Version { .. } => "the directory is of another PostgreSQL, or of none; check what was named",
        _ => "it is damaged, and a cluster cannot be used without it: make this one anew from a base backup",
    }
}

/// Reads a cluster's line of timelines up to `timeline`.
///
/// # Errors
/// When the history file is missing or malformed.
pub fn read_history(cluster: &mut dyn ClusterReader, timeline: TimelineId, whose: &str) -> Result<TimelineHistory> {
    if timeline == TimelineId::new(1) {
        return Ok(TimelineHistory::new(&[], timeline));
    }
    let name = format!("pg_wal/{:08X}.history", timeline.get());
    let path = ClusterPath::new(name.as_bytes()).context(|| format!("no file can be named {name:?}"))?;
    let text = cluster.read_small(&path)?.ok_or_else(|| {
        Error::precondition(format!("the {whose} is on timeline {timeline}, but has no {name}"))
            .hint("restore the history file from the WAL archive, or from another server of this cluster")
    })?;
    parse_history(&text, timeline).map_err(|error| {
        Error::precondition(format!("the {whose}'s {name} cannot be understood"))
            .because(error)
            .hint("put a good copy there, from the WAL archive or from another server of this cluster")
    })
}

/// What a manifest says about a control file.
#[must_use]
pub fn control_facts(control: &ControlFile) -> ControlFacts {
    let header = control.header();
    ControlFacts {
        catalog_version: header.catalog_version,
        checkpoint: control.checkpoint_location(),
        control_version: header.control_version,
        data_checksums: control.settings().data_checksums,
        geometry: control.geometry(),
        min_recovery_point: control.min_recovery_point(),
        redo: control.checkpoint().redo,
        sha256: crate::manifest::hex(&Sha256::digest(control.as_bytes())),
        state: control.state(),
        system_identifier: header.system_identifier.to_string(),
        timeline: control.timeline(),
        wal_log_hints: control.settings().wal_log_hints,
    }
}
