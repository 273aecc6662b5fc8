//! Owns what the parts of the program count with: typed recorders over the catalogue. Labels come from closed sets.
//! Must not know when anything is counted.

mod catalogue;

use std::time::{Duration, SystemTime};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

use crate::batch::Flush;
use crate::broker::BrokerError;
use crate::event::Reason;
use crate::health::Part;
use crate::store::Failure;

use catalogue::*;

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
    /// Every outcome, in the order of their numbers.
    pub const ALL: [Outcome; 4] = [Outcome::Stored, Outcome::Duplicate, Outcome::DeadLettered, Outcome::Returned];

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
/// The queues that are watched.
pub const QUEUES: [&str; 3] = ["work", "dead_letter", "parked"];
/// The levels of log lines.
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// What the loop spends its time on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Nothing is in hand.
    Idle,
    /// Events wait for company, or for the next message.
    Lingering,
    /// A batch is due and all writers are busy.
    AwaitingWriter,
    /// Batches are being written and nothing else is to be done.
    Writing,
    /// Turning messages into documents.
    Decoding,
    /// Taking verdicts: counting, settling, making dead letters.
    Settling,
}

impl Activity {
    const ALL: [Activity; 6] = [
        Activity::Idle,
        Activity::Lingering,
        Activity::AwaitingWriter,
        Activity::Writing,
        Activity::Decoding,
        Activity::Settling,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Activity::Idle => "idle",
            Activity::Lingering => "lingering",
            Activity::AwaitingWriter => "awaiting_writer",
            Activity::Writing => "writing",
            Activity::Decoding => "decoding",
            Activity::Settling => "settling",
        }
    }
}

/// Installs the recorder for the whole process.
///
/// # Errors
/// Another recorder is installed already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = catalogue::buckets(PrometheusBuilder::new())?.install_recorder()?;
    catalogue::begin();
    for part in Part::ALL {
        dependency(part, !matches!(part, Part::Broker | Part::Store));
    }
    for queue in QUEUES {
        self::queue(queue, None);
    }
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    metrics_process::Collector::default().describe();
    Ok(handle)
}

/// What is configured, for alerts to compare with.
pub fn configured(release_after: Duration) {
    gauge!(RELEASE_AFTER).set(release_after.as_secs_f64());
}

/// How much the store is given at a time.
pub fn tuned(concurrency: usize, events: usize) {
    gauge!(CONCURRENCY).set(concurrency as f64);
    gauge!(BATCH_LIMIT).set(events as f64);
}

/// What a passive declaration said of a queue (one of [`QUEUES`]): messages and consumers.
pub fn queue(queue: &'static str, seen: Option<(u32, u32)>) {
    let (messages, consumers) =
        seen.map_or((f64::NAN, f64::NAN), |(messages, consumers)| (f64::from(messages), f64::from(consumers)));
    gauge!(QUEUE_MESSAGES, "queue" => queue).set(messages);
    gauge!(QUEUE_CONSUMERS, "queue" => queue).set(consumers);
}

/// Whether `/readyz` says so.
pub fn ready(ready: bool) {
    gauge!(READY).set(if ready { 1.0 } else { 0.0 });
}

/// A connection for dead letters was opened.
pub fn publisher_opened() {
    counter!(PUBLISHERS).increment(1);
}

/// MongoDB's clock, in seconds ahead of ours.
pub fn store_clock(ahead: f64) {
    gauge!(CLOCK_SKEW, "against" => "store").set(ahead);
}

/// Connections of the pool: `open` ones, or those `in_use`.
pub fn store_connections(state: &'static str, count: usize) {
    gauge!(CONNECTIONS, "state" => state).set(count as f64);
}

/// A line was logged.
pub fn logged(level: &'static str) {
    counter!(LOG_LINES, "level" => level).increment(1);
}

/// Lines that were lost so far.
pub fn log_lost(lines: u64) {
    counter!(LOG_LOST).absolute(lines);
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
    gauge!(RELEASED).set(0.0);
}

/// A session, or an attempt at one, ended.
pub fn session_ended(cause: &BrokerError) {
    counter!(SESSION_ENDS, "cause" => cause.label()).increment(1);
    gauge!(RELEASED).set(0.0);
}

/// Everything was given back.
pub fn released() {
    counter!(RELEASES).increment(1);
    gauge!(RELEASED).set(1.0);
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
    publish_to_stored: Histogram,
    last_stored: Gauge,
    events_ahead: Gauge,
    writes: Gauge,
    activities: [Histogram; 6],
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
    pub writes: usize,
    pub events_ahead: f64,
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
            publish_to_stored: histogram!(PUBLISH_TO_STORED),
            last_stored: gauge!(LAST_STORED),
            events_ahead: gauge!(CLOCK_SKEW, "against" => "events"),
            writes: gauge!(WRITES),
            activities: Activity::ALL.map(|activity| histogram!(LOOP, "activity" => activity.as_str())),
        }
    }

    /// Deliveries came: for the first time, again, and their bytes together.
    pub fn received(&self, first: usize, again: usize, bytes: usize) {
        for (counter, count) in self.received.iter().zip([first, again]) {
            counter.increment(count as u64);
        }
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

    /// An event became durable, so many seconds after its own time and after it was published, where these are known.
    pub fn stored_after(&self, event: Option<f64>, published: Option<f64>) {
        if let Some(seconds) = event {
            self.event_to_stored.record(seconds.max(0.0));
        }
        if let Some(seconds) = published {
            self.publish_to_stored.record(seconds.max(0.0));
        }
    }

    /// Some document was stored just now.
    pub fn stored_now(&self) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.last_stored.set(since.as_secs_f64());
    }

    /// The loop has spent this long on something.
    pub fn spent(&self, activity: Activity, time: Duration) {
        if let Some(histogram) = self.activities.get(activity as usize) {
            histogram.record(time);
        }
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
        self.writes.set(levels.writes as f64);
        self.events_ahead.set(levels.events_ahead);
    }
}
