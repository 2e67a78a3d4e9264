//! What programs read: events on standard error, and the names of failures.

use std::fs;
use std::path::Path;

use pg_unfork::error::{ErrorId, ErrorKind};
use serde_json::{Value, json};

use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::scratch;
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::{Plan, pg_unfork};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The public table has every failure with its exit code, and the program has a place for each.
#[test]
fn every_error_id_is_documented_and_used() {
    let text = fs::read_to_string(root().join("schema/README.md")).unwrap();
    let rows: Vec<Vec<&str>> = text
        .split("## Error ids")
        .nth(1)
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let documented: Vec<(String, String)> =
        rows.iter().map(|row| (row[1].trim_matches('`').to_owned(), row[2].to_owned())).collect();
    let exit_code = |kind| match kind {
        ErrorKind::Failure | ErrorKind::Interrupted => "1",
        ErrorKind::Stale => "3",
        ErrorKind::Precondition => "4",
        ErrorKind::Incomplete => "5",
        ErrorKind::DeadEnd => "6",
        ErrorKind::Usage => "64",
    };
    let known = ErrorId::ALL.map(|id| (id.name().to_owned(), exit_code(id.kind()).to_owned()));
    assert_eq!(documented, known);
    let mut code = String::new();
    read_code(&root().join("src"), &mut code);
    for id in ErrorId::ALL.iter().filter(|id| ErrorId::of_kind(id.kind()) != **id) {
        assert!(code.contains(&format!("ErrorId::{id:?}")), "nothing fails with {id:?}");
    }
}

/// The public table has every stage with its unit.
#[test]
fn every_stage_is_documented() {
    let text = fs::read_to_string(root().join("schema/README.md")).unwrap();
    let code = fs::read_to_string(root().join("src/cli/progress.rs")).unwrap();
    let names: Vec<Vec<&str>> = code
        .lines()
        .filter(|line| line.trim_start().starts_with("Stage::") && line.contains("=> (\""))
        .map(|line| line.split('"').collect())
        .collect();
    assert!(names.len() >= 7, "{names:?}");
    for name in names {
        let row = format!("| `{}` | `{}` |", name[1], name[3]);
        assert!(text.contains(&row), "schema/README.md has no row {row}");
    }
}

/// The code that may name ids: not the one that defines them.
fn read_code(directory: &Path, code: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_code(&path, code);
        } else if !path.ends_with("error/id.rs") {
            code.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// Every line of standard error, as JSON.
#[track_caller]
fn events(outcome: &Outcome) -> Vec<Value> {
    let events: Vec<Value> = outcome
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{outcome}")))
        .collect();
    let last = events.last().unwrap();
    assert_eq!(*last, json!({"event": "result", "exit_code": outcome.status.code().unwrap()}), "{outcome}");
    events
}

fn find<'e>(events: &'e [Value], name: &str) -> &'e Value {
    events.iter().find(|event| event["event"] == name).unwrap_or_else(|| panic!("no {name} in {events:#?}"))
}

/// Stages begin, and end with what they have done.
fn assert_stages(events: &[Value], stages: &[&str]) {
    for stage in stages {
        let of = |name: &str| events.iter().filter(|e| e["event"] == name && e["stage"] == *stage).count();
        assert!(of("begin") > 0 && of("begin") == of("end"), "{stage}: {events:#?}");
    }
}

