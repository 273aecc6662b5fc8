//! Owns the delay before the next attempt: exponential, capped, with full jitter. The only module that names the crate
//! `backoff`, which is unmaintained (see `deny.toml`) and used for its policy alone; the callers own the loops.

use std::time::Duration;

use ::backoff::ExponentialBackoff;
use ::backoff::backoff::Backoff as _;

/// The delays of one series of attempts. There is no last attempt, because an outage has no known end.
#[derive(Debug)]
pub struct Backoff {
    bounds: ExponentialBackoff,
}

impl Backoff {
    /// `initial` is the upper bound of the first delay, `max` of every delay.
    pub fn new(initial: Duration, max: Duration) -> Self {
        // Without randomization the crate returns the growing upper bound; `next_delay` adds the jitter.
        let bounds = ExponentialBackoff {
            current_interval: initial,
            initial_interval: initial,
            randomization_factor: 0.0,
            multiplier: 2.0,
            max_interval: max,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        Backoff { bounds }
    }

    /// The next delay: uniform between zero and a bound that doubles up to the maximum ("full jitter", so that many workers
    /// do not retry at the same time).
    pub fn next_delay(&mut self) -> Duration {
        let bound = self.bounds.next_backoff().unwrap_or(self.bounds.max_interval);
        bound.mul_f64(rand::random::<f64>())
    }

    /// Starts again with the first delay.
    pub fn reset(&mut self) {
        self.bounds.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_up_to_the_maximum_and_start_again_after_a_reset() {
        for _ in 0..50 {
            let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
            for bound in [100, 200, 350, 350, 350] {
                assert!(backoff.next_delay() <= Duration::from_millis(bound));
            }
            backoff.reset();
            assert!(backoff.next_delay() <= Duration::from_millis(100));
        }
    }

    #[test]
    fn jitter_covers_the_whole_interval() {
        let second = Duration::from_secs(1);
        let delays: Vec<_> = (0..200).map(|_| Backoff::new(second, second).next_delay()).collect();
        assert!(delays.iter().any(|delay| *delay < Duration::from_millis(250)));
        assert!(delays.iter().any(|delay| *delay > Duration::from_millis(750)));
    }
}
