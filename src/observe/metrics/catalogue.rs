//! Owns the name, kind, labels, buckets and help of every metric, in one table: the exposition, `docs/operate/metrics.md` and the
//! tests of dashboards and alerts come from it.

use ::metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use strum::{VariantArray as _, VariantNames};

use crate::mongodb::FailureKind;
use ticketlog_contract::{FindingKind, Reason};
use ticketlog_rabbitmq::BrokerError;

use super::LOG_LEVELS;
use super::labels::{
    Activity, DeliveryOutcome, FlushCause, PublishFailure, QueueRole, ReceiptOutcome, SpanOutcome, WriteResult,
};
use ticketlog_status::Component;

pub(super) const RECEIVED: &str = "ticketlog_messages_received_total";
pub(super) const RECEIVED_BYTES: &str = "ticketlog_messages_received_bytes_total";
pub(super) const SETTLED: &str = "ticketlog_messages_settled_total";
pub(super) const IN_FLIGHT: &str = "ticketlog_messages_in_flight";
pub(super) const IN_FLIGHT_BYTES: &str = "ticketlog_message_bytes_in_flight";
pub(super) const UNACKED: &str = "ticketlog_deliveries_unacked";
pub(super) const PREFETCH: &str = "ticketlog_prefetch";
pub(super) const OLDEST: &str = "ticketlog_oldest_unsettled_age_seconds";
pub(super) const REQUEUE_AFTER: &str = "ticketlog_requeue_after_seconds";
pub(super) const WAITING: &str = "ticketlog_batch_events_waiting";
pub(super) const BATCH_EVENTS: &str = "ticketlog_batch_events";
pub(super) const BATCH_BYTES: &str = "ticketlog_batch_bytes";
pub(super) const FLUSHES: &str = "ticketlog_batch_flushes_total";
pub(super) const LOOP: &str = "ticketlog_loop_seconds";
pub(super) const WRITE_DURATION: &str = "ticketlog_store_write_duration_seconds";
pub(super) const WRITES: &str = "ticketlog_store_writes_in_flight";
pub(super) const RETRIES: &str = "ticketlog_store_retries_total";
pub(super) const CONNECTIONS: &str = "ticketlog_store_connections";
pub(super) const EVENT_TO_STORED: &str = "ticketlog_event_to_stored_seconds";
pub(super) const PUBLISH_TO_STORED: &str = "ticketlog_publish_to_stored_seconds";
pub(super) const LAST_STORED: &str = "ticketlog_last_stored_timestamp_seconds";
pub(super) const CLOCK_SKEW: &str = "ticketlog_clock_skew_seconds";
pub(super) const DEAD_LETTERS: &str = "ticketlog_dead_letters_total";
pub(super) const DEAD_LETTERS_BY_PUBLISHER: &str = "ticketlog_dead_letters_by_publisher_total";
pub(super) const DEAD_LETTER_CAUSES: &str = "ticketlog_dead_letter_causes_total";
pub(super) const DEAD_LETTERS_WAITING: &str = "ticketlog_dead_letters_waiting";
pub(super) const DEAD_LETTER_FAILURES: &str = "ticketlog_dead_letter_publish_failures_total";
pub(super) const SUSPECT_EVENTS: &str = "ticketlog_suspect_events_total";
pub(super) const RECEIPTS: &str = "ticketlog_receipts_total";
pub(super) const REPLAYED: &str = "ticketlog_replayed_messages_total";
pub(super) const QUEUE_MESSAGES: &str = "ticketlog_queue_messages";
pub(super) const QUEUE_CONSUMERS: &str = "ticketlog_queue_consumers";
pub(super) const QUEUE_FILLED_SINCE: &str = "ticketlog_queue_filled_since_timestamp_seconds";
pub(super) const QUEUE_REMOVES: &str = "ticketlog_queue_removes_messages";
pub(super) const SESSION_ENDS: &str = "ticketlog_session_ends_total";
pub(super) const SESSIONS: &str = "ticketlog_sessions_opened_total";
pub(super) const PUBLISHERS: &str = "ticketlog_publishers_opened_total";
pub(super) const REQUEUES: &str = "ticketlog_requeues_total";
pub(super) const REQUEUED: &str = "ticketlog_requeued";
pub(super) const READY: &str = "ticketlog_ready";
pub(super) const COMPONENT_UP: &str = "ticketlog_component_up";
pub(super) const BREAKER_OPEN: &str = "ticketlog_breaker_open";
pub(super) const LOG_LINES: &str = "ticketlog_log_lines_total";
pub(super) const LOG_LOST: &str = "ticketlog_log_lines_lost_total";
pub(super) const SPANS: &str = "ticketlog_spans_total";
pub(super) const BUILD_INFO: &str = "ticketlog_build_info";

