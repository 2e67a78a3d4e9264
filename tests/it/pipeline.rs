//! The example pipeline, step by step, on a real pair.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::cluster::Stop;
use crate::support::life::assert_follows;
use crate::support::offline::{Listing, text};
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::scratch;
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::pg_unfork;
use crate::support::tree::{self, Tree};
use crate::support::workload::REWIND_USER;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pipeline")
}

/// Runs a script of the pipeline with these variables.
fn script(name: &str, variables: &[(&str, &str)]) -> Outcome {
    let program = pg_unfork(&[]);
    let mut command = Command::new(directory().join(name));
    for (variable, _) in program.get_envs().filter(|(_, value)| value.is_none()) {
        command.env_remove(variable);
    }
    Outcome::of(command.env("PG_UNFORK", program.get_program()).envs(variables.iter().copied()))
}

/// Planned without the source, shown, approved, applied; a plan that nobody approved is not.
#[test]
fn from_a_listing_to_a_standby() {
    let Pair { source, target } = Pair::shared(Major(17)).copy();
    source.start();
    source.checkpoint();
    let listing = Listing::of(Source::Server(&source, REWIND_USER));
    let directory = scratch::directory("pipeline");
    let out = directory.path().join("out");
    let (data, listed, out_text) = (text(&target.data()), text(&listing.path()), text(&out));
    let plan = |listing: &str| {
        script("plan.sh", &[("TARGET", &data), ("LISTING", listing), ("OUT", &out_text), ("OPTIONS", "-R")])
    };
    let planned = plan(&listed);
    assert_eq!(planned.status.code(), Some(2), "{planned}");
    let digest = fs::read_to_string(out.join("digest")).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&fs::read(out.join("plan.json")).unwrap()).unwrap();
    assert_eq!(document["digest"], digest.trim_end());
    let comment = fs::read_to_string(out.join("comment.md")).unwrap();
    assert!(comment.contains(digest.trim_end()), "the comment does not say what is approved: {comment}");

    let before = Tree::of(&target);
    let file = text(&out.join("plan.json"));
    let apply = |digest: &str| script("apply.sh", &[("TARGET", &data), ("PLAN", &file), ("DIGEST", digest)]);
    let other = format!("sha256:{}", "0".repeat(64));
    assert_eq!(apply(&other).status.code(), Some(3));
    assert_eq!(tree::diff(&before, &Tree::of(&target), &|_| false), [""; 0]);
    let applied = apply(digest.trim_end()).success();
    assert!(applied.stderr.contains("is rewound") && applied.stderr.contains("verified"), "{applied}");
    source.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
    assert_follows(&target, &source);

    // What was done need not be done again, and what cannot be used gives neither a plan nor a digest.
    target.stop(Stop::Fast);
    let listing = Listing::of(Source::Server(&source, REWIND_USER));
    let again = script("plan.sh", &[("TARGET", &data), ("LISTING", &text(&listing.path())), ("OUT", &out_text)]);
    assert_eq!(again.status.code(), Some(0), "{again}");
    let failed = plan(&text(&target.path("PG_VERSION")));
    assert_eq!(failed.status.code(), Some(4), "{failed}");
    assert!(!out.join("plan.json").exists() && !out.join("digest").exists());
}

/// The workflow runs these scripts, and nothing of a pull request is put into a command.
#[test]
fn the_workflow_runs_the_scripts() {
    let workflow = fs::read_to_string(directory().join("rewind.yml")).unwrap();
    for script in ["plan.sh", "apply.sh"] {
        assert!(workflow.contains(&format!("examples/pipeline/{script}")), "{script}");
    }
    let runs = workflow
        .lines()
        .filter(|line| line.contains("run: ") || line.starts_with("          ") && !line.contains(": "));
    for line in runs {
        assert!(!line.contains("${{"), "{line}");
    }
}
