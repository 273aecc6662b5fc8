//! Owns the dead letter as an AMQP message: made by the worker, copied to another queue, archived, and restored from an archive.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bson::oid::ObjectId;
use lapin::types::AMQPValue;

use xxhash_rust::xxh3::Xxh3;

use ticketlog_contract::dead_letter::{self, ArchivedMessage, DeadLetterFields, DeadLetterRecord, HeaderValue};

use super::super::connection::invalid_text::InvalidText;
use super::delivery::Delivery;
use super::encoded_headers::Headers;
use super::headers::{ORIGINAL_BYTES, insert, is_publisher_header, is_transport_header, kept_cc};
use super::json;
use super::outgoing::Outgoing;
use super::outgoing::{republished, short_string};

/// Longest `dl-original-bytes`, in bytes. All properties of a message fit.
const MAX_ORIGINAL_BYTES: usize = 6 << 10;

impl Delivery {
    /// The id of its new dead letter for this cause. `exchange` and `routing_key` are those that it was published to first,
    /// `first_id` is the id of its first dead letter, if a replay sent it.
    ///
    /// A message without an identity gets an id of its own each time: equal ones are different events, and a replay makes the
    /// id their identity.
    pub fn new_dead_letter_id(&self, cause: &str, exchange: &str, routing_key: &str, first_id: Option<&str>) -> String {
        match (self.identifying_message_id(), first_id) {
            (None, None) => ObjectId::new().to_hex(),
            (Some(_), _) => self.dead_letter_hash(cause, exchange, routing_key, ""),
            (None, Some(first_id)) => self.dead_letter_hash(cause, exchange, routing_key, first_id),
        }
    }

    /// The `message_id`, unless it is empty: that is not an identity for the decoder either.
    fn identifying_message_id(&self) -> Option<&str> {
        self.message_id().filter(|id| !id.is_empty())
    }

