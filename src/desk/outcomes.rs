//! Owns what became of a replay, as the workers tell at `/status`. Must not know how it was sent.

use std::time::Duration;

use serde_json::{Value, json};
use url::Url;

use crate::dead_letter::escape;
use crate::http_client;
use crate::observe::status::ReplayOutcomes;
use crate::observe::worker_sample::{route_statuses, status_of_queue};

/// How long a worker may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

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
    fn add(&mut self, status: &Value, replay_id: &str) {
        let found = status.get("replays").and_then(|replays| replays.get(replay_id));
        let Some(Ok(found)) = found.cloned().map(serde_json::from_value::<ReplayOutcomes>) else { return };
        self.outcomes.stored += found.stored;
        self.outcomes.duplicate += found.duplicate;
        for (cause, count) in found.dead_again {
            *self.outcomes.dead_again.entry(cause).or_default() += count;
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
        let Ok(url) = worker.join("/status") else { continue };
        let Some((200, body)) = http_client::get(&url, None, None, TIMEOUT).await else { continue };
        all.answers += 1;
        let Ok(status) = serde_json::from_slice::<Value>(&body) else { continue };
        all.not_ready = all.not_ready.or_else(|| why_not_ready(status_of_queue(&status, queue)));
        // A replay goes to the exchange, and its messages may belong to another route.
        route_statuses(&status).for_each(|status| all.add(status, replay_id));
    }
    all
}

/// `worker not ready (store down)`; none if it is ready.
fn why_not_ready(status: &Value) -> Option<String> {
    let components = status.get("components")?.as_object()?;
    let down: Vec<&str> =
        components.iter().filter(|(_, state)| *state != "ok").map(|(name, _)| name.as_str()).collect();
    (!down.is_empty()).then(|| format!("worker not ready ({} down)", escape(&down.join(", "))))
}