#[test]
fn events_tell_programs_what_text_tells_people() {
    let Pair { source, target } = Pair::shared(Major(16)).copy();
    let (plan, planned) = Plan::make(&target, Source::Directory(&source), &["--progress=json"]);
    let told = events(&planned.success());
    assert_stages(&told, &["scan_wal", "list", "compare"]);
    let document = plan.json();
    let event = find(&told, "plan");
    assert_eq!(
        [&event["digest"], &event["verdict"], &event["applyable"], &event["scope"], &event["failed_checks"]],
        [&document["digest"], &json!("rewind"), &json!(true), &json!("full"), &json!([])]
    );
    assert_eq!(event["lost"], document["discarded"]["verdict"]);
    assert_eq!(event["file"], plan.path().display().to_string());

    // A target that moved: the error has an id, and nothing else is said.
    let before = fs::read(target.path("postgresql.conf")).unwrap();
    fs::write(target.path("global/1_made_up"), "x").unwrap();
    fs::write(target.path("postgresql.conf"), [before.as_slice(), b"\n"].concat()).unwrap();
    let moved = Outcome::of(pg_unfork(&["apply", "-P=json", "--no-sync"]).arg(plan.path()));
    let told = events(&moved);
    let error = find(&told, "error");
    assert_eq!([&error["id"], &error["exit_code"]], [&json!("plan_stale"), &json!(3)]);
    assert!(error["message"].as_str().unwrap().contains("postgresql.conf"), "{moved}");
    assert!(!error["hints"].as_array().unwrap().is_empty(), "{moved}");
    fs::remove_file(target.path("global/1_made_up")).unwrap();
    fs::write(target.path("postgresql.conf"), before).unwrap();

    // What else can fail before the first write, with its name.
    let edited = scratch::directory("edited");
    let edited = edited.path().join("plan.json");
    let text = String::from_utf8(plan.document()).unwrap();
    fs::write(&edited, text.replacen("\"applyable\":true", "\"applyable\":false", 1)).unwrap();
    let (data, edited) = (target.data().display().to_string(), edited.display().to_string());
    let away = "host=/nonexistent user=nobody";
    let cases: [(&[&str], i32, &str); 4] = [
        (&["plan", "-D", &data, "--source-server", away, "--source-timeout=0"], 4, "source_unreachable"),
        (&["undo", "-D", &data], 4, "nothing_to_undo"),
        (&["apply", "-D", &data], 4, "nothing_to_undo"),
        (&["apply", &edited], 4, "plan_digest"),
    ];
    for (arguments, code, id) in cases {
        let outcome = Outcome::of(pg_unfork(arguments).arg("--progress=json"));
        let error = find(&events(&outcome), "error").clone();
        assert_eq!([&error["id"], &error["exit_code"]], [&json!(id), &json!(code)], "{outcome}");
    }

    // The time of the file has changed: plan again, for people who want to see that something goes on.
    let plan = Plan::of(&target, Source::Directory(&source), &["-P"]);
    let applied = Outcome::of(pg_unfork(&["apply", "--progress=json", "--no-sync"]).arg(plan.path()));
    let told = events(&applied.success());
    assert_stages(&told, &["copy"]);
    let warning = find(&told, "warning")["message"].as_str().unwrap();
    assert!(warning.contains("SECOND PRIMARY"), "{warning}");
    let done: u64 = told.iter().filter_map(|e| (e["stage"] == "copy").then(|| e["done"].as_u64()).flatten()).sum();
    assert!(done > 0, "{told:#?}");

    let directory = target.data().display().to_string();
    let verified = Outcome::of(&mut pg_unfork(&["verify", "-P", "-D", &directory])).success();
    assert!(verified.stderr.contains("pg_unfork: verifying: "), "{verified}");
    let silent = Outcome::of(&mut pg_unfork(&["undo", "-N", "--progress=none", "-D", &directory])).success();
    assert!(!silent.stderr.contains("putting back"), "{silent}");
    let again = events(&Outcome::of(&mut pg_unfork(&["undo", "--progress=json", "-D", &directory])).success());
    assert!(find(&again, "note")["message"].as_str().unwrap().contains("is undone already"), "{again:#?}");
}

/// Failures that need no cluster.
#[test]
fn errors_have_ids() {
    let scratch = scratch::directory("ids");
    let empty = scratch.path().display().to_string();
    let document = scratch.path().join("plan.json");
    fs::write(&document, "{}").unwrap();
    let document = document.display().to_string();
    let cases: [(&[&str], i32, &str); 6] = [
        (&["plan", "--progress=json", "--no-such-option"], 64, "usage"),
        (&["apply", "--progress=json"], 64, "usage"),
        (&["plan", "--progress=json", "-D", &empty, "--source-pgdata", &empty], 4, "not_a_cluster"),
        (&["--progress=json", "status", "-D", "/nonexistent"], 4, "not_a_cluster"),
        (&["show", &document, "--progress=json"], 4, "manifest_invalid"),
        (&["show", "/nonexistent", "--progress=json"], 1, "failed"),
    ];
    for (arguments, code, id) in cases {
        let outcome = Outcome::of(&mut pg_unfork(arguments));
        let told = events(&outcome);
        assert_eq!((outcome.status.code(), &find(&told, "error")["id"]), (Some(code), &json!(id)), "{outcome}");
        assert_eq!(told.len(), 2, "{outcome}");
    }
}

/// What comes from outside cannot steer a terminal.
#[test]
fn messages_have_no_control_characters() {
    let scratch = scratch::directory("escapes");
    let hostile = scratch.path().join("x\u{1b}[2J\u{202e}\u{9b}1m\nnext");
    for arguments in [vec!["show"], vec!["status", "-D"], vec!["apply"], vec!["verify", "-D"]] {
        let outcome = Outcome::of(pg_unfork(&arguments).arg(&hostile));
        assert!(!outcome.status.success(), "{outcome}");
        let shown = outcome.stderr.trim_end_matches('\n');
        assert!(shown.contains("x\\u{1b}[2J\\u{202e}\\u{9b}1m\\nnext"), "{outcome}");
        assert!(!shown.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{outcome}");
    }
}
