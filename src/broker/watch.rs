//! Owns the look at how long the queues are and who consumes them, by passive declarations over a connection of its own.
//! Changes nothing, and needs no permission on the queues. Must not know what the numbers are for.

use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Connection};

use crate::config::Broker;

use super::{BrokerError, call, close, connect};

/// Messages that are ready, and consumers; none for a queue that is not there.
pub type Seen = Option<(u32, u32)>;

/// A connection that is opened when it is needed, and again when it broke.
#[derive(Default)]
pub struct Watch {
    open: Option<(Connection, Channel)>,
}

impl Watch {
    /// Looks at each of these queues.
    ///
    /// # Errors
    /// As for connecting; the next look begins with a new connection.
    pub async fn look(&mut self, settings: &Broker, queues: &[&str]) -> Result<Vec<Seen>, BrokerError> {
        let mut seen = Vec::with_capacity(queues.len());
        for queue in queues {
            seen.push(match self.one(settings, queue).await {
                // The channel went with the answer: a missing queue closes it.
                Err(BrokerError::Topology(_)) => {
                    self.close(settings.call_timeout.0).await;
                    None
                }
                Err(error) => {
                    self.close(settings.call_timeout.0).await;
                    return Err(error);
                }
                Ok(counts) => Some(counts),
            });
        }
        Ok(seen)
    }

    async fn one(&mut self, settings: &Broker, queue: &str) -> Result<(u32, u32), BrokerError> {
        let limit = settings.call_timeout.0;
        if self.open.is_none() {
            let connection = connect(settings, "watch").await?;
            let channel = call(limit, "opening a channel", connection.create_channel()).await?;
            self.open = Some((connection, channel));
        }
        let Some((_, channel)) = &self.open else { return Err(BrokerError::Unreachable) };
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
        match tokio::time::timeout(limit, declared).await {
            Ok(Ok(queue)) => Ok((queue.message_count(), queue.consumer_count())),
            Ok(Err(error)) => Err(BrokerError::of_topology(&error)),
            Err(_) => Err(BrokerError::Timeout("asking for the length of a queue")),
        }
    }

    async fn close(&mut self, limit: Duration) {
        if let Some((connection, _)) = self.open.take() {
            close(&connection, limit.min(Duration::from_secs(1))).await;
        }
    }
}
