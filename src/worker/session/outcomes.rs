//! Owns what the session loop does with outcomes of documents and of dead letters: deliveries are settled and counted, and
//! rejected ones are dead-lettered, or held while the breaker is open. Must not know how deliveries arrive or acks are sent.

use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::{error, info};

use crate::event::Rejection;
use crate::observe::health::Component;
use crate::observe::metrics::{self, DeliveryOutcome};
use crate::rabbitmq::Delivery;

use super::super::batch_progress::DocumentOutcome;
use super::super::breaker::Breaker;
use super::super::dead_letters::PendingDeadLetter;
use super::super::decode::PendingEvent;
use super::{SessionLoop, WrittenBatch};

impl SessionLoop<'_> {
    /// Applies the outcomes of a batch. The breaker sees all of them before any becomes a dead letter.
    pub(super) fn apply_outcomes(&mut self, batch: WrittenBatch) {
        self.context.writes_in_flight.store(self.writes.len(), Ordering::Relaxed);
        for (_, outcome) in &batch {
            match outcome {
                DocumentOutcome::Rejected(rejection) if Breaker::counts(rejection.reason) => {
                    self.breaker.record(true);
                    self.quarantine.note(rejection);
                }
                DocumentOutcome::Rejected(_) => {}
                DocumentOutcome::Stored | DocumentOutcome::Duplicate => self.breaker.record(false),
            }
        }
        self.evaluate_breaker();
        if batch.iter().any(|(_, outcome)| *outcome == DocumentOutcome::Stored) {
            self.context.metrics.stored_now();
        }
        for (pending, outcome) in batch {
            match outcome {
                DocumentOutcome::Stored => {
                    self.accounting.stored(&pending);
                    self.settle_event(&pending, DeliveryOutcome::Stored);
                }
                DocumentOutcome::Duplicate => self.settle_event(&pending, DeliveryOutcome::Duplicate),
                DocumentOutcome::Rejected(rejection) if self.breaker.is_open() && Breaker::counts(rejection.reason) => {
                    self.quarantine.hold(pending);
                }
                DocumentOutcome::Rejected(rejection) => {
                    self.session.resized(pending.document_bytes(), 0);
                    self.dead_letter(pending.delivery, &rejection);
                }
            }
        }
        self.accounting.publish_outcomes();
    }

    /// Makes the dead letter of a rejected delivery.
    pub(super) fn dead_letter(&mut self, delivery: Delivery, rejection: &Rejection) {
        let bytes = delivery.bytes();
        let letter = PendingDeadLetter::new(&self.context, delivery, rejection);
        self.session.resized(bytes, letter.bytes);
        self.spans.rejected(&letter, &self.context.settings.get().dead_letter.exchange);
        self.dead_letters.push(letter);
    }

    /// Settles the deliveries whose dead letters are confirmed.
    pub(super) fn apply_confirmed(&mut self, confirmed: Vec<PendingDeadLetter>) {
        for dead_letter in confirmed {
            let recent = &self.context.recent;
            if let Some(replay_id) = &dead_letter.replay_id {
                let cause = Some(dead_letter.summary.cause.as_str());
                recent.add_replay_outcome(replay_id, DeliveryOutcome::DeadLettered, cause);
                metrics::replayed(DeliveryOutcome::DeadLettered);
            }
            recent.add_dead_letter(dead_letter.summary);
            self.settle(dead_letter.tag, dead_letter.bytes, DeliveryOutcome::DeadLettered);
        }
        self.accounting.publish_outcomes();
    }

    fn settle_event(&mut self, pending: &PendingEvent, outcome: DeliveryOutcome) {
        if let Some(replay) = pending.delivery.replay_mark(&self.context.trusted_users.get()) {
            self.context.recent.add_replay_outcome(&replay.id, outcome, None);
            metrics::replayed(outcome);
        }
        self.settle(pending.delivery.tag, pending.bytes(), outcome);
    }

    fn settle(&mut self, tag: u64, bytes: usize, outcome: DeliveryOutcome) {
        self.session.settle(tag, bytes);
        self.spans.settled(tag, outcome);
        self.accounting.settled(outcome);
    }

    /// Opens or closes the breaker, and reports the change.
    fn evaluate_breaker(&mut self) {
        if !self.breaker.evaluate() {
            return;
        }
        metrics::set_breaker(self.breaker.is_open());
        if self.breaker.is_open() {
            let text = "MongoDB rejects nearly all events; is there a validator or a unique index? They are held, not \
                        dead-lettered, until some are accepted";
            let (reason, detail) = self.quarantine.last_rejection();
            error!(reason, detail, "breaker open: {text}");
            self.context.health.down(Component::Breaker, text);
            return;
        }
        info!("breaker closed: MongoDB accepts events again");
        self.context.health.up(Component::Breaker);
        let held = self.quarantine.take_all();
        self.write_again(held);
    }

    /// Puts held events back into the batcher.
    pub(super) fn write_again(&mut self, held: Vec<PendingEvent>) {
        let now = Instant::now();
        for pending in held {
            let bytes = pending.document_bytes();
            self.batcher.push(pending, bytes, now);
        }
    }
}
