//! Manifests that somebody cut, edited or made up. The digest says that nobody changed a document; nothing
//! says that what wrote it was right or honest.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use pg_unfork::manifest::digest_of;
use serde_json::{Value, json};

use super::{Untouched, assert_refused};
use crate::golden::{golden, rule_that_breaks};
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::{Plan, pg_unfork};

/// A document with the digest that belongs to it.
fn sign(document: &mut Value) -> Vec<u8> {
    let digest = digest_of(document.to_string().as_bytes()).unwrap();
    document["digest"] = json!(digest);
    document.to_string().into_bytes()
}

/// Replaces the plan's document.
fn put(plan: &Plan, document: &[u8]) {
    fs::write(plan.path(), document).unwrap();
}

/// The first action of a kind.
fn action<'v>(document: &'v mut Value, kind: &str) -> &'v mut Value {
    let mut actions = document["actions"].as_array_mut().unwrap().iter_mut();
    actions.find(|action| action["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

/// The first patch that copies blocks.
fn patch(document: &mut Value) -> &mut Value {
    let mut actions = document["actions"].as_array_mut().unwrap().iter_mut();
    let large = |action: &Value| ["before", "after"].iter().all(|side| action[side]["size"].as_u64() >= Some(4 * 8192));
    actions.find(|action| action["blocks"].is_array() && large(action)).expect("a patch of a large file with blocks")
}

/// Bytes that are no document, or not the one that was written.
#[test]
fn documents() {
    let pair = Pair::shared(Major(14)).copy();
    let before = Untouched::of(&pair);
    let plan = Plan::of(&pair.target, Source::Directory(&pair.source), &[]);
    let whole = plan.document();
    for part in 0..20 {
        put(&plan, &whole[..whole.len() * part / 20]);
        assert_refused(&plan.apply(&[]), 4, &["plan.json cannot be used", "EOF while parsing", "make the plan again"]);
    }
    let text = String::from_utf8(whole.clone()).unwrap();
    let mut garbage = whole.clone();
    garbage[whole.len() / 2] = 0xFF;
    let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let nested = text.replacen("\"actions\":[", &format!("\"aa\":{deep},\n\"actions\":["), 1);
    let cases: [(Vec<u8>, &str); 9] = [
        (
            text.replacen("\"requires\":[]", "\"requires\":[\"magic\"]", 1).into_bytes(),
            "was changed after it was written",
        ),
        (
            text.replacen("\"requires\":[]", "\"l\":1,\n\"requires\":[]", 1).into_bytes(),
            "was changed after it was written",
        ),
        (text.replacen("sha256:", "sha256:0", 1).into_bytes(), "was changed after it was written"),
        (garbage, "cannot be used"),
        (nested.into_bytes(), "recursion limit"),
        (vec![0; 1000], "expected value"),
        (b"null".to_vec(), "no manifest"),
        (b"{}".to_vec(), "missing field `format_version`"),
        (b"[1, 2]".to_vec(), "no manifest"),
    ];
    for (document, message) in cases {
        assert_ne!(document, whole);
        put(&plan, &document);
        assert_refused(&plan.apply(&[]), 4, &[message, "plan.json cannot be used"]);
    }
    fs::remove_file(plan.path()).unwrap();
    assert_refused(&plan.apply(&[]), 1, &["cannot read", "plan.json"]);
    fs::create_dir(plan.path()).unwrap();
    assert_refused(&plan.apply(&[]), 1, &["cannot read", "plan.json"]);
    before.check();
}

/// What breaks a rule of the format is refused with that rule.
#[test]
fn rules() {
    let pair = Pair::shared(Major(17)).copy();
    let before = Untouched::of(&pair);
    for file in golden("invalid") {
        let breaks = rule_that_breaks(&fs::read(&file).unwrap());
        let mut command = pg_unfork(&["apply", "--no-sync", "-D"]);
        command.arg(pair.target.data()).arg("--source-pgdata").arg(pair.source.data()).arg(&file);
        let outcome = Outcome::of(&mut command);
        // A plan that says of itself that it cannot be applied is not looked at any further.
        let stated =
            if breaks.starts_with("its verdict") { "the plan says that it cannot be applied" } else { &breaks };
        assert_refused(&outcome, 4, &[stated]);
    }
    before.check();
}

type Edit<'a> = (&'a str, Box<dyn Fn(&mut Value)>, &'a str);

fn edit<'a>(name: &'a str, change: impl Fn(&mut Value) + 'static, message: &'a str) -> Edit<'a> {
    (name, Box::new(change), message)
}

