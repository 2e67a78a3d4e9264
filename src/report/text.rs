//! A plan on a terminal: what happened, what will happen, what to run next.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;

use super::{bytes, count};
use crate::cluster::SourceKind;
use crate::manifest::{
    Action, ActionKind, CheckStatus, Discarded, KeptReason, Manifest, PathState, Reason, SourceSide, Verdict, WalPlace,
};
use crate::types::{Lsn, TimelineHistory};

/// The width of the labels.
const LABEL: usize = 13;

/// The plan in words. `file` is what to apply; none where it was not saved.
#[must_use]
pub fn summary(manifest: &Manifest, file: Option<&str>) -> String {
    let mut text = String::new();
    headline(&mut text, manifest);
    match manifest.verdict {
        Verdict::Rewind => rewind(&mut text, manifest),
        Verdict::NotNeeded => row(&mut text, "why", &why_not_needed(manifest)),
        Verdict::Impossible => {}
    }
    checks(&mut text, manifest);
    next(&mut text, manifest, file);
    text
}

fn row(text: &mut String, label: &str, content: &str) {
    let _ = writeln!(text, "  {label:<LABEL$} {content}");
}

fn headline(text: &mut String, manifest: &Manifest) {
    let target = &manifest.target;
    let what = match manifest.verdict {
        Verdict::Rewind => "REWIND",
        Verdict::NotNeeded => "NO REWIND NEEDED",
        Verdict::Impossible => "IMPOSSIBLE",
    };
    let _ = writeln!(text, "{what}: {} (PostgreSQL {})", target.directory, target.major);
    row(text, "source", &source(&manifest.source));
    row(text, "planned", &manifest.created);
}

fn source(source: &SourceSide) -> String {
    let kind = match source.kind {
        SourceKind::StoppedDirectory => "stopped data directory",
        SourceKind::LiveServer => "live server",
    };
    format!("{} ({kind}, timeline {})", source.address, source.control_file.timeline)
}

fn why_not_needed(manifest: &Manifest) -> String {
    let (target, source) = (manifest.target.control_file.timeline, manifest.source.control_file.timeline);
    if target == source {
        format!("target and source are on the same timeline, {target}")
    } else {
        format!("the target has nothing after the point where the source's timeline {source} begins")
    }
}

fn rewind(text: &mut String, manifest: &Manifest) {
    if let Some(fork) = &manifest.divergence {
        let ends = |side: &TimelineHistory| side.entries().last().map_or(0, |entry| entry.timeline.get());
        let (target, source) = (ends(&manifest.target.history), ends(&manifest.source.history));
        let content = format!(
            "at {} on timeline {}; since then the target is on timeline {target}, the source on {source}",
            fork.lsn, fork.timeline
        );
        row(text, "fork", &content);
    }
    if let Some(checkpoint) = &manifest.checkpoint {
        let start = manifest.backup_label.as_ref().map_or(checkpoint.redo, |label| label.start);
        let taken = Timestamp::from_second(checkpoint.time).map_or_else(|_| "?".to_owned(), |time| time.to_string());
        row(text, "last common", &format!("checkpoint {}, of {taken}; replay begins at {start}", checkpoint.lsn));
    }
    if let Some(discarded) = &manifest.discarded {
        row(text, "lost", &lost(discarded));
    }
    copies(text, manifest);
    removals(text, manifest);
    let undo =
        format!("keeps {} as it was, until pg_unfork clean (not with --no-undo)", bytes(manifest.totals.undo_bytes));
    row(text, "undo", &undo);
    kept(text, manifest);
    last_steps(text, manifest);
}

fn lost(discarded: &Discarded) -> String {
    let counts = &discarded.transactions;
    let when = match (&discarded.first_commit, &discarded.last_commit) {
        (Some(first), Some(last)) if first != last => format!(" from {first} to {last}"),
        (Some(first), _) => format!(" at {first}"),
        _ => String::new(),
    };
    format!(
        "the target's own work from {} to {}: {} of WAL, {}{when}, {}",
        discarded.from,
        discarded.through,
        bytes(discarded.bytes),
        count(counts.committed, "transaction committed", "transactions committed"),
        count(counts.aborted, "rolled back", "rolled back"),
    )
}

fn size(state: &Option<PathState>) -> u64 {
    state.as_ref().and_then(|state| state.size).unwrap_or(0)
}

/// Number and bytes of actions by why they are taken.
fn by_reason(actions: &[&Action], block_size: u32) -> BTreeMap<&'static str, (u64, u64)> {
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

