//! Plans without the source: what a listing says of it, and what becomes of such a plan.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use pg_unfork::cluster::ReadAt;
use pg_unfork::listing::{self, ListingError};
use serde_json::{Value, json};

use crate::support::cluster::Stop;
use crate::support::for_each_major;
use crate::support::life::{assert_follows, assert_sound_at_rest};
use crate::support::offline::{Listing, assert_same_offline, signed, text};
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::{Plan, pg_unfork};
use crate::support::tree::{self, Tree};
use crate::support::workload::REWIND_USER;

for_each_major!(stopped_source);

/// The plan is the same, and so is the listing, if it is made again.
fn stopped_source(major: Major) {
    let pair = Pair::shared(major);
    let source = Source::Directory(&pair.source);
    let (_, offline) = assert_same_offline(&pair.target, source, &[]);
    let kept =
        offline.json()["kept"].as_array().unwrap().iter().filter(|kept| kept["reason"] == "same_content").count();
    assert!(kept > 100, "{kept} files are the same");
    let listings = [Listing::of(source), Listing::of(source)];
    let [first, second] = listings.each_ref().map(|listing| {
        let mut json = listing.json();
        json["created"].take();
        json
    });
    assert!(first == second);
    let file = fs::metadata(listings[0].path()).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
}

/// With a running source; then the plan is applied, over the recorded address.
fn live_source(major: Major) {
    let Pair { source, target } = Pair::shared(major).copy();
    source.start();
    source.checkpoint();
    let (_, plan) = assert_same_offline(&target, Source::Server(&source, REWIND_USER), &["-R"]);
    // The source goes on before somebody says yes.
    source.sql("postgres", "CREATE TABLE later AS SELECT repeat('x', 500) AS text FROM generate_series(1, 5000)");
    let _ = plan.apply(&[]).success();
    source.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
    assert_follows(&target, &source);
    assert_sound_at_rest(&target);
}

#[test]
fn live_source_13() {
    live_source(Major(13));
}

#[test]
fn live_source_16() {
    live_source(Major(16));
}

#[test]
fn live_source_19() {
    live_source(Major(19));
}

/// A standby as the source: its end is in its control file.
#[test]
fn live_standby() {
    let mut other = None;
    let pair = Pair::simple(Major(18), |builder| {
        builder.before_fork(|primary| {
            other = Some(primary.standby_left_behind());
        })
    });
    let (Pair { source, target }, standby) = (pair, other.unwrap());
    standby.change_upstream(&source);
    source.checkpoint();
    standby.wait_for_catchup(&source);
    standby.checkpoint();
    let (_, plan) = assert_same_offline(&target, Source::Server(&standby, "postgres"), &["-R"]);
    assert_eq!(plan.json()["source"]["control_file"]["state"], "in_archive_recovery");
}

/// What the listing was made of has moved: nothing is written. Moved elsewhere as it is, it will do.
#[test]
fn a_stopped_source_that_moved() {
    let Pair { source, target } = Pair::shared(Major(17)).copy();
    let elsewhere = source.duplicate();
    let (_, plan) = assert_same_offline(&target, Source::Directory(&source), &[]);
    let before = Tree::of(&target);
    source.append_config("# later\n");
    let stale = |outcome: Outcome| {
        assert_eq!(outcome.status.code(), Some(3), "{outcome}");
        assert!(outcome.stderr.contains("source has changed since the plan was made: postgresql.conf"), "{outcome}");
        assert_eq!(tree::diff(&before, &Tree::of(&target), &|_| false), [""; 0]);
    };
    stale(plan.apply(&[]));
    source.start();
    source.stop(Stop::Fast);
    let outcome = plan.apply(&[]);
    assert_eq!(outcome.status.code(), Some(3), "{outcome}");
    assert!(outcome.stderr.contains("source: SHA-256 of global/pg_control"), "{outcome}");
    assert_eq!(tree::diff(&before, &Tree::of(&target), &|_| false), [""; 0]);
    let _ = plan.apply(&["--source-pgdata", &text(&elsewhere.data())]).success();
    elsewhere.start();
    target.follow(&elsewhere);
    assert_follows(&target, &elsewhere);
}

