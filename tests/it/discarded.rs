//! What a plan says is lost is what the test has done: transactions, relations, databases, names and the verdict; on
//! real pairs, of a target that is stopped, and in a preview of one that is running or has crashed.

use std::collections::BTreeMap;

use pg_unfork::types::Lsn;
use serde_json::{Value, json};

use crate::support::cluster::{Cluster, InitOptions, Stop};
use crate::support::for_each_major;
use crate::support::outcome::Outcome;
use crate::support::pair::{Pair, PairBuilder};
use crate::support::replication::RecoveryConfig;
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::{Plan, pg_unfork};
use crate::support::tree::{self, Tree};
use crate::support::workload::{self, REWIND_USER};

for_each_major!(work_that_is_lost);

fn work_that_is_lost(major: Major) {
    let pair = PairBuilder::new(major).before_backup(|primary| drop(primary.sql("postgres", COMMON))).build();
    let lost = |pair: &Pair| discarded(pair, "postgres");
    assert_eq!(lost(&pair)["verdict"], "nothing", "{:#}", lost(&pair));

    pair.target.start();
    pair.target.checkpoint();
    pair.target.sql("postgres", "VACUUM (ANALYZE) shrunk; ANALYZE kept");
    pair.target.stop(Stop::Fast);
    let maintained = lost(&pair);
    assert_eq!(maintained["verdict"], "maintenance_only", "{maintained:#}");
    assert!(maintained["transactions"]["committed"].as_u64().unwrap() >= 2, "{maintained:#}");
    let shrunk = relation(&maintained, "public.shrunk");
    assert_eq!((&shrunk["records"]["truncate"], &shrunk["records"]["insert"]), (&json!(1), &json!(0)), "{shrunk:#}");
    assert!(shrunk["records"]["vacuum"].as_u64().unwrap() > 0, "{shrunk:#}");

    pair.target.start();
    pair.target.checkpoint();
    let done = Done::by(&pair.target);
    let running = preview(&pair);
    done.assert_in(&running);
    pair.target.stop(Stop::Immediate);
    let crashed = preview(&pair);
    assert_eq!(essence(&crashed), essence(&running));
    pair.target.start();
    pair.target.stop(Stop::Fast);
    let stopped = lost(&pair);
    done.assert_in(&stopped);
    assert_eq!(essence(&stopped), essence(&running));
    assert_names(&pair, &stopped);
}

/// What a standby has received and not replayed is lost with it, too.
#[test]
fn received_and_not_replayed() {
    let primary = Cluster::initdb(Major(15), &InitOptions::default());
    primary.start();
    workload::prepare(&primary);
    primary.sql("postgres", "CREATE TABLE kept AS SELECT g FROM generate_series(1, 1000) g");
    let [target, source] = [(); 2].map(|()| {
        let standby = primary.basebackup_standby(RecoveryConfig::Basebackup);
        standby.start();
        standby
    });
    [&target, &source].into_iter().for_each(|standby| standby.wait_for_catchup(&primary));
    source.leave_upstream();
    primary.checkpoint();
    primary.sql("postgres", "VACUUM (ANALYZE) kept");
    primary.checkpoint();
    target.wait_for_catchup(&primary);
    target.checkpoint();
    target.sql("postgres", "SELECT pg_wal_replay_pause()");
    target.wait_for("postgres", "pg_get_wal_replay_pause_state() = 'paused'");
    primary.sql("postgres", "INSERT INTO kept VALUES (-1)");
    let end = primary.wal_end();
    target.wait_for("postgres", &format!("pg_last_wal_receive_lsn() >= '{end}'"));
    source.promote();
    source.checkpoint();
    target.stop(Stop::Fast);
    let plan = Plan::of(&target, Source::Server(&source, REWIND_USER), &["-R"]).json();
    assert_eq!((plan["verdict"].as_str(), plan["discarded"]["verdict"].as_str()), (Some("rewind"), Some("data")));
    let through = |section: &Value| section.as_str().unwrap().parse::<Lsn>().unwrap();
    assert!(
        through(&plan["discarded"]["through"]) > through(&plan["wal"]["scanned"]["through"]),
        "{:#}",
        plan["discarded"]
    );
}

