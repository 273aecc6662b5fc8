//! Owns what a delivery is made into for the dead-letter desk: read, archived, moved, replayed; and how the worker knows
//! a replayed message. Must not know when any of that happens.

use std::collections::BTreeMap;

use bson::oid::ObjectId;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::uri::AMQPUri;
use secrecy::ExposeSecret;

use crate::config;
use crate::dead_letter::{self, Archived, Death, Record, Replay, Value};

use super::delivery::{Delivery, Outgoing, keep_properties, short};
use super::headers;

/// Headers that the broker writes when it delivers or dead-letters. They are no part of the message.
const BROKERS: [&str; 8] = [
    "x-death",
    "x-delivery-count",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
];

/// One replay.
#[derive(Debug, Clone)]
pub struct Replaying {
    /// Its id.
    pub id: String,
    /// Our user name at the broker, which vouches for it.
    pub login: Option<String>,
    /// The queue it goes to, past exchanges.
    pub to: Option<String>,
}

/// Whether a header is a publisher's: neither ours nor the broker's.
fn of_message(name: &str) -> bool {
    !name.starts_with(dead_letter::PREFIX) && !BROKERS.contains(&name)
}

type Headers = BTreeMap<ShortString, AMQPValue>;

/// The user name of `broker.uri`, which the broker vouches for in `user_id`.
pub fn login(settings: &config::Broker) -> Option<String> {
    let addresses = config::broker_addresses(settings.uri.expose_secret());
    let uri: AMQPUri = addresses.first()?.parse().ok()?;
    Some(uri.authority.userinfo.username.to_string()).filter(|name| !name.is_empty())
}

