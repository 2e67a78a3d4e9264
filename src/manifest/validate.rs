//! Whether a manifest can be executed: everything that its types do not rule out.

use std::collections::BTreeSet;

use super::{Action, ActionKind, Manifest, Phase, RuleName, Scope, Verdict};
use crate::cluster::LARGEST_FILE;
use crate::cluster::rules::{PathRule, rule_of};
use crate::format::DbState;
use crate::types::ClusterPath;

/// Everything that keeps a manifest from being executed, a sentence each; none for a good one.
///
/// The digest says that nobody changed the document, not that what wrote it was right or honest.
#[must_use]
pub fn validate(manifest: &Manifest) -> Vec<String> {
    let mut problems = Vec::new();
    for feature in &manifest.requires {
        problems.push(format!("it requires {feature:?}, which this program does not know"));
    }
    if manifest.verdict == Verdict::Rewind {
        check_rewind(manifest, &mut problems);
    } else if manifest.verdict == Verdict::NotNeeded && !manifest.actions.is_empty() {
        problems.push("it has actions although no rewind is needed".to_owned());
    }
    let may_be_applied = manifest.verdict != Verdict::Impossible && manifest.scope == Scope::Full;
    if manifest.applyable != may_be_applied {
        problems.push("its verdict and scope contradict whether it can be applied".to_owned());
    }
    check_actions(manifest, &mut problems);
    problems
}

/// A rewind has all of its sections, and they say what this program does.
fn check_rewind(manifest: &Manifest, problems: &mut Vec<String>) {
    let sections = [
        ("backup_label", manifest.backup_label.is_none()),
        ("checkpoint", manifest.checkpoint.is_none()),
        ("control_file", manifest.control_file.is_none()),
        ("divergence", manifest.divergence.is_none()),
        ("wal", manifest.wal.is_none()),
    ];
    for (section, _) in sections.iter().filter(|(_, missing)| *missing) {
        problems.push(format!("a rewind without section {section}"));
    }
    if let Some(control) = &manifest.control_file {
        let set = &control.set;
        let as_known = control.base == RuleName::SourceAtApply
            && set.state == DbState::InArchiveRecovery
            && set.min_recovery_point.rule == RuleName::SourceEnd
            && set.min_recovery_timeline.rule == RuleName::SourceEnd
            && set.time.is_none_or(|time| time.rule == RuleName::Now);
        if !as_known {
            problems.push("control_file has a rule at a place where this program does not know it".to_owned());
        }
    }
    if manifest.backup_label.as_ref().is_some_and(|label| label.start_time.rule != RuleName::Now) {
        problems.push("backup_label has a rule at a place where this program does not know it".to_owned());
    }
    if manifest.wal.as_ref().is_some_and(|wal| wal.fetch.through.rule != RuleName::SourceEnd) {
        problems.push("wal.fetch has a rule at a place where this program does not know it".to_owned());
    }
}

fn check_actions(manifest: &Manifest, problems: &mut Vec<String>) {
    const SHOWN: usize = 20;
    let block_size = u64::from(manifest.target.control_file.geometry.block_size).max(1);
    let mut paths: BTreeSet<&ClusterPath> = BTreeSet::new();
    let mut previous: Option<(Phase, &ClusterPath)> = None;
    for action in &manifest.actions {
        let place = (action.phase, &action.path);
        if problems.len() >= SHOWN {
            problems.push("…".to_owned());
            return;
        }
        if previous.is_some_and(|previous| previous >= place) {
            problems.push(format!("{}: actions are not in order of phase and path", action.path));
        }
        if !paths.insert(&action.path) {
            problems.push(format!("{}: two actions on one path", action.path));
        }
        if let Err(problem) = check_action(action, block_size) {
            problems.push(format!("{}: {problem}", action.path));
        }
        previous = Some(place);
    }
    for kept in manifest.kept.iter().filter(|kept| paths.contains(&kept.path)).take(SHOWN) {
        problems.push(format!("{}: has an action, and is kept", kept.path));
    }
    // An apply copies them all the same where somebody rewrites them meanwhile.
    let mut equal: BTreeSet<&ClusterPath> = BTreeSet::new();
    for kept in manifest.kept.iter().filter(|kept| kept.before.is_some()) {
        if problems.len() >= SHOWN {
            return;
        }
        if rule_of(&kept.path) != PathRule::Compare {
            problems.push(format!("{}: is kept as equal, and is none of the paths that are compared", kept.path));
        }
        if !equal.insert(&kept.path) {
            problems.push(format!("{}: is kept twice", kept.path));
        }
    }
}

