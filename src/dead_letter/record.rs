//! Owns what the desk reads from a dead letter's headers. Must not know how they came off the wire.

use crate::event::Reason;

use super::{ID, ORIGIN, REPLAY_ID, REPLAYS, USER_ID, Value};

/// Why a message lies in a dead-letter queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// For one of the worker's reasons.
    Reason(Reason),
    /// It bears no trace of a dead-lettering: somebody published it there.
    Unknown,
}

impl Cause {
    /// The name in tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Reason(reason) => reason.as_str(),
            Cause::Unknown => "unknown",
        }
    }

    /// The reverse of [`Cause::as_str`].
    pub fn parse(name: &str) -> Option<Cause> {
        if name == "unknown" { Some(Cause::Unknown) } else { Reason::parse(name).map(Cause::Reason) }
    }

    /// Every name, for an error text.
    pub fn names() -> String {
        let names: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).chain(["unknown"]).collect();
        names.join(", ")
    }
}

/// What its headers say about a dead letter. Empty texts where they say nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// `dl-id`; none where the worker did not write it.
    pub id: Option<String>,
    /// The `dl-id` of its first dead letter, if this is not the first.
    pub origin: Option<String>,
    /// Why it is one.
    pub cause: Cause,
    /// The configured field at fault.
    pub field: Option<String>,
    /// What exactly is wrong.
    pub detail: String,
    /// When it became one, in milliseconds since 1970.
    pub time: Option<i64>,
    /// Where it was published originally.
    pub exchange: String,
    /// With which routing key.
    pub routing_key: String,
    /// The queue it was read from.
    pub queue: String,
    /// `host/version` of the worker.
    pub worker: String,
    /// Groups equal causes.
    pub fingerprint: String,
    /// How often it was replayed.
    pub replays: i64,
    /// The last replay.
    pub replay_id: Option<String>,
    /// The original's `user_id`.
    pub user_id: Option<String>,
}

/// The first entry of the broker's own account, `x-death`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Death {
    /// `delivery_limit`, `rejected`, `expired` or `maxlen`.
    pub reason: String,
    /// The queue that gave it up.
    pub queue: String,
    /// In seconds since 1970.
    pub time: Option<u64>,
    /// Where it was published originally.
    pub exchange: String,
    /// With which routing key.
    pub routing_key: String,
}

impl Record {
    /// Reads the worker's headers, or else the broker's account of its own dead-lettering. That account comes first where
    /// it begins at `work`, the worker's queue: then the worker wrote nothing, and such headers are a publisher's.
    pub fn read(get: impl Fn(&str) -> Option<Value>, death: Option<Death>, work: &str) -> Record {
        let text = |name: &str| get(name).and_then(Value::text);
        let reason = match (&death, text("dl-reason")) {
            (Some(death), Some(_)) if death.queue == work => None,
            (_, reason) => reason,
        };
        let Some(reason) = reason else { return death.map_or_else(Record::unknown, Record::of_broker) };
        let or_empty = |name: &str| text(name).unwrap_or_default();
        Record {
            id: text(ID),
            origin: text(ORIGIN),
            cause: Reason::parse(&reason).map_or(Cause::Unknown, Cause::Reason),
            field: text("dl-field"),
            detail: or_empty("dl-detail"),
            time: get("dl-time").and_then(|time| time.int()),
            exchange: or_empty("dl-exchange"),
            routing_key: or_empty("dl-routing-key"),
            queue: or_empty("dl-queue"),
            worker: or_empty("dl-worker"),
            fingerprint: or_empty("dl-fingerprint"),
            replays: get(REPLAYS).and_then(|count| count.int()).unwrap_or(0),
            replay_id: text(REPLAY_ID),
            user_id: text(USER_ID),
        }
    }

    fn unknown() -> Record {
        Record {
            id: None,
            origin: None,
            cause: Cause::Unknown,
            field: None,
            detail: String::new(),
            time: None,
            exchange: String::new(),
            routing_key: String::new(),
            queue: String::new(),
            worker: String::new(),
            fingerprint: String::new(),
            replays: 0,
            replay_id: None,
            user_id: None,
        }
    }

    fn of_broker(death: Death) -> Record {
        let detail = format!("dead-lettered by the broker: {}", super::one_line(&death.reason, 64));
        let rejection = crate::event::Rejection::new(Reason::DeliveryLimit, detail);
        Record {
            cause: Cause::Reason(Reason::DeliveryLimit),
            fingerprint: super::fingerprint(&rejection, &death.routing_key),
            detail: rejection.detail.into_owned(),
            time: death
                .time
                .and_then(|seconds| i64::try_from(seconds).ok())
                .and_then(|seconds| seconds.checked_mul(1000)),
            exchange: death.exchange,
            routing_key: death.routing_key,
            queue: death.queue,
            ..Record::unknown()
        }
    }

    /// The headers that say the same, for a dead letter that the worker did not write; `id` becomes its handle.
    pub fn headers(&self, id: String) -> Vec<(&'static str, Value)> {
        let text = |text: &String| Value::Text(text.clone());
        let mut headers = vec![
            ("dl-version", Value::Int(super::VERSION)),
            (ID, Value::Text(id)),
            ("dl-reason", Value::Text(self.cause.as_str().to_owned())),
            ("dl-detail", text(&self.detail)),
            ("dl-stage", Value::Text("broker".to_owned())),
            (super::EXCHANGE, text(&self.exchange)),
            (super::ROUTING_KEY, text(&self.routing_key)),
            ("dl-queue", text(&self.queue)),
            ("dl-fingerprint", text(&self.fingerprint)),
            (REPLAYS, Value::Int(self.replays)),
        ];
        headers.extend(self.time.map(|time| ("dl-time", Value::Int(time))));
        headers.extend(self.user_id.clone().map(|user_id| (USER_ID, Value::Text(user_id))));
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&str, Value)], death: Option<Death>) -> Record {
        Record::read(|name| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone()), death, "work")
    }

    #[test]
    fn reads_the_workers_headers_or_else_the_brokers_account() {
        let text = |text: &str| Value::Text(text.to_owned());
        let own = of(
            &[("dl-reason", text("too_deep")), ("dl-time", Value::Int(5)), (REPLAYS, Value::Int(2)), (ID, text("a"))],
            Some(Death::default()),
        );
        assert_eq!(
            (own.cause, own.time, own.replays, own.id.as_deref()),
            (Cause::Reason(Reason::TooDeep), Some(5), 2, Some("a"))
        );
        let death =
            Death { reason: "delivery_limit".into(), time: Some(7), routing_key: "k".into(), ..Death::default() };
        let brokers = of(&[], Some(death));
        assert_eq!((brokers.cause.as_str(), brokers.time, brokers.id.clone()), ("delivery_limit", Some(7000), None));
        assert_eq!(
            (brokers.detail.as_str(), brokers.routing_key.as_str()),
            ("dead-lettered by the broker: delivery_limit", "k")
        );
        let again = brokers.headers("b".into());
        let read = of(&again, None);
        assert_eq!(Record { id: None, ..read }, brokers);
        assert_eq!(of(&[], None).cause, Cause::Unknown);
        let forged = of(&[("dl-reason", text("too_deep"))], Some(Death { queue: "work".into(), ..Death::default() }));
        assert_eq!(forged.cause.as_str(), "delivery_limit");
    }
}
