//! Rules of the person who plans: what of the target's own stays, what of the source's is not fetched.
//!
//! A rule covers a path if its glob matches the path, or a directory that the path lies in. Globs begin at the data
//! directory; `*` and `?` stop at slashes, `**` does not. No rule can leave out what recovery needs.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use globset::{GlobBuilder, GlobMatcher};

use crate::cluster::Settings;
use crate::cluster::rules::is_servers_own;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{KeptReason, PathRule, PathRuleKind};
use crate::types::{ClusterPath, LinkText};

/// Whose settings a target has after an apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConfigPolicy {
    /// The source's, as with pg_rewind.
    #[default]
    Source,
    /// Its own.
    Target,
}

/// What a person wants to be left alone, and where new tablespaces go.
#[derive(Clone, Debug, Default)]
pub struct PathRules {
    globs: Vec<Rule>,
    policy: ConfigPolicy,
    mappings: Vec<Mapping>,
}

#[derive(Clone, Debug)]
struct Rule {
    kind: PathRuleKind,
    text: String,
    matcher: GlobMatcher,
}

/// Where the location of a new tablespace is on the target's machine.
#[derive(Clone, Debug)]
struct Mapping {
    text: String,
    old: Vec<u8>,
    new: Vec<u8>,
}

/// The settings of a cluster, by name; the files that they include come on top.
const SETTINGS_FILES: [&[u8]; 4] = [b"postgresql.conf", b"postgresql.auto.conf", b"pg_hba.conf", b"pg_ident.conf"];

/// What makes a server a standby: with the target's own settings it stays, and comes from the source only where the
/// target has none.
const STANDBY_SIGNAL: &[u8] = b"standby.signal";

impl PathRules {
    /// The rules of `--keep`, `--exclude`, `--config-policy` and `--tablespace-mapping`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when a glob or a mapping cannot be understood.
    pub fn new(keep: &[String], exclude: &[String], policy: ConfigPolicy, mappings: &[String]) -> Result<Self> {
        let keep = keep.iter().map(|text| Rule::new(PathRuleKind::Keep, text));
        let exclude = exclude.iter().map(|text| Rule::new(PathRuleKind::Exclude, text));
        let globs = keep.chain(exclude).collect::<Result<Vec<_>>>()?;
        let mappings = mappings.iter().map(|text| Mapping::new(text)).collect::<Result<Vec<_>>>()?;
        Ok(Self { globs, policy, mappings })
    }

    /// Where the tablespace whose location on the source is `old` goes; none where no mapping says.
    fn mapped(&self, old: &[u8]) -> Option<&Mapping> {
        self.mappings.iter().find(|mapping| mapping.old == without_slashes(old))
    }
}

impl Rule {
    fn new(kind: PathRuleKind, text: &str) -> Result<Self> {
        let option = if kind == PathRuleKind::Keep { "--keep" } else { "--exclude" };
        let plain = text.trim_end_matches('/');
        let refuse = |why: &str| {
            Error::new(ErrorKind::Usage, format!("{option} {text:?}: {why}"))
                .hint("globs begin at the data directory: conf.d/*.conf, **/*.key, certs")
        };
        if plain.is_empty() || plain.starts_with('/') || plain.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(refuse("a glob is relative to the data directory, without \".\" and \"..\""));
        }
        let glob = GlobBuilder::new(plain).literal_separator(true).backslash_escape(true).build();
        let glob = glob.map_err(|error| refuse(&error.kind().to_string()))?;
        Ok(Self { kind, text: text.to_owned(), matcher: glob.compile_matcher() })
    }

    fn covers(&self, path: &ClusterPath) -> bool {
        let matches = |bytes: &[u8]| self.matcher.is_match(OsStr::from_bytes(bytes));
        matches(path.as_bytes()) || path.directories().any(matches)
    }
}

impl Mapping {
    /// Reads `OLD=NEW`, as pg_basebackup does: `\=` is an equals sign in a name.
    fn new(text: &str) -> Result<Self> {
        let refuse = |why: &str| {
            Error::new(ErrorKind::Usage, format!("--tablespace-mapping {text:?}: {why}"))
                .hint("write OLD=NEW with two absolute paths; an equals sign in a name is \\=")
        };
        let mut halves = vec![String::new()];
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            let escaped = character == '\\' && characters.peek() == Some(&'=');
            if character == '=' {
                halves.push(String::new());
            } else if let Some(half) = halves.last_mut() {
                half.push(if escaped { characters.next().unwrap_or('=') } else { character });
            }
        }
        let [old, new] = halves.as_slice() else { return Err(refuse("not one equals sign")) };
        if !old.starts_with('/') || !new.starts_with('/') {
            return Err(refuse("not two absolute paths"));
        }
        let [old, new] = [old, new].map(|path| without_slashes(path.as_bytes()).to_vec());
        Ok(Self { text: text.to_owned(), old, new })
    }
}

