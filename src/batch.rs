//! Owns when a batch closes. Pure: time comes in as an argument, events go out as values.
//! Must not know what an event is, who writes it, or how many writers there are.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// When a batch is closed, whatever is reached first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most events in a batch, at least 1.
    pub max_events: usize,
    /// Most bytes in a batch; a single larger event is a batch of its own.
    pub max_bytes: usize,
    /// Longest time the first event waits for company.
    pub linger: Duration,
}

/// Why a batch was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// It has `max_events`.
    Events,
    /// It has `max_bytes`, or the next event would not fit.
    Bytes,
    /// Its first event has waited `linger`.
    Linger,
    /// The worker is stopping and waits for nothing.
    Drain,
}

impl Flush {
    /// Every cause, for the metric catalogue.
    pub const ALL: [Flush; 4] = [Flush::Events, Flush::Bytes, Flush::Linger, Flush::Drain];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Flush::Events => "events",
            Flush::Bytes => "bytes",
            Flush::Linger => "linger",
            Flush::Drain => "drain",
        }
    }
}

/// Events that wait for a writer, in order of arrival. While all writers are busy it just grows; the prefetch bounds it.
#[derive(Debug)]
pub struct Batcher<T> {
    limits: Limits,
    waiting: VecDeque<Entry<T>>,
    bytes: usize,
    draining: bool,
}

#[derive(Debug)]
struct Entry<T> {
    item: T,
    bytes: usize,
    since: Instant,
}

impl<T> Batcher<T> {
    /// An empty batcher.
    pub fn new(limits: Limits) -> Self {
        Batcher { limits, waiting: VecDeque::new(), bytes: 0, draining: false }
    }

    /// Adds an event of `bytes` that arrived at `now`.
    pub fn push(&mut self, item: T, bytes: usize, now: Instant) {
        self.bytes += bytes;
        self.waiting.push_back(Entry { item, bytes, since: now });
    }

    /// From now on a batch has at most so many events.
    pub fn resize(&mut self, max_events: usize) {
        self.limits.max_events = max_events;
    }

    /// From now on no event waits for company.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no event waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the next batch is due by time alone.
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|first| first.since + self.limits.linger)
    }

    /// Why a batch is due now, if one is.
    pub fn due(&self, now: Instant) -> Option<Flush> {
        let first = self.waiting.front()?;
        if self.waiting.len() >= self.limits.max_events {
            Some(Flush::Events)
        } else if self.bytes >= self.limits.max_bytes {
            Some(Flush::Bytes)
        } else if self.draining {
            Some(Flush::Drain)
        } else if now.saturating_duration_since(first.since) >= self.limits.linger {
            Some(Flush::Linger)
        } else {
            None
        }
    }

    /// Takes the next batch if one is due: the longest run of waiting events within the limits, at least one.
    pub fn take(&mut self, now: Instant) -> Option<(Vec<T>, Flush)> {
        let cause = self.due(now)?;
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

    const LIMITS: Limits = Limits { max_events: 3, max_bytes: 100, linger: Duration::from_millis(5) };

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn closes_by_events_bytes_or_linger() {
        let start = Instant::now();
        let mut batcher = Batcher::new(LIMITS);
        assert_eq!(batcher.take(start), None);
        batcher.push('a', 10, start);
        batcher.push('b', 10, after(start, 4));
        assert_eq!(batcher.take(after(start, 4)), None);
        assert_eq!(batcher.deadline(), Some(after(start, 5)));
        assert_eq!(batcher.take(after(start, 5)), Some((vec!['a', 'b'], Flush::Linger)));
        for item in ['c', 'd', 'e', 'f'] {
            batcher.push(item, 10, start);
        }
        assert_eq!(batcher.take(start), Some((vec!['c', 'd', 'e'], Flush::Events)));
        assert_eq!(batcher.take(start), None);
        batcher.push('g', 90, start);
        assert_eq!(batcher.take(start), Some((vec!['f', 'g'], Flush::Bytes)));
    }

    #[test]
    fn an_event_over_the_limit_goes_alone_and_a_drain_waits_for_nothing() {
        let start = Instant::now();
        let mut batcher = Batcher::new(LIMITS);
        batcher.push('a', 10, start);
        batcher.push('B', 500, start);
        batcher.push('c', 10, start);
        assert_eq!(batcher.take(start), Some((vec!['a'], Flush::Events)));
        assert_eq!(batcher.take(start), Some((vec!['B'], Flush::Bytes)));
        assert_eq!(batcher.take(start), None);
        batcher.drain();
        assert_eq!(batcher.take(start), Some((vec!['c'], Flush::Drain)));
        assert!(batcher.is_empty());
    }

    proptest! {
        #[test]
        fn every_event_leaves_once_in_order_and_within_the_limits(sizes in prop::collection::vec(0usize..150, 0..60)) {
            let start = Instant::now();
            let mut batcher = Batcher::new(LIMITS);
            for (index, bytes) in sizes.iter().enumerate() {
                batcher.push(index, *bytes, start);
            }
            let mut seen = Vec::new();
            while let Some((batch, _)) = batcher.take(after(start, 10)) {
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
