//! Configuration of the target's own that goes.

use similar::{Algorithm, ChangeTag, capture_diff_slices, group_diff_ops};

use super::secrets::{HIDDEN, is_records, shown_conninfo, shown_records, shown_setting};
use super::{finding, with_lines};
use crate::cluster::Settings;
use crate::format::parse_settings;
use crate::manifest::{Check, CheckStatus, RecoveryPlan};
use crate::types::ClusterPath;
use crate::types::plain;

/// What one side has at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing, or no file.
    Absent,
    /// A file that could not be read, and why.
    Unreadable(String),
    /// A file with these bytes.
    Bytes(Vec<u8>),
}

/// A file of configuration that the plan copies or removes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// The file.
    pub path: ClusterPath,
    /// Whether it holds settings, as `postgresql.conf` does.
    pub has_settings: bool,
    /// What the target has.
    pub target: Content,
    /// What the source has, which the target will have.
    pub source: Content,
}

/// Settings or records that are compared; files with more are not.
const MOST_ENTRIES: usize = 5000;
/// Lines of differences that are shown of one file.
const MOST_DIFFERENCES: usize = 60;
/// Equal lines around a difference.
const AROUND: usize = 1;
/// The file to which `-R` appends.
const AUTO: &str = "postgresql.auto.conf";

/// Whether a path is one of configuration: PostgreSQL's own, what it includes on either side, and others of the same
/// form at the top of the data directory.
#[must_use]
pub fn is_configuration(path: &ClusterPath, settings: &[&Settings]) -> bool {
    let bytes = path.as_bytes();
    (!bytes.contains(&b'/') && bytes.ends_with(b".conf")) || settings.iter().any(|side| side.files.contains(path))
}

/// `configuration`: what of the target's configuration changes, as differences of settings and records, without comments
/// and without secrets; and what `-R` appends.
#[must_use]
pub fn configuration(files: &[ConfigFile], recovery: Option<&RecoveryPlan>) -> Check {
    let (mut evidence, mut changed) = (Vec::new(), Vec::new());
    for file in files {
        let difference = difference(file);
        if difference.is_some() || hides_something(file) {
            changed.push(file.path.to_string());
        }
        if let Some(lines) = difference {
            evidence.extend(lines);
        } else {
            evidence.push(format!("{}: only comments, blanks, or what is not shown (secrets) differ", file.path));
        }
    }
    if let Some(recovery) = recovery {
        let appended = shown_conninfo(&recovery.primary_conninfo);
        let password = if recovery.with_password { ", and the password" } else { "" };
        evidence.push(format!("{AUTO}: -R appends primary_conninfo = {appended}{password}"));
    }
    let (status, detail, remedy) = if changed.is_empty() {
        (CheckStatus::Pass, "no configuration of the target changes but by -R".to_owned(), None)
    } else {
        let remedy = "see what differs; to leave these files the target's own, plan with --config-policy target or with \
                      --keep and their names";
        let detail = format!("the target's configuration becomes the source's: {}", shown_names(&changed));
        (CheckStatus::Warn, detail, Some(remedy))
    };
    with_lines(finding("configuration", status, detail, remedy), evidence, Vec::new())
}

fn shown_names(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let more = if names.len() > SHOWN { format!(", and {} more", names.len() - SHOWN) } else { String::new() };
    format!("{}{more}", names.iter().take(SHOWN).map(|name| plain(name)).collect::<Vec<_>>().join(", "))
}

/// Whether a file has something that is not shown, in which it may differ.
fn hides_something(file: &ConfigFile) -> bool {
    [&file.target, &file.source].into_iter().any(|content| match content {
        Content::Bytes(bytes) => entries(file, bytes).is_none_or(|all| all.iter().any(|entry| entry.contains(HIDDEN))),
        Content::Absent | Content::Unreadable(_) => false,
    })
}