const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
pub(super) const LATENCY: &[f64] =
    &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0];
const LOOP_SECONDS: &[f64] = &[0.0001, 0.001, 0.01, 0.1, 1.0];
const EVENTS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0];
const BYTES: &[f64] =
    &[256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0, 33554432.0];

/// The type of a metric in Prometheus.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Counter,
    Gauge,
    /// With these upper bounds.
    Histogram(&'static [f64]),
}

/// A label, and every value it can have.
type Label = (&'static str, fn() -> Vec<&'static str>);

/// One row of the catalogue.
struct Metric {
    name: &'static str,
    kind: Kind,
    unit: Option<Unit>,
    label: Option<Label>,
    by_publisher: bool,
    help: &'static str,
}

const fn metric(name: &'static str, kind: Kind, help: &'static str) -> Metric {
    Metric { name, kind, unit: None, label: None, by_publisher: false, help }
}

impl Metric {
    const fn by(self, name: &'static str, values: fn() -> Vec<&'static str>) -> Self {
        Metric { label: Some((name, values)), ..self }
    }

    const fn by_publisher(self) -> Self {
        Metric { by_publisher: true, ..self }
    }

    const fn seconds(self) -> Self {
        Metric { unit: Some(Unit::Seconds), ..self }
    }

    const fn bytes(self) -> Self {
        Metric { unit: Some(Unit::Bytes), ..self }
    }

    /// The values of its label; one empty value if it has no label.
    fn values(&self) -> Vec<&'static str> {
        self.label.map_or(vec![""], |(_, values)| values())
    }

    /// Creates one of its series.
    fn create(&self, value: &'static str) {
        let publisher = self.by_publisher.then_some(("publisher", "unknown"));
        let labels: Vec<_> = self.label.iter().map(|(name, _)| (*name, value)).chain(publisher).collect();
        match self.kind {
            Kind::Counter => counter!(self.name, &labels).increment(0),
            Kind::Gauge => gauge!(self.name, &labels).increment(0.0),
            Kind::Histogram(_) => drop(histogram!(self.name, &labels)),
        }
    }

    fn describe(&self) {
        let unit = self.unit.unwrap_or(Unit::Count);
        match self.kind {
            Kind::Counter => describe_counter!(self.name, unit, self.help),
            Kind::Gauge => describe_gauge!(self.name, unit, self.help),
            Kind::Histogram(_) => describe_histogram!(self.name, unit, self.help),
        }
    }
}

fn names<T: VariantNames>() -> Vec<&'static str> {
    T::VARIANTS.to_vec()
}

fn finding_kinds() -> Vec<&'static str> {
    FindingKind::VARIANTS.iter().map(|kind| kind.as_str()).collect()
}

fn reasons() -> Vec<&'static str> {
    Reason::VARIANTS.iter().map(|reason| reason.as_str()).collect()
}

/// A replayed message is never `returned`: that is not an outcome of the replay.
fn replay_outcomes() -> Vec<&'static str> {
    let returned: &'static str = DeliveryOutcome::Returned.into();
    names::<DeliveryOutcome>().into_iter().filter(|name| *name != returned).collect()
}

fn version() -> Vec<&'static str> {
    vec![env!("CARGO_PKG_VERSION")]
}

/// Every metric, by topic.
fn catalogue() -> Vec<(&'static str, Vec<Metric>)> {
    vec![
        ("The ledger: received = settled + in flight", ledger()),
        ("Where the time goes", work()),
        ("The store", store()),
        ("Freshness", freshness()),
        ("Dead letters and replays", dead_letters()),
        ("RabbitMQ", broker()),
        ("The process", process()),
    ]
}

