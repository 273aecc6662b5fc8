//! Owns the dead letter: which headers it has, what they say, how long they may be; and what the desk makes of them
//! (selecting, grouping, archiving, showing). Pure.
//! Must not know how a message is published, nor AMQP's types; no header ever holds a part of the payload.

mod archive;
mod filter;
mod groups;
mod record;
mod render;

use xxhash_rust::xxh3::xxh3_64;

use crate::event::Rejection;

pub use archive::{Archived, BadLine};
pub use filter::{Filter, Where};
pub use groups::{Group, Groups};
pub use record::{Cause, Death, Record};
pub use render::{escape, fault_at, harmless_json, hex, text};

/// The version of the header format.
pub const VERSION: i64 = 1;

/// Headers with this prefix are the worker's: on a dead letter, those that a publisher sent are overwritten.
pub const PREFIX: &str = "dl-";

/// Unique to one dead letter: how the broker's returns are matched, and its handle at the dead-letter desk.
pub const ID: &str = "dl-id";
/// How often it was replayed.
pub const REPLAYS: &str = "dl-replays";
/// The replay it came from.
pub const REPLAY_ID: &str = "dl-replay-id";
/// The first dead letter of a message that died again: an identity for messages that have no other.
pub const ORIGIN: &str = "dl-origin";
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

/// The mark of a message that the desk replayed. The broker vouches for it: such a message carries the login of the desk
/// in its `user_id`, which RabbitMQ lets nobody set to another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// The replay, common to all of its messages.
    pub id: String,
    /// How often the message was replayed, this time included.
    pub count: i64,
    /// The `dl-id` of the message's first dead letter: an identity for messages that have no other.
    pub letter: String,
    /// Where the message was published originally.
    pub exchange: String,
    /// With which routing key.
    pub routing_key: String,
    /// The `user_id` it had then.
    pub user_id: Option<String>,
}

const EXCHANGE: &str = "dl-exchange";
const ROUTING_KEY: &str = "dl-routing-key";

impl Value {
    /// The text, if it is one.
    pub fn text(self) -> Option<String> {
        match self {
            Value::Text(text) => Some(text),
            Value::Int(_) => None,
        }
    }

    /// The number, if it is one.
    pub fn int(&self) -> Option<i64> {
        match self {
            Value::Int(number) => Some(*number),
            Value::Text(_) => None,
        }
    }
}

impl Replay {
    /// The headers that carry it.
    pub fn headers(&self) -> Vec<(&'static str, Value)> {
        let mut headers = vec![
            (ID, Value::Text(self.letter.clone())),
            (REPLAYS, Value::Int(self.count)),
            (REPLAY_ID, Value::Text(self.id.clone())),
            (EXCHANGE, Value::Text(self.exchange.clone())),
            (ROUTING_KEY, Value::Text(self.routing_key.clone())),
        ];
        headers.extend(self.user_id.clone().map(|id| (USER_ID, Value::Text(id))));
        headers
    }

    /// Reads it back; none where a part is missing.
    pub fn read(get: impl Fn(&str) -> Option<Value>) -> Option<Replay> {
        let text = |name| get(name).and_then(Value::text);
        Some(Replay {
            id: text(REPLAY_ID)?,
            count: get(REPLAYS)?.int()?,
            letter: text(ID)?,
            exchange: text(EXCHANGE)?,
            routing_key: text(ROUTING_KEY)?,
            user_id: text(USER_ID),
        })
    }
}

/// Where a message came from, as its dead letter tells it.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The exchange it was published to.
    pub exchange: &'a str,
    /// Its routing key.
    pub routing_key: &'a str,
    /// The replay that brought it; where it was published then does not count.
    pub replay: Option<&'a Replay>,
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
    let (exchange, routing_key, user_id) = match origin.replay {
        Some(replay) => (replay.exchange.as_str(), replay.routing_key.as_str(), replay.user_id.as_deref()),
        None => (origin.exchange, origin.routing_key, origin.user_id),
    };
    let mut headers = vec![
        ("dl-version", Value::Int(VERSION)),
        (ID, text(id, TEXT_BYTES)),
        ("dl-reason", text(rejection.reason.as_str(), TEXT_BYTES)),
        ("dl-detail", text(&rejection.detail, DETAIL_BYTES)),
        ("dl-stage", text(rejection.reason.stage().as_str(), TEXT_BYTES)),
        ("dl-time", Value::Int(now_millis)),
        (EXCHANGE, Value::Text(exchange.to_owned())),
        (ROUTING_KEY, Value::Text(routing_key.to_owned())),
        ("dl-queue", Value::Text(origin.queue.to_owned())),
        ("dl-worker", text(origin.worker, TEXT_BYTES)),
        ("dl-fingerprint", Value::Text(fingerprint(rejection, routing_key))),
        (REPLAYS, Value::Int(origin.replay.map_or(0, |replay| replay.count))),
    ];
    if let Some(replay) = origin.replay {
        headers.push((REPLAY_ID, text(&replay.id, TEXT_BYTES)));
        headers.push((ORIGIN, text(&replay.letter, TEXT_BYTES)));
    }
    if let Some(field) = &rejection.field {
        headers.push(("dl-field", text(field, TEXT_BYTES)));
    }
    if let Some(user_id) = user_id {
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
        replay: None,
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
