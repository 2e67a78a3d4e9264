//! How far long work is: bars on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pg_unfork::progress::{Progress, Stage};
use pg_unfork::report::{bytes, count};

use super::output;

/// How often a line is written where no terminal is.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Progress on standard error.
pub(super) struct Watch {
    terminal: bool,
    current: Mutex<Option<Running>>,
}

struct Running {
    stage: Stage,
    total: Option<u64>,
    done: u64,
    began: Instant,
    last_line: Instant,
    bar: ProgressBar,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), current: Mutex::new(None) }
    }

    fn current(&self) -> MutexGuard<'_, Option<Running>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn label(stage: Stage) -> &'static str {
    match stage {
        Stage::ScanWal => "reading the target's WAL",
        Stage::List => "listing files",
        Stage::Compare => "comparing files",
        Stage::Hash => "hashing files",
        Stage::Copy => "copying",
        Stage::Sync => "making durable",
        Stage::Undo => "putting back",
        Stage::Verify => "verifying",
    }
}

fn amount(stage: Stage, amount: u64) -> String {
    match stage {
        Stage::ScanWal | Stage::Compare | Stage::Hash | Stage::Copy | Stage::Verify => bytes(amount),
        Stage::List | Stage::Sync | Stage::Undo => count(amount, "file", "files"),
    }
}

fn bar(stage: Stage, total: Option<u64>) -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(10);
    let bar = ProgressBar::with_draw_target(total, target);
    let template = match (stage, total) {
        (Stage::ScanWal | Stage::Compare | Stage::Hash | Stage::Copy | Stage::Verify, Some(_)) => {
            "{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}"
        }
        (Stage::List | Stage::Sync | Stage::Undo, Some(_)) => "{msg} [{bar:30}] {pos}/{len}",
        _ => "{msg} {pos}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(label(stage));
    bar
}

impl Running {
    fn line(&self) -> String {
        let done = amount(self.stage, self.done);
        let total = self.total.map_or(String::new(), |total| format!(" of {}", amount(self.stage, total)));
        let seconds = self.began.elapsed().as_secs_f64();
        format!("pg_unfork: {}: {done}{total}, {seconds:.1} s\n", label(self.stage))
    }
}

impl Progress for Watch {
    fn begin(&self, stage: Stage, total: Option<u64>) {
        let now = Instant::now();
        let bar = if self.terminal { bar(stage, total) } else { ProgressBar::hidden() };
        *self.current() = Some(Running { stage, total, done: 0, began: now, last_line: now, bar });
    }

    fn advance(&self, amount: u64) {
        let mut current = self.current();
        let Some(running) = current.as_mut() else { return };
        running.done += amount;
        if self.terminal {
            running.bar.inc(amount);
        } else if running.last_line.elapsed() >= LINE_INTERVAL {
            running.last_line = Instant::now();
            output::note(&running.line());
        }
    }

    fn end(&self) {
        let Some(running) = self.current().take() else { return };
        running.bar.finish_and_clear();
        if !self.terminal && running.began.elapsed() >= Duration::from_secs(1) {
            output::note(&running.line());
        }
    }
}
