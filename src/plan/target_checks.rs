//! Collects what is checked of the target's side once a plan is made, and has it checked.

use crate::checks::{
    ConfigFile, Content, Signals, SlotFile, Tablespaces, configuration, is_configuration, log_files, replication_slots,
    space, special_files, starts_as_standby, tablespaces, unarchived_wal, writable,
};
use crate::cluster::{ClusterReader, InForce, Inventory, Settings, SettingsInForce, Site, Source, Target};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::{MajorFacts, ReplicationSlot, SlotError};
use crate::manifest::{Action, ActionKind, Check, Manifest, PathState, Verdict};
use crate::types::ClusterPath;

use super::preflight::{new_links, obstacles};
use super::space::rooms;

/// Both sides, and what was listed of them.
pub(super) struct Sides<'a> {
    pub(super) target: &'a mut dyn Target,
    pub(super) source: &'a mut dyn Source,
    pub(super) target_files: &'a Inventory,
    pub(super) source_files: &'a Inventory,
    /// The settings of target and source.
    pub(super) settings: [&'a Settings; 2],
    pub(super) facts: &'a MajorFacts,
}

/// The checks of a rewind that look at the target, in a fixed order.
///
/// # Errors
/// When a side cannot be read.
pub(super) fn check_target(manifest: &Manifest, sides: &mut Sides<'_>) -> Result<Vec<Check>> {
    let actions = &manifest.actions;
    let mut checks = what_an_apply_meets(manifest, sides)?;
    let archives = may_archive(sides)?;
    checks.push(unarchived_wal(actions, sides.target_files, &manifest.target.directory, archives));
    checks.push(replication_slots(&slots(sides)?));
    checks.push(special_files(sides.target_files, actions));
    checks.extend(files_of_people(manifest, sides)?);
    let has = |files: &Inventory, name: &[u8]| ClusterPath::new(name).is_ok_and(|path| files.get(&path).is_some());
    let now = |name: &[u8]| has(sides.target_files, name);
    let then = |name: &[u8]| match actions.iter().find(|action| action.path.as_bytes() == name) {
        Some(action) => action.kind != ActionKind::Remove,
        None => now(name),
    };
    checks.push(starts_as_standby(Signals {
        written: manifest.recovery.as_ref().is_some_and(|recovery| recovery.standby_signal),
        standby: then(b"standby.signal"),
        recovery: then(b"recovery.signal"),
        removed: now(b"standby.signal") && !then(b"standby.signal"),
    }));
    Ok(checks)
}

/// Whether the target's server may be one that archives: not if its files say that it does not, and they alone. A command line
/// may have kept it from that once, for its recovery.
fn may_archive(sides: &mut Sides<'_>) -> Result<bool> {
    let options = ClusterPath::new(b"postmaster.opts").context(|| "no such name".to_owned())?;
    let options = sides.target.read_small(&options)?;
    let settings = SettingsInForce::new(sides.settings[0].clone(), options.as_deref());
    let is_off = match settings.get("archive_mode") {
        InForce::BuiltIn => true,
        InForce::Set(value) => ["off", "false", "no", "0"].iter().any(|off| off.eq_ignore_ascii_case(value)),
        InForce::Unknown => false,
    };
    Ok(!is_off || settings.is_from_command_line("archive_mode"))
}

/// The checks of a plan that needs no rewind: what `-R` writes, and what the server will be.
///
/// # Errors
/// When the target cannot be read.
pub(super) fn check_standing(manifest: &Manifest, target: &mut dyn Target) -> Result<Vec<Check>> {
    let mut has = |name: &[u8]| -> Result<bool> {
        let path = ClusterPath::new(name).context(|| "no such name".to_owned())?;
        Ok(target.read_small(&path)?.is_some())
    };
    let signals = Signals {
        written: manifest.recovery.as_ref().is_some_and(|recovery| recovery.standby_signal),
        standby: has(b"standby.signal")?,
        recovery: has(b"recovery.signal")?,
        removed: false,
    };
    let mut checks = vec![starts_as_standby(signals)];
    if manifest.recovery.is_some() && manifest.verdict == Verdict::NotNeeded {
        checks.push(writable(&obstacles(manifest, &*target.site()?)?));
    }
    Ok(checks)
}

