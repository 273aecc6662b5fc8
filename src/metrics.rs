//! Owns the metric catalogue: every name, help text, label and bucket. Labels come from closed sets, and every
//! combination is there from the start. Must not know when anything is counted.

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::batch::Flush;
use crate::broker::BrokerError;
use crate::event::Reason;
use crate::health::Part;
use crate::store::Failure;

const RECEIVED: &str = "ticketlog_messages_received_total";
const RECEIVED_BYTES: &str = "ticketlog_messages_received_bytes_total";
const SETTLED: &str = "ticketlog_messages_settled_total";
const IN_FLIGHT: &str = "ticketlog_messages_in_flight";
const IN_FLIGHT_BYTES: &str = "ticketlog_message_bytes_in_flight";
const UNACKED: &str = "ticketlog_deliveries_unacked";
const PREFETCH: &str = "ticketlog_prefetch";
const OLDEST: &str = "ticketlog_oldest_unsettled_age_seconds";
const WAITING: &str = "ticketlog_batch_events_waiting";
const BATCH_EVENTS: &str = "ticketlog_batch_events";
const BATCH_BYTES: &str = "ticketlog_batch_bytes";
const FLUSHES: &str = "ticketlog_batch_flushes_total";
const WRITE_DURATION: &str = "ticketlog_store_write_duration_seconds";
const RETRIES: &str = "ticketlog_store_retries_total";
const EVENT_TO_STORED: &str = "ticketlog_event_to_stored_seconds";
const DEAD_LETTERS: &str = "ticketlog_dead_letters_total";
const DEAD_LETTERS_WAITING: &str = "ticketlog_dead_letters_waiting";
const DEAD_LETTER_FAILURES: &str = "ticketlog_dead_letter_publish_failures_total";
const REPLAYED: &str = "ticketlog_replayed_messages_total";
const SESSION_ENDS: &str = "ticketlog_session_ends_total";
const SESSIONS: &str = "ticketlog_sessions_opened_total";
const RELEASES: &str = "ticketlog_releases_total";
const DEPENDENCY_UP: &str = "ticketlog_dependency_up";
const BREAKER_OPEN: &str = "ticketlog_breaker_open";
const BUILD_INFO: &str = "ticketlog_build_info";

const SECONDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
const EVENTS: [f64; 12] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0];
const BYTES: [f64; 10] =
    [256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0, 33554432.0];

/// What became of a message; the right-hand side of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its document was written, durably.
    Stored,
    /// An identical document was there already.
    Duplicate,
    /// Its dead letter is confirmed.
    DeadLettered,
    /// It went back to the queue, or its session ended first.
    Returned,
}

impl Outcome {
    const ALL: [Outcome; 4] = [Outcome::Stored, Outcome::Duplicate, Outcome::DeadLettered, Outcome::Returned];

    fn as_str(self) -> &'static str {
        match self {
            Outcome::Stored => "stored",
            Outcome::Duplicate => "duplicate",
            Outcome::DeadLettered => "dead_lettered",
            Outcome::Returned => "returned",
        }
    }
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// Every document is in.
    Ok,
    /// Some documents are not, each for its own reason.
    Partial,
    /// The command failed as a whole.
    Failed,
}

impl WriteOutcome {
    const ALL: [WriteOutcome; 3] = [WriteOutcome::Ok, WriteOutcome::Partial, WriteOutcome::Failed];

    fn as_str(self) -> &'static str {
        match self {
            WriteOutcome::Ok => "ok",
            WriteOutcome::Partial => "partial",
            WriteOutcome::Failed => "failed",
        }
    }
}

/// The causes of a failed dead-letter publish.
const PUBLISH_FAILURES: [&str; 3] = ["returned", "refused", "error"];

/// Installs the recorder for the whole process.
///
/// # Errors
/// Another recorder is installed already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let name = |name: &str| Matcher::Full(name.to_owned());
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(name(WRITE_DURATION), &SECONDS)?
        .set_buckets_for_metric(name(EVENT_TO_STORED), &SECONDS)?
        .set_buckets_for_metric(name(BATCH_EVENTS), &EVENTS)?
        .set_buckets_for_metric(name(BATCH_BYTES), &BYTES)?
        .install_recorder()?;
    describe();
    begin();
    metrics_process::Collector::default().describe();
    Ok(handle)
}