/// A path without slashes at its end.
fn without_slashes(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    path.get(..end.max(1)).unwrap_or(path)
}

/// A rule that covers a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Covered {
    /// Why the path is left alone.
    pub(super) reason: KeptReason,
    /// The rule.
    pub(super) rule: String,
}

/// The rules of one plan, and what they touch.
#[derive(Debug)]
pub(super) struct RulesAtWork<'a> {
    rules: &'a PathRules,
    /// What the settings of either side consist of.
    settings: Vec<ClusterPath>,
    /// The directories of log files of either side.
    logs: Vec<ClusterPath>,
    touched: BTreeMap<(PathRuleKind, String), u64>,
}

impl<'a> RulesAtWork<'a> {
    /// The rules, for two clusters with these settings; `directories` are the data directories, as far as known.
    pub(super) fn new(rules: &'a PathRules, sides: &[(&Settings, Option<&[u8]>)]) -> Self {
        let mut logs: Vec<ClusterPath> =
            sides.iter().flat_map(|(settings, directory)| log_directories(settings, *directory)).collect();
        logs.sort();
        logs.dedup();
        let settings = sides.iter().flat_map(|(settings, _)| settings.files.iter().cloned()).collect();
        let mut work = Self { rules, settings, logs, touched: BTreeMap::new() };
        for rule in &rules.globs {
            work.touched.insert((rule.kind, rule.text.clone()), 0);
        }
        for mapping in &rules.mappings {
            work.touched.insert((PathRuleKind::TablespaceMapping, mapping.text.clone()), 0);
        }
        if rules.policy == ConfigPolicy::Target {
            work.touched.insert((PathRuleKind::ConfigPolicy, "target".to_owned()), 0);
        }
        work
    }

    /// The rule that leaves a path alone; none where no rule does. What the target has of its own stays by all rules;
    /// what only the source has (`on_target` is false) is left out by some.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when a person's rule covers what recovery needs.
    pub(super) fn covering(&self, path: &ClusterPath, on_target: bool) -> Result<Option<Covered>> {
        let covered = |reason, rule: &str| Ok(Some(Covered { reason, rule: rule.to_owned() }));
        for rule in &self.rules.globs {
            if !rule.covers(path) {
                continue;
            }
            if is_servers_own(path) {
                return Err(Error::new(
                    ErrorKind::Usage,
                    format!("{} {:?} covers {path}, which the server needs", option(rule.kind), rule.text),
                )
                .hint("leave out only files of people and programs: settings, certificates, scripts"));
            }
            match (rule.kind, on_target) {
                (PathRuleKind::Keep, true) => return covered(KeptReason::Keep, &rule.text),
                (PathRuleKind::Keep, false) => {}
                _ => return covered(KeptReason::Exclude, &rule.text),
            }
        }
        if self.rules.policy == ConfigPolicy::Target && self.is_setting(path, on_target) && !is_servers_own(path) {
            return covered(KeptReason::ConfigPolicy, "target");
        }
        let log = self.logs.iter().find(|log| *log == path || path.below(log.as_bytes()).is_some());
        Ok(log.map(|log| Covered { reason: KeptReason::LogDirectory, rule: String::from(log.clone()) }))
    }

    fn is_setting(&self, path: &ClusterPath, on_target: bool) -> bool {
        SETTINGS_FILES.contains(&path.as_bytes())
            || self.settings.contains(path)
            || (on_target && path.as_bytes() == STANDBY_SIGNAL)
    }

    /// Notes that a rule has left a path alone.
    pub(super) fn note(&mut self, covered: &Covered) {
        let kind = match covered.reason {
            KeptReason::Keep => PathRuleKind::Keep,
            KeptReason::Exclude => PathRuleKind::Exclude,
            KeptReason::ConfigPolicy => PathRuleKind::ConfigPolicy,
            _ => PathRuleKind::LogDirectory,
        };
        *self.touched.entry((kind, covered.rule.clone())).or_default() += 1;
    }

    /// Where the link of a new tablespace leads on the target; none where a mapping says nothing else.
    pub(super) fn location(&mut self, on_source: &LinkText) -> Option<LinkText> {
        let mapping = self.rules.mapped(on_source.as_bytes())?;
        *self.touched.entry((PathRuleKind::TablespaceMapping, mapping.text.clone())).or_default() += 1;
        Some(LinkText::new(&mapping.new))
    }

    /// All rules, and what they have touched.
    pub(super) fn finish(self) -> Vec<PathRule> {
        self.touched.into_iter().map(|((kind, rule), paths)| PathRule { kind, paths, rule }).collect()
    }
}

