//! What a cluster's WAL contains, as pg_waldump tells: so that a scenario can prove that what it is
//! about really happened.

use std::collections::BTreeSet;

use pg_unfork::types::Lsn;

use super::cluster::Cluster;
use super::outcome::Outcome;

impl Cluster {
    /// Where a running primary is going to write its next record.
    pub(crate) fn wal_position(&self) -> String {
        self.sql("postgres", "SELECT pg_current_wal_insert_lsn()")
    }

    /// What pg_waldump says of the WAL of timeline 1, in segments of 1 MiB, from `start` to `end`.
    #[track_caller]
    pub(crate) fn waldump(&self, start: &str, end: &str, arguments: &[&str]) -> String {
        let [from, through] = [start, end].map(|lsn| lsn.parse::<Lsn>().expect("an LSN").get());
        let mut command = self.installation().command("pg_waldump");
        command.args(arguments).args(["-s", start, "-e", end]);
        // By their names: given a directory, it takes the size of segments from any file, also from an empty one.
        for position in [from, through - 1] {
            command.arg(self.path("pg_wal").join(format!("0000000100000000{:08X}", position >> 20)));
        }
        Outcome::of(&mut command).success().stdout
    }

    /// Panics unless this cluster's WAL from `start` to `end` has records of all these kinds: `Heap/INSERT` and the
    /// like.
    #[track_caller]
    pub(crate) fn assert_wrote(&self, start: &str, end: &str, kinds: &[&str]) {
        let statistics = self.waldump(start, end, &["--stats=record"]);
        let names = statistics.lines().filter_map(|line| line.split(' ').next());
        let written: BTreeSet<&str> = names.filter(|name| name.contains('/')).collect();
        let missing: Vec<_> = kinds.iter().filter(|&&kind| !written.contains(kind)).collect();
        assert!(missing.is_empty(), "{missing:?} missing in {written:#?}");
    }
}
