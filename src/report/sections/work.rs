//! What will happen?

use std::collections::BTreeMap;

use super::super::content::{Part, Section, Table, Text, Tone};
use super::super::{bytes, count, number};
use super::row;
use crate::cluster::SourceKind;
use crate::manifest::{
    Action, ActionKind, KeptReason, Manifest, ObtainedFrom, PathRuleKind, PathState, Reason, RecoveryPlan, Scope,
    Verdict, WalPlace,
};

/// What an apply does; none where it does nothing.
pub(super) fn section(manifest: &Manifest) -> Option<Section> {
    let mut parts = Vec::new();
    match manifest.verdict {
        Verdict::Rewind if manifest.scope == Scope::CheckOnly => {}
        Verdict::Rewind => rewind(&mut parts, manifest),
        // What stands in the way may be taken out of it.
        Verdict::Impossible if !manifest.actions.is_empty() => rewind(&mut parts, manifest),
        Verdict::NotNeeded => parts.extend(manifest.recovery.as_ref().map(recovery)),
        Verdict::Impossible => {}
    }
    rules(&mut parts, manifest);
    let tone = Tone::Plain;
    let title = if manifest.applyable { "What will happen" } else { "What would happen" };
    (!parts.is_empty()).then(|| Section { title: Text::words(title), tone, parts, folded: true })
}

fn rewind(parts: &mut Vec<Part>, manifest: &Manifest) {
    copies(parts, manifest);
    removals(parts, manifest);
    let kept =
        format!("keeps {} as it was, until pg_unfork clean (not with --no-undo)", bytes(manifest.totals.undo_bytes));
    parts.push(row("undo", Text::words(kept)));
    left(parts, manifest);
    parts.extend(wal(manifest));
    last_steps(parts, manifest);
    if let Some(estimate) = &manifest.estimate {
        let text = Text::words(format!("about {}: ", duration(estimate.seconds))).and_name(&estimate.basis);
        parts.push(row("time", text));
    }
    lists(parts, manifest);
}

/// Seconds, as roughly as they are known.
fn duration(seconds: u64) -> String {
    match seconds {
        0..=119 => count(seconds, "second", "seconds"),
        120..=7199 => count(seconds.div_ceil(60), "minute", "minutes"),
        _ => count(seconds.div_ceil(3600), "hour", "hours"),
    }
}

fn size(state: &Option<PathState>) -> u64 {
    state.as_ref().and_then(|state| state.size).unwrap_or(0)
}

fn is_copied(action: &Action) -> bool {
    matches!(action.kind, ActionKind::CopyFile | ActionKind::Patch)
}

/// Number and bytes of actions by why they are taken.
fn by_reason<'a>(actions: impl Iterator<Item = &'a Action>, block_size: u32) -> BTreeMap<&'static str, (u64, u64)> {
    let mut sums = BTreeMap::new();
    for action in actions {
        let moved =
            if action.kind == ActionKind::Remove { size(&action.before) } else { action.copied_bytes(block_size) };
        let (number, total) = sums.entry(reason(action.reason)).or_insert((0, 0));
        *number += 1;
        *total = u64::saturating_add(*total, moved);
    }
    sums
}

fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::ChangedOnTarget => "changed on the target after the fork",
        Reason::LongerOnSource => "longer on the source",
        Reason::LongerOnTarget => "longer on the target",
        Reason::NotARelation => "not covered by WAL, so copied whole",
        Reason::BlocksDiffer => "not covered by WAL, so compared by block",
        Reason::OnlyOnSource => "only on the source",
        Reason::OnlyOnTarget => "only on the target",
        Reason::Excluded => "of no use to another server",
        Reason::ReplayNeedsIt => "WAL that replay needs",
        Reason::TimelineHistory => "timeline history",
        Reason::NotInSourceHistory => "WAL beside the source's history",
    }
}

