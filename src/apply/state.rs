//! What the state directory says of its data directory.
//!
//! The state speaks of one control file. Where that is another one than the state knows, a server has run since or
//! the directory is a clone, and the state means nothing.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::ApplyContext;
use super::journal::{Journal, Writer};
use crate::cluster::{Durability, STATE_DIRECTORY, Target, TargetStore};
use crate::error::{Context, Error, ErrorId, Result};
use crate::format::ControlFile;
use crate::manifest::hex;
use crate::types::{ClusterPath, LinkText};

/// The version of the state directory's format.
const FORMAT_VERSION: &str = "1";

/// `state.json`: what does not change while an apply goes on. Written last, before the seal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    /// SHA-256 of the control file before the apply.
    pub(super) before: String,
    /// The plan that is applied.
    pub(super) digest: String,
    /// Whether changes are made durable at all (not with `-N`).
    pub(super) durable: bool,
    /// The version of this format.
    pub(super) format_version: String,
    /// Device and inode number of the data directory: a copy of it has others.
    pub(super) home: (u64, u64),
    /// The id of the apply; the journal has the same.
    pub(super) id: String,
    /// The roots in which something is kept: their links, and where those lead.
    pub(super) roots: Vec<(ClusterPath, LinkText)>,
    /// SHA-256 of the sealed control file.
    pub(super) sealed: String,
    /// Whether what is replaced is kept.
    pub(super) undo: bool,
}

/// What an apply has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// No apply has begun.
    Untouched,
    /// An apply has noted what it is going to do, and changed nothing yet.
    Prepared,
    /// An apply has begun and not ended: no server can start.
    Applying,
    /// An apply has come to its end, and no server has run since.
    Applied,
    /// A server has run since, or this is a clone: the state says nothing of this directory.
    Superseded,
    /// An apply had begun; then something else changed the control file that no server starts on.
    Tampered,
    /// The control file is sealed, and what the apply noted is gone.
    Lost,
    /// An undo has begun and not ended: no server can start.
    Undoing,
    /// An undo has come to its end.
    Undone,
}

/// The state that was found.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) header: Header,
    /// An error where it is damaged.
    pub(super) journal: std::result::Result<Journal, String>,
}

/// Device and inode number of a data directory.
fn home(target: &dyn Target) -> (u64, u64) {
    target.directories().first().map_or((0, 0), |directory| (directory.device, directory.inode))
}

/// A path in the state directory.
pub(super) fn path_of(name: &str) -> Result<ClusterPath> {
    ClusterPath::new(format!("{STATE_DIRECTORY}/{name}").as_bytes()).context(|| "no such name".to_owned())
}

/// The control file.
pub(super) fn control_path() -> Result<ClusterPath> {
    ClusterPath::new(b"global/pg_control").context(|| "no such name".to_owned())
}

/// SHA-256 of a control file, in lower-case hexadecimal.
pub(super) fn sha256(control: &[u8]) -> String {
    hex(&Sha256::digest(control))
}

impl Header {
    /// For an apply that is about to begin.
    pub(super) fn new(context: &ApplyContext<'_>, control: &ControlFile, roots: Vec<(ClusterPath, LinkText)>) -> Self {
        Self {
            before: sha256(control.as_bytes()),
            digest: context.manifest.digest.clone(),
            durable: context.options.durable,
            format_version: FORMAT_VERSION.to_owned(),
            home: home(context.target),
            id: context.id.to_owned(),
            roots,
            sealed: sha256(control.clone().sealed().as_bytes()),
            undo: context.options.undo,
        }
    }

    /// Puts the header in its place, durably.
    pub(super) fn write(&self, store: &mut dyn TargetStore) -> Result<()> {
        let text = serde_json::to_vec(self).context(|| "cannot write the state".to_owned())?;
        super::seal::write_file(store, &path_of("state.json")?, &text, Durability::Now)
    }
}