/// How a file differs on both sides, in lines; none where it says the same.
fn difference(file: &ConfigFile) -> Option<Vec<String>> {
    let path = &file.path;
    match (&file.target, &file.source) {
        (Content::Unreadable(why), _) => Some(vec![format!("{path}: the target's cannot be read: {why}")]),
        (_, Content::Unreadable(why)) => Some(vec![format!("{path}: the source's cannot be read: {why}")]),
        (Content::Absent, Content::Absent) => None,
        (Content::Absent, Content::Bytes(_)) => Some(vec![format!("{path}: only the source has it; it is fetched")]),
        (Content::Bytes(_), Content::Absent) => Some(vec![format!("{path}: only the target has it; it is removed")]),
        (Content::Bytes(old), Content::Bytes(new)) if old == new => None,
        (Content::Bytes(old), Content::Bytes(new)) => match (entries(file, old), entries(file, new)) {
            (Some(old), Some(new)) if old.len().max(new.len()) <= MOST_ENTRIES => unified(path, &old, &new),
            (Some(_), Some(_)) => Some(vec![format!("{path}: differs, and is too long to be compared")]),
            _ => Some(vec![format!("{path}: differs; what is in it is not known, and not shown")]),
        },
    }
}

/// What a file says, entry by entry, without secrets. None where its form is not known.
fn entries(file: &ConfigFile, bytes: &[u8]) -> Option<Vec<String>> {
    if bytes.contains(&0) {
        return None;
    }
    if file.has_settings {
        let settings = parse_settings(bytes).into_iter();
        return Some(settings.map(|setting| shown_setting(&setting.name, &setting.value)).collect());
    }
    is_records(&file.path).then(|| shown_records(bytes))
}

