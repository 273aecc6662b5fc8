//! What the flow of one route counts: the handles of its metrics, looked up once, and the numbers that `/status` shows.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use strum::{EnumCount, VariantArray as _};

use ticketlog_config::system;
use ticketlog_rabbitmq::QueueCounts;

use super::catalogue::*;
use super::labels::{Activity, DeliveryOutcome, QueueRole};
use super::suspects::Suspects;
use ticketlog_contract::Findings;
use ticketlog_status::{LatencyBucket, RouteNumbers, SuspectEvents};

/// Handles of the series that are updated for every chunk of deliveries or more often.
pub struct FlowMetrics {
    received: [Counter; 2],
    received_bytes: Counter,
    settled: [Counter; DeliveryOutcome::COUNT],
    in_flight: Gauge,
    in_flight_bytes: Gauge,
    unacked: Gauge,
    prefetch: Gauge,
    oldest: Gauge,
    waiting: Gauge,
    dead_letters: Gauge,
    event_to_stored: Histogram,
    publish_to_stored: Histogram,
    last_stored: Gauge,
    event_clock_skew: Gauge,
    writes: Gauge,
    activities: [Histogram; Activity::COUNT],
    shown: Mutex<Shown>,
    suspects: Mutex<Suspects>,
}

/// What `/status` shows. A handle of a metric cannot be read.
struct Shown {
    numbers: RouteNumbers,
    last_stored: Option<Instant>,
}

/// The values of the gauges at one moment.
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct GaugeValues {
    pub in_flight: usize,
    pub in_flight_bytes: usize,
    pub unacked: usize,
    pub prefetch: u16,
    pub oldest_age_seconds: f64,
    pub waiting_events: usize,
    pub dead_letters: usize,
    pub writes: usize,
    pub event_clock_skew: f64,
}

impl Default for FlowMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl FlowMetrics {
    /// Handles of the installed recorder; without one they count nothing.
    pub fn new() -> Self {
        FlowMetrics {
            received: ["false", "true"].map(|redelivered| counter!(RECEIVED, "redelivered" => redelivered)),
            received_bytes: counter!(RECEIVED_BYTES),
            settled: std::array::from_fn(
                |at| counter!(SETTLED, "outcome" => DeliveryOutcome::VARIANTS.get(at).map_or("", Into::into)),
            ),
            in_flight: gauge!(IN_FLIGHT),
            in_flight_bytes: gauge!(IN_FLIGHT_BYTES),
            unacked: gauge!(UNACKED),
            prefetch: gauge!(PREFETCH),
            oldest: gauge!(OLDEST),
            waiting: gauge!(WAITING),
            dead_letters: gauge!(DEAD_LETTERS_WAITING),
            event_to_stored: histogram!(EVENT_TO_STORED),
            publish_to_stored: histogram!(PUBLISH_TO_STORED),
            last_stored: gauge!(LAST_STORED),
            event_clock_skew: gauge!(CLOCK_SKEW, "against" => "events"),
            writes: gauge!(WRITES),
            activities: std::array::from_fn(
                |at| histogram!(LOOP, "activity" => Activity::VARIANTS.get(at).map_or("", Into::into)),
            ),
            shown: Mutex::new(Shown { numbers: empty_numbers(), last_stored: None }),
            suspects: Mutex::default(),
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The numbers that `/status` shows.
    pub fn numbers(&self) -> RouteNumbers {
        let shown = self.shown();
        let seconds_since_stored = shown.last_stored.map(|at| at.elapsed().as_secs_f64());
        RouteNumbers { seconds_since_stored, ..shown.numbers.clone() }
    }

    /// Counts deliveries: first ones, redelivered ones, and their bytes together.
    pub fn received(&self, first: usize, redelivered: usize, bytes: usize) {
        for (counter, count) in self.received.iter().zip([first, redelivered]) {
            counter.increment(count as u64);
        }
        self.received_bytes.increment(bytes as u64);
        self.shown().numbers.received += (first + redelivered) as u64;
    }

    /// Counts outcomes of deliveries.
    pub fn settled(&self, outcome: DeliveryOutcome, count: usize) {
        if let Some(counter) = self.settled.get(outcome as usize) {
            counter.increment(count as u64);
        }
        let numbers = &mut self.shown().numbers;
        let total = match outcome {
            DeliveryOutcome::Stored => &mut numbers.stored,
            DeliveryOutcome::Duplicate => &mut numbers.duplicate,
            DeliveryOutcome::DeadLettered => &mut numbers.dead_lettered,
            DeliveryOutcome::Returned => &mut numbers.returned,
        };
        *total += count as u64;
    }

    /// Sets the number of deliveries without an outcome. Call it whenever the counters change.
    pub fn in_flight(&self, count: usize) {
        self.in_flight.set(count as f64);
        self.shown().numbers.in_flight = count as u64;
    }

    /// Records the seconds from the event's own time and from its publication until it was durable, where known.
    pub fn latency(&self, event: Option<f64>, published: Option<f64>) {
        if let Some(seconds) = event {
            self.event_to_stored.record(seconds.max(0.0));
            let buckets = &mut self.shown().numbers.event_to_stored_seconds;
            let bucket = buckets.iter_mut().find(|bucket| bucket.up_to.is_none_or(|bound| seconds <= bound));
            bucket.into_iter().for_each(|bucket| bucket.count += 1);
        }
        if let Some(seconds) = published {
            self.publish_to_stored.record(seconds.max(0.0));
        }
    }

    /// Counts what is found in a stored event of a publisher. Calls `on_new` with what was not found before in events of this publisher,
    /// and how it is called in metrics.
    pub fn suspect_event(&self, publisher: &str, findings: Findings, on_new: impl FnOnce(Findings, &str)) {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        let (new, publisher) = suspects.count(publisher, findings);
        if !new.is_empty() {
            on_new(new, publisher);
        }
    }

    /// Stored events that are probably mistakes, the most frequent first.
    pub fn suspect_events(&self) -> Vec<SuspectEvents> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner).largest_first()
    }

