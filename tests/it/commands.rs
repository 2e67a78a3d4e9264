//! What a user of the commands sees: outcomes, exit codes, refusals.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::cluster::{Cluster, Stop};
use crate::support::for_each_major;
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::replication::RecoveryConfig;
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::{self, Plan, pg_unfork};
use crate::support::tree::{self, Tree};
use crate::support::workload::REWIND_USER;

for_each_major!(plans_are_deterministic);

/// The exit code, with everything shown where it is another.
#[track_caller]
fn assert_code(outcome: &Outcome, code: i32) {
    assert_eq!(outcome.status.code(), Some(code), "{outcome}");
}

/// Two plans of one pair are equal but for `created`; planning writes nothing.
fn plans_are_deterministic(major: Major) {
    let Pair { source, target } = Pair::shared(major).copy();
    let before = (Tree::of(&source), Tree::of(&target));
    let without_time = |plan: &Plan| {
        let text = String::from_utf8(plan.document()).unwrap();
        text.lines().filter(|line| !line.starts_with("\"created\":")).map(str::to_owned).collect::<Vec<_>>()
    };
    let plans = [(); 2].map(|()| Plan::of(&target, Source::Directory(&source), &[]));
    assert_same_lines(&without_time(&plans[0]), &without_time(&plans[1]));
    let unchanged = |before: &Tree, cluster: &Cluster| tree::diff(before, &Tree::of(cluster), &|_| false);
    assert_eq!(unchanged(&before.0, &source), [""; 0]);
    assert_eq!(unchanged(&before.1, &target), [""; 0]);
    source.start();
    source.checkpoint();
    // Even reading makes a live source write WAL now and then: the first after a checkpoint.
    let position = || {
        source.wait_for("postgres", "pg_current_wal_flush_lsn() = pg_current_wal_insert_lsn()");
        source.sql("postgres", "SELECT pg_current_wal_insert_lsn()")
    };
    let plans = loop {
        let at_first = position();
        let plans = [(); 2].map(|()| Plan::of(&target, Source::Server(&source, REWIND_USER), &[]));
        if position() == at_first {
            break plans;
        }
    };
    assert_same_lines(&without_time(&plans[0]), &without_time(&plans[1]));
    assert_eq!(unchanged(&before.1, &target), [""; 0]);
}

#[track_caller]
fn assert_same_lines(left: &[String], right: &[String]) {
    let differences: Vec<_> = left.iter().zip(right).filter(|(left, right)| left != right).collect();
    assert!(differences.is_empty() && left.len() == right.len(), "{differences:#?}");
}

/// The digest is what `jq` and `sha256sum` compute.
#[test]
fn the_digest_can_be_computed_by_others() {
    let Pair { source, target } = Pair::shared(Major(17)).copy();
    let odd = "odd % \"name\" \u{e4}\u{7f}\u{1}\\";
    fs::write(source.path(odd), "x").unwrap();
    let plan = Plan::of(&target, Source::Directory(&source), &[]);
    let script = "jq -cjS 'del(.digest,.created)' \"$1\" | sha256sum";
    let sum = Outcome::of(Command::new("sh").args(["-c", script, "sh"]).arg(plan.path())).success();
    let expected = format!("sha256:{}", sum.stdout.split(' ').next().unwrap());
    assert_eq!(plan.json()["digest"], Value::from(expected));
    let _ = plan.apply(&[]).success();
    assert_eq!(fs::read_to_string(target.path(odd)).unwrap(), "x");
}

/// A plan for which there is no room is refused before the first write.
#[test]
fn without_room_nothing_is_begun() {
    let Pair { source, target } = Pair::shared(Major(19)).copy();
    source.start();
    let plan = Plan::of(&target, Source::Server(&source, REWIND_USER), &[]);
    let mut edited = plan.json();
    let largest = edited["actions"].as_array_mut().unwrap().iter_mut().find(|action| action["kind"] == "copy_file");
    let largest = largest.unwrap();
    for side in ["after", "source"] {
        largest[side]["size"] = Value::from(1_u64 << 50);
    }
    plan.rewrite(edited);
    let before = Tree::of(&target);
    let outcome = plan.apply(&[]);
    assert_code(&outcome, 4);
    assert!(
        outcome.stderr.contains("no room") && outcome.stderr.contains("bytes free, the plan needs 11259"),
        "{outcome}"
    );
    assert_eq!(tree::diff(&before, &Tree::of(&target), &|_| false), [""; 0]);
}

