//! What the target's server will be when it is started.

use super::finding;
use crate::manifest::{Check, CheckStatus};

/// Which signal files the target will have, and where `standby.signal` comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// `-R` makes `standby.signal`.
    pub written: bool,
    /// `standby.signal` will be there without that: the source's, or the target's own.
    pub standby: bool,
    /// `recovery.signal` will be there.
    pub recovery: bool,
    /// The target has `standby.signal` now, and it will be removed, as the source has none.
    pub removed: bool,
}

/// `starts_as_standby`: whether the target's server will follow, or become a second primary.
#[must_use]
pub fn starts_as_standby(signals: Signals) -> Check {
    let remedy = "plan with -R; or, before the target is started, create standby.signal in it and set primary_conninfo";
    let (status, detail) = if signals.written {
        (CheckStatus::Pass, "the target will start as a standby: -R makes standby.signal")
    } else if signals.standby {
        (CheckStatus::Pass, "the target will start as a standby: it will have standby.signal")
    } else if signals.recovery {
        let detail = "the target will have recovery.signal and no standby.signal: its server will recover by its \
                      restore_command, and then become a primary on a timeline of its own";
        (CheckStatus::Warn, detail)
    } else if signals.removed {
        let detail = "the target will have no standby.signal, its own is removed as the source has none: started as it \
                      is, its server becomes a SECOND PRIMARY on the source's timeline";
        (CheckStatus::Warn, detail)
    } else {
        let detail = "the target will have no standby.signal: started as it is, its server becomes a SECOND PRIMARY on \
                      the source's timeline";
        (CheckStatus::Warn, detail)
    };
    let remedy = (status == CheckStatus::Warn).then_some(remedy);
    finding("starts_as_standby", status, detail.to_owned(), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_standby_signal_makes_a_standby() {
        let none = Signals::default();
        let cases = [
            (Signals { written: true, removed: true, ..none }, CheckStatus::Pass, "-R makes"),
            (Signals { standby: true, recovery: true, ..none }, CheckStatus::Pass, "will have standby.signal"),
            (Signals { recovery: true, ..none }, CheckStatus::Warn, "a timeline of its own"),
            (Signals { removed: true, ..none }, CheckStatus::Warn, "its own is removed"),
            (none, CheckStatus::Warn, "SECOND PRIMARY"),
        ];
        for (signals, status, words) in cases {
            let found = starts_as_standby(signals);
            assert_eq!(found.status, status, "{signals:?}");
            assert!(
                found.detail.contains(words) && found.remedy.is_some() == (status == CheckStatus::Warn),
                "{found:?}"
            );
        }
    }
}
