//! Owns the circuit breaker: it opens when MongoDB rejects nearly all events for a reason that a validator or an index can
//! cause. Then a setting is more likely at fault than the messages. Pure. Must not know messages or what is held.

use std::collections::VecDeque;

use crate::event::Reason;

/// Fewest outcomes after opening before it may close.
const MIN_TO_CLOSE: usize = 20;

/// Judges the last outcomes of the store. So the number of dead letters before it opens does not depend on the rate of
/// events.
#[derive(Debug)]
pub struct Breaker {
    max_ratio: f64,
    window: usize,
    /// The last outcomes: whether the store rejected the event.
    rejected: VecDeque<bool>,
    open: bool,
}

impl Breaker {
    /// A closed breaker. It opens when more than `max_ratio` of the last `window` outcomes are rejections, once there are at
    /// least half as many; 1.0 never opens it.
    pub fn new(max_ratio: f64, window: usize) -> Self {
        Breaker { max_ratio, window: window.max(1), rejected: VecDeque::new(), open: false }
    }

    /// Whether a rejection for this reason counts: whether a validator or an index of the collection can cause it.
    pub fn counts(reason: Reason) -> bool {
        matches!(reason, Reason::DuplicateKey | Reason::RejectedByStore)
    }

    /// Whether rejected events are to be held instead of dead-lettered.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Records the outcome of one event.
    pub fn record(&mut self, rejected: bool) {
        if self.rejected.len() == self.window {
            self.rejected.pop_front();
        }
        self.rejected.push_back(rejected);
    }

    /// Opens or closes; true if that is a change.
    pub fn evaluate(&mut self) -> bool {
        let (total, min) = (self.rejected.len(), if self.open { MIN_TO_CLOSE } else { self.window.div_ceil(2) });
        if total < min {
            return false;
        }
        let rejections = self.rejected.iter().filter(|rejected| **rejected).count();
        let exceeded = rejections as f64 > self.max_ratio * total as f64;
        if exceeded == self.open {
            return false;
        }
        self.open = exceeded;
        self.rejected.clear();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(breaker: &mut Breaker, rejected: bool, count: usize) {
        (0..count).for_each(|_| breaker.record(rejected));
    }

    #[test]
    fn opens_only_when_nearly_all_of_the_last_events_are_rejected() {
        let opens = |outcomes: &[(bool, usize)]| {
            let mut breaker = Breaker::new(0.9, 200);
            outcomes.iter().for_each(|(rejected, count)| record(&mut breaker, *rejected, *count));
            breaker.evaluate() && breaker.is_open()
        };
        assert!(!opens(&[(true, 99)]));
        assert!(opens(&[(true, 100)]));
        assert!(!opens(&[(false, 20), (true, 180)]), "exactly the ratio");
        assert!(opens(&[(false, 10_000), (true, 181)]));
        assert!(!opens(&[(true, 500), (false, 30)]));
    }

    /// docs/runbooks/TicketlogBreakerOpen.md states this number.
    #[test]
    fn a_validator_that_rejects_everything_costs_at_most_180_dead_letters() {
        let mut breaker = Breaker::new(0.9, 200);
        record(&mut breaker, false, 100_000);
        assert!(!breaker.evaluate());
        let mut dead_letters = 0;
        loop {
            breaker.record(true);
            if breaker.evaluate() {
                break;
            }
            dead_letters += 1;
        }
        assert_eq!(dead_letters, 180);
    }

    #[test]
    fn closes_when_enough_events_pass() {
        let mut breaker = Breaker::new(0.9, 200);
        record(&mut breaker, true, 200);
        assert!(breaker.evaluate() && breaker.is_open());
        record(&mut breaker, true, 20);
        assert!(!breaker.evaluate());
        record(&mut breaker, false, 19);
        assert!(breaker.evaluate() && !breaker.is_open());
        record(&mut breaker, true, 99);
        assert!(!breaker.evaluate(), "the outcomes before it closed do not count");
    }

    #[test]
    fn a_ratio_of_one_never_opens() {
        let mut breaker = Breaker::new(1.0, 200);
        record(&mut breaker, true, 5000);
        assert!(!breaker.evaluate());
    }
}
