//! Owns `--follow`: asks the workers for the outcomes of a replay, and prints them. Must not know how it was sent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::ProgressStyle;
use serde_json::{Value, json};
use url::Url;

use crate::config::Settings;
use crate::dead_letter::escape;
use crate::http_client;
use crate::observe::status::ReplayOutcomes;

use super::super::batch_publisher::progress;
use super::super::terminal::{note, print_line};
use super::super::worker_address::own_worker;
use super::super::{CommandError, exit};

/// How often the workers are asked.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long a worker may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The outcomes reported by all workers together.
pub(super) struct FollowedReplay {
    outcomes: ReplayOutcomes,
    expected: u64,
}

/// Waits until `expected` messages of the replay have an outcome, or until no new outcome came for `patience`.
///
/// # Errors
/// No worker answers.
pub(super) async fn follow(
    settings: &Settings,
    workers: &[Url],
    replay_id: &str,
    expected: u64,
    patience: Duration,
) -> Result<FollowedReplay, CommandError> {
    let workers = if workers.is_empty() { vec![own_worker(settings)] } else { workers.to_vec() };
    let bar = progress(Some(expected), "settled");
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} settled  {msg}") {
        bar.set_style(style);
    }
    let mut replay = FollowedReplay { outcomes: ReplayOutcomes::default(), expected };
    let (mut last_change, mut any_answer) = (Instant::now(), false);
    loop {
        let (outcomes, answers, not_ready) = ask_workers(&workers, replay_id).await;
        any_answer |= answers > 0;
        bar.set_message(not_ready.map_or(String::new(), |cause| format!("waiting: {cause}")));
        if replay.outcomes != outcomes {
            (replay.outcomes, last_change) = (outcomes, Instant::now());
        }
        bar.set_position(replay.known());
        if replay.known() >= expected || last_change.elapsed() >= patience {
            break;
        }
        tokio::time::sleep(INTERVAL).await;
    }
    bar.finish_and_clear();
    if !any_answer {
        let addresses: Vec<String> = workers.iter().map(Url::to_string).collect();
        let text = format!(
            "everything was replayed, but no worker answers at {}; pass the HTTP address of a worker with --status URL",
            addresses.join(", ")
        );
        return Err(CommandError::text(exit::UNAVAILABLE, text));
    }
    Ok(replay)
}

/// The outcomes, the number of workers that answered, and why one of them is not ready.
async fn ask_workers(workers: &[Url], replay_id: &str) -> (ReplayOutcomes, usize, Option<String>) {
    let (mut sum, mut answers, mut not_ready) = (ReplayOutcomes::default(), 0, None);
    for worker in workers {
        let Ok(url) = worker.join("/status") else { continue };
        let Some((200, body)) = http_client::get(&url, None, None, TIMEOUT).await else { continue };
        answers += 1;
        let Ok(status) = serde_json::from_slice::<Value>(&body) else { continue };
        not_ready = not_ready.or_else(|| why_not_ready(&status));
        let Some(found) = status.get("replays").and_then(|replays| replays.get(replay_id)) else { continue };
        let Ok(outcomes) = serde_json::from_value::<ReplayOutcomes>(found.clone()) else { continue };
        sum.stored += outcomes.stored;
        sum.duplicate += outcomes.duplicate;
        for (cause, count) in outcomes.dead_again {
            *sum.dead_again.entry(cause).or_default() += count;
        }
    }
    (sum, answers, not_ready)
}

/// `worker not ready (store down)`; none if it is ready.
fn why_not_ready(status: &Value) -> Option<String> {
    let components = status.get("components")?.as_object()?;
    let down: Vec<&str> =
        components.iter().filter(|(_, state)| *state != "ok").map(|(name, _)| name.as_str()).collect();
    (!down.is_empty()).then(|| format!("worker not ready ({} down)", escape(&down.join(", "))))
}

impl FollowedReplay {
    fn dead_again(&self) -> u64 {
        self.outcomes.dead_again.values().sum()
    }

    fn known(&self) -> u64 {
        self.outcomes.stored + self.outcomes.duplicate + self.dead_again()
    }

    fn unknown(&self) -> u64 {
        self.expected.saturating_sub(self.known())
    }

    /// Prints one line, or adds the outcomes to `summary` and prints that.
    pub fn print(&self, summary: Option<Value>) -> Result<(), CommandError> {
        let ReplayOutcomes { stored, duplicate, dead_again } = &self.outcomes;
        if let Some(mut summary) = summary {
            if let Value::Object(summary) = &mut summary {
                let outcome = json!({
                    "stored": stored, "duplicate": duplicate, "dead_again": dead_again, "unknown": self.unknown(),
                });
                summary.insert("outcome".to_owned(), outcome);
            }
            return print_line(summary);
        }
        let (count, causes) = (self.dead_again(), causes_text(dead_again));
        print_line(format_args!("{stored} stored, {duplicate} already stored, {count} dead-lettered again{causes}"))?;
        if self.unknown() > 0 {
            note(format_args!(
                "{} without an outcome so far: still in the queue, at a worker that was not asked (--status URL), or not \
                 trusted by the workers (dead_letter.operators)",
                self.unknown()
            ));
        }
        Ok(())
    }

    /// 0 only if every outcome is known and nothing was dead-lettered again.
    pub fn exit_code(&self) -> u8 {
        match (self.unknown(), self.dead_again()) {
            (0, 0) => 0,
            (0, _) => exit::DATA,
            _ => exit::TEMPORARY,
        }
    }
}

fn causes_text(dead_again: &BTreeMap<String, u64>) -> String {
    if dead_again.is_empty() {
        return String::new();
    }
    let causes: Vec<String> = dead_again.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
    format!(" ({})", causes.join(", "))
}