fn check_action(action: &Action, block_size: u64) -> Result<(), &'static str> {
    let state_size = |state: &Option<super::PathState>| state.as_ref().and_then(|s| s.size);
    let (before, after) = (state_size(&action.before), state_size(&action.after));
    if [before, after, state_size(&action.source)].into_iter().flatten().any(|size| size > LARGEST_FILE) {
        return Err("a size is larger than 2^53-1");
    }
    match rule_of(&action.path) {
        PathRule::ControlFile => return Err("no action may change the control file"),
        PathRule::ControlFileCopy => return Err("no action may touch a copy of the control file that others rely on"),
        PathRule::OwnState => return Err("no action may touch the state directory"),
        PathRule::Excluded if action.kind != ActionKind::Remove => return Err("the path is one that is never copied"),
        PathRule::Excluded | PathRule::Compare | PathRule::Foreign => {}
    }
    if action.path.as_bytes() == b"pg_wal" || action.path.as_bytes() == b"pg_tblspc" {
        return Err("no action may replace this directory");
    }
    let copies = matches!(action.kind, ActionKind::CopyFile | ActionKind::Patch);
    if copies && (after.is_none() || after != state_size(&action.source)) {
        return Err("a file that is copied becomes as long as the source's");
    }
    if action.kind != ActionKind::Patch && !action.blocks.is_empty() {
        return Err("only a patch has blocks");
    }
    match (action.kind, action.phase) {
        (ActionKind::CreateDirectory, Phase::Wal | Phase::Create) | (ActionKind::Remove, Phase::Remove) => Ok(()),
        (ActionKind::CreateSymlink, Phase::Create) => check_symlink(action),
        (ActionKind::CopyFile, Phase::Wal | Phase::Copy) => Ok(()),
        (ActionKind::Patch, Phase::Copy | Phase::Truncate) => check_patch(action, before, after, block_size),
        _ => Err("this kind of action does not belong to its phase"),
    }
}

/// In `pg_tblspc` only links of tablespaces are made.
fn check_symlink(action: &Action) -> Result<(), &'static str> {
    let link = action.after.as_ref().and_then(|state| state.link.as_ref());
    let link = link.ok_or("a symlink without its text")?;
    if link.as_bytes().is_empty() || link.as_bytes().contains(&0) {
        return Err("a symlink that leads nowhere");
    }
    let is_number = |name: &[u8]| name.iter().all(u8::is_ascii_digit);
    if action.path.below(b"pg_tblspc").is_none_or(is_number) { Ok(()) } else { Err("a tablespace's link is a number") }
}

fn check_patch(action: &Action, before: Option<u64>, after: Option<u64>, block_size: u64) -> Result<(), &'static str> {
    let (Some(before), Some(after)) = (before, after) else {
        return Err("a patch says how long the file is and will be");
    };
    let limit = before.min(after) / block_size;
    let mut free = 0;
    for range in &action.blocks {
        if range.count == 0 {
            return Err("a block range without blocks");
        }
        if u64::from(range.first) < free {
            return Err("block ranges overlap or are out of order");
        }
        free = range.end();
        if free > limit {
            return Err("a block range reaches beyond the smaller size");
        }
    }
    if action.phase == Phase::Truncate && (!action.blocks.is_empty() || after >= before) {
        return Err("a patch that copies something belongs to phase copy");
    }
    Ok(())
}
