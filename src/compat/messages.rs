//! The lines that programs and people look for on pg_rewind's standard error.

use std::fmt;

use crate::cluster::SourceKind;
use crate::manifest::{Action, ActionKind, Check, CheckStatus, KeptReason, Manifest, Phase, Verdict};
use crate::plan::{common_ancestor, missing_segment};
use crate::types::{Lsn, plain, plain_lines};

/// What a line of standard error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What happens.
    Info,
    /// What may be wrong.
    Warning,
    /// Why it failed.
    Error,
    /// More of the line before.
    Detail,
    /// What to do about it.
    Hint,
}

/// A line of standard error: `pg_rewind: error: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    kind: Kind,
    text: String,
}

impl Line {
    /// A line of this kind. What could disturb a terminal is escaped; a hint or a detail may have several lines.
    #[must_use]
    pub fn new(kind: Kind, text: &str) -> Self {
        let text = if matches!(kind, Kind::Hint | Kind::Detail) { plain_lines(text) } else { plain(text) };
        Self { kind, text }
    }

    fn info(text: &str) -> Self {
        Self::new(Kind::Info, text)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.kind {
            Kind::Info => "",
            Kind::Warning => "warning: ",
            Kind::Error => "error: ",
            Kind::Detail => "detail: ",
            Kind::Hint => "hint: ",
        };
        writeln!(f, "pg_rewind: {word}{}", self.text.trim_end())
    }
}

/// A position as servers of this major write it.
fn position(major: u32, lsn: Lsn) -> String {
    if major >= 19 { lsn.padded() } else { lsn.to_string() }
}

/// What 19 and later say first when nothing shall be changed; we, for any major.
#[must_use]
pub fn dry_run() -> Vec<Line> {
    let detail = Line::new(Kind::Detail, "The target directory will not be modified.");
    vec![Line::info("executing in dry-run mode"), detail]
}

/// What a plan says before any work: where the two parted, what follows from it, and why nothing does. `target` is the
/// data directory as it was given.
#[must_use]
pub fn before_work(manifest: &Manifest, target: &str) -> Vec<Line> {
    let mut lines = ancestry(manifest);
    match (manifest.verdict, &manifest.checkpoint) {
        (Verdict::NotNeeded, _) => lines.push(Line::info("no rewind required")),
        (Verdict::Rewind, Some(checkpoint)) => {
            let at = position(manifest.target.major, checkpoint.lsn);
            let timeline = checkpoint.timeline;
            lines.push(Line::info(&format!("rewinding from last common checkpoint at {at} on timeline {timeline}")));
        }
        _ => {}
    }
    let missing = missing_segment(manifest).map(|segment| Line::new(Kind::Error, &could_not_open(target, segment)));
    lines.extend(missing);
    for check in &manifest.checks {
        lines.extend(check_lines(check, manifest.source.kind));
    }
    lines
}

/// Where the histories part, if the plan came so far.
fn ancestry(manifest: &Manifest) -> Vec<Line> {
    let known = manifest.divergence.as_ref().map(|fork| (fork.lsn, fork.timeline));
    let of_histories = || {
        let fork = common_ancestor(&manifest.source.history, &manifest.target.history)?;
        Some((fork.lsn, fork.timeline))
    };
    match known.or_else(of_histories) {
        Some((Lsn::MAX, _)) if manifest.verdict == Verdict::NotNeeded => {
            vec![Line::info("source and target cluster are on the same timeline")]
        }
        Some((lsn, timeline)) if lsn < Lsn::MAX => {
            let at = position(manifest.target.major, lsn);
            vec![Line::info(&format!("servers diverged at WAL location {at} on timeline {timeline}"))]
        }
        _ => Vec::new(),
    }
}

/// Warnings of a plan that an approval may wait for, and of what pg_rewind does to any target; the last one is repeated
/// when the rewind is done.
const OF_EVERY_REWIND: [&str; 5] =
    ["preview", "source_wal_retention", "configuration", "log_files", "starts_as_standby"];

