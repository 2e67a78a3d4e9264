//! What is in a cluster: every kind of WAL record that changes relations.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::path::Path;

use super::scenarios;
use crate::support::cluster::{Cluster, InitOptions, Stop};
use crate::support::custom_wal;
use crate::support::likeness::From;
use crate::support::pair::{Pair, PairBuilder};
use crate::support::servers::Major;
use crate::support::stock::{self, Source};
use crate::support::tool::Plan;
use crate::support::tree::{self, Tree};

scenarios! {
    rich_pair: v13 Stopped, v14 Stopped, v15 Stopped, v16 Stopped, v17 Stopped, v18 Stopped, v19 Stopped;
    basics: v13 Stopped, v17 Live;
    databases: v14 Stopped, v16 Live;
    second_segment: v15 Stopped, v18 Live;
    compressed_images: v13 Live, v14 Live, v15 Stopped, v16 Stopped, v17 Live, v18 Stopped, v19 Live;
    index_structures: v14 Live, v19 Stopped;
    logical: v13 Stopped, v17 Live;
    row_locks: v16 Stopped, v19 Live;
    relation_maps: v15 Live, v18 Stopped;
    rewrites: v14 Stopped, v18 Live;
    same_file_numbers: v15 Live, v17 Stopped;
    hint_bits: v13 Live, v19 Stopped;
    hint_bits_without_checksums: v16 Live, v14 Stopped;
    custom_resource_manager: v16 Stopped, v18 Live;
    custom_change_of_relation_files: v15 Stopped, v17 Live;
}

/// Runs a script that must succeed.
#[track_caller]
fn run(cluster: &Cluster, script: &str) {
    let _ = cluster.psql("postgres", script, &[]).success();
}

/// A pair on whose target `common` happens before the backup and `target` after the fork, with
/// records of these `kinds`; and on whose source `source` happens.
#[track_caller]
fn pair_with(major: Major, config: &str, [common, target, source]: [&str; 3], kinds: &[&str]) -> Pair {
    Pair::simple(major, |builder| {
        builder
            .config(config)
            .before_backup(|primary| run(primary, common))
            .on_target_after_fork(|cluster| {
                let start = cluster.wal_position();
                run(cluster, target);
                cluster.assert_wrote(&start, &cluster.wal_end(), kinds);
            })
            .on_source_after_fork(|cluster| run(cluster, source))
    })
}

/// The rich pair, with which every major is compared with stock, has what it claims to have.
fn rich_pair(major: Major, from: From) {
    let pair = Pair::shared(major);
    let plan = Plan::of(&pair.target, pair.source(from), &[]).json();
    let kinds = [
        "XLOG/FPI",
        "XLOG/FPI_FOR_HINT",
        "Transaction/PREPARE",
        "Transaction/ABORT_PREPARED",
        "Transaction/ASSIGNMENT",
        "Transaction/ABORT",
        "Storage/CREATE",
        "Storage/TRUNCATE",
        "Database/DROP",
        "MultiXact/CREATE_ID",
        "RelMap/UPDATE",
        "Standby/LOCK",
        "Heap/HOT_UPDATE",
        "Heap/INPLACE",
        "Btree/SPLIT_R",
        "Hash/INSERT",
        "Gin/INSERT_LISTPAGE",
        "Gist/PAGE_UPDATE",
        "Sequence/LOG",
        "SPGist/ADD_LEAF",
        "BRIN/CREATE_INDEX",
        "Generic/Generic",
        "LogicalMessage/MESSAGE",
    ];
    let created = match major.0 {
        ..=14 => &["Database/CREATE"][..],
        _ => &["Database/CREATE_WAL_LOG", "Database/CREATE_FILE_COPY"],
    };
    let position = |end: &str| plan["discarded"][end].as_str().unwrap().to_owned();
    pair.target.assert_wrote(&position("from"), &position("through"), &[&kinds, created].concat());
}

