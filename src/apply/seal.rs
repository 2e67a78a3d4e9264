//! Making the target unstartable before the first change.

use std::io::{self, BufReader, Read};

use super::clean::unarchived_wal;
use super::finish::kept_extra;
use super::journal::{Record, Skipped, Writer};
use super::state::{Condition, Header, State, control_path, path_of};
use super::units::numbered;
use super::{ApplyContext, after_first_write, check_no_server, roots};
use crate::cluster::{Durability, NewFile, ReadAt, TargetStore};
use crate::error::{Context, Error, Result};
use crate::format::ControlFile;
use crate::manifest::{DocumentReader, digest_of, parse};
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

/// Puts the plan's document into the state directory, if it is still the one with this digest.
fn store_plan(store: &mut dyn TargetStore, document: &dyn ReadAt, digest: &str) -> Result<()> {
    let mut file = store.create_file(&path_of("manifest.json")?, "small", 0)?;
    let copying = Copying { from: DocumentReader::new(document), to: &mut *file, offset: 0, failure: None };
    let mut reader = BufReader::with_capacity(COPIED_AT_ONCE, copying);
    let stored = digest_of(&mut reader);
    if let Some(failure) = reader.into_inner().failure {
        return Err(failure);
    }
    if stored.context(|| "cannot read the plan again".to_owned())? != digest {
        return Err(Error::precondition("the plan's file changes while it is read").hint("run apply again"));
    }
    file.commit(Durability::Now)
}

/// Bytes of a plan that are copied at a time.
const COPIED_AT_ONCE: usize = 64 << 10;

/// A reader that writes what it reads into a file.
struct Copying<'a> {
    from: DocumentReader<'a>,
    to: &'a mut dyn NewFile,
    offset: u64,
    /// Why it could not be written.
    failure: Option<Error>,
}

impl Read for Copying<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        if let Err(failure) = self.to.write_at(buffer.get(..count).unwrap_or_default(), self.offset) {
            self.failure = Some(failure);
            return Err(io::ErrorKind::Other.into());
        }
        self.offset += count as u64;
        Ok(count)
    }
}

/// Notes what is going to be done: replaces whatever state an earlier apply has left.
pub(super) fn prepare(context: &mut ApplyContext<'_>, control: &ControlFile, earlier: Option<State>) -> Result<Writer> {
    let store = &mut *context.store;
    if let Some(earlier) = &earlier {
        set_aside_unarchived(store, earlier, control)?;
        roots::forget(store, context.target, earlier)?;
    }
    // Without it the rest means nothing.
    store.remove(&path_of("state.json")?)?;
    store.sync(context.progress)?;
    store.drop_kept()?;
    store_plan(store, context.document, &context.manifest.digest)?;
    write_file(store, &path_of("pg_control.before")?, control.as_bytes(), Durability::Now)?;
    let kept_in = if context.options.undo { roots::kept_in(store, context.manifest) } else { Vec::new() };
    roots::claim(store, &kept_in, context.id)?;
    let log = store.open_log(None, "journal", true)?.ok_or_else(|| Error::failure("the journal cannot be opened"))?;
    let journal = Writer::begin(log, context.id, Skipped::of(context.manifest))?;
    Header::new(context, control, kept_in).write(context.store)?;
    Ok(journal)
}

/// What an earlier apply has kept goes; WAL that no archive has outlives it.
fn set_aside_unarchived(store: &mut dyn TargetStore, earlier: &State, control: &ControlFile) -> Result<()> {
    let plan = path_of("manifest.json")?;
    if earlier.condition(control.as_bytes()) == Condition::Undone || store.entry(&plan)?.is_none() {
        return Ok(());
    }
    // A plan that cannot be read does not say what was kept.
    let Some(manifest) = parse(&*store.read_file(&plan)?).ok().filter(|plan| plan.digest == earlier.header.digest)
    else {
        return Ok(());
    };
    for segment in unarchived_wal(&manifest) {
        let path = ClusterPath::new(format!("pg_wal/{segment}").as_bytes()).context(|| "no such name".to_owned())?;
        for (number, _) in numbered(&manifest).filter(|(_, action)| action.path == path) {
            store.set_aside(&path, &number.to_string())?;
        }
        store.set_aside(&path, &kept_extra(&path))?;
    }
    Ok(())
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
