//! Owns the headers of dead letters and of replayed messages: their names, values and lengths. No header holds a part of the payload.
//! Pure.

use xxhash_rust::xxh3::xxh3_64;

use crate::Rejection;

/// The version of the header format.
pub const VERSION: i64 = 1;

/// Headers with this prefix belong to the worker: on a dead letter they replace those of the publisher.
pub const PREFIX: &str = "dl-";

/// The id of a dead letter, by which operators select it. If the message has an identity, it is a pure function of the message
/// and its cause; else it is unique to the dead letter.
pub const ID: &str = "dl-id";
/// Unique to each dead letter that version 0.2.0 wrote, where `dl-id` was the same for equal messages without an identity.
pub(super) const UNIQUE_ID_0_2: &str = "dl-copy-id";
/// How often the message was replayed.
pub const REPLAYS: &str = "dl-replays";
/// The id of the replay that sent the message.
pub const REPLAY_ID: &str = "dl-replay-id";
/// The id of the first dead letter of a message that was replayed: its identity if it has no other.
pub const FIRST_ID: &str = "dl-first-id";
/// MongoDB's error code, if MongoDB rejected the document.
pub(super) const CODE: &str = "dl-code";
/// The original `user_id` property, which the broker would refuse from another user.
pub const USER_ID: &str = "dl-user-id";

/// Longest `dl-detail` in bytes.
pub(super) const MAX_DETAIL_BYTES: usize = 512;
/// Longest of any other text in bytes: an AMQP short string.
pub(super) const MAX_TEXT_BYTES: usize = 255;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderValue {
    Int(i64),
    Text(String),
}

/// The headers of a replayed message. They are trusted because of its `user_id`: RabbitMQ accepts no other than the
/// publisher's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayMark {
    /// The id of the replay.
    pub id: String,
    /// How often the message was replayed, including this time.
    pub count: i64,
    /// The id of the message's first dead letter: its identity if it has no other.
    pub first_id: String,
    /// Where the message was published originally.
    pub exchange: String,
    /// Its original routing key.
    pub routing_key: String,
    /// Its original `user_id`.
    pub user_id: Option<String>,
}

pub(super) const EXCHANGE: &str = "dl-exchange";
pub(super) const ROUTING_KEY: &str = "dl-routing-key";

impl HeaderValue {
    pub fn text(self) -> Option<String> {
        match self {
            HeaderValue::Text(text) => Some(text),
            HeaderValue::Int(_) => None,
        }
    }

    pub fn int(&self) -> Option<i64> {
        match self {
            HeaderValue::Int(number) => Some(*number),
            HeaderValue::Text(_) => None,
        }
    }
}

impl ReplayMark {
    /// The headers that say this.
    pub fn headers(&self) -> Vec<(&'static str, HeaderValue)> {
        let mut headers = vec![
            (FIRST_ID, HeaderValue::Text(self.first_id.clone())),
            (REPLAYS, HeaderValue::Int(self.count)),
            (REPLAY_ID, HeaderValue::Text(self.id.clone())),
            (EXCHANGE, HeaderValue::Text(self.exchange.clone())),
            (ROUTING_KEY, HeaderValue::Text(self.routing_key.clone())),
        ];
        headers.extend(self.user_id.clone().map(|id| (USER_ID, HeaderValue::Text(id))));
        headers
    }

    /// Reads the headers; `None` if one is missing.
    pub fn read(get: impl Fn(&str) -> Option<HeaderValue>) -> Option<ReplayMark> {
        let text = |name| get(name).and_then(HeaderValue::text);
        Some(ReplayMark {
            id: text(REPLAY_ID)?,
            count: get(REPLAYS)?.int()?,
            first_id: text(FIRST_ID)?,
            exchange: text(EXCHANGE)?,
            routing_key: text(ROUTING_KEY)?,
            user_id: text(USER_ID),
        })
    }
}

/// Where a rejected message came from, for the headers of its dead letter.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The exchange that it was published to.
    pub exchange: &'a str,
    pub routing_key: &'a str,
    /// The replay that sent it; its original exchange and routing key are in here.
    pub replay: Option<&'a ReplayMark>,
    /// The queue that it was consumed from.
    pub queue: &'a str,
    /// `host/version` of the worker.
    pub worker: &'a str,
    pub user_id: Option<&'a str>,
    /// The trace that it belongs to.
    pub trace_id: Option<&'a str>,
}

impl<'a> Origin<'a> {
    /// Exchange and routing key that the message was published to first.
    pub fn published_to(&self) -> (&'a str, &'a str) {
        match self.replay {
            Some(replay) => (&replay.exchange, &replay.routing_key),
            None => (self.exchange, self.routing_key),
        }
    }

    /// `user_id` of who published it first.
    pub fn published_by(&self) -> Option<&'a str> {
        self.replay.map_or(self.user_id, |replay| replay.user_id.as_deref())
    }
}

