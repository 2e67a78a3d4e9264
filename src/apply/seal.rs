//! Making the target unstartable before the first change.

use super::journal::{Record, Writer};
use super::state::{Header, State, control_path, path_of};
use super::{ApplyContext, after_first_write, check_no_server, roots};
use crate::cluster::{Durability, TargetStore};
use crate::error::{Error, Result};
use crate::format::ControlFile;
use crate::types::ClusterPath;

/// The name under which the control file is kept.
pub(super) const KEPT_CONTROL: &str = "control";

/// Puts a whole file in place.
pub(super) fn write_file(
    store: &mut dyn TargetStore,
    path: &ClusterPath,
    bytes: &[u8],
    durability: Durability,
) -> Result<()> {
    let mut file = store.create_file(path, "small", 0)?;
    file.write_at(bytes, 0)?;
    file.commit(durability)
}

/// Notes what is going to be done: replaces whatever state an earlier apply has left.
pub(super) fn prepare(context: &mut ApplyContext<'_>, control: &ControlFile, earlier: Option<State>) -> Result<Writer> {
    let store = &mut *context.store;
    if let Some(earlier) = &earlier {
        roots::forget(store, context.target, earlier)?;
    }
    // Without it the rest means nothing.
    store.remove(&path_of("state.json")?)?;
    store.sync(context.progress)?;
    store.drop_kept()?;
    write_file(store, &path_of("manifest.json")?, context.document, Durability::Now)?;
    write_file(store, &path_of("pg_control.before")?, control.as_bytes(), Durability::Now)?;
    let kept_in = if context.options.undo { roots::kept_in(store, context.manifest) } else { Vec::new() };
    roots::claim(store, &kept_in, context.id)?;
    let log = store.open_log(None, "journal", true)?.ok_or_else(|| Error::failure("the journal cannot be opened"))?;
    let journal = Writer::begin(log, context.id)?;
    Header::new(context, control, kept_in).write(context.store)?;
    Ok(journal)
}

/// Seals the target. From here on no server starts on it.
pub(super) fn seal(context: &mut ApplyContext<'_>, journal: &mut Writer, control: &ControlFile) -> Result<()> {
    let original = control.as_bytes();
    let sealed = control.clone().sealed();
    let undo = context.options.undo;
    let sealed_now = |error| after_first_write(error, undo);
    let store = &mut *context.store;
    if undo {
        store.keep(&control_path()?, KEPT_CONTROL)?;
        store.sync_kept()?;
    }
    if let Err(error) = write_file(store, &control_path()?, sealed.as_bytes(), Durability::Now) {
        let untouched = store.read_small(&control_path()?).is_ok_and(|found| found.as_deref() == Some(original));
        return Err(if untouched { error } else { after_first_write(error, undo) });
    }
    // A server that started since the first look has read the real control file: make way for it.
    if let Err(server) = check_no_server(context.target) {
        let ours = context.store.read_small(&control_path()?).map_err(sealed_now)?;
        // What that server has written itself since then counts.
        if ours.as_deref() == Some(sealed.as_bytes()) {
            write_file(context.store, &control_path()?, original, Durability::Now).map_err(sealed_now)?;
        }
        return Err(server);
    }
    journal.write(vec![Record::Sealed]).map_err(sealed_now)
}
