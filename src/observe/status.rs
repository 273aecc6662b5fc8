//! What `/status` shows of the latest dead letters and replays: bounded, in memory, without payload.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ticketlog_contract::dead_letter::bounded;

use super::metrics::DeliveryOutcome;
use ticketlog_status::{DeadLetterSummary, ReplayOutcomes};

/// Number of dead letters kept.
const MAX_DEAD_LETTERS: usize = 50;
/// Number of replays kept, and of causes for each.
const MAX_REPLAYS: usize = 32;

#[derive(Debug, Default)]
struct Entries {
    dead_letters: VecDeque<DeadLetterSummary>,
    replays: VecDeque<(String, ReplayOutcomes)>,
}

/// The latest dead letters and replays.
#[derive(Debug, Default)]
pub struct RecentActivity {
    entries: Mutex<Entries>,
}

impl RecentActivity {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a dead letter.
    pub fn add_dead_letter(&self, summary: DeadLetterSummary) {
        let mut entries = self.lock();
        entries.dead_letters.truncate(MAX_DEAD_LETTERS - 1);
        entries.dead_letters.push_front(summary);
    }

    /// Adds the outcome of a replayed message, with the cause if it is dead-lettered again. Further causes than the maximum
    /// are counted as `(other)`.
    pub fn add_replay_outcome(&self, replay_id: &str, outcome: DeliveryOutcome, cause: Option<&str>) {
        let mut entries = self.lock();
        let known = entries.replays.iter().position(|(id, _)| id == replay_id);
        let entry = known.and_then(|at| entries.replays.remove(at));
        let entry = entry.unwrap_or_else(|| (replay_id.to_owned(), ReplayOutcomes::default()));
        entries.replays.truncate(MAX_REPLAYS - 1);
        entries.replays.push_front(entry);
        let Some((_, outcomes)) = entries.replays.front_mut() else { return };
        match outcome {
            DeliveryOutcome::Stored => outcomes.stored += 1,
            DeliveryOutcome::Duplicate => outcomes.duplicate += 1,
            DeliveryOutcome::DeadLettered => {
                *bounded(&mut outcomes.dead_lettered_again, cause.unwrap_or_default(), MAX_REPLAYS) += 1;
            }
            DeliveryOutcome::Returned => {}
        }
    }

    /// Outcomes by replay id.
    pub fn replays(&self) -> BTreeMap<String, ReplayOutcomes> {
        self.lock().replays.iter().cloned().collect()
    }

    /// The last dead letters, newest first.
    pub fn dead_letters(&self) -> Vec<DeadLetterSummary> {
        self.lock().dead_letters.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_latest_within_bounds() {
        let recent = RecentActivity::default();
        for n in 0..100 {
            let summary =
                DeadLetterSummary { id: n.to_string(), time: n, cause: "too_deep".into(), detail: String::new() };
            recent.add_dead_letter(summary);
            recent.add_replay_outcome(&format!("r{n}"), DeliveryOutcome::Stored, None);
            recent.add_replay_outcome("steady", DeliveryOutcome::DeadLettered, Some(&format!("cause {n}")));
        }
        recent.add_replay_outcome("steady", DeliveryOutcome::Duplicate, None);
        let dead_letters = recent.dead_letters();
        assert_eq!((dead_letters.len(), dead_letters[0].id.as_str()), (MAX_DEAD_LETTERS, "99"));
        let replays = recent.replays();
        assert_eq!(replays.len(), MAX_REPLAYS);
        let steady = &replays["steady"];
        assert_eq!(
            (steady.duplicate, steady.dead_lettered_again.len(), steady.dead_lettered_again["(other)"]),
            (1, MAX_REPLAYS + 1, 68)
        );
        assert_eq!(replays["r99"], ReplayOutcomes { stored: 1, ..ReplayOutcomes::default() });
    }
}
