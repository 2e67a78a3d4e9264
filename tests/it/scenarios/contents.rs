//! What is in a cluster: every kind of WAL record that changes relations.

use super::scenarios;
use crate::support::likeness::From;
use crate::support::pair::Pair;
use crate::support::servers::Major;

scenarios! {
    plain: v13 Stopped, v14 Stopped, v15 Stopped, v16 Stopped, v17 Stopped, v18 Stopped, v19 Stopped;
}

/// Nothing special.
fn plain(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| builder);
    pair.assert_like_stock_and_lives(from);
}
