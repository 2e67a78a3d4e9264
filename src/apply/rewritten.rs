//! Settings that were the same on both sides, and that somebody has rewritten since an apply began (orchestrators do
//! that while they see no server): what they wrote is kept aside, and the source's are copied.
//!
//! Only files directly in the data directory are looked at; those below it nobody but servers writes.

use super::ApplyContext;
use super::finish::protect;
use super::journal::Writer as Journal;
use super::stale::file_difference;
use crate::cluster::TargetStore;
use crate::error::Result;
use crate::manifest::{Action, ActionKind, Kept, Manifest, Phase, Reason};

/// Copies them; gives how many bytes.
pub(super) fn copy_rewritten(context: &mut ApplyContext<'_>, journal: &mut Journal) -> Result<u64> {
    let rewritten = rewritten(context.manifest, context.store)?;
    if rewritten.is_empty() {
        return Ok(0);
    }
    let paths: Vec<_> = rewritten.iter().map(|kept| kept.path.clone()).collect();
    protect(context, journal, &paths)?;
    let actions: Vec<Action> = rewritten.iter().map(|kept| action(kept)).collect();
    let mut units = context.units(journal, None);
    units.copy(actions.iter().map(|action| (None, action)).collect())?;
    let bytes = units.bytes;
    for kept in rewritten {
        let times = kept.before.as_ref().and_then(|before| before.modified);
        // Then it is what it was, for whoever verifies it.
        if let (Some(time), Some(_)) = (times, context.store.entry(&kept.path)?) {
            context.store.set_modified(&kept.path, time)?;
        }
    }
    Ok(bytes)
}

fn rewritten<'m>(manifest: &'m Manifest, store: &dyn TargetStore) -> Result<Vec<&'m Kept>> {
    let settings = manifest.kept.iter().filter(|kept| kept.before.is_some() && kept.path.parent().is_none());
    let mut rewritten = Vec::new();
    for kept in settings {
        if file_difference(kept.before.as_ref(), store.entry(&kept.path)?.as_ref()).is_some() {
            rewritten.push(kept);
        }
    }
    Ok(rewritten)
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
