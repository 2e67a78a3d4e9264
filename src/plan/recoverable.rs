//! Whether a target's own server may recover it: it replays what is in `pg_wal`, and takes the first gap there for the
//! end of all WAL. The checkpoint that it makes then hides that the data files are ahead.

use super::facts::{read_control_file, read_history};
use super::missing_wal::{MissingSegment, check_segment};
use super::scan::WalScan;
use crate::cluster::{Target, WalFiles};
use crate::error::{Context, Error, ErrorId, Result};
use crate::format::wal::WalFormat;
use crate::format::{BackupLabel, DbState};
use crate::types::{ClusterPath, Lsn, TimelineHistory, WalFileName};

/// How many segments behind a gap are looked for.
const MOST_LOOKED_FOR: usize = 4096;

/// Refuses a target whose own `pg_wal` does not have all that its recovery must replay. WAL that was got from elsewhere is
/// no use to a server: the target must not have any.
///
/// # Errors
/// When that WAL cannot be read: from where replay begins to the last checkpoint, and to the minimum recovery point. When
/// it ends at a gap behind which it goes on.
pub fn check_recoverable(target: &mut dyn Target) -> Result<()> {
    let control = read_control_file(target, "target")?;
    let history = read_history(target, control.timeline(), "target")?;
    let format = WalFormat::of(&control);
    // A label, where there is one, says where replay begins.
    let label = ClusterPath::new(b"backup_label").context(|| "no such name".to_owned())?;
    let label = target.read_small(&label)?.and_then(|text| BackupLabel::of_rewind(&text));
    if label.is_some() && control.state() != DbState::InArchiveRecovery {
        return Err(Error::of(ErrorId::RecoveryFailed, "the target's backup_label contradicts its control file")
            .hint("make the target anew from a base backup"));
    }
    let (redo, checkpoint) = match label {
        Some(label) => (label.start, label.checkpoint),
        None => (control.checkpoint().redo, control.checkpoint_location()),
    };
    let least = control.min_recovery_point().max(checkpoint.plus(1));
    let found = WalScan::new(&*target, format, &history).log_end(redo, least);
    let found = found.map_err(|error| incomplete(redo, least, error))?;
    // What a standby has received behind its minimum recovery point, its data files do not need.
    if control.state() == DbState::InArchiveRecovery {
        return Ok(());
    }
    let Some(missing) = found.missing else { return Ok(()) };
    let size = format.geometry.wal_segment_size;
    match later_segment(&*target, &format, &history, missing)? {
        None => Ok(()),
        Some(later) => Err(refusal(format!(
            "the target's WAL segment {} is missing, but later ones are there ({} is): recovery would end at {}",
            missing.text(size),
            later.text(size),
            found.end
        ))),
    }
}

fn incomplete(redo: Lsn, least: Lsn, error: Error) -> Error {
    if !matches!(error.id(), ErrorId::WalMissing | ErrorId::WalDamaged) {
        return error;
    }
    let what = match MissingSegment::of(&error) {
        Some(missing) => format!("the segment {} is missing", missing.file()),
        None => error.to_string(),
    };
    refusal(format!(
        "the target's data may have come to {least}, but its own pg_wal cannot be replayed from {redo} up to there: {what}"
    ))
}

fn refusal(message: String) -> Error {
    Error::of(ErrorId::WalMissing, message)
        .hint("copy what is missing into the target's pg_wal, from the WAL archive or from another server of this cluster, and run this again: recovery by the target's own postgres reads nothing else")
        .hint("or start the target as a standby of a server on its own timeline, with a restore_command, and stop it in good order")
        .hint("where nobody has it, make the target anew from a base backup")
}

/// The first segment behind a missing one that is what its name says; files that wait to be used again are not.
fn later_segment(
    files: &dyn WalFiles,
    format: &WalFormat,
    history: &TimelineHistory,
    missing: WalFileName,
) -> Result<Option<WalFileName>> {
    let mut name = missing;
    for _ in 0..MOST_LOOKED_FOR {
        name.segment = name.segment.next();
        if let Some(file) = files.open(name, format.geometry.wal_segment_size)?
            && check_segment(format, history, name, &*file).is_ok()
        {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
