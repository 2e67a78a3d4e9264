//! Standbys: made by pg_basebackup or by configuration, followed until they have everything,
//! promoted.

use std::fs;
use std::path::Path;

use super::cluster::{Cluster, Stop, append};
use super::outcome::Outcome;

/// Who writes the configuration that makes a base backup a standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecoveryConfig {
    /// `pg_basebackup -R`.
    Basebackup,
    /// [`Cluster::follow`].
    Harness,
}

impl Cluster {
    /// A standby of this running cluster, made by pg_basebackup but not started. Tablespaces and a
    /// linked pg_wal get locations of their own.
    pub(crate) fn basebackup_standby(&self, config: RecoveryConfig) -> Self {
        let standby = Self::vacant(self.installation().clone());
        let mut command = self.installation().command("pg_basebackup");
        command
            .args(["--no-sync", "-c", "fast", "-X", "stream", "-d"])
            .arg(self.address("postgres"))
            .arg("-D")
            .arg(standby.data());
        for link in self.links() {
            let old = fs::read_link(&link).expect("a link");
            let new = standby.location(file_name(&old));
            if link.ends_with("pg_wal") {
                command.arg(format!("--waldir={}", new.display()));
            } else {
                command.arg(format!("-T{}={}", old.display(), new.display()));
            }
        }
        if config == RecoveryConfig::Basebackup {
            command.arg("-R");
        }
        let _ = Outcome::of(&mut command).success();
        if config == RecoveryConfig::Harness {
            standby.follow(self);
        }
        standby
    }

    /// Configures this stopped cluster as a standby of `upstream`.
    pub(crate) fn follow(&self, upstream: &Self) {
        append(&self.path("postgresql.auto.conf"), &format!("primary_conninfo = '{}'\n", upstream.address("postgres")));
        append(&self.path("standby.signal"), "");
    }

    /// Makes a running standby stop following anybody.
    pub(crate) fn leave_upstream(&self) {
        self.sql("postgres", "ALTER SYSTEM SET primary_conninfo = ''");
        self.sql("postgres", "SELECT pg_reload_conf()");
        self.wait_for("postgres", "NOT EXISTS (SELECT FROM pg_stat_wal_receiver)");
    }

    /// A running standby of this primary (of a simple pair) that has replayed a checkpoint without
    /// having had a restart point there, and does not follow any further: not behind a fork.
    pub(crate) fn standby_left_behind(&self) -> Self {
        let standby = self.basebackup_standby(RecoveryConfig::Harness);
        standby.start();
        self.sql("postgres", "INSERT INTO rows (origin) SELECT 'common' FROM generate_series(1, 500)");
        self.checkpoint();
        standby.wait_for_catchup(self);
        standby.leave_upstream();
        standby
    }

    /// Makes a running standby follow `upstream`, and waits until it does.
    pub(crate) fn change_upstream(&self, upstream: &Self) {
        self.follow(upstream);
        self.sql("postgres", "SELECT pg_reload_conf()");
        upstream.wait_for_streaming();
        self.wait_for_catchup(upstream);
    }

    /// Where this server's WAL ends, all of it flushed.
    pub(crate) fn wal_end(&self) -> String {
        if self.sql("postgres", "SELECT pg_is_in_recovery()") == "t" {
            return self.sql("postgres", "SELECT pg_last_wal_replay_lsn()");
        }
        // Only a commit flushes at once what others have inserted.
        self.sql("postgres", "SELECT pg_logical_emit_message(true, 'flush', '')");
        self.sql("postgres", "SELECT pg_current_wal_flush_lsn()")
    }

    /// Waits until this standby has replayed everything that `upstream` has now.
    #[track_caller]
    pub(crate) fn wait_for_catchup(&self, upstream: &Self) {
        let end = upstream.wal_end();
        self.wait_for("postgres", &format!("pg_last_wal_replay_lsn() >= '{end}'"));
    }

    /// Waits until some standby streams from this server.
    #[track_caller]
    pub(crate) fn wait_for_streaming(&self) {
        let streams = "count(*) > 0 FROM pg_stat_replication WHERE state = 'streaming'";
        self.wait_for("postgres", streams);
    }

    /// Promotes this standby and waits until it takes writes. It makes no checkpoint.
    #[track_caller]
    pub(crate) fn promote(&self) {
        self.sql("postgres", "SELECT pg_promote(true, 60)");
        self.wait_for("postgres", "NOT pg_is_in_recovery()");
    }

    /// Starts this stopped standby so that it promotes itself behind the record that begins at `lsn`.
    #[track_caller]
    pub(crate) fn promote_behind(&self, lsn: &str, upstream: &Self) {
        let settings = self.path("postgresql.auto.conf");
        let before = fs::read_to_string(&settings).expect("settings");
        append(&settings, &format!("recovery_target_lsn = '{lsn}'\nrecovery_target_action = promote\n"));
        let _ = upstream.wal_end();
        self.start();
        self.wait_for("postgres", "NOT pg_is_in_recovery()");
        fs::write(&settings, before).expect("settings");
    }

    /// Promotes this running primary once more.
    #[track_caller]
    pub(crate) fn promote_again(&self) {
        self.restart_as_standby_of_nobody();
        self.promote();
    }

    /// Restarts this running primary as a standby that follows nobody.
    #[track_caller]
    pub(crate) fn restart_as_standby_of_nobody(&self) {
        self.sql("postgres", "ALTER SYSTEM SET primary_conninfo = ''");
        self.stop(Stop::Fast);
        append(&self.path("standby.signal"), "");
        self.start();
    }

    /// Writes WAL until its end is well inside of a segment.
    pub(crate) fn move_to_middle_of_segment(&self) {
        let inside = "SELECT (pg_walfile_name_offset(lsn)).file_offset \
                      BETWEEN size / 8 AND size * 3 / 4 \
                      FROM pg_current_wal_lsn() lsn, \
                      (SELECT setting::int AS size FROM pg_settings \
                       WHERE name = 'wal_segment_size') s";
        while self.sql("postgres", inside) != "t" {
            self.sql("postgres", "SELECT pg_logical_emit_message(true, 'filler', repeat('x', 50000))");
        }
    }
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("a location of the tests")
}
