//! A delivery: a message as RabbitMQ delivered it, and what can be read from it.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, ShortString};

use ticketlog_contract::dead_letter::{DeadLetterRecord, HeaderValue, ReplayMark, XDeath};
use ticketlog_contract::{Address, Message, Reason, Rejection};

use super::super::connection::incoming::{HeadersFault, IncomingMessages};
use super::super::connection::invalid_text::InvalidText;
use super::encoded_headers::EncodedHeaders;
use super::headers::{find_text, from_amqp};
use super::json;
use super::outgoing::text_bytes;
use super::trace::TraceContext;

/// A message from a queue. The session owns its acknowledgement, under `tag`.
#[derive(Debug)]
pub struct Delivery {
    /// The delivery tag: its position on the channel, from 1.
    pub tag: u64,
    /// Whether the broker may have delivered it before.
    pub redelivered: bool,
    /// As received.
    pub body: Vec<u8>,
    exchange: ShortString,
    routing_key: ShortString,
    /// Without the headers.
    pub(super) properties: Box<BasicProperties>,
    pub(super) headers: EncodedHeaders,
    unreadable: Option<Box<Rejection>>,
    /// The mark of a replay that is trusted, once [`Delivery::recognise_mark`] has found it.
    pub(super) replay: Option<Box<ReplayMark>>,
    /// Whether a trusted smoke test published it, likewise.
    pub(super) is_smoke_test: bool,
    /// Texts of it that are not UTF-8; they are readable in the fields above.
    pub(super) invalid_texts: Vec<InvalidText>,
}

impl Delivery {
    /// A delivery of lapin's on this channel of the connection that filled `incoming`.
    pub(crate) fn new(
        delivery: lapin::message::Delivery,
        channel: u16,
        incoming: &IncomingMessages,
    ) -> (Self, lapin::Acker) {
        let unparsed = incoming.take(channel, delivery.delivery_tag);
        let mut own = Delivery {
            tag: delivery.delivery_tag,
            redelivered: delivery.redelivered,
            body: delivery.data,
            exchange: delivery.exchange,
            routing_key: delivery.routing_key,
            properties: Box::new(delivery.properties),
            headers: unparsed.headers.into(),
            unreadable: unreadable_parts(unparsed.fault, &unparsed.invalid_texts).map(Box::new),
            replay: None,
            is_smoke_test: false,
            invalid_texts: unparsed.invalid_texts,
        };
        own.escape_invalid_texts();
        (own, delivery.acker)
    }

    /// Writes the bytes that are not UTF-8 as `\xHH`, so that different texts stay different. Where there is no room for that,
    /// and in names of headers, question marks stay in their place.
    fn escape_invalid_texts(&mut self) {
        for invalid in &self.invalid_texts {
            let Some(text) = invalid.escaped() else { continue };
            match invalid.location {
                "exchange" => self.exchange = text.into(),
                "routing_key" => self.routing_key = text.into(),
                property => json::set_text_property(&mut self.properties, property, text),
            }
        }
    }

    /// Whether a part of it is lost: headers that cannot be read, or texts that are not UTF-8.
    pub fn is_unreadable(&self) -> bool {
        self.unreadable.is_some()
    }

