//! Publishing receipts of dead letters: transient, not mandatory and without confirms, over a connection of their own, so that nothing that
//! happens to them reaches the dead letters.

use std::pin::pin;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, PublisherConfirm};
use tokio::time::timeout;

use ticketlog_config::RouteSettings;
use ticketlog_contract::dead_letter::Receipt;

use super::connection::{Connection, call, call_topology, connect_with_frame_max};
use super::error::{BrokerError, RefusalKind};
use super::topology::declare_receipts;

/// The smallest that RabbitMQ accepts: lapin reserves 64 frames.
const FRAME_MAX: u32 = 8192;

/// A channel for receipts.
pub struct ReceiptPublisher {
    connection: Connection,
    channel: Channel,
    exchange: String,
    call_timeout: Duration,
}

impl ReceiptPublisher {
    /// Connects, and declares the exchange or, with `broker.declare = false`, checks that it exists.
    ///
    /// # Errors
    /// As for connecting and for declaring.
    pub async fn open(settings: &RouteSettings) -> Result<Self, BrokerError> {
        let broker = &settings.broker;
        let connection = connect_with_frame_max(broker, "receipts", Some(FRAME_MAX)).await?;
        let call_timeout = broker.call_timeout.0;
        let open_channel = || call(call_timeout, "opening a channel", connection.create_channel());
        let mut channel = open_channel().await?;
        match declare_receipts(&channel, settings, !broker.declare).await {
            // RabbitMQ 4.2.6 and later require a permission for passive declarations. Publishing shows whether the exchange exists.
            Err(error) if !broker.declare && error.refusal() == Some(RefusalKind::AccessRefused) => {
                channel = open_channel().await?;
            }
            result => result?,
        }
        Ok(ReceiptPublisher { connection, channel, exchange: settings.dead_letter.receipts.clone(), call_timeout })
    }

    /// Whether it can still be used.
    pub fn is_open(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    /// Publishes receipts, and waits until RabbitMQ has read them. While it blocks publishers (a memory or disk alarm), this waits as well,
    /// because lapin can neither write to nor close such a connection.
    ///
    /// # Errors
    /// Some may be lost then, and the publisher must not be used again.
    pub async fn publish(&self, receipts: &[Receipt]) -> Result<(), BrokerError> {
        let mut publishing = pin!(async {
            for receipt in receipts {
                self.send(&self.channel, receipt).await?;
            }
            // RabbitMQ answers this, which needs no permission, when it has read what came before.
            self.channel.basic_qos(1, BasicQosOptions::default()).await
        });
        loop {
            match timeout(self.call_timeout, &mut publishing).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => return Err(self.refusal(receipts, &error).await),
                Err(_) if self.connection.status().blocked() => {}
                Err(_) => return Err(BrokerError::Timeout("publishing receipts".into())),
            }
        }
    }

    /// Why receipts could not be published. RabbitMQ may have closed the channel before the request that is answered, and then its reason is
    /// known only from the confirm of a message.
    async fn refusal(&self, receipts: &[Receipt], error: &lapin::Error) -> BrokerError {
        let known = BrokerError::from_topology_request(error);
        let Some(receipt) = receipts.first().filter(|_| known.refusal().is_none()) else { return known };
        let publish_again = async {
            let channel = self.connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            self.send(&channel, receipt).await?.await
        };
        match call_topology(self.call_timeout, "publishing a receipt", publish_again).await {
            Err(error) if error.refusal().is_some() => error,
            _ => known,
        }
    }

    async fn send(&self, channel: &Channel, receipt: &Receipt) -> lapin::Result<PublisherConfirm> {
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(1)
            .with_type("ticketlog.receipt".into())
            .with_message_id(receipt.id.as_str().into())
            .with_timestamp(u64::try_from(receipt.time / 1000).unwrap_or_default());
        let (exchange, key) = (self.exchange.as_str().into(), receipt.routing_key.as_str().into());
        let options = BasicPublishOptions::default();
        channel.basic_publish(exchange, key, options, receipt.body.as_bytes(), properties).await
    }
}
