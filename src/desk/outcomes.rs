//! Owns what became of a replay, as the workers tell at `/status`. Must not know how it was sent.

use serde_json::{Value, json};
use url::Url;

use crate::dead_letter::escape;
use crate::http_client;
use crate::observe::worker_sample::read_status;
use crate::observe::worker_status::{ReplayOutcomes, RouteStatus};

/// The outcomes that all workers together report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// By kind.
    pub outcomes: ReplayOutcomes,
    /// Number of workers that answered.
    pub answers: usize,
    /// Why one of them is not ready, such as `worker not ready (store down)`.
    pub not_ready: Option<String>,
}

impl Outcomes {
    /// Number of messages that were dead-lettered again.
    pub fn dead_again(&self) -> u64 {
        self.outcomes.dead_again.values().sum()
    }

    /// Number of messages with an outcome.
    pub fn known(&self) -> u64 {
        self.outcomes.stored + self.outcomes.duplicate + self.dead_again()
    }

    /// Adds what one route of a worker says.
    fn add(&mut self, status: &RouteStatus, replay_id: &str) {
        let Some(found) = status.replays.get(replay_id) else { return };
        self.outcomes.stored += found.stored;
        self.outcomes.duplicate += found.duplicate;
        for (cause, count) in &found.dead_again {
            *self.outcomes.dead_again.entry(cause.clone()).or_default() += count;
        }
    }

    /// As JSON; `expected` is the number of messages that were replayed.
    pub fn to_json(&self, expected: u64) -> Value {
        let ReplayOutcomes { stored, duplicate, dead_again } = &self.outcomes;
        let unknown = expected.saturating_sub(self.known());
        json!({ "stored": stored, "duplicate": duplicate, "dead_again": dead_again, "unknown": unknown })
    }
}

/// Asks the workers of a queue once. A name with several addresses stands for a worker at each.
pub async fn ask_workers(workers: &[Url], queue: &str, replay_id: &str) -> Outcomes {
    let mut all = Outcomes::default();
    for worker in http_client::at_all_addresses(workers).await {
        let Some(status) = read_status(&worker).await else { continue };
        all.answers += 1;
        all.not_ready = all.not_ready.or_else(|| why_not_ready(status.route_of_queue(queue)));
        // A replay goes to the exchange, and its messages may belong to another route.
        status.routes().for_each(|route| all.add(route, replay_id));
    }
    all
}

/// `worker not ready (store down)`; none if it is ready.
fn why_not_ready(status: &RouteStatus) -> Option<String> {
    let down: Vec<&str> = status.components().1.into_iter().map(|(name, _)| name).collect();
    (!down.is_empty()).then(|| format!("worker not ready ({} down)", escape(&down.join(", "))))
}
