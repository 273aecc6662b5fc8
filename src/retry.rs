//! Owns the delay before the next attempt: exponential, capped, with full jitter. The only place that names `backoff`,
//! which is unmaintained (see `deny.toml`) and used for its policy alone; the loops are the callers'.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

/// What retries are configured to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Upper bound of the first delay.
    pub initial: Duration,
    /// Upper bound of every delay.
    pub max: Duration,
}

/// The delays of one run of failures. Never gives up: an outage has no last attempt.
#[derive(Debug)]
pub struct Delays {
    bounds: ExponentialBackoff,
}

impl Delays {
    /// Begins a run of failures.
    pub fn new(policy: Policy) -> Self {
        // Without randomization, what `backoff` gives is the growing upper bound; the jitter over all of it ("full
        // jitter", so that many workers do not return in step) is drawn in `draw`.
        let bounds = ExponentialBackoff {
            current_interval: policy.initial,
            initial_interval: policy.initial,
            randomization_factor: 0.0,
            multiplier: 2.0,
            max_interval: policy.max,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        Delays { bounds }
    }

    /// The next delay: uniform between zero and a bound that doubles up to `Policy::max`.
    pub fn draw(&mut self) -> Duration {
        let bound = self.bounds.next_backoff().unwrap_or(self.bounds.max_interval);
        bound.mul_f64(rand::random::<f64>())
    }

    /// A success ends the run.
    pub fn reset(&mut self) {
        self.bounds.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_up_to_the_cap_never_end_and_start_anew() {
        let policy = Policy { initial: Duration::from_millis(100), max: Duration::from_millis(350) };
        for _ in 0..50 {
            let mut delays = Delays::new(policy);
            for bound in [100, 200, 350, 350, 350] {
                assert!(delays.draw() <= Duration::from_millis(bound));
            }
            delays.reset();
            assert!(delays.draw() <= Duration::from_millis(100));
        }
    }

    #[test]
    fn jitter_covers_the_whole_interval() {
        let policy = Policy { initial: Duration::from_secs(1), max: Duration::from_secs(1) };
        let drawn: Vec<_> = (0..200).map(|_| Delays::new(policy).draw()).collect();
        assert!(drawn.iter().any(|delay| *delay < Duration::from_millis(250)));
        assert!(drawn.iter().any(|delay| *delay > Duration::from_millis(750)));
    }
}
