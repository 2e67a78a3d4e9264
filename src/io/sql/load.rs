//! How much is asked of a live source at a time, and how fast.

use std::time::{Duration, Instant};

/// The least and the greatest rate, in bytes a second: those of `pg_basebackup`.
const RATES: std::ops::RangeInclusive<u64> = (32 << 10)..=(1 << 30);
/// How many queries' worth of bytes a second has where the rate is limited.
const QUERIES_A_SECOND: u64 = 8;
/// The least that is asked for in one read: a block.
const LEAST: u64 = 8192;
/// Below this round trip, a server is on this machine, or as good as: its processes and ours share the processors.
const NEAR: Duration = Duration::from_micros(300);
/// From this round trip on, a line is long.
const LONG: Duration = Duration::from_millis(2);

/// How much a live source is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Connections; as the line wants it where none.
    jobs: Option<usize>,
    max_rate: Option<u64>,
}

impl Load {
    /// The most connections: a server has 100 by default.
    pub const MOST_JOBS: usize = 16;
    /// As many as a server in another place is read on.
    pub const USUAL_JOBS: usize = 4;

    /// One connection, as fast as it goes.
    #[must_use]
    pub fn single() -> Self {
        Self { jobs: Some(1), max_rate: None }
    }

    /// That many connections that read files (1 to [`Self::MOST_JOBS`], others are taken for the nearest; where none is
    /// given, one on the same machine and [`Self::USUAL_JOBS`] elsewhere), and at most that many bytes a second in all.
    #[must_use]
    pub fn new(jobs: Option<usize>, max_rate: Option<Rate>) -> Self {
        Self { jobs: jobs.map(|jobs| jobs.clamp(1, Self::MOST_JOBS)), max_rate: max_rate.map(|rate| rate.0) }
    }

    /// How many sessions there may be besides the first, where the line has this round trip.
    pub(super) fn others(self, round_trip: Duration) -> usize {
        let usual = if round_trip < NEAR { 1 } else { Self::USUAL_JOBS };
        self.jobs.unwrap_or(usual) - 1
    }

    /// Who keeps to the rate.
    pub(super) fn pace(self) -> Pace {
        Pace { rate: self.max_rate, due: None }
    }
}

/// Bytes a second: 32 KiB to 1 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(u64);

impl std::str::FromStr for Rate {
    type Err = String;

    /// Reads a rate as `pg_basebackup --max-rate` does: kilobytes (of 1024 bytes), or with the suffix `k` or `M`
    /// kilobytes or megabytes.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (digits, unit) = match text.char_indices().next_back() {
            Some((at, 'k')) => (text.get(..at), 1 << 10),
            Some((at, 'M')) => (text.get(..at), 1 << 20),
            _ => (Some(text), 1 << 10),
        };
        let number = digits.map(str::trim).and_then(|digits| digits.parse::<u64>().ok());
        let number = number.ok_or_else(|| "a rate is a whole number, in kB, or with the suffix k or M".to_owned())?;
        let rate = number.checked_mul(unit).filter(|rate| RATES.contains(rate));
        rate.map(Self).ok_or_else(|| "a rate is from 32 kB to 1024 MB a second".to_owned())
    }
}

/// How large reads and queries are, and how many are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// The most bytes in a read: a row of an answer.
    pub(super) read: u64,
    /// Blocks that are not further apart than that many bytes are read at once.
    pub(super) gap: u64,
    /// The most bytes in a query.
    pub(super) query: u64,
    /// The most queries under way in a session.
    pub(super) depth: usize,
    /// The most bytes that are asked for and not delivered, of all sessions.
    pub(super) window: u64,
    /// Whether files are taken to be as long as they are thought to be: asking takes as long as reading.
    pub(super) trusts_sizes: bool,
}

impl Shape {
    /// What suits a line with this round trip.
    pub(super) fn of(round_trip: Duration, load: Load) -> Self {
        let long = round_trip >= LONG;
        let (query, depth, window) = if long { (2 << 20, 8, 24 << 20) } else { (1 << 20, 3, 12 << 20) };
        let shape = Self { read: 256 << 10, gap: 3 * 8192, query, depth, window, trusts_sizes: long };
        let Some(rate) = load.max_rate else { return shape };
        // Little at a time, so that it is a flow.
        let query = query.min((rate / QUERIES_A_SECOND / LEAST * LEAST).max(LEAST));
        Self { read: shape.read.min(query), query, ..shape }
    }
}

/// Keeps to a rate: says when to ask for more.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    rate: Option<u64>,
    /// When all that was asked for is paid for.
    due: Option<Instant>,
}

