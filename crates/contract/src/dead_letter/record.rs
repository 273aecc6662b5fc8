//! Owns the record of a dead letter: the contents of its headers.

use strum::VariantArray as _;

use crate::{LikelyCause, Reason, Rejection};

use super::headers::{
    CODE, EXCHANGE, FIRST_ID, HeaderValue, ID, REPLAY_ID, REPLAYS, ROUTING_KEY, UNIQUE_ID_0_2, USER_ID, VERSION,
    fingerprint, one_line,
};

/// Why a message is in a dead-letter queue, as far as its headers say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    Reason(Reason),
    /// It has no headers of a dead letter: somebody published it there, or its reason is not known to this version.
    #[default]
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
        if name == "unknown" { Some(Cause::Unknown) } else { name.parse().ok().map(Cause::Reason) }
    }

    /// What went wrong, and what an operator can do.
    pub fn explanation(self) -> [&'static str; 2] {
        match self {
            Cause::Reason(reason) => [reason.fault(), reason.remedy()],
            Cause::Unknown => [
                "Somebody published this into the dead-letter queue, without the headers that a worker writes.",
                "Find out who. A replay needs to know where to (`--to-queue`): park it, or export and delete it.",
            ],
        }
    }

    /// The same of one dead letter, from its detail: what was found in the body, or else what the reason says.
    pub fn explanation_of(self, detail: &str) -> [&'static str; 2] {
        LikelyCause::of_detail(detail).map_or_else(|| self.explanation(), |cause| [cause.meaning(), cause.remedy()])
    }

    /// An expression for `--edit` that often helps.
    pub fn edit(self) -> Option<&'static str> {
        match self {
            Cause::Reason(reason) => reason.edit(),
            Cause::Unknown => None,
        }
    }

    /// All names, for help, errors and completions.
    pub fn names() -> Vec<&'static str> {
        Reason::VARIANTS.iter().map(|reason| reason.as_str()).chain(["unknown"]).collect()
    }
}

/// What the headers of a dead letter say. A text is empty if its header is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterRecord {
    /// `dl-id`; `None` if the worker did not write the dead letter.
    pub id: Option<String>,
    /// The id of the message's first dead letter, if this is not the first.
    pub first_id: Option<String>,
    pub cause: Cause,
    /// The configured field at fault.
    pub field: Option<String>,
    /// MongoDB's error code, if MongoDB rejected the document.
    pub code: Option<i64>,
    pub detail: String,
    /// When it became a dead letter, in milliseconds since 1970.
    pub time: Option<i64>,
    /// Where it was published originally.
    pub exchange: String,
    /// Its original routing key.
    pub routing_key: String,
    /// The queue that it was consumed from.
    pub queue: String,
    /// `host/version` of the worker.
    pub worker: String,
    /// Equal for equal causes.
    pub fingerprint: String,
    /// How often the message was replayed.
    pub replays: i64,
    /// The id of the last replay.
    pub replay_id: Option<String>,
    /// Its original `user_id`.
    pub user_id: Option<String>,
}

/// The oldest entry of `x-death`, the header that RabbitMQ writes when it dead-letters a message itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct XDeath {
    /// `delivery_limit`, `rejected`, `expired` or `maxlen`.
    pub reason: String,
    /// The queue that dead-lettered it.
    pub queue: String,
    /// In seconds since 1970.
    pub time: Option<u64>,
    /// Where it was published originally.
    pub exchange: String,
    /// Its original routing key.
    pub routing_key: String,
}

/// Whether it is the worker's queue, or one of its shards: `queue.2` and so on.
fn is_shard_of(queue: &str, worker_queue: &str) -> bool {
    let shard = queue.strip_prefix(worker_queue).and_then(|rest| rest.strip_prefix('.')?.parse::<u16>().ok());
    queue == worker_queue || shard.is_some_and(|shard| shard >= 2)
}

impl DeadLetterRecord {
    /// The id of the message's first dead letter, which names the message in its replays.
    pub fn first_dead_letter_id(&self) -> Option<&str> {
        self.first_id.as_deref().or(self.id.as_deref())
    }