fn copies(text: &mut String, manifest: &Manifest) {
    let block_size = manifest.target.control_file.geometry.block_size;
    let totals = &manifest.totals;
    let content = format!(
        "{}: {}, {} in {}",
        bytes(totals.bytes),
        count(totals.files_copied, "whole file", "whole files"),
        count(totals.blocks, "block", "blocks"),
        count(totals.files_patched, "file", "files"),
    );
    row(text, "copy", &content);
    let copied = |a: &&Action| matches!(a.kind, ActionKind::CopyFile | ActionKind::Patch);
    let actions: Vec<&Action> = manifest.actions.iter().filter(copied).collect();
    for (reason, (number, total)) in by_reason(&actions, block_size) {
        row(text, "", &format!("{}: {reason} ({})", count(number, "file", "files"), bytes(total)));
    }
    if totals.paths_created > 0 {
        row(text, "create", &count(totals.paths_created, "directory or link", "directories and links"));
    }
}

fn removals(text: &mut String, manifest: &Manifest) {
    let totals = &manifest.totals;
    let content = format!("{}, {} in all", count(totals.paths_removed, "path", "paths"), bytes(totals.removed_bytes));
    row(text, "remove", &content);
    let actions: Vec<&Action> = manifest.actions.iter().filter(|a| a.kind == ActionKind::Remove).collect();
    for (reason, (number, total)) in by_reason(&actions, 1) {
        row(text, "", &format!("{}: {reason} ({})", count(number, "path", "paths"), bytes(total)));
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
    }
}

fn kept(text: &mut String, manifest: &Manifest) {
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for kept in &manifest.kept {
        let (number, total) = sums.entry(why_kept(kept.reason)).or_default();
        *number += 1;
        *total = u64::saturating_add(*total, size(&kept.source));
    }
    for (index, (why, (number, total))) in sums.into_iter().enumerate() {
        let mut content = format!("{} {why}", count(number, "file", "files"));
        if total > 0 {
            let _ = write!(content, " ({})", bytes(total));
        }
        row(text, if index == 0 { "leave" } else { "" }, &content);
    }
}

fn last_steps(text: &mut String, manifest: &Manifest) {
    if let Some(wal) = &manifest.wal {
        let at = |place| wal.segments.iter().filter(|segment| segment.place == place).count() as u64;
        let mut content = format!("replay reads {}", count(wal.segments.len() as u64, "segment", "segments"));
        if at(WalPlace::Both) > 0 {
            let _ = write!(content, ", {} of them the same on both sides", at(WalPlace::Both));
        }
        if at(WalPlace::Target) > 0 {
            let _ = write!(content, ", {} of them on the target only", at(WalPlace::Target));
        }
        if at(WalPlace::Missing) > 0 {
            let _ = write!(content, ", {} MISSING on both sides", at(WalPlace::Missing));
        }
        row(text, "WAL", &content);
    }
    let end = match manifest.source.kind {
        SourceKind::LiveServer => "the source's end at that time".to_owned(),
        SourceKind::StoppedDirectory => manifest.source.wal_end.map_or_else(String::new, |lsn: Lsn| lsn.to_string()),
    };
    let content =
        format!("the source's, with state \"in archive recovery\" and minimum recovery point {end}; written last");
    row(text, "control file", &content);
    match &manifest.recovery {
        Some(recovery) => {
            row(text, "recovery", &format!("standby.signal, primary_conninfo = {}", recovery.primary_conninfo))
        }
        None => {
            row(text, "recovery", "none is written (no -R): the target is a standby only if it gets standby.signal")
        }
    }
}

fn checks(text: &mut String, manifest: &Manifest) {
    let passed = manifest.checks.iter().filter(|check| check.status == CheckStatus::Pass).count();
    row(text, "checks", &format!("{passed} of {} passed", manifest.checks.len()));
    for check in manifest.checks.iter().filter(|check| check.status != CheckStatus::Pass) {
        let word = if check.status == CheckStatus::Fail { "FAILED" } else { "warning" };
        row(text, "", &format!("{word}: {}: {}", check.id, check.detail));
        if let Some(remedy) = &check.remedy {
            row(text, "", &format!("  remedy: {remedy}"));
        }
        for command in &check.commands {
            row(text, "", &format!("  run: {command}"));
        }
    }
}

fn next(text: &mut String, manifest: &Manifest, file: Option<&str>) {
    let file = file.unwrap_or("plan.json");
    let content = match (manifest.verdict, &manifest.recovery) {
        (Verdict::Rewind, _) => format!("pg_unfork apply {file}"),
        (Verdict::NotNeeded, Some(_)) => {
            format!("pg_unfork apply {file} (writes the recovery configuration, nothing else)")
        }
        (Verdict::NotNeeded, None) => "nothing to apply".to_owned(),
        (Verdict::Impossible, _) => "see the failed checks, then plan again".to_owned(),
    };
    row(text, "next", &content);
}