/// A live source may go on, but not on another timeline.
#[test]
fn a_live_source_on_another_timeline() {
    let Pair { source, target } = Pair::shared(Major(15)).copy();
    source.start();
    let listing = Listing::of(Source::Server(&source, REWIND_USER));
    let (plan, outcome) = listing.plan(&target, &["-R"]);
    let _ = outcome.success();
    let before = Tree::of(&target);
    source.promote_again();
    source.checkpoint();
    let outcome = plan.apply(&[]);
    assert_eq!(outcome.status.code(), Some(3), "{outcome}");
    assert!(outcome.stderr.contains("source: timeline: planned 2, found 3"), "{outcome}");
    assert_eq!(tree::diff(&before, &Tree::of(&target), &|_| false), [""; 0]);
}

/// The record of the last checkpoint is listed: a copy of the source is known to be on its timeline.
#[test]
fn a_copy_of_the_source() {
    let source = Pair::shared(Major(14)).copy_source();
    let (_, plan) = assert_same_offline(&source.duplicate(), Source::Directory(&source), &[]);
    let plan = plan.json();
    assert_eq!(plan["verdict"], "not_needed");
    let passed = |check: &Value| check["status"] == "pass" || check["id"] == "starts_as_standby";
    assert!(plan["checks"].as_array().unwrap().iter().all(passed), "{:#}", plan["checks"]);
}

/// What is different from an earlier plan, however both were made.
#[test]
fn plans_are_compared() {
    let Pair { source, target } = Pair::shared(Major(13)).copy();
    let from = Source::Directory(&source);
    let old = Plan::of(&target, from, &[]);
    let compare = ["--compare", &text(&old.path())];
    let said = |(plan, outcome): (Plan, Outcome)| {
        assert!(plan.path().exists());
        outcome.success().stderr
    };
    let same = said(Listing::of(from).plan(&target, &compare));
    assert!(same.contains("NO CHANGE since the plan of "), "{same}");
    fs::write(source.path("new file"), [0; 3000]).unwrap();
    source.append_config("# later\n");
    let changed = said(Plan::make(&target, from, &compare));
    // The settings were the same on both sides, and are copied now.
    for row in [
        "CHANGES since the plan of ",
        "added         2 actions, ",
        " new file: copy (2.9 KiB)\n",
        " postgresql.conf: copy (",
        "besides       kept\n",
    ] {
        assert!(changed.contains(row), "{row:?} is missing: {changed}");
    }
    let elsewhere = target.duplicate();
    let (plan, outcome) = Plan::make(&elsewhere, from, &compare);
    assert_eq!((outcome.status.code(), plan.path().exists()), (Some(3), false), "{outcome}");
    assert!(outcome.stderr.contains("is a plan for another target: its target is"), "{outcome}");
    let (_, outcome) = Plan::make(&target, from, &["--compare", &text(&target.path("PG_VERSION"))]);
    assert_eq!(outcome.status.code(), Some(4), "{outcome}");
    assert!(outcome.stderr.contains("PG_VERSION cannot be used"), "{outcome}");
}

