//! Owns replayed messages: how a dead letter becomes the original message again, and how the worker recognises one.

use bson::oid::ObjectId;
use lapin::BasicProperties;
use lapin::types::ShortString;

use ticketlog_contract::dead_letter::{DeadLetterRecord, ReplayMark};

use super::delivery::Delivery;
use super::headers::{insert, is_publisher_header};
use super::json;
use super::outgoing::Outgoing;
use super::outgoing::{republished, short_string};

/// Where a replay sends its messages, and on whose behalf.
#[derive(Debug, Clone)]
pub struct ReplayTarget {
    pub replay_id: String,
    /// The user of `broker.uri`, for `user_id`: RabbitMQ guarantees it, and the worker trusts the replay because of it.
    pub user_name: Option<String>,
    /// A queue that replaces the original exchange and routing key.
    pub queue: Option<String>,
}

impl ReplayTarget {
    /// The exchange and the routing key for a dead letter.
    pub fn address<'a>(&'a self, record: &'a DeadLetterRecord) -> (&'a str, &'a str) {
        match &self.queue {
            Some(queue) => ("", queue),
            None => (&record.exchange, &record.routing_key),
        }
    }
}

impl Delivery {
    /// The message as it was before it became a dead letter, with the headers that mark a replay. An edited body has no
    /// `content_encoding`. `None` if the exchange or the routing key is longer than AMQP's 255 bytes.
    pub fn replay(
        &self,
        record: &DeadLetterRecord,
        target: &ReplayTarget,
        edited: Option<Vec<u8>>,
    ) -> Option<Outgoing> {
        let mark = ReplayMark {
            id: target.replay_id.clone(),
            count: record.replays.saturating_add(1),
            first_id: record.first_dead_letter_id().map_or_else(|| ObjectId::new().to_hex(), str::to_owned),
            exchange: record.exchange.clone(),
            routing_key: record.routing_key.clone(),
            user_id: record.user_id.clone(),
        };
        let mut headers = self.headers.decode(is_publisher_header);
        insert(&mut headers, mark.headers());
        let (exchange, key) = target.address(record);
        let (exchange, key) = (ShortString::try_new(exchange).ok()?, ShortString::try_new(key).ok()?);
        let mut properties = republished(&self.properties);
        if edited.is_some() {
            properties = without_content_encoding(&properties);
        }
        if let Some(name) = &target.user_name {
            properties = properties.with_user_id(short_string(name));
        }
        Some(Outgoing::new(exchange, key, properties, headers, edited.unwrap_or_else(|| self.body.clone())))
    }

    /// Reads the mark of the replay, or of the smoke test, that sent it, if its `user_id` is one of `trusted_users`. RabbitMQ accepts no
    /// `user_id` but the publisher's own. A replay is no smoke test: it keeps the header of whoever published the message first. What is
    /// found is the same for as long as the delivery is in flight.
    pub fn recognise_mark(&mut self, trusted_users: &[String]) {
        let is_trusted = self.user_id().is_some_and(|user| trusted_users.iter().any(|trusted| trusted == user));
        self.replay = if is_trusted { ReplayMark::read(|name| self.header(name)).map(Box::new) } else { None };
        self.is_smoke_test = is_trusted && self.replay.is_none() && self.has_smoke_test_mark();
    }

    /// The mark of the replay that sent it, if that was recognised.
    pub fn replay_mark(&self) -> Option<&ReplayMark> {
        self.replay.as_deref()
    }

    /// Whether it says that a replay sent it, whoever published it. Only for what a publisher may decide about its own messages.
    pub fn claims_replay(&self) -> bool {
        ReplayMark::read(|name| self.header(name)).is_some()
    }
}