/// What is said of a check that did not pass.
fn check_lines(check: &Check, source: SourceKind) -> Vec<Line> {
    let kind = match check.status {
        CheckStatus::Fail => Kind::Error,
        CheckStatus::Warn if !OF_EVERY_REWIND.contains(&&*check.id) => Kind::Warning,
        CheckStatus::Warn | CheckStatus::Pass => return Vec::new(),
    };
    let mut lines = match refusal(&check.id, source).filter(|_| kind == Kind::Error) {
        Some(stock) => vec![Line::new(kind, stock), Line::new(Kind::Detail, &check.detail)],
        None => vec![Line::new(kind, &check.detail)],
    };
    if kind == Kind::Error {
        lines.extend(check.evidence.iter().map(|line| Line::new(Kind::Detail, line)));
    }
    lines.extend(check.remedy.iter().chain(&check.commands).map(|text| Line::new(Kind::Hint, text)));
    lines
}

/// What pg_rewind says where a check of this name fails.
fn refusal(check: &str, source: SourceKind) -> Option<&'static str> {
    let text = match (check, source) {
        ("same_system", _) => "source and target clusters are from different systems",
        ("changes_are_logged", _) => "target server needs to use either data checksums or \"wal_log_hints = on\"",
        ("target_is_stopped", _) => NOT_STOPPED,
        ("source_state", SourceKind::StoppedDirectory) => "source data directory must be shut down cleanly",
        _ => return None,
    };
    Some(text)
}

/// What pg_rewind says of a target that is running, or was not stopped in good order.
const NOT_STOPPED: &str = "target server must be shut down cleanly";

/// What is said of a target on which a server is running, as this process.
#[must_use]
pub fn running(process: i32) -> Vec<Line> {
    vec![
        Line::new(Kind::Error, NOT_STOPPED),
        Line::new(Kind::Detail, &format!("a server is running on it (process {process})")),
        Line::new(Kind::Hint, "stop it in good order (pg_ctl stop -m fast)"),
        Line::new(Kind::Hint, "if that process is no PostgreSQL, postmaster.pid is left from a crash: remove it"),
    ]
}

/// What pg_rewind says of WAL that the target lacks, and what Patroni looks for.
fn could_not_open(target: &str, segment: &str) -> String {
    let slash = if target.ends_with('/') { "" } else { "/" };
    format!("could not open file \"{target}{slash}pg_wal/{segment}\": No such file or directory")
}

/// What will be copied.
#[must_use]
pub fn to_copy(manifest: &Manifest) -> Line {
    Line::info(&format!("need to copy {} MB", manifest.totals.bytes >> 20))
}

/// Each path of the plan and what is done to it, in pg_rewind's words, for `--debug`.
pub fn map(manifest: &Manifest) -> impl Iterator<Item = Line> + '_ {
    let kept =
        manifest.kept.iter().filter(|kept| kept.reason == KeptReason::OnlyCopyOfCommonWal).map(|kept| {
            Line::info(&format!("Not removing file \"{}\" because it is required for recovery", kept.path))
        });
    let actions = manifest.actions.iter().map(|action| {
        let blocks: u64 = action.blocks.iter().map(|range| u64::from(range.count)).sum();
        let blocks = if blocks > 0 { format!(", {blocks} blocks") } else { String::new() };
        Line::info(&format!("{} ({}{blocks})", action.path, action_word(action)))
    });
    kept.chain(actions)
}

fn action_word(action: &Action) -> &'static str {
    match action.kind {
        ActionKind::CreateDirectory | ActionKind::CreateSymlink => "CREATE",
        ActionKind::CopyFile => "COPY",
        ActionKind::Remove => "REMOVE",
        ActionKind::Patch if action.phase == Phase::Truncate => "TRUNCATE",
        ActionKind::Patch => {
            let size = |state: &Option<crate::manifest::PathState>| state.as_ref().and_then(|state| state.size);
            match size(&action.before).cmp(&size(&action.after)) {
                std::cmp::Ordering::Less => "COPY_TAIL",
                std::cmp::Ordering::Equal => "NONE",
                std::cmp::Ordering::Greater => "TRUNCATE",
            }
        }
    }
}

