//! Owns the delivery limit of a queue, and whether the queue can be browsed without losing messages. Changes nothing.
//!
//! Browsing delivers messages and requeues them, and a quorum queue drops or dead-letters a message that was delivered more
//! often than its delivery limit. The limit may be an argument of the queue, part of a policy, or RabbitMQ's default (20
//! since 4.0, none before).

use std::collections::BTreeMap;
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use url::Url;

use ticketlog_config::BrokerSettings;

use super::super::connection::uri::Endpoints;
use super::super::connection::{Connection, handshake};
use super::super::connection::{call, call_topology};
use super::super::error::BrokerError;
use super::super::topology::DEAD_LETTER_DELIVERY_LIMIT;
use super::management_api::{ManagementApi, ManagementError};

/// Below this delivery limit a queue is not browsed. With a higher limit the browser stops when a message has used half.
const MIN_DELIVERY_LIMIT: i64 = 1000;
/// RabbitMQ's default limit since 4.0.
const DEFAULT_DELIVERY_LIMIT: i64 = 20;
/// Most declarations for finding out the arguments of a queue.
const MAX_DECLARATIONS: usize = 16;

/// A queue that can be browsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Browsable {
    /// Its delivery limit, if there is one.
    pub limit: Option<i64>,
    /// Why policies could not be read: one of them may set a lower limit.
    pub policies_unknown: Option<ManagementError>,
}

/// Why a queue cannot be browsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotBrowsable {
    #[error("its delivery limit is {0}; browsing counts as a delivery, and RabbitMQ drops messages beyond the limit")]
    LowLimit(i64),
    #[error("it is a stream, which cannot hold dead letters")]
    Stream,
    #[error("policies are unknown, and one may set a lower delivery limit: {0}")]
    NoManagementApi(ManagementError),
    #[error(
        "its delivery limit is unknown: that takes the permission to configure it, and a type of queue that is known"
    )]
    NoPermission,
}

/// What the arguments of a queue say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueueKind {
    /// Has no delivery limit.
    Classic,
    /// With the limit among its arguments.
    Quorum(Option<i64>),
    Stream,
}

/// Finds out whether an existing queue can be browsed. `management` is the address of the management API that a person
/// named: then its answer is needed.
///
/// # Errors
/// The broker does not answer.
pub(crate) async fn check_browsable(
    connection: &Connection,
    broker: &BrokerSettings,
    queue: &str,
    management: Option<&Url>,
) -> Result<Result<Browsable, NotBrowsable>, BrokerError> {
    let argument = match queue_kind(connection, queue, broker.call_timeout.0).await? {
        None => return Ok(Err(NotBrowsable::NoPermission)),
        Some(QueueKind::Stream) => return Ok(Err(NotBrowsable::Stream)),
        Some(QueueKind::Classic) => return Ok(Ok(Browsable { limit: None, policies_unknown: None })),
        Some(QueueKind::Quorum(argument)) => argument,
    };
    let policies = match ManagementApi::find(broker, management).await {
        Ok(api) => api.queue_policies(queue).await,
        Err(error) => Err(error),
    };
    let (policies, policies_unknown) = match policies {
        Ok(policies) => (policies, None),
        Err(error) if management.is_some() => return Ok(Err(NotBrowsable::NoManagementApi(error))),
        Err(error) => (Vec::new(), Some(error)),
    };
    let major_version = handshake::server_properties(&Endpoints::parse(broker)?).await.major_version;
    let from_policies = policies.iter().filter_map(|policy| policy.definition.get("delivery-limit")?.as_i64());
    let limit = effective_limit(argument.into_iter().chain(from_policies), major_version);
    Ok(match limit {
        Some(limit) if limit < MIN_DELIVERY_LIMIT => Err(NotBrowsable::LowLimit(limit)),
        limit => Ok(Browsable { limit, policies_unknown }),
    })
}

/// The strictest of the configured limits, or else the default. A negative limit means "no limit" since 4.0; before, it
/// destroyed a message at its first requeue.
fn effective_limit(configured: impl Iterator<Item = i64>, major_version: Option<u32>) -> Option<i64> {
    let since_4 = matches!(major_version, Some(4..));
    let (unlimited, limits): (Vec<i64>, Vec<i64>) = configured.partition(|limit| *limit < 0 && since_4);
    let default = match major_version {
        Some(..4) => None,
        _ if !unlimited.is_empty() => None,
        _ => Some(DEFAULT_DELIVERY_LIMIT),
    };
    limits.into_iter().min().or(default)
}