/// Whether an apply can write, make its links, and has room. Where a link leads nowhere, the rest cannot be asked.
fn what_an_apply_meets(manifest: &Manifest, sides: &Sides<'_>) -> Result<Vec<Check>> {
    let links = new_links(&manifest.actions);
    let tablespaces_with = |problems: &[String]| {
        let roots = &manifest.target.roots;
        tablespaces(&Tablespaces { roots, source: sides.source_files, new: links.len(), problems })
    };
    let site = match sides.target.site() {
        Ok(site) => site,
        Err(error) if is_finding(&error) => return Ok(vec![tablespaces_with(&[in_words(&error)])]),
        Err(error) => return Err(error),
    };
    let problems = problems_of_links(&*site, &links)?;
    let mut checks = vec![writable(&obstacles(manifest, &*site)?), tablespaces_with(&problems)];
    if problems.is_empty() {
        checks.push(space(&rooms(manifest, &*site)?));
    }
    Ok(checks)
}

/// Why links cannot be made: each on its own, or, where each could be, some beside others.
fn problems_of_links(site: &dyn Site, links: &[(&ClusterPath, &[u8])]) -> Result<Vec<String>> {
    let one_by_one = links.iter().map(|link| site.check_symlinks(std::slice::from_ref(link)));
    let mut problems = Vec::new();
    for outcome in one_by_one.chain(std::iter::once_with(|| site.check_symlinks(links))) {
        match outcome {
            Ok(()) => {}
            Err(error) if is_finding(&error) => problems.push(in_words(&error)),
            Err(error) => return Err(error),
        }
    }
    problems.dedup();
    Ok(problems)
}

/// Whether an error says something of what was looked at, and not that it could not be looked at.
fn is_finding(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Failure | ErrorKind::Precondition | ErrorKind::Stale)
}

/// An error with its cause.
fn in_words(error: &Error) -> String {
    let cause = std::error::Error::source(error);
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// The state files of the target's slots.
fn slots(sides: &mut Sides<'_>) -> Result<Vec<SlotFile>> {
    let depth = |path: &ClusterPath| path.components().count();
    let files = sides.target_files.below(b"pg_replslot");
    let files =
        files.filter(|(path, entry)| depth(path) == 3 && path.file_name() == b"state" && entry.size().is_some());
    let mut slots = Vec::new();
    for (path, _) in files {
        let slot = match sides.target.read_small(&path) {
            Ok(bytes) => ReplicationSlot::parse(&bytes.unwrap_or_default(), sides.facts),
            Err(error) if is_finding(&error) => Err(SlotError::Unreadable(in_words(&error))),
            Err(error) => return Err(error),
        };
        slots.push((path, slot));
    }
    Ok(slots)
}

/// Configuration, logs, and what is not PostgreSQL's.
fn files_of_people(manifest: &Manifest, sides: &mut Sides<'_>) -> Result<[Check; 2]> {
    let settings = sides.settings;
    let is_config = |path: &ClusterPath| is_configuration(path, &settings);
    let is_changed = |action: &&Action| {
        let is_file = action.before.as_ref().or(action.after.as_ref()).is_some_and(|state| state.size.is_some());
        is_file && is_config(&action.path)
    };
    let mut files = Vec::new();
    for action in manifest.actions.iter().filter(is_changed) {
        let path = action.path.clone();
        let readable = files.len() < MOST_COMPARED && [&action.before, &action.source].iter().all(|state| fits(state));
        let main = matches!(path.as_bytes(), b"postgresql.conf" | b"postgresql.auto.conf");
        files.push(ConfigFile {
            has_settings: main || settings.iter().all(|side| side.files.contains(&path)),
            target: content(sides.target, &path, action.before.is_some(), readable)?,
            source: content(sides.source, &path, action.after.is_some(), readable)?,
            path,
        });
    }
    Ok([configuration(&files, manifest.recovery.as_ref()), log_files(&manifest.actions, &manifest.kept, &is_config)])
}

/// Files of configuration that are compared, and bytes of each; others are only named.
const MOST_COMPARED: usize = 200;
const LONGEST_COMPARED: u64 = 1 << 20;

fn fits(state: &Option<PathState>) -> bool {
    state.as_ref().and_then(|state| state.size).is_none_or(|size| size <= LONGEST_COMPARED)
}

fn content(cluster: &mut dyn ClusterReader, path: &ClusterPath, is_there: bool, readable: bool) -> Result<Content> {
    if !is_there {
        return Ok(Content::Absent);
    }
    if !readable {
        return Ok(Content::Unreadable(
            "there are too many files of configuration, or this one is too long".to_owned(),
        ));
    }
    match cluster.read_small(path) {
        Ok(Some(bytes)) => Ok(Content::Bytes(bytes)),
        Ok(None) => Ok(Content::Unreadable("it is not there any more, or not listed".to_owned())),
        Err(error) if is_finding(&error) => Ok(Content::Unreadable(in_words(&error))),
        Err(error) => Err(error),
    }
}
