//! Owns the circuit breaker: when so many messages are refused that our own configuration is the likelier culprit.
//! Pure: time comes in as an argument. Must not know messages or what is held.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::event::{Reason, Stage};

/// Fewest verdicts after opening before it may close again.
const EVIDENCE: usize = 20;

/// Seconds with verdicts that count while it is open.
const KEPT: usize = 60;

/// When it opens.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Share of refused messages, above 0; 1.0 never opens.
    pub max_ratio: f64,
    /// The time over which the share is taken.
    pub window: Duration,
    /// Fewest messages that reached the store in the window.
    pub min_store: usize,
    /// Fewest messages that reached the decoder in the window.
    pub min_decode: usize,
}

/// Verdicts of one moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    decoded: Tally,
    stored: Tally,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    good: usize,
    bad: usize,
}

impl Tally {
    fn exceeds(self, ratio: f64, least: usize) -> bool {
        let all = self.good + self.bad;
        all >= least && self.bad as f64 > ratio * all as f64
    }
}

/// Whether a message that was refused for this reason may have been refused because of a wrong setting.
pub fn suspect(reason: Reason) -> bool {
    use Reason::*;
    matches!(reason, InvalidField | MissingField | TooLarge | TooDeep | DuplicateKey | RejectedByStore)
}

/// The breaker.
#[derive(Debug)]
pub struct Breaker {
    limits: Limits,
    samples: VecDeque<Sample>,
    /// The stage that opened it.
    open: Option<Stage>,
}

impl Breaker {
    /// A closed one.
    pub fn new(limits: Limits) -> Self {
        Breaker { limits, samples: VecDeque::new(), open: None }
    }

    /// Whether suspect dead letters are held back, and which stage refuses.
    pub fn open(&self) -> Option<Stage> {
        self.open
    }

    /// Notes a message that passed a stage, or was refused there for a suspect reason.
    pub fn note(&mut self, now: Instant, stage: Stage, good: bool) {
        // Samples of one second share an entry.
        let fresh =
            self.samples.back().is_none_or(|last| now.saturating_duration_since(last.at) > Duration::from_secs(1));
        if fresh {
            self.samples.push_back(Sample { at: now, decoded: Tally::default(), stored: Tally::default() });
        }
        if let Some(sample) = self.samples.back_mut() {
            let tally = if stage == Stage::Store { &mut sample.stored } else { &mut sample.decoded };
            if good { tally.good += 1 } else { tally.bad += 1 }
        }
        if self.open.is_some() {
            self.shorten();
        }
    }

    /// While it is open, only the last verdicts count, however old they are.
    fn shorten(&mut self) {
        while self.samples.len() > KEPT {
            self.samples.pop_front();
        }
    }

    /// Draws the conclusion; true if the breaker opened or closed.
    pub fn judge(&mut self, now: Instant) -> bool {
        // While it is open nothing is forgotten: time alone is no evidence, for or against.
        while self.open.is_none()
            && self.samples.front().is_some_and(|first| now.saturating_duration_since(first.at) > self.limits.window)
        {
            self.samples.pop_front();
        }
        let sum = |pick: fn(&Sample) -> Tally| {
            self.samples
                .iter()
                .map(pick)
                .fold(Tally::default(), |a, b| Tally { good: a.good + b.good, bad: a.bad + b.bad })
        };
        let (decoded, stored) = (sum(|sample| sample.decoded), sum(|sample| sample.stored));
        let ratio = self.limits.max_ratio;
        let next = match self.open {
            None if stored.exceeds(ratio, self.limits.min_store) => Some(Stage::Store),
            None if decoded.exceeds(ratio, self.limits.min_decode) => Some(Stage::Decode),
            Some(stage) => {
                let tally = if stage == Stage::Store { stored } else { decoded };
                let mended = tally.good + tally.bad >= EVIDENCE && !tally.exceeds(ratio, EVIDENCE);
                (!mended).then_some(stage)
            }
            None => None,
        };
        let changed = next != self.open;
        if changed {
            self.open = next;
            self.samples.clear();
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_ratio: 0.9, window: Duration::from_secs(60), min_store: 100, min_decode: 1000 };

    fn after(verdicts: &[(Stage, bool, usize)]) -> Option<Stage> {
        let (mut breaker, now) = (Breaker::new(LIMITS), Instant::now());
        for (stage, good, count) in verdicts {
            (0..*count).for_each(|_| breaker.note(now, *stage, *good));
        }
        breaker.judge(now);
        breaker.open()
    }

    #[test]
    fn opens_only_when_nearly_everything_is_refused() {
        assert_eq!(after(&[(Stage::Store, false, 99)]), None);
        assert_eq!(after(&[(Stage::Store, false, 100)]), Some(Stage::Store));
        assert_eq!(after(&[(Stage::Store, false, 500), (Stage::Store, true, 60)]), None);
        assert_eq!(after(&[(Stage::Decode, false, 999)]), None);
        assert_eq!(after(&[(Stage::Decode, false, 1000)]), Some(Stage::Decode));
        assert_eq!(after(&[(Stage::Decode, false, 1000), (Stage::Decode, true, 1000)]), None);
    }

    #[test]
    fn closes_on_evidence_and_forgets_what_is_old() {
        let (mut breaker, start) = (Breaker::new(LIMITS), Instant::now());
        (0..200).for_each(|_| breaker.note(start, Stage::Store, false));
        assert!(breaker.judge(start));
        assert!(!breaker.judge(start + Duration::from_secs(3600)), "time alone is no evidence");
        let later = start + Duration::from_secs(3600);
        (0..19).for_each(|_| breaker.note(later, Stage::Store, true));
        assert!(!breaker.judge(later));
        breaker.note(later, Stage::Store, true);
        assert!(breaker.judge(later));
        assert_eq!(breaker.open(), None);
        (0..99).for_each(|_| breaker.note(later, Stage::Store, false));
        let much_later = later + Duration::from_secs(61);
        breaker.note(much_later, Stage::Store, false);
        assert!(!breaker.judge(much_later), "the 99 are out of the window");
    }

    #[test]
    fn a_ratio_of_one_never_opens() {
        let (mut breaker, now) = (Breaker::new(Limits { max_ratio: 1.0, ..LIMITS }), Instant::now());
        (0..5000).for_each(|_| breaker.note(now, Stage::Store, false));
        assert!(!breaker.judge(now));
    }
}
