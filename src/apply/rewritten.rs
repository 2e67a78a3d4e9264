//! Settings that were the same on both sides, and that somebody has rewritten since an apply began (orchestrators do
//! that while they see no server): what they wrote is kept aside, and the source's are copied.
//!
//! Only files directly in the data directory are looked at; those below it nobody but servers writes.

use super::ApplyContext;
use super::finish::protect;
use super::journal::{Journal as Noted, Record, Rewritten, Writer as Journal};
use super::stale::file_difference;
use crate::cluster::{FileKind, TargetStore};
use crate::error::{Error, Result};
use crate::manifest::{Action, ActionKind, Kept, Manifest, Phase, Reason};
use crate::types::ClusterPath;

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// Copies them; gives how many bytes.
pub(super) fn copy_rewritten(context: &mut ApplyContext<'_>, journal: &mut Journal) -> Result<u64> {
    let rewritten = rewritten(context.manifest, context.store, journal.journal())?;
    if rewritten.is_empty() {
        return Ok(0);
    }
    let paths: Vec<_> = rewritten.iter().map(|kept| kept.path.clone()).collect();
    protect(context, journal, &paths)?;
    let actions: Vec<Action> = rewritten.iter().map(|kept| action(kept)).collect();
    let mut units = context.units(journal, None);
    units.copy(actions.iter().map(|action| (None, action)).collect())?;
    let bytes = units.bytes;
    let mut records = Vec::new();
    for kept in rewritten {
        let copy = content(context.store, &kept.path)?;
        records.push(Record::Rewritten(Rewritten { path: kept.path.as_bytes().to_vec(), copy }));
    }
    journal.write(records)?;
    Ok(bytes)
}

fn rewritten<'m>(manifest: &'m Manifest, store: &dyn TargetStore, journal: &Noted) -> Result<Vec<&'m Kept>> {
    let settings = manifest.kept.iter().filter(|kept| kept.before.is_some() && kept.path.parent().is_none());
    let mut rewritten = Vec::new();
    for kept in settings {
        let is_as_noted = match journal.rewritten.get(kept.path.as_bytes()) {
            Some(copy) => content(store, &kept.path)? == *copy,
            None => file_difference(kept.before.as_ref(), store.entry(&kept.path)?.as_ref()).is_none(),
        };
        if !is_as_noted {
            rewritten.push(kept);
        }
    }
    Ok(rewritten)
}

/// Size and CRC-32C of a file; none where there is none.
fn content(store: &dyn TargetStore, path: &ClusterPath) -> Result<Option<(u64, [u8; 4])>> {
    let Some(FileKind::File { .. }) = store.entry(path)?.map(|entry| entry.kind) else { return Ok(None) };
    let file = store.read_file(path)?;
    let (mut buffer, mut at, mut crc) = (vec![0; CHUNK], 0_u64, 0_u32);
    loop {
        let count = file.read_at(&mut buffer, at)?;
        if count == 0 {
            return Ok(Some((at, crc.to_le_bytes())));
        }
        let read = buffer.get(..count).ok_or_else(|| Error::failure("more was read than there is room for"))?;
        (at, crc) = (at + count as u64, crc32c::crc32c_append(crc, read));
    }
}

fn action(kept: &Kept) -> Action {
    Action {
        after: kept.source.clone(),
        before: None,
        blocks: Vec::new(),
        kind: ActionKind::CopyFile,
        path: kept.path.clone(),
        phase: Phase::Copy,
        reason: Reason::NotARelation,
        source: kept.source.clone(),
    }
}
