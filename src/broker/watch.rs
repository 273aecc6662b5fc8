//! Owns the look at how long the queues are and who consumes them, by passive declarations over a connection of its own.
//! Changes nothing. Must not know what the numbers are for.

use std::time::Duration;

use lapin::Connection;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use crate::config::Broker;

use super::{BrokerError, call, close, connect_with};

/// Bytes of the largest frame: no message ever comes this way.
const FRAME: u32 = 8192;

/// Messages that are ready, and consumers; none for a queue that is not there, or must not be looked at.
pub type Seen = Option<(u32, u32)>;

/// A connection that is opened when it is needed, and again when it broke.
#[derive(Default)]
pub struct Watch {
    open: Option<Connection>,
}

impl Watch {
    /// Looks at each of these queues.
    ///
    /// # Errors
    /// As for connecting; the next look begins with a new connection.
    pub async fn look(&mut self, settings: &Broker, queues: &[&str]) -> Result<Vec<Seen>, BrokerError> {
        let connection = match self.open.take() {
            Some(connection) => connection,
            None => connect_with(settings, "watch", Some(FRAME)).await?,
        };
        let mut seen = Vec::with_capacity(queues.len());
        for queue in queues {
            match count(&connection, queue, settings.call_timeout.0).await {
                Ok(counts) => seen.push(Some(counts)),
                Err(BrokerError::Topology(_)) => seen.push(None),
                Err(error) => {
                    close(&connection, Duration::from_secs(1)).await;
                    return Err(error);
                }
            }
        }
        self.open = Some(connection);
        Ok(seen)
    }
}

/// Messages that are ready in a queue, and its consumers; on a channel of its own, which a refusal takes away.
///
/// # Errors
/// `Topology` if it is not there or must not be looked at.
pub(super) async fn count(connection: &Connection, queue: &str, limit: Duration) -> Result<(u32, u32), BrokerError> {
    let channel = call(limit, "opening a channel", connection.create_channel()).await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
    match tokio::time::timeout(limit, declared).await {
        Ok(Ok(queue)) => {
            call(limit, "closing a channel", channel.close(200, "seen".into())).await?;
            Ok((queue.message_count(), queue.consumer_count()))
        }
        Ok(Err(error)) => Err(BrokerError::of_topology(&error)),
        Err(_) => Err(BrokerError::Timeout("asking for a queue")),
    }
}
