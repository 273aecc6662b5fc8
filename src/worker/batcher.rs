//! All rules of when a batch closes. Pure: time, and what the session loop knows besides, are arguments.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::observe::metrics::FlushCause;

/// Resolution of tokio's timers, which round up: a batch that is due within it is due now.
const TIMER_RESOLUTION: Duration = Duration::from_millis(1);

/// When a batch is closed, whichever is reached first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most events in a batch, at least 1.
    pub max_events: usize,
    /// Most bytes in a batch; a larger event is a batch of its own.
    pub max_bytes: usize,
    /// Longest time that the first event waits for others, and, while a write is under way, the least time between two batches that are not full.
    pub linger: Duration,
}

/// What is known of the session when a batch may close. Then events that wait gain nothing by waiting on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Flow {
    /// No write is under way. As with Nagle's algorithm (RFC 896), an event that comes alone is written at once, and under load the
    /// events that arrive during a write are the next batch.
    pub idle: bool,
    /// The prefetch is exhausted: no further event can arrive.
    pub exhausted: bool,
}

/// Events that wait for a writer, in order of arrival. It grows while all writers are busy; the prefetch bounds it.
#[derive(Debug)]
pub struct Batcher<T> {
    limits: BatchLimits,
    waiting: VecDeque<Entry<T>>,
    bytes: usize,
    /// When the last batch was taken.
    last_taken: Option<Instant>,
    draining: bool,
}

#[derive(Debug)]
struct Entry<T> {
    item: T,
    bytes: usize,
    arrived: Instant,
}

impl<T> Batcher<T> {
    /// An empty batcher.
    pub fn new(limits: BatchLimits) -> Self {
        Batcher { limits, waiting: VecDeque::new(), bytes: 0, last_taken: None, draining: false }
    }

    /// Adds an event of `bytes`.
    pub fn push(&mut self, item: T, bytes: usize, now: Instant) {
        self.bytes += bytes;
        self.waiting.push_back(Entry { item, bytes, arrived: now });
    }

    /// From now on no event waits for others.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Number of waiting events.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no event is waiting.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the next batch is due because of `linger`: so long after its first event, or after the last batch, if that is earlier.
    /// So while a write is under way there is at most one small batch in each `linger`, and an event that comes later than that is written at once, also while
    /// earlier ones are on a long way to MongoDB.
    pub fn linger_deadline(&self) -> Option<Instant> {
        let first = self.waiting.front()?.arrived;
        let deadline = self.last_taken.map_or(first, |last| last.min(first)) + self.limits.linger;
        Some(deadline.checked_sub(TIMER_RESOLUTION).unwrap_or(deadline))
    }

    fn due(&self, now: Instant, flow: Flow) -> Option<FlushCause> {
        let deadline = self.linger_deadline()?;
        if self.waiting.len() >= self.limits.max_events {
            Some(FlushCause::Events)
        } else if self.bytes >= self.limits.max_bytes {
            Some(FlushCause::Bytes)
        } else if self.draining {
            Some(FlushCause::Drain)
        } else if now >= deadline {
            Some(FlushCause::Linger)
        } else if flow.idle {
            Some(FlushCause::Idle)
        } else if flow.exhausted {
            Some(FlushCause::Prefetch)
        } else {
            None
        }
    }

