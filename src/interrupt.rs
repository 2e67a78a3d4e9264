//! The wish to stop, for whoever waits or works for long.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorId, Result};

/// How long what is in hand may take to come to its end, once the work shall stop.
const GRACE: Duration = Duration::from_secs(3);

/// Whether somebody wants the work to stop. Clones speak of the same wish.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
    /// When that was first seen.
    seen: Arc<OnceLock<Instant>>,
    /// Whether somebody has wanted it again.
    again: Arc<AtomicBool>,
    /// How many hold the process.
    holders: Arc<Mutex<usize>>,
}

/// Keeps the process from ending before this goes, however often somebody wants that.
#[derive(Debug)]
pub struct Hold(Arc<Mutex<usize>>);

impl Drop for Hold {
    fn drop(&mut self) {
        let mut holders = lock(&self.0);
        *holders = holders.saturating_sub(1);
    }
}

fn lock(holders: &Mutex<usize>) -> MutexGuard<'_, usize> {
    holders.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Interrupt {
    /// A wish that nobody has yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on the work shall stop; if that was so already, it is urgent.
    pub fn set(&self) {
        if self.flag.swap(true, Ordering::SeqCst) {
            self.again.store(true, Ordering::SeqCst);
        }
    }

    /// Whether what is in hand gets no time any more.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.again.load(Ordering::SeqCst)
    }

    /// Something is begun that must be ended before the process does: a program is run, say.
    #[must_use]
    pub fn hold(&self) -> Hold {
        *lock(&self.holders) += 1;
        Hold(Arc::clone(&self.holders))
    }

    /// Does something unless, and while nobody does, somebody holds the process.
    pub fn unless_held(&self, end: impl FnOnce()) {
        let holders = lock(&self.holders);
        if *holders == 0 {
            end();
        }
    }

    /// Whether the work shall stop.
    #[must_use]
    pub fn is_set(&self) -> bool {
        let set = self.flag.load(Ordering::Relaxed);
        if set {
            self.seen.get_or_init(Instant::now);
        }
        set
    }

    /// Goes on unless the work shall stop, and has had the time that it gets to end what is in hand.
    ///
    /// # Errors
    /// When that is over.
    pub fn check_grace(&self) -> Result<()> {
        let over = self.is_set() && self.seen.get().is_some_and(|seen| seen.elapsed() >= GRACE);
        if over { Err(Self::error()) } else { Ok(()) }
    }

    /// Goes on unless the work shall stop.
    ///
    /// # Errors
    /// When it shall.
    pub fn check(&self) -> Result<()> {
        if self.is_set() { Err(Self::error()) } else { Ok(()) }
    }

    /// What work says that has stopped.
    #[must_use]
    pub fn error() -> Error {
        Error::of(ErrorId::Interrupted, "interrupted by a signal")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_wish() {
        let interrupt = Interrupt::new();
        let clone = interrupt.clone();
        assert!(clone.check().is_ok());
        interrupt.set();
        assert!(clone.is_set() && clone.check().is_err() && !clone.is_urgent());
        interrupt.set();
        assert!(clone.is_urgent());
    }

    #[test]
    fn who_holds_the_process_is_waited_for() {
        let interrupt = Interrupt::new();
        let ends = |interrupt: &Interrupt| {
            let mut ended = false;
            interrupt.unless_held(|| ended = true);
            ended
        };
        assert!(ends(&interrupt));
        let clone = interrupt.clone();
        let holds = (clone.hold(), interrupt.hold());
        assert!(!ends(&interrupt));
        drop(holds.0);
        assert!(!ends(&clone));
        drop(holds.1);
        assert!(ends(&interrupt));
    }

    #[test]
    fn what_is_in_hand_gets_a_while() {
        let interrupt = Interrupt::new();
        assert!(interrupt.check_grace().is_ok());
        interrupt.set();
        assert!(interrupt.check_grace().is_ok());
        let before = Instant::now().checked_sub(GRACE).unwrap_or_else(Instant::now);
        let late = Interrupt { seen: Arc::new(OnceLock::from(before)), ..interrupt };
        assert!(late.check_grace().is_err());
    }
}