/// Applying again says so and changes nothing.
#[test]
fn applying_twice_is_fine() {
    let Pair { source, target } = Pair::shared(Major(18)).copy();
    let plan = Plan::of(&target, Source::Directory(&source), &[]);
    let first = plan.apply(&[]).success();
    assert!(first.stderr.contains("SECOND PRIMARY"), "{first}");
    assert_eq!(first.stdout, "");
    let after = Tree::of(&target);
    // The source is not needed for that.
    let (there, away) = (source.data(), source.base().join("away"));
    fs::rename(&there, &away).unwrap();
    let second = plan.apply(&[]).success();
    fs::rename(&away, &there).unwrap();
    assert!(second.stderr.contains("has been applied"), "{second}");
    assert_eq!(tree::diff(&after, &Tree::of(&target), &|_| false), [""; 0]);
    source.start();
    target.follow(&source);
    target.start();
    source.wait_for_streaming();
    let running = plan.apply(&[]);
    assert_code(&running, 4);
    assert!(running.stderr.contains("a server is running on the target"), "{running}");
    target.stop(Stop::Fast);
    source.stop(Stop::Fast);
    assert_code(&plan.apply(&[]), 3);
}

/// `show` says at night what one must know, and gives the document to machines.
#[test]
fn show_tells_what_happened_and_what_to_run() {
    let Pair { source, target } = Pair::shared(Major(15)).copy();
    let plan = Plan::of(&target, Source::Directory(&source), &[]);
    let shown = Outcome::of(pg_unfork(&["show"]).arg(plan.path())).success();
    let json = plan.json();
    let says = [
        "REWIND:".to_owned(),
        target.data().display().to_string(),
        source.data().display().to_string(),
        json["divergence"]["lsn"].as_str().unwrap().to_owned(),
        json["checkpoint"]["lsn"].as_str().unwrap().to_owned(),
        "on timeline 1; since then the target is on timeline 1, the source on 2".to_owned(),
        "transactions committed".to_owned(),
        format!("pg_unfork apply {}", plan.path().display()),
    ];
    for text in says {
        assert!(shown.stdout.contains(&text), "{text:?} is not in\n{}", shown.stdout);
    }
    assert_eq!(shown.stderr, "");
    let document = Outcome::of(pg_unfork(&["show", "--format", "json"]).arg(plan.path())).success();
    assert_eq!(document.stdout.as_bytes(), plan.document());
    let mut piped = pg_unfork(&["show", "--format", "json", "-"]);
    let from_stdin = Outcome::of(piped.stdin(fs::File::open(plan.path()).unwrap())).success();
    assert_eq!(from_stdin.stdout, document.stdout);
}

/// The transactions that the plan counts are those that pg_waldump shows.
#[test]
fn discarded_transactions_are_pg_waldumps() {
    let Pair { source, target } = Pair::shared(Major(18)).copy();
    let plan = Plan::of(&target, Source::Directory(&source), &[]).json();
    let discarded = &plan["discarded"];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut dump = target.installation().command("pg_waldump");
    dump.args(["-r", "Transaction", "-t", "1", "-s", &text(&discarded["from"]), "-e", &text(&discarded["through"])]);
    let from: pg_unfork::types::Lsn = text(&discarded["from"]).parse().unwrap();
    let through: pg_unfork::types::Lsn = text(&discarded["through"]).parse().unwrap();
    for lsn in [from.get(), through.get() - 1] {
        dump.arg(target.path("pg_wal").join(format!("0000000100000000{:08X}", lsn >> 20)));
    }
    let dump = Outcome::of(&mut dump);
    let count = |word: &str| dump.stdout.lines().filter(|line| line.contains(word)).count() as u64;
    let committed = count("desc: COMMIT ") + count("desc: COMMIT_PREPARED ");
    let aborted = count("desc: ABORT ") + count("desc: ABORT_PREPARED ");
    assert!(committed > 10, "{dump}");
    assert_eq!(discarded["transactions"]["committed"], Value::from(committed));
    assert_eq!(discarded["transactions"]["aborted"], Value::from(aborted));
}

/// No promotion, no rewind: with `-R` an apply writes the recovery configuration and nothing else.
#[test]
fn same_history_needs_no_rewind() {
    for stop_source in [true, false] {
        let pair = Pair::shared(Major(14));
        let (primary, standby) = (pair.copy_source(), pair.copy_source());
        if !stop_source {
            primary.start();
        }
        let before = Tree::of(&standby);
        let source = if stop_source { Source::Directory(&primary) } else { Source::Server(&primary, REWIND_USER) };
        let arguments: &[&str] = if stop_source { &[] } else { &["-R"] };
        let plan = Plan::of(&standby, source, arguments);
        assert_eq!(plan.json()["verdict"], "not_needed");
        let applied = plan.apply(&[]).success();
        assert!(applied.stderr.contains("no rewind needed"), "{applied}");
        let changed = tree::diff(&before, &Tree::of(&standby), &|path| path.starts_with(".pg_unfork"));
        let changed: Vec<&str> = changed.iter().map(|line| line.split(':').next().unwrap()).collect();
        let settings = fs::read_to_string(standby.path("postgresql.auto.conf")).unwrap();
        let _ = Plan::of(&standby, source, arguments).apply(&[]).success();
        assert_eq!(fs::read_to_string(standby.path("postgresql.auto.conf")).unwrap(), settings);
        let expected: &[&str] = if stop_source { &[] } else { &["\"postgresql.auto.conf\"", "\"standby.signal\""] };
        assert_eq!(changed, expected);
    }
}

