//! Owns how often a queue gives a message out before the broker destroys it: what can be found out, and whether it is
//! safe to look. Changes nothing. Must not know why anybody looks.
//!
//! Every look at a message of a quorum queue is a delivery, and counts against the queue's delivery limit. The limit may
//! stand in the queue's arguments (which a declaration with other arguments is told), in a policy (which only the
//! management API tells), or be RabbitMQ's default (20 since 4.0, none before).

use std::collections::BTreeMap;
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use lapin::{Connection, ErrorKind};
use regex::Regex;
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::time::timeout;
use url::Url;

use crate::config;

use super::greeting::{self, Greeting};
use super::management::Management;
use super::topology::NEVER;
use super::{BrokerError, call};

/// A delivery limit below this is too near. At and above it, the desk stops when a message has used up half.
const NEAR: i64 = 1000;
/// RabbitMQ's own limit since 4.0.
const DEFAULT_OF_4: i64 = 20;
/// Different arguments that a queue is asked about at most.
const ARGUMENTS: usize = 16;

/// What a queue's arguments say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// No limit is known to it.
    Classic,
    /// With this limit among its arguments.
    Quorum(Option<i64>),
    /// Not a queue of dead letters.
    Stream,
    /// We may not ask.
    Unknown,
}

/// What is known of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lives {
    pub kind: Kind,
    /// RabbitMQ's major version.
    pub version: Option<u32>,
    pub policy: Policy,
}

/// What policies say about the delivery limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    /// The strictest of those that may apply.
    Known(Option<i64>),
    /// Nobody was asked.
    NotAsked,
    /// The management API gave no answer that can be read.
    NoAnswer,
}

/// Whether a queue may be looked through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may; up to so many deliveries of a message, where there is a limit.
    Safe(Option<i64>),
    /// As far as can be known; what cannot is said.
    Likely(Option<i64>, &'static str),
    /// It must not: why.
    Deadly(String),
    /// The management API that was named gives no answer that can be read.
    Unanswered,
    /// We may not ask: what permission is missing.
    Forbidden,
}

impl Lives {
    pub(super) fn verdict(self) -> Verdict {
        let argument = match self.kind {
            Kind::Classic => return Verdict::Safe(None),
            Kind::Stream => return Verdict::Deadly("it is a stream, which keeps no dead letters".to_owned()),
            Kind::Unknown => return Verdict::Forbidden,
            Kind::Quorum(argument) => argument,
        };
        let policy = match self.policy {
            Policy::Known(policy) => policy,
            Policy::NotAsked => None,
            Policy::NoAnswer => return Verdict::Unanswered,
        };
        let stated: Vec<i64> = argument.into_iter().chain(policy).collect();
        // A negative limit is none since 4.0, next to a positive one too; before, it destroys at the first return.
        let since_4 = matches!(self.version, Some(4..));
        let limit = stated.iter().copied().filter(|limit| *limit >= 0 || !since_4).min();
        let limit = match (limit, self.version) {
            (None, _) if !stated.is_empty() => None,
            (None, Some(..4)) => None,
            (None, _) => Some(DEFAULT_OF_4),
            (limit, _) => limit,
        };
        match limit {
            Some(limit) if limit < NEAR => Verdict::Deadly(format!(
                "its delivery limit is {limit}: every look is a delivery, and behind the limit the broker destroys"
            )),
            limit if self.policy != Policy::NotAsked => Verdict::Safe(limit),
            limit => Verdict::Likely(
                limit,
                "a policy could set a delivery-limit, which only RabbitMQ's management API tells: name it with --management URL",
            ),
        }
    }
}

/// All that can be found out about a queue that exists, and what follows.
///
/// # Errors
/// The broker does not answer.
pub(super) async fn of(
    connection: &Connection,
    broker: &config::Broker,
    queue: &str,
    management: Option<&Url>,
) -> Result<Verdict, BrokerError> {
    let kind = arguments(connection, queue, broker.call_timeout.0).await?;
    let addresses = config::broker_addresses(broker.uri.expose_secret());
    let uri = addresses.first().and_then(|address| address.parse::<AMQPUri>().ok()).ok_or(BrokerError::Address)?;
    if !matches!(kind, Kind::Quorum(_)) {
        return Ok(Lives { kind, version: None, policy: Policy::NotAsked }.verdict());
    }
    let greeting = greeting::of(&addresses).await;
    let policy = policy(&uri, management, &greeting, queue).await;
    Ok(Lives { kind, version: greeting.major, policy }.verdict())
}