    /// What a replay does not keep is left out, so that a message that was replayed has the same id again.
    fn dead_letter_hash(&self, cause: &str, exchange: &str, routing_key: &str, first_id: &str) -> String {
        let kept = republished(&self.properties);
        let headers = self.headers.decode(is_publisher_header);
        let properties = serde_json::Value::Object(json::properties_to_json(&kept)).to_string();
        let headers = serde_json::Value::Object(json::headers_to_json(&headers.into())).to_string();
        let mut hash = Xxh3::new();
        let parts = [cause, exchange, routing_key, first_id, &properties].map(str::as_bytes);
        let texts = self.invalid_texts.iter().map(|invalid| invalid.bytes.as_slice());
        for part in parts.into_iter().chain([headers.as_bytes(), self.body.as_slice()]).chain(texts) {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        format!("{:032x}", hash.digest128()).split_off(8)
    }

    /// The id by which a dead letter is shown and selected: its `dl-id`, or a hash of what it is if the worker did not write it.
    pub fn dead_letter_id(&self, record: &DeadLetterRecord) -> String {
        let computed = || self.dead_letter_hash(record.cause.as_str(), &record.exchange, &record.routing_key, "");
        record.id.clone().unwrap_or_else(computed)
    }

    /// What filters compare.
    pub fn dead_letter_fields<'a>(&'a self, record: &'a DeadLetterRecord, id: &'a str) -> DeadLetterFields<'a> {
        DeadLetterFields {
            id,
            cause: record.cause,
            field: record.field.as_deref(),
            code: record.code,
            detail: &record.detail,
            time: record.time,
            message_id: self.message_id(),
            fingerprint: &record.fingerprint,
            exchange: &record.exchange,
            routing_key: &record.routing_key,
            publisher: self.app_id().or(record.user_id.as_deref()),
            replays: record.replays,
            replay_id: record.replay_id.as_deref(),
        }
    }

    /// Turns it into its dead letter. Body and properties stay as they are, except that it becomes persistent and loses
    /// `expiration` and `user_id`; `headers` replace the publisher's headers of the same names.
    pub fn into_dead_letter(
        self,
        exchange: &str,
        routing_key: &str,
        headers: Vec<(&'static str, HeaderValue)>,
    ) -> Outgoing {
        let mut all = self.headers.decode(is_publisher_header);
        all.extend(kept_cc(&self.headers));
        insert(&mut all, headers);
        insert(&mut all, self.lost_parts());
        let properties = republished(&self.properties);
        Outgoing::new(short_string(exchange), short_string(routing_key), properties, all, self.body)
    }

    /// What the dead letter does not keep as it was, as headers: `expiration`, `delivery_mode`, texts that are not UTF-8.
    fn lost_parts(&self) -> Vec<(&'static str, HeaderValue)> {
        let expiration = self.properties.expiration().as_ref().map(|text| HeaderValue::Text(text.to_string()));
        let mode = self.properties.delivery_mode().filter(|mode| *mode != 2).map(|mode| HeaderValue::Int(mode.into()));
        let named =
            [("dl-expiration", expiration), ("dl-delivery-mode", mode), (ORIGINAL_BYTES, self.original_bytes())];
        named.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// The texts that are not UTF-8, in base64: `message_id=Y2Fm6Q== header_name=6Q==`.
    fn original_bytes(&self) -> Option<HeaderValue> {
        let encode = |invalid: &InvalidText| format!("{}={}", invalid.location, BASE64.encode(&invalid.bytes));
        let mut all = String::new();
        for (n, text) in self.invalid_texts.iter().map(encode).enumerate() {
            if all.len() + text.len() > MAX_ORIGINAL_BYTES {
                all.push_str(&format!("… {} more ", self.invalid_texts.len() - n));
                break;
            }
            all.push_str(&text);
            all.push(' ');
        }
        (!all.is_empty()).then(|| HeaderValue::Text(all.trim_end().to_owned()))
    }

    /// The headers of a dead letter that leaves its queue, without those of RabbitMQ. `dl-` headers replace `x-death`, which
    /// RabbitMQ 4 drops from what clients publish.
    fn portable_headers(&self, record: &DeadLetterRecord) -> Headers {
        if record.id.is_some() {
            let mut headers = self.headers.decode(|name| !is_transport_header(name));
            insert(&mut headers, self.original_bytes().map(|bytes| (ORIGINAL_BYTES, bytes)).into_iter().collect());
            return headers;
        }
        let mut headers = self.headers.decode(is_publisher_header);
        headers.extend(kept_cc(&self.headers));
        let id = self.new_dead_letter_id(record.cause.as_str(), &record.exchange, &record.routing_key, None);
        insert(&mut headers, record.headers(id));
        insert(&mut headers, self.lost_parts());
        headers
    }

    pub fn archive(&self, record: &DeadLetterRecord, queue: &str) -> ArchivedMessage {
        ArchivedMessage {
            queue: queue.to_owned(),
            body: self.body.clone(),
            properties: json::properties_to_json(&self.properties),
            headers: json::headers_to_json(&self.portable_headers(record).into()),
        }
    }

    /// The same dead letter for another queue. `reset_replays` sets its replay count to 0.
    pub fn copy_to(
        &self,
        record: &DeadLetterRecord,
        exchange: &str,
        routing_key: &str,
        reset_replays: bool,
    ) -> Outgoing {
        let mut headers = self.portable_headers(record);
        if reset_replays {
            insert(&mut headers, vec![(dead_letter::REPLAYS, HeaderValue::Int(0))]);
        }
        let properties = republished(&self.properties);
        Outgoing::new(short_string(exchange), short_string(routing_key), properties, headers, self.body.clone())
    }

    /// An archived message as if it had been delivered, for tests.
    ///
    /// # Errors
    /// As for [`Outgoing::from_archive`].
    pub fn from_archive(archived: ArchivedMessage) -> Result<Self, String> {
        let outgoing = Outgoing::from_archive(archived, "", "")?;
        let properties = outgoing.published_properties();
        Ok(Delivery::for_test(outgoing.body, properties))
    }
}

impl Outgoing {
    /// A message from an archive.
    ///
    /// # Errors
    /// Which property or header is not valid.
    pub fn from_archive(archived: ArchivedMessage, exchange: &str, routing_key: &str) -> Result<Outgoing, String> {
        let properties = json::properties_from_json(&archived.properties)?;
        let headers = json::headers_from_json(&archived.headers)?;
        // An archive may hold a message that never was a dead letter of the worker.
        let kept = headers.inner().iter().filter(|(name, _)| !is_transport_header(name.as_str()));
        let mut headers: Headers = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        if let Some(user) = properties.user_id()
            && !headers.contains_key(dead_letter::USER_ID)
        {
            headers.insert(dead_letter::USER_ID.into(), AMQPValue::LongString(user.as_str().into()));
        }
        let properties = republished(&properties);
        Ok(Outgoing::new(short_string(exchange), short_string(routing_key), properties, headers, archived.body))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lapin::BasicProperties;

    use super::*;

    fn text(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    #[test]
    fn a_dead_letter_keeps_all_that_belongs_to_the_message() {
        let headers = BTreeMap::from([
            ("a".into(), text("kept")),
            ("dl-reason".into(), text("forged")),
            ("dl-x".into(), text("forged")),
            ("x-delivery-count".into(), AMQPValue::LongLongInt(1_000_000)),
            ("CC".into(), AMQPValue::FieldArray(vec![text("elsewhere")].into())),
            ("BCC".into(), text("elsewhere")),
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
        let own = vec![("dl-id", HeaderValue::Text("0a".into())), ("dl-reason", HeaderValue::Text("too_deep".into()))];
        let dead_letter = Delivery::for_test(b"body".to_vec(), original).into_dead_letter("dlx", "dead", own);
        let expected = BTreeMap::from([
            ("a".into(), text("kept")),
            ("dl-cc".into(), AMQPValue::FieldArray(vec![text("elsewhere")].into())),
            ("dl-delivery-mode".into(), AMQPValue::LongLongInt(1)),
            ("dl-expiration".into(), text("1")),
            ("dl-id".into(), text("0a")),
            ("dl-reason".into(), text("too_deep")),
        ]);
        assert_eq!((dead_letter.body.as_slice(), dead_letter.return_key.as_str()), (&b"body"[..], "0a"));
        assert_eq!(
            dead_letter.published_properties(),
            BasicProperties::default()
                .with_content_type("text/xml".into())
                .with_priority(255)
                .with_delivery_mode(2)
                .with_reply_to("r".into())
                .with_correlation_id("c".into())
                .with_headers(expected.into())
        );
    }

    #[test]
    fn an_archived_dead_letter_is_restored_without_the_brokers_headers() {
        let headers: Headers = [
            ("dl-reason", text("too_deep")),
            ("dl-id", text("0a")),
            ("own", AMQPValue::Boolean(true)),
            ("x-delivery-count", AMQPValue::LongLongInt(3)),
            ("x-acquired-count", AMQPValue::LongLongInt(4)),
        ]
        .map(|(name, value)| (name.into(), value))
        .into();
        let properties = BasicProperties::default().with_message_id("m".into()).with_headers(headers.into());
        let dead_letter = Delivery::for_test(b"body".to_vec(), properties);
        let record = dead_letter.record("work");
        let archived = dead_letter.archive(&record, "q");
        let names: Vec<&str> = archived.headers.keys().map(String::as_str).collect();
        assert_eq!(names, ["dl-id", "dl-reason", "own"]);
        let line = ArchivedMessage::from_line(archived.to_line().as_bytes()).unwrap();
        let restored = Outgoing::from_archive(line, "dlx", "dead").unwrap();
        let copy = dead_letter.copy_to(&record, "dlx", "dead", false);
        assert_eq!(restored.published_properties(), copy.published_properties());
        assert_eq!((restored.return_key.as_str(), restored.body.as_slice()), ("0a", &b"body"[..]));
    }
}