/// The headers of a dead letter. Together at most about 2.5 KiB, whatever the message is.
pub fn headers(
    rejection: &Rejection,
    origin: &Origin,
    id: String,
    now_millis: i64,
) -> Vec<(&'static str, HeaderValue)> {
    let text = |value: &str, max: usize| HeaderValue::Text(one_line(value, max));
    let (exchange, routing_key) = origin.published_to();
    let user_id = origin.published_by();
    let mut headers = vec![
        ("dl-version", HeaderValue::Int(VERSION)),
        ("dl-reason", text(rejection.reason.as_str(), MAX_TEXT_BYTES)),
        ("dl-detail", text(&rejection.detail, MAX_DETAIL_BYTES)),
        ("dl-stage", text(rejection.reason.stage().as_str(), MAX_TEXT_BYTES)),
        ("dl-time", HeaderValue::Int(now_millis)),
        (EXCHANGE, HeaderValue::Text(exchange.to_owned())),
        (ROUTING_KEY, HeaderValue::Text(routing_key.to_owned())),
        ("dl-queue", HeaderValue::Text(origin.queue.to_owned())),
        ("dl-worker", text(origin.worker, MAX_TEXT_BYTES)),
        ("dl-fingerprint", HeaderValue::Text(fingerprint(rejection))),
        (REPLAYS, HeaderValue::Int(origin.replay.map_or(0, |replay| replay.count))),
    ];
    headers.push((ID, HeaderValue::Text(id)));
    if let Some(replay) = origin.replay {
        headers.push((REPLAY_ID, text(&replay.id, MAX_TEXT_BYTES)));
        headers.push((FIRST_ID, text(&replay.first_id, MAX_TEXT_BYTES)));
    }
    if let Some(code) = rejection.code {
        headers.push((CODE, HeaderValue::Int(code.into())));
    }
    if let Some(field) = &rejection.field {
        headers.push(("dl-field", text(field, MAX_TEXT_BYTES)));
    }
    if let Some(trace_id) = origin.trace_id {
        headers.push(("dl-trace-id", text(trace_id, MAX_TEXT_BYTES)));
    }
    if let Some(user_id) = user_id {
        headers.push((USER_ID, HeaderValue::Text(user_id.to_owned())));
    }
    headers
}

/// Equal for equal causes: the same reason, field and kind of fault, whatever the positions, sizes and routing keys.
pub fn fingerprint(rejection: &Rejection) -> String {
    let kind: String = rejection.detail.chars().filter(|c| !c.is_ascii_digit()).collect();
    let field = rejection.field.as_deref().unwrap_or_default();
    let cause = [rejection.reason.as_str(), field, &kind].join("\n");
    format!("{:016x}", xxh3_64(cause.as_bytes()))
}

/// At most `max` bytes, cut between characters; control characters become spaces.
pub fn one_line(text: &str, max: usize) -> String {
    let end = text.floor_char_boundary(max);
    text.get(..end).unwrap_or_default().replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Reason;

    const ORIGIN: Origin = Origin {
        exchange: "bytemark.tickets",
        routing_key: "ticket.purchase",
        queue: "bytemark.tickets.log",
        worker: "host/0.1.0",
        replay: None,
        user_id: None,
        trace_id: None,
    };

    #[test]
    fn headers_name_the_fault_the_origin_and_the_time() {
        let rejection =
            Rejection::of_field(Reason::InvalidField, "user_id", "user_id expects a Number, found an array");
        let origin = Origin { user_id: Some("app"), ..ORIGIN };
        let lines: Vec<String> = headers(&rejection, &origin, "0a".to_owned(), 5)
            .iter()
            .map(|(name, value)| format!("{name} = {value:?}"))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        dl-version = Int(1)
        dl-reason = Text("invalid_field")
        dl-detail = Text("user_id expects a Number, found an array")
        dl-stage = Text("decode")
        dl-time = Int(5)
        dl-exchange = Text("bytemark.tickets")
        dl-routing-key = Text("ticket.purchase")
        dl-queue = Text("bytemark.tickets.log")
        dl-worker = Text("host/0.1.0")
        dl-fingerprint = Text("ac8a1069dbed955b")
        dl-replays = Int(0)
        dl-id = Text("0a")
        dl-field = Text("user_id")
        dl-user-id = Text("app")
        "#);
    }

    #[test]
    fn equal_causes_share_a_fingerprint() {
        let at = |detail: &str| fingerprint(&Rejection::new(Reason::InvalidJson, detail.to_owned()));
        assert_eq!(at("expected value at line 1 column 7"), at("expected value at line 3 column 99"));
        assert_ne!(at("expected value"), at("trailing characters"));
    }

    proptest! {
        #[test]
        fn headers_stay_small_and_on_one_line(detail in ".{0,2000}", field in ".{0,600}", key in "[a-z.]{0,255}") {
            let rejection = Rejection::of_field(Reason::RejectedByStore, &field, detail);
            let all = headers(&rejection, &Origin { routing_key: &key, ..ORIGIN }, "id".to_owned(), 0);
            let mut bytes = 0;
            for (name, value) in &all {
                prop_assert!(name.starts_with(PREFIX));
                if let HeaderValue::Text(text) = value {
                    prop_assert!(!text.contains(|c: char| c.is_control()));
                    bytes += text.len();
                }
            }
            prop_assert!(bytes <= 2500);
        }
    }
}
