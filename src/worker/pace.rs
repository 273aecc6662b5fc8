//! Owns the pace of writes: a limit of events a second on average (`write.max_rate`), in ten batches a second or fewer. Pure.

use std::time::{Duration, Instant};

/// Batches a second that a rate is divided into.
const BATCHES_PER_SECOND: u32 = 10;

/// The pace of one session.
#[derive(Debug)]
pub struct Pace {
    max_rate: u32,
    /// When the next batch may start; none before the first.
    not_before: Option<Instant>,
}

impl Pace {
    /// At most `max_rate` events a second; 0 for any number.
    pub fn new(max_rate: u32) -> Self {
        Pace { max_rate, not_before: None }
    }

    /// Most events of a batch.
    pub fn max_events(&self) -> usize {
        if self.max_rate == 0 { usize::MAX } else { self.max_rate.div_ceil(BATCHES_PER_SECOND) as usize }
    }

    /// When the next batch may start, if that is later than `now`.
    pub fn wait_until(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|at| *at > now)
    }

    /// A batch of this many events starts.
    pub fn started(&mut self, events: usize, now: Instant) {
        if self.max_rate > 0 {
            let from = self.not_before.map_or(now, |at| at.max(now));
            self.not_before = Some(from + Duration::from_secs_f64(events as f64 / f64::from(self.max_rate)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_the_rate_on_average_and_a_pause_is_not_made_up_for() {
        let (mut pace, start) = (Pace::new(100), Instant::now());
        assert_eq!((pace.max_events(), pace.wait_until(start)), (10, None));
        let mut now = start;
        for _ in 0..50 {
            now = pace.wait_until(now).unwrap_or(now);
            pace.started(10, now);
        }
        assert_eq!(now - start, Duration::from_millis(4_900));
        now += Duration::from_secs(60);
        pace.started(10, now);
        assert_eq!(pace.wait_until(now), Some(now + Duration::from_millis(100)));
        assert_eq!(Pace::new(1).max_events(), 1);
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let (mut pace, now) = (Pace::new(0), Instant::now());
        pace.started(10_000, now);
        assert_eq!((pace.wait_until(now), pace.max_events()), (None, usize::MAX));
    }
}