/// A target that has nothing of its own after the fork follows as it is.
#[test]
fn an_ancestor_needs_no_rewind() {
    let pair = Pair::simple(Major(16), |builder| builder);
    let source = pair.copy_target();
    source.start();
    let standby = source.basebackup_standby(RecoveryConfig::Basebackup);
    standby.start();
    standby.wait_for_catchup(&source);
    source.stop(Stop::Fast);
    standby.promote();
    standby.sql("postgres", "INSERT INTO rows (origin) VALUES ('later')");
    let plan = Plan::of(&source, Source::Server(&standby, "postgres"), &["-R"]);
    assert_eq!(plan.json()["verdict"], "not_needed", "{:?}", plan.json()["checks"]);
    let status = |plan: &Plan, id: &str| {
        let checks = plan.json()["checks"].as_array().unwrap().clone();
        checks.iter().find(|check| check["id"] == id).map(|check| check["status"].as_str().unwrap().to_owned())
    };
    let found = ["starts_as_standby", "writable"].map(|id| status(&plan, id));
    assert_eq!(found, ["pass", "pass"].map(|word| Some(word.to_owned())));
    let (without, _) = Plan::make(&source, Source::Server(&standby, "postgres"), &[]);
    assert_eq!((status(&without, "starts_as_standby").as_deref(), status(&without, "writable")), (Some("warn"), None));
    let _ = plan.apply(&[]).success();
    source.start();
    standby.wait_for_streaming();
    source.wait_for_catchup(&standby);
}

/// No secret reaches the plan or the messages; the plan's address is enough to apply with, given
/// the password again by the environment.
#[test]
fn passwords_stay_where_they_are() {
    let Pair { source, target } = Pair::shared(Major(15)).copy();
    source.start();
    source.sql("postgres", "ALTER ROLE rewind_user PASSWORD 'hunter2-secret'");
    let conninfo = format!("{} password=hunter2-secret", source.conninfo("postgres", REWIND_USER));
    let directory = crate::support::scratch::directory("secret");
    let file = directory.path().join("plan.json");
    let mut command = pg_unfork(&["plan", "-R", "-D"]);
    let outcome =
        Outcome::of(command.arg(target.data()).arg("--source-server").arg(conninfo).arg("-o").arg(&file)).success();
    let document = fs::read_to_string(&file).unwrap();
    for text in [&document, &outcome.stderr, &outcome.stdout] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    let _ = tool::apply(&file, &[]).success();
    let settings = fs::read_to_string(target.path("postgresql.auto.conf")).unwrap();
    assert!(settings.contains("primary_conninfo = ") && !settings.contains("hunter2"), "{settings}");
}

/// `--with-password` writes the password that the apply is given, and nothing else does; the standby streams with it.
#[test]
fn a_password_for_the_standby() {
    let Pair { source, target } = Pair::shared(Major(17)).copy();
    let password = r"it's \ hunter2";
    let rules = fs::read_to_string(source.path("pg_hba.conf")).unwrap();
    fs::write(source.path("pg_hba.conf"), format!("local all,replication rewind_user scram-sha-256\n{rules}")).unwrap();
    source.start();
    source.sql("postgres", &format!("ALTER ROLE rewind_user REPLICATION PASSWORD '{}'", password.replace('\'', "''")));
    let server = Source::Server(&source, "postgres");
    let (_, refused) = Plan::make(&target, server, &["-R", "--with-password"]);
    assert!(refused.status.code() == Some(4) && refused.stderr.contains("PGPASSWORD"), "{refused}");

    let directory = crate::support::scratch::directory("secret");
    let file = directory.path().join("plan.json");
    let mut command = pg_unfork(&["plan", "-R", "--with-password", "-D"]);
    command
        .arg(target.data())
        .arg("--source-server")
        .arg(source.conninfo("postgres", REWIND_USER))
        .arg("-o")
        .arg(&file);
    let planned = Outcome::of(command.env("PGPASSWORD", password)).success();
    let document = fs::read_to_string(&file).unwrap();
    assert!(document.contains("\"with_password\":true"));
    let shown = Outcome::of(pg_unfork(&["show"]).arg(&file)).success();
    assert!(shown.stdout.contains("and the password, in plain text"), "{shown}");

    let before = Tree::of(&target);
    let open = source.conninfo("postgres", "postgres");
    let refused = Outcome::of(pg_unfork(&["apply", "-N", "--source-server", &open]).arg(&file));
    assert!(refused.status.code() == Some(4) && refused.stderr.contains("none is given"), "{refused}");
    assert!(tree::diff(&before, &Tree::of(&target), &|_| false).is_empty());
    let applied = Outcome::of(pg_unfork(&["apply", "-N"]).arg(&file).env("PGPASSWORD", password)).success();
    let verified = Outcome::of(pg_unfork(&["verify"]).arg(&file)).success();
    for text in [&document, &planned.stderr, &shown.stdout, &applied.stderr, &verified.stderr] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    let settings = fs::read_to_string(target.path("postgresql.auto.conf")).unwrap();
    assert!(settings.ends_with("password=''it\\\\''s \\\\\\\\ hunter2'''\n"), "{settings}");
    for entry in fs::read_dir(target.path(".pg_unfork")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = if path.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        assert!(!bytes.windows(7).any(|word| word == b"hunter2"), "{}", path.display());
    }
    target.start();
    source.wait_for_streaming();
}