fn describe() {
    describe_counter!(RECEIVED, "Deliveries from the queue, by whether the broker may have delivered them before");
    describe_counter!(RECEIVED_BYTES, Unit::Bytes, "Bytes of the bodies of deliveries");
    describe_counter!(SETTLED, "Deliveries by their outcome; received = settled + in flight");
    describe_gauge!(IN_FLIGHT, "Deliveries without an outcome");
    describe_gauge!(IN_FLIGHT_BYTES, Unit::Bytes, "Bytes of bodies and documents in hand");
    describe_gauge!(UNACKED, "Deliveries that the broker counts against the prefetch");
    describe_gauge!(PREFETCH, "Prefetch in force");
    describe_gauge!(OLDEST, Unit::Seconds, "Age of the oldest delivery that is not acknowledged");
    describe_gauge!(WAITING, "Decoded events that wait for a writer");
    describe_histogram!(BATCH_EVENTS, "Events in a batch");
    describe_histogram!(BATCH_BYTES, Unit::Bytes, "Bytes of documents in a batch");
    describe_counter!(FLUSHES, "Batches, by what closed them");
    describe_histogram!(WRITE_DURATION, Unit::Seconds, "Duration of writes to the store, failed ones too, by outcome");
    describe_counter!(RETRIES, "Writes that will be tried again, by the kind of failure");
    describe_histogram!(
        EVENT_TO_STORED,
        Unit::Seconds,
        "From the timestamp in the event to its document being durable"
    );
    describe_counter!(DEAD_LETTERS, "Confirmed dead letters, by reason");
    describe_gauge!(DEAD_LETTERS_WAITING, "Bad messages whose dead letter is not confirmed yet");
    describe_counter!(
        DEAD_LETTER_FAILURES,
        "Dead letters that could not be published, and will be tried again, by cause"
    );
    describe_counter!(REPLAYED, "Messages that the dead-letter desk replayed, by their outcome");
    describe_counter!(SESSION_ENDS, "Sessions and attempts at one that ended, by cause");
    describe_counter!(SESSIONS, "Sessions opened");
    describe_counter!(RELEASES, "Times that everything was given back during an outage");
    describe_gauge!(DEPENDENCY_UP, "1 while the part of the flow is well, by part");
    describe_gauge!(BREAKER_OPEN, "1 while the circuit breaker holds dead letters back");
    describe_gauge!(BUILD_INFO, "1, labelled with the version");
}

/// Makes every series exist.
fn begin() {
    for redelivered in ["false", "true"] {
        counter!(RECEIVED, "redelivered" => redelivered).increment(0);
    }
    for outcome in Outcome::ALL {
        counter!(SETTLED, "outcome" => outcome.as_str()).increment(0);
    }
    for outcome in [Outcome::Stored, Outcome::Duplicate, Outcome::DeadLettered] {
        counter!(REPLAYED, "outcome" => outcome.as_str()).increment(0);
    }
    for reason in Reason::ALL {
        counter!(DEAD_LETTERS, "reason" => reason.as_str()).increment(0);
    }
    for cause in Flush::ALL {
        counter!(FLUSHES, "cause" => cause.as_str()).increment(0);
    }
    for outcome in WriteOutcome::ALL {
        drop(histogram!(WRITE_DURATION, "outcome" => outcome.as_str()));
    }
    for kind in Failure::KINDS {
        counter!(RETRIES, "kind" => kind).increment(0);
    }
    for cause in PUBLISH_FAILURES {
        counter!(DEAD_LETTER_FAILURES, "cause" => cause).increment(0);
    }
    for cause in BrokerError::LABELS {
        counter!(SESSION_ENDS, "cause" => cause).increment(0);
    }
    for part in Part::ALL {
        dependency(part, !matches!(part, Part::Broker | Part::Store));
    }
    drop((histogram!(BATCH_EVENTS), histogram!(BATCH_BYTES)));
    counter!(SESSIONS).increment(0);
    counter!(RELEASES).increment(0);
    gauge!(BREAKER_OPEN).set(0.0);
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    drop(Recorders::new());
}

/// A dependency came or went.
pub fn dependency(part: Part, up: bool) {
    gauge!(DEPENDENCY_UP, "part" => part.as_str()).set(if up { 1.0 } else { 0.0 });
}

/// The breaker opened or closed.
pub fn breaker(open: bool) {
    gauge!(BREAKER_OPEN).set(if open { 1.0 } else { 0.0 });
}

/// A session was opened.
pub fn session_opened() {
    counter!(SESSIONS).increment(1);
}