fn copies(parts: &mut Vec<Part>, manifest: &Manifest) {
    let block_size = manifest.target.control_file.geometry.block_size;
    let totals = &manifest.totals;
    let content = format!(
        "{}: {}, {} in {}",
        bytes(totals.bytes),
        count(totals.files_copied, "whole file", "whole files"),
        count(totals.blocks, "block", "blocks"),
        count(totals.files_patched, "file", "files"),
    );
    parts.push(row("copy", Text::words(content)));
    let actions = manifest.actions.iter().filter(|action| is_copied(action));
    for (reason, (number, total)) in by_reason(actions, block_size) {
        let content = format!("{}: {reason} ({})", count(number, "file", "files"), bytes(total));
        parts.push(row("", Text::words(content)));
    }
    if totals.paths_created > 0 {
        let content = count(totals.paths_created, "directory or link", "directories and links");
        parts.push(row("create", Text::words(content)));
    }
}

fn removals(parts: &mut Vec<Part>, manifest: &Manifest) {
    let totals = &manifest.totals;
    let content = format!("{}, {} in all", count(totals.paths_removed, "path", "paths"), bytes(totals.removed_bytes));
    parts.push(row("remove", Text::words(content)));
    let actions = manifest.actions.iter().filter(|action| action.kind == ActionKind::Remove);
    for (reason, (number, total)) in by_reason(actions, 1) {
        let content = format!("{}: {reason} ({})", count(number, "path", "paths"), bytes(total));
        parts.push(row("", Text::words(content)));
    }
}

/// Why files are left as they are, to go on after "files".
#[must_use]
pub fn why_kept(reason: KeptReason) -> &'static str {
    match reason {
        KeptReason::OnlyCopyOfCommonWal => "of WAL that replay needs and only the target has: kept",
        KeptReason::BeforeReplay => "of WAL from before replay begins: not touched",
        KeptReason::NotReplayed => "of WAL that replay does not read: not fetched",
        KeptReason::StatusOfUnfetchedWal => "with the archive status of such WAL: not fetched",
        KeptReason::SameContent => "that are the same on both sides: not copied",
        KeptReason::ConfigPolicy => "of settings, which stay the target's own",
        KeptReason::Exclude => "that a rule excludes: not fetched, not removed",
        KeptReason::Keep => "that a rule keeps as the target's own",
        KeptReason::LogDirectory => "of log directories: left alone",
        KeptReason::ControlFileCopy => "of CloudNativePG's, a copy of the control file: left alone",
    }
}

fn left(parts: &mut Vec<Part>, manifest: &Manifest) {
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for kept in &manifest.kept {
        let (number, total) = sums.entry(why_kept(kept.reason)).or_default();
        *number += 1;
        *total = u64::saturating_add(*total, size(&kept.source));
    }
    for (index, (why, (number, total))) in sums.into_iter().enumerate() {
        let size = if total > 0 { format!(" ({})", bytes(total)) } else { String::new() };
        let content = format!("{} {why}{size}", count(number, "file", "files"));
        parts.push(row(if index == 0 { "leave" } else { "" }, Text::words(content)));
    }
}

fn wal(manifest: &Manifest) -> Option<Part> {
    let wal = manifest.wal.as_ref()?;
    let at = |place| wal.segments.iter().filter(|segment| segment.place == place).count() as u64;
    let mut content = format!("replay reads {}", count(wal.segments.len() as u64, "segment", "segments"));
    if at(WalPlace::Both) > 0 {
        content.push_str(&format!(", {} of them the same on both sides", at(WalPlace::Both)));
    }
    if at(WalPlace::Target) > 0 {
        content.push_str(&format!(", {} of them on the target only", at(WalPlace::Target)));
    }
    let from = |place| wal.obtained.iter().filter(|segment| segment.from == place).count() as u64;
    for (place, whose) in [(ObtainedFrom::Source, "the source"), (ObtainedFrom::RestoreCommand, "the archive")] {
        if from(place) > 0 {
            content
                .push_str(&format!("; for the plan {} came from {whose}", count(from(place), "segment", "segments")));
        }
    }
    let missing = at(WalPlace::Missing);
    if missing > 0 {
        content.push_str(&format!(", {missing} MISSING on both sides"));
    }
    let tone = if missing > 0 { Tone::Bad } else { Tone::Plain };
    Some(Part::Row { label: "WAL", text: Text::words(content), tone })
}

