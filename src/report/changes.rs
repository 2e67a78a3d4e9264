//! What is different between two plans for one target.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use super::{bytes, count};
use crate::manifest::{
    Action, ActionKind, Check, CheckStatus, Discarded, DiscardedVerdict, Divergence, Manifest, Verdict,
};
use crate::types::{ClusterPath, LinkText};

/// The width of the labels.
const LABEL: usize = 13;

/// How many paths are named of each kind of change.
const SHOWN: usize = 20;

/// Why an earlier plan is not one for this target; none where it is.
#[must_use]
pub fn other_pair(old: &Manifest, system_identifier: &str, directory: &LinkText) -> Option<String> {
    let planned = &old.target;
    if planned.control_file.system_identifier != system_identifier {
        let other = &planned.control_file.system_identifier;
        return Some(format!("its system identifier is {other}, the target's is {system_identifier}"));
    }
    (planned.directory != *directory).then(|| format!("its target is {}, not {directory}", planned.directory))
}

/// What is different in `new`, in words.
#[must_use]
pub fn changes(old: &Manifest, new: &Manifest) -> String {
    let mut rows = Rows::default();
    rows.differ("verdict", verdict(old.verdict), verdict(new.verdict));
    rows.differ("source", &old.source.address, &new.source.address);
    rows.differ("fork", fork(&old.divergence), fork(&new.divergence));
    rows.differ("source end", end(old), end(new));
    rows.differ("lost", lost(&old.discarded), lost(&new.discarded));
    actions(&mut rows, old, new);
    checks(&mut rows, &old.checks, &new.checks);
    totals(&mut rows, old, new);
    rows.list("besides", &besides(old, new));
    if rows.0.is_empty() {
        return format!("NO CHANGE since the plan of {}\n", shown(&old.created));
    }
    format!("CHANGES since the plan of {}\n{}", shown(&old.created), rows.0)
}

/// The text, row by row.
#[derive(Default)]
struct Rows(String);

impl Rows {
    fn row(&mut self, label: &str, content: &str) {
        let _ = writeln!(self.0, "  {label:<LABEL$} {}", shown(content));
    }

    fn differ(&mut self, label: &str, old: impl Display, new: impl Display) {
        let (old, new) = (old.to_string(), new.to_string());
        if old != new {
            self.row(label, &format!("{old} -> {new}"));
        }
    }

    /// Lines with one label, if there are any.
    fn list(&mut self, label: &str, lines: &[String]) {
        for (index, line) in lines.iter().enumerate() {
            self.row(if index == 0 { label } else { "" }, line);
        }
    }
}

/// Text whose characters do nothing but stand there.
fn shown(text: &str) -> String {
    let plain = |c: char| matches!(c, '"' | '\'' | '\\');
    text.chars().flat_map(|c| if plain(c) { vec![c] } else { c.escape_debug().collect() }).collect()
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Rewind => "rewind",
        Verdict::NotNeeded => "no rewind needed",
        Verdict::Impossible => "impossible",
    }
}

fn fork(divergence: &Option<Divergence>) -> String {
    divergence.as_ref().map_or("none".to_owned(), |fork| format!("{} on timeline {}", fork.lsn, fork.timeline))
}

fn end(manifest: &Manifest) -> String {
    let timeline = manifest.source.control_file.timeline;
    manifest.source.wal_end.map_or("unknown".to_owned(), |end| format!("{end} on timeline {timeline}"))
}

fn lost(discarded: &Option<Discarded>) -> String {
    discarded.as_ref().map_or("unknown".to_owned(), |discarded| {
        let transactions = &discarded.transactions;
        let committed = count(transactions.committed, "transaction committed", "transactions committed");
        let (aborted, prepared) = (transactions.aborted, transactions.prepared);
        let wal = bytes(discarded.bytes);
        let verdict = match discarded.verdict {
            DiscardedVerdict::Nothing => "nothing",
            DiscardedVerdict::MaintenanceOnly => "maintenance only",
            DiscardedVerdict::Data => "data",
        };
        format!("{verdict}: {committed}, {aborted} rolled back, {prepared} prepared, {wal} of WAL")
    })
}

/// An action's kind and the bytes that it moves.
fn weight(action: &Action, block_size: u32) -> (&'static str, u64) {
    let word = match action.kind {
        ActionKind::CreateDirectory => "make directory",
        ActionKind::CreateSymlink => "make link",
        ActionKind::CopyFile => "copy",
        ActionKind::Patch => "patch",
        ActionKind::Remove => "remove",
    };
    let removed = action.before.as_ref().and_then(|state| state.size).unwrap_or(0);
    (word, if action.kind == ActionKind::Remove { removed } else { action.copied_bytes(block_size) })
}

