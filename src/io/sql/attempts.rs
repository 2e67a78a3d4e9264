//! When to try again, and when to give up.

use std::time::{Duration, Instant};

/// The first pause.
const SHORTEST: Duration = Duration::from_millis(100);
/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(5);

/// The attempts at one thing that should go on and does not.
#[derive(Debug)]
pub(super) struct Attempts {
    /// How long to go on without progress.
    timeout: Duration,
    /// When it last went on.
    since: Instant,
    /// Since then, how many attempts failed.
    failed: u32,
    /// The next pause.
    pause: Duration,
}

impl Attempts {
    /// None yet.
    pub(super) fn begin(timeout: Duration, now: Instant) -> Self {
        Self { timeout, since: now, failed: 0, pause: SHORTEST }
    }

    /// It went on at that time: if that is news, patience begins anew.
    pub(super) fn went_on(&mut self, at: Instant) {
        if at > self.since {
            *self = Self::begin(self.timeout, at);
        }
    }

    /// One more failed: how long to pause before the next; none where it is time to give up.
    pub(super) fn fail(&mut self, now: Instant) -> Option<Duration> {
        self.failed += 1;
        let left = self.left(now);
        let pause = self.pause.min(left);
        self.pause = (self.pause * 2).min(LONGEST);
        (!left.is_zero()).then_some(pause)
    }

    /// How much time is left.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.timeout.saturating_sub(now.saturating_duration_since(self.since))
    }

    /// What was tried, for people.
    pub(super) fn account(&self, now: Instant) -> String {
        let seconds = now.saturating_duration_since(self.since).as_secs_f64();
        let noun = if self.failed == 1 { "attempt" } else { "attempts" };
        format!("{} {noun} in {seconds:.1} s", self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(attempts: &mut Attempts, now: Instant) -> Option<u128> {
        attempts.fail(now).map(|pause| pause.as_millis())
    }

    #[test]
    fn pauses_double_until_the_time_is_over() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut attempts = Attempts::begin(Duration::from_secs(20), begin);
        for expected in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            assert_eq!(milliseconds(&mut attempts, begin), Some(expected));
        }
        assert_eq!(milliseconds(&mut attempts, at(19_500)), Some(500));
        assert_eq!(milliseconds(&mut attempts, at(20_000)), None);
        assert_eq!(attempts.account(at(20_000)), "10 attempts in 20.0 s");
    }

    #[test]
    fn progress_renews_patience() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut attempts = Attempts::begin(Duration::from_secs(2), begin);
        assert_eq!(milliseconds(&mut attempts, at(1900)), Some(100));
        attempts.went_on(begin);
        assert_eq!(attempts.left(at(1900)).as_millis(), 100);
        attempts.went_on(at(1900));
        assert_eq!(attempts.left(at(1900)).as_millis(), 2000);
        assert_eq!(milliseconds(&mut attempts, at(3900)), None);
    }

    #[test]
    fn without_patience_nothing_is_tried_again() {
        let begin = Instant::now();
        let mut attempts = Attempts::begin(Duration::ZERO, begin);
        assert_eq!(attempts.fail(begin), None);
        assert_eq!(attempts.account(begin), "1 attempt in 0.0 s");
    }
}
