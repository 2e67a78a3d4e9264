//! From a manifest to the reader's questions and their answers.

mod lost;
mod next;
mod risk;
mod work;

use jiff::Timestamp;

use super::content::{Part, Report, Text, Tone};
use super::count;
use crate::cluster::SourceKind;
use crate::manifest::{Manifest, Scope, SourceSide, Verdict};
use crate::types::TimelineHistory;

pub use work::why_kept;

/// What the command that applies the plan is to look like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Naming<'a> {
    /// The plan's file.
    pub(super) file: &'a str,
    /// Whether the command names the plan's digest, so that no other plan can be applied by it.
    pub(super) pinned: bool,
}

/// The whole report.
pub(super) fn report(manifest: &Manifest, naming: Naming<'_>) -> Report {
    let sections = [
        lost::section(manifest),
        Some(risk::section(manifest)),
        work::section(manifest),
        Some(next::section(manifest, naming)),
    ];
    let (title, tone) = headline(manifest);
    Report { title, tone, about: about(manifest), sections: sections.into_iter().flatten().collect() }
}

/// A row that is neither good nor bad.
fn row(label: &'static str, text: Text) -> Part {
    Part::Row { label, text, tone: Tone::Plain }
}

fn headline(manifest: &Manifest) -> (Text, Tone) {
    let (what, tone) = match manifest.verdict {
        Verdict::Rewind => ("REWIND", Tone::Warning),
        Verdict::NotNeeded => ("NO REWIND NEEDED", Tone::Good),
        Verdict::Impossible => ("IMPOSSIBLE", Tone::Bad),
    };
    let title = Text::words(what).and(": ").and_name(manifest.target.directory.to_string());
    (title.and(format!(" (PostgreSQL {})", manifest.target.major)), tone)
}

fn about(manifest: &Manifest) -> Vec<Part> {
    let mut parts = vec![row("source", source(&manifest.source)), row("planned", Text::name(&manifest.created))];
    match manifest.scope {
        Scope::Full => {}
        Scope::Preview => {
            let text = "a preview: the target's server was running or had crashed; it cannot be applied";
            parts.push(Part::Row { label: "scope", text: Text::words(text), tone: Tone::Warning });
        }
        Scope::CheckOnly => {
            let text = "a check: whether a rewind is needed and possible, and nothing else; it cannot be applied";
            parts.push(Part::Row { label: "scope", text: Text::words(text), tone: Tone::Warning });
        }
    }
    match manifest.verdict {
        Verdict::NotNeeded => parts.push(row("why", Text::words(why_not_needed(manifest)))),
        Verdict::Rewind | Verdict::Impossible => parts.extend(fork(manifest)),
    }
    parts
}

fn source(source: &SourceSide) -> Text {
    let kind = match source.kind {
        SourceKind::StoppedDirectory => "stopped data directory",
        SourceKind::LiveServer => "live server",
    };
    Text::name(&source.address).and(format!(" ({kind}, timeline {})", source.control_file.timeline))
}

fn why_not_needed(manifest: &Manifest) -> String {
    let (target, source) = (manifest.target.control_file.timeline, manifest.source.control_file.timeline);
    if target == source {
        format!("target and source are on the same timeline, {target}")
    } else {
        format!("the target has nothing after the point where the source's timeline {source} begins")
    }
}

fn fork(manifest: &Manifest) -> Vec<Part> {
    let mut parts = Vec::new();
    if let Some(fork) = &manifest.divergence {
        let ends = |side: &TimelineHistory| side.entries().last().map_or(0, |entry| entry.timeline.get());
        let (target, source) = (ends(&manifest.target.history), ends(&manifest.source.history));
        let content = format!(
            "at {} on timeline {}; since then the target is on timeline {target}, the source on {source}",
            fork.lsn, fork.timeline
        );
        parts.push(row("fork", Text::words(content)));
    }
    if let Some(checkpoint) = &manifest.checkpoint {
        let start = manifest.backup_label.as_ref().map_or(checkpoint.redo, |label| label.start);
        let taken = Timestamp::from_second(checkpoint.time).map_or_else(|_| "?".to_owned(), |time| time.to_string());
        let before = ago(&manifest.created, checkpoint.time);
        let content = format!("checkpoint {}, of {taken}{before}; replay begins at {start}", checkpoint.lsn);
        parts.push(row("last common", Text::words(content)));
    }
    parts
}

/// How long before the plan something was, for people; nothing where the clocks do not tell.
fn ago(created: &str, unix: i64) -> String {
    let seconds = created.parse::<Timestamp>().ok().and_then(|created| created.as_second().checked_sub(unix));
    let Some(seconds) = seconds.and_then(|seconds| u64::try_from(seconds).ok()) else { return String::new() };
    let (amount, one, many) = match seconds {
        0..60 => (seconds, "second", "seconds"),
        60..3600 => (seconds / 60, "minute", "minutes"),
        3600..172_800 => (seconds / 3600, "hour", "hours"),
        _ => (seconds / 86_400, "day", "days"),
    };
    format!(", {} before the plan", count(amount, one, many))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_ago() {
        let cases = [
            (0, ", 0 seconds before the plan"),
            (1, ", 1 second before the plan"),
            (119, ", 1 minute before the plan"),
            (7200, ", 2 hours before the plan"),
            (172_799, ", 47 hours before the plan"),
            (172_800, ", 2 days before the plan"),
            (-1, ""),
        ];
        for (seconds, expected) in cases {
            assert_eq!(ago("2026-03-01T10:00:00Z", 1_772_359_200 - seconds), expected, "{seconds}");
        }
        assert_eq!(ago("yesterday", 0), "");
    }
}