    /// Records that a document was stored now.
    pub fn stored_now(&self) {
        self.last_stored.set(system::since_epoch().as_secs_f64());
        self.shown().last_stored = Some(Instant::now());
    }

    /// Sets the counts of a queue; `None` while they are unknown.
    pub fn set_queue_counts(&self, role: QueueRole, counts: Option<QueueCounts>) {
        super::set_queue_counts(role, counts);
        let numbers = &mut self.shown().numbers;
        let ready = match role {
            QueueRole::Work => &mut numbers.backlog,
            QueueRole::DeadLetter => &mut numbers.dead_letters,
            QueueRole::Parked => &mut numbers.parked,
        };
        *ready = counts.map(|counts| counts.ready);
        if role == QueueRole::Work {
            numbers.consumers = counts.map(|counts| counts.consumers);
        }
    }

    /// Records time that the session loop spent on an activity.
    pub fn time_spent(&self, activity: Activity, time: Duration) {
        if let Some(histogram) = self.activities.get(activity as usize) {
            histogram.record(time);
        }
    }

    /// Sets the gauges.
    pub fn set_gauges(&self, values: &GaugeValues) {
        self.in_flight(values.in_flight);
        self.shown().numbers.unpublished = values.dead_letters as u64;
        self.in_flight_bytes.set(values.in_flight_bytes as f64);
        self.unacked.set(values.unacked as f64);
        self.prefetch.set(f64::from(values.prefetch));
        self.oldest.set(values.oldest_age_seconds);
        self.waiting.set(values.waiting_events as f64);
        self.dead_letters.set(values.dead_letters as f64);
        self.writes.set(values.writes as f64);
        self.event_clock_skew.set(values.event_clock_skew);
    }
}

fn empty_numbers() -> RouteNumbers {
    let bounds = LATENCY.iter().copied().map(Some).chain([None]);
    let event_to_stored_seconds = bounds.map(|up_to| LatencyBucket { up_to, count: 0 }).collect();
    RouteNumbers { event_to_stored_seconds, ..RouteNumbers::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_status_are_those_of_the_metrics() {
        let metrics = FlowMetrics::new();
        metrics.received(3, 1, 10);
        metrics.settled(DeliveryOutcome::Stored, 2);
        metrics.settled(DeliveryOutcome::Returned, 1);
        metrics.set_gauges(&GaugeValues { in_flight: 1, dead_letters: 5, ..GaugeValues::default() });
        for event in [Some(-1.0), Some(0.01), Some(0.02), Some(1e9), None] {
            metrics.latency(event, Some(1.0));
        }
        assert_eq!(metrics.numbers().seconds_since_stored, None);
        metrics.stored_now();
        metrics.set_queue_counts(QueueRole::Work, Some(QueueCounts { ready: 7, consumers: 2 }));
        metrics.set_queue_counts(QueueRole::Parked, Some(QueueCounts { ready: 8, consumers: 9 }));
        let numbers = metrics.numbers();
        assert!(numbers.seconds_since_stored.is_some_and(|seconds| seconds < 60.0));
        let buckets = &numbers.event_to_stored_seconds;
        let counts: Vec<u64> = buckets.iter().map(|bucket| bucket.count).collect();
        assert_eq!((buckets[0].up_to, &counts[..3], counts[counts.len() - 1]), (Some(0.01), &[2, 1, 0][..], 1));
        let expected = RouteNumbers {
            received: 4,
            stored: 2,
            returned: 1,
            in_flight: 1,
            unpublished: 5,
            backlog: Some(7),
            consumers: Some(2),
            parked: Some(8),
            seconds_since_stored: numbers.seconds_since_stored,
            event_to_stored_seconds: numbers.event_to_stored_seconds.clone(),
            ..RouteNumbers::default()
        };
        assert_eq!(numbers, expected);
    }
}
