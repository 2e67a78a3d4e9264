//! Another run on a target that was rewound, and on which no server has run since.

use std::fs;

use crate::support::cluster::{Cluster, InitOptions, Stop, append};
use crate::support::life::{assert_follows, assert_sound_at_rest};
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::replication::RecoveryConfig;
use crate::support::rewind::{command, killed, pg_rewind, rewind};
use crate::support::servers::Major;
use crate::support::stock::Source;
use crate::support::tool::Plan;
use crate::support::workload::{self, REWIND_USER};

/// Two standbys of a primary that were promoted independently, at the same position; and the primary, which went on.
fn promoted_twice(major: Major) -> (Cluster, [Cluster; 2]) {
    let target = Cluster::initdb(major, &InitOptions::default());
    target.start();
    workload::prepare(&target);
    target.sql("postgres", "CREATE TABLE rows (origin text)");
    let source = target.basebackup_standby(RecoveryConfig::Basebackup);
    source.start();
    source.wait_for_catchup(&target);
    target.stop(Stop::Fast);
    source.stop(Stop::Fast);
    let sources = [source.duplicate(), source];
    for (source, origin) in sources.iter().zip(["a", "b"]) {
        source.start();
        source.promote();
        source.sql("postgres", &format!("INSERT INTO rows SELECT '{origin}' FROM generate_series(1, 1000)"));
        source.checkpoint();
    }
    target.start();
    target.sql("postgres", "INSERT INTO rows VALUES ('target')");
    target.stop(Stop::Fast);
    (target, sources)
}

fn last_setting(target: &Cluster) -> String {
    let text = fs::read_to_string(target.path("postgresql.auto.conf")).unwrap();
    text.lines().rfind(|line| line.starts_with("primary_conninfo")).unwrap_or_default().to_owned()
}

/// What was rewound is left as it is only for that very source, with its `backup_label`; but `-R` is done, and what was kept
/// is dropped. For another one, though its history be equal, it is taken back, or rewound once more.
#[test]
fn a_target_that_was_rewound_already() {
    let (target, [a, b]) = promoted_twice(Major(15));
    let histories = [&a, &b].map(|source| fs::read(source.path("pg_wal/00000002.history")).unwrap());
    let parted = |text: &[u8]| String::from_utf8_lossy(text).split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    assert_eq!(parted(&histories[0]), parted(&histories[1]));
    let [from_a, from_b] = [&a, &b].map(|source| Source::Server(source, REWIND_USER));
    let kept = target.duplicate();
    let _ = Plan::of(&kept, from_a, &[]).apply(&[]).success();
    let unlabelled = kept.duplicate();
    let already = |outcome: &Outcome| outcome.stderr.contains("rewound already");

    let _ = rewind(&target, from_a, &[]).success();
    for line in ["", "primary_conninfo = 'host=elsewhere'\n"] {
        append(&target.path("postgresql.auto.conf"), line);
        let outcome = rewind(&target, from_a, &["-R"]).success();
        assert!(already(&outcome) && outcome.stderr.ends_with("pg_rewind: no rewind required\n"), "{outcome}");
        assert!(last_setting(&target).contains(&format!("port={}", a.port())), "{}", last_setting(&target));
        assert!(target.path("standby.signal").exists());
    }
    // Nothing is kept, and the other one's history is equal.
    let mut other = command(&target, from_b, &["-R"]);
    let other = Outcome::of(other.env("PATH", format!("{}:/usr/bin:/bin", b.installation().bin("").display())));
    assert!(!already(&other) && !other.stderr.contains("no rewind required"), "{other}");
    let dry = rewind(&kept, from_b, &["-n"]).success();
    assert!(dry.stderr.contains("servers diverged at") && dry.stderr.contains("would be taken back"), "{dry}");
    assert!(already(&rewind(&kept, from_a, &["-n"]).success()));
    assert!(kept.path(".pg_unfork/undo").exists());
    let copy = kept.duplicate();
    assert!(already(&rewind(&copy, from_a, &[]).success()));
    assert!(!copy.path(".pg_unfork/undo").exists());
    let outcome = rewind(&kept, from_b, &["-R"]).success();
    assert!(outcome.stderr.contains("gone another way: taking it back"), "{outcome}");

    fs::remove_file(unlabelled.path("backup_label")).unwrap();
    let outcome = rewind(&unlabelled, from_a, &[]).success();
    assert!(outcome.stderr.contains("backup_label has been changed or removed since: taking it back"), "{outcome}");
    assert!(unlabelled.path("backup_label").exists() && outcome.stderr.ends_with("Done!\n"), "{outcome}");

    b.sql("postgres", "ALTER ROLE rewind_user REPLICATION");
    assert_follows(&kept, &b);
    assert_eq!(kept.sql("postgres", "SELECT string_agg(DISTINCT origin, ' ') FROM rows"), "b");
    assert_sound_at_rest(&kept);
}

/// What a run with `-N` began is durable once one without has ended it; and what that one says is true of all.
#[test]
fn not_durable_in_the_end() {
    let pair = Pair::shared(Major(17)).copy();
    let source = Source::Directory(&pair.source);
    let without = |target: &Cluster| {
        let mut command = pg_rewind(&["-D"]);
        command.arg(target.data()).arg("--source-pgdata").arg(pair.source.data());
        command
    };
    let other = pair.copy_target();
    killed(&without(&pair.target));
    let outcome = rewind(&pair.target, source, &[]).success();
    assert!(outcome.stderr.contains("nothing is durable yet"), "{outcome}");
    killed(&command(&other, source, &[]));
    let outcome = Outcome::of(&mut without(&other)).success();
    assert!(!outcome.stderr.contains("nothing is durable yet"), "{outcome}");
}
