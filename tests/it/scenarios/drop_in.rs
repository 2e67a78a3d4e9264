//! Scenarios of pg_rewind's own tests through the drop-in: what its run leaves is what a plan and stock say, and so are
//! the lines about its course.

use std::fs;

use super::{contents, files, histories, layouts, same_timeline, wal_segments};
use crate::support::for_each_major;
use crate::support::likeness::From;
use crate::support::pair::Pair;
use crate::support::rewind::through_the_drop_in;
use crate::support::servers::Major;

for_each_major!(rich_pair);

/// Tables that grow, shrink and go, and everything else that the rich pair has.
fn rich_pair(major: Major) {
    let from = if major.0.is_multiple_of(2) { From::Live } else { From::Stopped };
    let pair = Pair::shared(major).copy();
    if from == From::Live {
        pair.source.start();
        pair.source.checkpoint();
    }
    let stock_target = Pair::shared(major).copy_target();
    through_the_drop_in(|| drop(pair.rewind_beside_stock(&stock_target, from)));
    let names: Vec<_> =
        fs::read_dir(pair.target.path(".pg_unfork")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["history"], "the rest goes after success");
    if major.0 == 18 {
        pair.assert_lives(from);
    }
}

#[test]
fn databases_and_group_access() {
    through_the_drop_in(|| contents::databases(Major(15), From::Live));
}

#[test]
fn extra_files() {
    through_the_drop_in(|| files::extra_files(Major(18), From::Live));
}

#[test]
fn linked_wal() {
    through_the_drop_in(|| layouts::linked_wal(Major(17), From::Live));
}

#[test]
fn same_timeline() {
    through_the_drop_in(|| same_timeline::same_timeline(Major(16), From::Stopped));
}

#[test]
fn standby_as_source() {
    through_the_drop_in(|| histories::cascade(Major(14), From::Live));
}

#[test]
fn minimum_recovery_point() {
    through_the_drop_in(|| histories::minimum_recovery_point(Major(16), From::Live));
}

#[test]
fn archived_wal() {
    through_the_drop_in(|| wal_segments::archived(Major(17), From::Stopped));
}

#[test]
fn wal_before_the_fork() {
    through_the_drop_in(|| wal_segments::lengthened_on_the_target(Major(19), From::Live));
}