/// The tables of PostgreSQL's own first test of pg_rewind, and its probes.
fn basics(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| {
        builder
            .before_backup(|primary| {
                run(
                    primary,
                    "CREATE TABLE tbl1 (d text);
                     INSERT INTO tbl1 VALUES ('in primary');
                     CREATE TABLE trunc_tbl (d text);
                     INSERT INTO trunc_tbl VALUES ('in primary');
                     CREATE TABLE tail_tbl (id integer, d text);
                     INSERT INTO tail_tbl VALUES (0, 'in primary');
                     CREATE TABLE drop_tbl (d text);
                     INSERT INTO drop_tbl VALUES ('in primary');
                     CHECKPOINT",
                );
                if major.0 >= 17 {
                    run(primary, "CREATE TABLESPACE space_tbl LOCATION ''");
                    run(primary, "CREATE TABLE space_tbl (d text) TABLESPACE space_tbl");
                    run(primary, "INSERT INTO space_tbl VALUES ('in primary, before promotion')");
                }
            })
            .before_fork(|primary| {
                run(
                    primary,
                    "INSERT INTO tbl1 VALUES ('in primary, before promotion');
                     INSERT INTO trunc_tbl VALUES ('in primary, before promotion');
                     INSERT INTO tail_tbl SELECT g, 'in primary, before promotion: ' || g FROM generate_series(1, 10000) g;
                     CHECKPOINT",
                );
            })
            .on_target_after_fork(|target| {
                run(
                    target,
                    "INSERT INTO tbl1 VALUES ('in primary, after promotion');
                     INSERT INTO trunc_tbl SELECT 'in primary, after promotion: ' || g FROM generate_series(1, 10000) g;
                     DELETE FROM tail_tbl WHERE id > 10;
                     VACUUM tail_tbl;
                     DROP TABLE drop_tbl",
                );
            })
            .on_source_after_fork(|source| run(source, "INSERT INTO tbl1 VALUES ('in standby, after promotion')"))
    });
    probe(&pair);
    pair.assert_like_stock_and_lives(from);
    pair.target.start();
    let count = |table: &str| pair.target.sql("postgres", &format!("SELECT count(*) FROM {table}"));
    assert_eq!(["tbl1", "trunc_tbl", "tail_tbl", "drop_tbl"].map(count), ["3", "2", "10001", "1"]);
}

/// What must be refused, or change nothing: the target runs; a local source runs; there is only a plan.
#[track_caller]
fn probe(pair: &Pair) {
    let Pair { source, target } = pair;
    let running_target = pair.copy_target();
    running_target.start();
    let (_, outcome) = Plan::make(&running_target, Source::Server(source, "postgres"), &[]);
    assert_eq!(outcome.status.code(), Some(4), "{outcome}");
    assert!(outcome.stderr.contains("running"), "{outcome}");
    let (_, outcome) = Plan::make(target, Source::Directory(source), &[]);
    assert_eq!(outcome.status.code(), Some(4), "{outcome}");
    assert!(outcome.stderr.contains("source state: in production"), "{outcome}");
    source.stop(Stop::Fast);
    let before = [Tree::of(target), Tree::of(source)];
    let _ = Plan::of(target, Source::Directory(source), &[]);
    assert_eq!(tree::diff(&before[0], &Tree::of(target), &|_| false), [""; 0]);
    assert_eq!(tree::diff(&before[1], &Tree::of(source), &|_| false), [""; 0]);
    source.start();
}

