//! Owns the depth of queues and their number of consumers, read by passive declarations. Changes nothing.

use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use ticketlog_config::BrokerSettings;
use url::Url;

use super::super::connection::{Connection, call, call_topology, close, connect_with_frame_max};
use super::super::error::BrokerError;
use super::management_api::ManagementApi;

/// Largest frame in bytes: no message uses this connection, and lapin reserves memory for frames.
const FRAME_MAX: u32 = 8192;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueCounts {
    /// Messages that are ready, not counting unacknowledged ones.
    pub ready: u32,
    pub consumers: u32,
}

impl QueueCounts {
    /// Of queues that are used as one: the sum of the messages, and the consumers of the queue that has the fewest.
    fn of_shards(shards: Vec<Option<QueueCounts>>) -> Option<QueueCounts> {
        let shards: Vec<QueueCounts> = shards.into_iter().collect::<Option<_>>()?;
        let ready = shards.iter().map(|counts| counts.ready).fold(0, u32::saturating_add);
        Some(QueueCounts { ready, consumers: shards.iter().map(|counts| counts.consumers).min()? })
    }
}

/// A connection for reading queue depths, opened when needed.
#[derive(Default)]
pub struct QueueDepths {
    connection: Option<Connection>,
}

impl QueueDepths {
    /// The counts of a queue, whose shards count as one; `None` if one of them does not exist or may not be looked up.
    ///
    /// # Errors
    /// As for connecting; the next call opens a new connection.
    pub async fn read(
        &mut self,
        settings: &BrokerSettings,
        shards: &[String],
    ) -> Result<Option<QueueCounts>, BrokerError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect_with_frame_max(settings, "queue depths", Some(FRAME_MAX)).await?,
        };
        let mut counts = Vec::with_capacity(shards.len());
        for queue in shards {
            match queue_counts(&connection, queue, settings.call_timeout.0).await {
                Ok(found) => counts.push(Some(found)),
                Err(BrokerError::Refused(_)) => counts.push(None),
                Err(error) => {
                    close(&connection, Duration::from_secs(1)).await;
                    return Err(error);
                }
            }
        }
        self.connection = Some(connection);
        Ok(QueueCounts::of_shards(counts))
    }

    /// The same for several queues.
    ///
    /// # Errors
    /// As for one.
    pub async fn read_each(
        &mut self,
        settings: &BrokerSettings,
        queues: &[Vec<String>],
    ) -> Result<Vec<Option<QueueCounts>>, BrokerError> {
        let mut all = Vec::with_capacity(queues.len());
        for shards in queues {
            all.push(self.read(settings, shards).await?);
        }
        Ok(all)
    }
}

/// Number of messages in queues, also of those that consumers hold, as RabbitMQ's management API says. It may be some seconds old. `None`
/// if the API does not say so of each.
pub async fn messages_by_management(
    settings: &BrokerSettings,
    queues: impl IntoIterator<Item = &String>,
    named: Option<&Url>,
) -> Option<u64> {
    let api = ManagementApi::find(settings, named).await.ok()?;
    let mut messages = 0;
    for queue in queues {
        messages += api.object("queues", &[queue]).await.ok()?.get("messages")?.as_u64()?;
    }
    Some(messages)
}

/// The counts of one queue, on a channel of its own, which a refusal would close.
///
/// # Errors
/// `Refused` if it does not exist or may not be looked up.
pub(crate) async fn queue_counts(
    connection: &Connection,
    queue: &str,
    limit: Duration,
) -> Result<QueueCounts, BrokerError> {
    let channel = call(limit, "opening a channel", connection.create_channel()).await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declare = channel.queue_declare(queue.into(), options, FieldTable::default());
    let queue = call_topology(limit, "looking up a queue", declare).await?;
    call(limit, "closing a channel", channel.close(200, "closing".into())).await?;
    Ok(QueueCounts { ready: queue.message_count(), consumers: queue.consumer_count() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_count_as_one_queue() {
        let counts = |ready, consumers| Some(QueueCounts { ready, consumers });
        assert_eq!(QueueCounts::of_shards(vec![counts(3, 2), counts(4, 0)]), counts(7, 0));
        assert_eq!(QueueCounts::of_shards(vec![counts(3, 2)]), counts(3, 2));
        assert_eq!(QueueCounts::of_shards(vec![counts(3, 2), None]), None);
    }
}
