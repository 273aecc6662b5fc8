//! Follows a replay: asks the workers at `/status` what became of its messages, until all is known or nothing new comes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use url::Url;

use ticketlog_contract::dead_letter::escape;
use ticketlog_http::client as http_client;
use ticketlog_status::read_status;
use ticketlog_status::{ReplayOutcomes, RouteStatus};

/// How often the workers are asked.
const INTERVAL: Duration = Duration::from_millis(250);

/// Which replay to follow, and whom to ask.
#[derive(Debug)]
pub struct Follow<'a> {
    /// The HTTP addresses of workers. A name with several addresses stands for a worker at each.
    pub workers: &'a [Url],
    /// The queue of the workers.
    pub queue: &'a str,
    /// The replay.
    pub replay_id: &'a str,
    /// Number of messages that it has sent.
    pub expected: u64,
    /// How long to wait without a new outcome.
    pub patience: Duration,
}

/// What became of a replay, as far as the workers have told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Followed {
    /// By kind, of all workers together.
    pub outcomes: ReplayOutcomes,
    /// Number of messages that were replayed.
    pub expected: u64,
    /// Whether a worker has answered.
    pub is_answered: bool,
    /// Why one of them is not ready, such as `worker not ready (store down)`.
    pub not_ready: Option<String>,
    /// Whether all is known, or nothing new came for long enough.
    pub is_over: bool,
}

impl Follow<'_> {
    /// Follows it to its end. `on_answer` gets what is known, as often as the workers are asked.
    pub async fn run(&self, mut on_answer: impl FnMut(&Followed)) -> Followed {
        let mut known = Followed { expected: self.expected, ..Followed::default() };
        let mut last_news = Instant::now();
        loop {
            if known.learn(self.ask().await) {
                last_news = Instant::now();
            }
            known.is_over = known.unknown() == 0 || last_news.elapsed() >= self.patience;
            on_answer(&known);
            if known.is_over {
                return known;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// What the workers say now.
    pub(super) async fn ask(&self) -> Followed {
        let mut all = Followed { expected: self.expected, ..Followed::default() };
        for worker in http_client::at_all_addresses(self.workers).await {
            let Some(status) = read_status(&worker).await else { continue };
            all.is_answered = true;
            all.not_ready = all.not_ready.or_else(|| why_not_ready(status.route_of_queue(self.queue)));
            // A replay goes to the exchange, and its messages may belong to another route.
            status.routes().for_each(|route| all.add(route, self.replay_id));
        }
        all
    }
}

impl Followed {
    /// Number of messages that were dead-lettered again.
    pub fn dead_lettered_again(&self) -> u64 {
        self.outcomes.dead_lettered_again.values().sum()
    }

    /// Number of messages with an outcome.
    pub fn known(&self) -> u64 {
        self.outcomes.stored + self.outcomes.duplicate + self.dead_lettered_again()
    }

    /// Number of messages without an outcome.
    pub fn unknown(&self) -> u64 {
        self.expected.saturating_sub(self.known())
    }

    /// Takes over an answer that has more outcomes; whether it has. One with fewer is of workers that did not all answer.
    pub(super) fn learn(&mut self, answer: Followed) -> bool {
        let is_news = answer.known() > self.known();
        self.is_answered |= answer.is_answered;
        self.not_ready = answer.not_ready;
        if is_news {
            self.outcomes = answer.outcomes;
        }
        is_news
    }

    /// Adds what one route of a worker says.
    fn add(&mut self, status: &RouteStatus, replay_id: &str) {
        let Some(found) = status.replays.get(replay_id) else { return };
        self.outcomes.stored += found.stored;
        self.outcomes.duplicate += found.duplicate;
        for (cause, count) in &found.dead_lettered_again {
            *self.outcomes.dead_lettered_again.entry(cause.clone()).or_default() += count;
        }
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let ReplayOutcomes { stored, duplicate, dead_lettered_again } = &self.outcomes;
        json!({ "stored": stored, "duplicate": duplicate, "dead_lettered_again": dead_lettered_again, "unknown": self.unknown() })
    }

    /// As a sentence.
    pub fn to_text(&self) -> String {
        let ReplayOutcomes { stored, duplicate, dead_lettered_again } = &self.outcomes;
        let causes: Vec<String> = dead_lettered_again.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
        let causes = if causes.is_empty() { String::new() } else { format!(" ({})", causes.join(", ")) };
        format!(
            "{stored} stored, {duplicate} already stored, {} dead-lettered again{causes}",
            self.dead_lettered_again()
        )
    }
}

/// `worker not ready (store down)`; `None` if it is ready.
fn why_not_ready(status: &RouteStatus) -> Option<String> {
    let down: Vec<&str> = status.components().1.into_iter().map(|(name, _)| name).collect();
    (!down.is_empty()).then(|| format!("worker not ready ({} down)", escape(&down.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_fewer_outcomes_is_no_news() {
        let answer = |stored, is_answered| {
            let outcomes = ReplayOutcomes { stored, ..ReplayOutcomes::default() };
            Followed { outcomes, expected: 5, is_answered, ..Followed::default() }
        };
        let mut known = answer(0, false);
        let news = [(2, true), (1, true), (0, false), (2, true), (3, true), (0, false)];
        let news = news.map(|(stored, is_answered)| known.learn(answer(stored, is_answered)));
        assert_eq!(news, [true, false, false, false, true, false]);
        assert!(known.is_answered && known.outcomes.stored == 3 && known.unknown() == 2, "{known:?}");
    }
}
