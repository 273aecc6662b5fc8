//! A session before it consumes: connected, with its topology.

use std::time::Duration;

use lapin::Channel;
use ticketlog_config::RouteSettings;

use super::super::connection::{Connection, close, connect};
use super::super::error::BrokerError;
use super::super::topology;

/// A connection that can consume at once. RabbitMQ has sent no message yet.
pub struct PreparedSession {
    pub(super) connection: Connection,
    pub(super) channel: Channel,
}

impl PreparedSession {
    /// Connects and ensures the topology.
    ///
    /// # Errors
    /// As for connecting and declaring; the connection is closed then.
    pub async fn open(settings: &RouteSettings) -> Result<Self, BrokerError> {
        let broker = &settings.broker;
        let connection = connect(broker, "consumer").await?;
        match topology::ensure(&connection, settings, broker.declare).await {
            Ok(channel) => Ok(PreparedSession { connection, channel }),
            Err(error) => {
                close(&connection, broker.call_timeout.0).await;
                Err(error)
            }
        }
    }

    /// Closes the connection, for at most a second.
    pub async fn close(self) {
        close(&self.connection, Duration::from_secs(1)).await;
    }
}