impl State {
    /// Reads the state directory; none where no apply has been prepared.
    ///
    /// # Errors
    /// When it cannot be read, or is of another format than this program's.
    pub(super) fn read(store: &mut dyn TargetStore) -> Result<Option<Self>> {
        let Some(bytes) = store.read_small(&path_of("state.json")?)? else { return Ok(None) };
        let unknown = |why: String| {
            Error::precondition(format!("{STATE_DIRECTORY}/state.json is not of this version's format: {why}"))
                .hint("use the version of pg_unfork that wrote it")
                .hint(format!("if the directory is a clone and its server has run, {STATE_DIRECTORY} can be removed"))
        };
        let version: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| unknown(error.to_string()))?;
        if version.get("format_version").and_then(serde_json::Value::as_str) != Some(FORMAT_VERSION) {
            return Err(unknown(format!("format_version is not {FORMAT_VERSION:?}")));
        }
        let header: Header = serde_json::from_slice(&bytes).map_err(|error| unknown(error.to_string()))?;
        let journal = match store.open_log(None, "journal", false)? {
            Some(log) => Journal::read(&*log).map_err(|error| error.to_string()),
            None => Err("it is not there".to_owned()),
        };
        let journal = journal.and_then(|journal| {
            // One that ends before its first record has nothing to say.
            if journal.id.is_empty() || journal.id == header.id {
                Ok(journal)
            } else {
                Err("it belongs to another apply".to_owned())
            }
        });
        Ok(Some(Self { header, journal }))
    }

    /// Whether it was made in this very directory: not in one that this is a copy of.
    pub(super) fn is_at_home(&self, target: &dyn Target) -> bool {
        self.header.home == home(target)
    }

    /// What the state means for a data directory with this control file.
    pub(super) fn condition(&self, control: &[u8]) -> Condition {
        let found = sha256(control);
        let Ok(journal) = &self.journal else {
            return match () {
                () if found == self.header.sealed => Condition::Applying,
                () if found == self.header.before => Condition::Prepared,
                () => Condition::Superseded,
            };
        };
        match () {
            () if found == self.header.before && (journal.undoing || journal.undone) => Condition::Undone,
            // Somebody lifted the seal by hand, whatever had been changed by then.
            () if found == self.header.before && journal.sealed => Condition::Tampered,
            () if found == self.header.before => Condition::Prepared,
            () if found == self.header.sealed && journal.undoing => Condition::Undoing,
            () if found == self.header.sealed => Condition::Applying,
            () if journal.finished.as_ref() == Some(&found) && journal.undoing => Condition::Undoing,
            () if journal.finished.as_ref() == Some(&found) => Condition::Applied,
            () if journal.finished.is_some() || !journal.sealed || journal.undone => Condition::Superseded,
            () => Condition::Tampered,
        }
    }

    /// The journal.
    ///
    /// # Errors
    /// When it is damaged: the apply cannot go on.
    pub(super) fn journal(&self) -> Result<&Journal> {
        self.journal.as_ref().map_err(|why| {
            Error::of(ErrorId::StateDamaged, format!("the journal of the apply cannot be used: {why}"))
                .hint("the apply cannot go on; it can be undone: pg_unfork undo")
        })
    }
}

/// The condition of a data directory with this control file.
///
/// # Errors
/// When the state cannot be read.
pub fn condition(store: &mut dyn TargetStore, control: &[u8]) -> Result<Condition> {
    Ok(State::read(store)?.map_or(Condition::Untouched, |state| state.condition(control)))
}

/// Whether the plan with this digest has been applied to the data directory, and nothing has changed it since. Needs no
/// source.
///
/// # Errors
/// When the state cannot be read.
pub fn is_applied(store: &mut dyn TargetStore, control: &[u8], digest: &str) -> Result<bool> {
    let state = State::read(store)?;
    Ok(state.is_some_and(|state| state.header.digest == digest && state.condition(control) == Condition::Applied))
}

/// Opens the journal of the apply that is under way.
pub(super) fn open_journal(store: &mut dyn TargetStore) -> Result<Writer> {
    let log = store.open_log(None, "journal", true)?;
    log.ok_or_else(|| Error::failure("the journal cannot be opened")).and_then(Writer::resume)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_a_control_file_means() {
        let text = |name: &str| sha256(name.as_bytes());
        let header = Header {
            before: text("before"),
            digest: String::new(),
            durable: true,
            format_version: FORMAT_VERSION.to_owned(),
            home: (1, 2),
            id: "id".to_owned(),
            roots: Vec::new(),
            sealed: text("sealed"),
            undo: true,
        };
        let journal = |sealed, finished: Option<&str>, undoing, undone| Journal {
            sealed,
            finished: finished.map(text),
            undoing,
            undone,
            ..Journal::default()
        };
        use Condition::{Applied, Applying, Prepared, Superseded, Tampered, Undoing, Undone};
        let cases = [
            (journal(false, None, false, false), "before", Prepared),
            (journal(false, None, false, false), "sealed", Applying),
            (journal(false, None, false, false), "other", Superseded),
            (journal(true, None, false, false), "sealed", Applying),
            (journal(true, None, false, false), "other", Tampered),
            (journal(true, None, false, false), "before", Tampered),
            (journal(true, Some("final"), false, false), "before", Tampered),
            (journal(true, Some("final"), false, false), "sealed", Applying),
            (journal(true, Some("final"), false, false), "final", Applied),
            (journal(true, Some("final"), false, false), "other", Superseded),
            (journal(true, Some("final"), true, false), "final", Undoing),
            (journal(true, Some("final"), true, false), "sealed", Undoing),
            (journal(true, Some("final"), true, false), "before", Undone),
            (journal(true, None, true, true), "before", Undone),
            (journal(true, None, true, true), "other", Superseded),
        ];
        for (journal, control, expected) in cases {
            let state = State { header: header.clone(), journal: Ok(journal.clone()) };
            assert_eq!(state.condition(control.as_bytes()), expected, "{control} {journal:?}");
        }
        let damaged = State { header, journal: Err("damaged".to_owned()) };
        assert_eq!(damaged.condition(b"sealed"), Applying);
        assert_eq!(damaged.condition(b"before"), Prepared);
        assert_eq!(damaged.condition(b"other"), Superseded);
    }
}
