//! What must hold of a live source's server and of the role that reads it.

use super::{check, finding};
use crate::cluster::{ServerFacts, TornPages, torn_pages};
use crate::format::Checkpoint;
use crate::manifest::{Check, CheckStatus};

/// The checks of a live source, in a fixed order, whether they pass or not. `checkpoint` is the last one in its
/// control file.
pub fn source_server(facts: &ServerFacts, checkpoint: &Checkpoint) -> Vec<Check> {
    vec![source_privileges(facts), full_page_writes(facts, checkpoint)]
}

fn source_privileges(facts: &ServerFacts) -> Check {
    let ServerFacts { role, database, missing_privileges: missing, .. } = facts;
    if missing.is_empty() {
        let detail = format!("role {role} may execute all functions that read the source server's files");
        return check("source_privileges", true, detail, "");
    }
    let detail = format!(
        "role {role} may not execute all functions that read the source server's files: {}",
        missing.join(", ")
    );
    let server = if facts.in_recovery { "the source's primary" } else { "the source server" };
    let remedy = format!("as a superuser in database {database} of {server}, grant what is missing");
    let grant = |function: &String| format!("GRANT EXECUTE ON FUNCTION {function} TO {role};");
    let commands = missing.iter().map(grant).collect();
    Check { commands, ..check("source_privileges", false, detail, &remedy) }
}

fn full_page_writes(facts: &ServerFacts, checkpoint: &Checkpoint) -> Check {
    let id = "full_page_writes";
    let shown = facts.is_on(id);
    let words = |on| if on { "on" } else { "off" };
    let mut evidence = Vec::new();
    if let Some(shown) = shown {
        let whose = if facts.in_recovery { "the standby's own setting" } else { "the source's setting" };
        evidence.push(format!("{whose}: {}", words(shown)));
    }
    let primary = if facts.in_recovery { "its primary" } else { "the source" };
    evidence.push(format!("{primary} at the last checkpoint: {}", words(checkpoint.full_page_writes)));
    let switch_on = "ALTER SYSTEM SET full_page_writes = on;";
    let reload = "SELECT pg_catalog.pg_reload_conf();";
    let lines = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
    let own = facts.in_recovery && shown == Some(false);
    let (found, commands) = match torn_pages(facts.in_recovery, shown, checkpoint) {
        Some(TornPages::Setting) => ("is off on the source server", lines(&[switch_on, reload, "CHECKPOINT;"])),
        Some(TornPages::Checkpoint) if facts.in_recovery => {
            ("was off on the source's primary at its last checkpoint", lines(&[switch_on, reload, "CHECKPOINT;"]))
        }
        Some(TornPages::Checkpoint) => ("was off at the source's last checkpoint", lines(&["CHECKPOINT;"])),
        None if own => {
            let detail =
                "full_page_writes is off on the source, a standby: no page could be repaired once it were promoted";
            let remedy = "set full_page_writes = on, there too";
            let warning = finding(id, CheckStatus::Warn, detail.to_owned(), Some(remedy));
            return Check { commands: lines(&[switch_on, reload]), evidence, ..warning };
        }
        None => {
            let detail = "pages that are copied while the source writes them can be repaired".to_owned();
            return Check { evidence, ..check(id, true, detail, "") };
        }
    };
    let detail = format!("full_page_writes {found}: pages copied while they are written could not be repaired");
    let remedy = "set full_page_writes = on, on its primary too, and let a checkpoint pass; then plan again";
    Check { commands, evidence, ..check(id, false, detail, remedy) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::format::{Major, control_file_sample as sample};

    fn facts(in_recovery: bool, setting: Option<&str>) -> ServerFacts {
        let settings = setting.map(|value| ("full_page_writes".to_owned(), value.to_owned()));
        ServerFacts {
            database: "app".to_owned(),
            in_recovery,
            role: "\"my role\"".to_owned(),
            settings: settings.into_iter().collect(),
            ..ServerFacts::default()
        }
    }

    #[test]
    fn grants_name_what_is_missing_and_where() {
        let mut facts = facts(false, None);
        assert_eq!(source_privileges(&facts).status, CheckStatus::Pass);
        facts.missing_privileges = vec!["pg_catalog.pg_stat_file(text, boolean)".to_owned()];
        let found = source_privileges(&facts);
        assert_eq!(found.status, CheckStatus::Fail);
        let expected = "GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean) TO \"my role\";";
        assert_eq!(found.commands, [expected]);
        assert!(found.remedy.unwrap().contains("in database app of the source server"));
        facts.in_recovery = true;
        assert!(source_privileges(&facts).remedy.unwrap().contains("of the source's primary"));
    }

    #[test]
    fn images_are_the_primary_s_matter() {
        use CheckStatus::{Fail, Pass, Warn};
        // Standby, its setting, the checkpoint's; outcome and number of statements.
        let cases = [
            (false, Some("on"), true, Pass, 0),
            (false, Some("off"), true, Fail, 3),
            (false, Some("off"), false, Fail, 3),
            (false, Some("on"), false, Fail, 1),
            (false, None, true, Pass, 0),
            (false, None, false, Fail, 1),
            (true, Some("on"), true, Pass, 0),
            (true, Some("off"), true, Warn, 2),
            (true, Some("on"), false, Fail, 3),
            (true, Some("off"), false, Fail, 3),
        ];
        for (in_recovery, setting, at_checkpoint, status, statements) in cases {
            let control = sample(Major::V17, |fields| fields.full_page_writes = at_checkpoint);
            let found = full_page_writes(&facts(in_recovery, setting), &control.checkpoint());
            let case = format!("{in_recovery} {setting:?} {at_checkpoint}");
            assert_eq!((found.status, found.commands.len()), (status, statements), "{case}");
            assert_eq!(found.evidence.len(), 1 + usize::from(setting.is_some()), "{case}");
        }
    }
}
