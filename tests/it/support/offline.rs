//! Listings of sources, and plans that are made from them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use jsonschema::Validator;
use pg_unfork::listing;
use pg_unfork::manifest::digest_of;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cluster::Cluster;
use super::outcome::Outcome;
use super::scratch;
use super::stock::Source;
use super::tool::{Plan, pg_unfork, source_options};

/// A source's listing in a file of its own.
#[derive(Debug)]
pub(crate) struct Listing {
    directory: TempDir,
}

impl Listing {
    /// Lists a source, whatever the outcome.
    pub(crate) fn make(source: Source<'_>) -> (Self, Outcome) {
        let listing = Self { directory: scratch::directory("listing") };
        let [option, source] = source_options(source);
        let outcome = Outcome::of(pg_unfork(&["list", &option, &source, "-o"]).arg(listing.path()));
        if listing.path().exists() {
            assert_valid(&listing.json());
        }
        (listing, outcome)
    }

    /// Lists a source, and expects that to be possible.
    pub(crate) fn of(source: Source<'_>) -> Self {
        let (listing, outcome) = Self::make(source);
        let _ = outcome.success();
        listing
    }

    /// The listing's file.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("source.json")
    }

    /// The document as it stands.
    pub(crate) fn document(&self) -> Vec<u8> {
        fs::read(self.path()).expect("the listing")
    }

    /// The document as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.document()).expect("a listing is JSON")
    }

    /// Plans with it, whatever the outcome.
    pub(crate) fn plan(&self, target: &Cluster, arguments: &[&str]) -> (Plan, Outcome) {
        Plan::make_from(target, &["--source-listing", &text(&self.path())], arguments)
    }
}

/// A document with the digest that belongs to it.
pub(crate) fn signed(document: &Value) -> Vec<u8> {
    let mut document = document.clone();
    document["digest"] = json!(digest_of(document.to_string().as_bytes()).expect("canonical"));
    document.to_string().into_bytes()
}

/// A path that is text.
pub(crate) fn text(path: &Path) -> String {
    path.to_str().expect("text").to_owned()
}

/// A plan without what depends on when and from what it was made.
pub(crate) fn timeless(plan: &Plan) -> Value {
    let mut json = plan.json();
    let fields = json.as_object_mut().expect("an object");
    fields.remove("created");
    fields.remove("digest");
    json
}

/// Plans with the source and with its listing, and expects the same: gives both plans. A live source moves now and
/// then, so what counts is a listing between two equal plans.
#[track_caller]
pub(crate) fn assert_same_offline(target: &Cluster, source: Source<'_>, arguments: &[&str]) -> (Plan, Plan) {
    for _ in 0..10 {
        let before = Plan::of(target, source, arguments);
        let (offline, outcome) = Listing::of(source).plan(target, arguments);
        let _ = outcome.success();
        let after = Plan::of(target, source, arguments);
        if timeless(&before) == timeless(&after) {
            let (online, offline_json) = (timeless(&before), timeless(&offline));
            for (section, value) in online.as_object().expect("an object") {
                assert!(*value == offline_json[section], "{section}: {value:#}\n{:#}", offline_json[section]);
            }
            assert!(online == offline_json);
            return (after, offline);
        }
    }
    panic!("the source does not come to rest");
}

/// Every listing that a test makes satisfies the published schema, and is read by the program.
fn assert_valid(document: &Value) {
    static SCHEMA: LazyLock<Validator> = LazyLock::new(|| {
        let text = include_str!("../../../schema/listing.v1.schema.json");
        let schema = serde_json::from_str(text).expect("the schema is JSON");
        jsonschema::draft202012::new(&schema).expect("the schema is a schema")
    });
    let errors: Vec<String> =
        SCHEMA.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    assert!(listing::parse(&document.to_string().into_bytes()).is_ok());
}
