//! Whether both sides are still as the plan saw them.

use std::os::fd::BorrowedFd;

use super::differences::{Differences, first_of, fresh_plan};
use super::units::is_replayed;
use crate::checks::Room;
use crate::cluster::{FileEntry, FileKind, Request, Sink, Source, SourceKind, Target, TargetStore};
use crate::error::{Error, ErrorId, ErrorKind, Result};
use crate::format::ControlFile;
use crate::manifest::{Action, ActionKind, Manifest, PathState, Root};
use crate::plan::{control_facts, obstacles, read_control_file, read_history, rooms};

/// How the target has moved since the plan, which it must not at all.
///
/// # Errors
/// When it cannot be looked at.
pub(super) fn target_differences(
    manifest: &Manifest,
    control: &ControlFile,
    target: &mut dyn Target,
    store: &dyn TargetStore,
) -> Result<Differences> {
    let planned = &manifest.target;
    let mut differences = Differences::of("target");
    differences.control(&planned.control_file, &control_facts(control), false);
    differences.history(&planned.history, &read_history(target, control.timeline(), "target")?);
    let roots: Vec<Root> = target.roots().into_iter().map(|(path, link)| Root { link, path }).collect();
    if planned.roots != roots {
        differences.field("pg_wal and tablespaces", roots_text(&planned.roots), roots_text(&roots));
        // The store follows the planned links alone: what is behind others cannot be looked at.
        return Ok(differences);
    }
    for action in &manifest.actions {
        let found = store.entry(&action.path)?;
        if let Some(difference) = difference(action.before.as_ref(), found.as_ref(), action) {
            differences.file(&action.path, &difference);
        }
    }
    for kept in &manifest.kept {
        let Some(before) = &kept.before else { continue };
        if let Some(difference) = file_difference(Some(before), store.entry(&kept.path)?.as_ref()) {
            differences.file(&kept.path, &difference);
        }
    }
    Ok(differences)
}

/// Where links lead: `pg_wal to /wal`.
fn roots_text(roots: &[Root]) -> String {
    let text = |root: &Root| format!("{} to {}", root.path, root.link);
    if roots.is_empty() { "no links".to_owned() } else { roots.iter().map(text).collect::<Vec<_>>().join(", ") }
}

/// How the source has moved since the plan: a stopped one must not have; a live one must be the same cluster on the
/// same timeline.
///
/// # Errors
/// When it cannot be looked at.
pub(super) fn source_differences(manifest: &Manifest, source: &mut dyn Source) -> Result<Differences> {
    let planned = &manifest.source;
    let control = read_control_file(source, "source")?;
    let mut differences = Differences::of("source");
    let live = source.kind() == SourceKind::LiveServer;
    differences.control(&planned.control_file, &control_facts(&control), live);
    if source.kind() != planned.kind {
        differences.field("kind", kind_words(planned.kind), kind_words(source.kind()));
    }
    differences.history(&planned.history, &read_history(source, control.timeline(), "source")?);
    if live || planned.kind == SourceKind::LiveServer {
        return Ok(differences);
    }
    let copied = manifest.actions.iter().map(|action| (&action.path, &action.source));
    let equal = manifest.kept.iter().map(|kept| (&kept.path, &kept.source));
    for (path, planned) in copied.chain(equal).filter(|(_, planned)| planned.is_some()) {
        let found = source.entry(path)?;
        if let Some(difference) = file_difference(planned.as_ref(), found.as_ref()) {
            differences.file(path, &difference);
        }
    }
    Ok(differences)
}

fn kind_words(kind: SourceKind) -> &'static str {
    match kind {
        SourceKind::StoppedDirectory => "stopped data directory",
        SourceKind::LiveServer => "live server",
    }
}

/// What the target's owner cannot change must show before the first write; all of it at once.
pub(super) fn check_writable(manifest: &Manifest, store: &dyn TargetStore) -> Result<()> {
    let obstacles: Vec<String> =
        obstacles(manifest, store)?.into_iter().map(|(path, obstacle)| format!("{path}: {obstacle}")).collect();
    if obstacles.is_empty() {
        return Ok(());
    }
    Err(Error::of(ErrorId::NotWritable, format!("the target cannot be changed: {}", first_of(&obstacles)))
        .hint("let the owner of the data directory own and write these, without chattr's attributes, and apply again"))
}

/// Each file system has room for what the plan writes there; all that have not are named.
pub(super) fn check_space(manifest: &Manifest, store: &dyn TargetStore, undo: bool) -> Result<()> {
    let needed = |room: &Room| if undo { room.with_undo } else { room.without_undo };
    let short = rooms(manifest, store)?.into_iter().filter(|room| needed(room) > room.free);
    let short: Vec<String> = short
        .map(|room| format!("{} has {} bytes free, the plan needs {}", room.shown, room.free, needed(&room)))
        .collect();
    if short.is_empty() {
        return Ok(());
    }
    Err(Error::precondition(format!("there is no room for the plan: {}", short.join("; ")))
        .hint("make room on the file system, and apply again"))
}