fn last_steps(parts: &mut Vec<Part>, manifest: &Manifest) {
    let end = match manifest.source.kind {
        SourceKind::LiveServer => "the source's end at that time".to_owned(),
        SourceKind::StoppedDirectory => manifest.source.wal_end.map_or_else(String::new, |lsn| lsn.to_string()),
    };
    let content =
        format!("the source's, with state \"in archive recovery\" and minimum recovery point {end}; written last");
    parts.push(row("control file", Text::words(content)));
    parts.push(match &manifest.recovery {
        Some(plan) => recovery(plan),
        None => {
            let text = "none is written (no -R): the target is a standby only if it gets standby.signal";
            row("recovery", Text::words(text))
        }
    });
}

fn recovery(plan: &RecoveryPlan) -> Part {
    let signal = if plan.standby_signal { "standby.signal, " } else { "" };
    let text = Text::words(format!("{signal}primary_conninfo = ")).and_name(&plan.primary_conninfo);
    row("recovery", if plan.with_password { text.and(", and the password, in plain text") } else { text })
}

/// The rules of the person who planned.
fn rules(parts: &mut Vec<Part>, manifest: &Manifest) {
    let rows = manifest.rules.iter().map(|rule| {
        let kind = match rule.kind {
            PathRuleKind::ConfigPolicy => "config policy",
            PathRuleKind::Exclude => "exclude",
            PathRuleKind::Keep => "keep",
            PathRuleKind::LogDirectory => "log directory",
            PathRuleKind::TablespaceMapping => "tablespace mapping",
        };
        vec![Text::words(number(rule.paths)), Text::words(kind), Text::name(&rule.rule)]
    });
    if !manifest.rules.is_empty() {
        let table = Table::new("rules", &["paths"], &["kind", "rule"], manifest.rules.len(), rows);
        parts.push(Part::Table(table.for_terminals()));
    }
}

/// Which paths, for those who want to know.
fn lists(parts: &mut Vec<Part>, manifest: &Manifest) {
    let block_size = manifest.target.control_file.geometry.block_size;
    let mut list = |title, verb, wanted: fn(&Action) -> bool, size: &dyn Fn(&Action) -> u64| {
        let actions = || manifest.actions.iter().filter(|action| wanted(action));
        let rows = actions().map(|action| {
            let path = Text::name(action.path.to_string());
            vec![Text::words(bytes(size(action))), Text::words(reason(action.reason)), path]
        });
        let all = actions().count();
        if all > 0 {
            parts.push(Part::Table(Table::new(title, &[verb], &["why", "path"], all, rows)));
        }
    };
    list("copied files", "copied", is_copied, &|action| action.copied_bytes(block_size));
    let is_new = |action: &Action| matches!(action.kind, ActionKind::CreateDirectory | ActionKind::CreateSymlink);
    list("new directories and links", "copied", is_new, &|_| 0);
    list("removed paths", "removed", |action| action.kind == ActionKind::Remove, &|action| size(&action.before));
    let rows = manifest.kept.iter().map(|kept| {
        let why = Text::words(why_kept(kept.reason));
        let why = match &kept.rule {
            Some(rule) => why.and(": ").and_name(rule),
            None => why,
        };
        vec![Text::words(bytes(size(&kept.source))), why, Text::name(kept.path.to_string())]
    });
    if !manifest.kept.is_empty() {
        let (numbers, words) = (["on the source"], ["why", "path"]);
        parts.push(Part::Table(Table::new("left as they are", &numbers, &words, manifest.kept.len(), rows)));
    }
}
