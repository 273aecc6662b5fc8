//! What the worker does with a message, step by step: address, limits, content encoding, text, the walk through the JSON, the identity.

use std::borrow::Cow;
use std::sync::Arc;

use bson::raw::RawDocumentBuf;
use bson::{Bson, Document};
use serde::de::Deserializer;

use super::bson_writer::Writer;
use super::dead_letter::fault_offset;
use super::duplicate_keys::Keys;
use super::fields::{BodyId, FieldStates};
use super::identity::IdHash;
use super::lint::{self, time_in_words};
use super::lookalike::Names;
use super::privacy::Privacy;
use super::root::Root;
use super::rules::MAX_DOCUMENT_BYTES;
use super::walk::{Walk, document_too_large};
use super::{
    Address, FindingKind, Findings, LikelyCause, Reason, Rejection, Rules, encoding, identity, recognise, surrogates,
};

/// Buffers larger than this many bytes are freed after the message that needed them.
const MAX_KEPT_BYTES: usize = 64 * 1024;

/// The parts of a message that decide what becomes of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Message<'a> {
    /// Why it cannot be what its publisher meant, if the broker's client could not read all of it.
    pub unreadable: Option<&'a Rejection>,
    /// None: it is sent to the queue by its name.
    pub address: Option<Address<'a>>,
    /// As received.
    pub body: &'a [u8],
    /// AMQP property; empty counts as absent.
    pub message_id: Option<&'a str>,
    /// AMQP property.
    pub content_encoding: Option<&'a str>,
    /// AMQP property, in seconds since 1970.
    pub timestamp: Option<u64>,
    /// Who published it: AMQP `app_id`, or else `user_id`. Empty: the message does not say. `None`: the caller does not know.
    pub app_id: Option<&'a str>,
    /// The `dl-first-id` of a replayed message: its identity if it has no other.
    pub dead_letter_id: Option<&'a str>,
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
    /// The `dl-first-id` of the dead letter that the message was replayed from.
    DeadLetter,
    /// The message has no identity: the `_id` is fresh, and a redelivery may be stored again.
    None,
}

/// A message that can be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The `_id`, which `document` holds as well: the bytes of an ObjectId.
    pub id: [u8; 12],
    pub identity: Identity,
    /// A valid BSON document of at most 16 MiB whose first field is `_id`.
    pub document: RawDocumentBuf,
    /// `timestamp` in the body, as a number: by convention milliseconds since 1970.
    pub time: Option<f64>,
    /// What is probably wrong with it. It is stored all the same.
    pub findings: Findings,
}

impl Event {
    /// The document, for display. Without an identity it has no `_id`: the worker makes a fresh one for each delivery.
    pub fn to_bson(&self) -> Bson {
        let mut document = Document::try_from(&*self.document).unwrap_or_default();
        if self.identity == Identity::None {
            document.remove("_id");
        }
        Bson::Document(document)
    }
}

/// Says what the worker does with the messages of a route. It reuses its buffers.
#[derive(Debug)]
pub struct Decoder {
    rules: Arc<Rules>,
    names: Names,
    finds: bool,
    writer: Writer,
    keys: Keys,
    fields: FieldStates,
    privacy: Option<Privacy>,
    id_hash: IdHash,
}

impl Decoder {
    pub fn new(rules: Arc<Rules>) -> Self {
        let privacy = Privacy::new(&rules);
        let id_hash = IdHash::new(&rules.hidden_fields, &rules.mask_key);
        let (writer, keys, fields) = (Writer::default(), Keys::default(), FieldStates::default());
        let names = Names::new(&rules);
        Decoder { rules, names, finds: true, writer, keys, fields, privacy, id_hash }
    }

