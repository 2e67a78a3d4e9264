//! The preconditions of a rewind: what must hold of the two control files.

use super::check;
use crate::cluster::SourceKind;
use crate::format::{ControlFile, DbState};
use crate::manifest::{Check, CheckStatus};

/// What the checks look at.
#[derive(Clone, Copy, Debug)]
pub struct Preconditions<'a> {
    /// The target's control file.
    pub target: &'a ControlFile,
    /// The source's control file.
    pub source: &'a ControlFile,
    /// How the source is reached.
    pub kind: SourceKind,
    /// Whether majors that are not released may be used.
    pub allow_unreleased: bool,
    /// Whether the plan is a preview, for which the target need not be stopped.
    pub preview: bool,
}

/// All checks, in a fixed order, whether they pass or not.
pub fn control_files(conditions: &Preconditions<'_>) -> Vec<Check> {
    vec![
        same_system(conditions),
        same_version(conditions),
        released(conditions),
        same_sizes(conditions),
        same_checksums(conditions),
        changes_are_logged(conditions),
        target_is_stopped(conditions),
        source_state(conditions),
    ]
}

fn same_system(c: &Preconditions<'_>) -> Check {
    let (target, source) = (c.target.header().system_identifier, c.source.header().system_identifier);
    check(
        "same_system",
        target == source,
        format!("system identifier: target {target}, source {source}"),
        "these are two different clusters; check -D and the source's address",
    )
}

fn same_version(c: &Preconditions<'_>) -> Check {
    let (target, source) = (c.target, c.source);
    let same = target.facts().major == source.facts().major
        && target.header().catalog_version == source.header().catalog_version;
    check(
        "same_version",
        same,
        format!(
            "PostgreSQL: target {} (catalog {}), source {} (catalog {})",
            target.facts().major,
            target.header().catalog_version,
            source.facts().major,
            source.header().catalog_version
        ),
        "a cluster can follow only one of its own major and catalog version",
    )
}

fn released(c: &Preconditions<'_>) -> Check {
    let facts = c.target.facts();
    check(
        "released",
        facts.released || c.allow_unreleased,
        format!("PostgreSQL {} is {}", facts.major, if facts.released { "a release" } else { "not released" }),
        "to use it all the same, plan with --allow-unreleased",
    )
}

fn same_sizes(c: &Preconditions<'_>) -> Check {
    let (target, source) = (c.target.geometry(), c.source.geometry());
    check(
        "same_sizes",
        target == source,
        format!(
            "block, relation segment, WAL page and WAL segment size: target {} {} {} {}, source {} {} {} {}",
            target.block_size,
            target.relation_segment_blocks,
            target.wal_page_size,
            target.wal_segment_size.bytes(),
            source.block_size,
            source.relation_segment_blocks,
            source.wal_page_size,
            source.wal_segment_size.bytes()
        ),
        "the two were built or initialised with different sizes; make the target anew from a base backup",
    )
}

fn same_checksums(c: &Preconditions<'_>) -> Check {
    let (target, source) = (c.target.settings().data_checksums, c.source.settings().data_checksums);
    let words = |version| match version {
        0 => "off".to_owned(),
        1 => "on".to_owned(),
        other => format!("changing (state {other})"),
    };
    check(
        "same_checksums",
        target == source && target <= 1,
        format!("data checksums: target {}, source {}", words(target), words(source)),
        if target.max(source) > 1 {
            "let the side that is changing finish, stop it in good order if it is the target, and plan again"
        } else {
            "bring both to the same state with pg_checksums on the stopped target: pages that are not copied keep the target's"
        },
    )
}

fn changes_are_logged(c: &Preconditions<'_>) -> Check {
    let settings = c.target.settings();
    let (checksums, hints) = (settings.data_checksums == 1, settings.wal_log_hints);
    let word = |on| if on { "on" } else { "off" };
    check(
        "changes_are_logged",
        checksums || hints,
        format!("target: data checksums {}, wal_log_hints {}", word(checksums), word(hints)),
        "without either, hint bits change blocks that WAL does not tell of: this target needs a new base backup; set wal_log_hints for the future",
    )
}

