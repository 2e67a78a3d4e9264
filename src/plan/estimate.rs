//! How long an apply will take, roughly: sums of the plan at fixed rates. Nothing is measured, so that the same inputs
//! give the same plan.

use crate::cluster::SourceKind;
use crate::manifest::{Action, Estimate, Totals};

const MIB: u64 = 1 << 20;

/// Bytes a second that come from a live source, and are made durable: what a gigabit line carries.
const LIVE: u64 = 100 * MIB;
/// Bytes a second that are copied from a stopped source, and made durable: what a solid-state disk writes.
const STOPPED: u64 = 300 * MIB;
/// Bytes a second of what is overwritten that are kept for an undo.
const KEPT: u64 = 300 * MIB;
/// Microseconds for each path that is changed.
const PATH: u64 = 1000;

/// How long the apply of these actions takes from this kind of source, an undo being possible.
pub(super) fn estimate(actions: &[Action], totals: &Totals, block_size: u32, source: SourceKind) -> Estimate {
    let (rate, what) = match source {
        SourceKind::LiveServer => (LIVE, "a live source"),
        SourceKind::StoppedDirectory => (STOPPED, "a stopped source"),
    };
    let kept = actions.iter().map(|action| action.image_bytes(block_size)).fold(0, u64::saturating_add);
    let paths = (actions.len() as u64).saturating_mul(PATH);
    let micros = micros(totals.bytes, rate).saturating_add(micros(kept, KEPT)).saturating_add(paths);
    let basis = format!(
        "{} MiB a second from {what}, {} MiB a second to keep what is overwritten, {} ms for each path; not in it: \
         WAL that a source writes meanwhile, and the server's replay",
        rate / MIB,
        KEPT / MIB,
        PATH / 1000,
    );
    Estimate { basis, seconds: micros.div_ceil(1_000_000).max(1) }
}

/// Microseconds for so many bytes at so many a second.
fn micros(bytes: u64, rate: u64) -> u64 {
    u64::try_from(u128::from(bytes) * 1_000_000 / u128::from(rate)).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::manifest::{ActionKind, PathState, Phase, Reason};
    use crate::types::{BlockRange, ClusterPath};

    fn patch(blocks: u32) -> Action {
        let state = PathState { size: Some(u64::from(blocks) * 8192), ..PathState::default() };
        Action {
            after: Some(state.clone()),
            before: Some(state.clone()),
            blocks: vec![BlockRange { first: 0, count: blocks }],
            kind: ActionKind::Patch,
            path: ClusterPath::new(b"base/5/1").unwrap(),
            phase: Phase::Copy,
            reason: Reason::ChangedOnTarget,
            source: Some(state),
        }
    }

    #[test]
    fn seconds_are_sums_at_fixed_rates() {
        let of = |actions: &[Action], bytes, source| {
            estimate(actions, &Totals { bytes, ..Totals::default() }, 8192, source).seconds
        };
        let (live, stopped) = (SourceKind::LiveServer, SourceKind::StoppedDirectory);
        let gib = 1 << 30;
        for (actions, bytes, source, seconds) in [
            (vec![], 0, live, 1),
            (vec![], 100 * MIB, live, 1),
            (vec![], 101 * MIB, live, 2),
            (vec![], 100 * gib, live, 1024),
            (vec![], 100 * gib, stopped, 342),
            (vec![patch(131_072)], gib, stopped, 7),
            (vec![patch(131_072)], gib, live, 14),
            (vec![patch(0); 10_000], 0, stopped, 10),
            (vec![], u64::MAX, live, 175_921_860_445),
        ] {
            assert_eq!(of(&actions, bytes, source), seconds, "{} actions, {bytes}, {source:?}", actions.len());
        }
    }

    #[test]
    fn the_basis_says_what_was_assumed() {
        let basis = estimate(&[], &Totals::default(), 8192, SourceKind::LiveServer).basis;
        assert!(basis.starts_with("100 MiB a second from a live source, 300 MiB a second"), "{basis}");
    }
}
