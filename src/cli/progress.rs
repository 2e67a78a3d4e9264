//! How far long work is: bars on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pg_unfork::progress::{Progress, Stage};
use pg_unfork::report::{bytes, count};

use serde_json::json;

use super::args::ProgressMode;
use super::output;

/// How often a line is written where nobody asked for it.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// How often a line, or an event, is written for those who asked for it.
const ASKED_INTERVAL: Duration = Duration::from_secs(1);

/// Progress on standard error.
pub(super) struct Watch {
    mode: ProgressMode,
    /// Whether there are bars.
    bars: bool,
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
        let mode = output::mode();
        let bars = mode == ProgressMode::Auto && std::io::stderr().is_terminal();
        Self { mode, bars, current: Mutex::new(None) }
    }

    fn current(&self) -> MutexGuard<'_, Option<Running>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stage's name and unit in events.
fn names(stage: Stage) -> (&'static str, &'static str) {
    match stage {
        Stage::ScanWal => ("scan_wal", "bytes"),
        Stage::List => ("list", "files"),
        Stage::Compare => ("compare", "bytes"),
        Stage::Hash => ("hash", "bytes"),
        Stage::Copy => ("copy", "bytes"),
        Stage::Sync => ("sync", "files"),
        Stage::Undo => ("undo", "paths"),
        Stage::Verify => ("verify", "bytes"),
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

    fn event(&self, event: &str) {
        let (stage, unit) = names(self.stage);
        let milliseconds = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        output::event(json!({
            "event": event, "stage": stage, "unit": unit, "done": self.done, "total": self.total,
            "milliseconds": milliseconds,
        }));
    }

    /// Whether it is time to say something again.
    fn is_due(&mut self, interval: Duration) -> bool {
        let due = self.last_line.elapsed() >= interval;
        if due {
            self.last_line = Instant::now();
        }
        due
    }
}

impl Progress for Watch {
    fn begin(&self, stage: Stage, total: Option<u64>) {
        let now = Instant::now();
        let bar = if self.bars { bar(stage, total) } else { ProgressBar::hidden() };
        let running = Running { stage, total, done: 0, began: now, last_line: now, bar };
        if self.mode == ProgressMode::Json {
            running.event("begin");
        }
        *self.current() = Some(running);
    }

    fn advance(&self, amount: u64) {
        let mut current = self.current();
        let Some(running) = current.as_mut() else { return };
        running.done += amount;
        match self.mode {
            ProgressMode::Auto if self.bars => running.bar.inc(amount),
            ProgressMode::Auto if running.is_due(LINE_INTERVAL) => output::note(&running.line()),
            ProgressMode::Plain if running.is_due(ASKED_INTERVAL) => output::note(&running.line()),
            ProgressMode::Json if running.is_due(ASKED_INTERVAL) => running.event("progress"),
            _ => {}
        }
    }

    fn end(&self) {
        let Some(running) = self.current().take() else { return };
        running.bar.finish_and_clear();
        match self.mode {
            ProgressMode::Json => running.event("end"),
            ProgressMode::Plain => output::note(&running.line()),
            ProgressMode::Auto if !self.bars && running.began.elapsed() >= Duration::from_secs(1) => {
                output::note(&running.line());
            }
            ProgressMode::Auto | ProgressMode::None => {}
        }
    }
}
