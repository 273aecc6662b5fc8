//! Owns what the engine does with outcomes: verdicts of the store and confirmed dead letters become settled deliveries,
//! counted when they are known. Must not know deliveries in and acks out.

use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::event::Stage;
use crate::metrics::Outcome;

use super::super::breaker::suspect;
use super::super::dead_lettering::Letter;
use super::super::intake::{Pending, now_millis};
use super::super::writing::Verdict;
use super::{Engine, Written};

impl Engine<'_> {
    /// Takes the verdicts of a batch.
    pub(super) fn apply(&mut self, written: Written) {
        let now = Instant::now();
        self.context.writing.store(self.writes.len(), Ordering::Relaxed);
        for (_, verdict) in &written {
            match verdict {
                Verdict::Rejected(rejection) if suspect(rejection.reason) => {
                    self.breaker.note(now, Stage::Store, false);
                    self.suspicion = Some(rejection.clone());
                }
                Verdict::Rejected(_) => {}
                Verdict::Stored | Verdict::Duplicate => self.breaker.note(now, Stage::Store, true),
            }
        }
        self.judge(now);
        let millis = now_millis() as f64;
        if written.iter().any(|(_, verdict)| *verdict == Verdict::Stored) {
            self.context.recorders.stored_now();
        }
        for (pending, verdict) in written {
            match verdict {
                Verdict::Stored => {
                    self.note_latency(&pending, millis);
                    self.settle_event(&pending, Outcome::Stored);
                }
                Verdict::Duplicate => self.settle_event(&pending, Outcome::Duplicate),
                Verdict::Rejected(rejection) if self.breaker.open().is_some() && suspect(rejection.reason) => {
                    self.held_events.push_back((pending, rejection));
                }
                Verdict::Rejected(rejection) => {
                    self.session.released(pending.document.as_bytes().len());
                    self.letters.push(Letter::new(&self.context, pending.delivery, &rejection));
                }
            }
        }
        self.count();
    }

    /// Notes how long an event took. What was replayed took as long as its operator did, and does not count.
    fn note_latency(&mut self, pending: &Pending, millis: f64) {
        if pending.delivery.replay(&self.context.logins).is_some() {
            return;
        }
        let event = pending.time.map(|time| (millis - time) / 1000.0);
        let published = pending.delivery.timestamp().map(|seconds| millis / 1000.0 - seconds as f64);
        self.context.recorders.stored_after(event, published);
        self.ahead.0 = self.ahead.0.max(event.map_or(0.0, |seconds| -seconds));
    }

    fn settle_event(&mut self, pending: &Pending, outcome: Outcome) {
        if let Some(replay) = pending.delivery.replay(&self.context.logins) {
            self.context.recent.replayed(&replay.id, outcome, None);
        }
        self.settle(pending.delivery.tag, pending.bytes(), outcome);
    }

    pub(super) fn confirm(&mut self, letters: Vec<Letter>) {
        for letter in letters {
            if let Some(replay) = &letter.replay {
                self.context.recent.replayed(replay, Outcome::DeadLettered, Some(&letter.seen.cause));
            }
            self.context.recent.letter(letter.seen);
            self.settle(letter.tag, letter.bytes, Outcome::DeadLettered);
        }
        self.count();
    }

    fn settle(&mut self, tag: u64, bytes: usize, outcome: Outcome) {
        self.session.settle(tag, bytes);
        self.in_hand -= 1;
        if let Some(count) = self.tally.get_mut(outcome as usize) {
            *count += 1;
        }
    }

    /// Counts outcomes on both sides of the ledger at once, so that it balances at every scrape.
    fn count(&mut self) {
        for (outcome, count) in Outcome::ALL.into_iter().zip(std::mem::take(&mut self.tally)) {
            self.context.recorders.settled(outcome, count);
        }
        self.context.recorders.in_flight(self.in_hand);
    }
}
