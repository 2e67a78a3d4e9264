//! What is at risk?

use super::super::content::{Finding, LONGEST, Lines, Part, Section, Table, Text, Tone};
use super::super::count;
use super::row;
use crate::manifest::{Check, CheckStatus, Manifest};

/// The checks; those that did not pass with all that is known of them, failed ones first.
pub(super) fn section(manifest: &Manifest) -> Section {
    let of = |status| manifest.checks.iter().filter(move |check| check.status == status);
    let number = |status| of(status).count() as u64;
    let (passed, warned, failed) = (number(CheckStatus::Pass), number(CheckStatus::Warn), number(CheckStatus::Fail));
    let (answer, tone) = match (failed, warned) {
        (0, 0) => ("nothing was found".to_owned(), Tone::Good),
        (0, _) => (count(warned, "warning", "warnings"), Tone::Warning),
        (_, 0) => (count(failed, "check failed", "checks failed"), Tone::Bad),
        _ => {
            let failed = count(failed, "check failed", "checks failed");
            (format!("{failed}, {}", count(warned, "warning", "warnings")), Tone::Bad)
        }
    };
    let mut parts = vec![row("checks", Text::words(format!("{passed} of {} passed", manifest.checks.len())))];
    let findings = of(CheckStatus::Fail).chain(of(CheckStatus::Warn)).take(LONGEST);
    parts.extend(findings.map(|check| Part::Finding(finding(check))));
    let more = (failed + warned).saturating_sub(LONGEST as u64);
    if more > 0 {
        parts.push(row("", Text::words(format!("and {}", count(more, "more", "more")))));
    }
    if !manifest.checks.is_empty() {
        parts.push(Part::Table(all(manifest)));
    }
    Section { title: Text::words(format!("What is at risk: {answer}")), tone, parts, folded: false }
}

fn finding(check: &Check) -> Finding {
    Finding {
        failed: check.status == CheckStatus::Fail,
        id: Text::name(&check.id),
        detail: Text::name(&check.detail),
        evidence: Lines::of(&check.evidence),
        remedy: check.remedy.as_ref().map(Text::name),
        commands: Lines::of(&check.commands),
    }
}

fn all(manifest: &Manifest) -> Table {
    let rows = manifest.checks.iter().map(|check| {
        let status = match check.status {
            CheckStatus::Pass => "passed",
            CheckStatus::Warn => "warning",
            CheckStatus::Fail => "FAILED",
        };
        vec![Text::words(status), Text::name(&check.id), Text::name(&check.detail)]
    });
    Table::new("all checks", &[], &["", "check", "found"], manifest.checks.len(), rows)
}
