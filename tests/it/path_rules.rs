//! Rules about paths: what stays the target's own, what is not fetched, where tablespaces go, and what no rule may touch.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::cluster::{Cluster, Stop};
use crate::support::life::assert_sound_at_rest;
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::{Plan, pg_unfork};
use crate::support::tree::{self, Tree};

fn write(cluster: &Cluster, files: &[(&str, &str)]) {
    for (name, content) in files {
        let path = cluster.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

fn content(cluster: &Cluster, name: &str) -> String {
    fs::read_to_string(cluster.path(name)).unwrap_or_else(|error| error.kind().to_string())
}

/// Paths that are kept because of a rule, with its kind and text.
fn kept_by_rules(plan: &Value) -> BTreeMap<String, String> {
    let text = |kept: &Value, field: &str| kept[field].as_str().unwrap_or("-").to_owned();
    let kept = plan["kept"].as_array().unwrap().iter().filter(|kept| kept["rule"].is_string());
    kept.map(|kept| (text(kept, "path"), format!("{} {}", text(kept, "reason"), text(kept, "rule")))).collect()
}

/// Every rule as the plan lists it, with how many paths it touched.
fn rules(plan: &Value) -> Vec<String> {
    let rules = plan["rules"].as_array().unwrap().iter();
    rules
        .map(|rule| format!("{} {} {}", rule["kind"].as_str().unwrap(), rule["rule"].as_str().unwrap(), rule["paths"]))
        .collect()
}

const ON_BOTH: [&str; 4] = ["certs/server.key", "postgresql.own.conf", "log/same.log", "elsewhere/file"];

/// A pair in which both sides have files of their own, and different ones of the same names; the target has dropped a
/// tablespace that the source still has. Gives where it is on the source.
fn pair_with_files(major: Major) -> (Pair, String) {
    let mut location = String::new();
    let pair = Pair::simple(major, |builder| {
        builder
            .before_backup(|primary| {
                let place = primary.location("moved");
                primary.sql("postgres", &format!("CREATE TABLESPACE moved LOCATION '{}'", place.display()));
                primary
                    .sql("postgres", "CREATE TABLE in_moved TABLESPACE moved AS SELECT generate_series(1, 1000) AS g");
            })
            .on_target_after_fork(|target| {
                target.sql("postgres", "DROP TABLE in_moved");
                target.sql("postgres", "DROP TABLESPACE moved");
            })
            .on_source_after_fork(|source| {
                location = source
                    .sql("postgres", "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'moved'");
            })
    });
    pair.target.append_config("include 'postgresql.own.conf'\n");
    for (cluster, own) in [(&pair.target, "target"), (&pair.source, "source")] {
        let text = format!("# of the {own}\n");
        write(cluster, &ON_BOTH.map(|name| (name, text.as_str())));
        write(cluster, &[("certs/of", own), (&format!("certs/{own}.crt"), own), (&format!("scratch/{own}"), own)]);
        write(cluster, &[(&format!("log/{own}.log"), own), (&format!("deep/{own}/er/own.key"), own)]);
    }
    (pair, location)
}

/// Each rule does what it says, the plan says what each touched, and the outcome lives.
#[test]
fn each_rule_does_what_it_says() {
    let (pair, location) = pair_with_files(Major(16));
    let Pair { source, target } = &pair;
    let new = target.location("elsewhere");
    fs::remove_dir(target.location("moved")).ok();
    let mapping = format!("{location}={}", new.display());
    let options =
        ["--keep", "certs/", "--keep", "**/*.key", "--exclude", "scratch", "--config-policy", "target", "-T", &mapping];
    let before = Tree::of(target);
    let plan = Plan::of(target, Source::Server(source, "postgres"), &[&options[..], &["-R"]].concat());
    let json = plan.json();
    let kept = kept_by_rules(&json);
    let expected = [
        ("certs/of", "keep certs/"),
        ("certs/server.key", "keep certs/"),
        ("certs/target.crt", "keep certs/"),
        ("deep/target", "keep **/*.key"),
        ("deep/target/er", "keep **/*.key"),
        ("deep/target/er/own.key", "keep **/*.key"),
        ("log/same.log", "log_directory log"),
        ("log/source.log", "log_directory log"),
        ("log/target.log", "log_directory log"),
        ("postgresql.auto.conf", "config_policy target"),
        ("postgresql.conf", "config_policy target"),
        ("postgresql.own.conf", "config_policy target"),
        ("scratch/source", "exclude scratch"),
        ("scratch/target", "exclude scratch"),
    ];
    for (path, rule) in expected {
        let found = kept.get(path).map(String::as_str);
        // Equal on both sides, it is not touched at all.
        let may_be_equal = rule.starts_with("config_policy") && path != "postgresql.own.conf";
        assert!(found == Some(rule) || (may_be_equal && found.is_none()), "{path}: {found:?}");
    }
    assert!(
        kept.keys().all(|path| expected.iter().any(|(known, _)| known == path) || path.ends_with(".conf")),
        "{kept:#?}"
    );
    let listed = rules(&json);
    for rule in [
        "exclude scratch 2",
        "keep certs/ 3",
        "keep **/*.key 3",
        "log_directory log 3",
        &format!("tablespace_mapping {mapping} 1"),
    ] {
        assert!(listed.iter().any(|listed| listed == rule), "{rule}: {listed:#?}");
    }
    let _ = plan.apply(&[]).success();
    assert_eq!(
        ON_BOTH.map(|name| content(target, name)),
        ["target", "target", "target", "source"].map(|own| format!("# of the {own}\n"))
    );
    let found = [
        "certs/of",
        "certs/source.crt",
        "certs/target.crt",
        "scratch/target",
        "log/target.log",
        "deep/target/er/own.key",
        "deep/source/er/own.key",
    ];
    assert_eq!(
        found.map(|name| content(target, name)),
        ["target", "source", "target", "target", "target", "target", "source"]
    );
    for gone in ["scratch/source", "log/source.log"] {
        assert!(!target.path(gone).exists(), "{gone}");
    }
    let link = json["actions"].as_array().unwrap().iter().find(|action| action["kind"] == "create_symlink").unwrap();
    assert_eq!(fs::read_link(target.path(link["path"].as_str().unwrap())).unwrap(), new);
    let _ = Outcome::of(pg_unfork(&["undo", "--no-sync", "-D"]).arg(target.data())).success();
    let differences = tree::diff(&before, &Tree::of(target), &|path: &Path| tree::is_own_state(path));
    assert_eq!(differences, [""; 0]);
    let _ = plan.apply(&[]).success();
    // The dumps name the tablespace's locations, which differ.
    target.start();
    source.wait_for_streaming();
    source.sql("postgres", "INSERT INTO in_moved VALUES (-1)");
    target.wait_for_catchup(source);
    target.assert_amcheck();
    assert_eq!(target.sql("postgres", "SELECT count(*), min(g) FROM in_moved"), "1001\t-1");
    assert_sound_at_rest(target);
}

/// Without rules the outcome is that of pg_rewind, but for log files; and what rules may not touch.
#[test]
fn what_no_rule_may_touch() {
    let (pair, location) = pair_with_files(Major(18));
    pair.source
        .sql("postgres", &format!("CREATE TABLESPACE late LOCATION '{}'", pair.source.location("late").display()));
    pair.source.stop(Stop::Fast);
    let Pair { source, target } = &pair;
    let from = Source::Directory(source);
    let refused = |options: &[&str], code: i32, words: &[&str]| {
        let (_, outcome) = Plan::make(target, from, options);
        assert_eq!(outcome.status.code(), Some(code), "{outcome}");
        words.iter().for_each(|word| assert!(outcome.stderr.contains(word), "{word}\n{outcome}"));
    };
    refused(&["--exclude", "base"], 64, &["--exclude \"base\" covers base", "which the server needs"]);
    refused(&["--keep", "**"], 64, &["--keep \"**\" covers PG_VERSION"]);
    refused(&["--keep", "**/*[0-9]"], 64, &["--keep \"**/*[0-9]\" covers base/"]);
    refused(&["--exclude", "/etc"], 64, &["relative to the data directory"]);
    refused(&["-T", "old=new"], 64, &["not two absolute paths"]);
    let moved = [
        format!("{location}={}", target.location("a").display()),
        format!("{}={}", source.location("late").display(), target.location("b").display()),
    ];
    // Replay would make the link of the second one anew.
    refused(&["-T", &moved[0], "-T", &moved[1]], 4, &["tablespace_mapping", "source's locations again"]);
    let (plan, _) = Plan::make(target, from, &["-T", &moved[0], "-T", &moved[1]]);
    let json = plan.json();
    assert_eq!((&json["verdict"], &json["applyable"]), (&Value::from("impossible"), &Value::from(false)));
    let outcome = plan.apply(&[]);
    assert_eq!(outcome.status.code(), Some(4), "{outcome}");
    // On one machine the locations of new tablespaces are the source's own.
    let plain = Plan::make(target, from, &[]).0.json();
    assert_eq!(rules(&plain), ["log_directory log 3"]);
    assert_eq!(kept_by_rules(&plain).len(), 3);
}