/// Asks for the queue's arguments by declaring it with others: the broker refuses that, and says what they are.
///
/// # Errors
/// The queue does not exist; the broker does not answer.
async fn arguments(connection: &Connection, queue: &str, limit: Duration) -> Result<Kind, BrokerError> {
    let mut assumed = BTreeMap::from([
        ("x-queue-type".to_owned(), AMQPValue::LongString("quorum".into())),
        ("x-delivery-limit".to_owned(), AMQPValue::LongLongInt(NEVER)),
    ]);
    let mut durable = true;
    for _ in 0..ARGUMENTS {
        let channel = call(limit, "opening a channel", connection.create_channel()).await?;
        let options = QueueDeclareOptions { durable, ..Default::default() };
        let table: FieldTable = assumed
            .iter()
            .map(|(name, value)| (name.as_str().into(), value.clone()))
            .collect::<BTreeMap<_, _>>()
            .into();
        let declared = match timeout(limit, channel.queue_declare(queue.into(), options, table)).await {
            Ok(declared) => declared,
            Err(_) => return Err(BrokerError::Timeout("asking for the arguments of a queue")),
        };
        let error = match declared {
            Ok(_) => {
                let _ = call(limit, "closing a channel", channel.close(200, "".into())).await;
                return Ok(kind(&assumed));
            }
            Err(error) => error,
        };
        let ErrorKind::ProtocolError(reply) = error.kind() else { return Err(BrokerError::of_request(&error)) };
        match difference(reply.get_message().as_str()) {
            Some((name, current)) if name == "durable" && current.as_deref() == Some("false") => durable = false,
            Some((name, current)) if name.starts_with("x-") => adopt(&mut assumed, name, current),
            _ => return Ok(Kind::Unknown),
        }
        if !matches!(kind(&assumed), Kind::Quorum(_)) {
            return Ok(kind(&assumed));
        }
    }
    Ok(Kind::Unknown)
}

fn adopt(assumed: &mut BTreeMap<String, AMQPValue>, name: String, current: Option<String>) {
    let value = match current {
        None => return drop(assumed.remove(&name)),
        Some(text) => match (text.parse(), text.as_str()) {
            (Ok(number), _) => AMQPValue::LongLongInt(number),
            (_, "true") => AMQPValue::Boolean(true),
            (_, "false") => AMQPValue::Boolean(false),
            _ => AMQPValue::LongString(text.into()),
        },
    };
    assumed.insert(name, value);
}

fn kind(arguments: &BTreeMap<String, AMQPValue>) -> Kind {
    match arguments.get("x-queue-type") {
        Some(AMQPValue::LongString(kind)) if kind.as_bytes() == b"quorum" => match arguments.get("x-delivery-limit") {
            Some(AMQPValue::LongLongInt(limit)) => Kind::Quorum(Some(*limit)),
            _ => Kind::Quorum(None),
        },
        Some(AMQPValue::LongString(kind)) if kind.as_bytes() == b"stream" => Kind::Stream,
        _ => Kind::Classic,
    }
}

/// Reads which argument differs and what it is, from `… inequivalent arg 'x-max-length' for queue …: received none but
/// current is the value '7' of type 'signedint'`.
fn difference(reply: &str) -> Option<(String, Option<String>)> {
    let (_, rest) = reply.split_once("inequivalent arg '")?;
    let (name, rest) = rest.split_once('\'')?;
    let (_, current) = rest.rsplit_once("but current is ")?;
    let value = current.split_once('\'').and_then(|(_, rest)| rest.split_once('\'')).map(|(value, _)| value.to_owned());
    Some((name.to_owned(), value))
}

/// What policies say about the queue's delivery limit, by the management API. The policies themselves are asked for: what
/// the API tells of a queue may be ten seconds old.
async fn policy(uri: &AMQPUri, management: Option<&Url>, greeting: &Greeting, queue: &str) -> Policy {
    let Some(api) = Management::find(uri, management, greeting).await else { return Policy::NotAsked };
    let mut limits = Vec::new();
    for kind in ["policies", "operator-policies"] {
        match api.list(kind, &[]).await {
            Some(policies) => limits.extend(strictest(&policies, queue)),
            None if management.is_some() => return Policy::NoAnswer,
            None => return Policy::NotAsked,
        }
    }
    Policy::Known(limits.into_iter().min_by_key(|limit| strictness(*limit)))
}

