//! Owns the way from a message to a document: limits, encoding, text, the walk through the JSON, the identity.
//! Must not know where the message came from or where the document goes.

use std::borrow::Cow;
use std::sync::Arc;

use serde::de::Deserializer;

use super::known::{self, BodyId};
use super::object::Keys;
use super::rules::MAX_DOCUMENT_BYTES;
use super::visit::{Root, Walk};
use super::writer::Writer;
use super::{Reason, Rejection, Rules, encoding, identity, visit};

/// Scratch space beyond this many bytes (or elements) is given back after the message that needed it.
const KEEP_SCRATCH: usize = 64 * 1024;

/// The parts of a message that decide what becomes of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Message<'a> {
    /// As received.
    pub body: &'a [u8],
    /// AMQP property; an empty one counts as none.
    pub message_id: Option<&'a str>,
    /// AMQP property.
    pub content_encoding: Option<&'a str>,
    /// AMQP property, in seconds since 1970.
    pub timestamp: Option<u64>,
    /// The `dl-id` of the dead letter that it was replayed from: an identity where there is no other.
    pub letter: Option<&'a str>,
}

/// Where the `_id` came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// `_id` in the body.
    Body,
    /// AMQP `message_id`.
    MessageId,
    /// `uuid` in the body.
    Uuid,
    /// The dead letter that it was replayed from.
    Letter,
    /// None: a fresh one, so that a redelivery may be stored again.
    None,
}

/// A message that can be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The ObjectId's bytes, which also stand in `document`.
    pub id: [u8; 12],
    /// Where the `_id` came from.
    pub identity: Identity,
    /// A valid BSON document of at most 16 MiB whose first field is `_id`.
    pub document: Vec<u8>,
    /// The body's `timestamp` as a number: milliseconds since 1970 by convention.
    pub time: Option<f64>,
}

/// Decodes message after message, keeping its scratch space.
#[derive(Debug)]
pub struct Decoder {
    rules: Arc<Rules>,
    writer: Writer,
    keys: Keys,
    known: known::Known,
}

impl Decoder {
    /// A decoder under these rules.
    pub fn new(rules: Arc<Rules>) -> Self {
        Decoder { rules, writer: Writer::default(), keys: Keys::default(), known: known::Known::default() }
    }

    /// The rules in force.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Turns a message into a document, or says why it cannot be one. `fresh` makes an ObjectId for a message without
    /// any identity and is called at most once.
    ///
    /// # Errors
    /// A [`Rejection`] of stage `decode`; the first fault found, in the order of reading.
    pub fn decode(&mut self, message: &Message, fresh: impl FnOnce() -> [u8; 12]) -> Result<Event, Rejection> {
        let rules = Arc::clone(&self.rules);
        let plain = plain(message, &rules)?;
        let text = text(&plain)?;
        self.walk(text, &rules)?;
        self.known.verdict(&rules)?;
        let (id, identity) = self.identify(message, text, fresh);
        let document = self.writer.finish(id);
        let limit = MAX_DOCUMENT_BYTES - if rules.stamp { 32 } else { 0 };
        self.writer.shrink(KEEP_SCRATCH);
        self.keys.shrink(KEEP_SCRATCH / 64);
        if document.len() > limit {
            return Err(visit::too_large());
        }
        Ok(Event { id, identity, document, time: self.known.time })
    }

    fn walk(&mut self, text: &str, rules: &Rules) -> Result<(), Rejection> {
        self.writer.start();
        self.keys.clear();
        self.known.reset(rules.fields.len());
        let mut walk = Walk::new(rules, &mut self.writer, &mut self.keys, &mut self.known);
        let mut json = serde_json::Deserializer::from_str(text);
        let read = json.deserialize_any(Root { walk: &mut walk }).and_then(|()| json.end());
        match (read, walk.fault, walk.is_object) {
            (Ok(()), _, true) => Ok(()),
            (Ok(()), _, false) => Err(Rejection::new(Reason::NotAnObject, "the root is no JSON object")),
            (Err(_), Some(fault), false) if fault.reason == Reason::TooLarge => {
                Err(Rejection::new(Reason::NotAnObject, "the root is no JSON object"))
            }
            (Err(error), Some(fault), _) => Err(Rejection {
                detail: format!("{}, at line {} column {}", fault.detail, error.line(), error.column()).into(),
                ..fault
            }),
            (Err(error), None, _) => Err(Rejection::new(Reason::InvalidJson, error.to_string())),
        }
    }

    fn identify(&self, message: &Message, text: &str, fresh: impl FnOnce() -> [u8; 12]) -> ([u8; 12], Identity) {
        if let BodyId::Given(id) = self.known.id {
            return (id, Identity::Body);
        }
        let message_id = message.message_id.filter(|id| !id.is_empty());
        let (token, origin) = match (message_id, message.letter) {
            (Some(id), _) => (id, Identity::MessageId),
            (None, _) if !self.known.uuid.is_empty() => (self.known.uuid.as_str(), Identity::Uuid),
            (None, Some(letter)) => (letter, Identity::Letter),
            (None, None) => return (fresh(), Identity::None),
        };
        let seconds = identity::seconds(self.known.time, message.timestamp);
        (identity::object_id(token, text.as_bytes(), seconds), origin)
    }
}

/// The body behind its `content_encoding`, within the limits.
///
/// # Errors
/// `empty_body`, `too_large` or `unsupported_encoding`.
pub fn plain<'a>(message: &Message<'a>, rules: &Rules) -> Result<Cow<'a, [u8]>, Rejection> {
    if message.body.is_empty() {
        return Err(Rejection::new(Reason::EmptyBody, "the body has no byte"));
    }
    if message.body.len() > rules.max_bytes {
        let detail = format!("{} bytes, more than event.max_bytes = {}", message.body.len(), rules.max_bytes);
        return Err(Rejection::new(Reason::TooLarge, detail));
    }
    encoding::decompress(message.body, message.content_encoding, rules.max_bytes)
}

/// The JSON text: UTF-8, a byte order mark taken off. UTF-16 and UTF-32 of ASCII are UTF-8 with NULs, which no JSON
/// text has in its first two characters (RFC 4627, section 3), so that they get the reason that helps.
fn text(bytes: &[u8]) -> Result<&str, Rejection> {
    if bytes.is_empty() {
        return Err(Rejection::new(Reason::EmptyBody, "the body has no byte after decompression"));
    }
    if matches!(bytes, [0, ..] | [_, 0, ..]) {
        return Err(Rejection::new(Reason::InvalidUtf8, "the body looks like UTF-16 or UTF-32"));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Rejection::new(Reason::InvalidUtf8, format!("no UTF-8 from byte {} on", error.valid_up_to()))
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}
