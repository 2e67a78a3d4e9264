//! What is known about a cluster before anything is decided.

use sha2::{Digest, Sha256};

use crate::cluster::ClusterReader;
use crate::error::{Context, Error, ErrorId, Result};
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
            let failure =
                Error::of(ErrorId::ControlFileDamaged, format!("the {whose}'s global/pg_control cannot be used"));
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
        Error::of(ErrorId::HistoryDamaged, format!("the {whose} is on timeline {timeline}, but has no {name}"))
            .hint("restore the history file from the WAL archive, or from another server of this cluster")
    })?;
    parse_history(&text, timeline).map_err(|error| {
        Error::of(ErrorId::HistoryDamaged, format!("the {whose}'s {name} cannot be understood"))
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cluster::Inventory;
    use crate::error::ErrorKind;
    use crate::format::{Major, control_file_sample};
    use crate::progress::Progress;

    /// Reads of a control file, one after the other; the last one again and again.
    struct Reads {
        reads: Vec<Vec<u8>>,
        done: usize,
    }

    impl ClusterReader for Reads {
        fn control_file(&mut self) -> Result<Vec<u8>> {
            let read = self.reads.get(self.done).or(self.reads.last()).unwrap().clone();
            self.done += 1;
            Ok(read)
        }

        fn read_small(&mut self, _: &ClusterPath) -> Result<Option<Vec<u8>>> {
            Ok(None)
        }

        fn list(&mut self, _: &dyn Progress) -> Result<Inventory> {
            Ok(Inventory::new())
        }

        fn running_server(&self) -> Result<Option<i32>> {
            Ok(None)
        }
    }

    /// A control file with a byte changed that the CRC covers.
    fn torn(number: u8) -> Vec<u8> {
        let mut bytes = whole();
        *bytes.get_mut(100).unwrap() = number;
        bytes
    }

    fn whole() -> Vec<u8> {
        control_file_sample(Major::V17, |_| ()).as_bytes().to_vec()
    }

    #[test]
    fn a_torn_control_file_is_read_again_while_it_changes() {
        let read = |reads: Vec<Vec<u8>>| {
            let mut source = Reads { reads, done: 0 };
            let outcome = read_control_file(&mut source, "source");
            (outcome.map_err(|error| (error.kind(), error.to_string(), error.hints().len())), source.done)
        };
        assert_eq!(read(vec![whole()]).1, 1);
        let (control, reads) = read(vec![torn(1), torn(2), whole()]);
        assert_eq!((control.unwrap().as_bytes(), reads), (whole().as_slice(), 3));
        let message = "the source's global/pg_control cannot be used".to_owned();
        let refused = Err((ErrorKind::Precondition, message, 1));
        // At rest, or damaged for good.
        assert_eq!(read(vec![torn(1)]), (refused.clone(), 2));
        assert_eq!(read(vec![torn(1), torn(2), torn(2)]), (refused.clone(), 3));
        // Another in every read.
        assert_eq!(read((1..100).map(torn).collect()), (refused.clone(), TORN_READS + 1));
        // What is wrong in another way is not read again in vain.
        assert_eq!(read(vec![vec![0; 100], vec![1; 100], whole()]).0, refused);
    }
}