fn option(kind: PathRuleKind) -> &'static str {
    if kind == PathRuleKind::Keep { "--keep" } else { "--exclude" }
}

/// The directories of a cluster's log files that lie inside the data directory and are nothing else of the server's:
/// `log_directory`, which is `log` unless set. Where the settings are not all known, `pg_log`, too, the default of old.
fn log_directories(settings: &Settings, data_directory: Option<&[u8]>) -> Vec<ClusterPath> {
    let set: Vec<&[u8]> = match settings.get("log_directory") {
        Some(set) => vec![set.as_bytes()],
        None if settings.are_complete() => vec![b"log"],
        None => vec![b"log", b"pg_log"],
    };
    set.into_iter().filter_map(|set| log_directory(set, data_directory)).collect()
}

fn log_directory(set: &[u8], data_directory: Option<&[u8]>) -> Option<ClusterPath> {
    let inside = match (set.starts_with(b"/"), data_directory) {
        (false, _) => set,
        (true, Some(directory)) => set.strip_prefix(without_slashes(directory))?.strip_prefix(b"/")?,
        (true, None) => return None,
    };
    let inside = inside.strip_prefix(b"./").unwrap_or(inside);
    let path = ClusterPath::new(without_slashes(inside)).ok()?;
    (!is_servers_own(&path)).then_some(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn path(text: &str) -> ClusterPath {
        ClusterPath::new(text.as_bytes()).unwrap()
    }

    fn rules(keep: &[&str], exclude: &[&str], policy: ConfigPolicy) -> PathRules {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        PathRules::new(&owned(keep), &owned(exclude), policy, &[]).unwrap()
    }

    /// The reason for which a path is left alone, or what is wrong.
    fn reason(rules: &PathRules, text: &str, on_target: bool) -> String {
        let settings = Settings::default();
        let work = RulesAtWork::new(rules, &[(&settings, None)]);
        match work.covering(&path(text), on_target) {
            Ok(covered) => covered.map_or_else(|| "-".to_owned(), |c| format!("{:?} {}", c.reason, c.rule)),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn globs_begin_at_the_data_directory_and_cover_what_is_below() {
        let cases = [
            ("server.key", "server.key", true),
            ("server.key", "certs/server.key", false),
            ("*.key", "server.key", true),
            ("*.key", "certs/server.key", false),
            ("**/*.key", "certs/deep/server.key", true),
            ("**/*.key", "server.key", true),
            ("certs", "certs", true),
            ("certs/", "certs/deep/server.key", true),
            ("certs", "certs2", false),
            ("certs/*", "certs/deep/server.key", true),
            ("{a,b}.conf", "b.conf", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[ab].txt", "a.txt", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
        ];
        for (glob, text, covered) in cases {
            let expected = if covered { format!("Keep {glob}") } else { "-".to_owned() };
            assert_eq!(reason(&rules(&[glob], &[], ConfigPolicy::Source), text, true), expected, "{glob} {text}");
        }
    }

    #[test]
    fn what_only_the_source_has() {
        let both = rules(&["a"], &["b"], ConfigPolicy::Source);
        let cases = [("a", true, "Keep a"), ("a", false, "-"), ("b", true, "Exclude b"), ("b", false, "Exclude b")];
        for (text, on_target, expected) in cases {
            assert_eq!(reason(&both, text, on_target), expected, "{text} {on_target}");
        }
        // The first rule that leaves it alone, keep before exclude.
        let twice = rules(&["a"], &["*"], ConfigPolicy::Source);
        assert_eq!(
            (reason(&twice, "a", true), reason(&twice, "a", false)),
            ("Keep a".to_owned(), "Exclude *".to_owned())
        );
    }

    #[test]
    fn settings_stay_where_they_shall() {
        let own = rules(&[], &[], ConfigPolicy::Target);
        let source = rules(&[], &[], ConfigPolicy::Source);
        for name in ["postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf"] {
            assert_eq!(reason(&own, name, true), "ConfigPolicy target");
            assert_eq!(reason(&own, name, false), "ConfigPolicy target");
            assert_eq!(reason(&source, name, true), "-");
        }
        assert_eq!(reason(&own, "standby.signal", true), "ConfigPolicy target");
        assert_eq!(reason(&own, "standby.signal", false), "-");
        assert_eq!(reason(&own, "recovery.signal", true), "-");
        assert_eq!(reason(&own, "base/5/postgresql.conf", true), "-");
        let mut settings = Settings::default();
        settings.files.push(path("conf.d/a.conf"));
        settings.files.push(path("pg_xact/0000"));
        let work = RulesAtWork::new(&own, &[(&settings, None)]);
        assert!(work.covering(&path("pg_xact/0000"), true).unwrap().is_none());
        assert!(work.covering(&path("conf.d/a.conf"), true).unwrap().is_some());
        assert!(work.covering(&path("conf.d/b.conf"), true).unwrap().is_none());
    }

    #[test]
    fn what_recovery_needs_cannot_be_left_out() {
        let needed = [
            "base",
            "base/5/16384",
            "base/5/16384_vm",
            "global/pg_control",
            "pg_wal/000000010000000000000001",
            "pg_xact/0000",
            "pg_tblspc/16400/PG_15_202209061/5/16384",
            "pg_replslot/s/state",
            "PG_VERSION",
            "base/5/PG_VERSION",
            "backup_label",
            "tablespace_map",
            "recovery.signal",
            "postmaster.pid",
            ".pg_unfork/journal",
        ];
        for name in needed {
            for all in [rules(&["**"], &[], ConfigPolicy::Source), rules(&[], &["**"], ConfigPolicy::Source)] {
                let found = reason(&all, name, true);
                assert!(found.contains(&format!("\"**\" covers {name}, which the server needs")), "{found}");
            }
        }
        let fine = ["pg_stat/pgstat.stat", "pg_hba.conf", "pg_log2/x", "standby.signal", "base.txt", "postmaster.opts"];
        for name in fine {
            assert_eq!(reason(&rules(&[], &[name], ConfigPolicy::Source), name, true), format!("Exclude {name}"));
        }
    }

    #[test]
    fn logs_are_left_alone_where_they_are() {
        let set = |text: &str, directory: Option<&str>| {
            let settings = Settings::of(&format!("log_directory = '{text}'"));
            log_directories(&settings, directory.map(str::as_bytes)).into_iter().next().map(String::from)
        };
        let cases = [
            ("log", None, Some("log")),
            ("pg_log/", None, Some("pg_log")),
            ("./a/b", None, Some("a/b")),
            ("/var/log", Some("/data"), None),
            ("/data/log", Some("/data"), Some("log")),
            ("/data/log", Some("/data/"), Some("log")),
            ("/data2/log", Some("/data"), None),
            ("/data/log", None, None),
            ("../log", None, None),
            (".", None, None),
            ("", None, None),
            ("base", None, None),
            ("pg_wal/log", None, None),
        ];
        for (text, directory, expected) in cases {
            assert_eq!(set(text, directory).as_deref(), expected, "{text}");
        }
        let unknown: Vec<String> = log_directories(&Settings::default(), None).into_iter().map(String::from).collect();
        assert_eq!(unknown, ["log", "pg_log"]);
        let source = rules(&[], &[], ConfigPolicy::Source);
        assert_eq!(reason(&source, "log/postgresql.log", true), "LogDirectory log");
        assert_eq!(reason(&source, "log", false), "LogDirectory log");
        assert_eq!(reason(&source, "logs", false), "-");
    }

    #[test]
    fn rules_that_cannot_be_understood() {
        for bad in ["", "/", "/etc", "a//b", "../x", "a/./b", "[a", "{a"] {
            for outcome in [
                PathRules::new(&[bad.to_owned()], &[], ConfigPolicy::Source, &[]),
                PathRules::new(&[], &[bad.to_owned()], ConfigPolicy::Source, &[]),
            ] {
                assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Usage, "{bad:?}");
            }
        }
        for bad in ["", "/a", "/a=b", "a=/b", "/a=/b=/c", "=/b", "/a="] {
            let outcome = PathRules::new(&[], &[], ConfigPolicy::Source, &[bad.to_owned()]);
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Usage, "{bad:?}");
        }
    }

    #[test]
    fn tablespaces_go_where_the_mapping_says() {
        let mappings = ["/a\\=b/=/new/".to_owned(), "/c=/d".to_owned()];
        let rules = PathRules::new(&[], &[], ConfigPolicy::Source, &mappings).unwrap();
        let mut work = RulesAtWork::new(&rules, &[]);
        let mut location =
            |text: &str| work.location(&LinkText::new(text.as_bytes())).map(|link| link.as_bytes().to_vec());
        assert_eq!(location("/a=b").as_deref(), Some(b"/new".as_slice()));
        assert_eq!(location("/a=b/").as_deref(), Some(b"/new".as_slice()));
        assert_eq!(location("/c/x"), None);
        let found: Vec<_> = work.finish().into_iter().map(|rule| (rule.kind, rule.rule, rule.paths)).collect();
        let kind = PathRuleKind::TablespaceMapping;
        assert_eq!(found, [(kind, "/a\\=b/=/new/".to_owned(), 2), (kind, "/c=/d".to_owned(), 0)]);
    }
}
