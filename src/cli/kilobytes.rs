//! How far a drop-in's copying is, in pg_rewind's words.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pg_unfork::compat::copied;
use pg_unfork::progress::{Progress, Stage};

use super::output;

/// How often a line is written.
const INTERVAL: Duration = Duration::from_secs(1);

/// Progress on standard error, for `-P`.
#[derive(Debug)]
pub(super) struct Kilobytes {
    wanted: bool,
    copying: Mutex<Option<Copying>>,
}

#[derive(Clone, Copy, Debug)]
struct Copying {
    done: u64,
    total: u64,
    said: Instant,
}

impl Copying {
    /// Writes how far it is; on a terminal the next line takes the place of this one, but for the last.
    fn say(&self, is_last: bool) {
        let end = if !is_last && std::io::stderr().is_terminal() { '\r' } else { '\n' };
        output::raw(&format!("{}{end}", copied(self.done, self.total)));
    }
}

impl Kilobytes {
    pub(super) fn new(wanted: bool) -> Self {
        Self { wanted, copying: Mutex::new(None) }
    }

    /// Writes the last line, once nothing more is copied; what has come to its end is copied whole.
    pub(super) fn last_line(&self, is_whole: bool) {
        if let Some(mut copying) = self.copying().take() {
            copying.done = if is_whole { copying.total.max(copying.done) } else { copying.done };
            copying.say(true);
        }
    }

    fn copying(&self) -> MutexGuard<'_, Option<Copying>> {
        self.copying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Kilobytes {
    fn begin(&self, stage: Stage, total: Option<u64>) {
        if !self.wanted || stage != Stage::Copy {
            return;
        }
        let copying = Copying { done: 0, total: total.unwrap_or_default(), said: Instant::now() };
        copying.say(false);
        *self.copying() = Some(copying);
    }

    fn advance(&self, amount: u64) {
        let mut current = self.copying();
        let Some(copying) = current.as_mut() else { return };
        copying.done = copying.done.saturating_add(amount);
        if copying.said.elapsed() >= INTERVAL {
            copying.said = Instant::now();
            copying.say(false);
        }
    }

    /// More may follow: see [`Kilobytes::last_line`].
    fn end(&self) {}
}
