//! Owns the numbers of a worker that operators look at first, from its metrics. Must not know how they are shown.

use crate::system::since_epoch;

use super::worker_sample::Sample;

/// What a worker counts; none if unknown. Rates are per second.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct WorkerNumbers {
    pub received: Option<f64>,
    pub stored: Option<f64>,
    pub dead_lettered: Option<f64>,
    pub duplicates: Option<f64>,
    pub backlog: Option<f64>,
    pub consumers: Option<f64>,
    pub in_flight: Option<f64>,
    /// Seconds: median, and 99 of 100.
    pub latency: (Option<f64>, Option<f64>),
    /// Seconds since something was stored.
    pub last_stored: Option<f64>,
    pub dead_letters: Option<f64>,
    pub parked: Option<f64>,
    pub unpublished: Option<f64>,
    /// Since the worker has started: received, and of these stored, duplicate, dead-lettered, returned.
    pub ledger: Option<[f64; 5]>,
}

impl WorkerNumbers {
    /// From two samples of one worker; without an earlier one there are no rates.
    pub fn new(before: Option<&Sample>, now: &Sample) -> Self {
        let rate = |name: &str, label: &str| now.rate(before?, name, label);
        let settled = |outcome: &str| rate("ticketlog_messages_settled_total", outcome);
        let queue = |name: &str, queue: &str| now.value(name, queue);
        let latency = |quantile| now.quantile(before, "ticketlog_event_to_stored_seconds", quantile);
        let total = |outcome: &str| now.value("ticketlog_messages_settled_total", outcome);
        let received = now.value("ticketlog_messages_received_total", "");
        let outcomes = ["\"stored\"", "\"duplicate\"", "\"dead_lettered\"", "\"returned\""].map(total);
        let ledger = match (received, outcomes) {
            (Some(received), [Some(stored), Some(duplicate), Some(dead), Some(returned)]) => {
                Some([received, stored, duplicate, dead, returned])
            }
            _ => None,
        };
        let last = now.value("ticketlog_last_stored_timestamp_seconds", "").filter(|time| *time > 0.0);
        WorkerNumbers {
            received: rate("ticketlog_messages_received_total", ""),
            stored: settled("\"stored\""),
            dead_lettered: settled("\"dead_lettered\""),
            duplicates: settled("\"duplicate\""),
            backlog: queue("ticketlog_queue_messages", "\"work\""),
            consumers: queue("ticketlog_queue_consumers", "\"work\""),
            in_flight: now.value("ticketlog_messages_in_flight", ""),
            latency: (latency(0.5), latency(0.99)),
            last_stored: last.map(|time| (since_epoch().as_secs_f64() - time).max(0.0)),
            dead_letters: queue("ticketlog_queue_messages", "\"dead_letter\""),
            parked: queue("ticketlog_queue_messages", "\"parked\""),
            ledger,
            unpublished: now.value("ticketlog_dead_letters_waiting", ""),
        }
    }

    /// Seconds until the backlog is empty at the present rates.
    pub fn drains_in(&self) -> Option<f64> {
        let (backlog, stored) = (self.backlog?, self.stored?);
        (backlog > 0.0 && stored > 0.0).then(|| backlog / stored)
    }
}