    /// The same, but it finds nothing: to measure what finding costs.
    pub fn without_findings(rules: Arc<Rules>) -> Self {
        let names = Names::new(&Rules { fields: Vec::new(), ..Rules::default() });
        Decoder { names, finds: false, ..Decoder::new(rules) }
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Turns a message into a document. `fresh_id` makes an ObjectId for a message without identity; it is called at most
    /// once.
    ///
    /// # Errors
    /// The first fault that is found: properties and address first, then limits and encoding, the JSON, `_id` and the configured fields.
    pub fn decode(&mut self, message: &Message, fresh_id: impl FnOnce() -> [u8; 12]) -> Result<Event, Rejection> {
        let rules = Arc::clone(&self.rules);
        if let Some(rejection) = message.unreadable {
            return Err(rejection.clone());
        }
        if let (Some(addresses), Some(address)) = (&rules.addresses, message.address) {
            addresses.check(address)?;
        }
        let body = decompressed_body(message, &rules)?;
        let text = utf8_text(&body)?;
        self.read(text, &rules)?;
        self.fields.check(&rules)?;
        let (id, identity) = self.identify(message, text, fresh_id);
        let document = self.writer.finish(id);
        let found = || lint::findings(&rules, &self.names, message, &self.fields, identity, &document);
        let findings = if self.finds { found() } else { Findings::default() };
        let document = match &self.privacy {
            Some(privacy) => privacy.apply(&document).ok_or_else(document_too_large)?,
            None => document,
        };
        // Room for `ingested_at`, which is added later.
        let limit = MAX_DOCUMENT_BYTES - if rules.add_ingested_at { 32 } else { 0 };
        self.writer.shrink(MAX_KEPT_BYTES);
        self.keys.shrink(MAX_KEPT_BYTES / 64);
        if document.len() > limit {
            return Err(document_too_large());
        }
        // The writer's bytes are a document. `from_bytes` looks at the length alone.
        let document = RawDocumentBuf::from_bytes(document).map_err(|_| document_too_large())?;
        Ok(Event { id, identity, document, time: self.fields.time, findings })
    }

    /// Everything for which the worker rejects a message, as far as it can be read: what [`Decoder::decode`] returns, and the faults behind
    /// it. Empty if it would be stored.
    pub fn faults(&mut self, message: &Message) -> Vec<Rejection> {
        let rules = Arc::clone(&self.rules);
        let Err(first) = self.decode(message, || [0; 12]) else { return Vec::new() };
        let address = rules.addresses.as_ref().zip(message.address).and_then(|(all, address)| all.check(address).err());
        let mut faults: Vec<Rejection> = message.unreadable.cloned().into_iter().chain(address).collect();
        let body = decompressed_body(message, &rules);
        match body.and_then(|body| self.read(utf8_text(&body)?, &rules)) {
            Ok(()) => faults.extend(self.fields.faults(&rules)),
            Err(rejection) => faults.push(rejection),
        }
        if faults.is_empty() { vec![first] } else { faults }
    }

    /// What is found, with the value or the key that shows it, for its publisher. `event` is the one that was decoded last.
    pub fn explain(&self, event: &Event, kind: FindingKind) -> String {
        let misspelt = |key: &str| {
            let resembled = self.names.resembled(key.as_bytes()) & !self.fields.present_and_findings().0;
            let field = self.rules.fields.get(resembled.trailing_zeros() as usize)?;
            (field.name != key).then(|| format!("{key:?} looks like {}", field.name))
        };
        let shown = match kind {
            FindingKind::TimestampUnit => event.time.map(time_in_words),
            FindingKind::FieldName => {
                event.document.iter_elements().flatten().find_map(|element| misspelt(element.key().as_str()))
            }
            kind => Some(self.fields.found_in(&self.rules, kind.into()).join(", ")).filter(|fields| !fields.is_empty()),
        };
        shown.map_or(kind.advice().to_owned(), |shown| format!("{shown}; {}", kind.advice()))
    }

    /// What would be stored under a top-level field, whatever else is wrong with the message, and before anything is hidden. `None` if it
    /// has no such field.
    ///
    /// # Errors
    /// The message cannot be read so far, or the field cannot be cast.
    pub fn field(&mut self, message: &Message, name: &str) -> Result<Option<Bson>, Rejection> {
        let rules = Arc::clone(&self.rules);
        self.read(utf8_text(&decompressed_body(message, &rules)?)?, &rules)?;
        self.fields.check_cast(&rules, name)?;
        let document = self.writer.finish([0; 12]);
        let found = bson::RawDocument::from_bytes(&document).and_then(|document| document.get(name)).ok().flatten();
        Ok(found.and_then(|value| value.try_into().ok()))
    }

    /// Reads the JSON into the open document and the states of the fields.
    fn read(&mut self, text: &str, rules: &Rules) -> Result<(), Rejection> {
        self.walk(text, rules).or_else(|rejection| {
            let replaced = (rejection.reason == Reason::InvalidJson).then(|| surrogates::replace_lone(text)).flatten();
            replaced.map_or(Err(rejection), |text: String| self.walk(&text, rules))
        })
    }

    fn walk(&mut self, text: &str, rules: &Rules) -> Result<(), Rejection> {
        self.writer.start();
        self.keys.clear();
        self.fields.reset(rules.fields.len());
        let mut walk = Walk::new(rules, &self.names, &mut self.writer, &mut self.keys, &mut self.fields);
        let mut json = serde_json::Deserializer::from_str(text);
        let read = json.deserialize_any(Root { walk: &mut walk }).and_then(|()| json.end());
        match (read, walk.rejection, walk.root_is_object) {
            (Ok(()), _, true) => Ok(()),
            (Ok(()), _, false) => {
                let detail = recognise::of_root(text).map_or("the root is not a JSON object", LikelyCause::detail);
                Err(Rejection::new(Reason::NotAnObject, detail))
            }
            // An array that is too large: the better reason is that it is not an object.
            (Err(_), Some(rejection), false) if rejection.reason == Reason::TooLarge => {
                Err(Rejection::new(Reason::NotAnObject, LikelyCause::Array.detail()))
            }
            (Err(error), Some(rejection), _) => Err(Rejection {
                detail: format!("{}, at line {} column {}", rejection.detail, error.line(), error.column()).into(),
                ..rejection
            }),
            (Err(error), None, _) => Err(not_json(text, &error)),
        }
    }

    fn identify(&self, message: &Message, text: &str, fresh_id: impl FnOnce() -> [u8; 12]) -> ([u8; 12], Identity) {
        if let BodyId::Given(id) = self.fields.id {
            return (id, Identity::Body);
        }
        let message_id = message.message_id.filter(|id| !id.is_empty());
        let (token, identity) = match (message_id, message.dead_letter_id) {
            (Some(id), _) => (id, Identity::MessageId),
            (None, _) if !self.fields.uuid.is_empty() => (self.fields.uuid.as_str(), Identity::Uuid),
            (None, Some(id)) => (id, Identity::DeadLetter),
            (None, None) => return (fresh_id(), Identity::None),
        };
        let seconds = identity::seconds(self.fields.time, message.timestamp);
        (self.id_hash.object_id(token, text.as_bytes(), seconds), identity)
    }
}

/// The body, decompressed as its `content_encoding` says, within the limits.
///
/// # Errors
/// `empty_body`, `too_large` or `unsupported_encoding`.
pub fn decompressed_body<'a>(message: &Message<'a>, rules: &Rules) -> Result<Cow<'a, [u8]>, Rejection> {
    if message.body.is_empty() {
        return Err(Rejection::new(Reason::EmptyBody, "the body is empty"));
    }
    if message.body.len() > rules.max_bytes {
        let detail =
            format!("the body has {} bytes, more than event.max_bytes = {}", message.body.len(), rules.max_bytes);
        return Err(Rejection::new(Reason::TooLarge, detail));
    }
    encoding::decompress(message.body, message.content_encoding, rules.max_bytes)
}