/// lapin can set a property, but not remove it.
fn without_content_encoding(properties: &BasicProperties) -> BasicProperties {
    let mut json = json::properties_to_json(properties);
    json.remove("content_encoding");
    json::properties_from_json(&json).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use lapin::types::AMQPValue;

    use super::super::encoded_headers::Headers;
    use super::*;

    fn text(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    fn delivery(headers: &[(&str, AMQPValue)], properties: BasicProperties) -> Delivery {
        let headers: Headers = headers.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
        Delivery::for_test(b"body".to_vec(), properties.with_headers(headers.into()))
    }

    fn target(user_name: Option<&str>, queue: Option<&str>) -> ReplayTarget {
        ReplayTarget {
            replay_id: "r1".to_owned(),
            user_name: user_name.map(str::to_owned),
            queue: queue.map(str::to_owned),
        }
    }

    fn dead_letter() -> Delivery {
        let headers = [
            ("dl-reason", text("too_deep")),
            ("dl-id", text("0a")),
            ("dl-exchange", text("x")),
            ("dl-routing-key", text("k")),
            ("dl-user-id", text("app")),
            ("dl-replays", AMQPValue::LongLongInt(1)),
            ("own", AMQPValue::Boolean(true)),
            ("x-delivery-count", AMQPValue::LongLongInt(3)),
        ];
        let properties = BasicProperties::default().with_message_id("m".into()).with_content_encoding("gzip".into());
        delivery(&headers, properties)
    }

    #[test]
    fn a_replay_is_the_original_message_with_a_mark_that_the_worker_trusts() {
        let outgoing = dead_letter().replay(&dead_letter().record("work"), &target(Some("ops"), None), None).unwrap();
        assert_eq!((outgoing.exchange(), outgoing.routing_key(), outgoing.body.as_slice()), ("x", "k", &b"body"[..]));
        let headers = outgoing.headers.decode(|_| true);
        let names: Vec<&str> = headers.keys().map(ShortString::as_str).collect();
        assert_eq!(
            names,
            ["dl-exchange", "dl-first-id", "dl-replay-id", "dl-replays", "dl-routing-key", "dl-user-id", "own"]
        );
        assert_eq!(outgoing.properties.message_id().as_ref().unwrap().as_str(), "m");
        let mut received = Delivery::for_test(outgoing.body.clone(), outgoing.published_properties());
        received.recognise_mark(&["x".to_owned(), "ops".to_owned()]);
        let mark = received.replay_mark().unwrap();
        assert_eq!((mark.id.as_str(), mark.count, mark.first_id.as_str()), ("r1", 2, "0a"));
        assert_eq!(
            (mark.exchange.as_str(), mark.routing_key.as_str(), mark.user_id.as_deref()),
            ("x", "k", Some("app"))
        );
        received.recognise_mark(&["other".to_owned()]);
        assert_eq!(received.replay_mark(), None);
        assert_eq!(dead_letter().replay_mark(), None);
    }

    #[test]
    fn an_edited_body_has_no_encoding_and_may_go_to_a_queue() {
        let edited = Some(b"new".to_vec());
        let outgoing = dead_letter().replay(&dead_letter().record("work"), &target(None, Some("q")), edited).unwrap();
        assert_eq!((outgoing.exchange(), outgoing.routing_key(), outgoing.body.as_slice()), ("", "q", &b"new"[..]));
        assert!(outgoing.properties.content_encoding().is_none() && outgoing.properties.message_id().is_some());
    }

    #[test]
    fn a_message_that_the_broker_dead_lettered_is_replayed_to_its_origin() {
        let death: Headers = [
            ("reason", text("delivery_limit")),
            ("queue", text("work")),
            ("exchange", text("x")),
            ("time", AMQPValue::Timestamp(9)),
            ("routing-keys", AMQPValue::FieldArray(vec![text("ticket.a")].into())),
        ]
        .map(|(name, value)| (name.into(), value))
        .into();
        let x_death = AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death.into())].into());
        let dead = delivery(&[("x-death", x_death)], BasicProperties::default());
        let record = dead.record("work");
        assert_eq!(
            (record.cause.as_str(), record.exchange.as_str(), record.routing_key.as_str()),
            ("delivery_limit", "x", "ticket.a")
        );
        let copy = dead.copy_to(&record, "dlx", "parked", false);
        assert_eq!(copy.headers.get("dl-reason"), Some(text("delivery_limit")));
        let replayed = dead.replay(&record, &target(None, None), None).unwrap();
        assert_eq!((replayed.exchange(), replayed.routing_key()), ("x", "ticket.a"));
        assert_eq!(replayed.headers.get("x-death"), None);
    }

    #[test]
    fn a_routing_key_that_is_too_long_is_no_panic() {
        let mut record = dead_letter().record("work");
        record.routing_key = "k".repeat(300);
        assert!(dead_letter().replay(&record, &target(None, None), None).is_none());
    }
}
