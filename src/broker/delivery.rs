//! Owns the two forms of a message at this border: a delivery as it came, and what is to be published.
//! Must not know decoding, nor when either is settled.

use std::collections::BTreeMap;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::dead_letter::{self, Value};

/// A message from the queue. Its acknowledgement is the session's affair, under `tag`.
#[derive(Debug)]
pub struct Delivery {
    /// Position on its channel, from 1.
    pub tag: u64,
    /// Whether the broker may have delivered it before.
    pub redelivered: bool,
    /// As received.
    pub body: Vec<u8>,
    exchange: ShortString,
    routing_key: ShortString,
    pub(super) properties: Box<BasicProperties>,
}

impl Delivery {
    pub(super) fn new(delivery: lapin::message::Delivery) -> (Self, lapin::Acker) {
        let own = Delivery {
            tag: delivery.delivery_tag,
            redelivered: delivery.redelivered,
            body: delivery.data,
            exchange: delivery.exchange,
            routing_key: delivery.routing_key,
            properties: Box::new(delivery.properties),
        };
        (own, delivery.acker)
    }

    /// A delivery that no broker sent, for tests of what is done with one.
    #[cfg(test)]
    pub fn of_body(body: &str) -> Self {
        Delivery::new(lapin::message::Delivery::mock(1, "".into(), "".into(), false, body.as_bytes().to_vec())).0
    }

    /// The exchange it was published to; empty for the default one.
    pub fn exchange(&self) -> &str {
        self.exchange.as_str()
    }

    /// Its routing key.
    pub fn routing_key(&self) -> &str {
        self.routing_key.as_str()
    }

    /// AMQP `message_id`.
    pub fn message_id(&self) -> Option<&str> {
        self.properties.message_id().as_ref().map(ShortString::as_str)
    }

    /// AMQP `content_encoding`.
    pub fn content_encoding(&self) -> Option<&str> {
        self.properties.content_encoding().as_ref().map(ShortString::as_str)
    }

    /// AMQP `timestamp`, in seconds since 1970.
    pub fn timestamp(&self) -> Option<u64> {
        *self.properties.timestamp()
    }

    /// AMQP `user_id`.
    pub fn user_id(&self) -> Option<&str> {
        self.properties.user_id().as_ref().map(ShortString::as_str)
    }

    /// Turns it into its dead letter: the body and the properties as they are, but persistent, without `expiration` and
    /// `user_id`, and with `headers` in place of any of the same names.
    pub fn into_dead_letter(self, exchange: &str, routing_key: &str, headers: Vec<(&'static str, Value)>) -> Outgoing {
        let mark = headers.iter().find_map(|(name, value)| match value {
            Value::Text(text) if *name == dead_letter::ID => Some(text.clone()),
            _ => None,
        });
        Outgoing {
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            mark: mark.unwrap_or_default(),
            properties: dead_letter_properties(&self.properties, headers),
            body: self.body,
        }
    }
}

/// A message to be published.
#[derive(Debug)]
pub struct Outgoing {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Vec<u8>,
    /// Tells it from the others of its window when the broker returns it: its `dl-id`, or else its `message_id`.
    pub(super) mark: String,
}

impl Outgoing {
    /// A new persistent JSON event. Names longer than AMQP's 255 bytes are cut.
    pub fn event(exchange: &str, routing_key: &str, message_id: Option<&str>, seconds: u64, body: Vec<u8>) -> Self {
        let mut properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_timestamp(seconds);
        if let Some(id) = message_id {
            properties = properties.with_message_id(short(id));
        }
        Outgoing {
            exchange: short(exchange),
            routing_key: short(routing_key),
            mark: message_id.unwrap_or_default().to_owned(),
            properties,
            body,
        }
    }