/// A negative limit may mean none.
fn strictness(limit: i64) -> u64 {
    u64::try_from(limit).unwrap_or(u64::MAX)
}

/// The lowest delivery limit of the policies that may apply; which of them does is a matter of priorities.
fn strictest(policies: &[Value], queue: &str) -> Option<i64> {
    let text = |policy: &Value, key: &str| policy.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let applies = |policy: &&Value| {
        // A pattern that only RabbitMQ understands may match.
        let differs = Regex::new(&text(policy, "pattern")).is_ok_and(|pattern| !pattern.is_match(queue));
        !differs && !["exchanges", "classic_queues", "streams"].contains(&text(policy, "apply-to").as_str())
    };
    let limit = |policy: &Value| policy.get("definition")?.get("delivery-limit")?.as_i64();
    policies.iter().filter(applies).filter_map(limit).min_by_key(|limit| strictness(*limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_refusals_tell_the_arguments() {
        let read = |tail: &str| difference(&format!("PRECONDITION_FAILED - inequivalent arg {tail}"));
        let some = |name: &str, value: Option<&str>| Some((name.to_owned(), value.map(str::to_owned)));
        let (queue, large) = ("for queue 'd' in vhost '/': received", "'2000000000'");
        assert_eq!(
            read(&format!("'x-delivery-limit' {queue} {large} but current is '3'")),
            some("x-delivery-limit", Some("3"))
        );
        let none = format!("'x-delivery-limit' {queue} the value {large} of type 'signedint' but current is none");
        assert_eq!(read(&none), some("x-delivery-limit", None));
        let typed = format!("'x-max-length' {queue} none but current is the value '7' of type 'signedint'");
        assert_eq!(read(&typed), some("x-max-length", Some("7")));
        assert_eq!(read("nonsense"), None);
    }

    #[test]
    fn the_strictest_policy_that_may_apply_counts() {
        let policy = |pattern: &str, to: &str, limit: i64| serde_json::json!({ "pattern": pattern, "apply-to": to, "definition": { "delivery-limit": limit } });
        let all = [
            policy("^other$", "queues", 1),
            policy(".*dead$", "exchanges", 2),
            policy("dead", "all", 9),
            policy("(?<x", "quorum_queues", 7),
            serde_json::json!({ "pattern": "", "apply-to": "queues", "definition": { "max-length": 3 } }),
        ];
        assert_eq!(strictest(&all, "log.dead"), Some(7));
        assert_eq!(strictest(&all[..2], "log.dead"), None);
    }

    #[test]
    fn looking_is_safe_only_where_the_limit_is_far() {
        let of = |kind, version, policy| Lives { kind, version, policy }.verdict();
        let (quorum, none, unasked) = (Kind::Quorum, Policy::Known(None), Policy::NotAsked);
        let some = |limit| Policy::Known(Some(limit));
        assert_eq!(of(Kind::Classic, None, unasked), Verdict::Safe(None));
        assert_eq!(of(quorum(Some(NEVER)), Some(3), none), Verdict::Safe(Some(NEVER)));
        assert_eq!(of(quorum(None), Some(3), none), Verdict::Safe(None));
        assert_eq!(of(quorum(Some(-1)), Some(4), none), Verdict::Safe(None));
        assert_eq!(of(quorum(None), Some(4), some(-1)), Verdict::Safe(None));
        assert_eq!(of(quorum(None), Some(4), some(1000)), Verdict::Safe(Some(1000)));
        assert_eq!(of(Kind::Unknown, Some(3), none), Verdict::Forbidden);
        assert!(matches!(of(quorum(Some(NEVER)), Some(3), unasked), Verdict::Likely(Some(NEVER), _)));
        for (kind, version, policy) in [
            (quorum(Some(3)), Some(3), none),
            (quorum(Some(999)), Some(3), none),
            (quorum(Some(-1)), Some(3), unasked),
            (quorum(Some(NEVER)), Some(3), some(-1)),
            (quorum(Some(5)), Some(4), some(-1)),
            (quorum(Some(-1)), Some(4), some(5)),
            (quorum(None), Some(4), unasked),
            (quorum(None), None, none),
            (quorum(Some(NEVER)), Some(3), some(3)),
            (Kind::Stream, None, unasked),
        ] {
            assert!(matches!(of(kind, version, policy), Verdict::Deadly(_)), "{kind:?} {version:?} {policy:?}");
        }
        assert_eq!(of(quorum(Some(NEVER)), Some(3), Policy::NoAnswer), Verdict::Unanswered);
    }
}
