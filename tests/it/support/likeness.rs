//! Whether a rewound directory is what stock pg_rewind leaves, byte for byte; and scenarios that say so.

use std::collections::BTreeSet;
use std::fs;

use pg_unfork::format::ControlFile;
use pg_unfork::types::{Lsn, SegmentNumber, TimelineId, WalFileName, WalSegmentSize};
use serde_json::Value;

use super::cluster::{Cluster, Stop};
use super::life::{assert_follows, assert_sound_at_rest};
use super::pair::Pair;
use super::rewind::{course, is_through_drop_in};
use super::stock::{self, Source};
use super::tool::Plan;
use super::tree::{self, Tree};
use super::workload::REWIND_USER;

/// Where a scenario reads its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum From {
    /// The data directory of the stopped source.
    Stopped,
    /// The running source, as [`REWIND_USER`], with `-R`.
    Live,
}

/// Reads every row of every catalog.
const READ_CATALOGS: &str = "DO $$ DECLARE catalog regclass; BEGIN
    FOR catalog IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = 'pg_catalog'::regnamespace
    LOOP EXECUTE format('SELECT count(*) FROM %s', catalog); END LOOP; END $$";

impl Pair {
    /// Brings the source, which is running, into the state in which it is read.
    pub(crate) fn settle(&self, from: From) {
        match from {
            From::Stopped => self.source.stop(Stop::Fast),
            From::Live => {
                // Whoever reads a row first after its transaction ended may write to its page: stock reads the source later
                // than we do, and would find other bytes.
                for database in self.source.databases() {
                    self.source.sql(&database, READ_CATALOGS);
                }
                self.source.checkpoint();
            }
        }
    }

    /// The source as it is read.
    pub(crate) fn source(&self, from: From) -> Source<'_> {
        match from {
            From::Stopped => Source::Directory(&self.source),
            From::Live => Source::Server(&self.source, REWIND_USER),
        }
    }

    /// The options of plan, and of pg_rewind, that belong to it.
    pub(crate) fn arguments(from: From) -> &'static [&'static str] {
        match from {
            From::Stopped => &[],
            From::Live => &["-R"],
        }
    }

    /// Rewinds the target, and a copy of it with stock pg_rewind, and compares: gives the plan. The source is
    /// running before.
    #[track_caller]
    pub(crate) fn rewind_as_stock(&self, from: From) -> Value {
        self.settle(from);
        self.rewind_as_stock_settled(from)
    }

    /// The same with a source that is settled already.
    #[track_caller]
    pub(crate) fn rewind_as_stock_settled(&self, from: From) -> Value {
        self.rewind_beside_stock(&self.copy_target(), from)
    }

    /// The same, with a copy of the target that somebody else made and a source that is settled.
    #[track_caller]
    pub(crate) fn rewind_beside_stock(&self, stock_target: &Cluster, from: From) -> Value {
        let plan = Plan::of(&self.target, self.source(from), Self::arguments(from));
        let outcome = plan.apply(&[]).success();
        let open_segment = (from == From::Live).then(|| open_segment(&self.source));
        let stock = stock::rewind(stock_target, self.source(from), Self::arguments(from)).success();
        if is_through_drop_in() {
            assert_eq!(course(&outcome.stderr), course(&stock.stderr));
        }
        let plan = plan.json();
        assert_equal_outcome(&self.target, stock_target, &plan, open_segment.as_deref());
        plan
    }

    /// Starts the rewound target as a standby of the source and checks everything that it owes then; both
    /// are stopped, or the target is, at the end.
    #[track_caller]
    pub(crate) fn assert_lives(&self, from: From) {
        if from == From::Stopped {
            self.source.start();
            self.target.follow(&self.source);
        } else {
            self.source.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
        }
        assert_follows(&self.target, &self.source);
        assert_sound_at_rest(&self.target);
    }

    /// The usual end of a scenario: like stock, and alive. Gives the plan.
    #[track_caller]
    pub(crate) fn assert_like_stock_and_lives(&self, from: From) -> Value {
        let plan = self.rewind_as_stock(from);
        self.assert_lives(from);
        plan
    }
}

/// The segment that a running server, a standby maybe, is writing.
fn open_segment(server: &Cluster) -> String {
    if server.sql("postgres", "SELECT pg_is_in_recovery()") == "f" {
        return server.sql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())");
    }
    let timeline = server.sql("postgres", "SELECT received_tli FROM pg_stat_wal_receiver").parse().unwrap();
    let received: Lsn = server.sql("postgres", "SELECT pg_last_wal_receive_lsn()").parse().unwrap();
    let size = segment_size(server);
    let segment = SegmentNumber::of(Lsn::new(received.get() - 1), size);
    WalFileName { timeline: TimelineId::new(timeline), segment }.text(size)
}

fn segment_size(cluster: &Cluster) -> WalSegmentSize {
    let bytes = fs::read(cluster.path("global/pg_control")).expect("the control file");
    ControlFile::parse(&bytes).expect("a valid control file").geometry().wal_segment_size
}