impl Pace {
    /// How long to wait before anything is asked for.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now))
    }

    /// So many bytes are asked for.
    pub(super) fn spend(&mut self, bytes: u64, now: Instant) {
        if let Some(time) = self.time(bytes) {
            // What was not used is not saved up.
            self.due = self.due.map_or(now, |due| due.max(now)).checked_add(time);
        }
    }

    /// So many of those that were asked for are not there.
    pub(super) fn refund(&mut self, bytes: u64) {
        if let Some(time) = self.time(bytes) {
            self.due = self.due.and_then(|due| due.checked_sub(time));
        }
    }

    fn time(&self, bytes: u64) -> Option<Duration> {
        let rate = self.rate?;
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        Some(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_pg_basebackup_reads_them() {
        let good = [
            ("32", 32 << 10),
            ("32k", 32 << 10),
            ("100k", 100 << 10),
            ("1M", 1 << 20),
            ("1024M", 1 << 30),
            ("1048576", 1 << 30),
        ];
        for (text, bytes) in good {
            assert_eq!(text.parse::<Rate>(), Ok(Rate(bytes)), "{text}");
        }
        for text in ["31", "0", "31k", "1025M", "1048577", "18446744073709551615M"] {
            assert!(text.parse::<Rate>().unwrap_err().contains("from 32 kB to 1024 MB"), "{text}");
        }
        for text in ["", "k", "M", "1.5M", "-32", "1G", "32 kB", "32K", "é"] {
            assert!(text.parse::<Rate>().unwrap_err().contains("suffix k or M"), "{text}");
        }
    }

    #[test]
    fn jobs_stay_in_range() {
        for (jobs, others) in [(0, 0), (1, 0), (4, 3), (16, 15), (99, 15)] {
            assert_eq!(Load::new(Some(jobs), None).others(Duration::ZERO), others, "{jobs}");
        }
        for (microseconds, others) in [(0, 0), (299, 0), (300, 3), (20_000, 3)] {
            assert_eq!(Load::new(None, None).others(Duration::from_micros(microseconds)), others, "{microseconds}");
        }
    }

    #[test]
    fn shapes_fit_the_line_and_the_rate() {
        let rate = |text: &str| Some(text.parse::<Rate>().unwrap());
        let cases = [
            // Round trip in ms, rate; read, query, depth, window in KiB.
            (0, None, (256, 1024, 3, 12288)),
            (1, rate("1024M"), (256, 1024, 3, 12288)),
            (20, None, (256, 2048, 8, 24576)),
            (20, rate("4M"), (256, 512, 8, 24576)),
            (0, rate("1M"), (128, 128, 3, 12288)),
            (0, rate("32k"), (8, 8, 3, 12288)),
            (0, rate("100k"), (8, 8, 3, 12288)),
        ];
        for (ms, rate, expected) in cases {
            let shape = Shape::of(Duration::from_millis(ms), Load::new(Some(4), rate));
            let kib = |bytes| bytes / 1024;
            let found = (kib(shape.read), kib(shape.query), shape.depth, kib(shape.window));
            assert_eq!(found, expected, "{ms} ms, {rate:?}");
            assert!(shape.window >= 2 * shape.query);
            assert_eq!(shape.trusts_sizes, ms >= 2, "{ms} ms");
        }
    }

    #[test]
    fn a_pace_is_kept_over_any_time() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut pace = Load::new(Some(1), Some(Rate(1 << 20))).pace();
        assert_eq!(pace.wait(begin), Duration::ZERO);
        pace.spend(1 << 20, begin);
        assert_eq!(pace.wait(begin).as_millis(), 1000);
        pace.refund(1 << 19);
        assert_eq!((pace.wait(begin).as_millis(), pace.wait(at(400)).as_millis()), (500, 100));
        // Ten seconds of rest are not made up for.
        pace.spend(1 << 20, at(10_000));
        assert_eq!((pace.wait(at(10_000)).as_millis(), pace.wait(at(11_000)).as_millis()), (1000, 0));
        // Nor is what was asked for at once forgotten.
        pace.spend(1 << 20, at(10_500));
        assert_eq!(pace.wait(at(10_500)).as_millis(), 1500);
    }

    #[test]
    fn without_a_rate_there_is_no_pause() {
        let begin = Instant::now();
        let mut pace = Load::new(Some(9), None).pace();
        pace.spend(u64::MAX, begin);
        assert_eq!(pace.wait(begin), Duration::ZERO);
    }
}
