//! Owns the spans of the messages in flight, by delivery tag. Empty unless traces are exported. A span without an outcome when the
//! session ends says that its message was returned.

use std::collections::HashMap;

use crate::observe::metrics::DeliveryOutcome;
use crate::observe::traces::{BatchSpan, MessageSpan};
use ticketlog_config::RouteSettings;
use ticketlog_rabbitmq::Delivery;

use super::super::dead_letters::PendingDeadLetter;
use super::super::decode::PendingEvent;

/// The spans of one session.
#[derive(Default)]
pub(super) struct MessageSpans(HashMap<u64, MessageSpan>);

impl MessageSpans {
    /// A delivery is about to be decoded.
    pub fn received(&mut self, delivery: &Delivery, queue: &str) {
        if let Some(span) = MessageSpan::start(delivery, queue, delivery.replay_mark()) {
            self.0.insert(delivery.tag, span);
        }
    }

    /// It became an event.
    pub fn decoded(&mut self, pending: &PendingEvent) {
        if let Some(span) = self.of(pending.delivery.tag) {
            span.decoded(pending.id);
        }
    }

    /// A batch is about to be written.
    pub fn batch(&mut self, batch: &[PendingEvent], settings: &RouteSettings) -> Option<BatchSpan> {
        if self.0.is_empty() {
            return None;
        }
        let tags = batch.iter().map(|pending| pending.delivery.tag);
        let mut spans: Vec<(u64, MessageSpan)> = tags.filter_map(|tag| self.0.remove_entry(&tag)).collect();
        let namespace = (settings.store.database.as_str(), settings.collection.as_str());
        let span = BatchSpan::start(spans.iter_mut().map(|(_, span)| span), batch.len(), namespace);
        self.0.extend(spans);
        span
    }

    /// A message became a dead letter, which is to be published.
    pub fn rejected(&mut self, dead_letter: &PendingDeadLetter, exchange: &str) {
        if let Some(span) = self.of(dead_letter.tag) {
            span.rejected(&dead_letter.summary.cause, &dead_letter.summary.id, exchange);
        }
    }

    /// A delivery has its outcome.
    pub fn settled(&mut self, tag: u64, outcome: DeliveryOutcome) {
        if self.0.is_empty() {
            return;
        }
        if let Some(span) = self.0.remove(&tag) {
            span.settled(outcome);
        }
    }

    fn of(&mut self, tag: u64) -> Option<&mut MessageSpan> {
        if self.0.is_empty() { None } else { self.0.get_mut(&tag) }
    }
}