/// Compares two rewound directories, byte for byte but for what is listed here. A live source is
/// never quite at rest: what it is writing, `open_segment`, and how far it is may differ.
#[track_caller]
pub(crate) fn assert_equal_outcome(ours: &Cluster, stock: &Cluster, plan: &Value, open_segment: Option<&str>) {
    // Stock 13 forgets PG_VERSION of databases that only the source has.
    stock::restore_missing_pg_version(stock);
    let mut explained = wal_that_replay_does_not_need(plan, segment_size(ours));
    // Stock copies, and removes, log files.
    let kept = plan["kept"].as_array().unwrap().iter().filter(|kept| kept["reason"] == "log_directory");
    explained.extend(kept.map(|kept| kept["path"].as_str().unwrap().to_owned()));
    let recovery = plan.get("recovery").is_some();
    let ignore = |path: &str| {
        // Our own state.
        path.split('/').any(|component| component == ".pg_unfork")
            // Compared below, but for the time of writing.
            || path == "global/pg_control" || path == "backup_label"
            // Stock writes libpq's defaults into primary_conninfo; compared below.
            || (recovery && path == "postgresql.auto.conf")
            // Stock 13 itself makes a live source write WAL.
            || open_segment.is_some_and(|segment| path.ends_with(segment))
            // Stock copies, and removes, WAL that recovery does not read.
            || explained.contains(path)
    };
    let differences = tree::diff(&Tree::of(ours), &Tree::of(stock), &|path| ignore(&path.to_string_lossy()));
    assert_eq!(differences, [""; 0]);
    assert_eq!(label(ours), label(stock));
    // Of a stopped standby stock takes the last checkpoint, which its pages may be beyond.
    let standby = plan["source"]["control_file"]["state"] == "shut_down_in_recovery";
    assert_equal_control_files(ours, stock, open_segment.is_some() || standby);
    if recovery {
        let settings = |cluster: &Cluster| {
            let text = fs::read_to_string(cluster.path("postgresql.auto.conf")).unwrap();
            let (own, others): (Vec<_>, Vec<_>) =
                text.lines().map(str::to_owned).partition(|line| line.starts_with("primary_conninfo"));
            (own.len(), others)
        };
        assert_eq!(settings(ours), settings(stock));
    }
}

/// The paths in `pg_wal` on which we differ from stock on purpose, as the plan says.
fn wal_that_replay_does_not_need(plan: &Value, size: WalSegmentSize) -> BTreeSet<String> {
    let path = |entry: &Value| entry["path"].as_str().unwrap().to_owned();
    let needed: BTreeSet<String> = plan["wal"]["segments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|segment| format!("pg_wal/{}", segment["file"].as_str().unwrap()))
        .collect();
    // What was proven to be equal is no exception.
    let kept = plan["kept"].as_array().unwrap().iter();
    let kept = kept.filter(|kept| kept["reason"] != "same_content" && kept["reason"] != "log_directory").map(path);
    let removed = plan["actions"].as_array().unwrap().iter();
    // What only the target has behind the fork must not be replayed; stock keeps the segments in which
    // it began and ended to read the record at the fork.
    let fork = plan["divergence"]["lsn"].as_str().unwrap().parse::<Lsn>().unwrap();
    let of_the_fork = SegmentNumber::of(fork, size);
    let is_behind_the_fork = |action: &Value| {
        let name = action["path"].as_str().unwrap().trim_start_matches("pg_wal/");
        action["kind"] == "remove"
            && WalFileName::parse(name.as_bytes(), size).is_some_and(|name| name.segment >= of_the_fork)
    };
    let removed =
        removed.filter(|action| action["reason"] == "not_in_source_history" || is_behind_the_fork(action)).map(path);
    let explained: BTreeSet<String> = kept.chain(removed).filter(|path| !needed.contains(path)).collect();
    assert!(explained.iter().all(|path| path.starts_with("pg_wal/")), "{explained:?}");
    explained
}

/// The backup label but for the time of writing.
pub(crate) fn label(cluster: &Cluster) -> Vec<String> {
    let text = fs::read_to_string(cluster.path("backup_label")).unwrap();
    assert!(text.contains("START TIME: "), "{text}");
    text.lines().filter(|line| !line.starts_with("START TIME: ")).map(str::to_owned).collect()
}

/// All of the file but its time, the CRC and, of a source of which we know better, the minimum recovery point.
fn assert_equal_control_files(ours: &Cluster, stock: &Cluster, known_better: bool) {
    let read = |cluster: &Cluster| {
        let mut bytes = fs::read(cluster.path("global/pg_control")).unwrap();
        let control = ControlFile::parse(&bytes).unwrap();
        let crc = control.facts().control.crc;
        bytes[24..32].fill(0);
        if known_better {
            let at = control.facts().control.min_recovery_point;
            bytes[at..at + 8].fill(0);
        }
        bytes[crc..crc + 4].fill(0);
        bytes
    };
    let (ours, stock) = (read(ours), read(stock));
    let differences: Vec<usize> = (0..ours.len()).filter(|&at| ours[at] != stock[at]).collect();
    assert_eq!(differences, [0; 0], "offsets at which the control files differ");
}
