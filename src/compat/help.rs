//! What `--help` and `--version` say.

const HELP: &str = "\
pg_rewind, as pg_unfork does it: makes a cluster that forked off another one follow that one again.

Usage:
  pg_rewind [OPTION]...

Options:
  -c, --restore-target-wal       fetch WAL that the target lacks by its own
                                 restore_command
  -D, --target-pgdata=DIRECTORY  the data directory to change
      --source-pgdata=DIRECTORY  the source: a stopped data directory
      --source-server=CONNSTR    the source: a running server
  -n, --dry-run                  say what would be done, change nothing
  -N, --no-sync                  leave it to the system when changes reach the disk
  -P, --progress                 tell how far the work is
  -R, --write-recovery-conf      make the target a standby of the source
                                 (with --source-server)
      --config-file=FILENAME     where the target's settings are, if not in its
                                 data directory
      --debug                    tell of every file
      --no-ensure-shutdown       refuse a target that did not stop in good order
      --sync-method=METHOD       how changes reach the disk: fsync or syncfs
  -V, --version                  say which version this is, then exit
  -?, --help                     show this, then exit

A run that failed or was killed goes on when the same command is run again.
Plans to review, undo, and more: pg_unfork --help
";

/// The answer to `--help`.
#[must_use]
pub fn help() -> &'static str {
    HELP
}

/// The answer to `--version`, with the version that a `postgres` has which was found, or else the newest known major.
#[must_use]
pub fn version(postgres: Option<&str>, newest: u32) -> String {
    match postgres {
        Some(version) => format!("pg_rewind (PostgreSQL) {version}\n"),
        None => format!("pg_rewind (PostgreSQL) {newest}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version(Some("15.19 (Debian 15.19-1)"), 19), "pg_rewind (PostgreSQL) 15.19 (Debian 15.19-1)\n");
        assert_eq!(version(None, 19), "pg_rewind (PostgreSQL) 19\n");
    }
}
