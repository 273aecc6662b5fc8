//! Owns a queue of its own that receives copies of what is published, beside the workers' queue. It belongs to one connection, and
//! RabbitMQ deletes it with that.

use std::time::Duration;

use bson::oid::ObjectId;
use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};
use tokio::time::timeout;

use ticketlog_config::{BrokerSettings, RouteSettings};

use super::connection::{Connection, call, call_topology, close, connect};
use super::error::BrokerError;
use super::message::Delivery;

/// Unacknowledged copies at a time, and how many are acknowledged together.
const PREFETCH: u16 = 200;
const ACK_EVERY: u16 = PREFETCH / 2;
/// Bytes of copies that wait; RabbitMQ drops the oldest then, so that a slow reader does not fill its memory.
const MAX_WAITING_BYTES: i64 = 64 << 20;

/// Between the name of the workers' queue and an ObjectId.
const INFIX: &str = ".shadow-";

/// Whether it is the name of such a queue.
pub(super) fn is_copy_queue(name: &str) -> bool {
    name.rsplit_once(INFIX).is_some_and(|(_, id)| ObjectId::parse_str(id).is_ok())
}

pub struct CopyQueue {
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    unacknowledged: u16,
    call_timeout: Duration,
    pub name: String,
}

impl CopyQueue {
    /// Declares the queue, binds it to the exchange with these routing keys, and starts to consume. Somebody who stores the messages must
    /// be bound with each of them: RabbitMQ confirms a mandatory message that only this queue gets.
    ///
    /// # Errors
    /// As for connecting; the login may not configure, write and read `<broker.queue>.shadow-…`, or not read the exchange.
    pub async fn open(settings: &RouteSettings, keys: &[String]) -> Result<CopyQueue, BrokerError> {
        let (broker, call_timeout) = (&settings.broker, settings.broker.call_timeout.0);
        let connection = connect(broker, "shadow").await?;
        let name = format!("{}{INFIX}{}", settings.queue, ObjectId::new().to_hex());
        match consume(&connection, broker, keys, &name).await {
            Ok((channel, consumer)) => {
                Ok(CopyQueue { connection, channel, consumer, unacknowledged: 0, call_timeout, name })
            }
            Err(error) => {
                close(&connection, call_timeout).await;
                Err(error)
            }
        }
    }

    /// The next copy. Cancel safe.
    ///
    /// # Errors
    /// The connection is lost; the queue is gone with it.
    pub async fn next(&mut self) -> Result<Delivery, BrokerError> {
        let delivery = match self.consumer.next().await {
            Some(Ok(delivery)) => delivery,
            Some(Err(error)) => return Err(BrokerError::from_request(&error)),
            None => return Err(BrokerError::ConsumerCancelled),
        };
        let (delivery, acker) = Delivery::new(delivery, self.channel.id(), &self.connection.incoming);
        self.unacknowledged += 1;
        if self.unacknowledged >= ACK_EVERY {
            self.unacknowledged = 0;
            let ack = acker.ack(BasicAckOptions { multiple: true });
            match timeout(self.call_timeout, ack).await {
                Ok(Ok(true)) => {}
                _ => return Err(BrokerError::AckFailed),
            }
        }
        Ok(delivery)
    }

    /// Closes the connection; RabbitMQ deletes the queue.
    pub async fn close(self) {
        close(&self.connection, self.call_timeout).await;
    }
}

async fn consume(
    connection: &Connection,
    broker: &BrokerSettings,
    keys: &[String],
    name: &str,
) -> Result<(Channel, Consumer), BrokerError> {
    let limit = broker.call_timeout.0;
    let channel: Channel = call(limit, "opening a channel", connection.create_channel()).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
    arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(MAX_WAITING_BYTES));
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
    call_topology(limit, "declaring a queue", channel.queue_declare(name.into(), options, arguments)).await?;
    for key in keys {
        let options = QueueBindOptions::default();
        let exchange = broker.exchange.as_str().into();
        let bind = channel.queue_bind(name.into(), exchange, key.as_str().into(), options, FieldTable::default());
        call_topology(limit, "binding a queue", bind).await?;
    }
    call(limit, "setting the prefetch", channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
    let options = BasicConsumeOptions { exclusive: true, ..Default::default() };
    let consume = channel.basic_consume(name.into(), "shadow".into(), options, FieldTable::default());
    let consumer = call_topology(limit, "starting the consumer", consume).await?;
    Ok((channel, consumer))
}
