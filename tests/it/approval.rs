//! From a plan to a yes: exit codes for scripts, a look that writes nothing, the digest that was approved, and what is
//! said when the world has moved since.

use std::process::Command;

use crate::support::cluster::{Cluster, Stop};
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::Plan;
use crate::support::tree::{self, Tree};

#[track_caller]
fn assert_exit(outcome: &Outcome, code: i32, words: &[&str]) {
    assert_eq!(outcome.status.code(), Some(code), "{outcome}");
    words.iter().for_each(|word| assert!(outcome.stderr.contains(word), "{word}\n{outcome}"));
}

#[track_caller]
fn assert_same(before: &Tree, cluster: &Cluster) {
    assert_eq!(tree::diff(before, &Tree::of(cluster), &|_| false), [""; 0]);
}

/// 0 where there is nothing to do, 2 where there is, 4 where it is impossible; 0 in place of 2 unless asked for.
#[test]
fn exit_codes_for_scripts() {
    let Pair { source, target } = Pair::shared(Major(17));
    let (twin, other) = (source.duplicate(), &Pair::shared(Major(16)).source);
    for only in [&[][..], &["--check-only"]] {
        let code = |target: &Cluster, source: &Cluster, detailed: &[&str]| {
            let (_, outcome) = Plan::make(target, Source::Directory(source), &[detailed, only].concat());
            outcome.status.code()
        };
        let detailed = &["--detailed-exitcode"][..];
        assert_eq!((code(target, source, detailed), code(target, source, &[])), (Some(2), Some(0)));
        assert_eq!((code(&twin, source, detailed), code(&twin, source, &[])), (Some(0), Some(0)));
        assert_eq!((code(target, other, detailed), code(target, other, &[])), (Some(4), Some(4)));
    }
    let live = source.duplicate();
    live.start();
    let (_, outcome) = Plan::make(&twin, Source::Server(&live, "postgres"), &["--detailed-exitcode", "-R"]);
    assert_exit(&outcome, 2, &["NO REWIND NEEDED"]);
}

/// A check alone says whether and where, and cannot be applied.
#[test]
fn a_check_alone() {
    let Pair { source, target } = Pair::shared(Major(15)).copy();
    let plan = Plan::of(&target, Source::Directory(&source), &["--check-only"]);
    let (found, whole) = (plan.json(), Plan::of(&target, Source::Directory(&source), &[]).json());
    for field in ["verdict", "divergence", "checkpoint"] {
        assert_eq!(found[field], whole[field]);
    }
    assert_eq!((found["scope"].as_str(), found["applyable"].as_bool()), (Some("check_only"), Some(false)));
    assert_eq!(found["actions"].as_array().map(Vec::len), Some(0));
    let before = Tree::of(&target);
    assert_exit(&plan.apply(&[]), 4, &["the plan says that it cannot be applied"]);
    assert_same(&before, &target);
}

/// Only the plan that was approved is applied, and nothing is written before that is clear.
#[test]
fn the_plan_that_was_approved() {
    let Pair { source, target } = Pair::shared(Major(14)).copy();
    let plan = Plan::of(&target, Source::Directory(&source), &[]);
    let digest = plan.json()["digest"].as_str().unwrap().to_owned();
    let other = Plan::of(&target, Source::Directory(&source), &["--keep", "nothing"]).json()["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let before = Tree::of(&target);
    assert_exit(&plan.apply(&["--expect-digest", &other]), 3, &[&format!("expected {other}, found {digest}"), "hint"]);
    for bad in ["", "sha256:", "md5:00", &digest[..70], &format!("{digest}0")] {
        assert_exit(&plan.apply(&["--expect-digest", bad]), 64, &["is not the digest of a plan"]);
    }
    assert_exit(
        &plan.apply(&["--check", "--expect-digest", &digest]),
        0,
        &["nothing stands in the way", "nothing was written"],
    );
    assert_same(&before, &target);
    assert_exit(&plan.apply(&["--expect-digest", digest.trim_start_matches("sha256:")]), 0, &["is rewound"]);
    assert_exit(&plan.apply(&["--check", "--expect-digest", &digest]), 0, &["already"]);
    // Without the file it is the plan that was begun with that counts.
    let resumed = |digest: &str| {
        let data = target.data();
        Outcome::of(crate::support::tool::pg_unfork(&["apply", "--expect-digest", digest, "-D"]).arg(data))
    };
    assert_exit(&resumed(&other), 3, &["expected"]);
    assert_exit(&resumed(&digest), 0, &["already"]);
}

/// A look at what would keep an apply from its work finds it, and writes nothing.
#[test]
fn a_look_before_the_apply() {
    let Pair { source, target } = Pair::shared(Major(13)).copy();
    let plan = Plan::of(&target, Source::Directory(&source), &[]);
    target.append_config("# later\n");
    let before = Tree::of(&target);
    assert_exit(&plan.apply(&["--check"]), 3, &["postgresql.conf: has"]);
    assert_same(&before, &target);
}

/// All that differs is named with what was planned and what was found, on both sides; the command that is printed makes a
/// fresh plan.
#[test]
fn all_that_has_moved() {
    let Pair { source, target } = Pair::shared(Major(18)).copy();
    let plan = Plan::of(&target, Source::Directory(&source), &["--keep", "it's mine", "--exclude", "scratch"]);
    for cluster in [&source, &target] {
        cluster.start();
        cluster.checkpoint();
        cluster.stop(Stop::Fast);
        cluster.append_config("# later\n");
    }
    let outcome = plan.apply(&[]);
    let words = [
        "target: checkpoint: planned ",
        "target: redo: planned ",
        "target: SHA-256 of global/pg_control: planned ",
        "source: checkpoint: planned ",
        "the target has changed since the plan was made: ",
        "the source has changed since the plan was made: ",
        "postgresql.conf: has ",
    ];
    assert_exit(&outcome, 3, &words);
    let hint = outcome.stderr.lines().find_map(|line| line.split_once("make a fresh plan: pg_unfork ")).unwrap().1;
    let file = plan.path().with_file_name("fresh.json");
    let command = hint.replace("plan.json", file.to_str().unwrap());
    let script = format!("{} {command}", env!("CARGO_BIN_EXE_pg_unfork"));
    let _ = Outcome::of(Command::new("sh").args(["-c", &script])).success();
    let fresh: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(fresh["rules"], plan.json()["rules"]);
    assert_eq!(fresh["target"]["directory"], plan.json()["target"]["directory"]);
}