/// Applies the plan with each edit, its digest renewed.
fn check(major: Major, edits: &[Edit<'_>]) {
    let pair = Pair::shared(major).copy();
    let before = Untouched::of(&pair);
    let plan = Plan::of(&pair.target, Source::Directory(&pair.source), &[]);
    let original = plan.json();
    for (name, change, message) in edits {
        let mut document = original.clone();
        change(&mut document);
        assert_ne!(document, original, "{name}");
        put(&plan, &sign(&mut document));
        let outcome = plan.apply(&[]);
        assert!(matches!(outcome.status.code(), Some(3 | 4)), "{name}: {outcome}");
        let code = outcome.status.code().unwrap();
        assert!(outcome.stderr.contains(message), "{name}: {message:?} is not said\n{outcome}");
        assert_refused(&outcome, code, &[message]);
    }
    before.check();
    // The way to sign is right: an unknown field does no harm.
    let mut document = original;
    document["zz_unknown"] = json!({"later": ["version", 1]});
    put(&plan, &sign(&mut document));
    let _ = plan.apply(&[]).success();
}

/// Values that the format does not have.
#[test]
fn words() {
    check(
        Major(16),
        &[
            edit("format, no number", |d| d["format_version"] = json!("one"), "has format \"one\""),
            edit("format, type", |d| d["format_version"] = json!(1), "expected a string"),
            edit("kind", |d| action(d, "remove")["kind"] = json!("destroy"), "unknown variant `destroy`"),
            edit("phase", |d| action(d, "remove")["phase"] = json!("later"), "unknown variant `later`"),
            edit("rule", |d| d["backup_label"]["start_time"]["rule"] = json!("then"), "unknown variant `then`"),
            edit("state", |d| d["control_file"]["set"]["state"] = json!("shut_down"), "control_file has a rule"),
            edit("verdict", |d| d["verdict"] = json!("maybe"), "unknown variant `maybe`"),
            edit("impossible", |d| d["verdict"] = json!("impossible"), "cannot be applied"),
            edit("not applyable", |d| d["applyable"] = json!(false), "cannot be applied"),
            edit("no actions", |d| drop(d.as_object_mut().unwrap().remove("actions")), "missing field `actions`"),
            edit(
                "system",
                |d| d["target"]["control_file"]["system_identifier"] = json!("1"),
                "system_identifier: planned",
            ),
            edit(
                "other source",
                |d| d["source"]["control_file"]["system_identifier"] = json!("1"),
                "system_identifier: planned",
            ),
            edit(
                "state, target",
                |d| d["target"]["control_file"]["state"] = json!("in_production"),
                "target: state: planned in_production",
            ),
            edit("block size", |d| d["target"]["control_file"]["geometry"]["block_size"] = json!(16384), ""),
            edit("history", |d| d["target"]["history"] = json!([]), "timeline history"),
            edit("roots", |d| d["target"]["roots"] = json!([]), "target: pg_wal and tablespaces: planned"),
            edit("a long word", |d| d["verdict"] = json!("x".repeat(10 << 20)), "unknown variant"),
        ],
    );
}

/// Paths that lead out of the data directory, or to what no action may touch.
#[test]
fn paths() {
    let mut edits = Vec::new();
    let escaping = [
        "../evil",
        "base/../../evil",
        "/etc/passwd",
        "",
        ".",
        "./x",
        "a//b",
        "a/",
        "base/./5",
        "a%00b",
        "%2e%2e/evil",
        "%2E%2E/evil",
        "a%62",
        "a\nb",
        "%",
    ];
    for path in escaping {
        edits.push(edit(
            path,
            move |d: &mut Value| action(d, "copy_file")["path"] = json!(path),
            "plan.json cannot be used",
        ));
    }
    let long = "x".repeat(256);
    let longer = "x/".repeat(2100) + "x";
    for path in [long, longer, "y".repeat(10 << 20)] {
        edits.push(edit(
            "long",
            move |d: &mut Value| action(d, "copy_file")["path"] = json!(path),
            "longer than a file name can be",
        ));
    }
    let forbidden = [
        ("pg_wal/.pg_unfork", "no action may touch the state directory"),
        ("pg_tblspc", "no action may replace this directory"),
        ("pg_replslot/a/state", "the path is one that is never copied"),
    ];
    for (path, message) in forbidden {
        edits.push(edit(path, move |d: &mut Value| action(d, "copy_file")["path"] = json!(path), message));
    }
    let link = |path: &'static str, text: &'static str| {
        move |d: &mut Value| {
            let link = action(d, "create_directory");
            link["kind"] = json!("create_symlink");
            link["phase"] = json!("create");
            link["path"] = json!(path);
            link["after"] = json!({ "link": text });
        }
    };
    edits.push(edit("tablespace text", link("pg_tblspc/1", ""), "is not escaped"));
    check(Major(17), &edits);
}

/// Block ranges and sizes that cannot be, and actions out of place.
#[test]
fn numbers() {
    let blocks = |blocks: Value| move |d: &mut Value| patch(d)["blocks"] = blocks.clone();
    let size = |side: &'static str, size: Value| move |d: &mut Value| patch(d)[side]["size"] = size.clone();
    check(
        Major(18),
        &[
            edit("touching twice", blocks(json!([[0, 2], [1, 1]])), "block ranges overlap or are out of order"),
            edit("far", blocks(json!([[4_294_967_295_u32, 4_294_967_295_u32]])), "reaches beyond the smaller size"),
            edit("too large", blocks(json!([[4_294_967_296_u64, 1]])), "plan.json cannot be used"),
            edit("negative", blocks(json!([[-1, 1]])), "plan.json cannot be used"),
            edit("a triple", blocks(json!([[0, 1, 2]])), "plan.json cannot be used"),
            edit("no pair", blocks(json!([[0]])), "plan.json cannot be used"),
            edit("a word", blocks(json!([["0", "1"]])), "plan.json cannot be used"),
            edit("size negative", size("before", json!(-1)), "plan.json cannot be used"),
            edit("size of a word", size("before", json!("8192")), "plan.json cannot be used"),
            edit("size huge", size("after", json!((1_u64 << 53) - 1)), "as long as the source's"),
            edit("source, huge", size("source", json!((1_u64 << 53) - 1)), "as long as the source's"),
            edit("size wrong", size("before", json!(8192 * 1000)), "planned 8192000"),
            edit("phase", |d| patch(d)["phase"] = json!("remove"), "not in order of phase and path"),
        ],
    );
    // What no number of JSON's integers can say has no digest at all.
    let pair = Pair::shared(Major(18)).copy();
    let before = Untouched::of(&pair);
    let plan = Plan::of(&pair.target, Source::Directory(&pair.source), &[]);
    let text = String::from_utf8(plan.document()).unwrap();
    for (number, message) in
        [("9007199254740992", "larger than 2^53-1"), ("1.5", "integers only"), ("1e3", "integers only"), ("-0.0", "")]
    {
        let edited = text.replacen("\"removed_bytes\":", &format!("\"removed_bytes\":{number},\"s\":"), 1);
        assert_ne!(edited, text);
        put(&plan, edited.as_bytes());
        assert_refused(&plan.apply(&[]), 4, &[message, "plan.json cannot be used"]);
    }
    before.check();
}

/// Ten million block ranges, in bounded time and memory, whether they are in order or not.
#[test]
fn ten_million_ranges() {
    const COUNT: u64 = 10_000_000;
    let pair = Pair::shared(Major(15)).copy();
    let before = Untouched::of(&pair);
    let plan = Plan::of(&pair.target, Source::Directory(&pair.source), &[]);
    let mut document = plan.json();
    let action = patch(&mut document);
    let length = json!(COUNT * 2 * 8192);
    action["before"]["size"] = length.clone();
    action["after"]["size"] = length.clone();
    action["source"]["size"] = length;
    action["blocks"] = json!("HERE");
    for (last, code, message) in [(2 * COUNT - 2, 3, "planned 163840000000"), (5, 4, "overlap or are out of order")] {
        let mut ranges = String::with_capacity(16 * COUNT as usize);
        for number in 0..COUNT - 1 {
            write!(ranges, "[{},1],", number * 2).unwrap();
        }
        write!(ranges, "[{last},1]").unwrap();
        let text = document.to_string().replacen("\"HERE\"", &format!("[{ranges}]"), 1);
        let digest = digest_of(text.as_bytes()).unwrap();
        let stated = document["digest"].as_str().unwrap();
        put(&plan, text.replacen(stated, &digest, 1).as_bytes());
        let limited = "ulimit -v 1000000; exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", limited, "sh", env!("CARGO_BIN_EXE_pg_unfork"), "apply", "--no-sync"]).arg(plan.path());
        let began = std::time::Instant::now();
        let outcome = Outcome::of(&mut command);
        assert_refused(&outcome, code, &[message]);
        assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    }
    before.check();
}

/// A directory that somebody replaced by a symlink after the plan was made leads nowhere.
#[test]
fn symlinks_in_the_way() {
    let pair = Pair::shared(Major(13)).copy();
    let plan = Plan::of(&pair.target, Source::Directory(&pair.source), &[]);
    let outside = crate::support::scratch::directory("outside");
    let before = Untouched::of(&pair);
    for name in ["base", "base/5", "global", "pg_xact", "pg_multixact/offsets"] {
        let path = pair.target.path(name);
        if !path.exists() {
            continue;
        }
        let moved = outside.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        symlink(&moved, &path).unwrap();
        let elsewhere = crate::support::tree::Tree::read(&moved, &moved);
        let outcome = plan.apply(&[]);
        let after = crate::support::tree::Tree::read(&moved, &moved);
        fs::remove_file(&path).unwrap();
        fs::rename(&moved, &path).unwrap();
        assert_refused(&outcome, 3, &[name]);
        assert_eq!(crate::support::tree::diff(&elsewhere, &after, &|_: &Path| false), [""; 0], "{name}");
    }
    before.check();
}
