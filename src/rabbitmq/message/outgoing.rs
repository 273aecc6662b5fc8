//! Owns a message that is to be published: its properties, its headers within one frame, and the key by which a returned
//! message is matched. Must not know when it is published.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::dead_letter;

use super::headers::{DEAD_LETTER_CC, Headers, ORIGINAL_BYTES};

/// A message to be published.
#[derive(Debug)]
pub struct Outgoing {
    pub(in crate::rabbitmq) exchange: ShortString,
    pub(in crate::rabbitmq) routing_key: ShortString,
    pub(in crate::rabbitmq) properties: BasicProperties,
    pub(in crate::rabbitmq) body: Vec<u8>,
    /// Identifies it among the messages published together when the broker returns one; see [`return_key`].
    pub(in crate::rabbitmq) return_key: String,
}

impl Outgoing {
    /// A new persistent JSON event. Names are cut to AMQP's 255 bytes.
    pub fn event(exchange: &str, routing_key: &str, message_id: Option<&str>, seconds: u64, body: Vec<u8>) -> Self {
        let mut properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_timestamp(seconds);
        if let Some(id) = message_id {
            properties = properties.with_message_id(short_string(id));
        }
        Outgoing::new(short_string(exchange), short_string(routing_key), properties, body)
    }

    pub(super) fn new(
        exchange: ShortString,
        routing_key: ShortString,
        properties: BasicProperties,
        body: Vec<u8>,
    ) -> Self {
        let return_key = return_key(&properties).unwrap_or_default();
        Outgoing { exchange, routing_key, properties, body, return_key }
    }

    /// Bytes of the body.
    pub fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// The exchange it is published to.
    pub fn exchange(&self) -> &str {
        self.exchange.as_str()
    }

    /// Its routing key.
    pub fn routing_key(&self) -> &str {
        self.routing_key.as_str()
    }

    /// Sets `content_encoding`.
    #[must_use]
    pub fn with_content_encoding(mut self, encoding: &str) -> Self {
        self.properties = self.properties.with_content_encoding(short_string(encoding));
        self
    }
}

/// Cut to AMQP's 255 bytes, between characters.
pub(super) fn short_string(text: &str) -> ShortString {
    text.get(..text.floor_char_boundary(255)).unwrap_or_default().into()
}

/// The return key of a message: `dl-id` of a dead letter, `dl-first-id` of a replayed message, or else the `message_id`. Messages
/// may share one.
pub(in crate::rabbitmq) fn return_key(properties: &BasicProperties) -> Option<String> {
    let headers = properties.headers().as_ref().map(FieldTable::inner);
    let text = |name: &str| match headers.and_then(|headers| headers.get(name)) {
        Some(AMQPValue::LongString(id)) => Some(id.to_string()),
        _ => None,
    };
    let own = [dead_letter::ID, dead_letter::FIRST_ID].into_iter().find_map(text);
    own.or_else(|| properties.message_id().as_ref().map(ToString::to_string))
}

/// The properties of a message that we publish again: all but `expiration`, after which RabbitMQ would drop it, and
/// `user_id`, which RabbitMQ would refuse. It becomes persistent.
pub(super) fn republished(original: &BasicProperties, headers: Headers) -> BasicProperties {
    let mut properties = BasicProperties::default().with_delivery_mode(2).with_headers(headers.into());
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

/// Makes the headers fit into a frame: the publisher's headers are dropped, the largest first, until the rest fits, and
/// `dl-headers-dropped` counts them. The `dl-` headers are small and stay, except `dl-cc`, which is the publisher's, and at
/// last `dl-original-bytes`. `max_bytes` bounds the whole content header.
pub(in crate::rabbitmq) fn fit_headers(outgoing: &mut Outgoing, max_bytes: usize) {
    let Some(headers) = outgoing.properties.headers() else { return };
    let entry_size = |name: &ShortString, value: &AMQPValue| name.as_str().len() + 1 + encoded_size(value);
    // The other properties take at most 2 KiB: eight short strings and a few numbers.
    let mut total = 2048 + headers.inner().iter().map(|(name, value)| entry_size(name, value)).sum::<usize>();
    if total <= max_bytes {
        return;
    }
    let mut kept = headers.inner().clone();
    let is_droppable =
        |name: &str| [DEAD_LETTER_CC, ORIGINAL_BYTES].contains(&name) || !name.starts_with(dead_letter::PREFIX);
    let droppable = kept.iter().filter(|(name, _)| is_droppable(name.as_str()));
    let order = |(name, value): (&ShortString, &AMQPValue)| {
        (name.as_str() != ORIGINAL_BYTES, entry_size(name, value), name.clone())
    };
    let mut by_size: Vec<_> = droppable.map(order).collect();
    by_size.sort();
    let mut dropped = 0;
    while total > max_bytes
        && let Some((_, bytes, name)) = by_size.pop()
    {
        kept.remove(&name);
        total -= bytes;
        dropped += 1;
    }
    kept.insert("dl-headers-dropped".into(), AMQPValue::LongLongInt(dropped));
    outgoing.properties = std::mem::take(&mut outgoing.properties).with_headers(kept.into());
}

/// Upper bound of a value's bytes on the wire, type byte included (AMQP 0-9-1, section 4.2.5).
fn encoded_size(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::LongString(text) => 4 + text.len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.as_slice().len(),
        AMQPValue::FieldArray(values) => 4 + values.as_slice().iter().map(encoded_size).sum::<usize>(),
        AMQPValue::FieldTable(table) => {
            4 + table.inner().iter().map(|(name, value)| 1 + name.as_str().len() + encoded_size(value)).sum::<usize>()
        }
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(headers: &[(&str, usize)], max_bytes: usize) -> Vec<String> {
        let headers = headers
            .iter()
            .map(|(name, size)| (ShortString::from(*name), AMQPValue::LongString("x".repeat(*size).into())));
        let headers: Headers = headers.collect();
        let properties = BasicProperties::default().with_headers(headers.into());
        let mut outgoing = Outgoing::new("dlx".into(), "dead".into(), properties, Vec::new());
        fit_headers(&mut outgoing, max_bytes);
        let headers = outgoing.properties.headers().clone().unwrap();
        headers.inner().keys().map(ToString::to_string).collect()
    }

    #[test]
    fn the_largest_publisher_headers_are_dropped_until_the_rest_fits() {
        let headers = [("big", 5000), ("dl-cc", 6000), ("dl-id", 2), ("dl-original-bytes", 300), ("small", 1)];
        assert_eq!(fitted(&headers, 4096), ["dl-headers-dropped", "dl-id", "dl-original-bytes", "small"]);
        let headers = [("dl-id", 2), ("dl-original-bytes", 6000), ("small", 1)];
        assert_eq!(fitted(&headers, 4096), ["dl-headers-dropped", "dl-id"]);
    }
}
