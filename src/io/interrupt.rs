//! Signals that ask the process to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator;
use signal_hook::low_level::exit;

use crate::error::{Context, Result};
use crate::interrupt::Interrupt;

/// What the process exits with on a second signal: it may have written.
const AT_ONCE: i32 = 5;

/// From now on the first SIGHUP, SIGINT or SIGTERM sets the interrupt that this returns, and a second
/// one ends the process at once, or as soon as nobody holds it.
///
/// # Errors
/// When the system refuses.
pub fn interrupt_on_signals() -> Result<Interrupt> {
    let signals = Signals::watch(AT_ONCE)?;
    signals.wait_for_what_is_in_hand();
    Ok(signals.interrupt)
}

fn refused() -> String {
    "cannot handle signals".to_owned()
}

/// What SIGHUP, SIGINT and SIGTERM do to a process that has nothing in hand at first.
#[derive(Clone, Debug)]
pub struct Signals {
    interrupt: Interrupt,
    /// Whether the next one ends the process.
    at_once: Arc<AtomicBool>,
}

impl Signals {
    /// From now on each of these signals ends the process with this status.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn watch(status: i32) -> Result<Self> {
        let signals = Self { interrupt: Interrupt::new(), at_once: Arc::new(AtomicBool::new(true)) };
        let mut coming = iterator::Signals::new([SIGHUP, SIGINT, SIGTERM]).context(refused)?;
        let own = signals.clone();
        let listener = move || coming.forever().for_each(|_| own.take(status));
        thread::Builder::new().name("signals".to_owned()).spawn(listener).context(refused)?;
        Ok(signals)
    }

    /// One has come.
    fn take(&self, status: i32) {
        if self.at_once.swap(true, Ordering::SeqCst) {
            self.interrupt.unless_held(|| exit(status));
        }
        self.interrupt.set();
    }

    /// From now on the first one only sets the interrupt, and what is in hand is brought to its end.
    pub fn wait_for_what_is_in_hand(&self) {
        self.at_once.store(false, Ordering::SeqCst);
    }

    /// The wish to stop.
    #[must_use]
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }
}
