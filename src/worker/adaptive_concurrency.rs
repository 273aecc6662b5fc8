//! Owns how many batches are written at a time, and how many events a batch may have: within the configured bounds, from the
//! duration of writes. Pure: time is an argument. Must not know batches, writers or the store.
//!
//! Only writes of full batches count: at low load there is nothing to gain. They are judged in rounds, all writes of a round
//! under the same limits. The shortest mean of a round is taken as the duration of a write that waits for no other of ours;
//! the additional duration of later rounds is a queue of our writes in front of the store (as in TCP Vegas). A short queue
//! raises the concurrency by one, a long one lowers it by one. Writes that are slower than our queue explains, or that fail,
//! halve it (as in TCP, and in Vector's adaptive concurrency).

use std::time::{Duration, Instant};

/// Fewest writes in a round.
const MIN_ROUND: u32 = 4;
/// Bounds of the queue in front of the store, in batches: a shorter one does not keep the store busy, a longer one only
/// waits.
const SHORT_QUEUE: f64 = 0.8;
const LONG_QUEUE: f64 = 2.0;
/// A batch limit is never lower than the bound divided by this.
const MIN_EVENTS_DIVISOR: usize = 20;
/// A batch limit grows by the bound divided by this.
const GROWTH_DIVISOR: usize = 8;
/// How often the duration of a single write is measured again.
const REMEASURE_AFTER: Duration = Duration::from_secs(15);

/// The configured bounds.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most batches at a time, at least 1.
    pub concurrency: usize,
    /// Most events in a batch, at least 1.
    pub events: usize,
    /// A longer write calls for smaller batches.
    pub slow_write: Duration,
    /// Whether to adapt; if not, the limits are always the bounds.
    pub adaptive: bool,
}

/// The limits in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteLimits {
    /// Most batches at a time.
    pub concurrency: usize,
    /// Most events in a batch.
    pub events: usize,
    /// Counts changes: writes that started in another epoch are not counted.
    pub epoch: u64,
}

/// Adapts the limits to the store.
#[derive(Debug)]
pub struct AdaptiveConcurrency {
    bounds: Bounds,
    limits: WriteLimits,
    /// Writes of full batches in this epoch, and their total duration.
    writes: u32,
    seconds: f64,
    /// Seconds that a full batch takes when it waits for no other of ours, and when that was measured.
    single_write: Option<(f64, Instant)>,
    /// The concurrency to return to after a measurement.
    resume_at: Option<usize>,
}

impl AdaptiveConcurrency {
    /// Starts with two full batches at a time: one is on its way while the other is written.
    pub fn new(bounds: Bounds) -> Self {
        let most = if bounds.adaptive { bounds.concurrency.min(2) } else { bounds.concurrency };
        let limits = WriteLimits { concurrency: most.max(1), events: bounds.events.max(1), epoch: 0 };
        AdaptiveConcurrency { bounds, limits, writes: 0, seconds: 0.0, single_write: None, resume_at: None }
    }

    /// The limits in force.
    pub fn limits(&self) -> WriteLimits {
        self.limits
    }

    /// A full batch was written that started in `epoch`.
    pub fn write_succeeded(&mut self, epoch: u64, took: Duration, now: Instant) {
        if epoch != self.limits.epoch {
            return;
        }
        self.writes += 1;
        self.seconds += took.as_secs_f64();
        if self.writes >= MIN_ROUND.max(self.limits.concurrency as u32 * 2) {
            let mean = self.seconds / f64::from(self.writes);
            (self.writes, self.seconds) = (0, 0.0);
            self.end_round(mean, now);
        }
    }

    /// A write that started in `epoch` had a transient failure.
    pub fn write_failed(&mut self, epoch: u64) {
        if epoch == self.limits.epoch {
            self.resume_at = None;
            self.change(self.limits.concurrency / 2, self.limits.events / 2);
        }
    }

    fn end_round(&mut self, mean: f64, now: Instant) {
        let WriteLimits { concurrency, events, .. } = self.limits;
        let single_write = self.update_single_write(mean, now);
        if mean > self.bounds.slow_write.as_secs_f64() {
            return self.change(concurrency / 2, events / 2);
        }
        let events = events + self.bounds.events.div_ceil(GROWTH_DIVISOR);
        let queue = concurrency as f64 * (1.0 - single_write / mean);
        if let Some(resume) = self.resume_at.take() {
            self.change(resume, events);
        } else if mean > single_write * (concurrency + 2) as f64 {
            self.change(concurrency / 2, events);
        } else if queue > LONG_QUEUE {
            self.change(concurrency - 1, events);
        } else if concurrency > 1
            && self.single_write.is_some_and(|(_, since)| now.duration_since(since) >= REMEASURE_AFTER)
        {
            self.resume_at = Some(concurrency);
            self.change(1, events);
        } else if queue < SHORT_QUEUE {
            self.change(concurrency + 1, events);
        } else {
            self.change(concurrency, events);
        }
    }

    /// Updates the duration of a single write; a round with a concurrency of 1 measures it best. Returns it.
    fn update_single_write(&mut self, mean: f64, now: Instant) -> f64 {
        match self.single_write {
            Some((seconds, since)) if self.limits.concurrency == 1 && now.duration_since(since) < REMEASURE_AFTER => {
                if mean < seconds {
                    self.single_write = Some((mean, now));
                }
            }
            Some((seconds, _)) if self.limits.concurrency > 1 && mean >= seconds => {}
            _ => self.single_write = Some((mean, now)),
        }
        self.single_write.map_or(mean, |(seconds, _)| seconds)
    }

