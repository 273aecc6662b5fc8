//! Owns what happens to bad messages on their way out of the engine: dead-lettered, or held back by the open breaker and
//! tried again. Must not know deliveries in and acks out.

use std::time::Instant;

use tracing::{error, info};

use crate::broker::Delivery;
use crate::event::{Rejection, Stage};
use crate::health::Part;
use crate::metrics;

use super::super::breaker::suspect;
use super::{Engine, Letter};

impl Engine<'_> {
    pub(super) fn reject_decoded(&mut self, rejected: Vec<(Delivery, Rejection)>, now: Instant) {
        if rejected.is_empty() {
            return;
        }
        for (_, rejection) in rejected.iter().filter(|(_, rejection)| suspect(rejection.reason)) {
            self.breaker.note(now, rejection.reason.stage(), false);
            self.suspicion = Some(rejection.clone());
        }
        self.judge(now);
        for (delivery, rejection) in rejected {
            let letter = Letter::new(&self.context, delivery, &rejection);
            if self.breaker.open().is_some() && suspect(letter.reason) {
                self.held_letters.push(letter);
            } else {
                self.letters.push(letter);
            }
        }
    }

    /// Opens or closes the breaker, and says so.
    pub(super) fn judge(&mut self, now: Instant) {
        if !self.breaker.judge(now) {
            return;
        }
        let open = self.breaker.open();
        metrics::breaker(open.is_some());
        if let Some(stage) = open {
            let who = if stage == Stage::Store {
                "MongoDB (a validator, a unique index?)"
            } else {
                "the decoder (event.fields, limits?)"
            };
            let text = format!("nearly all messages are refused by {who}; dead-lettering stops until some pass");
            let last = self.suspicion.as_ref();
            let reason = last.map_or("", |last| last.reason.as_str());
            let detail = last.map_or("", |last| last.detail.as_ref());
            error!(stage = stage.as_str(), reason, detail, "breaker open: {text}");
            self.context.health.down(Part::Breaker, text);
            return;
        }
        info!("breaker closed: messages pass again");
        self.context.health.up(Part::Breaker);
        for letter in self.held_letters.drain(..) {
            self.letters.push(letter);
        }
        self.try_held_again(usize::MAX);
    }

    /// Sends held events through the store once more: what refused them may have been mended.
    pub(super) fn try_held_again(&mut self, most: usize) {
        for (pending, _) in self.held_events.drain(..most.min(self.held_events.len())) {
            let bytes = pending.document.as_bytes().len();
            self.batcher.push(pending, bytes, Instant::now());
        }
    }
}
