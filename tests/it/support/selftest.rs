//! Proves the harness: with PostgreSQL's own pg_rewind, every pair ends well.

use std::fs;

use super::cluster::{Cluster, InitOptions};
use super::for_each_major;
use super::life::{assert_can_lead, assert_follows, assert_sound_at_rest};
use super::pair::Pair;
use super::servers::Major;
use super::stock::{self, Source};
use super::tree::{self, Tree};
use super::workload::REWIND_USER;

for_each_major!(stock_from_directory, stock_from_server, simple_pair);

fn stock_from_directory(major: Major) {
    let Pair { source, target } = Pair::shared(major).copy();
    let rewound = stock::rewind(&target, Source::Directory(&source), &[]).success();
    assert!(rewound.stderr.contains("Done!"), "{rewound}");
    repair(&target);
    source.start();
    target.follow(&source);
    assert_follows(&target, &source);
    assert_sound_at_rest(&target);
    assert_can_lead(&target, &source);
}

fn stock_from_server(major: Major) {
    let Pair { source, target } = Pair::shared(major).copy();
    source.start();
    let arguments = ["-R", "--debug"];
    let _ = stock::rewind(&target, Source::Server(&source, REWIND_USER), &arguments).success();
    repair(&target);
    source.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
    assert_follows(&target, &source);
    assert_sound_at_rest(&target);
}

fn simple_pair(major: Major) {
    let pair = Pair::simple(major, |builder| {
        builder
            .init(InitOptions { linked_wal: true, ..InitOptions::default() })
            .config("wal_log_hints = on\n")
            .on_source_after_fork(|source| {
                source.sql("postgres", "INSERT INTO rows (origin) VALUES ('hook')");
            })
    });
    for cluster in [&pair.source, &pair.target] {
        assert_eq!(cluster.links(), [cluster.path("pg_wal")]);
        assert_eq!(fs::read_link(cluster.path("pg_wal")).unwrap(), cluster.location("pg_wal"));
    }
    let before = Tree::of(&pair.target);
    let copy = pair.copy_target();
    let changes = tree::diff(&before, &Tree::of(&copy), &|_| false);
    assert_eq!(changes, Vec::<String>::new());
    let _ = stock::rewind(&copy, Source::Server(&pair.source, "postgres"), &["-R"]).success();
    let changes = tree::diff(&before, &Tree::of(&copy), &|path| path.starts_with("base"));
    assert!(changes.iter().any(|line| line.starts_with("\"standby.signal\": only right")), "{changes:#?}");
    assert_follows(&copy, &pair.source);
    let origins = "SELECT origin, count(*) FROM rows GROUP BY 1 ORDER BY 1";
    let expected = [["common", "1000"], ["hook", "1"], ["source", "1000"]];
    assert_eq!(copy.rows("postgres", origins), expected);
    assert_sound_at_rest(&copy);
}

/// Makes good what the stock tool of 13 leaves broken (in a database that the target dropped and
/// in one that the source made), and shows that only 13 does.
fn repair(target: &Cluster) {
    let expected = if target.major().0 == 13 { 2 } else { 0 };
    assert_eq!(stock::restore_missing_pg_version(target), expected);
}
