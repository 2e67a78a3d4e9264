//! What is to be done next?

use super::super::content::{Part, Section, Text, Tone};
use super::{Naming, row};
use crate::manifest::{Manifest, Scope, Verdict, shell_word};

/// The command that applies the plan, or what must come before.
pub(super) fn section(manifest: &Manifest, naming: Naming<'_>) -> Section {
    let pinned = if naming.pinned { format!(" --expect-digest {}", manifest.digest) } else { String::new() };
    let command = format!("pg_unfork apply {}{pinned}", shell_word(naming.file.as_bytes()));
    let say = |text: &str| vec![row("next", Text::words(text))];
    let parts = match (manifest.scope, manifest.verdict) {
        (_, Verdict::Impossible) => say("see the failed checks, then plan again"),
        (Scope::Preview, _) => say("stop the target in good order (pg_ctl stop -m fast), and plan again"),
        (Scope::CheckOnly, Verdict::Rewind) => say("plan again, to see what a rewind would do"),
        (Scope::CheckOnly, Verdict::NotNeeded) => say("nothing, but for what -R would write"),
        (_, _) if !manifest.applyable => say("it cannot be applied; see the failed checks, then plan again"),
        (_, Verdict::Rewind) => vec![Part::Command { label: "next", command }],
        (_, Verdict::NotNeeded) if manifest.recovery.is_some() => {
            let text = Text::words("writes the recovery configuration, nothing else");
            vec![Part::Command { label: "next", command }, row("", text)]
        }
        (_, Verdict::NotNeeded) => say("nothing to apply"),
    };
    Section { title: Text::words("What next"), tone: Tone::Plain, parts, folded: false }
}
