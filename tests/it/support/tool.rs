//! The program under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::cluster::Cluster;
use super::outcome::Outcome;
use super::rewind::{instead_of, is_through_drop_in};
use super::scratch;
use super::stock::Source;

/// A plan in a file of its own.
#[derive(Debug)]
pub(crate) struct Plan {
    directory: TempDir,
}

/// A command of the program, in an environment without anybody's settings.
pub(crate) fn pg_unfork(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pg_unfork"));
    let variables = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG"));
    for (name, _) in variables {
        command.env_remove(name);
    }
    command.env("TZ", "UTC").args(arguments);
    command
}

/// The options that name a source.
pub(crate) fn source_options(source: Source<'_>) -> [String; 2] {
    match source {
        Source::Directory(source) => ["--source-pgdata".to_owned(), source.data().display().to_string()],
        Source::Server(source, user) => ["--source-server".to_owned(), source.conninfo("postgres", user)],
    }
}

impl Plan {
    /// Plans how `target` follows `source`, whatever the outcome.
    pub(crate) fn make(target: &Cluster, source: Source<'_>, arguments: &[&str]) -> (Self, Outcome) {
        let [option, source] = source_options(source);
        Self::make_from(target, &[&option, &source], arguments)
    }

    /// The same with the options that name the source.
    pub(crate) fn make_from(target: &Cluster, source: &[&str], arguments: &[&str]) -> (Self, Outcome) {
        let plan = Self { directory: scratch::directory("plan") };
        let mut command = pg_unfork(&["plan", "-D"]);
        command.arg(target.data()).args(source).arg("-o").arg(plan.path());
        // Links of tablespaces may lead by way of the working directory.
        command.current_dir(target.data());
        if target.major().0 == 19 {
            command.arg("--allow-unreleased");
        }
        let outcome = Outcome::of(command.args(arguments));
        if plan.path().exists() {
            assert_valid(&plan.json());
        }
        (plan, outcome)
    }

    /// Plans, and expects that to be possible.
    pub(crate) fn of(target: &Cluster, source: Source<'_>, arguments: &[&str]) -> Self {
        let (plan, outcome) = Self::make(target, source, arguments);
        let _ = outcome.success();
        plan
    }

    /// The plan's file.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("plan.json")
    }

    /// The document as it stands.
    pub(crate) fn document(&self) -> Vec<u8> {
        std::fs::read(self.path()).expect("the plan")
    }

    /// The document as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.document()).expect("a plan is JSON")
    }

    /// Replaces the document by an edited one, with the digest that it then has.
    pub(crate) fn rewrite(&self, mut edited: Value) {
        let fields = edited.as_object_mut().expect("a manifest");
        let created = fields.remove("created");
        fields.remove("digest");
        // serde_json keeps keys in byte order, as manifests do.
        let sum = Sha256::digest(serde_json::to_vec(&fields).expect("JSON"));
        let digest: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
        fields.insert("digest".to_owned(), Value::from(format!("sha256:{digest}")));
        fields.extend(created.map(|created| ("created".to_owned(), created)));
        std::fs::write(self.path(), serde_json::to_vec(&edited).expect("JSON")).expect("the plan");
    }

    /// Applies the plan.
    #[track_caller]
    pub(crate) fn apply(&self, arguments: &[&str]) -> Outcome {
        if is_through_drop_in() {
            assert_eq!(arguments, [""; 0], "the drop-in has no such options");
            return instead_of(&self.json());
        }
        apply(&self.path(), arguments)
    }
}

/// Every manifest that a test makes satisfies the published schema.
fn assert_valid(manifest: &Value) {
    static SCHEMA: LazyLock<Validator> = LazyLock::new(|| {
        let text = include_str!("../../../schema/manifest.v1.schema.json");
        let schema = serde_json::from_str(text).expect("the schema is JSON");
        jsonschema::draft202012::new(&schema).expect("the schema is a schema")
    });
    let errors: Vec<String> =
        SCHEMA.iter_errors(manifest).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

/// Applies the plan in `file`. Whatever was rewound must stand its verification.
#[track_caller]
pub(crate) fn apply(file: &Path, arguments: &[&str]) -> Outcome {
    let outcome = Outcome::of(pg_unfork(&["apply", "--no-sync"]).arg(file).args(arguments));
    if outcome.status.success() && outcome.stderr.contains("is rewound") {
        let place = arguments.iter().skip_while(|argument| **argument != "-D").take(2);
        let verified = Outcome::of(pg_unfork(&["verify"]).arg(file).args(place));
        // Some scenarios have files that only look like relations: their pages are as bad as the source's.
        let is_good = verified.status.success() || verified.stderr.contains(": 0 differences, ");
        assert!(is_good, "{verified}");
    }
    outcome
}
