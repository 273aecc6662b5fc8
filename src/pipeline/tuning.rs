//! Owns how many batches are written at a time, and how many events a batch may have: within the configured bounds, from
//! how long writes take. Pure: time comes in as an argument. Must not know batches, writers or the store.
//!
//! Only writes of full batches are judged: at low load there is nothing to gain. They are judged a round at a time, all
//! of one setting. The shortest mean of a round is taken for what a write costs that waits for no other of ours; what
//! later rounds take longer than that is a queue of our own making in front of the store (as in TCP Vegas). A short queue calls
//! for one more writer, a long one for one fewer; writes slower than any queue of ours explains, or failing ones, for half
//! (as in TCP, and in Vector's adaptive concurrency).

use std::time::{Duration, Instant};

/// Fewest writes in a round.
const ROUND: u32 = 4;
/// A queue in front of the store that is too short to keep it busy, and one that is too long, in batches.
const SHORT: f64 = 0.8;
const LONG: f64 = 2.0;
/// A batch is never made smaller than this part of the bound.
const SMALLEST: usize = 20;
/// A batch grows by this part of the bound.
const STEP: usize = 8;
/// How often the cost of a lone write is measured anew.
const REMEMBERED: Duration = Duration::from_secs(15);

/// What may not be exceeded.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most batches at a time, at least 1.
    pub concurrency: usize,
    /// Most events in a batch, at least 1.
    pub events: usize,
    /// A write that takes longer calls for smaller batches.
    pub slow: Duration,
    /// Whether to follow the store; or else to give it always as much as allowed.
    pub adaptive: bool,
}

/// The setting in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Most batches at a time.
    pub concurrency: usize,
    /// Most events in a batch.
    pub events: usize,
    /// Its number: writes that began under another one say nothing of it.
    pub number: u64,
}

/// Follows the store.
#[derive(Debug)]
pub struct Tuner {
    bounds: Bounds,
    setting: Setting,
    /// Writes of full batches under this setting, and how long they took together.
    writes: u32,
    seconds: f64,
    /// What a full batch costs that waits for no other of ours, and when that was measured.
    alone: Option<(f64, Instant)>,
    /// The concurrency to go back to when that has been measured anew.
    resume: Option<usize>,
}

impl Tuner {
    /// Begins with two full batches at a time: one is on its way while the other is written.
    pub fn new(bounds: Bounds) -> Self {
        let most = if bounds.adaptive { bounds.concurrency.min(2) } else { bounds.concurrency };
        let setting = Setting { concurrency: most.max(1), events: bounds.events.max(1), number: 0 };
        Tuner { bounds, setting, writes: 0, seconds: 0.0, alone: None, resume: None }
    }

    /// The setting in force.
    pub fn setting(&self) -> Setting {
        self.setting
    }

    /// A full batch was written, begun under the setting `number`.
    pub fn wrote(&mut self, number: u64, took: Duration, now: Instant) {
        if number != self.setting.number {
            return;
        }
        self.writes += 1;
        self.seconds += took.as_secs_f64();
        if self.writes >= ROUND.max(self.setting.concurrency as u32 * 2) {
            let mean = self.seconds / f64::from(self.writes);
            (self.writes, self.seconds) = (0, 0.0);
            self.judge(mean, now);
        }
    }

    /// A write begun under the setting `number` failed in a way that may pass: the store is in trouble.
    pub fn failed(&mut self, number: u64) {
        if number == self.setting.number {
            self.resume = None;
            self.change(self.setting.concurrency / 2, self.setting.events / 2);
        }
    }

    fn judge(&mut self, mean: f64, now: Instant) {
        let Setting { concurrency, events, .. } = self.setting;
        let alone = self.learn(mean, now);
        if mean > self.bounds.slow.as_secs_f64() {
            return self.change(concurrency / 2, events / 2);
        }
        let events = events + self.bounds.events.div_ceil(STEP);
        let queue = concurrency as f64 * (1.0 - alone / mean);
        if let Some(resume) = self.resume.take() {
            self.change(resume, events);
        } else if mean > alone * (concurrency + 2) as f64 {
            self.change(concurrency / 2, events);
        } else if queue > LONG {
            self.change(concurrency - 1, events);
        } else if concurrency > 1 && self.alone.is_some_and(|(_, since)| now.duration_since(since) >= REMEMBERED) {
            self.resume = Some(concurrency);
            self.change(1, events);
        } else if queue < SHORT {
            self.change(concurrency + 1, events);
        } else {
            self.change(concurrency, events);
        }
    }

    /// Notes what a lone write costs; a round of lone writes says so best.
    fn learn(&mut self, mean: f64, now: Instant) -> f64 {
        match self.alone {
            Some((alone, since)) if self.setting.concurrency == 1 && now.duration_since(since) < REMEMBERED => {
                if mean < alone {
                    self.alone = Some((mean, now));
                }
            }
            Some((alone, _)) if self.setting.concurrency > 1 && mean >= alone => {}
            _ => self.alone = Some((mean, now)),
        }
        self.alone.map_or(mean, |(alone, _)| alone)
    }

