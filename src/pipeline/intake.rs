//! Owns the step from a delivery to an event that can be written, or to a rejection. No IO.
//! Must not know batches, nor what becomes of either.

use std::time::SystemTime;

use bson::oid::ObjectId;
use bson::raw::RawDocumentBuf;

use crate::broker::Delivery;
use crate::event::{self, Decoder, Message, Reason, Rejection};

/// An event on its way to the store, with the delivery it came in: its body must stay at hand until the store has it.
#[derive(Debug)]
pub struct Pending {
    /// Where it came from.
    pub delivery: Delivery,
    /// Its `_id`.
    pub id: [u8; 12],
    /// The document, `_id` first.
    pub document: RawDocumentBuf,
    /// Milliseconds since 1970 by the event's own timestamp.
    pub time: Option<f64>,
}

impl Pending {
    /// Bytes that it holds: body and document.
    pub fn bytes(&self) -> usize {
        self.delivery.body.len() + self.document.as_bytes().len()
    }
}

/// A bad message with the reason.
pub type Rejected = (Delivery, Rejection);

/// Decodes a delivery. `logins` are the users at the broker by whom replayed messages are known.
///
/// # Errors
/// The delivery with what is wrong with it.
// A rejection carries its delivery along, which is what makes it large; it is no failure of ours and is not propagated.
#[allow(clippy::result_large_err)]
pub fn decode(decoder: &mut Decoder, delivery: Delivery, logins: &[String]) -> Result<Pending, Rejected> {
    let replay = delivery.replay(logins);
    let message = Message {
        body: &delivery.body,
        message_id: delivery.message_id(),
        content_encoding: delivery.content_encoding(),
        timestamp: delivery.timestamp(),
        letter: replay.as_ref().map(|replay| replay.letter.as_str()),
    };
    let event = match decoder.decode(&message, || ObjectId::new().bytes()) {
        Ok(event) => event,
        Err(rejection) => return Err((delivery, rejection)),
    };
    let bytes =
        if decoder.rules().stamp { event::with_ingested_at(event.document, now_millis()) } else { event.document };
    match RawDocumentBuf::from_bytes(bytes) {
        Ok(document) => Ok(Pending { delivery, id: event.id, document, time: event.time }),
        Err(_) => Err((delivery, Rejection::new(Reason::RejectedByStore, "the event makes no sound BSON document"))),
    }
}

/// Milliseconds since 1970.
pub fn now_millis() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
