//! Owns whether a queue may be worked on: that it is there, that looking does not destroy, that no other desk is at it.
//! Must not know what is done with its messages.

use std::time::Duration;

use lapin::Connection;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use secrecy::ExposeSecret;
use tokio::time::timeout;
use url::Url;

use crate::config;

use super::super::lives::{self, Lives, Verdict};
use super::super::{BrokerError, call, topology};

/// How often a queue that another desk has is asked for.
const PAUSE: Duration = Duration::from_millis(200);

/// Why a queue cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The broker, or our ways with it.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Looking would destroy.
    #[error(
        "queue {queue} is not looked into: {why}. Raise the limit by policy, or move the messages to a queue that \
         `ticketlog setup` declares (its limit is {NEVER}); --trust-queue looks all the same", NEVER = topology::NEVER
    )]
    Deadly {
        /// Its name.
        queue: String,
        /// What stands against it.
        why: String,
    },
    /// Messages have been given out half as often as the broker allows.
    #[error(
        "queue {queue}: a message has been given out {count} times, and the broker destroys it after {limit}; everything \
         was given back. Raise the queue's delivery limit first"
    )]
    Worn {
        /// Its name.
        queue: String,
        /// How often.
        count: i64,
        /// Its limit.
        limit: i64,
    },
}

/// How much is taken on trust, and where to ask.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Look whatever the delivery limit is.
    pub blindly: bool,
    /// Base address of RabbitMQ's management API.
    pub management: Option<Url>,
}

pub(super) async fn verdict(
    connection: &Connection,
    broker: &config::Broker,
    queue: &str,
    trust: &Trust,
) -> Result<Verdict, DeskError> {
    if trust.blindly {
        return Ok(Verdict::Safe(None));
    }
    let kind = lives::arguments(connection, queue, broker.call_timeout.0).await?;
    let addresses = config::broker_addresses(broker.uri.expose_secret());
    let uri = addresses.first().and_then(|address| address.parse::<AMQPUri>().ok()).ok_or(BrokerError::Address)?;
    if !matches!(kind, lives::Kind::Quorum(_)) {
        return Ok(Lives { kind, version: None, policy: None }.verdict());
    }
    let (version, policy) = tokio::join!(lives::version(&uri), lives::policy(&uri, trust.management.as_ref(), queue));
    Ok(Lives { kind, version, policy }.verdict())
}

/// Ready messages of a queue.
pub(super) async fn ready(connection: &Connection, queue: &str, limit: Duration) -> Result<u32, BrokerError> {
    let channel = call(limit, "opening a channel", connection.create_channel()).await?;
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    match timeout(limit, channel.queue_declare(queue.into(), options, FieldTable::default())).await {
        Ok(Ok(queue)) => {
            call(limit, "closing a channel", channel.close(200, "bye".into())).await?;
            Ok(queue.message_count())
        }
        Ok(Err(error)) => Err(topology::explain(BrokerError::of_topology(&error))),
        Err(_) => Err(BrokerError::Timeout("asking for a queue")),
    }
}

/// One desk at a queue: a second one would see only what the first does not hold. The lock is an exclusive queue, which
/// ends with the connection that declared it, however that ends.
pub(super) async fn lock(
    connection: &Connection,
    queue: &str,
    limit: Duration,
    waiting: impl FnOnce(),
) -> Result<(), BrokerError> {
    let name = format!("{}.desk", queue.get(..queue.floor_char_boundary(250)).unwrap_or_default());
    let mut waiting = Some(waiting);
    loop {
        let channel = call(limit, "opening a channel", connection.create_channel()).await?;
        let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
        match timeout(limit, channel.queue_declare(name.as_str().into(), options, FieldTable::default())).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => match BrokerError::of_topology(&error) {
                BrokerError::Topology(said) if said.starts_with("RESOURCE_LOCKED") => {}
                other => return Err(topology::explain(other)),
            },
            Err(_) => return Err(BrokerError::Timeout("declaring the desk's lock")),
        }
        if let Some(waiting) = waiting.take() {
            waiting();
        }
        tokio::time::sleep(PAUSE).await;
    }
}
