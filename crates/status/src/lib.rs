//! The JSON of `/status`: the worker writes it; `ticketlog status`, the console and `dead replay --follow` read it.

mod component;
mod sample;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use component::Component;
pub use sample::{NoStatus, PerSecond, RouteRates, Sample, read_status};

/// The state of a component that is up.
pub const UP: &str = "ok";

/// What a worker says about itself. Missing fields have their defaults, so that workers of other versions can be read.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerStatus {
    /// The id of the process, which changes with every start. Empty: a worker of 0.2.0 or older.
    pub process: String,
    /// Of the process, on its host; 0 if it does not say.
    pub pid: u32,
    /// Of the program.
    pub version: String,
    /// Since the start.
    pub uptime_seconds: u64,
    /// The first route, as if it were the only one.
    #[serde(flatten)]
    pub first: RouteStatus,
    /// The further ones.
    #[serde(rename = "routes")]
    pub others: Vec<RouteStatus>,
}

/// What a worker says about one of its routes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteStatus {
    /// Its name.
    pub route: String,
    /// Whether all of its components are up.
    pub ready: bool,
    /// For each component: `ok`, or its problem.
    pub components: BTreeMap<String, String>,
    /// What endangers messages, but not readiness.
    pub warnings: Vec<String>,
    /// The queue that is consumed.
    pub queue: String,
    /// The collection that is written to, as `database.collection`.
    pub collection: String,
    /// `None`: a worker of 0.2.0 or older, which does not tell them here.
    pub numbers: Option<RouteNumbers>,
    /// The outcomes of the latest replays, by replay id.
    pub replays: BTreeMap<String, ReplayOutcomes>,
    /// The latest dead letters, newest first.
    pub last_dead_letters: Vec<DeadLetterSummary>,
    /// Stored events that are probably mistakes, the most frequent first.
    pub suspect_events: Vec<SuspectEvents>,
}

/// What is counted of one route since the start of the process. `received` is the sum of the four outcomes and `in_flight`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteNumbers {
    /// Deliveries.
    pub received: u64,
    /// Deliveries whose document was written.
    pub stored: u64,
    /// Deliveries whose document was stored before.
    pub duplicate: u64,
    /// Deliveries whose dead letter is confirmed.
    pub dead_lettered: u64,
    /// Deliveries that went back to the queue.
    pub returned: u64,
    /// Deliveries without an outcome.
    pub in_flight: u64,
    /// Rejected messages whose dead letter is not confirmed yet.
    pub unpublished: u64,
    /// Messages that are ready in the queue; `None` while unknown, as the following three.
    pub backlog: Option<u32>,
    /// Consumers of the queue, of all workers together.
    pub consumers: Option<u32>,
    /// Messages that are ready in the dead-letter queue.
    pub dead_letters: Option<u32>,
    /// Messages that are ready in the parked queue.
    pub parked: Option<u32>,
    /// Since the last document was stored; `None` before the first.
    pub seconds_since_stored: Option<f64>,
    /// How long events took, from their own time until they were durable.
    pub event_to_stored_seconds: Vec<LatencyBucket>,
}

/// Events by how long they took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LatencyBucket {
    /// They took longer than in the bucket before and at most this many seconds; `None`: any longer time.
    pub up_to: Option<f64>,
    /// How many events.
    pub count: u64,
}

/// A dead letter, as far as `/status` shows it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeadLetterSummary {
    /// `dl-id`.
    pub id: String,
    /// Milliseconds since 1970.
    pub time: i64,
    /// Reason and field.
    pub cause: String,
    /// What exactly is wrong; holds no value of the message.
    pub detail: String,
}

/// Events of a publisher in which the same was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SuspectEvents {
    /// What was found, such as `timestamp_unit`.
    pub kind: String,
    /// `app_id`, or else `user_id`; `other` for those beyond the first twenty.
    pub publisher: String,
    /// Since the start.
    pub count: u64,
}

/// What became of the messages of one replay, as far as this worker received them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayOutcomes {
    /// Stored.
    pub stored: u64,
    /// An equal document was stored already.
    pub duplicate: u64,
    /// Dead-lettered again, by reason and field.
    #[serde(alias = "dead_again")]
    pub dead_lettered_again: BTreeMap<String, u64>,
}

impl WorkerStatus {
    /// All routes, the first one first.
    pub fn routes(&self) -> impl Iterator<Item = &RouteStatus> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The route that consumes this queue; the first one if there is none.
    pub fn route_of_queue(&self, queue: &str) -> &RouteStatus {
        self.routes().find(|route| route.queue == queue).unwrap_or(&self.first)
    }

    /// Whether all routes are ready.
    pub fn is_ready(&self) -> bool {
        self.routes().all(|route| route.ready)
    }
}

impl RouteStatus {
    /// The components that are up, and those that are not with their problems.
    pub fn components(&self) -> (Vec<&str>, Vec<(&str, &str)>) {
        let all = self.components.iter().map(|(name, state)| (name.as_str(), state.as_str()));
        let (up, down): (Vec<_>, Vec<_>) = all.partition(|(_, state)| *state == UP);
        (up.into_iter().map(|(name, _)| name).collect(), down)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_of_another_version_can_be_read() {
        // As 0.2.0 writes it.
        let old = r#"{ "version": "0.2.0", "uptime_seconds": 5, "ready": true, "components": { "store": "ok", "broker": "gone" },
            "warnings": [], "queue": "q", "collection": "d.c", "replays": { "r": { "stored": 1, "duplicate": 0, "dead_again": { "x": 2 } } },
            "last_dead_letters": [] }"#;
        let old: WorkerStatus = serde_json::from_str(old).unwrap();
        assert_eq!((old.process.as_str(), old.uptime_seconds, old.is_ready()), ("", 5, true));
        assert_eq!((old.first.queue.as_str(), &old.first.numbers, old.others.len()), ("q", &None, 0));
        assert_eq!(
            (old.first.replays["r"].dead_lettered_again["x"], old.first.components()),
            (2, (vec!["store"], vec![("broker", "gone")]))
        );
        let newer =
            r#"{ "process": "p", "numbers": { "received": 7, "new": 1 }, "new": [], "routes": [{ "queue": "r" }] }"#;
        let newer: WorkerStatus = serde_json::from_str(newer).unwrap();
        assert_eq!(newer.first.numbers.as_ref().unwrap().received, 7);
        assert_eq!((newer.route_of_queue("r").queue.as_str(), newer.is_ready()), ("r", false));
        assert_eq!(newer.route_of_queue("unknown").queue, "");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let bucket = |up_to, count| LatencyBucket { up_to, count };
        let event_to_stored_seconds = vec![bucket(Some(0.1), 2), bucket(None, 1)];
        let numbers =
            RouteNumbers { received: 3, backlog: Some(4), event_to_stored_seconds, ..RouteNumbers::default() };
        let first = RouteStatus { numbers: Some(numbers.clone()), ..RouteStatus::default() };
        let status = WorkerStatus { first: first.clone(), others: vec![first], ..WorkerStatus::default() };
        let read: WorkerStatus = serde_json::from_str(&serde_json::to_string(&status).unwrap()).unwrap();
        assert!(read.routes().count() == 2 && read.routes().all(|route| route.numbers.as_ref() == Some(&numbers)));
    }
}