fn target_is_stopped(c: &Preconditions<'_>) -> Check {
    let state = c.target.state();
    if c.target.is_sealed() {
        return check(
            "target_is_stopped",
            false,
            "target is sealed: an apply began on it and did not finish".to_owned(),
            "no server can start on it and no plan can be made for it; its data is partly the source's",
        );
    }
    let checked = check(
        "target_is_stopped",
        state.is_clean(),
        format!("target state: {}", state.words()),
        if state == DbState::InArchiveRecovery {
            "it is a standby that did not stop in good order, or was just restored or rewound: start it as a standby (with standby.signal, never without), stop it in good order, and plan again; where it cannot be started, plan with --recover-target"
        } else {
            "if no server runs on it, in another container or on another machine either, start it alone and stop it in good order (pg_ctl stop -m fast), so that it finishes its crash recovery; then plan again; or plan with --recover-target, which has its postgres recover it"
        },
    );
    if c.preview && checked.status == CheckStatus::Fail {
        let remedy = "stop it in good order (pg_ctl stop -m fast) before the plan that is to be applied";
        return Check { status: CheckStatus::Warn, remedy: Some(remedy.to_owned()), ..checked };
    }
    checked
}

fn source_state(c: &Preconditions<'_>) -> Check {
    let state = c.source.state();
    if c.source.is_sealed() {
        return check(
            "source_state",
            false,
            "source is sealed: an apply began on it and did not finish".to_owned(),
            "its data is partly that of the cluster that it was to follow; name another source",
        );
    }
    let (ok, remedy) = match c.kind {
        SourceKind::StoppedDirectory => {
            (state.is_clean(), "stop the source in good order (pg_ctl stop -m fast), or name it by --source-server")
        }
        SourceKind::LiveServer => (
            matches!(state, DbState::InProduction | DbState::InArchiveRecovery),
            "wait until the source is up as a primary or a standby",
        ),
    };
    check("source_state", ok, format!("source state: {}", state.words()), remedy)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::format::Major;
    use crate::format::control_file_sample as sample;

    fn failed(conditions: &Preconditions<'_>) -> Vec<String> {
        let checks = control_files(conditions);
        checks.into_iter().filter(|check| check.status == CheckStatus::Fail).map(|check| check.id).collect()
    }

    #[test]
    fn each_condition_fails_alone() {
        let base = sample(Major::V17, |fields| fields.checksums = 1);
        let kind = SourceKind::StoppedDirectory;
        let with = |target: &ControlFile, source: &ControlFile| {
            failed(&Preconditions { target, source, kind, allow_unreleased: false, preview: false })
        };
        assert_eq!(with(&base, &base), [""; 0]);
        let other_system = sample(Major::V17, |f| (f.checksums, f.system) = (1, 7));
        assert_eq!(with(&base, &other_system), ["same_system"]);
        let other_major = sample(Major::V16, |f| f.checksums = 1);
        assert_eq!(with(&base, &other_major), ["same_version"]);
        let other_segments = sample(Major::V17, |f| (f.checksums, f.wal_segment) = (1, 1 << 20));
        assert_eq!(with(&base, &other_segments), ["same_sizes"]);
        let unsummed = sample(Major::V17, |_| ());
        assert_eq!(with(&base, &unsummed), ["same_checksums"]);
        assert_eq!(with(&unsummed, &unsummed), ["changes_are_logged"]);
        let running = base.clone().with_state(DbState::InProduction);
        assert_eq!(with(&running, &base), ["target_is_stopped"]);
        let preview = Preconditions { target: &running, source: &base, kind, allow_unreleased: false, preview: true };
        assert_eq!(failed(&preview), [""; 0]);
        let warned: Vec<_> =
            control_files(&preview).into_iter().filter(|check| check.status == CheckStatus::Warn).collect();
        assert!(matches!(warned.as_slice(), [warned] if warned.id == "target_is_stopped"), "{warned:?}");
        assert_eq!(failed(&Preconditions { target: &base.clone().sealed(), ..preview }), ["target_is_stopped"]);
        assert_eq!(with(&base, &running), ["source_state"]);
        let sealed = base.clone().sealed();
        assert_eq!(with(&sealed, &base), ["target_is_stopped"]);
        assert_eq!(with(&base, &sealed), ["source_state"]);
        let hinted = sample(Major::V17, |f| f.hints = true);
        assert_eq!(with(&hinted, &hinted), [""; 0]);
        let changing = sample(Major::V17, |f| (f.checksums, f.hints) = (2, true));
        assert_eq!(with(&changing, &changing), ["same_checksums"]);
    }

    #[test]
    fn unreleased_majors_and_live_sources() {
        let rc = sample(Major::V19, |fields| fields.checksums = 1);
        let live = rc.clone().with_state(DbState::InProduction);
        let kind = SourceKind::LiveServer;
        let conditions = Preconditions { target: &rc, source: &live, kind, allow_unreleased: false, preview: false };
        assert_eq!(failed(&conditions), ["released"]);
        assert_eq!(failed(&Preconditions { allow_unreleased: true, ..conditions }), [""; 0]);
        assert_eq!(failed(&Preconditions { source: &rc, ..conditions }), ["released", "source_state"]);
    }
}