/// How far copying is, without the end of the line: `123/456 kB (26%) copied`.
#[must_use]
pub fn copied(done: u64, total: u64) -> String {
    let total = total.max(done);
    let percent = (u128::from(done) * 100).checked_div(u128::from(total)).unwrap_or_default();
    let (done, total) = (done >> 10, (total >> 10).to_string());
    format!("{done:>width$}/{total} kB ({percent}%) copied", width = total.len())
}

/// What is to be known of a rewind that is done: directories that were left, whether the target is a standby, whether
/// nothing was made durable.
#[must_use]
pub fn after_work(left: u64, standby: bool, volatile: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    if left > 0 {
        lines.push(Line::new(Kind::Warning, &format!("directories left because something unknown is inside: {left}")));
    }
    if !standby {
        let text = "there is no standby.signal: started as it is, the target becomes a second primary on the source's timeline";
        lines.push(Line::new(Kind::Warning, text));
        lines.push(Line::new(
            Kind::Hint,
            "create standby.signal and set primary_conninfo before it is started, unless something else does",
        ));
    }
    if volatile {
        let text = "nothing is durable yet (-N): after a crash of the machine the directory may be half changed";
        lines.push(Line::new(Kind::Warning, text));
    }
    lines
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn kilobytes() {
        let cases = [
            (0, 0, "0/0 kB (0%) copied"),
            (0, 38_585 << 10, "    0/38585 kB (0%) copied"),
            ((1 << 20) + 1023, 4 << 20, "1024/4096 kB (25%) copied"),
            (4 << 20, 4 << 20, "4096/4096 kB (100%) copied"),
            // More came than was planned.
            (5 << 20, 4 << 20, "5120/5120 kB (100%) copied"),
            (u64::MAX, u64::MAX, "18014398509481983/18014398509481983 kB (100%) copied"),
        ];
        for (done, total, expected) in cases {
            assert_eq!(copied(done, total), expected);
        }
    }

    #[test]
    fn positions_are_the_majors() {
        assert_eq!(
            (position(18, Lsn::new(0x300_0028)), position(19, Lsn::new(0x28))),
            ("0/3000028".to_owned(), "0/00000028".to_owned())
        );
    }

    #[test]
    fn lines_have_pg_rewinds_shape() {
        let shown = |kind, text| Line::new(kind, text).to_string();
        assert_eq!(shown(Kind::Info, "a\nb"), "pg_rewind: a\\nb\n");
        assert_eq!(shown(Kind::Error, "a\u{1b}"), "pg_rewind: error: a\\u{1b}\n");
        assert_eq!(shown(Kind::Hint, "a\nb\n"), "pg_rewind: hint: a\nb\n");
    }

    #[test]
    fn wal_that_is_missing_is_named_as_patroni_looks_for_it() {
        for target in ["/a b/data", "/a b/data/"] {
            let line = could_not_open(target, "00000001000000000000000A");
            let expected =
                "could not open file \"/a b/data/pg_wal/00000001000000000000000A\": No such file or directory";
            assert_eq!(line, expected);
        }
    }

    #[test]
    fn refusals() {
        let line = |id: &str, status, kind| {
            let check = Check {
                commands: Vec::new(),
                detail: "found".to_owned(),
                evidence: vec!["evidence".to_owned()],
                id: id.to_owned(),
                remedy: None,
                status,
            };
            check_lines(&check, kind).iter().map(Line::to_string).collect::<String>()
        };
        use CheckStatus::{Fail, Pass, Warn};
        let (live, stopped) = (SourceKind::LiveServer, SourceKind::StoppedDirectory);
        let stock = "pg_rewind: error: source data directory must be shut down cleanly\npg_rewind: detail: found\n\
                     pg_rewind: detail: evidence\n";
        assert_eq!(line("source_state", Fail, stopped), stock);
        assert_eq!(line("source_state", Fail, live), "pg_rewind: error: found\npg_rewind: detail: evidence\n");
        assert_eq!(line("source_state", Warn, stopped), "pg_rewind: warning: found\n");
        assert_eq!(line("source_state", Pass, stopped), "");
    }
}