/// Every file that will be fetched can be read now; WAL that replay needs is still there.
pub(super) fn check_readable(manifest: &Manifest, source: &mut dyn Source) -> Result<()> {
    let fetched = manifest.actions.iter().filter(|action| action.source.is_some());
    let touch = |action: &Action| Request { path: action.path.clone(), offset: 0, length: Some(0), expected: 0 };
    let requests: Vec<Request> = fetched.map(touch).collect();
    let mut gone = Gone::default();
    source.fetch(&requests, &mut gone).map_err(|error| {
        // A source that went away says nothing about its files.
        if !matches!(error.kind(), ErrorKind::Failure | ErrorKind::Precondition) {
            return error;
        }
        let hint = "let the source's server read every file in its data directory, or move away what it does not need";
        Error::precondition("the source cannot be read whole").because(error).hint(hint)
    })?;
    let gone = gone.0.iter().filter_map(|&index| requests.get(index)).map(|request| &request.path);
    let needed: Vec<String> = gone.filter(|path| is_replayed(manifest, path)).map(ToString::to_string).collect();
    if needed.is_empty() {
        return Ok(());
    }
    Err(Error::of(
        ErrorId::WalMissing,
        format!("the source no longer has WAL that replay needs: {}", first_of(&needed)),
    )
    .with_kind(ErrorKind::Stale)
    .hint("the source must keep its WAL (a slot, or wal_keep_size) from plan to apply")
    .hint(fresh_plan(manifest)))
}

/// Remembers which files are not there, and takes nothing.
#[derive(Default)]
struct Gone(Vec<usize>);

impl Sink for Gone {
    fn bytes(&mut self, _: usize, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn file(&mut self, _: usize, _: BorrowedFd<'_>) -> Result<()> {
        Ok(())
    }

    fn gone(&mut self, index: usize) -> Result<()> {
        self.0.push(index);
        Ok(())
    }
}

/// How the target's entry differs from the planned one; none where it does not.
fn difference(planned: Option<&PathState>, found: Option<&FileEntry>, action: &Action) -> Option<String> {
    match (planned, found) {
        (None, None) => None,
        (None, Some(_)) => Some("is there, and was not when the plan was made".to_owned()),
        (Some(_), None) => Some("is gone".to_owned()),
        // What is in a directory that is removed has actions of its own.
        (Some(planned), Some(entry))
            if is_directory(planned) && entry.kind == FileKind::Directory && action.kind == ActionKind::Remove =>
        {
            None
        }
        (Some(planned), Some(_)) if planned.size.is_some() => file_difference(Some(planned), found),
        (Some(planned), Some(entry)) => {
            let text = planned.link.as_ref().map(|link| link.as_bytes().to_vec());
            let as_planned = text.is_some_and(|text| entry.kind == FileKind::Symlink { text });
            (!as_planned).then(|| format!("is another {} than planned", entry.kind.words()))
        }
    }
}

/// Whether a planned state is that of a directory: it has neither a file's size nor a link's text.
fn is_directory(state: &PathState) -> bool {
    state.size.is_none() && state.link.is_none()
}

/// How a regular file differs from the planned one.
pub(super) fn file_difference(planned: Option<&PathState>, found: Option<&FileEntry>) -> Option<String> {
    let planned = planned?;
    let Some(FileKind::File { size, modified }) = found.map(|entry| &entry.kind) else {
        return Some("is no regular file any more".to_owned());
    };
    if planned.size != Some(*size) {
        return Some(format!("has {size} bytes, planned {}", planned.size.unwrap_or(0)));
    }
    (planned.modified.is_some() && planned.modified != *modified).then(|| "was written to".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cluster::FileTime;

    #[test]
    fn what_is_removed_must_be_of_its_type() {
        let file = PathState { size: Some(10), ..PathState::default() };
        let link = PathState { link: Some(crate::types::LinkText::new(b"x")), ..PathState::default() };
        let directory = PathState::default();
        let size = FileKind::File { size: 10, modified: None };
        let text = FileKind::Symlink { text: b"x".to_vec() };
        let cases = [
            (&file, size.clone(), true),
            (&file, text.clone(), false),
            (&file, FileKind::Directory, false),
            (&link, text.clone(), true),
            (&link, FileKind::Symlink { text: b"y".to_vec() }, false),
            (&link, FileKind::Directory, false),
            (&directory, FileKind::Directory, true),
            (&directory, size, false),
            (&directory, text, false),
        ];
        for (planned, kind, same) in cases {
            let action = Action {
                after: None,
                before: Some(planned.clone()),
                blocks: Vec::new(),
                kind: ActionKind::Remove,
                path: crate::types::ClusterPath::new(b"x").unwrap(),
                phase: crate::manifest::Phase::Remove,
                reason: crate::manifest::Reason::OnlyOnTarget,
                source: None,
            };
            let found = FileEntry { kind, mode: None };
            assert_eq!(difference(Some(planned), Some(&found), &action).is_none(), same, "{planned:?} {found:?}");
        }
    }

    #[test]
    fn files_are_compared_by_size_and_time() {
        let time = |seconds| Some(FileTime { seconds, nanoseconds: 5 });
        let planned = PathState { size: Some(10), modified: time(7), ..PathState::default() };
        let entry = |size, seconds| FileEntry { kind: FileKind::File { size, modified: time(seconds) }, mode: None };
        let cases = [
            (Some(entry(10, 7)), None),
            (Some(entry(11, 7)), Some("has 11 bytes, planned 10")),
            (Some(entry(10, 8)), Some("was written to")),
            (Some(FileEntry { kind: FileKind::Directory, mode: None }), Some("is no regular file any more")),
            (None, Some("is no regular file any more")),
        ];
        for (found, expected) in cases {
            assert_eq!(file_difference(Some(&planned), found.as_ref()).as_deref(), expected);
        }
    }
}
