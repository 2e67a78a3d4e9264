//! The drop-in under the programs that call pg_rewind, as scripts with their arguments, environment and sequences. Each runs
//! with the stock program first: so the script is right.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::cluster::Cluster;
use crate::support::outcome::Outcome;
use crate::support::pair::Pair;
use crate::support::scratch;
use crate::support::servers::Major;
use crate::support::tree::{self, Tree};
use crate::support::workload::REWIND_USER;

const PASSWORD: &str = "a secret's word";

/// Whose pg_rewind it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Stock,
    Ours,
}

/// The shared pair, its source running; the rewinding role replicates, and needs its password.
fn pair(major: Major) -> Pair {
    let pair = Pair::shared(major).copy();
    let rules = pair.source.path("pg_hba.conf");
    let open = fs::read_to_string(&rules).unwrap();
    fs::write(&rules, format!("local all,replication rewind_user scram-sha-256\n{open}")).unwrap();
    pair.source.start();
    let password = PASSWORD.replace('\'', "''");
    pair.source.sql(
        "postgres",
        &format!("SET password_encryption = 'scram-sha-256'; ALTER ROLE rewind_user REPLICATION PASSWORD '{password}'"),
    );
    pair
}

/// A directory with the major's programs, among them the pg_rewind.
fn programs(target: &Cluster, tool: Tool) -> TempDir {
    let directory = scratch::directory("bin");
    for name in ["postgres", "psql", "pg_ctl", "pg_rewind"] {
        let ours = tool == Tool::Ours && name == "pg_rewind";
        let program =
            if ours { PathBuf::from(env!("CARGO_BIN_EXE_pg_unfork")) } else { target.installation().bin(name) };
        symlink(program, directory.path().join(name)).unwrap();
    }
    directory
}

/// Runs a script on the target.
fn run(script: &str, target: &Cluster, source: &Cluster, tool: Tool, more: &[(&str, &str)]) -> Outcome {
    let programs = programs(target, tool);
    let path = format!("{}:{}", programs.path().display(), std::env::var("PATH").unwrap());
    let [_, host, _, port, ..] = source.connection_options();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/wrappers").join(script);
    let mut command = Command::new("bash");
    target.installation().clean_environment(&mut command);
    command.arg(script).env("PGDATA", target.data()).env("BIN", programs.path()).env("PATH", path);
    command.env("HOST", host).env("PORT", port).env("ROLE", REWIND_USER).env("PASSWORD", PASSWORD);
    Outcome::of(command.envs(more.iter().copied()))
}

/// Runs a script with either tool, ours on the pair's target. Its outcome comes back.
#[track_caller]
fn with_both(script: &str, pair: &Pair, more: &[(&str, &str)]) -> Outcome {
    let stock = pair.copy_target();
    let _ = run(script, &stock, &pair.source, Tool::Stock, more).success();
    drop(stock);
    run(script, &pair.target, &pair.source, Tool::Ours, more).success()
}

/// The target follows its source, and what is kept for an undo is gone.
#[track_caller]
fn assert_rewound(target: &Cluster, source: &Cluster) {
    assert!(!target.path(".pg_unfork/journal").exists());
    target.start();
    source.wait_for_streaming();
    source.sql("postgres", "CREATE TABLE IF NOT EXISTS arrives AS SELECT 42 AS answer");
    target.wait_for_catchup(source);
    assert_eq!(target.sql("postgres", "TABLE arrives"), "42");
}

#[test]
fn cloudnative_pg() {
    let pair = pair(Major(18));
    pair.target.append_config("restore_command = 'false'\n");
    let more = [("PGPASSWORD", PASSWORD)];
    let outcome = with_both("cloudnative_pg.sh", &pair, &more);
    assert!(outcome.stdout.is_empty() && outcome.stderr.contains(" kB (100%) copied"), "{outcome}");
    assert!(!outcome.stderr.contains("try 2") && !outcome.stderr.contains(PASSWORD), "{outcome}");
    assert!(!pair.target.path("global/pg_control.old").exists());
    pair.target.follow(&pair.source);
    assert_rewound(&pair.target, &pair.source);
}

/// A try that is killed is gone on with by the next one, whatever the wrapper does to its copy of pg_control meanwhile.
#[test]
fn cloudnative_pg_after_a_kill() {
    let pair = pair(Major(16));
    pair.target.append_config("restore_command = 'false'\n");
    let directory = scratch::directory("control");
    let kept = directory.path().join("pg_control");
    fs::copy(pair.target.path("global/pg_control"), &kept).unwrap();
    let all_lost = format!("cp {} $control.old; : >$control", kept.display());
    for spoil in ["", ": >$control", &all_lost] {
        let target = pair.copy_target();
        let more = [("PGPASSWORD", PASSWORD), ("KILLED", "1000"), ("SPOIL", spoil)];
        let outcome = run("cloudnative_pg.sh", &target, &pair.source, Tool::Ours, &more).success();
        assert!(outcome.stderr.contains("try 2") && !outcome.stderr.contains("try 3"), "{spoil}: {outcome}");
        assert!(!target.path("global/pg_control.old").exists());
        target.follow(&pair.source);
        assert_rewound(&target, &pair.source);
    }
}

#[test]
fn pg_auto_failover() {
    let pair = pair(Major(17));
    let outcome = with_both("pg_auto_failover.sh", &pair, &[("PGPASSWORD", PASSWORD)]);
    assert!(
        outcome.stderr.contains("servers diverged at WAL location") && outcome.stderr.contains("Done!"),
        "{outcome}"
    );
    pair.target.follow(&pair.source);
    assert_rewound(&pair.target, &pair.source);
}

#[test]
fn stolon() {
    let pair = pair(Major(13));
    let outcome = with_both("stolon.sh", &pair, &[]);
    assert!(outcome.stdout.is_empty() && outcome.stderr.contains("Done!"), "{outcome}");
    pair.target.follow(&pair.source);
    assert_rewound(&pair.target, &pair.source);
}

#[test]
fn pgpool() {
    let pair = pair(Major(15));
    // The script's settings come earlier than those of ALTER SYSTEM.
    pair.source.sql("postgres", "ALTER SYSTEM RESET primary_conninfo");
    let outcome = with_both("pgpool.sh", &pair, &[]);
    assert!(outcome.stdout.is_empty() && !outcome.stderr.contains("rm -rf"), "{outcome}");
    assert_rewound(&pair.target, &pair.source);
}

/// The password is in the configuration that -R writes, as with the stock program, and nowhere else.
#[test]
fn multigres() {
    let pair = pair(Major(14));
    let before = Tree::of(&pair.target);
    let refused = run("multigres.sh", &pair.target, &pair.source, Tool::Ours, &[("ROLE", "nobody_knows")]).failure();
    assert!(refused.stderr.contains("nobody_knows"), "{refused}");
    assert!(tree::diff(&before, &Tree::of(&pair.target), &|_| false).is_empty());
    let outcome = with_both("multigres.sh", &pair, &[]);
    assert!(!outcome.stderr.contains("secret's"), "{outcome}");
    let settings = fs::read_to_string(pair.target.path("postgresql.auto.conf")).unwrap();
    assert!(settings.contains("password=''a secret"), "{settings}");
    assert_rewound(&pair.target, &pair.source);
}