const COMMON: &str = "
    CREATE TABLE kept (id int PRIMARY KEY, v text);
    INSERT INTO kept SELECT g, 'common' FROM generate_series(1, 100) g;
    CREATE TABLE shrunk (id int);
    INSERT INTO shrunk SELECT g FROM generate_series(1, 5000) g;
    DELETE FROM shrunk WHERE id > 100;
    CREATE TABLE gone (id int);
    CREATE TABLE emptied AS SELECT 1 AS id;
    CREATE SCHEMA \"Odd schema\";
    CREATE TABLE \"Odd schema\".\"a table|<b>\" (id int);
    CREATE SEQUENCE counter;
    CREATE DATABASE old;
    CREATE DATABASE moved;
    CREATE DATABASE closed;
    REVOKE CONNECT ON DATABASE closed FROM PUBLIC;
    \\c old
    CREATE TABLE inhabitant (id int);
    \\c closed
    CREATE TABLE inhabitant (id int);";

/// The part of a plan that says what is lost.
fn discarded(pair: &Pair, user: &str) -> Value {
    Plan::of(&pair.target, Source::Server(&pair.source, user), &[]).json()["discarded"].clone()
}

/// The same of a preview, which changes nothing and cannot be applied.
fn preview(pair: &Pair) -> Value {
    let source = Source::Server(&pair.source, "postgres");
    let before = (!pair.target.is_running()).then(|| Tree::of(&pair.target));
    let plan = Plan::of(&pair.target, source, &["--preview"]);
    let document = plan.json();
    assert_eq!((&document["scope"], &document["applyable"]), (&json!("preview"), &json!(false)));
    assert_eq!(document["verdict"], "rewind");
    assert!(document["totals"]["bytes"].as_u64().unwrap() > 0, "{:#}", document["totals"]);
    let status = |id: &str| {
        let checks = document["checks"].as_array().unwrap();
        checks.iter().find(|check| check["id"] == id).unwrap()["status"].clone()
    };
    assert_eq!((status("preview"), status("target_is_stopped")), (json!("warn"), json!("warn")));
    let refused = plan.apply(&[]);
    assert_eq!(refused.status.code(), Some(4), "{refused}");
    assert!(refused.stderr.contains("--preview"), "{refused}");
    let shown = Outcome::of(pg_unfork(&["show"]).arg(plan.path())).success();
    assert!(shown.stdout.contains("preview"), "{shown}");
    if let Some(before) = before {
        assert_eq!(tree::diff(&before, &Tree::of(&pair.target), &|_| false), [""; 0]);
    } else {
        let (_, refused) = Plan::make(&pair.target, source, &[]);
        assert_eq!(refused.status.code(), Some(4), "{refused}");
    }
    document["discarded"].clone()
}

/// What does not change while a server is stopped and started.
fn essence(discarded: &Value) -> Value {
    let relations = discarded["relations"].as_array().unwrap().iter().map(|found| {
        let records = &found["records"];
        json!([
            found["relation"],
            found["created"],
            found["dropped"],
            records["insert"],
            records["update"],
            records["delete"],
            records["ddl"],
            records["truncate"],
            records["index"]
        ])
    });
    // Those of which only hint bits were written are not of interest.
    let relations: Vec<Value> = relations
        .filter(|found| found.as_array().unwrap()[1..].iter().any(|n| *n != json!(0) && *n != json!(false)))
        .collect();
    let part = |name: &str| discarded[name].clone();
    json!([
        part("verdict"),
        part("transactions"),
        part("commits"),
        part("commits_left_out"),
        part("first_commit"),
        part("last_commit"),
        part("tablespaces"),
        relations
    ])
}

#[track_caller]
fn relation<'a>(discarded: &'a Value, name: &str) -> &'a Value {
    let relations = discarded["relations"].as_array().unwrap();
    relations.iter().find(|found| found["name"] == name).unwrap_or_else(|| panic!("{name}: {relations:#?}"))
}

