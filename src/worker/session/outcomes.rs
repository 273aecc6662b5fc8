//! Owns what the session loop does with outcomes of documents and of dead letters: deliveries are settled and counted, and
//! rejected ones are dead-lettered, or held while the breaker is open.

use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::{error, info};

use crate::observe::metrics::{self, DeliveryOutcome};
use ticketlog_contract::Rejection;
use ticketlog_rabbitmq::Delivery;
use ticketlog_status::Component;

use super::super::batch_progress::DocumentOutcome;
use super::super::breaker::Breaker;
use super::super::dead_letters::PendingDeadLetter;
use super::super::decode::PendingEvent;
use super::quarantine::Probe;
use super::{SessionLoop, WrittenBatch};

impl SessionLoop<'_> {
    /// Applies the outcomes of a batch. The breaker sees all of them before any becomes a dead letter.
    pub(super) fn apply_outcomes(&mut self, batch: WrittenBatch) {
        self.context.writes_in_flight.store(self.writes.len(), Ordering::Relaxed);
        batch.iter().for_each(|(pending, outcome)| self.vote(pending, outcome));
        self.evaluate_breaker();
        let any_stored = batch.iter().any(|(_, outcome)| *outcome == DocumentOutcome::Stored);
        if batch.iter().any(|(it, outcome)| *outcome == DocumentOutcome::Stored && !it.delivery.is_smoke_test()) {
            self.context.metrics.stored_now();
        }
        let mut probe = None;
        for (pending, outcome) in batch {
            let is_refusal =
                matches!(&outcome, DocumentOutcome::Rejected(rejection) if Breaker::counts(rejection.reason));
            probe = self.quarantine.probed(&pending, is_refusal).or(probe);
            match outcome {
                DocumentOutcome::Stored => {
                    self.accounting.stored(&pending);
                    self.settle_event(&pending, DeliveryOutcome::Stored);
                }
                DocumentOutcome::Duplicate => self.settle_event(&pending, DeliveryOutcome::Duplicate),
                DocumentOutcome::Rejected(rejection) => self.rejected(pending, rejection),
            }
        }
        if self.breaker.is_open() {
            self.review_held(any_stored, probe == Some(Probe::Passed));
        }
        self.accounting.publish_outcomes();
    }

    /// One event has one vote, however often it is tried. A replayed message has none: it was a dead letter before. Its mark
    /// need not be trusted here, because a forged one only makes its own message a dead letter.
    fn vote(&mut self, pending: &PendingEvent, outcome: &DocumentOutcome) {
        let is_rejected = match outcome {
            DocumentOutcome::Rejected(rejection) if !Breaker::counts(rejection.reason) => return,
            DocumentOutcome::Rejected(rejection) => {
                self.last_rejection = Some(rejection.clone());
                true
            }
            DocumentOutcome::Stored | DocumentOutcome::Duplicate => false,
        };
        if pending.held.is_none() && !pending.delivery.claims_replay() {
            self.breaker.vote(pending.id, is_rejected);
        }
    }

    /// Dead-letters a rejected event, or holds it while the breaker is open. A replayed one is never held: it becomes the dead
    /// letter that it was.
    fn rejected(&mut self, pending: PendingEvent, rejection: Rejection) {
        let is_held = self.breaker.is_open() && Breaker::counts(rejection.reason) && !pending.delivery.claims_replay();
        let event = (pending, rejection);
        let given_back =
            if is_held { self.quarantine.hold(event, self.hold_limit(), Instant::now()) } else { Some(event) };
        if let Some((pending, rejection)) = given_back {
            self.session.resized(pending.document_bytes(), 0);
            self.dead_letter(pending.delivery, &rejection);
        }
    }

    /// Half of the prefetch of a queue: the other half is for the events behind those that are held.
    fn hold_limit(&self) -> usize {
        usize::from(self.session.prefetch_of_a_queue()) / 2
    }

    /// While the breaker is open: closes it, tries more of the held events, or dead-letters those that others would wait for.
    fn review_held(&mut self, any_stored: bool, probe_passed: bool) {
        if self.quarantine.len() == 0 && (any_stored || probe_passed) {
            self.breaker.close();
            self.report_breaker();
        } else if probe_passed {
            self.probe_held(Instant::now());
        } else if any_stored {
            // MongoDB accepts others, so that these are at fault.
            for (pending, rejection) in self.quarantine.take_excess(self.hold_limit()) {
                self.session.resized(pending.document_bytes(), 0);
                self.dead_letter(pending.delivery, &rejection);
            }
        }
    }

    /// Tries some of the held events again, if it is time.
    pub(super) fn probe_held(&mut self, now: Instant) {
        let probe = self.quarantine.take_probe(now);
        self.write_again(probe);
    }

    /// Makes the dead letter of a rejected delivery.
    pub(super) fn dead_letter(&mut self, delivery: Delivery, rejection: &Rejection) {
        let bytes = delivery.bytes();
        let dead_letter = PendingDeadLetter::new(&self.context, delivery, rejection);
        self.session.resized(bytes, dead_letter.bytes);
        self.spans.rejected(&dead_letter, &self.context.settings.dead_letter.exchange);
        self.dead_letters.push(dead_letter);
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
        if let Some(replay) = pending.delivery.replay_mark() {
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

    /// Nothing is held or on its way: a worker without traffic does not stay unready because of what it rejected last.
    pub(super) fn review_idle_breaker(&mut self) {
        if self.accounting.in_flight() == 0 && self.breaker.half_open() {
            metrics::set_breaker(false);
            self.context.health.up(Component::Breaker);
            info!("breaker half-open: nothing is held any more; the next event shows whether MongoDB accepts events");
        }
    }

    /// Opens or closes the breaker, if the votes say so.
    fn evaluate_breaker(&mut self) {
        if self.breaker.evaluate() {
            self.report_breaker();
        }
    }

    /// Reports that the breaker has opened or closed. When it closes, everything that is held is written again.
    fn report_breaker(&mut self) {
        metrics::set_breaker(self.breaker.is_open());
        if self.breaker.is_open() {
            let text = "MongoDB rejects nearly all events; is there a validator or a unique index? They are held for a while, \
                        and become dead letters only if MongoDB still rejects them then";
            let last = self.last_rejection.as_ref();
            let (reason, detail) = (last.map(|last| last.reason.as_str()), last.map(|last| last.detail.as_ref()));
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
    fn write_again(&mut self, held: Vec<PendingEvent>) {
        let now = Instant::now();
        for pending in held {
            let bytes = pending.document_bytes();
            self.batcher.push(pending, bytes, now);
        }
    }
}
