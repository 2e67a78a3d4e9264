//! The wish to stop, for whoever waits or works for long.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
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
}

impl Interrupt {
    /// A wish that nobody has yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The flag behind it, for those who set it.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }

    /// From now on the work shall stop.
    pub fn set(&self) {
        self.flag.store(true, Ordering::Relaxed);
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
        assert!(clone.is_set() && clone.check().is_err());
    }

    #[test]
    fn what_is_in_hand_gets_a_while() {
        let interrupt = Interrupt::new();
        assert!(interrupt.check_grace().is_ok());
        interrupt.flag().store(true, Ordering::Relaxed);
        assert!(interrupt.check_grace().is_ok());
        let before = Instant::now().checked_sub(GRACE).unwrap_or_else(Instant::now);
        let late = Interrupt { seen: Arc::new(OnceLock::from(before)), ..interrupt };
        assert!(late.check_grace().is_err());
    }
}