    /// Reads the worker's headers, or else `x-death`. `x-death` has priority if its queue is `worker_queue`: then RabbitMQ
    /// dead-lettered the message itself, and the other headers are from a publisher.
    pub fn read(
        get: impl Fn(&str) -> Option<HeaderValue>,
        death: Option<XDeath>,
        worker_queue: &str,
    ) -> DeadLetterRecord {
        let text = |name: &str| get(name).and_then(HeaderValue::text);
        let reason = match (&death, text("dl-reason")) {
            (Some(death), Some(_)) if is_shard_of(&death.queue, worker_queue) => None,
            (_, reason) => reason,
        };
        let Some(reason) = reason else {
            return death.map(DeadLetterRecord::from_x_death).unwrap_or_default();
        };
        let or_empty = |name: &str| text(name).unwrap_or_default();
        DeadLetterRecord {
            id: text(ID),
            first_id: text(FIRST_ID).or_else(|| text(UNIQUE_ID_0_2)),
            cause: reason.parse().map_or(Cause::Unknown, Cause::Reason),
            field: text("dl-field"),
            code: get(CODE).and_then(|code| code.int()),
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

    fn from_x_death(death: XDeath) -> DeadLetterRecord {
        let detail = format!("dead-lettered by RabbitMQ: {}", one_line(&death.reason, 64));
        // Source: RabbitMQ's page on dead lettering. The reason is that of the first death.
        let reason = match death.reason.as_str() {
            "expired" => Reason::Expired,
            "maxlen" => Reason::Maxlen,
            "rejected" => Reason::RejectedByClient,
            _ => Reason::DeliveryLimit,
        };
        let rejection = Rejection::new(reason, detail);
        DeadLetterRecord {
            cause: Cause::Reason(reason),
            fingerprint: fingerprint(&rejection),
            detail: rejection.detail.into_owned(),
            time: death
                .time
                .and_then(|seconds| i64::try_from(seconds).ok())
                .and_then(|seconds| seconds.checked_mul(1000)),
            exchange: death.exchange,
            routing_key: death.routing_key,
            queue: death.queue,
            ..DeadLetterRecord::default()
        }
    }

    /// The `dl-` headers for a dead letter that the worker did not write.
    pub fn headers(&self, id: String) -> Vec<(&'static str, HeaderValue)> {
        let text = |text: &String| HeaderValue::Text(text.clone());
        let mut headers = vec![
            ("dl-version", HeaderValue::Int(VERSION)),
            ("dl-reason", HeaderValue::Text(self.cause.as_str().to_owned())),
            ("dl-detail", text(&self.detail)),
            ("dl-stage", HeaderValue::Text("broker".to_owned())),
            (EXCHANGE, text(&self.exchange)),
            (ROUTING_KEY, text(&self.routing_key)),
            ("dl-queue", text(&self.queue)),
            ("dl-fingerprint", text(&self.fingerprint)),
            (REPLAYS, HeaderValue::Int(self.replays)),
        ];
        headers.push((ID, HeaderValue::Text(id)));
        headers.extend(self.time.map(|time| ("dl-time", HeaderValue::Int(time))));
        headers.extend(self.user_id.clone().map(|user_id| (USER_ID, HeaderValue::Text(user_id))));
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&str, HeaderValue)], death: Option<XDeath>) -> DeadLetterRecord {
        DeadLetterRecord::read(
            |name| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone()),
            death,
            "work",
        )
    }

    #[test]
    fn reads_the_workers_headers_or_else_x_death() {
        let text = |text: &str| HeaderValue::Text(text.to_owned());
        let own = read(
            &[
                ("dl-reason", text("too_deep")),
                ("dl-time", HeaderValue::Int(5)),
                (REPLAYS, HeaderValue::Int(2)),
                (ID, text("a")),
            ],
            Some(XDeath::default()),
        );
        assert_eq!(
            (own.cause, own.time, own.replays, own.id.as_deref()),
            (Cause::Reason(Reason::TooDeep), Some(5), 2, Some("a"))
        );
        let death =
            XDeath { reason: "delivery_limit".into(), time: Some(7), routing_key: "k".into(), ..XDeath::default() };
        let from_broker = read(&[], Some(death));
        assert_eq!(
            (from_broker.cause.as_str(), from_broker.time, from_broker.id.clone()),
            ("delivery_limit", Some(7000), None)
        );
        assert_eq!(
            (from_broker.detail.as_str(), from_broker.routing_key.as_str()),
            ("dead-lettered by RabbitMQ: delivery_limit", "k")
        );
        for (name, cause) in [("expired", "expired"), ("maxlen", "maxlen"), ("rejected", "rejected_by_client")] {
            let death = XDeath { reason: name.into(), ..XDeath::default() };
            assert_eq!(read(&[], Some(death)).cause.as_str(), cause);
        }
        let read_again = read(&from_broker.headers("b".to_owned()), None);
        assert_eq!(DeadLetterRecord { id: None, ..read_again }, from_broker);
        assert_eq!(read(&[], None).cause, Cause::Unknown);
        let forged =
            read(&[("dl-reason", text("too_deep"))], Some(XDeath { queue: "work".into(), ..XDeath::default() }));
        assert_eq!(forged.cause.as_str(), "delivery_limit");
    }
}
