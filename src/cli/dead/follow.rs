//! Owns `--follow`: what the workers say became of a replay. Must not know how it was sent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use url::Url;

use crate::config::Settings;
use crate::fetch;
use crate::recent::Tally;

use super::super::Fault;
use super::super::carrier::progress;
use super::{note, say};

/// How often workers are asked, and how long an answer may take.
const PAUSE: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(3);

/// The outcomes of all workers together.
pub(super) struct Outcome {
    tally: Tally,
    expected: u64,
}

/// Waits until `expected` messages of the replay have an outcome, or until there is no news for `patience`.
///
/// # Errors
/// No worker answers at all.
pub(super) async fn follow(
    settings: &Settings,
    workers: &[Url],
    replay: &str,
    expected: u64,
    patience: Duration,
) -> Result<Outcome, Fault> {
    let own = Url::parse(&format!("http://{}", settings.http.listen));
    let workers = if workers.is_empty() { own.into_iter().collect() } else { workers.to_vec() };
    let bar = progress(Some(expected), "settled");
    let mut outcome = Outcome { tally: Tally::default(), expected };
    let (mut news, mut heard) = (Instant::now(), false);
    loop {
        let (tally, answers) = ask(&workers, replay).await;
        heard |= answers > 0;
        if outcome.tally != tally {
            (outcome.tally, news) = (tally, Instant::now());
        }
        bar.set_position(outcome.known());
        if outcome.known() >= expected || news.elapsed() >= patience {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    bar.finish_and_clear();
    if !heard {
        let named: Vec<String> = workers.iter().map(Url::to_string).collect();
        let text = format!(
            "everything was replayed, but no worker answers at {}; name its http address with --status URL",
            named.join(", ")
        );
        return Err(Fault::new(69, anyhow::Error::msg(text)));
    }
    Ok(outcome)
}

async fn ask(workers: &[Url], replay: &str) -> (Tally, usize) {
    let (mut sum, mut answers) = (Tally::default(), 0);
    for worker in workers {
        let Ok(url) = worker.join("/status") else { continue };
        let Some((200, body)) = fetch::get(&url, None, PATIENCE).await else { continue };
        answers += 1;
        let Ok(status) = serde_json::from_slice::<Value>(&body) else { continue };
        let Some(found) = status.get("replays").and_then(|replays| replays.get(replay)) else { continue };
        let Ok(tally) = serde_json::from_value::<Tally>(found.clone()) else { continue };
        sum.stored += tally.stored;
        sum.duplicate += tally.duplicate;
        for (cause, count) in tally.dead_again {
            *sum.dead_again.entry(cause).or_default() += count;
        }
    }
    (sum, answers)
}

impl Outcome {
    fn dead(&self) -> u64 {
        self.tally.dead_again.values().sum()
    }

    fn known(&self) -> u64 {
        self.tally.stored + self.tally.duplicate + self.dead()
    }

    fn missing(&self) -> u64 {
        self.expected.saturating_sub(self.known())
    }

    /// One line, or one object together with `summary`.
    pub fn print(&self, summary: Option<Value>) -> Result<(), Fault> {
        let Tally { stored, duplicate, dead_again } = &self.tally;
        if let Some(mut summary) = summary {
            if let Value::Object(summary) = &mut summary {
                let outcome = json!({
                    "stored": stored, "duplicate": duplicate, "dead_again": dead_again, "unknown": self.missing(),
                });
                summary.insert("outcome".to_owned(), outcome);
            }
            return say(summary);
        }
        say(format_args!(
            "{stored} stored, {duplicate} already there, {} dead again{}",
            self.dead(),
            causes(dead_again)
        ))?;
        if self.missing() > 0 {
            note(format_args!(
                "{} not heard of yet: in the queue, with a worker that was not asked (--status URL), or \
                 not believed (dead_letter.operators)",
                self.missing()
            ));
        }
        Ok(())
    }

    /// 0 only if every one is known, and none dead again.
    pub fn code(&self) -> u8 {
        match (self.missing(), self.dead()) {
            (0, 0) => 0,
            (0, _) => 65,
            _ => 75,
        }
    }
}

fn causes(dead: &BTreeMap<String, u64>) -> String {
    if dead.is_empty() {
        return String::new();
    }
    let causes: Vec<String> = dead.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
    format!(" ({})", causes.join(", "))
}
