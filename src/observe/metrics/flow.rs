//! Owns the metrics that the session loop updates, as handles that are looked up once. Must not know when anything is
//! counted.

use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use strum::{EnumCount, VariantArray as _};

use crate::system;

use super::catalogue::*;
use super::labels::{Activity, DeliveryOutcome};

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
        }
    }

    /// Counts deliveries: first ones, redelivered ones, and their bytes together.
    pub fn received(&self, first: usize, redelivered: usize, bytes: usize) {
        for (counter, count) in self.received.iter().zip([first, redelivered]) {
            counter.increment(count as u64);
        }
        self.received_bytes.increment(bytes as u64);
    }

    /// Counts outcomes of deliveries.
    pub fn settled(&self, outcome: DeliveryOutcome, count: usize) {
        if let Some(counter) = self.settled.get(outcome as usize) {
            counter.increment(count as u64);
        }
    }

    /// Sets the number of deliveries without an outcome. Call it whenever the counters change.
    pub fn in_flight(&self, count: usize) {
        self.in_flight.set(count as f64);
    }

    /// Records the seconds from the event's own time and from its publication until it was durable, where known.
    pub fn latency(&self, event: Option<f64>, published: Option<f64>) {
        if let Some(seconds) = event {
            self.event_to_stored.record(seconds.max(0.0));
        }
        if let Some(seconds) = published {
            self.publish_to_stored.record(seconds.max(0.0));
        }
    }

    /// Records that a document was stored now.
    pub fn stored_now(&self) {
        self.last_stored.set(system::since_epoch().as_secs_f64());
    }

    /// Records time that the session loop spent on an activity.
    pub fn time_spent(&self, activity: Activity, time: Duration) {
        if let Some(histogram) = self.activities.get(activity as usize) {
            histogram.record(time);
        }
    }

    /// Sets the gauges.
    pub fn set_gauges(&self, values: &GaugeValues) {
        self.in_flight.set(values.in_flight as f64);
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