fn describe(action: &Action, block_size: u32) -> String {
    let (word, moved) = weight(action, block_size);
    format!("{word} ({})", bytes(moved))
}

fn actions(rows: &mut Rows, old: &Manifest, new: &Manifest) {
    let by_path = |manifest| -> BTreeMap<_, _> {
        let manifest: &Manifest = manifest;
        manifest.actions.iter().map(|action| (&action.path, action)).collect()
    };
    let (before, after): (BTreeMap<&ClusterPath, &Action>, BTreeMap<_, _>) = (by_path(old), by_path(new));
    let size = |manifest: &Manifest| manifest.target.control_file.geometry.block_size;
    let (old_size, new_size) = (size(old), size(new));
    let only = |these: &BTreeMap<&ClusterPath, &Action>, others: &BTreeMap<&ClusterPath, &Action>, size| {
        let alone = these.iter().filter(|(path, _)| !others.contains_key(*path));
        alone.map(|(path, action)| (weight(action, size).1, format!("{path}: {}", describe(action, size)))).collect()
    };
    let changed = before.iter().filter_map(|(path, was)| {
        let is = after.get(path).filter(|is| *is != was)?;
        let (old, new) = (describe(was, old_size), describe(is, new_size));
        let how = if old == new { format!("{new}, of another state") } else { format!("{old} -> {new}") };
        Some((weight(is, new_size).1, format!("{path}: {how}")))
    });
    group(rows, "added", only(&after, &before, new_size));
    group(rows, "removed", only(&before, &after, old_size));
    group(rows, "changed", changed.collect());
}

/// Actions of one kind of change: their bytes, and what is said of them.
fn group(rows: &mut Rows, label: &str, actions: Vec<(u64, String)>) {
    if actions.is_empty() {
        return;
    }
    let total = actions.iter().fold(0, |sum: u64, (moved, _)| sum.saturating_add(*moved));
    let number = actions.len() as u64;
    rows.row(label, &format!("{}, {}", count(number, "action", "actions"), bytes(total)));
    actions.iter().take(SHOWN).for_each(|(_, line)| rows.row("", line));
    if actions.len() > SHOWN {
        rows.row("", &format!("and {}", count(number - SHOWN as u64, "more", "more")));
    }
}

fn checks(rows: &mut Rows, old: &[Check], new: &[Check]) {
    let word = |status| match status {
        CheckStatus::Pass => "pass",
        CheckStatus::Warn => "warning",
        CheckStatus::Fail => "FAILED",
    };
    let status = |checks: &[Check], id: &str| checks.iter().find(|check| check.id == id).map(|check| check.status);
    let mut lines = Vec::new();
    for check in new.iter().filter(|check| status(old, &check.id) != Some(check.status)) {
        let before = status(old, &check.id).map_or("not there", word);
        lines.push(format!("{}: {before} -> {}: {}", check.id, word(check.status), check.detail));
    }
    for check in old.iter().filter(|check| status(new, &check.id).is_none()) {
        lines.push(format!("{}: {} -> not there", check.id, word(check.status)));
    }
    rows.list("checks", &lines);
}

fn totals(rows: &mut Rows, old: &Manifest, new: &Manifest) {
    let copied = |manifest: &Manifest| {
        let totals = &manifest.totals;
        let files = count(totals.files_copied.saturating_add(totals.files_patched), "file", "files");
        format!("{} in {files}", bytes(totals.bytes))
    };
    let removed = |manifest: &Manifest| {
        let totals = &manifest.totals;
        format!("{} of {}", bytes(totals.removed_bytes), count(totals.paths_removed, "path", "paths"))
    };
    rows.differ("copy", copied(old), copied(new));
    rows.differ("remove", removed(old), removed(new));
    rows.differ("undo", bytes(old.totals.undo_bytes), bytes(new.totals.undo_bytes));
}