fn ledger() -> Vec<Metric> {
    use Kind::{Counter, Gauge};
    vec![
        metric(RECEIVED, Counter, "Deliveries from the queue, by whether RabbitMQ may have delivered them before")
            .by("redelivered", || vec!["false", "true"]),
        metric(RECEIVED_BYTES, Counter, "Bytes of the bodies of deliveries").bytes(),
        metric(SETTLED, Counter, "Deliveries by their outcome").by("outcome", names::<DeliveryOutcome>),
        metric(IN_FLIGHT, Gauge, "Deliveries without an outcome"),
        metric(IN_FLIGHT_BYTES, Gauge, "Bytes of messages (bodies, headers, other properties) and documents in flight")
            .bytes(),
        metric(UNACKED, Gauge, "Deliveries that are not acknowledged, which count against the prefetch"),
        metric(PREFETCH, Gauge, "Prefetch in force; 0 without a session"),
        metric(OLDEST, Gauge, "Age of the oldest delivery that is not acknowledged").seconds(),
        metric(REQUEUE_AFTER, Gauge, "The age at which everything is requeued (retry.requeue_after)").seconds(),
    ]
}

fn work() -> Vec<Metric> {
    use Kind::{Counter, Gauge, Histogram};
    vec![
        metric(
            LOOP,
            Histogram(LOOP_SECONDS),
            "Time of the session loop by activity; the sums add up to all of its time",
        )
        .seconds()
        .by("activity", names::<Activity>),
        metric(WAITING, Gauge, "Decoded events that wait for a writer"),
        metric(BATCH_EVENTS, Histogram(EVENTS), "Events in a batch"),
        metric(BATCH_BYTES, Histogram(BYTES), "Bytes of documents in a batch").bytes(),
        metric(
            FLUSHES,
            Counter,
            "Batches, by what closed them; idle: no write was under way; prefetch: it was exhausted",
        )
        .by("cause", names::<FlushCause>),
    ]
}

fn store() -> Vec<Metric> {
    use Kind::{Counter, Gauge, Histogram};
    vec![
        metric(WRITE_DURATION, Histogram(SECONDS), "Duration of insert commands, including failed ones, by outcome")
            .seconds()
            .by("outcome", names::<WriteResult>),
        metric(WRITES, Gauge, "Batches being written"),
        metric(RETRIES, Counter, "Inserts that will be retried, by the kind of failure")
            .by("kind", names::<FailureKind>),
        metric(CONNECTIONS, Gauge, "Connections in the pool to MongoDB, by state")
            .by("state", || vec!["open", "in_use"]),
    ]
}

fn freshness() -> Vec<Metric> {
    use Kind::{Gauge, Histogram};
    vec![
        metric(
            PUBLISH_TO_STORED,
            Histogram(LATENCY),
            "From the AMQP timestamp (whole seconds) to the document being durable",
        )
        .seconds(),
        metric(EVENT_TO_STORED, Histogram(LATENCY), "From the time in the event, if it is after 2000 and at most a day ahead, to its document being durable")
            .seconds(),
        metric(LAST_STORED, Gauge, "Time of the last stored document, since 1970; 0 before the first").seconds(),
        metric(
            CLOCK_SKEW,
            Gauge,
            "Seconds by which a clock is ahead of this machine's: MongoDB's, and the largest, up to a day, of events of the last minute",
        )
        .seconds()
        .by("against", || vec!["store", "events"]),
    ]
}