/// The differences in the form of `diff -u`; none where the entries are equal.
fn unified(path: &ClusterPath, old: &[String], new: &[String]) -> Option<Vec<String>> {
    let operations = capture_diff_slices(Algorithm::Myers, old, new);
    let mut lines = Vec::new();
    for group in group_diff_ops(operations, AROUND) {
        if !lines.is_empty() {
            lines.push("@@".to_owned());
        }
        for (tag, entries) in group.iter().flat_map(|operation| operation.iter_slices(old, new)) {
            let sign = match tag {
                ChangeTag::Equal => ' ',
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
            };
            lines.extend(entries.iter().map(|shown| format!("{sign}{shown}")));
        }
    }
    if lines.is_empty() {
        return None;
    }
    let more = lines.len().saturating_sub(MOST_DIFFERENCES);
    lines.truncate(MOST_DIFFERENCES);
    if more > 0 {
        lines.push(format!("… {more} more lines of differences"));
    }
    let head = [format!("--- target: {path}"), format!("+++ source: {path}")];
    Some(head.into_iter().chain(lines).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::samples::path;

    fn file(name: &str, target: &str, source: &str) -> ConfigFile {
        let has_settings = name.starts_with("postgresql");
        let content = |text: &str| Content::Bytes(text.into());
        ConfigFile { path: path(name), has_settings, target: content(target), source: content(source) }
    }

    #[test]
    fn which_paths_are_configuration() {
        let mut included = Settings::default();
        included.files = vec![path("conf.d/a.conf"), path("odd")];
        for name in ["postgresql.conf", "pg_hba.conf", "pg_hosts.conf", "conf.d/a.conf", "odd"] {
            assert!(is_configuration(&path(name), &[&Settings::default(), &included]), "{name}");
        }
        for name in ["conf.d/b.conf", "base/5/1", "server.key", "postgresql.conf.bak"] {
            assert!(!is_configuration(&path(name), &[&Settings::default(), &included]), "{name}");
        }
    }

    #[test]
    fn differences_of_settings_and_records() {
        let cases = [
            (file("postgresql.conf", "port = 1 # secret\n", "# x\nport=1"), None),
            (
                file(
                    "postgresql.conf",
                    "a = 1\nport = 1\nb = 2\nc=3\nd=4\ne=5",
                    "a = 1\nport = 2\nb = 2\nc=3\nd=4\ne=6",
                ),
                Some(vec![" a = 1", "-port = 1", "+port = 2", " b = 2", "@@", " d = 4", "-e = 5", "+e = 6"]),
            ),
            (
                file(
                    "postgresql.auto.conf",
                    "primary_conninfo = 'host=a password=x'",
                    "primary_conninfo = 'host=a password=y'",
                ),
                None,
            ),
            (file("pg_hba.conf", "local  all all trust", "local all\tall trust # x"), None),
            (
                file("pg_hba.conf", "local all all trust\n", "local all all peer\n"),
                Some(vec!["-local all all trust", "+local all all peer"]),
            ),
            (file("pg_hba.conf", "host a a a ldap ldapbindpasswd=x\n", "host a a a ldap ldapbindpasswd=y\n"), None),
        ];
        for (file, expected) in cases {
            let found = difference(&file).map(|lines| lines.iter().skip(2).cloned().collect::<Vec<_>>());
            assert_eq!(found, expected.map(|lines| lines.into_iter().map(str::to_owned).collect()), "{file:?}");
        }
    }

    #[test]
    fn files_that_cannot_be_compared() {
        let good = file("pg_hba.conf", "x", "y");
        let many = "a = 1\n".repeat(MOST_ENTRIES + 1);
        let cases = [
            (ConfigFile { source: Content::Absent, ..good.clone() }, "only the target has it; it is removed"),
            (ConfigFile { target: Content::Absent, ..good.clone() }, "only the source has it; it is fetched"),
            (
                ConfigFile { target: Content::Unreadable("why".to_owned()), ..good.clone() },
                "the target's cannot be read: why",
            ),
            (
                ConfigFile { source: Content::Unreadable("why".to_owned()), ..good.clone() },
                "the source's cannot be read: why",
            ),
            (file("pg_hba.conf", "x\0", "y"), "differs; what is in it is not known, and not shown"),
            (file("pg_hosts.conf", "x", "y"), "differs; what is in it is not known, and not shown"),
            (file("postgresql.conf", &many, "b = 1"), "differs, and is too long to be compared"),
        ];
        for (file, words) in cases {
            assert_eq!(difference(&file), Some(vec![format!("{}: {words}", file.path)]));
        }
        let long: String = (0..100).map(|n| format!("a{n} = {n}\n")).collect();
        let lines = difference(&file("postgresql.conf", &long, "b = 1")).unwrap_or_default();
        assert_eq!((lines.len(), lines.last().map(String::as_str)), (63, Some("… 41 more lines of differences")));
    }

    #[test]
    fn what_is_said_of_all() {
        let recovery = RecoveryPlan {
            primary_conninfo: "host=a passfile=/x".to_owned(),
            standby_signal: true,
            with_password: false,
        };
        let none = configuration(&[], Some(&recovery));
        let appended = "postgresql.auto.conf: -R appends primary_conninfo = host=a passfile=***";
        assert_eq!((none.status, none.evidence), (CheckStatus::Pass, vec![appended.to_owned()]));
        let same = configuration(&[file("postgresql.conf", "# a", "# b")], None);
        assert_eq!((same.status, same.evidence.len()), (CheckStatus::Pass, 1));
        let hidden = [file("pg_hba.conf", "host a a a ldap ldapbindpasswd=x\n", "host a a a ldap ldapbindpasswd=y\n")];
        let hidden = configuration(&hidden, None);
        assert_eq!((hidden.status, hidden.evidence.len()), (CheckStatus::Warn, 1));
        let changed =
            configuration(&[file("postgresql.conf", "a = 1", "a = 2"), file("pg_ident.conf", "", "m a b")], None);
        assert_eq!(changed.status, CheckStatus::Warn);
        assert_eq!(changed.detail, "the target's configuration becomes the source's: postgresql.conf, pg_ident.conf");
        assert!(changed.remedy.is_some_and(|remedy| remedy.contains("--config-policy target")));
    }
}
