//! The step from a delivery to an event that can be written, or to a rejection.

use std::time::Instant;

use bson::oid::ObjectId;
use bson::raw::RawDocumentBuf;

use ticketlog_config::system::now_millis;
use ticketlog_contract::dead_letter::ReplayMark;
use ticketlog_contract::{Decoder, Event, Findings, Message, Rejection, add_ingested_at};
use ticketlog_rabbitmq::Delivery;

/// A decoded event with its delivery, whose body is needed until the event is stored.
#[derive(Debug)]
pub struct PendingEvent {
    /// The delivery.
    pub delivery: Delivery,
    /// Its `_id`.
    pub id: [u8; 12],
    /// The document, `_id` first.
    pub document: RawDocumentBuf,
    /// The event's own timestamp, in milliseconds since 1970.
    pub time: Option<f64>,
    /// What is probably wrong with it.
    pub findings: Findings,
    /// Set once it was held because MongoDB rejected it.
    pub held: Option<Held>,
}

/// Of an event that MongoDB rejected while the breaker was open.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// Since when it is held.
    pub since: Instant,
    /// Whether it is being tried again, to find out whether MongoDB accepts it now.
    pub in_probe: bool,
}

impl PendingEvent {
    /// Bytes of the document.
    pub fn document_bytes(&self) -> usize {
        self.document.as_bytes().len()
    }

    /// Bytes of message and document.
    pub fn bytes(&self) -> usize {
        self.delivery.bytes() + self.document_bytes()
    }
}

/// `app_id`, or else `user_id`, of who published a message first; empty if it has neither.
pub fn publisher<'a>(delivery: &'a Delivery, replay: Option<&'a ReplayMark>) -> &'a str {
    let user_id = || replay.map_or(delivery.user_id(), |replay| replay.user_id.as_deref());
    delivery.app_id().or_else(user_id).unwrap_or_default()
}

/// A rejected delivery and the reason.
pub type RejectedDelivery = (Delivery, Rejection);

/// Decodes a delivery, whose replay is recognised.
///
/// # Errors
/// The delivery and its rejection.
// The error is large because it returns the delivery. It is not a failure and is not propagated.
#[allow(clippy::result_large_err)]
pub fn decode(decoder: &mut Decoder, delivery: Delivery) -> Result<PendingEvent, RejectedDelivery> {
    let replay = delivery.replay_mark();
    let dead_letter_id = replay.map(|replay| replay.first_id.as_str());
    let app_id = Some(publisher(&delivery, replay));
    let message = Message { dead_letter_id, app_id, ..delivery.message() };
    match decoder.decode(&message, || ObjectId::new().bytes()) {
        Ok(Event { id, mut document, time, findings, .. }) => {
            if decoder.rules().add_ingested_at {
                add_ingested_at(&mut document, now_millis());
            }
            Ok(PendingEvent { delivery, id, document, time, findings, held: None })
        }
        Err(rejection) => Err((delivery, rejection)),
    }
}
