//! Owns the dead letter's headers: which there are, what they say, how long they may be. Pure.
//! Must not know how a message is published, nor AMQP's types; no header ever holds a part of the payload.

use xxhash_rust::xxh3::xxh3_64;

use crate::event::Rejection;

/// The version of the header format.
pub const VERSION: i64 = 1;

/// Headers with this prefix are the worker's: on a dead letter, those that a publisher sent are overwritten.
pub const PREFIX: &str = "dl-";

/// Unique to one dead letter: how the broker's returns are matched, and its handle at the dead-letter desk.
pub const ID: &str = "dl-id";
/// The original's `user_id` property, which the broker would refuse from another login.
pub const USER_ID: &str = "dl-user-id";

/// Longest `dl-detail` in bytes.
const DETAIL_BYTES: usize = 512;
/// Longest of any other text header in bytes: an AMQP short string.
const TEXT_BYTES: usize = 255;

/// A header's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A signed 64-bit integer.
    Int(i64),
    /// UTF-8 text.
    Text(String),
}

/// Where a message came from, as its dead letter tells it.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The exchange it was published to.
    pub exchange: &'a str,
    /// Its routing key.
    pub routing_key: &'a str,
    /// The queue it was read from.
    pub queue: &'a str,
    /// `host/version` of the worker.
    pub worker: &'a str,
    /// Its `user_id` property.
    pub user_id: Option<&'a str>,
}

/// The headers of one dead letter. At most about 2.5 KiB together, whatever the message was.
pub fn headers(rejection: &Rejection, origin: &Origin, id: &str, now_millis: i64) -> Vec<(&'static str, Value)> {
    let text = |value: &str, most: usize| Value::Text(one_line(value, most));
    let mut headers = vec![
        ("dl-version", Value::Int(VERSION)),
        (ID, text(id, TEXT_BYTES)),
        ("dl-reason", text(rejection.reason.as_str(), TEXT_BYTES)),
        ("dl-detail", text(&rejection.detail, DETAIL_BYTES)),
        ("dl-stage", text(rejection.reason.stage().as_str(), TEXT_BYTES)),
        ("dl-time", Value::Int(now_millis)),
        ("dl-exchange", Value::Text(origin.exchange.to_owned())),
        ("dl-routing-key", Value::Text(origin.routing_key.to_owned())),
        ("dl-queue", Value::Text(origin.queue.to_owned())),
        ("dl-worker", text(origin.worker, TEXT_BYTES)),
        ("dl-fingerprint", Value::Text(fingerprint(rejection, origin.routing_key))),
        ("dl-replays", Value::Int(0)),
    ];
    if let Some(field) = &rejection.field {
        headers.push(("dl-field", text(field, TEXT_BYTES)));
    }
    if let Some(user_id) = origin.user_id {
        headers.push((USER_ID, Value::Text(user_id.to_owned())));
    }
    headers
}

/// Groups equal causes: the same reason, field, kind of fault and routing key, whatever the positions and sizes.
fn fingerprint(rejection: &Rejection, routing_key: &str) -> String {
    let kind: String = rejection.detail.chars().filter(|c| !c.is_ascii_digit()).collect();
    let field = rejection.field.as_deref().unwrap_or_default();
    let cause = [rejection.reason.as_str(), field, &kind, routing_key].join("\n");
    format!("{:016x}", xxh3_64(cause.as_bytes()))
}

/// At most `most` bytes, cut between characters; control characters become spaces.
fn one_line(text: &str, most: usize) -> String {
    let end = text.floor_char_boundary(most);
    text.get(..end).unwrap_or_default().replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Reason;

    const ORIGIN: Origin = Origin {
        exchange: "bytemark.tickets",
        routing_key: "ticket.purchase",
        queue: "bytemark.tickets.log",
        worker: "host/0.1.0",
        user_id: None,
    };

    #[test]
    fn says_what_where_and_when() {
        let rejection =
            Rejection::of_field(Reason::InvalidField, "user_id", "user_id expects a Number, found an array");
        let origin = Origin { user_id: Some("app"), ..ORIGIN };
        let lines: Vec<String> =
            headers(&rejection, &origin, "0a", 5).iter().map(|(name, value)| format!("{name} = {value:?}")).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        dl-version = Int(1)
        dl-id = Text("0a")
        dl-reason = Text("invalid_field")
        dl-detail = Text("user_id expects a Number, found an array")
        dl-stage = Text("decode")
        dl-time = Int(5)
        dl-exchange = Text("bytemark.tickets")
        dl-routing-key = Text("ticket.purchase")
        dl-queue = Text("bytemark.tickets.log")
        dl-worker = Text("host/0.1.0")
        dl-fingerprint = Text("564cf3cd4e63e6f2")
        dl-replays = Int(0)
        dl-field = Text("user_id")
        dl-user-id = Text("app")
        "#);
    }

    #[test]
    fn equal_causes_share_a_fingerprint() {
        let at = |detail: &str| fingerprint(&Rejection::new(Reason::InvalidJson, detail.to_owned()), "k");
        assert_eq!(at("expected value at line 1 column 7"), at("expected value at line 3 column 99"));
        assert_ne!(at("expected value"), at("trailing characters"));
        let moved = fingerprint(&Rejection::new(Reason::InvalidJson, "expected value"), "other");
        assert_ne!(moved, at("expected value"));
    }

    proptest! {
        #[test]
        fn headers_stay_small_and_on_one_line(detail in ".{0,2000}", field in ".{0,600}", key in "[a-z.]{0,255}") {
            let rejection = Rejection::of_field(Reason::RejectedByStore, &field, detail);
            let all = headers(&rejection, &Origin { routing_key: &key, ..ORIGIN }, "id", 0);
            let mut bytes = 0;
            for (name, value) in &all {
                prop_assert!(name.starts_with(PREFIX));
                if let Value::Text(text) = value {
                    prop_assert!(!text.contains(|c: char| c.is_control()));
                    bytes += text.len();
                }
            }
            prop_assert!(bytes <= 2500);
        }
    }
}
