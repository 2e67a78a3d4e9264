//! What was measured, as Markdown.

use std::time::Duration;

use super::process::Cost;

/// A run of a program, or of two, one after the other.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Run {
    pub(crate) cost: Cost,
    /// Bytes that it says it copied, if it copied any.
    pub(crate) copied: Option<u64>,
}

/// The runs of one program in one row.
#[derive(Debug, Default)]
pub(crate) struct Samples(pub(crate) Vec<Run>);

/// The head of the table whose lines are [`row`]s.
pub(crate) const HEAD: &str = "\
| | pg_rewind s | fastest | CPU s | MiB | copied MiB | pg_unfork s | fastest | CPU s | MiB | copied MiB | times faster | of the fastest |
|---|---|---|---|---|---|---|---|---|---|---|---|---|";

/// The head of the table whose lines are [`rate`]s.
pub(crate) const RATES_HEAD: &str = "| | MiB | s | MiB/s |\n|---|---|---|---|";

impl Samples {
    fn walls(&self) -> Vec<Duration> {
        let mut walls: Vec<_> = self.0.iter().map(|run| run.cost.wall).collect();
        walls.sort_unstable();
        walls
    }

    /// The median in seconds.
    pub(crate) fn median(&self) -> f64 {
        let walls = self.walls();
        let middle = walls.len() / 2;
        let above = walls.get(middle).map_or(0.0, Duration::as_secs_f64);
        let below = walls.get(middle.saturating_sub(1)).map_or(0.0, Duration::as_secs_f64);
        if walls.len() % 2 == 1 { above } else { f64::midpoint(above, below) }
    }

    /// The fastest run.
    pub(crate) fn fastest(&self) -> Cost {
        self.0.iter().map(|run| run.cost).min_by_key(|cost| cost.wall).unwrap_or_default()
    }

    /// The highest peak of memory in bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.0.iter().map(|run| run.cost.peak).max().unwrap_or_default()
    }

    /// The most that a run copied, in bytes.
    pub(crate) fn copied(&self) -> Option<u64> {
        self.0.iter().filter_map(|run| run.copied).max()
    }

    /// Median and fastest run, CPU time of the fastest, highest peak of memory, bytes copied.
    fn cells(&self) -> String {
        let fastest = self.fastest();
        let (least, cpu) = (fastest.wall.as_secs_f64(), fastest.cpu.as_secs_f64());
        let copied = self.copied().map_or_else(String::new, |bytes| format!("{:.1}", mib(bytes)));
        format!("{:.2} | {least:.2} | {cpu:.2} | {:.1} | {copied}", self.median(), mib(self.peak()))
    }
}

/// One line of the result.
pub(crate) fn row(label: &str, theirs: &Samples, ours: &Samples) -> String {
    let faster = theirs.median() / ours.median();
    let of_fastest = theirs.fastest().wall.as_secs_f64() / ours.fastest().wall.as_secs_f64();
    format!("| {label} | {} | {} | {faster:.1} | {of_fastest:.1} |", theirs.cells(), ours.cells())
}

/// How fast so many bytes went.
pub(crate) fn rate(label: &str, bytes: u64, seconds: f64) -> String {
    format!("| {label} | {:.1} | {seconds:.2} | {:.0} |", mib(bytes), mib(bytes) / seconds)
}

/// Bytes in MiB, for people.
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
