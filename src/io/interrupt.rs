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
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        // In this order: the one that looks at the flag before the one that sets it.
        let registered = flag::register_conditional_shutdown(signal, AT_ONCE, interrupt.flag())
            .and_then(|_| flag::register(signal, interrupt.flag()));
        registered.context(|| format!("cannot handle signal {signal}"))?;
    }
    Ok(interrupt)
}