    /// Length of the body.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// The same with a `content_encoding`.
    #[must_use]
    pub fn encoded(mut self, encoding: &str) -> Self {
        self.properties = self.properties.with_content_encoding(short(encoding));
        self
    }
}

/// Cut to what AMQP allows.
pub(super) fn short(text: &str) -> ShortString {
    text.get(..text.floor_char_boundary(255)).unwrap_or_default().into()
}

/// The mark of a message that came back.
pub(super) fn mark_of(properties: &BasicProperties) -> Option<String> {
    let headers = properties.headers().as_ref().map(FieldTable::inner);
    match headers.and_then(|headers| headers.get(dead_letter::ID)) {
        Some(AMQPValue::LongString(id)) => Some(id.to_string()),
        _ => properties.message_id().as_ref().map(ToString::to_string),
    }
}

/// Headers that a dead letter does not take over: ours, and the broker's history of another dead-lettering, which a
/// publisher may have forged.
fn replaced(name: &str) -> bool {
    name.starts_with(dead_letter::PREFIX) || name == "x-death"
}

fn dead_letter_properties(original: &BasicProperties, own: Vec<(&'static str, Value)>) -> BasicProperties {
    let sent = original.headers().as_ref().map(|headers| headers.inner().clone()).unwrap_or_default();
    let mut headers: BTreeMap<_, _> = sent.into_iter().filter(|(name, _)| !replaced(name.as_str())).collect();
    for (name, value) in own {
        let value = match value {
            Value::Int(number) => AMQPValue::LongLongInt(number),
            Value::Text(text) => AMQPValue::LongString(text.into()),
        };
        headers.insert(name.into(), value);
    }
    keep_properties(original).with_headers(headers.into())
}

/// What a message keeps when it is published again by us: everything but the headers, `expiration`, which would make it
/// vanish, and `user_id`, which the broker would refuse. It becomes persistent.
pub(super) fn keep_properties(original: &BasicProperties) -> BasicProperties {
    let mut properties = BasicProperties::default().with_delivery_mode(2);
    macro_rules! keep {
        ($($get:ident => $with:ident),*) => {
            $(if let Some(value) = original.$get() { properties = properties.$with(value.clone()); })*
        };
    }
    keep!(
        content_type => with_content_type, content_encoding => with_content_encoding, priority => with_priority,
        correlation_id => with_correlation_id, reply_to => with_reply_to, message_id => with_message_id,
        timestamp => with_timestamp, kind => with_type, app_id => with_app_id, cluster_id => with_cluster_id
    );
    properties
}

/// Makes the headers fit a frame: the largest of the publisher's are dropped until they do, and `dl-headers-dropped`
/// counts them. Ours are small and stay. `most` is the room for the whole content header, in bytes.
pub(super) fn fit_headers(outgoing: &mut Outgoing, most: usize) {
    let Some(headers) = outgoing.properties.headers() else { return };
    let mut total: usize =
        2048 + headers.inner().iter().map(|(name, value)| name.as_str().len() + 1 + size(value)).sum::<usize>();
    if total <= most {
        return;
    }
    let mut kept = headers.inner().clone();
    let mut by_size: Vec<(usize, ShortString)> = kept
        .iter()
        .filter(|(name, _)| !name.as_str().starts_with(dead_letter::PREFIX))
        .map(|(name, value)| (name.as_str().len() + 1 + size(value), name.clone()))
        .collect();
    by_size.sort();
    let mut dropped = 0;
    while total > most
        && let Some((bytes, name)) = by_size.pop()
    {
        kept.remove(&name);
        total -= bytes;
        dropped += 1;
    }
    kept.insert("dl-headers-dropped".into(), AMQPValue::LongLongInt(dropped));
    outgoing.properties = std::mem::take(&mut outgoing.properties).with_headers(kept.into());
}

/// Bytes of a value on the wire, type byte included; never less than the truth.
fn size(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::LongString(text) => 4 + text.len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.as_slice().len(),
        AMQPValue::FieldArray(values) => 4 + values.as_slice().iter().map(size).sum::<usize>(),
        AMQPValue::FieldTable(table) => {
            4 + table.inner().iter().map(|(name, value)| 1 + name.as_str().len() + size(value)).sum::<usize>()
        }
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    fn delivery(properties: BasicProperties) -> Delivery {
        let mut delivery = lapin::message::Delivery::mock(1, "x".into(), "k".into(), false, b"body".to_vec());
        delivery.properties = properties;
        Delivery::new(delivery).0
    }

    #[test]
    fn a_dead_letter_keeps_everything_but_what_would_harm_it() {
        let headers = BTreeMap::from([
            ("a".into(), text("kept")),
            ("dl-reason".into(), text("forged")),
            ("dl-x".into(), text("forged")),
        ]);
        let original = BasicProperties::default()
            .with_content_type("text/xml".into())
            .with_expiration("1".into())
            .with_user_id("guest".into())
            .with_priority(255)
            .with_delivery_mode(1)
            .with_reply_to("r".into())
            .with_correlation_id("c".into())
            .with_headers(headers.into());
        let own = vec![("dl-id", Value::Text("0a".into())), ("dl-reason", Value::Text("too_deep".into()))];
        let letter = delivery(original).into_dead_letter("dlx", "dead", own);
        let expected = BTreeMap::from([
            ("a".into(), text("kept")),
            ("dl-id".into(), text("0a")),
            ("dl-reason".into(), text("too_deep")),
        ]);
        assert_eq!((letter.body.as_slice(), letter.mark.as_str()), (&b"body"[..], "0a"));
        assert_eq!(
            letter.properties,
            BasicProperties::default()
                .with_content_type("text/xml".into())
                .with_priority(255)
                .with_delivery_mode(2)
                .with_reply_to("r".into())
                .with_correlation_id("c".into())
                .with_headers(expected.into())
        );
        assert_eq!(mark_of(&letter.properties).as_deref(), Some("0a"));
    }

    #[test]
    fn headers_are_made_to_fit_by_dropping_the_largest_of_the_publishers() {
        let headers = BTreeMap::from([("big".into(), text(&"x".repeat(5000))), ("small".into(), text("y"))]);
        let mut letter = delivery(BasicProperties::default().with_headers(headers.into())).into_dead_letter(
            "dlx",
            "dead",
            vec![("dl-id", Value::Text("0a".into()))],
        );
        fit_headers(&mut letter, 4096);
        let headers = letter.properties.headers().clone().unwrap();
        let names: Vec<&str> = headers.inner().keys().map(ShortString::as_str).collect();
        assert_eq!(names, ["dl-headers-dropped", "dl-id", "small"]);
    }
}
