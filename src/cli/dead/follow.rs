//! Owns `--follow`: asks the workers for the outcomes of a replay until all are known, and prints them. Must not know how it
//! was sent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::ProgressStyle;
use serde_json::Value;
use url::Url;

use crate::config::RouteSettings;
use crate::desk::{Outcomes, ask_workers};

use super::super::terminal::{note, print_line};
use super::super::terminal_report::progress;
use super::super::worker_address::own_worker;
use super::super::{CommandError, exit};

/// How often the workers are asked.
const INTERVAL: Duration = Duration::from_millis(250);

/// The outcomes reported by all workers together.
pub(super) struct FollowedReplay {
    outcomes: Outcomes,
    expected: u64,
}

/// Waits until `expected` messages of the replay have an outcome, or until no new outcome came for `patience`.
///
/// # Errors
/// No worker answers.
pub(super) async fn follow(
    settings: &RouteSettings,
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
    let mut replay = FollowedReplay { outcomes: Outcomes::default(), expected };
    let (mut last_change, mut any_answer) = (Instant::now(), false);
    loop {
        let outcomes = ask_workers(&workers, &settings.queue, replay_id).await;
        any_answer |= outcomes.answers > 0;
        let waiting = outcomes.not_ready.as_ref().map(|cause| format!("waiting: {cause}"));
        bar.set_message(waiting.unwrap_or_default());
        if replay.outcomes.outcomes != outcomes.outcomes {
            (replay.outcomes, last_change) = (outcomes, Instant::now());
        }
        bar.set_position(replay.outcomes.known());
        if replay.outcomes.known() >= expected || last_change.elapsed() >= patience {
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

impl FollowedReplay {
    fn unknown(&self) -> u64 {
        self.expected.saturating_sub(self.outcomes.known())
    }

    /// Prints one line, or adds the outcomes to `summary` and prints that.
    pub fn print(&self, summary: Option<Value>) -> Result<(), CommandError> {
        if let Some(mut summary) = summary {
            if let Value::Object(summary) = &mut summary {
                summary.insert("outcome".to_owned(), self.outcomes.to_json(self.expected));
            }
            return print_line(summary);
        }
        let outcomes = &self.outcomes.outcomes;
        let (count, causes) = (self.outcomes.dead_again(), causes_text(&outcomes.dead_again));
        let (stored, duplicate) = (outcomes.stored, outcomes.duplicate);
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
        match (self.unknown(), self.outcomes.dead_again()) {
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