/// Databases of each side and of both, by each strategy, in a cluster with group access.
pub(super) fn databases(major: Major, from: From) {
    let create = |cluster: &Cluster, name: &str| {
        let strategies = if major.0 >= 15 { &["file_copy", "wal_log"][..] } else { &[] };
        cluster.sql("postgres", &format!("CREATE DATABASE {name}"));
        for strategy in strategies {
            cluster.sql("postgres", &format!("CREATE DATABASE {name}_{strategy} STRATEGY {strategy}"));
            cluster.sql(&format!("{name}_{strategy}"), "CREATE TABLE inside AS SELECT 1 AS one");
        }
    };
    let options = InitOptions { arguments: vec!["--allow-group-access".to_owned()], ..InitOptions::default() };
    let pair = Pair::simple(major, |builder| {
        builder
            .init(options)
            .before_backup(move |primary| create(primary, "inprimary"))
            .before_fork(move |primary| create(primary, "beforepromotion"))
            .on_target_after_fork(move |target| create(target, "primary_afterpromotion"))
            .on_source_after_fork(move |source| create(source, "standby_afterpromotion"))
    });
    pair.assert_like_stock_and_lives(from);
    let names = pair.source.databases();
    assert!(!names.iter().any(|name| name.starts_with("primary_")), "{names:?}");
    let odd: Vec<String> = Tree::of(&pair.target)
        .entries
        .into_iter()
        .filter(|(_, entry)| entry.mode != if entry.kind == "directory" { 0o750 } else { 0o640 })
        .map(|(path, _)| String::from_utf8_lossy(&path).into_owned())
        // Our own state is for nobody else, and these tests themselves made the signal file.
        .filter(|path| !path.starts_with(".pg_unfork") && path != "standby.signal")
        .collect();
    assert_eq!(odd, [""; 0]);
}

/// A table of more than a gigabyte, changed on both sides of the border between its files.
fn second_segment(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| {
        builder
            .before_backup(|primary| {
                run(primary, "CREATE TABLE large (id int, v text)");
                let file = primary.sql("postgres", "SELECT pg_relation_filepath('large')");
                // Pages of zeros are pages that nobody has used yet.
                primary.stop(Stop::Fast);
                OpenOptions::new().write(true).open(primary.path(&file)).unwrap().set_len(1 << 30).unwrap();
                primary.start();
                run(primary, "INSERT INTO large SELECT g, repeat('x', 1000) FROM generate_series(1, 1000) g");
                assert!(primary.path(format!("{file}.1")).exists());
            })
            .on_target_after_fork(|target| {
                run(
                    target,
                    "UPDATE large SET id = -id WHERE id IN (3, 500, 501);
                     INSERT INTO large SELECT g, repeat('t', 1000) FROM generate_series(1, 500) g",
                );
            })
            .on_source_after_fork(|source| {
                run(
                    source,
                    "UPDATE large SET id = -id WHERE id IN (4, 700);
                     INSERT INTO large SELECT g, repeat('s', 1000) FROM generate_series(1, 200) g",
                );
            })
    });
    let file = pair.source.sql("postgres", "SELECT pg_relation_filepath('large')");
    let plan = pair.assert_like_stock_and_lives(from);
    let patched = |path: &str| {
        plan["actions"].as_array().unwrap().iter().any(|action| {
            action["kind"] == "patch" && action["path"] == path && action["blocks"] != serde_json::json!([])
        })
    };
    assert!(patched(&file) && patched(&format!("{file}.1")), "{file}");
}

/// Full-page images by each method that the major has.
fn compressed_images(major: Major, from: From) {
    let methods: &[(&str, &str)] = match major.0 {
        ..=14 => &[("off", ""), ("on", "compression saved")],
        // That build is without zstd.
        15 => &[("off", ""), ("pglz", "method: pglz"), ("lz4", "method: lz4")],
        _ => &[("off", ""), ("pglz", "method: pglz"), ("lz4", "method: lz4"), ("zstd", "method: zstd")],
    };
    let pair = Pair::simple(major, |builder| {
        builder
            .before_backup(|primary| {
                for (method, _) in methods {
                    run(
                        primary,
                        &format!(
                            "CREATE TABLE by_{method} AS SELECT g, repeat('x', 50) FROM generate_series(1, 5000) g"
                        ),
                    );
                }
            })
            .before_fork(Cluster::checkpoint)
            .on_target_after_fork(|target| {
                for (method, text) in methods {
                    let start = target.wal_position();
                    run(
                        target,
                        &format!("SET wal_compression = {method}; UPDATE by_{method} SET g = -g WHERE g % 300 = 1"),
                    );
                    let dump = target.waldump(&start, &target.wal_end(), &["-b"]);
                    assert!(dump.contains("FPW") && dump.contains(text), "{method}: {dump}");
                }
            })
    });
    pair.assert_like_stock_and_lives(from);
}