    fn change(&mut self, concurrency: usize, events: usize) {
        if !self.bounds.adaptive {
            return;
        }
        let concurrency = concurrency.clamp(1, self.bounds.concurrency.max(1));
        let fewest = (self.bounds.events / MIN_EVENTS_DIVISOR).max(1);
        let events = events.clamp(fewest, self.bounds.events.max(1));
        if (concurrency, events) != (self.limits.concurrency, self.limits.events) {
            if events != self.limits.events {
                // The duration was measured with batches of another size.
                self.single_write = None;
            }
            self.limits = WriteLimits { concurrency, events, epoch: self.limits.epoch + 1 };
            (self.writes, self.seconds) = (0, 0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds =
        Bounds { concurrency: 8, events: 1000, slow_write: Duration::from_millis(1500), adaptive: true };

    /// A store that takes `latency` for a write and `work` for each event, on `cores` cores.
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

        /// Drains a backlog for so many seconds, with `concurrency` writes at a time.
        fn drain(&mut self, adaptive: &mut AdaptiveConcurrency, seconds: f64) {
            let end = self.clock + Duration::from_secs_f64(seconds);
            while self.clock < end {
                let WriteLimits { concurrency, events, epoch } = adaptive.limits();
                let alone = events as f64 * self.work;
                let took = Duration::from_secs_f64(self.latency + alone * (concurrency as f64 / self.cores).max(1.0));
                self.clock += took;
                for _ in 0..concurrency {
                    adaptive.write_succeeded(epoch, took, self.clock);
                }
            }
        }

        fn settles(&mut self) -> WriteLimits {
            let mut adaptive = AdaptiveConcurrency::new(BOUNDS);
            self.drain(&mut adaptive, 120.0);
            adaptive.limits()
        }
    }

    #[test]
    fn a_distant_store_gets_all_writers_and_a_busy_one_few() {
        let far = Store::new(0.050, 5e-6, 8.0).settles();
        assert_eq!((far.concurrency, far.events), (8, 1000));
        let busy = Store::new(0.001, 60e-6, 1.0).settles();
        assert!((2..=3).contains(&busy.concurrency), "{busy:?}");
        assert_eq!(busy.events, 1000);
        let four = Store::new(0.001, 60e-6, 4.0).settles();
        assert!((4..=6).contains(&four.concurrency), "{four:?}");
    }

    #[test]
    fn a_slow_store_gets_less_until_it_recovers() {
        let mut adaptive = AdaptiveConcurrency::new(BOUNDS);
        let mut store = Store::new(0.020, 20e-6, 8.0);
        store.drain(&mut adaptive, 30.0);
        let before = adaptive.limits();
        assert_eq!((before.concurrency, before.events), (8, 1000));
        (store.latency, store.work) = (2.0, 2e-3);
        store.drain(&mut adaptive, 60.0);
        let slow = adaptive.limits();
        assert!(slow.concurrency <= 2 && slow.events <= 250, "{slow:?}");
        (store.latency, store.work) = (0.020, 20e-6);
        store.drain(&mut adaptive, 10.0);
        let after = adaptive.limits();
        assert_eq!((after.concurrency, after.events), (8, 1000));
    }

    #[test]
    fn failures_halve_once_per_epoch() {
        let mut adaptive = AdaptiveConcurrency::new(BOUNDS);
        let first = adaptive.limits();
        (0..2).for_each(|_| adaptive.write_failed(first.epoch));
        let second = adaptive.limits();
        assert_eq!((second.concurrency, second.events), (1, 500));
        adaptive.write_succeeded(first.epoch, Duration::from_secs(60), Instant::now());
        assert_eq!(adaptive.limits(), second);
        (0..20).for_each(|_| adaptive.write_failed(adaptive.limits().epoch));
        assert_eq!((adaptive.limits().concurrency, adaptive.limits().events), (1, 50));
    }

    #[test]
    fn bounds_of_one_writer_and_one_event_hold() {
        let mut adaptive = AdaptiveConcurrency::new(Bounds {
            concurrency: 1,
            events: 1,
            slow_write: Duration::from_millis(1),
            ..BOUNDS
        });
        for millis in [1, 1000, 1, 1, 1000, 1, 1, 1] {
            adaptive.write_succeeded(adaptive.limits().epoch, Duration::from_millis(millis), Instant::now());
            assert_eq!((adaptive.limits().concurrency, adaptive.limits().events), (1, 1));
        }
    }

    #[test]
    fn without_adaptation_the_limits_are_the_bounds() {
        let mut adaptive = AdaptiveConcurrency::new(Bounds { adaptive: false, ..BOUNDS });
        adaptive.write_failed(0);
        Store::new(2.0, 2e-3, 1.0).drain(&mut adaptive, 300.0);
        assert_eq!(adaptive.limits(), WriteLimits { concurrency: 8, events: 1000, epoch: 0 });
    }

    proptest! {
        #[test]
        fn limits_stay_within_the_bounds_and_changed_limits_have_another_epoch(
            concurrency in 1usize..70, events in 1usize..10_000, steps in prop::collection::vec((0u8..8, 0u64..3000), 0..300),
        ) {
            let mut adaptive = AdaptiveConcurrency::new(Bounds { concurrency, events, ..BOUNDS });
            let mut clock = Instant::now();
            for (step, millis) in steps {
                let before = adaptive.limits();
                clock += Duration::from_millis(millis);
                match step {
                    0 => adaptive.write_failed(before.epoch),
                    _ => (0..200).for_each(|_| adaptive.write_succeeded(before.epoch, Duration::from_millis(millis), clock)),
                }
                let after = adaptive.limits();
                prop_assert!((1..=concurrency).contains(&after.concurrency) && (1..=events).contains(&after.events));
                let same = (after.concurrency, after.events) == (before.concurrency, before.events);
                prop_assert!(same || after.epoch > before.epoch);
            }
        }
    }
}
