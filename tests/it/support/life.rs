//! What a rewound cluster owes once it runs: it follows its source, and everything in it is sound.

use super::cluster::{Cluster, Stop};
use super::workload;

/// Starts the rewound `target` as a standby of the running `source` and checks everything that a
/// standby owes: it streams, a new row arrives, contents are equal, every structure is sound.
pub(crate) fn assert_follows(target: &Cluster, source: &Cluster) {
    target.start();
    source.wait_for_streaming();
    source.sql("postgres", "CREATE TABLE arrives AS SELECT 42 AS answer");
    target.wait_for_catchup(source);
    assert_eq!(target.sql("postgres", "TABLE arrives"), "42");
    assert_eq!(target.databases(), source.databases());
    assert!(target.dump_all() == source.dump_all(), "the dumps differ");
    if source.sql("postgres", "SELECT to_regclass('indexed') IS NOT NULL") == "t" {
        assert_eq!(workload::probe(target), workload::probe(source));
    }
    target.assert_amcheck();
}

/// Stops the standby and checks what can be seen at rest only.
pub(crate) fn assert_sound_at_rest(target: &Cluster) {
    target.stop(Stop::Fast);
    let control = target.controldata();
    if control["Data page checksum version"] != "0" {
        target.assert_checksums();
    }
    assert_eq!(control["Database cluster state"], "shut down in recovery");
}

/// Promotes the standby and checks what can be seen on a primary only.
pub(crate) fn assert_can_lead(standby: &Cluster, source: &Cluster) {
    standby.start();
    standby.promote();
    assert_eq!(workload::prepared(standby), ["source", "stays"]);
    assert_eq!(workload::prepared(standby), workload::prepared(source));
    let empty = "SELECT count(*) FROM unlogged";
    assert_eq!(standby.sql("postgres", empty), "0");
    standby.assert_amcheck();
}
