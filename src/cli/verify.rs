//! `pg_unfork verify`.

use std::path::Path;

use pg_unfork::apply::{Condition, Lines, Status, Verification, VerifyContext, status, verify};
use pg_unfork::cluster::ClusterReader;
use pg_unfork::error::{Error, ErrorId, Result};
use pg_unfork::io::{DataDirectory, DirectoryStore, Lock, LockKind, SyncMethod};
use pg_unfork::report::{bytes, count};

use super::args::VerifyArguments;
use super::progress::Watch;
use super::show::read_manifest;
use super::{ExitCode, output, state};

/// Verifies an applied target.
pub(super) fn run(arguments: &VerifyArguments) -> Result<ExitCode> {
    let named = arguments.file.as_deref().map(read_manifest).transpose()?.map(|(manifest, _)| manifest);
    let planned = named.as_ref().map(|manifest| state::path_of(&manifest.target.directory).to_owned());
    let directory = arguments.target.clone().or(planned);
    let directory = directory.ok_or_else(|| Error::precondition("no target is named").hint("name it: -D DIR"))?;
    let mut target = DataDirectory::open(&directory)?;
    let directory = target.path().to_owned();
    let _lock = Lock::take(&directory, LockKind::Shared)?;
    let control = target.control_file()?;
    let mut own = DirectoryStore::open(&directory, &[], SyncMethod::None)?;
    check_status(&status(&mut own, &control, None)?)?;
    let (manifest, _) = state::stored_manifest(&directory)?;
    if let Some(named) = named.filter(|named| named.digest != manifest.digest) {
        let (wanted, applied) = (named.digest, manifest.digest);
        return Err(Error::stale(format!("the plan that was applied here is another one: {applied}, not {wanted}"))
            .hint("name the plan that was applied, or none"));
    }
    let mut store = state::open_store(&directory, &manifest, SyncMethod::None)?;
    let found =
        verify(VerifyContext { manifest: &manifest, target: &mut target, store: &mut store, progress: &Watch::new() })?;
    output::note(&describe(&found, &directory));
    judge(&found).map(|()| ExitCode::Done)
}

/// Only what an apply has just left can be compared with anything.
fn check_status(status: &Status) -> Result<()> {
    if let Some(problem) = &status.journal_problem {
        return Err(Error::precondition(format!(
            "there is nothing to verify with: the journal of the apply: {problem}"
        ))
        .hint("see what can be done: pg_unfork status -D DIR"));
    }
    let hint = match status.condition {
        Condition::Applied => return Ok(()),
        Condition::Untouched | Condition::Prepared | Condition::Undone => "apply a plan first: pg_unfork apply FILE",
        Condition::Applying => "go on with it (pg_unfork apply -D DIR) or take it back (pg_unfork undo -D DIR)",
        Condition::Undoing => "finish it: pg_unfork undo -D DIR",
        Condition::Tampered => "take it back: pg_unfork undo -D DIR",
        Condition::Lost => "make the target anew from a base backup",
        Condition::Superseded => {
            "what a server has written is not the apply's any more; use pg_amcheck and pg_checksums"
        }
    };
    let (word, meaning) = state::words(status.condition);
    Err(Error::precondition(format!("there is nothing to verify; the target is {word}: {meaning}")).hint(hint))
}

fn describe(found: &Verification, directory: &Path) -> String {
    let mut text = String::new();
    let mut list = |what: &str, lines: &Lines| {
        for line in &lines.shown {
            text.push_str(&format!("pg_unfork: {what}: {line}\n"));
        }
        let more = lines.count - lines.shown.len() as u64;
        if more > 0 {
            text.push_str(&format!("pg_unfork: {what}: and {}\n", count(more, "more", "more")));
        }
    };
    list("difference", &found.differences);
    list("bad page, copied as it was", &found.bad_pages);
    list("torn page, which replay repairs", &found.torn_pages);
    list("directory left, because something unknown is inside", &found.left);
    if is_good(found) {
        let paths = count(found.paths, "path", "paths");
        let pages = found.pages.map_or("data checksums are off".to_owned(), |pages| {
            format!("checksums of {} computed", count(pages, "page", "pages"))
        });
        let read = bytes(found.bytes);
        let shown = directory.display();
        text.push_str(&format!("pg_unfork: verified: {shown} is what the apply left: {paths}, {read} read, {pages}\n"));
    }
    text
}

fn is_good(found: &Verification) -> bool {
    found.differences.count == 0 && found.bad_pages.count == 0
}

fn judge(found: &Verification) -> Result<()> {
    if is_good(found) {
        return Ok(());
    }
    let differences = count(found.differences.count, "difference", "differences");
    let pages = count(found.bad_pages.count, "bad page", "bad pages");
    let mut error =
        Error::of(ErrorId::NotSound, format!("the target is not sound: {differences}, {pages} of the source"));
    if found.differences.count > 0 {
        error = error.hint(if found.undo {
            "do not start a server on it: take the apply back (pg_unfork undo), look for what changed it, and apply again"
        } else {
            "do not start a server on it: look for what changed it, and make it anew from a base backup"
        });
    }
    if found.bad_pages.count > 0 {
        error = error.hint("the source has these pages: run pg_checksums there, and repair or replace it first");
    }
    Err(error)
}
