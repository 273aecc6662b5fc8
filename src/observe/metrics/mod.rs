//! Owns the metrics of the process: one function for each thing that is counted. Labels come from closed sets.

mod catalogue;
mod flow;
mod labels;
mod scope;
mod suspects;

use std::sync::Arc;
use std::time::Duration;

use ::metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use strum::VariantArray as _;

use crate::mongodb::Failure;
use ticketlog_contract::Reason;
use ticketlog_rabbitmq::{BrokerError, QueueCounts};

use super::health::Health;
use catalogue::*;
use ticketlog_status::Component;

pub use flow::{FlowMetrics, GaugeValues};
use labels::BoundedNames;
pub use labels::{
    Activity, DeliveryOutcome, FlushCause, PublishFailure, QueueRole, ReceiptOutcome, SpanOutcome, WriteResult,
};
pub use scope::RouteScope;

/// The publishers of dead letters that have a series of their own.
static PUBLISHERS_SEEN: BoundedNames = BoundedNames::new(20);

/// The levels of log lines.
const LOG_LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The recorder cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Another recorder is installed already.
    #[error("another recorder of metrics is installed already")]
    InstalledAlready,
}

/// Installs the recorder for the whole process. Every series has the label `queue`, so that one scrape job may hold the
/// workers of several queues; for one of several routes it is that of its [`RouteScope`].
///
/// # Errors
/// Another recorder is installed already.
pub fn install(queue: &str) -> Result<PrometheusHandle, InstallError> {
    let builder = PrometheusBuilder::new().add_global_label("queue", queue);
    let recorder = Arc::new(catalogue::set_buckets(builder)?.build_recorder());
    let handle = recorder.handle();
    ::metrics::set_global_recorder(Arc::clone(&recorder)).map_err(|_| InstallError::InstalledAlready)?;
    let _ = scope::RECORDER.set(recorder);
    create_series();
    metrics_process::Collector::default().describe();
    Ok(handle)
}

/// Creates all series, so that each exists before anything is counted.
fn create_series() {
    catalogue::create_all();
    for role in QueueRole::VARIANTS {
        set_queue_counts(*role, None);
    }
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// `retry.requeue_after`, for alerts to compare with.
pub fn set_requeue_after(requeue_after: Duration) {
    gauge!(REQUEUE_AFTER).set(requeue_after.as_secs_f64());
}

fn set_queue_counts(role: QueueRole, counts: Option<QueueCounts>) {
    let (ready, consumers) =
        counts.map_or((f64::NAN, f64::NAN), |counts| (f64::from(counts.ready), f64::from(counts.consumers)));
    let role: &'static str = role.into();
    gauge!(QUEUE_MESSAGES, "role" => role).set(ready);
    gauge!(QUEUE_CONSUMERS, "role" => role).set(consumers);
}

/// Sets readiness and the state of the components. To be called before each scrape.
pub fn set_health(health: &Health) {
    let problems = health.problems();
    gauge!(READY).set(if problems.is_empty() { 1.0 } else { 0.0 });
    for component in Component::VARIANTS {
        let up = if problems.contains_key(component) { 0.0 } else { 1.0 };
        gauge!(COMPONENT_UP, "component" => component.as_str()).set(up);
    }
}

/// A connection for dead letters was opened.
pub fn publisher_opened() {
    counter!(PUBLISHERS).increment(1);
}

/// Seconds by which MongoDB's clock is ahead of the worker's.
pub fn set_store_clock_skew(ahead: f64) {
    gauge!(CLOCK_SKEW, "against" => "store").set(ahead);
}

/// The number of connections in the pool to MongoDB, by state.
pub fn set_store_connections(state: &'static str, count: usize) {
    gauge!(CONNECTIONS, "state" => state).set(count as f64);
}

/// A line was logged.
pub fn log_line(level: &'static str) {
    counter!(LOG_LINES, "level" => level).increment(1);
}

/// The number of log lines lost so far.
pub fn set_log_lines_lost(lines: u64) {
    counter!(LOG_LOST).absolute(lines);
}

/// Spans of traces were exported, or lost.
pub fn spans(outcome: SpanOutcome, count: usize) {
    let outcome: &'static str = outcome.into();
    counter!(SPANS, "outcome" => outcome).increment(count as u64);
}

/// Receipts of dead letters were published, or dropped.
pub fn receipts(outcome: ReceiptOutcome, count: usize) {
    let outcome: &'static str = outcome.into();
    counter!(RECEIPTS, "outcome" => outcome).increment(count as u64);
}

/// The breaker opened or closed.
pub fn set_breaker(open: bool) {
    gauge!(BREAKER_OPEN).set(if open { 1.0 } else { 0.0 });
}

/// Whether a policy can remove messages from a queue; none while unknown.
pub fn set_queue_removes(role: QueueRole, removes: Option<bool>) {
    let role: &'static str = role.into();
    let value = removes.map_or(f64::NAN, |removes| if removes { 1.0 } else { 0.0 });
    gauge!(QUEUE_REMOVES, "role" => role).set(value);
}

/// Since when a queue has not been empty, in seconds since 1970; 0 while it is empty, none while unknown.
pub fn set_queue_filled_since(role: QueueRole, since: Option<f64>) {
    let role: &'static str = role.into();
    gauge!(QUEUE_FILLED_SINCE, "role" => role).set(since.unwrap_or(f64::NAN));
}

/// A session was opened.
pub fn session_opened() {
    counter!(SESSIONS).increment(1);
    gauge!(REQUEUED).set(0.0);
}

/// A session ended, or could not be opened.
pub fn session_ended(cause: &BrokerError) {
    counter!(SESSION_ENDS, "cause" => cause.label()).increment(1);
    gauge!(REQUEUED).set(0.0);
}

/// Everything was requeued because of an outage.
pub fn requeued() {
    counter!(REQUEUES).increment(1);
    gauge!(REQUEUED).set(1.0);
}

/// An insert will be retried.
pub fn store_retry(failure: &Failure) {
    counter!(RETRIES, "kind" => failure.label()).increment(1);
}

/// An insert command ended.
pub fn write(result: WriteResult, seconds: f64) {
    let result: &'static str = result.into();
    histogram!(WRITE_DURATION, "outcome" => result).record(seconds);
}

/// A batch was closed.
pub fn batch_closed(cause: FlushCause, events: usize, bytes: usize) {
    let cause: &'static str = cause.into();
    counter!(FLUSHES, "cause" => cause).increment(1);
    histogram!(BATCH_EVENTS).record(events as f64);
    histogram!(BATCH_BYTES).record(bytes as f64);
}

/// A dead letter of this publisher was confirmed.
pub fn dead_letter_confirmed(reason: Reason, publisher: &str) {
    counter!(DEAD_LETTERS, "reason" => reason.as_str()).increment(1);
    counter!(DEAD_LETTERS_BY_PUBLISHER, "publisher" => PUBLISHERS_SEEN.name(publisher)).increment(1);
}

/// A message was rejected for a cause that this process has not seen before.
pub fn new_cause() {
    counter!(DEAD_LETTER_CAUSES).increment(1);
}

/// A replayed message has its outcome.
pub fn replayed(outcome: DeliveryOutcome) {
    let outcome: &'static str = outcome.into();
    counter!(REPLAYED, "outcome" => outcome).increment(1);
}

/// A dead letter could not be published.
pub fn dead_letter_failed(cause: PublishFailure) {
    let cause: &'static str = cause.into();
    counter!(DEAD_LETTER_FAILURES, "cause" => cause).increment(1);
}
