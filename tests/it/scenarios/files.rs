//! What else lies in a data directory: names, kinds and sizes that no table has.

use super::scenarios;
use crate::support::likeness::From;
use crate::support::pair::Pair;
use crate::support::servers::Major;

scenarios! {
    plain: v13 Stopped, v14 Live, v15 Stopped, v16 Live, v17 Stopped, v18 Live, v19 Stopped;
}

/// Nothing special.
fn plain(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| builder);
    pair.assert_like_stock_and_lives(from);
}
