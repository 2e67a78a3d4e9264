//! The wish to stop, for whoever waits or works for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// Whether somebody wants the work to stop. Clones speak of the same wish.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
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

    /// Whether the work shall stop.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
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
        Error::new(ErrorKind::Interrupted, "interrupted by a signal")
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
        interrupt.flag().store(true, Ordering::Relaxed);
        assert!(clone.is_set() && clone.check().is_err());
    }
}