/// What was done on a target after the fork.
struct Done {
    /// The files of relations, as the plan calls them, by name.
    files: BTreeMap<&'static str, String>,
    /// Transactions, each with the names of relations that it must have, and the only ones of users.
    transactions: Vec<(u32, Vec<&'static str>)>,
    /// Database oids by name.
    databases: BTreeMap<String, u64>,
}

impl Done {
    fn by(target: &Cluster) -> Self {
        let files = |database: &str, names: &[&'static str]| -> BTreeMap<&'static str, String> {
            names.iter().map(|&name| (name, file_of(target, database, name))).collect()
        };
        let mut done = Self {
            files: files("postgres", &["kept", "gone", "emptied", "\"Odd schema\".\"a table|<b>\"", "counter"]),
            transactions: Vec::new(),
            databases: BTreeMap::new(),
        };
        let mut add = |sql: &str, touched: &[&'static str]| {
            done.transactions.push((transact(target, sql), touched.to_vec()));
        };
        add("INSERT INTO kept SELECT g, 'target' FROM generate_series(101, 110) g", &["kept"]);
        add("UPDATE kept SET v = 'target' WHERE id <= 3; DELETE FROM kept WHERE id IN (4, 5)", &["kept"]);
        add("INSERT INTO \"Odd schema\".\"a table|<b>\" VALUES (1)", &["\"Odd schema\".\"a table|<b>\""]);
        add("SELECT nextval('counter')", &["counter"]);
        add(
            "SAVEPOINT a; INSERT INTO emptied VALUES (2); RELEASE a; INSERT INTO kept VALUES (200, 'x'); SAVEPOINT b;
             INSERT INTO gone VALUES (3); ROLLBACK TO b",
            &["emptied", "kept"],
        );
        add("DROP TABLE gone", &[]);
        target.sql("postgres", OTHERS);
        done.files.extend(files("postgres", &["made", "truncated"]));
        let location = target.location("new");
        let moves = format!(
            "CREATE TABLESPACE new LOCATION '{}'; ALTER DATABASE moved SET TABLESPACE new;
             ALTER DATABASE moved SET TABLESPACE pg_default; DROP TABLESPACE new",
            location.display()
        );
        target.sql("postgres", &moves);
        for row in target.rows("postgres", "SELECT datname, oid FROM pg_database") {
            done.databases.insert(row[0].clone(), row[1].parse().unwrap());
        }
        done
    }

    /// Panics unless the plan says so.
    fn assert_in(&self, discarded: &Value) {
        assert_eq!(discarded["verdict"], "data");
        let counts = &discarded["transactions"];
        // The savepoint that was rolled back, ROLLBACK and ROLLBACK PREPARED.
        assert_eq!((&counts["aborted"], &counts["prepared"]), (&json!(3), &json!(1)), "{counts:#}");
        let commits = discarded["commits"].as_array().unwrap();
        assert_eq!(counts["committed"], commits.len());
        for (xid, touched) in &self.transactions {
            let commit = commits.iter().find(|commit| commit["xid"] == *xid).expect("a transaction that committed");
            let relations = commit["relations"].as_array().unwrap();
            let is_users =
                |file: &&Value| file.as_str().unwrap().rsplit('/').next().unwrap().parse::<u32>().unwrap() >= 16_384;
            let mut found: Vec<&str> = relations.iter().filter(is_users).map(|file| file.as_str().unwrap()).collect();
            let mut expected: Vec<&str> = touched.iter().map(|name| self.files[name].as_str()).collect();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "transaction {xid}");
        }
        let by_file = |name: &str| {
            let mut relations = discarded["relations"].as_array().unwrap().iter();
            relations.find(|found| found["relation"] == self.files[name]).unwrap_or_else(|| panic!("{name}"))
        };
        let kept = &by_file("kept");
        // Ten rows, one beside subtransactions, and one that was rolled back.
        assert_eq!(kept["records"]["insert"], 12);
        assert_eq!((&kept["records"]["update"], &kept["records"]["delete"]), (&json!(3), &json!(2)));
        assert_eq!((&kept["blocks"], &kept["name"]), (&json!(1), &json!("public.kept")));
        assert_eq!(by_file("gone")["dropped"], true);
        assert_eq!(by_file("emptied")["dropped"], true);
        let made = by_file("made");
        assert_eq!(
            (&made["created"], &made["name"], &made["records"]["insert"]),
            (&json!(true), &Value::Null, &json!(500))
        );
        assert_eq!(by_file("counter")["records"]["other"], 1);
        self.assert_places(discarded);
    }

