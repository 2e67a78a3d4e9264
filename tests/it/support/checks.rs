//! What a healthy cluster must satisfy, and what two equal clusters have in common.

use std::collections::BTreeMap;

use super::cluster::Cluster;
use super::outcome::Outcome;

/// `bt_index_check` of every B-tree that can be read: what pg_amcheck does, for 13, which lacks it.
const CHECK_BTREES: &str = "
    SELECT count(bt_index_check(i.indexrelid, true))
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
     WHERE a.amname = 'btree' AND c.relkind = 'i' AND i.indisready AND i.indisvalid
       AND c.relpersistence = CASE WHEN pg_is_in_recovery() OR c.relpersistence <> 'u'
                                   THEN 'p' ELSE 'u' END";

impl Cluster {
    /// What pg_controldata says, by label.
    pub(crate) fn controldata(&self) -> BTreeMap<String, String> {
        let mut command = self.installation().command("pg_controldata");
        let outcome = Outcome::of(command.arg("-D").arg(self.data())).success();
        let pairs = outcome.stdout.lines().filter_map(|line| line.split_once(':'));
        pairs.map(|(label, value)| (label.to_owned(), value.trim().to_owned())).collect()
    }

    /// A dump of everything that must be equal on a primary and on its standby, in a form that
    /// can be compared: no comments, no sequence values (a standby sees them pre-logged), no
    /// unlogged data, no paths.
    #[track_caller]
    pub(crate) fn dump_all(&self) -> String {
        let mut command = self.installation().command("pg_dumpall");
        command.args(["--no-unlogged-table-data", "-d"]).arg(self.conninfo("postgres", "postgres"));
        let dump = Outcome::of(&mut command).success().stdout;
        let mut text: String = dump.lines().filter(|line| is_stable(line)).flat_map(|line| [line, "\n"]).collect();
        text = text.replace(&self.base().display().to_string(), "{base}");
        text
    }

    /// Panics unless pg_checksums finds every page of this stopped cluster intact.
    #[track_caller]
    pub(crate) fn assert_checksums(&self) {
        let mut command = self.installation().command("pg_checksums");
        let _ = Outcome::of(command.arg("--check").arg("-D").arg(self.data())).success();
    }

    /// Panics unless amcheck finds every table and B-tree of this running cluster sound. Every
    /// database must have the extension.
    #[track_caller]
    pub(crate) fn assert_amcheck(&self) {
        if self.major().0 == 13 {
            return self.assert_btrees();
        }
        let mut command = self.installation().command("pg_amcheck");
        command.args(["--all", "--heapallindexed"]).args(self.connection_options());
        let outcome = Outcome::of(&mut command).success();
        let skipped = outcome.stderr.contains("skipping database");
        assert!(!skipped, "a database lacks amcheck\n{outcome}");
    }

    /// Names of the databases that can be connected to.
    pub(crate) fn databases(&self) -> Vec<String> {
        let query = "SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname";
        let rows = self.rows("postgres", query);
        rows.into_iter().flatten().collect()
    }

    #[track_caller]
    fn assert_btrees(&self) {
        for database in self.databases() {
            let checked = self.sql(&database, CHECK_BTREES);
            assert!(checked.parse::<u32>().unwrap() > 0, "nothing to check");
        }
    }
}

fn is_stable(line: &str) -> bool {
    let unstable = ["--", "\\restrict", "\\unrestrict", "SELECT pg_catalog.setval("];
    !line.is_empty() && !unstable.iter().any(|start| line.starts_with(start))
}