/// What cannot be listed, and where no listing goes.
#[test]
fn what_is_refused() {
    let Pair { source, target } = Pair::shared(Major(14)).copy();
    let refused = |outcome: Outcome, code: i32, said: &str| {
        assert_eq!(outcome.status.code(), Some(code), "{outcome}");
        assert!(outcome.stderr.contains(said), "{said:?} is not said\n{outcome}");
    };
    let data = text(&source.data());
    let inside = text(&source.path("listing.json"));
    let list = |arguments: &[&str]| Outcome::of(pg_unfork(&["list"]).args(arguments));
    refused(list(&["--source-pgdata", &data, "-o", &inside]), 4, "the listing cannot be written below");
    refused(list(&["-o", "x.json"]), 64, "--source-pgdata");
    let listing = Listing::of(Source::Directory(&source));
    // A plan does not go below the source that was listed, either.
    let mut command = pg_unfork(&["plan", "-D"]);
    command.arg(target.data()).arg("--source-listing").arg(listing.path()).arg("-o").arg(&inside);
    refused(Outcome::of(&mut command), 4, "the plan cannot be written below");
    refused(listing.plan(&target, &["-R"]).1, 64, "the listing is of a stopped data directory");
    refused(listing.plan(&target, &["--source-pgdata", &data]).1, 64, "cannot be used with");
    // A plan is no listing, and a listing no plan.
    let plan = Plan::of(&target, Source::Directory(&source), &[]);
    let from_plan = Plan::make_from(&target, &["--source-listing", &text(&plan.path())], &[]).1;
    refused(from_plan, 4, "the document is no listing of a source: missing field `address`");
    refused(Outcome::of(pg_unfork(&["show"]).arg(listing.path())), 4, "the document is no manifest");
    // Data goes to standard output, and everything else does not.
    let piped = list(&["--source-pgdata", &data]);
    assert!(listing::parse(&piped.stdout.clone().into_bytes()).is_ok(), "{piped}");
    source.start();
    refused(list(&["--source-pgdata", &data]), 4, "a server is running on the source's directory");
    source.stop(Stop::Immediate);
    refused(list(&["--source-pgdata", &data]), 4, "source state: in production");
}

/// Listings that somebody cut, edited or made up.
#[test]
fn hostile_listings() {
    let pair = Pair::shared(Major(16));
    let listing = Listing::of(Source::Directory(&pair.source));
    let whole = listing.document();
    for part in 0..20 {
        let cut = whole[..whole.len() * part / 20].to_vec();
        assert!(matches!(listing::parse(&cut), Err(ListingError::Canonical(_))));
    }
    assert!(matches!(listing::parse(&Changing(whole.clone(), true.into())), Err(ListingError::Changing)));
    let edited = String::from_utf8(whole.clone()).unwrap().replacen("\"files\":[", "\"files\":[ ", 1);
    assert!(listing::parse(&edited.into_bytes()).is_ok(), "white space changes nothing");
    let edited = String::from_utf8(whole).unwrap().replacen("0600", "0640", 1).into_bytes();
    assert!(matches!(listing::parse(&edited), Err(ListingError::Digest { .. })));

    type Edit = fn(&mut Value);
    let cases: [(Edit, &str); 31] = [
        (
            |l| entry(l, "PG_VERSION")["path"] = json!("../x"),
            "\"../x\" has an empty, \".\" or \"..\" component at line",
        ),
        (|l| entry(l, "PG_VERSION")["path"] = json!("/etc/passwd"), "is absolute"),
        (|l| entry(l, "PG_VERSION")["path"] = json!("%2E"), "component"),
        (|l| entry(l, "PG_VERSION")["path"] = json!("%50G"), "is not escaped"),
        (|l| entry(l, "PG_VERSION")["path"] = json!("base"), " is there twice or out of order at line"),
        (|l| entry(l, "PG_VERSION")["path"] = json!("zz"), " is there twice or out of order at line"),
        (|l| entry(l, "PG_VERSION")["kind"] = json!("socket"), "unknown variant `socket`"),
        (|l| entry(l, "PG_VERSION")["kind"] = json!("directory"), "a directory has neither a size nor"),
        (|l| entry(l, "PG_VERSION")["size"] = json!(null), "a file has a size"),
        (|l| entry(l, "PG_VERSION")["size"] = json!(-1), "invalid value"),
        (|l| entry(l, "PG_VERSION")["link"] = json!("x"), "a file has a size and no link's text"),
        (|l| entry(l, "PG_VERSION")["modified"] = json!("now"), "no time of the form"),
        (|l| entry(l, "PG_VERSION")["mode"] = json!("rw"), "no file mode"),
        (|l| entry(l, "base")["modified"] = json!("1.000000000"), "only a file has a time"),
        (|l| entry(l, "base")["kind"] = json!("symlink"), "base/1 lies in base, which is a symlink"),
        (|l| digests(l)["piece"] = json!(0), "the digests are not those"),
        (|l| digests(l)["piece"] = json!(u32::MAX), "the digests are not those"),
        (|l| digests(l)["sha256"] = json!("00"), "the digests are not those"),
        (|l| digests(l)["sha256"] = json!("zz"), "lower-case hexadecimal"),
        (|l| l["after"]["control_file"] = json!("00"), "stopped directory has changed"),
        (|l| both(l, "control_file", json!("ab".repeat(8193))), "a control file has 8192 bytes"),
        (|l| both(l, "position", json!({"in_recovery": false, "lsn": "0/1"})), "a stopped directory has none"),
        (|l| l["kind"] = json!("live_server"), "a server has a position"),
        (|l| l["primary_conninfo"] = json!("host=x"), "nobody can connect"),
        (|l| l["files"] = json!([l["files"][0], l["files"][0]]), "pg_hba.conf is there twice"),
        (|l| l["files"][0]["content"] = json!("100%"), "not escaped"),
        (
            |l| l["names"]["databases"] = json!([{"name": "a", "oid": 5}, {"name": "b", "oid": 5}]),
            "names: the database 5 is there twice",
        ),
        (
            |l| {
                let twice = json!({"name": "a", "relation": "1663/5/1"});
                l["names"]["relations"] = json!([twice, twice]);
            },
            "names: the relation 1663/5/1 is there twice",
        ),
        (|l| l["records"][0]["sha256"] = json!("00"), "has no SHA-256"),
        (|l| l["records"][1] = l["records"][0].clone(), "is there twice or out of order"),
        (|l| l["format_version"] = json!("2.0"), "the listing has format \"2.0\""),
    ];
    for (edit, expected) in cases {
        let mut document = listing.json();
        edit(&mut document);
        let error = listing::parse(&signed(&document)).map(|_| ()).expect_err(expected).to_string();
        assert!(error.contains(expected), "{expected:?}: {error}");
    }
}

