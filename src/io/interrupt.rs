//! Signals that ask the process to end.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::{Context, Result};
use crate::interrupt::Interrupt;

/// What the process exits with on a second signal: it may have written.
const AT_ONCE: i32 = 5;

/// From now on the first SIGHUP, SIGINT or SIGTERM sets the interrupt that this returns, and a second
/// one ends the process at once.
///
/// # Errors
/// When the system refuses.
pub fn interrupt_on_signals() -> Result<Interrupt> {
    let interrupt = Interrupt::new();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    // Who started this with nohup, or in the background, wants such a signal to be ignored.
    for signal in [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|&signal| !is_ignored(&status, signal)) {
        // In this order: the one that looks at the flag before the one that sets it.
        let registered = flag::register_conditional_shutdown(signal, AT_ONCE, interrupt.flag())
            .and_then(|_| flag::register(signal, interrupt.flag()));
        registered.context(|| format!("cannot handle signal {signal}"))?;
    }
    Ok(interrupt)
}

/// Whether a process with this `/proc/…/status` ignores a signal.
fn is_ignored(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_found_in_the_mask() {
        let status = "Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000004002\n";
        let ignored = [SIGHUP, SIGINT, SIGTERM].map(|signal| is_ignored(status, signal));
        assert_eq!(ignored, [true, false, false]);
        assert!(!is_ignored("", SIGHUP));
    }
}
