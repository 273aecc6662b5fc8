//! Owns the numbers of one session: deliveries by outcome, ages, the time of the loop. Updates the metrics, so that received = settled
//! + in flight at every scrape.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use strum::{EnumCount as _, VariantArray as _};
use tracing::info;

use crate::observe::metrics::{Activity, DeliveryOutcome, GaugeValues};
use ticketlog_config::system::since_epoch;
use ticketlog_contract::{Findings, findings_of_clock, is_plausible_time};
use ticketlog_rabbitmq::{Delivery, Session};

use super::super::context::WorkerContext;
use super::super::decode::{PendingEvent, publisher};

/// How long the largest clock skew of an event is shown.
const SKEW_SHOWN_FOR: Duration = Duration::from_secs(60);

/// The numbers of one session.
pub(super) struct Accounting {
    context: Arc<WorkerContext>,
    /// Deliveries without an outcome.
    in_flight: usize,
    /// Outcomes that are not added to the metrics yet.
    outcomes: [usize; DeliveryOutcome::COUNT],
    /// The last tag of each chunk and when it arrived, for the age of the oldest delivery.
    arrivals: VecDeque<(u64, Instant)>,
    /// The largest clock skew of an event, in seconds, and since when it is shown.
    clock_skew: (f64, Instant),
    /// Up to when the time of the loop is recorded.
    recorded_until: Instant,
}

impl Accounting {
    pub fn new(context: Arc<WorkerContext>) -> Self {
        let now = Instant::now();
        Accounting {
            context,
            in_flight: 0,
            outcomes: [0; DeliveryOutcome::COUNT],
            arrivals: VecDeque::new(),
            clock_skew: (0.0, now),
            recorded_until: now,
        }
    }

    /// Deliveries without an outcome.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Records the time since the last call as spent on `activity`.
    pub fn time_spent(&mut self, activity: Activity) {
        let now = Instant::now();
        self.context.metrics.time_spent(activity, now.saturating_duration_since(self.recorded_until));
        self.recorded_until = now;
    }

    /// Counts deliveries as received and as in flight, together.
    pub fn received(&mut self, chunk: &[Delivery], now: Instant) {
        if let Some(last) = chunk.last() {
            self.arrivals.push_back((last.tag, now));
        }
        let redelivered = chunk.iter().filter(|delivery| delivery.redelivered).count();
        if redelivered > 0 {
            let highest = chunk.iter().map(Delivery::delivery_count).max().unwrap_or(0);
            self.context.highest_delivery_count.fetch_max(highest, Ordering::Relaxed);
        }
        let bytes = chunk.iter().map(|delivery| delivery.body.len()).sum();
        self.context.metrics.received(chunk.len() - redelivered, redelivered, bytes);
        self.in_flight += chunk.len();
        self.context.metrics.in_flight(self.in_flight);
    }

    /// Counts an outcome; [`Accounting::publish_outcomes`] adds it to the metrics.
    pub fn settled(&mut self, outcome: DeliveryOutcome) {
        self.in_flight -= 1;
        if let Some(count) = self.outcomes.get_mut(outcome as usize) {
            *count += 1;
        }
    }

    /// Adds the outcomes to the metrics, and updates the number in flight, together.
    pub fn publish_outcomes(&mut self) {
        for (outcome, count) in DeliveryOutcome::VARIANTS.iter().zip(std::mem::take(&mut self.outcomes)) {
            self.context.metrics.settled(*outcome, count);
        }
        self.context.metrics.in_flight(self.in_flight);
    }

    /// Records the latency of a stored event, and what is found in it. Replayed messages have no latency: they took as long as their
    /// operator did. Neither have times that cannot be meant, such as microseconds: they say nothing about the worker or a clock. A smoke
    /// test is not traffic.
    pub fn stored(&mut self, pending: &PendingEvent) {
        if pending.delivery.is_smoke_test() {
            return;
        }
        let replay = pending.delivery.replay_mark();
        let now = since_epoch().as_secs_f64();
        let ahead = findings_of_clock(pending.time, pending.delivery.timestamp(), now * 1000.0);
        self.suspect(publisher(&pending.delivery, replay), pending.findings.and(ahead));
        if replay.is_some() {
            return;
        }
        let age = |millis: f64| is_plausible_time(millis, now * 1000.0).then_some(now - millis / 1000.0);
        let event = pending.time.and_then(age);
        let published = pending.delivery.timestamp().and_then(|seconds| age(seconds as f64 * 1000.0));
        self.context.metrics.latency(event, published);
        self.clock_skew.0 = self.clock_skew.0.max(event.map_or(0.0, |seconds| -seconds));
    }

    /// Counts what is found in a stored event, and logs what is found for the first time in events of its publisher.
    fn suspect(&self, publisher: &str, findings: Findings) {
        if findings.is_empty() {
            return;
        }
        self.context.metrics.suspect_event(publisher, findings, |new, publisher| {
            for kind in new.iter() {
                let (kind, advice) = (kind.as_str(), kind.advice());
                info!(kind, publisher, "an event is stored that is probably a mistake of its publisher: {advice}");
            }
        });
    }

    /// The age of the oldest delivery that is not acknowledged.
    pub fn oldest_age(&mut self, session: &Session, now: Instant) -> Duration {
        let oldest = session.oldest_unacked();
        while self.arrivals.front().is_some_and(|(last, _)| *last < oldest) {
            self.arrivals.pop_front();
        }
        let arrived = self.arrivals.front().filter(|_| session.unacked() > 0);
        arrived.map_or(Duration::ZERO, |(_, arrived)| now.saturating_duration_since(*arrived))
    }

    /// Sets the gauges; the caller fills in what only it knows.
    pub fn set_gauges(&mut self, session: &Session, now: Instant, values: GaugeValues) {
        if now.saturating_duration_since(self.clock_skew.1) >= SKEW_SHOWN_FOR {
            self.clock_skew = (0.0, now);
        }
        self.context.metrics.set_gauges(&GaugeValues {
            in_flight: self.in_flight,
            in_flight_bytes: session.bytes_in_flight(),
            unacked: session.unacked(),
            prefetch: session.prefetch(),
            event_clock_skew: self.clock_skew.0,
            ..values
        });
    }

    /// Counts everything without an outcome as returned, at the end of the session. Returns how many.
    pub fn end(&mut self) -> usize {
        let returned = std::mem::take(&mut self.in_flight);
        self.context.metrics.settled(DeliveryOutcome::Returned, returned);
        self.context.metrics.set_gauges(&GaugeValues::default());
        returned
    }
}