    /// The message as the worker judges it. A replay may give it an identity, which this leaves out.
    pub fn message(&self) -> Message<'_> {
        Message {
            unreadable: self.unreadable.as_deref(),
            address: Some(Address { exchange: self.exchange(), routing_key: self.routing_key() }),
            body: &self.body,
            message_id: self.message_id(),
            content_encoding: self.content_encoding(),
            timestamp: self.timestamp(),
            app_id: Some(self.app_id().or(self.user_id()).unwrap_or_default()),
            dead_letter_id: None,
        }
    }

    /// Bytes that it holds in memory: body, headers and texts.
    pub fn bytes(&self) -> usize {
        self.body.len() + self.headers.len() + text_bytes(&self.properties)
    }

    /// A delivery that no broker sent, for tests.
    pub(super) fn for_test(body: Vec<u8>, properties: BasicProperties) -> Self {
        let mut delivery = lapin::message::Delivery::mock(1, "".into(), "".into(), false, body);
        let headers = properties.headers().clone().unwrap_or_default();
        delivery.properties = properties;
        let delivery = Delivery::new(delivery, 1, &IncomingMessages::default()).0;
        Delivery { headers: EncodedHeaders::encode(headers.inner().clone()), ..delivery }
    }

    /// The same after this many deliveries, for tests.
    pub fn redelivered(mut self, count: i64) -> Self {
        let counts = [("x-delivery-count".into(), AMQPValue::LongLongInt(count))];
        self.headers = EncodedHeaders::encode(counts.into());
        self.redelivered = true;
        self
    }

    /// A delivery without properties that no broker sent, for tests.
    pub fn with_body(body: &str) -> Self {
        Delivery::for_test(body.as_bytes().to_vec(), BasicProperties::default())
    }

    /// The exchange it was published to; empty for the default exchange.
    pub fn exchange(&self) -> &str {
        self.exchange.as_str()
    }

    pub fn routing_key(&self) -> &str {
        self.routing_key.as_str()
    }

    pub fn message_id(&self) -> Option<&str> {
        self.properties.message_id().as_ref().map(ShortString::as_str)
    }

    pub fn content_encoding(&self) -> Option<&str> {
        self.properties.content_encoding().as_ref().map(ShortString::as_str)
    }

    /// AMQP `timestamp`, in seconds since 1970.
    pub fn timestamp(&self) -> Option<u64> {
        *self.properties.timestamp()
    }

    /// Whether it has an AMQP `priority` above 0, by which queues deliver it before others.
    pub fn has_priority(&self) -> bool {
        self.properties.priority().is_some_and(|priority| priority > 0)
    }

    pub fn app_id(&self) -> Option<&str> {
        self.properties.app_id().as_ref().map(ShortString::as_str)
    }

    pub fn user_id(&self) -> Option<&str> {
        self.properties.user_id().as_ref().map(ShortString::as_str)
    }

    /// A header, if it is text or an integer.
    pub(super) fn header(&self, name: &str) -> Option<HeaderValue> {
        self.headers.get(name).as_ref().and_then(from_amqp)
    }

    /// The span in which it was published, if its publisher says so.
    pub fn trace_context(&self) -> Option<TraceContext> {
        if self.headers.is_empty() {
            return None;
        }
        TraceContext::read(|name| find_text(&self.headers, name))
    }

    /// Whether a stream delivered it (RabbitMQ's page on streams: `x-stream-offset`).
    pub(crate) fn is_from_stream(&self) -> bool {
        self.headers.get("x-stream-offset").is_some()
    }

    /// How often a quorum queue has delivered it before (`x-delivery-count`).
    pub fn delivery_count(&self) -> i64 {
        self.header("x-delivery-count").and_then(|value| value.int()).unwrap_or(0)
    }

    /// How often its queue has delivered it before; `None` if the queue does not count. RabbitMQ 4.3 counts all deliveries
    /// (`x-acquired-count`); earlier versions count those that the consumer did not settle.
    pub fn earlier_deliveries(&self) -> Option<i64> {
        let count = |name: &str| self.header(name).and_then(|value| value.int());
        let counted = count("x-acquired-count").or_else(|| count("x-delivery-count"));
        counted.or_else(|| (!self.redelivered).then_some(0))
    }

    /// What its headers say about why it is a dead letter. `worker_queue` is the queue that the worker consumes.
    pub fn record(&self, worker_queue: &str) -> DeadLetterRecord {
        let mut record = DeadLetterRecord::read(|name| self.header(name), self.x_death(), worker_queue);
        record.user_id = record.user_id.or_else(|| self.user_id().map(str::to_owned));
        record
    }

    /// The oldest entry of `x-death`, which is the last of the list.
    fn x_death(&self) -> Option<XDeath> {
        let AMQPValue::FieldArray(deaths) = self.headers.get("x-death")? else { return None };
        let AMQPValue::FieldTable(death) = deaths.as_slice().last()? else { return None };
        let get = |name: &str| death.inner().get(name);
        let text = |name| get(name).and_then(from_amqp).and_then(HeaderValue::text).unwrap_or_default();
        let key = match get("routing-keys") {
            Some(AMQPValue::FieldArray(keys)) => {
                keys.as_slice().first().and_then(from_amqp).and_then(HeaderValue::text)
            }
            _ => None,
        };
        let time = match get("time") {
            Some(AMQPValue::Timestamp(seconds)) => Some(*seconds),
            _ => None,
        };
        let (reason, queue, exchange) = (text("reason"), text("queue"), text("exchange"));
        Some(XDeath { reason, queue, time, exchange, routing_key: key.unwrap_or_default() })
    }

    /// Its properties and its headers as JSON, for display.
    pub fn to_json(&self) -> (serde_json::Map<String, serde_json::Value>, serde_json::Map<String, serde_json::Value>) {
        let headers = json::headers_to_json(&self.headers.decode(|_| true).into());
        (json::properties_to_json(&self.properties), headers)
    }
}

/// Why it cannot be what its publisher meant: headers that cannot be read, or properties, header names or parts of its address that are
/// not UTF-8.
fn unreadable_parts(fault: Option<HeadersFault>, invalid_texts: &[InvalidText]) -> Option<Rejection> {
    match fault {
        Some(HeadersFault::TooLarge(bytes)) => {
            let detail = format!("the headers have {bytes} bytes, more than 16 MiB; they are lost");
            return Some(Rejection::new(Reason::TooLarge, detail));
        }
        Some(HeadersFault::Malformed) => {
            return Some(Rejection::new(Reason::InvalidProperty, "the headers are not encoded as AMQP says"));
        }
        None => {}
    }
    let mut locations: Vec<&str> = invalid_texts.iter().map(|invalid| invalid.location).collect();
    locations.dedup();
    let detail = || format!("not UTF-8: {}", locations.join(", "));
    (!locations.is_empty()).then(|| Rejection::new(Reason::InvalidProperty, detail()))
}
