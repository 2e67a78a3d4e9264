//! How two clusters parted, and which WAL is left of it.

use super::scenarios;
use crate::support::likeness::From;
use crate::support::pair::Pair;
use crate::support::servers::Major;

scenarios! {
    plain: v13 Live, v14 Live, v15 Live, v16 Live, v17 Live, v18 Live, v19 Live;
}

/// Nothing special.
fn plain(major: Major, from: From) {
    let pair = Pair::simple(major, |builder| builder);
    pair.assert_like_stock_and_lives(from);
}
