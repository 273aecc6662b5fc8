//! Owns AMQP headers as the rest of the program sees them: which ones belong to RabbitMQ, which to the publisher, and the conversion of
//! values.

use lapin::types::{AMQPValue, ShortString};

use ticketlog_contract::dead_letter::{self, HeaderValue};

use super::encoded_headers::{EncodedHeaders, Headers};

/// Headers that RabbitMQ writes when it delivers or dead-letters a message. They are not part of the message, and a
/// publisher may have forged them. Sources: RabbitMQ's pages on quorum queues and dead lettering; `x-acquired-count` was
/// seen on 4.3.
const BROKER_HEADERS: [&str; 9] = [
    "x-acquired-count",
    "x-death",
    "x-delivery-count",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
];

/// Headers by which a publisher makes RabbitMQ route a copy to further queues (RabbitMQ's page on sender-selected
/// distribution). A dead letter and a replay must not go there, so they never carry them.
const ROUTING_HEADERS: [&str; 2] = ["CC", "BCC"];

/// The `CC` of a message that became a dead letter.
pub(super) const DEAD_LETTER_CC: &str = "dl-cc";

/// The texts of a message that became a dead letter that are not UTF-8.
pub(super) const ORIGINAL_BYTES: &str = "dl-original-bytes";

/// Whether RabbitMQ writes this header, or routes by it: it belongs to one publish and not to the message.
pub(super) fn is_transport_header(name: &str) -> bool {
    BROKER_HEADERS.contains(&name) || ROUTING_HEADERS.contains(&name)
}

/// `CC`, under the name that a dead letter keeps it by.
pub(super) fn kept_cc(headers: &EncodedHeaders) -> Option<(ShortString, AMQPValue)> {
    Some((DEAD_LETTER_CC.into(), headers.get("CC")?))
}

/// Whether the header is part of the message: written by its publisher, not by the worker or by RabbitMQ.
pub(super) fn is_publisher_header(name: &str) -> bool {
    !name.starts_with(dead_letter::PREFIX) && !is_transport_header(name)
}

/// Sets headers, replacing those of the same name.
pub(super) fn insert(headers: &mut Headers, values: Vec<(&'static str, HeaderValue)>) {
    for (name, value) in values {
        headers.insert(name.into(), to_amqp(value));
    }
}

fn to_amqp(value: HeaderValue) -> AMQPValue {
    match value {
        HeaderValue::Int(number) => AMQPValue::LongLongInt(number),
        HeaderValue::Text(text) => AMQPValue::LongString(text.into()),
    }
}

/// Text and signed integers; none for other types. Text that is not UTF-8 is replaced.
pub(super) fn from_amqp(value: &AMQPValue) -> Option<HeaderValue> {
    Some(match value {
        AMQPValue::LongString(text) => HeaderValue::Text(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => HeaderValue::Text(text.to_string()),
        AMQPValue::LongLongInt(number) => HeaderValue::Int(*number),
        AMQPValue::LongInt(number) => HeaderValue::Int(i64::from(*number)),
        AMQPValue::LongUInt(number) => HeaderValue::Int(i64::from(*number)),
        _ => return None,
    })
}

/// The header of this name, in whatever case it is written and of whatever type: some clients send texts as bytes, and flags as
/// numbers. `None` if it is neither text, nor an integer, nor a truth value.
pub(super) fn find_text(headers: &EncodedHeaders, name: &str) -> Option<String> {
    let any_case = || headers.decode(|other| other.eq_ignore_ascii_case(name)).into_values().next();
    Some(match headers.get(name).or_else(any_case)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok()?.to_owned(),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::ByteArray(bytes) => std::str::from_utf8(bytes.as_slice()).ok()?.to_owned(),
        AMQPValue::Boolean(is_true) => is_true.to_string(),
        AMQPValue::ShortShortInt(number) => number.to_string(),
        AMQPValue::ShortShortUInt(number) => number.to_string(),
        AMQPValue::ShortInt(number) => number.to_string(),
        AMQPValue::ShortUInt(number) => number.to_string(),
        AMQPValue::LongInt(number) => number.to_string(),
        AMQPValue::LongUInt(number) => number.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_found_in_any_case_and_of_any_type() {
        let mut headers = lapin::types::FieldTable::default();
        for (name, value) in [
            ("Traceparent", AMQPValue::ByteArray(b"00-a".to_vec().into())),
            ("x-b3-sampled", AMQPValue::LongInt(1)),
            ("x-b3-flags", AMQPValue::ShortShortUInt(1)),
            ("B3", AMQPValue::LongString("b".into())),
            ("b3", AMQPValue::LongString("exact".into())),
            ("debug", AMQPValue::Boolean(true)),
            ("bytes", AMQPValue::ByteArray(vec![0xff].into())),
            ("table", AMQPValue::FieldTable(lapin::types::FieldTable::default())),
        ] {
            headers.insert(name.into(), value);
        }
        let headers = EncodedHeaders::encode(headers.inner().clone());
        for (name, text) in [
            ("traceparent", Some("00-a")),
            ("X-B3-Sampled", Some("1")),
            ("X-B3-Flags", Some("1")),
            ("b3", Some("exact")),
            ("debug", Some("true")),
            ("bytes", None),
            ("table", None),
            ("missing", None),
        ] {
            assert_eq!(find_text(&headers, name).as_deref(), text, "{name}");
        }
    }
}