    fn assert_places(&self, discarded: &Value) {
        let databases = discarded["databases"].as_array().unwrap();
        let fate = |name: &str| {
            let found = databases.iter().find(|found| found["oid"] == self.databases[name])?;
            Some((found["created"] == true, found["dropped"] == true, found["name"].as_str()))
        };
        assert_eq!(fate("fresh"), Some((true, false, None)));
        assert_eq!(fate("moved"), Some((false, false, Some("moved"))));
        assert_eq!(fate("closed"), Some((false, false, Some("closed"))));
        let dropped: Vec<_> =
            databases.iter().filter(|found| found["dropped"] == true).map(|found| &found["name"]).collect();
        assert_eq!(dropped, ["old"]);
        let tablespaces = discarded["tablespaces"].as_array().unwrap();
        assert_eq!(tablespaces.len(), 1);
        assert_eq!((&tablespaces[0]["created"], &tablespaces[0]["dropped"]), (&json!(true), &json!(true)));
    }
}

const OTHERS: &str = "
    CREATE TABLE made AS SELECT g AS id FROM generate_series(1, 500) g;
    CREATE TABLE truncated AS SELECT 1 AS id;
    TRUNCATE emptied;
    CREATE INDEX ON kept (v);
    BEGIN; INSERT INTO kept VALUES (300, 'rolled back'); ROLLBACK;
    BEGIN; UPDATE shrunk SET id = 0 WHERE id = 1; PREPARE TRANSACTION 'left';
    BEGIN; UPDATE shrunk SET id = 0 WHERE id = 2; PREPARE TRANSACTION 'undone';
    BEGIN; UPDATE shrunk SET id = 0 WHERE id = 3; PREPARE TRANSACTION 'done';
    ROLLBACK PREPARED 'undone';
    COMMIT PREPARED 'done';
    CREATE DATABASE fresh;
    DROP DATABASE old;
    \\c closed
    INSERT INTO inhabitant VALUES (1);";

/// Runs statements in one transaction, and gives its id.
fn transact(cluster: &Cluster, sql: &str) -> u32 {
    let answer = cluster.sql("postgres", &format!("BEGIN; {sql}; SELECT pg_current_xact_id(); COMMIT"));
    answer.lines().last().and_then(|xid| xid.parse().ok()).expect("a transaction's id")
}

/// A relation's file, in the default tablespace.
fn file_of(cluster: &Cluster, database: &str, name: &str) -> String {
    let query = format!(
        "SELECT '1663/' || oid || '/' || pg_relation_filenode('{name}') FROM pg_database WHERE datname = current_database()"
    );
    cluster.sql(database, &query)
}

/// Names are those that the role can see: where it may not connect, relations have none.
fn assert_names(pair: &Pair, as_superuser: &Value) {
    let names = |discarded: &Value| -> BTreeMap<String, Option<String>> {
        let relations = discarded["relations"].as_array().unwrap().iter();
        relations.map(|found| (found["relation"].to_string(), found["name"].as_str().map(str::to_owned))).collect()
    };
    assert_eq!(relation(as_superuser, "\"Odd schema\".\"a table|<b>\"")["records"]["insert"], 1);
    assert_eq!(relation(as_superuser, "public.inhabitant")["records"]["insert"], 1);
    assert_eq!(relation(as_superuser, "pg_catalog.pg_database")["relation"], "1664/0/1262");
    let as_role = discarded(pair, REWIND_USER);
    let (all, fewer) = (names(as_superuser), names(&as_role));
    assert_eq!(all.keys().collect::<Vec<_>>(), fewer.keys().collect::<Vec<_>>());
    let lacking: Vec<&str> =
        all.iter().filter(|(file, name)| fewer[*file] != **name).filter_map(|(_, name)| name.as_deref()).collect();
    assert!(lacking.contains(&"public.inhabitant"), "{lacking:?}");
    assert!(!lacking.contains(&"public.kept"), "{lacking:?}");
    assert_eq!(as_role["databases"], as_superuser["databases"]);
    assert_eq!(essence(&as_role), essence(as_superuser));
}