/// Records of index access methods that mere inserts do not write.
fn index_structures(major: Major, from: From) {
    let common = include_str!("sql/indexes.sql");
    let change = include_str!("sql/indexes_after_fork.sql");
    let kinds = [
        "Btree/DEDUP",
        "Btree/VACUUM",
        "Btree/MARK_PAGE_HALFDEAD",
        "Btree/UNLINK_PAGE",
        "Hash/SPLIT_ALLOCATE_PAGE",
        "Hash/DELETE",
        "Gin/INSERT_LISTPAGE",
        "Gin/DELETE_LISTPAGE",
        "Gist/PAGE_SPLIT",
        "Gist/PAGE_UPDATE",
        "SPGist/PICKSPLIT",
        "SPGist/VACUUM_LEAF",
        "BRIN/SAMEPAGE_UPDATE",
        "BRIN/DESUMMARIZE",
        "Generic/Generic",
    ];
    let scripts = [common, &change.replace(":n", "1"), &change.replace(":n", "3")];
    pair_with(major, "", scripts, &kinds).assert_like_stock_and_lives(from);
}

/// Logical decoding: slots, messages, origins, and catalogs rewritten under a slot.
fn logical(major: Major, from: From) {
    let common = "
        SELECT pg_replication_origin_create('common');
        SELECT pg_create_logical_replication_slot('common', 'test_decoding')";
    let side = include_str!("sql/logical_after_fork.sql");
    let kinds = ["LogicalMessage/MESSAGE", "ReplicationOrigin/SET", "Heap2/NEW_CID", "Heap/TRUNCATE"];
    let [target, source] = ["target", "source"].map(|name| side.replace("SIDE", name));
    let pair = pair_with(major, "wal_level = logical\n", [common, &target, &source], &kinds);
    pair.assert_like_stock_and_lives(from);
    let slots = |cluster: &Cluster| -> BTreeSet<_> {
        fs::read_dir(cluster.path("pg_replslot")).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    assert_eq!(slots(&pair.target), BTreeSet::new(), "slots are the server's own");
    assert_eq!(slots(&pair.source).len(), 1);
    pair.target.start();
    let origins = "SELECT string_agg(roname, ',' ORDER BY roname) FROM pg_replication_origin";
    assert_eq!(pair.target.sql("postgres", origins), "common,of_source");
}

/// Rows locked by several transactions, thousands of times; and when each transaction ended.
fn row_locks(major: Major, from: From) {
    let common = "CREATE TABLE locked (id int PRIMARY KEY, v text) WITH (fillfactor = 30);
                  INSERT INTO locked SELECT g, 'common' FROM generate_series(1, 4000) g";
    let side = include_str!("sql/row_locks_after_fork.sql");
    let kinds = [
        "MultiXact/CREATE_ID",
        "MultiXact/ZERO_OFF_PAGE",
        "MultiXact/ZERO_MEM_PAGE",
        "Heap/LOCK",
        "Transaction/PREPARE",
        "Transaction/ASSIGNMENT",
    ];
    let [target, source] = ["target", "source"].map(|name| side.replace("SIDE", name));
    let pair = pair_with(major, "", [common, &target, &source], &kinds);
    pair.assert_like_stock_and_lives(from);
    pair.target.start();
    pair.source.wait_for_streaming();
    let ends = "SELECT md5(string_agg(concat(id, xmin, pg_xact_commit_timestamp(xmin)), ',' ORDER BY id)) FROM rows";
    assert_eq!(pair.target.sql("postgres", ends), pair.source.sql("postgres", ends));
    pair.target.promote();
    let locks = "SELECT md5(string_agg(concat(ctid, xmax), ',' ORDER BY ctid)) FROM locked";
    assert_eq!(pair.target.sql("postgres", locks), pair.source.sql("postgres", locks));
    let blocked = "SELECT count(*) FROM (SELECT FROM locked FOR UPDATE SKIP LOCKED) free";
    assert_eq!(pair.target.sql("postgres", blocked), "3500");
}

/// Catalogs that have their file from a map, rewritten by one side and by both.
fn relation_maps(major: Major, from: From) {
    let target = "VACUUM FULL pg_database; VACUUM FULL pg_proc; VACUUM FULL pg_type; VACUUM FULL pg_tablespace;
                  REINDEX TABLE pg_class;
                  \\c template1
                  VACUUM FULL pg_attribute; VACUUM FULL pg_shdepend";
    let source = "VACUUM FULL pg_authid; VACUUM FULL pg_class; VACUUM FULL pg_type; VACUUM FULL pg_tablespace;
                  \\c template1
                  VACUUM FULL pg_class; VACUUM FULL pg_shdepend";
    pair_with(major, "", ["SELECT 1", target, source], &["RelMap/UPDATE"]).assert_like_stock_and_lives(from);
}

/// Commands that give a table or an index another file, or cut the one that it has.
fn rewrites(major: Major, from: From) {
    let common = include_str!("sql/rewrites.sql");
    let target = include_str!("sql/rewrites_target.sql");
    let source = include_str!("sql/rewrites_source.sql");
    let freeze = if major.0 >= 17 { "Heap2/PRUNE_VACUUM_SCAN" } else { "Heap2/FREEZE_PAGE" };
    let kinds = ["Storage/CREATE", "Storage/TRUNCATE", "Heap2/VISIBLE", freeze, "XLOG/FPI"];
    pair_with(major, "", [common, target, source], &kinds).assert_like_stock_and_lives(from);
}

/// Files of the same name that the two sides made after the fork, for different tables.
fn same_file_numbers(major: Major, from: From) {
    let paths = [RefCell::new(BTreeSet::new()), RefCell::new(BTreeSet::new())];
    let create = |cluster: &Cluster, side: usize, rows: &str| {
        for table in 1..=20 {
            run(
                cluster,
                &format!(
                    "CREATE TABLE t{table} (v text); INSERT INTO t{table} SELECT '{side}' || g FROM generate_series(1, {rows}) g"
                ),
            );
        }
        let files =
            cluster.rows("postgres", "SELECT pg_relation_filepath(oid) FROM pg_class WHERE relname ~ '^t\\d+$'");
        paths[side].borrow_mut().extend(files.into_iter().flatten());
    };
    let pair = Pair::simple(major, |builder| {
        builder
            .on_target_after_fork(|target| {
                // A promoted standby takes OIDs from where the primary's last reservation ends.
                target.checkpoint();
                let reserved = &target.controldata()["Latest checkpoint's NextOID"];
                // One transaction each: every large object holds a lock.
                let burn =
                    format!("DO $$ BEGIN WHILE lo_create(0)::int < {reserved} - 1 LOOP COMMIT; END LOOP; END $$");
                run(target, &burn);
                create(target, 0, "3000");
            })
            .on_source_after_fork(|source| create(source, 1, "1000"))
    });
    let shared = paths[0].borrow().intersection(&paths[1].borrow()).count();
    assert!(shared >= 5, "{paths:?}");
    pair.assert_like_stock_and_lives(from);
}

/// Blocks in which nothing but hint bits changed.
#[track_caller]
fn hint_bits_with(major: Major, from: From, options: InitOptions, config: &str) {
    let pair = Pair::simple(major, |builder| {
        builder
            .init(options)
            .config(config)
            .before_backup(|primary| run(primary, "CREATE TABLE hinted (id int PRIMARY KEY, v text)"))
            .before_fork(|primary| {
                run(primary, "INSERT INTO hinted SELECT g, md5(g::text) FROM generate_series(1, 5000) g; CHECKPOINT");
            })
            .on_target_after_fork(|target| {
                let start = target.wal_position();
                run(target, "SELECT count(*) FROM hinted");
                target.assert_wrote(&start, &target.wal_end(), &["XLOG/FPI_FOR_HINT"]);
            })
    });
    let file = pair.source.sql("postgres", "SELECT pg_relation_filepath('hinted')");
    let plan = pair.assert_like_stock_and_lives(from);
    let actions = plan["actions"].as_array().unwrap();
    let action = actions.iter().find(|action| action["path"] == file.as_str()).expect("the table is patched");
    assert_eq!(action["kind"], "patch");
    assert!(Path::new(&file).starts_with("base"));
}

/// Hint bits in a cluster with checksums.
fn hint_bits(major: Major, from: From) {
    hint_bits_with(major, from, InitOptions::default(), "");
}

/// Hint bits in a cluster that only has wal_log_hints.
fn hint_bits_without_checksums(major: Major, from: From) {
    let options = InitOptions { checksums: false, ..InitOptions::default() };
    hint_bits_with(major, from, options, "wal_log_hints = on\n");
}

/// Records of an extension's resource manager, which alone know of a changed block.
fn custom_resource_manager(major: Major, from: From) {
    let library = custom_wal::build(major);
    let change = |cluster: &Cluster, value: i32| {
        let start = cluster.wal_position();
        let file = cluster.sql("postgres", "SELECT '/' || pg_relation_filenode('numbers') || ' '");
        // Once with an image of the page, as it is the first change since the checkpoint, and once without.
        run(
            cluster,
            &format!(
                "CHECKPOINT;
                 SELECT set_first_column('numbers'::regclass, 2, {value}), note(100, false);
                 SELECT set_first_column('numbers'::regclass, 2, {value} + 1), note(100000, false)"
            ),
        );
        let dump = cluster.waldump(&start, &cluster.wal_end(), &["-b"]);
        let mut record = "";
        for line in dump.lines() {
            if line.starts_with("rmgr") {
                record = line;
            }
            let touches = line.contains(&file) && line.contains("fork main");
            assert!(!touches || record.contains("custom128"), "{record}\n{line}");
        }
        assert!(dump.matches("rmgr: custom128").count() == 4 && dump.contains(&file), "{dump}");
    };
    let pair = PairBuilder::new(major)
        .config(&library.preload())
        .before_backup(|primary| {
            run(primary, &library.functions());
            run(primary, "CREATE TABLE numbers AS SELECT 0 AS n, repeat('x', 50) AS v FROM generate_series(1, 1000)");
            run(primary, "VACUUM FREEZE numbers");
        })
        .on_target_after_fork(|target| change(target, 10))
        .on_source_after_fork(|source| run(source, "SELECT note(10, false)"))
        .build();
    let file = pair.source.sql("postgres", "SELECT pg_relation_filepath('numbers')");
    let plan = pair.assert_like_stock_and_lives(from);
    let patch = plan["actions"].as_array().unwrap().iter().find(|action| action["path"] == file.as_str());
    assert_eq!(patch.expect("the table is patched")["blocks"], serde_json::json!([[2, 1]]));
    let warnings = plan["checks"].as_array().unwrap().iter().filter(|check| check["status"] == "warn");
    let warning = warnings.into_iter().find(|check| check["id"] == "custom_resource_managers").expect("a warning");
    let named = if from == From::Live { "128: custom_wal" } else { "128" };
    assert_eq!(warning["evidence"], serde_json::json!([named]));
}

/// A record that claims to change relation files in a way that only its resource manager knows.
fn custom_change_of_relation_files(major: Major, from: From) {
    let library = custom_wal::build(major);
    let pair = Pair::simple(major, |builder| {
        builder
            .config(&library.preload())
            .before_backup(|primary| run(primary, &library.functions()))
            .on_target_after_fork(|target| run(target, "SELECT note(10, true)"))
    });
    pair.settle(from);
    let stock_target = pair.copy_target();
    let refused = stock::rewind(&stock_target, pair.source(from), Pair::arguments(from)).failure();
    assert!(refused.stderr.contains("WAL record modifies a relation, but record type is not recognized"), "{refused}");
    let before = Tree::of(&pair.target);
    let (plan, outcome) = Plan::make(&pair.target, pair.source(from), Pair::arguments(from));
    assert_eq!(outcome.status.code(), Some(4), "{outcome}");
    assert!(outcome.stderr.contains("custom128"), "{outcome}");
    assert_eq!(plan.json()["verdict"], "impossible");
    assert_eq!(plan.apply(&[]).status.code(), Some(4));
    assert_eq!(tree::diff(&before, &Tree::of(&pair.target), &|_| false), [""; 0]);
}