/// Finds out the arguments of a queue by declaring it with others: RabbitMQ refuses that and names the argument that
/// differs, with its value. None without the permission to configure the queue, or if its type is unknown.
///
/// # Errors
/// The queue does not exist; the broker does not answer.
pub(super) async fn queue_kind(
    connection: &Connection,
    queue: &str,
    limit: Duration,
) -> Result<Option<QueueKind>, BrokerError> {
    let mut arguments = BTreeMap::from([
        ("x-queue-type".to_owned(), AMQPValue::LongString("quorum".into())),
        ("x-delivery-limit".to_owned(), AMQPValue::LongLongInt(DEAD_LETTER_DELIVERY_LIMIT)),
    ]);
    let mut durable = true;
    for _ in 0..MAX_DECLARATIONS {
        let channel = call(limit, "opening a channel", connection.create_channel()).await?;
        let options = QueueDeclareOptions { durable, ..Default::default() };
        let table: BTreeMap<_, _> =
            arguments.iter().map(|(name, value)| (name.as_str().into(), value.clone())).collect();
        let declare = channel.queue_declare(queue.into(), options, FieldTable::from(table));
        let refusal = match call_topology(limit, "declaring a queue", declare).await {
            Ok(_) => {
                let _ = call(limit, "closing a channel", channel.close(200, "closing".into())).await;
                return Ok(kind_of(&arguments));
            }
            Err(BrokerError::Refused(refusal)) => refusal,
            Err(error) => return Err(error),
        };
        match refusal.inequivalent_argument() {
            Some((name, Some(value))) if name == "durable" && value == "false" => durable = false,
            Some((name, value)) if name.starts_with("x-") => set_argument(&mut arguments, name, value),
            _ => return Ok(None),
        }
        let kind = kind_of(&arguments);
        if !matches!(kind, Some(QueueKind::Quorum(_))) {
            return Ok(kind);
        }
    }
    Ok(None)
}

fn set_argument(arguments: &mut BTreeMap<String, AMQPValue>, name: String, value: Option<String>) {
    let value = match value {
        None => return drop(arguments.remove(&name)),
        Some(text) => match (text.parse(), text.as_str()) {
            (Ok(number), _) => AMQPValue::LongLongInt(number),
            (_, "true") => AMQPValue::Boolean(true),
            (_, "false") => AMQPValue::Boolean(false),
            _ => AMQPValue::LongString(text.into()),
        },
    };
    arguments.insert(name, value);
}

/// None of a type of which nothing is known: its messages may have a delivery limit.
fn kind_of(arguments: &BTreeMap<String, AMQPValue>) -> Option<QueueKind> {
    let Some(kind) = arguments.get("x-queue-type") else { return Some(QueueKind::Classic) };
    match kind.as_long_string()?.as_bytes() {
        b"quorum" => match arguments.get("x-delivery-limit") {
            Some(AMQPValue::LongLongInt(limit)) => Some(QueueKind::Quorum(Some(*limit))),
            _ => Some(QueueKind::Quorum(None)),
        },
        b"classic" => Some(QueueKind::Classic),
        b"stream" => Some(QueueKind::Stream),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_of_an_unknown_type_may_have_a_limit() {
        let kind =
            |kind: &str| kind_of(&BTreeMap::from([("x-queue-type".to_owned(), AMQPValue::LongString(kind.into()))]));
        assert_eq!(kind_of(&BTreeMap::new()), Some(QueueKind::Classic));
        assert_eq!(
            [kind("classic"), kind("stream"), kind("delayed")],
            [Some(QueueKind::Classic), Some(QueueKind::Stream), None]
        );
    }

    #[test]
    fn the_strictest_limit_counts_and_negative_ones_depend_on_the_version() {
        for (configured, version, expected) in [
            (&[DEAD_LETTER_DELIVERY_LIMIT][..], Some(3), Some(DEAD_LETTER_DELIVERY_LIMIT)),
            (&[], Some(3), None),
            (&[], Some(4), Some(20)),
            (&[], None, Some(20)),
            (&[-1], Some(4), None),
            (&[-1], Some(3), Some(-1)),
            (&[-1], None, Some(-1)),
            (&[5, -1], Some(4), Some(5)),
            (&[-1, 5], Some(4), Some(5)),
            (&[DEAD_LETTER_DELIVERY_LIMIT, -1], Some(3), Some(-1)),
            (&[DEAD_LETTER_DELIVERY_LIMIT, 3], Some(3), Some(3)),
            (&[1000], Some(4), Some(1000)),
        ] {
            assert_eq!(effective_limit(configured.iter().copied(), version), expected, "{configured:?} {version:?}");
        }
    }
}