/// The rejection of a text that is not JSON, with what it probably is.
fn not_json(text: &str, error: &serde_json::Error) -> Rejection {
    let detail = error.to_string();
    let cause = recognise::of_text(text, fault_offset(text, &detail, None).unwrap_or_default());
    let cause = cause.or_else(|| recognise::of_fault(text, error));
    let at = || format!("at line {} column {}", error.line(), error.column());
    Rejection::new(Reason::InvalidJson, cause.map_or(detail, |cause| format!("{}, {}", cause.detail(), at())))
}

/// The JSON text: UTF-8, without byte order mark. UTF-16 and UTF-32 are recognised by a NUL among the first two bytes, where
/// JSON in UTF-8 has none (RFC 4627, section 3).
pub(super) fn utf8_text(bytes: &[u8]) -> Result<&str, Rejection> {
    if bytes.is_empty() {
        return Err(Rejection::new(Reason::EmptyBody, "the body is empty after decompression"));
    }
    if matches!(bytes, [0, ..] | [_, 0, ..]) {
        let cause = recognise::of_bytes(bytes).unwrap_or(LikelyCause::Utf16);
        return Err(Rejection::new(Reason::InvalidUtf8, cause.detail()));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let cause = recognise::of_invalid_utf8(bytes).map(|cause| format!("{}; ", cause.detail())).unwrap_or_default();
        Rejection::new(Reason::InvalidUtf8, format!("{cause}not UTF-8 from byte {} on", error.valid_up_to()))
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}