/// Sections that differ in something that has no row above.
fn besides(old: &Manifest, new: &Manifest) -> Vec<String> {
    let sections = [
        ("backup_label", old.backup_label != new.backup_label),
        ("checkpoint", old.checkpoint != new.checkpoint),
        ("control_file", old.control_file != new.control_file),
        ("discarded", old.discarded != new.discarded && lost(&old.discarded) == lost(&new.discarded)),
        ("estimate", old.estimate != new.estimate),
        ("kept", old.kept != new.kept),
        ("recovery", old.recovery != new.recovery),
        ("requires", old.requires != new.requires),
        ("rules", old.rules != new.rules),
        ("scope", old.scope != new.scope),
        ("source.control_file", old.source.control_file != new.source.control_file),
        ("source.history", old.source.history != new.source.history),
        ("source.kind", old.source.kind != new.source.kind),
        ("target", old.target != new.target),
        ("tool", old.tool != new.tool),
        ("wal", old.wal != new.wal),
    ];
    let names: Vec<&str> = sections.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
    if names.is_empty() { Vec::new() } else { vec![names.join(", ")] }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cluster::SourceKind;
    use crate::format::{Major, control_file_sample};
    use crate::manifest::{
        Kept, KeptReason, PathState, Reason, Scope, SourceSide, TargetSide, Tool, Totals, TransactionCounts,
    };
    use crate::plan::control_facts;
    use crate::types::{FileMode, Lsn, TimelineHistory, TimelineId};

    /// A plan with as little as a plan can have.
    fn plan() -> Manifest {
        let control = control_facts(&control_file_sample(Major::V17, |_| ()));
        let history = TimelineHistory::new(&[], TimelineId::new(2));
        Manifest {
            actions: Vec::new(),
            applyable: true,
            backup_label: None,
            checkpoint: None,
            checks: Vec::new(),
            control_file: None,
            created: "2026-01-02T03:04:05Z".to_owned(),
            digest: "sha256:".to_owned(),
            discarded: None,
            divergence: None,
            estimate: None,
            format_version: "1.0".to_owned(),
            kept: vec![Kept {
                before: None,
                path: ClusterPath::new(b"kept").unwrap(),
                reason: KeptReason::SameContent,
                rule: None,
                source: None,
            }],
            recovery: None,
            requires: Vec::new(),
            rules: Vec::new(),
            scope: Scope::Full,
            source: SourceSide {
                address: "host=source".to_owned(),
                control_file: control.clone(),
                history: history.clone(),
                kind: SourceKind::LiveServer,
                major: 17,
                wal_end: None,
            },
            target: TargetSide {
                control_file: control,
                directory: LinkText::new(b"/data"),
                directory_mode: FileMode::new(0o700),
                history,
                major: 17,
                roots: Vec::new(),
                wal_end: None,
            },
            tool: Tool { name: "pg_unfork".to_owned(), version: "1".to_owned() },
            totals: Totals::default(),
            verdict: Verdict::Rewind,
            wal: None,
        }
    }

    fn lost(committed: u64) -> Option<Discarded> {
        Some(Discarded {
            bytes: 10,
            commits: Vec::new(),
            commits_left_out: 0,
            databases: Vec::new(),
            first_commit: None,
            from: Lsn::new(0),
            last_commit: None,
            records_left_out: 0,
            relations: Vec::new(),
            tablespaces: Vec::new(),
            through: Lsn::new(10),
            transactions: TransactionCounts { committed, ..TransactionCounts::default() },
            verdict: DiscardedVerdict::Data,
        })
    }

    fn copy(path: &[u8], size: u64) -> Action {
        let state = |size| Some(PathState { size: Some(size), ..PathState::default() });
        Action {
            after: state(size),
            before: None,
            blocks: Vec::new(),
            kind: ActionKind::CopyFile,
            path: ClusterPath::new(path).unwrap(),
            phase: crate::manifest::Phase::Copy,
            reason: Reason::OnlyOnSource,
            source: state(size),
        }
    }

    #[test]
    fn a_plan_is_of_this_pair_or_another() {
        let old = plan();
        let system = old.target.control_file.system_identifier.clone();
        assert_eq!(other_pair(&old, &system, &old.target.directory), None);
        let said = other_pair(&old, "7", &old.target.directory).unwrap();
        assert_eq!(said, format!("its system identifier is {system}, the target's is 7"));
        let said = other_pair(&old, &system, &LinkText::new(b"/elsewhere")).unwrap();
        assert_eq!(said, format!("its target is {}, not /elsewhere", old.target.directory));
    }

    #[test]
    fn what_only_tells_plans_apart_is_no_change() {
        let (old, mut new) = (plan(), plan());
        (new.created, new.digest) = ("later".to_owned(), "sha256:0".to_owned());
        assert_eq!(changes(&old, &new), format!("NO CHANGE since the plan of {}\n", old.created));
    }

    type Edit = fn(&mut Manifest, &mut Manifest);

    /// Each edit gives these rows, and no others.
    fn assert_rows(cases: &[(Edit, &[&str])]) {
        for (number, (edit, expected)) in cases.iter().enumerate() {
            let (mut old, mut new) = (plan(), plan());
            edit(&mut old, &mut new);
            let text = changes(&old, &new);
            assert!(text.starts_with("CHANGES since the plan of "), "case {number}: {text}");
            for row in *expected {
                assert!(text.contains(row), "case {number}: {row}\n{text}");
            }
            let rows = text.lines().filter(|line| !line.starts_with("   ")).count();
            let labels = expected.iter().filter(|row| !row.starts_with(' ')).count();
            assert_eq!(rows, 1 + labels, "case {number}: {text}");
        }
    }

    #[test]
    fn what_the_plan_comes_to() {
        assert_rows(&[
            (|_, new| new.verdict = Verdict::Impossible, &["verdict       rewind -> impossible"]),
            (
                |old, new| (old.source.address, new.source.address) = ("a".to_owned(), "b\u{202e}\n".to_owned()),
                &["source        a -> b\\u{202e}\\n"],
            ),
            (
                |old, new| {
                    let fork = |lsn| Some(Divergence { lsn: Lsn::new(lsn), timeline: TimelineId::new(1) });
                    (old.divergence, new.divergence) = (fork(16), None);
                },
                &["fork          0/10 on timeline 1 -> none"],
            ),
            (
                |old, new| (old.source.wal_end, new.source.wal_end) = (Some(Lsn::new(16)), Some(Lsn::new(32))),
                &["source end    0/10 on timeline 0 -> 0/20 on timeline 0"],
            ),
            (
                |old, new| (old.discarded, new.discarded) = (lost(1), lost(2)),
                &[
                    "lost          data: 1 transaction committed, 0 rolled back, 0 prepared, 10 bytes of WAL -> data: 2 transactions",
                ],
            ),
        ]);
    }

    #[test]
    fn actions_by_path() {
        assert_rows(&[
            (
                |_, new| new.actions.push(copy(b"new 'file'", 100)),
                &["added         1 action, 100 bytes\n                new 'file': copy (100 bytes)"],
            ),
            (
                |old, _| old.actions.push(copy(b"old", 2048)),
                &["removed       1 action, 2.0 KiB\n                old: copy (2.0 KiB)"],
            ),
            (
                |old, new| {
                    old.actions.push(copy(b"x", 1));
                    new.actions.push(copy(b"x", 2));
                },
                &["changed       1 action, 2 bytes\n                x: copy (1 byte) -> copy (2 bytes)"],
            ),
            (
                |old, new| {
                    let mut other = copy(b"x", 1);
                    other.reason = Reason::NotARelation;
                    old.actions.push(copy(b"x", 1));
                    new.actions.push(other);
                },
                &["changed       1 action, 1 byte\n                x: copy (1 byte), of another state"],
            ),
        ]);
    }

    fn check(id: &str, status: CheckStatus) -> Check {
        let detail = "found".to_owned();
        Check { commands: Vec::new(), detail, evidence: Vec::new(), id: id.to_owned(), remedy: None, status }
    }

    #[test]
    fn checks_and_sums() {
        assert_rows(&[
            (
                |old, new| {
                    old.checks = vec![check("a", CheckStatus::Pass), check("b", CheckStatus::Warn)];
                    new.checks = vec![check("a", CheckStatus::Fail), check("c", CheckStatus::Pass)];
                },
                &[
                    "checks        a: pass -> FAILED: found\n",
                    " c: not there -> pass: found\n",
                    " b: warning -> not there\n",
                ],
            ),
            (
                |old, new| {
                    (old.totals.bytes, old.totals.files_copied, old.totals.files_patched) = (1, 1, 0);
                    (new.totals.bytes, new.totals.files_copied, new.totals.files_patched) = (2, 1, 1);
                    (old.totals.undo_bytes, new.totals.undo_bytes) = (1, 2);
                },
                &["copy          1 byte in 1 file -> 2 bytes in 2 files\n", "undo          1 byte -> 2 bytes\n"],
            ),
            (
                |_, new| {
                    new.kept.pop();
                    new.kept.iter_mut().for_each(|kept| kept.reason = KeptReason::Keep);
                    new.requires.push("magic".to_owned());
                },
                &["besides       kept, requires\n"],
            ),
        ]);
    }

    #[test]
    fn of_many_paths_the_first_are_named() {
        let (old, mut new) = (plan(), plan());
        new.actions.extend((0..SHOWN + 5).map(|number| copy(format!("zz/{number:03}").as_bytes(), 1)));
        let text = changes(&old, &new);
        assert!(text.contains("25 actions, 25 bytes"), "{text}");
        assert!(text.contains("zz/019") && !text.contains("zz/020") && text.contains("and 5 more"), "{text}");
    }
}
