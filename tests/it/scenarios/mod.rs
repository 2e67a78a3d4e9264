//! What real clusters do: each scenario on two majors, with the source stopped on one and live on the
//! other where it can be either.
//!
//! The pairing is written at the top of each file, as a [`scenarios!`] table. Together the rows of a file must
//! meet every major, and each way of reading the source; a test holds them to that.

mod contents;
mod drop_in;
mod files;
mod forks;
mod histories;
mod layouts;
mod moving;
mod same_timeline;
mod tablespaces;
mod wal_segments;

use std::collections::BTreeSet;

use crate::support::cluster::Cluster;
use crate::support::likeness::From;
use crate::support::outcome::Outcome;
use crate::support::servers::Major;
use crate::support::tree::{self, Tree};

/// One test of a table: the scenario, and what it is run with.
type Row = (&'static str, Major, From);

/// Makes tests of `fn(Major, From)`: `scenario: v13 Stopped, v18 Live;` gives `scenario::v13` and
/// `scenario::v18`, and a row of `TABLE` for each.
macro_rules! scenarios {
    ($($scenario:ident: $($major:ident $from:ident),+;)+) => {
        /// Which scenario is run on which majors.
        pub(super) const TABLE: &[super::Row] = &[
            $($((stringify!($scenario), crate::support::servers::majors::$major, crate::support::likeness::From::$from)),+),+
        ];
        $(mod $scenario {
            $(#[test] fn $major() {
                super::$scenario(crate::support::servers::majors::$major, crate::support::likeness::From::$from);
            })+
        })+
    };
}
pub(crate) use scenarios;

/// Panics unless `run` ends with this exit code and with all of these words, and leaves `target` as it was.
#[track_caller]
fn assert_refused(target: &Cluster, code: i32, words: &[&str], run: impl FnOnce() -> Outcome) {
    let before = Tree::of(target);
    let outcome = run();
    assert_eq!(outcome.status.code(), Some(code), "{outcome}");
    for word in words {
        assert!(outcome.stderr.contains(word), "{word:?} is missing\n{outcome}");
    }
    assert_eq!(tree::diff(&before, &Tree::of(target), &|_| false), [""; 0]);
}

#[test]
fn every_major_meets_every_kind() {
    let tables = [
        ("contents", contents::TABLE),
        ("files", files::TABLE),
        ("forks", forks::TABLE),
        ("histories", histories::TABLE),
        ("layouts", layouts::TABLE),
        ("moving", moving::TABLE),
        ("same_timeline", same_timeline::TABLE),
        ("wal_segments", wal_segments::TABLE),
        ("tablespaces", tablespaces::TABLE),
    ];
    for (file, table) in tables {
        let majors: BTreeSet<Major> = table.iter().map(|row| row.1).collect();
        assert_eq!(majors, Major::ALL.into(), "{file}");
        for (scenario, ..) in table {
            let runs = table.iter().filter(|row| row.0 == *scenario).count();
            assert!(runs >= 2, "{file}: {scenario} is run once");
        }
    }
    let rows = || tables.iter().flat_map(|(_, table)| table.iter());
    for major in Major::ALL {
        for from in [From::Stopped, From::Live] {
            let met = rows().filter(|row| (row.1, row.2) == (major, from)).count();
            assert!(met >= 5, "{major} meets {met} scenarios with a {from:?} source");
        }
    }
}