/// A session, or an attempt at one, ended.
pub fn session_ended(cause: &BrokerError) {
    counter!(SESSION_ENDS, "cause" => cause.label()).increment(1);
}

/// Everything was given back.
pub fn released() {
    counter!(RELEASES).increment(1);
}

/// A write will be tried again.
pub fn retry(failure: &Failure) {
    counter!(RETRIES, "kind" => failure.kind).increment(1);
}

/// A write ended.
pub fn write(outcome: WriteOutcome, seconds: f64) {
    histogram!(WRITE_DURATION, "outcome" => outcome.as_str()).record(seconds);
}

/// A batch was closed.
pub fn flushed(cause: Flush, events: usize, bytes: usize) {
    counter!(FLUSHES, "cause" => cause.as_str()).increment(1);
    histogram!(BATCH_EVENTS).record(events as f64);
    histogram!(BATCH_BYTES).record(bytes as f64);
}

/// A dead letter was confirmed.
pub fn dead_letter(reason: Reason) {
    counter!(DEAD_LETTERS, "reason" => reason.as_str()).increment(1);
}

/// A replayed message got its outcome.
pub fn replayed(outcome: Outcome) {
    counter!(REPLAYED, "outcome" => outcome.as_str()).increment(1);
}

/// A dead letter could not be published; `cause` is one of `returned`, `refused`, `error`.
pub fn dead_letter_failure(cause: &'static str) {
    counter!(DEAD_LETTER_FAILURES, "cause" => cause).increment(1);
}

/// Handles of the series that the flow touches for every message or chunk.
pub struct Recorders {
    received: [Counter; 2],
    received_bytes: Counter,
    settled: [Counter; 4],
    in_flight: Gauge,
    in_flight_bytes: Gauge,
    unacked: Gauge,
    prefetch: Gauge,
    oldest: Gauge,
    waiting: Gauge,
    letters: Gauge,
    event_to_stored: Histogram,
}

/// The gauges of one moment.
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct Levels {
    pub in_flight: usize,
    pub in_flight_bytes: usize,
    pub unacked: usize,
    pub prefetch: u16,
    pub oldest_seconds: f64,
    pub waiting: usize,
    pub letters: usize,
}

impl Default for Recorders {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorders {
    /// Handles from the installed recorder; without one they count nowhere.
    pub fn new() -> Self {
        Recorders {
            received: ["false", "true"].map(|redelivered| counter!(RECEIVED, "redelivered" => redelivered)),
            received_bytes: counter!(RECEIVED_BYTES),
            settled: Outcome::ALL.map(|outcome| counter!(SETTLED, "outcome" => outcome.as_str())),
            in_flight: gauge!(IN_FLIGHT),
            in_flight_bytes: gauge!(IN_FLIGHT_BYTES),
            unacked: gauge!(UNACKED),
            prefetch: gauge!(PREFETCH),
            oldest: gauge!(OLDEST),
            waiting: gauge!(WAITING),
            letters: gauge!(DEAD_LETTERS_WAITING),
            event_to_stored: histogram!(EVENT_TO_STORED),
        }
    }

    /// A delivery came.
    pub fn received(&self, redelivered: bool, bytes: usize) {
        let [first, again] = &self.received;
        if redelivered { again } else { first }.increment(1);
        self.received_bytes.increment(bytes as u64);
    }

    /// Deliveries got their outcome.
    pub fn settled(&self, outcome: Outcome, count: usize) {
        let [stored, duplicate, dead_lettered, returned] = &self.settled;
        let counter = match outcome {
            Outcome::Stored => stored,
            Outcome::Duplicate => duplicate,
            Outcome::DeadLettered => dead_lettered,
            Outcome::Returned => returned,
        };
        counter.increment(count as u64);
    }

    /// Deliveries without an outcome; to be set whenever the counters move.
    pub fn in_flight(&self, count: usize) {
        self.in_flight.set(count as f64);
    }

    /// An event of this age became durable.
    pub fn stored_after(&self, seconds: f64) {
        self.event_to_stored.record(seconds);
    }

    /// Sets the gauges.
    pub fn levels(&self, levels: &Levels) {
        self.in_flight.set(levels.in_flight as f64);
        self.in_flight_bytes.set(levels.in_flight_bytes as f64);
        self.unacked.set(levels.unacked as f64);
        self.prefetch.set(f64::from(levels.prefetch));
        self.oldest.set(levels.oldest_seconds);
        self.waiting.set(levels.waiting as f64);
        self.letters.set(levels.letters as f64);
    }
}
