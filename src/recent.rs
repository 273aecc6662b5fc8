//! Owns what `/status` tells of the latest dead letters and replays: bounded, in memory, no payload. Written by the flow,
//! read by HTTP. Must not know either.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::metrics::{self, Outcome};

/// Dead letters remembered.
const LETTERS: usize = 50;
/// Replays remembered, and causes of death apiece.
const REPLAYS: usize = 32;

/// A dead letter as it was written.
#[derive(Debug, Clone, Serialize)]
pub struct Seen {
    /// `dl-id`.
    pub id: String,
    /// Milliseconds since 1970.
    pub time: i64,
    /// Reason and field.
    pub cause: String,
    /// What exactly is wrong; no value of the message.
    pub detail: String,
}

/// What became of the messages of one replay, as far as they came to this worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Tally {
    /// Stored.
    pub stored: u64,
    /// Equal documents were there already.
    pub duplicate: u64,
    /// Dead again, by reason and field.
    pub dead_again: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct Memory {
    letters: VecDeque<Seen>,
    replays: VecDeque<(String, Tally)>,
}

/// The latest of both.
#[derive(Debug, Default)]
pub struct Recent {
    memory: Mutex<Memory>,
}

impl Recent {
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a dead letter.
    pub fn letter(&self, seen: Seen) {
        let mut memory = self.lock();
        memory.letters.truncate(LETTERS - 1);
        memory.letters.push_front(seen);
    }

    /// Notes the outcome of a message of a replay; `cause` where it is dead again.
    pub fn replayed(&self, replay: &str, outcome: Outcome, cause: Option<&str>) {
        metrics::replayed(outcome);
        let mut memory = self.lock();
        let known = memory.replays.iter().position(|(id, _)| id == replay);
        let entry =
            known.and_then(|at| memory.replays.remove(at)).unwrap_or_else(|| (replay.to_owned(), Tally::default()));
        memory.replays.truncate(REPLAYS - 1);
        memory.replays.push_front(entry);
        let Some((_, tally)) = memory.replays.front_mut() else { return };
        match outcome {
            Outcome::Stored => tally.stored += 1,
            Outcome::Duplicate => tally.duplicate += 1,
            Outcome::DeadLettered => {
                let cause = cause.unwrap_or_default();
                let room = tally.dead_again.len() < REPLAYS || tally.dead_again.contains_key(cause);
                *tally.dead_again.entry(if room { cause } else { "(other)" }.to_owned()).or_default() += 1;
            }
            Outcome::Returned => {}
        }
    }

    /// Outcomes by replay.
    pub fn replays(&self) -> BTreeMap<String, Tally> {
        self.lock().replays.iter().cloned().collect()
    }

    /// The last dead letters, the newest first.
    pub fn letters(&self) -> Vec<Seen> {
        self.lock().letters.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_latest_within_bounds() {
        let recent = Recent::default();
        for n in 0..100 {
            recent.letter(Seen { id: n.to_string(), time: n, cause: "too_deep".into(), detail: String::new() });
            recent.replayed(&format!("r{n}"), Outcome::Stored, None);
            recent.replayed("steady", Outcome::DeadLettered, Some(&format!("cause {n}")));
        }
        recent.replayed("steady", Outcome::Duplicate, None);
        let letters = recent.letters();
        assert_eq!((letters.len(), letters[0].id.as_str()), (LETTERS, "99"));
        let replays = recent.replays();
        assert_eq!(replays.len(), REPLAYS);
        let steady = &replays["steady"];
        assert_eq!((steady.duplicate, steady.dead_again.len(), steady.dead_again["(other)"]), (1, REPLAYS + 1, 68));
        assert_eq!(replays["r99"], Tally { stored: 1, ..Tally::default() });
    }
}