fn dead_letters() -> Vec<Metric> {
    use Kind::{Counter, Gauge};
    vec![
        metric(DEAD_LETTERS, Counter, "Confirmed dead letters, by reason").by("reason", reasons),
        metric(
            DEAD_LETTERS_BY_PUBLISHER,
            Counter,
            "Confirmed dead letters, by app_id, or else user_id, of their publishers; the first twenty, and then other",
        )
        .by("publisher", || vec!["unknown"]),
        metric(
            DEAD_LETTER_CAUSES,
            Counter,
            "Causes of dead letters (`dl-fingerprint`) that the process saw for the first time",
        ),
        metric(
            SUSPECT_EVENTS,
            Counter,
            "Stored events that are probably mistakes, by what is found in them (docs/publish/findings.md)",
        )
        .by("kind", finding_kinds)
        .by_publisher(),
        metric(DEAD_LETTERS_WAITING, Gauge, "Rejected messages whose dead letter is not confirmed yet"),
        metric(DEAD_LETTER_FAILURES, Counter, "Dead letters that could not be published and will be retried, by cause")
            .by("cause", names::<PublishFailure>),
        metric(RECEIPTS, Counter, "Receipts of dead letters (dead_letter.receipts): sent, or dropped because RabbitMQ was slow or refused them or too many came at once")
            .by("outcome", names::<ReceiptOutcome>),
        metric(REPLAYED, Counter, "Replayed messages (ticketlog dead replay), by outcome")
            .by("outcome", replay_outcomes),
        metric(
            BREAKER_OPEN,
            Gauge,
            "1 while the circuit breaker is open: rejected messages are held, not dead-lettered",
        ),
    ]
}

fn broker() -> Vec<Metric> {
    use Kind::{Counter, Gauge};
    vec![
        metric(QUEUE_MESSAGES, Gauge, "Messages ready in a queue, not counting unacknowledged ones; NaN while unknown")
            .by("role", names::<QueueRole>),
        metric(QUEUE_CONSUMERS, Gauge, "Consumers of a queue, of all workers together; NaN while unknown")
            .by("role", names::<QueueRole>),
        metric(
            QUEUE_REMOVES,
            Gauge,
            "1 while a policy can remove messages from a queue of dead letters; NaN while unknown",
        )
        .by("role", || vec![QueueRole::DeadLetter.into(), QueueRole::Parked.into()]),
        metric(
            QUEUE_FILLED_SINCE,
            Gauge,
            "Since when the queue has not been empty, as this worker has seen; 0 while it is empty, NaN while unknown",
        )
        .seconds()
        .by("role", names::<QueueRole>),
        metric(SESSIONS, Counter, "Sessions opened"),
        metric(SESSION_ENDS, Counter, "Sessions that ended or could not be opened, by cause")
            .by("cause", names::<BrokerError>),
        metric(PUBLISHERS, Counter, "Connections opened for publishing dead letters"),
        metric(REQUEUES, Counter, "Times that everything was requeued during an outage"),
        metric(REQUEUED, Gauge, "1 while everything is requeued and the worker waits for the end of the outage"),
    ]
}

fn process() -> Vec<Metric> {
    use Kind::{Counter, Gauge};
    vec![
        metric(READY, Gauge, "1 while /readyz returns 200: consuming, MongoDB answers, nothing is held"),
        metric(COMPONENT_UP, Gauge, "1 while the component is well, by component").by("component", names::<Component>),
        metric(LOG_LINES, Counter, "Lines logged, by level").by("level", || LOG_LEVELS.to_vec()),
        metric(LOG_LOST, Counter, "Log lines lost because standard error was not read fast enough"),
        metric(SPANS, Counter, "Spans of traces, if telemetry.otlp is set: exported, refused by the collector, or dropped because too many waited")
            .by("outcome", names::<SpanOutcome>),
        metric(BUILD_INFO, Gauge, "1, labelled with the version").by("version", version),
    ]
}

/// Sets the buckets of the histograms.
///
/// # Errors
/// A histogram without buckets; a test checks that there is none.
pub(super) fn set_buckets(mut builder: PrometheusBuilder) -> Result<PrometheusBuilder, BuildError> {
    for metric in catalogue().into_iter().flat_map(|(_, metrics)| metrics) {
        if let Kind::Histogram(bounds) = metric.kind {
            builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds)?;
        }
    }
    Ok(builder)
}

/// Describes every metric and creates every series.
pub(super) fn create_all() {
    for metric in catalogue().into_iter().flat_map(|(_, metrics)| metrics) {
        metric.describe();
        metric.values().into_iter().for_each(|value| metric.create(value));
    }
}

#[cfg(test)]
#[path = "catalogue_tests.rs"]
mod tests;
