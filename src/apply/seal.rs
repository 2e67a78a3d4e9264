//! Making the target unstartable before the first change, and remembering what was done to it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ApplyContext, after_first_write, check_no_server};
use crate::cluster::{ClusterReader, Durability, STATE_DIRECTORY, TargetStore};
use crate::error::{Context, Result};
use crate::format::ControlFile;
use crate::manifest::hex;
use crate::types::ClusterPath;

/// The version of the state directory's format.
const FORMAT_VERSION: &str = "1.0";

/// What `state.json` says. It says it of one control file: where that is another one, a server has
/// run since, or the directory is a clone, and the state means nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The plan that was applied.
    digest: String,
    /// SHA-256 of the control file that the apply left; none before its last step.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    finished: Option<String>,
    /// The version of this format.
    format_version: String,
    /// SHA-256 of the sealed control file.
    sealed: String,
}

impl State {
    /// The state in the target; none where there is none, or one that is not understood (which
    /// the next apply replaces, unless the target is sealed).
    pub(super) fn read(target: &mut dyn ClusterReader) -> Result<Option<Self>> {
        let bytes = target.read_small(&path_of("state.json")?)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Whether the plan with this digest left this control file.
    pub(super) fn is_finished_by(&self, digest: &str, control: &[u8]) -> bool {
        self.digest == digest && self.finished.as_ref() == Some(&hex(&Sha256::digest(control)))
    }

    /// Remembers the control file that the last step will put in place.
    pub(super) fn finish(context: &mut ApplyContext<'_>, control: &[u8]) -> Result<()> {
        let digest = &context.manifest.digest;
        let sealed = Self::read(context.target)?.map(|state| state.sealed).unwrap_or_default();
        let finished = Some(hex(&Sha256::digest(control)));
        Self { digest: digest.to_owned(), finished, format_version: FORMAT_VERSION.to_owned(), sealed }
            .write(context.store)
    }

    fn write(&self, store: &mut dyn TargetStore) -> Result<()> {
        let text = serde_json::to_vec(self).context(|| "cannot write the state".to_owned())?;
        write_file(store, &path_of("state.json")?, &text, Durability::Now)
    }
}

/// A path in the state directory.
fn path_of(name: &str) -> Result<ClusterPath> {
    ClusterPath::new(format!("{STATE_DIRECTORY}/{name}").as_bytes()).context(|| "no such name".to_owned())
}

/// Puts a whole file in place.
pub(super) fn write_file(
    store: &mut dyn TargetStore,
    path: &ClusterPath,
    bytes: &[u8],
    durability: Durability,
) -> Result<()> {
    let mut file = store.create_file(path)?;
    file.write_at(bytes, 0)?;
    file.commit(durability)
}

/// The control file.
pub(super) fn control_path() -> Result<ClusterPath> {
    ClusterPath::new(b"global/pg_control").context(|| "no such name".to_owned())
}

/// Saves the plan and the control file, then seals the target. From here on no server starts on it.
pub(super) fn seal(context: &mut ApplyContext<'_>, control: ControlFile) -> Result<()> {
    let original = control.as_bytes().to_vec();
    let sealed = control.sealed();
    let state = State {
        digest: context.manifest.digest.clone(),
        finished: None,
        format_version: FORMAT_VERSION.to_owned(),
        sealed: hex(&Sha256::digest(sealed.as_bytes())),
    };
    let store = &mut *context.store;
    write_file(store, &path_of("manifest.json")?, context.document, Durability::Now)?;
    write_file(store, &path_of("pg_control.before")?, &original, Durability::Now)?;
    state.write(store)?;
    if let Err(error) = write_file(store, &control_path()?, sealed.as_bytes(), Durability::Now) {
        let untouched = store.read_small(&control_path()?).is_ok_and(|found| found.as_ref() == Some(&original));
        return Err(if untouched { error } else { after_first_write(error) });
    }
    // A server that started since the first look has read the real control file: make way for it.
    let Err(server) = check_no_server(context.target) else { return Ok(()) };
    let ours = context.store.read_small(&control_path()?).map_err(after_first_write)?;
    // What that server has written itself since then counts.
    if ours.as_deref() == Some(sealed.as_bytes()) {
        write_file(context.store, &control_path()?, &original, Durability::Now).map_err(after_first_write)?;
    }
    Err(server)
}
