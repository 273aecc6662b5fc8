//! Owns whether a queue may be worked on: that it is there, that looking does not destroy, that no other desk is at it.
//! Must not know what is done with its messages.

use std::time::{Duration, Instant};

use lapin::Connection;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use tokio::time::timeout;
use url::Url;

use crate::config;

use super::super::lives::{self, Verdict};
use super::super::{BrokerError, call, topology, watch};

/// How often a queue that another desk has is asked for.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSES_AT_MOST: Duration = Duration::from_secs(3);
/// Looks at a count until it stands still, at most.
const STILL: u32 = 20;

/// Why a queue cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The broker, or our ways with it.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Looking would destroy.
    #[error(
        "queue {queue} is not looked into: {why}. Raise the limit by policy, or move the messages to a queue that \
         `ticketlog setup` declares (its limit is {NEVER}); --trust-queue looks all the same, and what it moves (park, \
         replay) begins its count anew", NEVER = topology::NEVER
    )]
    Deadly {
        /// Its name.
        queue: String,
        /// What stands against it.
        why: String,
    },
    /// We may not find out.
    #[error(
        "queue {queue}: the desk needs the permission to configure {queue} (to be told its delivery limit) and {queue}.desk \
         (its lock), to read the queue, and to write to the exchanges; grant it to the user of broker.uri"
    )]
    Forbidden {
        /// Its name.
        queue: String,
    },
    /// Another desk is at it for longer than we are to wait.
    #[error("another desk is still at work on queue {queue}; try again when it is done, or wait longer (--wait)")]
    Busy {
        /// Its name.
        queue: String,
    },
    /// The broker took the channel away: its consumer timeout.
    #[error(
        "queue {queue}: the broker ended the channel because messages were held for longer than its consumer timeout (30 \
         minutes by default); everything is back in the queue. Do it in parts (--limit), or faster (--rate, --edit)"
    )]
    Overdue {
        /// Its name.
        queue: String,
    },
    /// Messages have been given out half as often as the broker allows.
    #[error(
        "queue {queue}: a message has been given out {count} times, and the broker destroys it after {limit}. Look no more: \
         every try is one more delivery. Raise the queue's delivery limit, or `ticketlog dead park --trust-queue`, after \
         which the count begins anew"
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
    /// How long to wait for another desk.
    pub wait: Duration,
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
    Ok(lives::of(connection, broker, queue, trust.management.as_ref()).await?)
}

/// Ready messages of a queue.
pub(super) async fn ready(connection: &Connection, queue: &str, limit: Duration) -> Result<u32, BrokerError> {
    let (messages, _) = watch::count(connection, queue, limit).await.map_err(topology::explain)?;
    Ok(messages)
}

/// The same once it stands still for a moment: what a desk held that has just ended, however it ended, comes back by and by.
pub(super) async fn settled(connection: &Connection, queue: &str, limit: Duration) -> Result<u32, BrokerError> {
    let mut count = ready(connection, queue, limit).await?;
    for _ in 0..STILL {
        tokio::time::sleep(PAUSE / 2).await;
        let now = ready(connection, queue, limit).await?;
        if now == count {
            break;
        }
        count = now;
    }
    Ok(count)
}

/// One desk at a queue: a second one would see only what the first does not hold. The lock is an exclusive queue, which
/// ends with the connection that declared it, however that ends.
pub(super) async fn lock(
    connection: &Connection,
    queue: &str,
    limit: Duration,
    trust: &Trust,
    waiting: impl FnOnce(),
) -> Result<(), DeskError> {
    let deadline = Instant::now() + trust.wait;
    let mut pause = PAUSE;
    let name = format!("{}.desk", queue.get(..queue.floor_char_boundary(250)).unwrap_or_default());
    let mut waiting = Some(waiting);
    loop {
        let channel = call(limit, "opening a channel", connection.create_channel()).await?;
        let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
        match timeout(limit, channel.queue_declare(name.as_str().into(), options, FieldTable::default())).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => match BrokerError::of_topology(&error) {
                BrokerError::Topology(said) if said.starts_with("RESOURCE_LOCKED") => {}
                // Without the permission there is no lock; whoever trusts the queue knows that nobody else is at it.
                BrokerError::Topology(said) if said.starts_with("ACCESS_REFUSED") && trust.blindly => return Ok(()),
                other => return Err(topology::explain(other).into()),
            },
            Err(_) => return Err(BrokerError::Timeout("declaring the desk's lock").into()),
        }
        if Instant::now() >= deadline {
            return Err(DeskError::Busy { queue: queue.to_owned() });
        }
        if let Some(waiting) = waiting.take() {
            waiting();
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES_AT_MOST);
    }
}