/// Each way of making changes durable ends well.
#[test]
fn durability_by_each_method() {
    for arguments in [&[] as &[&str], &["--sync-method", "fsync"], &["--sync-method", "syncfs"], &["-N"]] {
        let Pair { source, target } = Pair::shared(Major(14)).copy();
        let plan = Plan::of(&target, Source::Directory(&source), &[]);
        let applied = Outcome::of(pg_unfork(&["apply"]).arg(plan.path()).args(arguments)).success();
        assert!(applied.stderr.contains("is rewound"), "{applied}");
        source.start();
        target.follow(&source);
        target.start();
        source.wait_for_streaming();
    }
}

/// Wrong command lines exit with 64, and help with 0 on standard output.
#[test]
fn usage() {
    let code = |arguments: &[&str]| Outcome::of(&mut pg_unfork(arguments)).status.code();
    for wrong in [
        &["plan"] as &[&str],
        &["plan", "-D", "x"],
        &["plan", "-D", "x", "--source-pgdata", "y", "--source-server", "host=z"],
        &["plan", "-D", "x", "--source-pgdata", "y", "-R"],
        &["plan", "-D", "x", "--source-pgdata", "y", "--config-file", "z"],
        &["plan", "-D", "x", "--source-pgdata", "y", "--restore-command", "z", "--pg-bindir", "z"],
        &["plan", "-D", "x", "--source-pgdata", "y", "--no-sync"],
        &["apply"],
        &["apply", "f", "--allow-unreleased"],
        &["apply", "f", "-N", "--sync-method", "fsync"],
        &["apply", "f", "--jobs", "0"],
        &["apply", "f", "--jobs", "17"],
        &["apply", "f", "--max-rate", "31k"],
        &["apply", "f", "--max-rate", "fast"],
        &["apply", "f", "--source-pgdata", "y", "--max-rate", "1M"],
        &["show", "f", "--format", "yaml"],
        &["frobnicate"],
        &[],
    ] {
        assert_eq!(code(wrong), Some(64), "{wrong:?}");
    }
    let help = Outcome::of(&mut pg_unfork(&["--help"])).success();
    assert!(help.stdout.contains("plan") && help.stderr.is_empty(), "{help}");
    let connection = ["plan", "-D", "/", "--source-server", "host=x service=y"];
    assert_eq!(code(&connection), Some(4));
}

/// The plan goes to standard output where no file is named, and never below target or source.
#[test]
fn where_the_plan_goes() {
    let Pair { source, target } = Pair::shared(Major(16)).copy();
    let mut command = pg_unfork(&["plan", "-D"]);
    let piped = Outcome::of(command.arg(target.data()).arg("--source-pgdata").arg(source.data())).success();
    let manifest: Value = serde_json::from_str(&piped.stdout).unwrap();
    assert_eq!(manifest["verdict"], "rewind");
    let file = target.base().join("plan.json");
    fs::write(&file, &piped.stdout).unwrap();
    let limited = Outcome::of(pg_unfork(&["apply", "--max-rate", "1M"]).arg(&file));
    assert_code(&limited, 64);
    assert!(limited.stderr.contains("--max-rate is for a source server"), "{limited}");
    for inside in [target.path("plan.json"), source.path("base/plan.json")] {
        let mut command = pg_unfork(&["plan", "-D"]);
        command.arg(target.data()).arg("--source-pgdata").arg(source.data()).arg("-o").arg(&inside);
        assert_code(&Outcome::of(&mut command), 4);
        assert!(!inside.exists());
    }
    let mut same = pg_unfork(&["plan", "-D"]);
    let same = Outcome::of(same.arg(target.data()).arg("--source-pgdata").arg(target.data()));
    assert_code(&same, 4);
    assert!(same.stderr.contains("separate_directories"), "{same}");
}