    /// Takes the next batch, if one is due: as many waiting events as the limits permit, at least one.
    pub fn take(&mut self, now: Instant, flow: Flow) -> Option<(Vec<T>, FlushCause)> {
        let cause = self.due(now, flow)?;
        self.last_taken = Some(now);
        let mut batch = Vec::with_capacity(self.waiting.len().min(self.limits.max_events));
        let mut bytes = 0;
        while let Some(next) = self.waiting.front() {
            let fits = batch.len() < self.limits.max_events && bytes + next.bytes <= self.limits.max_bytes;
            if !fits && !batch.is_empty() {
                break;
            }
            bytes += next.bytes;
            self.bytes -= next.bytes;
            batch.extend(self.waiting.pop_front().map(|entry| entry.item));
        }
        Some((batch, cause))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: BatchLimits = BatchLimits { max_events: 3, max_bytes: 100, linger: Duration::from_millis(5) };

    const BUSY: Flow = Flow { idle: false, exhausted: false };

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn closes_by_events_bytes_or_linger() {
        let start = Instant::now();
        let mut batcher = Batcher::new(LIMITS);
        assert_eq!(batcher.take(start, BUSY), None);
        batcher.push('a', 10, start);
        batcher.push('b', 10, after(start, 4));
        assert_eq!(batcher.take(after(start, 3), BUSY), None);
        assert_eq!(batcher.linger_deadline(), Some(after(start, 4)), "a millisecond early: timers round up");
        assert_eq!(batcher.take(after(start, 4), BUSY), Some((vec!['a', 'b'], FlushCause::Linger)));
        for item in ['c', 'd', 'e', 'f'] {
            batcher.push(item, 10, start);
        }
        assert_eq!(batcher.take(start, BUSY), Some((vec!['c', 'd', 'e'], FlushCause::Events)));
        assert_eq!(batcher.take(start, BUSY), None);
        batcher.push('g', 90, start);
        assert_eq!(batcher.take(start, BUSY), Some((vec!['f', 'g'], FlushCause::Bytes)));
    }

    #[test]
    fn a_large_event_is_a_batch_of_its_own_and_a_drain_does_not_wait() {
        let start = Instant::now();
        let mut batcher = Batcher::new(LIMITS);
        batcher.push('a', 10, start);
        batcher.push('B', 500, start);
        batcher.push('c', 10, start);
        assert_eq!(batcher.take(start, BUSY), Some((vec!['a'], FlushCause::Events)));
        assert_eq!(batcher.take(start, BUSY), Some((vec!['B'], FlushCause::Bytes)));
        assert_eq!(batcher.take(start, BUSY), None);
        batcher.drain();
        assert_eq!(batcher.take(start, BUSY), Some((vec!['c'], FlushCause::Drain)));
        assert!(batcher.is_empty());
    }

    #[test]
    fn an_event_does_not_linger_when_nothing_is_gained() {
        let start = Instant::now();
        let mut batcher = Batcher::new(LIMITS);
        let (idle, exhausted) = (Flow { idle: true, exhausted: false }, Flow { idle: false, exhausted: true });
        assert_eq!(batcher.take(start, idle), None, "there is no event");
        for (flow, cause) in [(idle, FlushCause::Idle), (exhausted, FlushCause::Prefetch)] {
            batcher.push('a', 10, start);
            assert_eq!(batcher.take(start, BUSY), None);
            assert_eq!(batcher.take(start, flow), Some((vec!['a'], cause)));
            batcher.push('b', 10, start);
            assert_eq!(batcher.take(after(start, 5), flow), Some((vec!['b'], FlushCause::Linger)));
        }
    }

    #[test]
    fn an_event_long_after_the_last_batch_does_not_wait_for_others() {
        let start = Instant::now();
        let mut batcher = Batcher::new(LIMITS);
        batcher.push('a', 10, start);
        assert!(batcher.take(start, Flow { idle: true, exhausted: false }).is_some());
        batcher.push('b', 10, after(start, 3));
        assert_eq!(batcher.take(after(start, 3), BUSY), None, "one small batch in each linger");
        assert_eq!(batcher.take(after(start, 4), BUSY), Some((vec!['b'], FlushCause::Linger)));
        batcher.push('c', 10, after(start, 20));
        assert_eq!(batcher.take(after(start, 20), BUSY), Some((vec!['c'], FlushCause::Linger)));
    }

    proptest! {
        #[test]
        fn every_event_is_taken_once_in_order_and_within_the_limits(sizes in prop::collection::vec(0usize..150, 0..60)) {
            let start = Instant::now();
            let mut batcher = Batcher::new(LIMITS);
            for (index, bytes) in sizes.iter().enumerate() {
                batcher.push(index, *bytes, start);
            }
            let mut seen = Vec::new();
            while let Some((batch, _)) = batcher.take(after(start, 10), BUSY) {
                let bytes: usize = batch.iter().map(|index| sizes[*index]).sum();
                prop_assert!(!batch.is_empty() && batch.len() <= 3);
                prop_assert!(bytes <= 100 || batch.len() == 1);
                seen.extend(batch);
            }
            prop_assert_eq!(seen, (0..sizes.len()).collect::<Vec<_>>());
            prop_assert_eq!(batcher.bytes, 0);
        }
    }
}