/// What a listing says of the source is judged as if the source had said it.
#[test]
fn listings_of_what_no_source_can_be() {
    let pair = Pair::shared(Major(16));
    let listing = Listing::of(Source::Directory(&pair.source));
    let mut other = listing.json();
    both(&mut other, "control_file", json!("00"));
    fs::write(listing.path(), signed(&other)).unwrap();
    let outcome = listing.plan(&pair.target, &[]).1;
    assert_eq!(outcome.status.code(), Some(4), "{outcome}");
    assert!(outcome.stderr.contains("the source's global/pg_control cannot be used"), "{outcome}");
    let mut deep = b"{\"address\":".to_vec();
    deep.resize(1_000_000, b'[');
    assert!(listing::parse(&deep).is_err());
}

fn both(listing: &mut Value, field: &str, value: Value) {
    listing["before"][field] = value.clone();
    listing["after"][field] = value;
}

fn entry<'v>(listing: &'v mut Value, path: &str) -> &'v mut Value {
    listing["entries"].as_array_mut().unwrap().iter_mut().find(|entry| entry["path"] == path).unwrap()
}

/// The digests of a file of several blocks.
fn digests(listing: &mut Value) -> &mut Value {
    let mut entries = listing["entries"].as_array_mut().unwrap().iter_mut();
    let entry = entries.find(|entry| entry["digests"]["piece"] == 8192 && entry["size"].as_u64() > Some(8192));
    &mut entry.unwrap()["digests"]
}

/// A document that is another one once its end was read.
struct Changing(Vec<u8>, std::cell::Cell<bool>);

impl ReadAt for Changing {
    fn length(&self) -> pg_unfork::error::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> pg_unfork::error::Result<usize> {
        let rest = &self.0[(offset as usize).min(self.0.len())..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        if rest.is_empty() && self.1.replace(false) {
            return Ok(0);
        }
        // The second time, a line's end is a space.
        if !self.1.get() && offset == 0 && count > 1 && buffer[1] == b'\n' {
            buffer[1] = b' ';
        }
        Ok(count)
    }
}