    fn change(&mut self, concurrency: usize, events: usize) {
        if !self.bounds.adaptive {
            return;
        }
        let concurrency = concurrency.clamp(1, self.bounds.concurrency.max(1));
        let fewest = (self.bounds.events / SMALLEST).max(1);
        let events = events.clamp(fewest, self.bounds.events.max(1));
        if (concurrency, events) != (self.setting.concurrency, self.setting.events) {
            if events != self.setting.events {
                // What a batch of another size cost says nothing of this one.
                self.alone = None;
            }
            self.setting = Setting { concurrency, events, number: self.setting.number + 1 };
            (self.writes, self.seconds) = (0, 0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { concurrency: 8, events: 1000, slow: Duration::from_millis(1500), adaptive: true };

    /// A store that takes `latency` for a write, and `work` for an event; that much, on `cores` of its own.
    struct Store {
        latency: f64,
        work: f64,
        cores: f64,
        clock: Instant,
    }

    impl Store {
        fn new(latency: f64, work: f64, cores: f64) -> Self {
            Store { latency, work, cores, clock: Instant::now() }
        }

        /// Works a backlog off for so many seconds, `concurrency` writes side by side.
        fn drain(&mut self, tuner: &mut Tuner, seconds: f64) {
            let end = self.clock + Duration::from_secs_f64(seconds);
            while self.clock < end {
                let Setting { concurrency, events, number } = tuner.setting();
                let alone = events as f64 * self.work;
                let took = Duration::from_secs_f64(self.latency + alone * (concurrency as f64 / self.cores).max(1.0));
                self.clock += took;
                for _ in 0..concurrency {
                    tuner.wrote(number, took, self.clock);
                }
            }
        }

        fn settles(&mut self) -> Setting {
            let mut tuner = Tuner::new(BOUNDS);
            self.drain(&mut tuner, 120.0);
            tuner.setting()
        }
    }

    #[test]
    fn a_store_far_away_gets_all_the_writers_a_busy_one_gets_few() {
        let far = Store::new(0.050, 5e-6, 8.0).settles();
        assert_eq!((far.concurrency, far.events), (8, 1000));
        let busy = Store::new(0.001, 60e-6, 1.0).settles();
        assert!((2..=3).contains(&busy.concurrency), "{busy:?}");
        assert_eq!(busy.events, 1000);
        let four = Store::new(0.001, 60e-6, 4.0).settles();
        assert!((4..=6).contains(&four.concurrency), "{four:?}");
    }

    #[test]
    fn a_store_that_slows_gets_less_and_all_again_when_it_recovers() {
        let mut tuner = Tuner::new(BOUNDS);
        let mut store = Store::new(0.020, 20e-6, 8.0);
        store.drain(&mut tuner, 30.0);
        let before = tuner.setting();
        assert_eq!((before.concurrency, before.events), (8, 1000));
        (store.latency, store.work) = (2.0, 2e-3);
        store.drain(&mut tuner, 60.0);
        let slow = tuner.setting();
        assert!(slow.concurrency <= 2 && slow.events <= 250, "{slow:?}");
        (store.latency, store.work) = (0.020, 20e-6);
        store.drain(&mut tuner, 10.0);
        let after = tuner.setting();
        assert_eq!((after.concurrency, after.events), (8, 1000));
    }

    #[test]
    fn failures_halve_once_for_all_writes_of_a_setting() {
        let mut tuner = Tuner::new(BOUNDS);
        let first = tuner.setting();
        (0..2).for_each(|_| tuner.failed(first.number));
        let second = tuner.setting();
        assert_eq!((second.concurrency, second.events), (1, 500));
        tuner.wrote(first.number, Duration::from_secs(60), Instant::now());
        assert_eq!(tuner.setting(), second);
        (0..20).for_each(|_| tuner.failed(tuner.setting().number));
        assert_eq!((tuner.setting().concurrency, tuner.setting().events), (1, 50));
    }

    #[test]
    fn a_single_writer_of_single_events_is_a_bound_like_any_other() {
        let mut tuner = Tuner::new(Bounds { concurrency: 1, events: 1, slow: Duration::from_millis(1), ..BOUNDS });
        for millis in [1, 1000, 1, 1, 1000, 1, 1, 1] {
            tuner.wrote(tuner.setting().number, Duration::from_millis(millis), Instant::now());
            assert_eq!((tuner.setting().concurrency, tuner.setting().events), (1, 1));
        }
    }

    #[test]
    fn a_fixed_setting_is_what_the_bounds_say() {
        let mut tuner = Tuner::new(Bounds { adaptive: false, ..BOUNDS });
        tuner.failed(0);
        Store::new(2.0, 2e-3, 1.0).drain(&mut tuner, 300.0);
        assert_eq!(tuner.setting(), Setting { concurrency: 8, events: 1000, number: 0 });
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds_and_a_setting_that_differs_has_another_number(
            concurrency in 1usize..70, events in 1usize..10_000, steps in prop::collection::vec((0u8..8, 0u64..3000), 0..300),
        ) {
            let mut tuner = Tuner::new(Bounds { concurrency, events, ..BOUNDS });
            let mut clock = Instant::now();
            for (step, millis) in steps {
                let before = tuner.setting();
                clock += Duration::from_millis(millis);
                match step {
                    0 => tuner.failed(before.number),
                    _ => (0..200).for_each(|_| tuner.wrote(before.number, Duration::from_millis(millis), clock)),
                }
                let after = tuner.setting();
                prop_assert!((1..=concurrency).contains(&after.concurrency) && (1..=events).contains(&after.events));
                let same = (after.concurrency, after.events) == (before.concurrency, before.events);
                prop_assert!(same || after.number > before.number);
            }
        }
    }
}
