//! How long work tells how far it is, without knowing who listens.

/// A stretch of work that takes long enough to be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading the target's WAL; counted in bytes.
    ScanWal,
    /// Listing a data directory; counted in files.
    List,
    /// Comparing files of both sides; counted in bytes.
    Compare,
    /// Hashing files of the source for a listing; counted in bytes.
    Hash,
    /// Copying from the source; counted in bytes.
    Copy,
    /// Making changes durable; counted in files.
    Sync,
    /// Putting back what an apply has changed; counted in paths.
    Undo,
    /// Reading what an apply has left; counted in bytes.
    Verify,
}

/// Hears how work goes on, from whatever thread. Implementations must be cheap: calls come per piece of work.
pub trait Progress: Sync {
    /// A stage begins; `total` is its extent in the stage's unit, where it is known.
    fn begin(&self, stage: Stage, total: Option<u64>);
    /// So much more of the current stage is done.
    fn advance(&self, amount: u64);
    /// The current stage is over.
    fn end(&self);
}

/// Nobody listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: Stage, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn end(&self) {}
}