fn to_value(value: &AMQPValue) -> Option<Value> {
    Some(match value {
        AMQPValue::LongString(text) => Value::Text(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Value::Text(text.to_string()),
        AMQPValue::LongLongInt(number) => Value::Int(*number),
        AMQPValue::LongInt(number) => Value::Int(i64::from(*number)),
        AMQPValue::LongUInt(number) => Value::Int(i64::from(*number)),
        _ => return None,
    })
}

fn insert(headers: &mut Headers, own: Vec<(&'static str, Value)>) {
    for (name, value) in own {
        let value = match value {
            Value::Int(number) => AMQPValue::LongLongInt(number),
            Value::Text(text) => AMQPValue::LongString(text.into()),
        };
        headers.insert(name.into(), value);
    }
}

impl Delivery {
    fn header(&self, name: &str) -> Option<&AMQPValue> {
        self.properties.headers().as_ref()?.inner().get(name)
    }

    /// What its headers say about why it is a dead letter; `work` is the worker's queue.
    pub fn record(&self, work: &str) -> Record {
        let mut record = Record::read(|name| self.header(name).and_then(to_value), self.death(), work);
        record.user_id = record.user_id.or_else(|| self.user_id().map(str::to_owned));
        record
    }

    /// The oldest entry of the broker's own account, which is the last of the list.
    fn death(&self) -> Option<Death> {
        let AMQPValue::FieldArray(deaths) = self.header("x-death")? else { return None };
        let AMQPValue::FieldTable(death) = deaths.as_slice().last()? else { return None };
        let get = |name: &str| death.inner().get(name);
        let text = |name| get(name).and_then(to_value).and_then(Value::text).unwrap_or_default();
        let key = match get("routing-keys") {
            Some(AMQPValue::FieldArray(keys)) => keys.as_slice().first().and_then(to_value).and_then(Value::text),
            _ => None,
        };
        let time = match get("time") {
            Some(AMQPValue::Timestamp(seconds)) => Some(*seconds),
            _ => None,
        };
        let (reason, queue, exchange) = (text("reason"), text("queue"), text("exchange"));
        Some(Death { reason, queue, time, exchange, routing_key: key.unwrap_or_default() })
    }

    /// How often a quorum queue has given it out before.
    pub fn delivery_count(&self) -> i64 {
        self.header("x-delivery-count").and_then(to_value).and_then(|value| value.int()).unwrap_or(0)
    }

    /// The headers that `keep` keeps.
    fn headers_but(&self, keep: impl Fn(&str) -> bool) -> Headers {
        let sent = self.properties.headers().as_ref().map(FieldTable::inner);
        let kept = sent.into_iter().flatten().filter(|(name, _)| keep(name.as_str()));
        kept.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Its headers as a dead letter that any queue may hold: without the broker's count of looks, and with the worker's
    /// headers in place of `x-death`, which RabbitMQ 4 drops from what clients send.
    fn letter_headers(&self, record: &Record) -> Headers {
        if record.id.is_some() {
            return self.headers_but(|name| name != "x-delivery-count");
        }
        let mut all = self.headers_but(of_message);
        insert(&mut all, record.headers(ObjectId::new().to_hex()));
        all
    }

    /// Its archive form; none if its headers are nested too deep for JSON.
    pub fn archive(&self, record: &Record, queue: &str) -> Option<Archived> {
        Some(Archived {
            queue: queue.to_owned(),
            body: self.body.clone(),
            properties: headers::properties_to_json(&self.properties),
            headers: headers::to_json(&self.letter_headers(record).into())?,
        })
    }

    /// The same dead letter for another queue; `fresh` forgets how often it was replayed.
    pub fn moved(&self, record: &Record, exchange: &str, routing_key: &str, fresh: bool) -> Outgoing {
        let mut all = self.letter_headers(record);
        if fresh {
            insert(&mut all, vec![(dead_letter::REPLAYS, Value::Int(0))]);
        }
        self.outgoing(short(exchange), short(routing_key), all, self.body.clone())
    }

    /// The message as it was before it died, for where it was published to or for the queue `to`, with the mark of the
    /// replay. An edited body is not encoded. None if no exchange or routing key can be called so.
    pub fn replayed(&self, record: &Record, replay: &Replaying, edited: Option<Vec<u8>>) -> Option<Outgoing> {
        let first = record.origin.clone().or_else(|| record.id.clone());
        let mark = Replay {
            id: replay.id.clone(),
            count: record.replays.saturating_add(1),
            letter: first.unwrap_or_else(|| ObjectId::new().to_hex()),
            exchange: record.exchange.clone(),
            routing_key: record.routing_key.clone(),
            user_id: record.user_id.clone(),
        };
        let mut all = self.headers_but(of_message);
        insert(&mut all, mark.headers());
        let (exchange, key) = match &replay.to {
            Some(queue) => ("", queue.as_str()),
            None => (record.exchange.as_str(), record.routing_key.as_str()),
        };
        let (exchange, key) = (ShortString::try_new(exchange).ok()?, ShortString::try_new(key).ok()?);
        let plain = edited.is_some();
        let mut outgoing = self.outgoing(exchange, key, all, edited.unwrap_or_else(|| self.body.clone()));
        if plain {
            outgoing.properties = without_encoding(&outgoing.properties);
        }
        if let Some(login) = &replay.login {
            outgoing.properties = outgoing.properties.with_user_id(short(login));
        }
        Some(outgoing)
    }

    /// An archived message as if it were delivered, to try what is done with one.
    ///
    /// # Errors
    /// As for [`Outgoing::archived`].
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn of_archive(archived: Archived) -> Result<Self, String> {
        let outgoing = Outgoing::archived(archived, "", "")?;
        let mut delivered = lapin::message::Delivery::mock(1, "".into(), "".into(), false, outgoing.body);
        delivered.properties = outgoing.properties;
        Ok(Delivery::new(delivered).0)
    }

    fn outgoing(&self, exchange: ShortString, routing_key: ShortString, headers: Headers, body: Vec<u8>) -> Outgoing {
        let properties = keep_properties(&self.properties).with_headers(headers.into());
        let mark = super::delivery::mark_of(&properties).unwrap_or_default();
        Outgoing { exchange, routing_key, mark, properties, body }
    }

    /// The mark of the replay that brought it. Only a message whose `user_id` is one of `logins` is believed: the broker
    /// has made sure that nobody else sent it.
    pub fn replay(&self, logins: &[String]) -> Option<Replay> {
        let user = self.user_id()?;
        if !logins.iter().any(|login| login == user) {
            return None;
        }
        Replay::read(|name| self.header(name).and_then(to_value))
    }

    /// Its properties and headers as JSON, for showing; headers that are nested too deep are left out.
    pub fn shown(&self) -> (serde_json::Map<String, serde_json::Value>, serde_json::Map<String, serde_json::Value>) {
        let all = self.properties.headers().as_ref().and_then(headers::to_json).unwrap_or_default();
        (headers::properties_to_json(&self.properties), all)
    }
}

/// `lapin` can set a property, but not take it away.
fn without_encoding(properties: &BasicProperties) -> BasicProperties {
    let mut json = headers::properties_to_json(properties);
    json.remove("content_encoding");
    let kept = headers::properties_from_json(&json).unwrap_or_default();
    match properties.headers() {
        Some(headers) => kept.with_headers(headers.clone()),
        None => kept,
    }
}

impl Outgoing {
    /// A message out of an archive.
    ///
    /// # Errors
    /// Which property or header is not one.
    pub fn archived(archived: Archived, exchange: &str, routing_key: &str) -> Result<Outgoing, String> {
        let properties = headers::properties_from_json(&archived.properties)?;
        let mut headers = headers::from_json(&archived.headers)?;
        if let Some(user) = properties.user_id()
            && !headers.contains_key(dead_letter::USER_ID)
        {
            headers.insert(dead_letter::USER_ID.into(), AMQPValue::LongString(user.as_str().into()));
        }
        let properties = keep_properties(&properties).with_headers(headers);
        let mark = super::delivery::mark_of(&properties).unwrap_or_default();
        Ok(Outgoing {
            exchange: short(exchange),
            routing_key: short(routing_key),
            mark,
            properties,
            body: archived.body,
        })
    }

    /// The exchange it is for.
    pub fn exchange(&self) -> &str {
        self.exchange.as_str()
    }

    /// Its routing key.
    pub fn routing_key(&self) -> &str {
        self.routing_key.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    fn delivery(headers: &[(&str, AMQPValue)], properties: BasicProperties) -> Delivery {
        let headers: Headers = headers.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
        let mut delivery = lapin::message::Delivery::mock(1, "dlx".into(), "dead".into(), true, b"body".to_vec());
        delivery.properties = properties.with_headers(headers.into());
        Delivery::new(delivery).0
    }

    fn replaying(login: Option<&str>, to: Option<&str>) -> Replaying {
        Replaying { id: "r1".to_owned(), login: login.map(str::to_owned), to: to.map(str::to_owned) }
    }

    fn letter() -> Delivery {
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
    fn a_replay_is_the_message_as_it_was_with_a_mark_that_the_worker_believes() {
        let outgoing = letter().replayed(&letter().record("work"), &replaying(Some("ops"), None), None).unwrap();
        assert_eq!((outgoing.exchange(), outgoing.routing_key(), outgoing.body.as_slice()), ("x", "k", &b"body"[..]));
        let names: Vec<String> =
            outgoing.properties.headers().as_ref().unwrap().inner().keys().map(|k| k.to_string()).collect();
        assert_eq!(
            names,
            ["dl-exchange", "dl-id", "dl-replay-id", "dl-replays", "dl-routing-key", "dl-user-id", "own"]
        );
        assert_eq!(outgoing.properties.message_id().as_ref().unwrap().as_str(), "m");
        let mut again = lapin::message::Delivery::mock(2, "".into(), "q".into(), false, outgoing.body.clone());
        again.properties = outgoing.properties.clone();
        let again = Delivery::new(again).0;
        let mark = again.replay(&["x".to_owned(), "ops".to_owned()]).unwrap();
        assert_eq!((mark.id.as_str(), mark.count, mark.letter.as_str()), ("r1", 2, "0a"));
        assert_eq!(
            (mark.exchange.as_str(), mark.routing_key.as_str(), mark.user_id.as_deref()),
            ("x", "k", Some("app"))
        );
        assert_eq!(again.replay(&["other".to_owned()]), None);
        assert_eq!(letter().replay(&[]), None);
    }

    #[test]
    fn an_edited_body_is_not_encoded_and_may_go_to_a_queue() {
        let outgoing =
            letter().replayed(&letter().record("work"), &replaying(None, Some("q")), Some(b"new".to_vec())).unwrap();
        assert_eq!((outgoing.exchange(), outgoing.routing_key(), outgoing.body.as_slice()), ("", "q", &b"new"[..]));
        assert!(outgoing.properties.content_encoding().is_none() && outgoing.properties.message_id().is_some());
    }

    #[test]
    fn what_the_broker_dead_lettered_tells_its_story_and_keeps_it_when_moved() {
        let death: Headers = [
            ("reason", text("delivery_limit")),
            ("queue", text("work")),
            ("exchange", text("x")),
            ("time", AMQPValue::Timestamp(9)),
            ("routing-keys", AMQPValue::FieldArray(vec![text("ticket.a")].into())),
        ]
        .map(|(name, value)| (name.into(), value))
        .into();
        let dead = delivery(
            &[("x-death", AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death.into())].into()))],
            BasicProperties::default(),
        );
        let record = dead.record("work");
        assert_eq!(
            (record.cause.as_str(), record.exchange.as_str(), record.routing_key.as_str()),
            ("delivery_limit", "x", "ticket.a")
        );
        let moved = dead.moved(&record, "dlx", "parked", false);
        let headers = moved.properties.headers().clone().unwrap();
        assert_eq!(headers.inner().get("dl-reason"), Some(&text("delivery_limit")));
        let replayed = dead.replayed(&record, &replaying(None, None), None).unwrap();
        assert_eq!((replayed.exchange(), replayed.routing_key()), ("x", "ticket.a"));
        assert!(!replayed.properties.headers().as_ref().unwrap().inner().contains_key("x-death"));
    }

    #[test]
    fn a_key_that_cannot_be_one_is_no_panic() {
        let mut record = letter().record("work");
        record.routing_key = "k".repeat(300);
        assert!(letter().replayed(&record, &replaying(None, None), None).is_none());
    }

    #[test]
    fn an_archived_letter_comes_back_as_it_was() {
        let archived = letter().archive(&letter().record("work"), "q").unwrap();
        let line = Archived::from_line(archived.to_line().as_bytes()).unwrap();
        let back = Outgoing::archived(line, "dlx", "dead").unwrap();
        assert_eq!(back.properties, letter().moved(&letter().record("work"), "dlx", "dead", false).properties);
        assert_eq!((back.mark.as_str(), back.body.as_slice()), ("0a", &b"body"[..]));
    }
}
