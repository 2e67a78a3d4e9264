//! What every command that applies a plan does alike.

use pg_unfork::apply::{ApplyContext, ApplyOptions, BATCH_BYTES, Condition, Now};
use pg_unfork::cluster::{ReadAt, Source};
use pg_unfork::error::{ErrorKind, Result};
use pg_unfork::interrupt::Interrupt;
use pg_unfork::io::{DataDirectory, DirectoryStore, SyncMethod};
use pg_unfork::manifest::{Manifest, plan_command};
use pg_unfork::progress::Progress;

use super::state;

/// A plan that is to be applied, or gone on with.
pub(super) struct Applying<'a> {
    /// The plan.
    pub(super) manifest: &'a Manifest,
    /// Its document.
    pub(super) document: &'a dyn ReadAt,
    /// How changes are made durable.
    pub(super) sync: SyncMethod,
    /// Whether what is replaced is kept.
    pub(super) undo: bool,
    /// Who watches.
    pub(super) progress: &'a dyn Progress,
    /// Whether somebody wants this to end.
    pub(super) interrupt: &'a Interrupt,
}

impl Applying<'_> {
    /// The store in which the plan is applied, on a target in this condition.
    pub(super) fn open_store(&self, target: &DataDirectory, condition: Condition) -> Result<DirectoryStore> {
        let store = match condition {
            Condition::Untouched
            | Condition::Prepared
            | Condition::Applied
            | Condition::Superseded
            | Condition::Undone => {
                let roots: Vec<_> =
                    self.manifest.target.roots.iter().map(|root| (root.path.clone(), root.link.clone())).collect();
                DirectoryStore::open(target.path(), &roots, self.sync).map_err(|error| match error.kind() {
                    ErrorKind::Stale => error.hint(format!("that is: {}", plan_command(self.manifest))),
                    _ => error,
                })?
            }
            Condition::Applying | Condition::Tampered | Condition::Lost | Condition::Undoing => {
                state::open_store(target.path(), self.manifest, self.sync)?
            }
        };
        Ok(store.stopping_on(self.interrupt.clone()))
    }

    /// Hands over to the library, which applies, or only checks.
    ///
    /// # Errors
    /// Those of `work`.
    pub(super) fn run<T>(
        &self,
        target: &mut DataDirectory,
        store: &mut DirectoryStore,
        source: &mut dyn Source,
        work: impl FnOnce(ApplyContext<'_>) -> Result<T>,
    ) -> Result<T> {
        work(ApplyContext {
            manifest: self.manifest,
            document: self.document,
            target,
            store,
            source,
            now: &now,
            progress: self.progress,
            options: ApplyOptions { undo: self.undo, durable: self.sync != SyncMethod::None, batch_bytes: BATCH_BYTES },
            id: &format!("{}-{}", jiff::Timestamp::now().as_nanosecond(), std::process::id()),
            interrupt: self.interrupt,
            actor: &state::actor(),
        })
    }
}

fn now() -> Now {
    let now = jiff::Zoned::now();
    let local = now.strftime("%Y-%m-%d %H:%M:%S %Z").to_string();
    Now { unix: now.timestamp().as_second(), local, utc: state::utc() }
}
