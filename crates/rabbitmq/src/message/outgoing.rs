//! Owns a message that is to be published: its properties, its headers within one frame, and the key by which a returned message is
//! matched.

use std::collections::HashSet;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, ShortString};

use ticketlog_contract::dead_letter;

use super::encoded_headers::{EncodedHeaders, Headers};
use super::headers::{DEAD_LETTER_CC, ORIGINAL_BYTES};
use super::json::for_each_text_property;

#[derive(Debug)]
pub struct Outgoing {
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    /// Without the headers.
    pub(super) properties: BasicProperties,
    pub(super) headers: EncodedHeaders,
    pub(crate) body: Vec<u8>,
    /// Identifies it among the messages published together when the broker returns one; see [`return_key`].
    pub(crate) return_key: String,
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
        Outgoing::new(short_string(exchange), short_string(routing_key), properties, Headers::new(), body)
    }

    pub(super) fn new(
        exchange: ShortString,
        routing_key: ShortString,
        properties: BasicProperties,
        headers: Headers,
        body: Vec<u8>,
    ) -> Self {
        let return_key = return_key(&properties, &headers).unwrap_or_default();
        Outgoing { exchange, routing_key, properties, headers: EncodedHeaders::encode(headers), body, return_key }
    }

    /// Bytes that it holds in memory: body, headers and texts.
    pub fn bytes(&self) -> usize {
        self.body.len() + self.headers.len() + text_bytes(&self.properties)
    }

    /// The properties with the headers, as lapin publishes them.
    pub(crate) fn published_properties(&self) -> BasicProperties {
        let properties = self.properties.clone();
        if self.headers.is_empty() {
            return properties;
        }
        properties.with_headers(self.headers.decode(|_| true).into())
    }

    /// The exchange it is published to.
    pub fn exchange(&self) -> &str {
        self.exchange.as_str()
    }

    pub fn routing_key(&self) -> &str {
        self.routing_key.as_str()
    }

    #[must_use]
    pub fn with_content_encoding(mut self, encoding: &str) -> Self {
        self.properties = self.properties.with_content_encoding(short_string(encoding));
        self
    }

    pub fn with_app_id(mut self, name: &str) -> Self {
        self.properties = self.properties.with_app_id(short_string(name));
        self
    }
}

/// Cut to AMQP's 255 bytes, between characters.
pub(super) fn short_string(text: &str) -> ShortString {
    text.get(..text.floor_char_boundary(255)).unwrap_or_default().into()
}

/// Longest header that is a return key, in bytes. Ours have 24; others are forged.
const MAX_RETURN_KEY: usize = 128;

/// The return key of a message: `dl-id` of a dead letter, `dl-first-id` of a replayed message, or else the `message_id`. Messages
/// may share one.
pub(crate) fn return_key(properties: &BasicProperties, headers: &Headers) -> Option<String> {
    // Of a returned message, only short headers are kept.
    let text = |name: &str| match headers.get(name) {
        Some(AMQPValue::LongString(id)) if id.len() <= MAX_RETURN_KEY => Some(id.to_string()),
        _ => None,
    };
    let own = [dead_letter::ID, dead_letter::FIRST_ID].into_iter().find_map(text);
    own.or_else(|| properties.message_id().as_ref().map(ToString::to_string))
}

/// The properties of a message that we publish again: all but `expiration`, after which RabbitMQ would drop it, and
/// `user_id`, which RabbitMQ would refuse. Without headers. It becomes persistent.
pub(super) fn republished(original: &BasicProperties) -> BasicProperties {
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

/// Bytes of the properties that are text.
pub(super) fn text_bytes(properties: &BasicProperties) -> usize {
    let mut bytes = 0;
    macro_rules! add {
        ($name:literal, $get:ident, $with:ident) => {
            bytes += properties.$get().as_ref().map_or(0, |text| text.as_str().len());
        };
    }
    for_each_text_property!(add);
    bytes
}

/// Bytes of a content header beside headers and texts: class, weight, body size, flags, three numbers, and a length for each text and
/// for the headers (AMQP 0-9-1, section 2.3.5.2).
const CONTENT_HEADER_BYTES: usize = 2 + 2 + 8 + 2 + (1 + 1 + 8) + 10 + 4;

/// Makes the headers fit into a frame: the publisher's headers are dropped, the largest first, until the rest fits, and
/// `dl-headers-dropped` counts them. The `dl-` headers are small and stay, except `dl-cc`, which is the publisher's, and at
/// last `dl-original-bytes`. `max_bytes` bounds the whole content header.
pub(crate) fn fit_headers(outgoing: &mut Outgoing, max_bytes: usize) {
    let mut total = CONTENT_HEADER_BYTES + text_bytes(&outgoing.properties) + outgoing.headers.len();
    if total <= max_bytes {
        return;
    }
    let is_droppable = |name: &[u8]| {
        [DEAD_LETTER_CC, ORIGINAL_BYTES].map(str::as_bytes).contains(&name)
            || !name.starts_with(dead_letter::PREFIX.as_bytes())
    };
    let droppable = outgoing.headers.lengths().filter(|(name, _)| is_droppable(name));
    let mut by_size: Vec<_> = droppable.map(|(name, bytes)| (name != ORIGINAL_BYTES.as_bytes(), bytes, name)).collect();
    by_size.sort_unstable();
    total += "dl-headers-dropped".len() + 10;
    let mut dropped = HashSet::new();
    while total > max_bytes
        && let Some((_, bytes, name)) = by_size.pop()
    {
        dropped.insert(name);
        total -= bytes;
    }
    let mut kept = outgoing.headers.decode(|name| !dropped.contains(name.as_bytes()));
    kept.insert("dl-headers-dropped".into(), AMQPValue::LongLongInt(dropped.len() as i64));
    outgoing.headers = EncodedHeaders::encode(kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(headers: &[(&str, usize)], max_bytes: usize) -> Vec<String> {
        let headers = headers
            .iter()
            .map(|(name, size)| (ShortString::from(*name), AMQPValue::LongString("x".repeat(*size).into())));
        let headers: Headers = headers.collect();
        let properties = BasicProperties::default();
        let mut outgoing = Outgoing::new("dlx".into(), "dead".into(), properties, headers, Vec::new());
        fit_headers(&mut outgoing, max_bytes);
        outgoing.headers.decode(|_| true).keys().map(ToString::to_string).collect()
    }

    #[test]
    fn the_largest_publisher_headers_are_dropped_until_the_rest_fits() {
        let headers = [("big", 5000), ("dl-cc", 6000), ("dl-id", 2), ("dl-original-bytes", 300), ("small", 1)];
        assert_eq!(fitted(&headers, 4096), ["dl-headers-dropped", "dl-id", "dl-original-bytes", "small"]);
        let headers = [("dl-id", 2), ("dl-original-bytes", 6000), ("small", 1)];
        assert_eq!(fitted(&headers, 4096), ["dl-headers-dropped", "dl-id"]);
    }
}
