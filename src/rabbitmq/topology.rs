//! Owns exchanges, queues, their arguments and bindings: declared, or checked passively with `broker.declare = false`. Must
//! not know consumers or messages.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};

use crate::config::{BrokerSettings, DeadLetterSettings, QueueType, Settings};

use super::connection::{Connection, call, call_topology, close, connect};
use super::{BrokerError, RefusalKind};

/// The delivery limit of dead-letter queues, which no message reaches. `-1` and `0` mean "no limit" on RabbitMQ 4, but on
/// 3.x they destroy every message at its first requeue; dead letters must survive being browsed.
pub(super) const DEAD_LETTER_DELIVERY_LIMIT: i64 = 2_000_000_000;

/// Ensures the topology, on a channel of its own: declares it, or with `broker.declare = false` checks that it exists.
///
/// # Errors
/// `Refused`: what is missing, what differs, or which permission is missing.
pub(super) async fn ensure(
    connection: &Connection,
    broker: &BrokerSettings,
    dead_letter: &DeadLetterSettings,
) -> Result<(), BrokerError> {
    let limit = broker.call_timeout.0;
    let channel = call(limit, "opening a channel", connection.create_channel()).await?;
    let mut declaration = Declaration { connection, channel, broker, passive: !broker.declare };
    declaration.exchange(&dead_letter.exchange, ExchangeKind::Direct).await?;
    for queue in [&dead_letter.queue, &dead_letter.parked_queue] {
        declaration.queue(queue, dead_letter_queue_arguments(broker)).await?;
        declaration.bind(queue, &dead_letter.exchange, queue).await?;
    }
    declaration.exchange(&broker.exchange, ExchangeKind::Topic).await?;
    declaration.queue(&broker.queue, worker_queue_arguments(broker, dead_letter)).await?;
    for key in &broker.routing_keys {
        declaration.bind(&broker.queue, &broker.exchange, key).await?;
    }
    call(limit, "closing a channel", declaration.channel.close(200, "closing".into())).await
}

/// Declares the topology over a connection of its own (`ticketlog setup`), whatever `broker.declare` says.
///
/// # Errors
/// As for connecting, and as for declaring.
pub async fn setup(settings: &Settings) -> Result<(), BrokerError> {
    let connection = connect(&settings.broker, "setup").await?;
    let broker = BrokerSettings { declare: true, ..settings.broker.clone() };
    let result = ensure(&connection, &broker, &settings.dead_letter).await;
    close(&connection, settings.broker.call_timeout.0).await;
    result
}

struct Declaration<'a> {
    connection: &'a Connection,
    channel: Channel,
    broker: &'a BrokerSettings,
    passive: bool,
}

impl Declaration<'_> {
    async fn call<T>(
        &mut self,
        action: &'static str,
        request: impl Future<Output = lapin::Result<T>>,
    ) -> Result<(), BrokerError> {
        let limit = self.broker.call_timeout.0;
        match call_topology(limit, action, request).await {
            Ok(_) => Ok(()),
            // RabbitMQ 4.2.6 and later require a permission for passive declarations. Without it, nothing is known; whether
            // the topology works shows in use. The refusal has closed the channel.
            Err(error) if self.passive && error.refusal() == Some(RefusalKind::AccessRefused) => {
                self.channel = call(limit, "opening a channel", self.connection.create_channel()).await?;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn exchange(&mut self, name: &str, kind: ExchangeKind) -> Result<(), BrokerError> {
        let options = ExchangeDeclareOptions { durable: true, passive: self.passive, ..Default::default() };
        let channel = self.channel.clone();
        let request = channel.exchange_declare(name.into(), kind, options, FieldTable::default());
        self.call("declaring an exchange", request).await
    }

    async fn queue(&mut self, name: &str, arguments: FieldTable) -> Result<(), BrokerError> {
        let options = QueueDeclareOptions { durable: true, passive: self.passive, ..Default::default() };
        let channel = self.channel.clone();
        self.call("declaring a queue", channel.queue_declare(name.into(), options, arguments)).await
    }

    /// AMQP cannot check a binding: with `broker.declare = false` this does nothing.
    async fn bind(&mut self, queue: &str, exchange: &str, key: &str) -> Result<(), BrokerError> {
        if self.passive {
            return Ok(());
        }
        let options = QueueBindOptions::default();
        let channel = self.channel.clone();
        let request = channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default());
        self.call("binding a queue", request).await
    }
}

fn queue_arguments(broker: &BrokerSettings) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), long_string(broker.queue_type.as_str()));
    arguments
}

/// The arguments of the dead-letter queue and the parked queue.
pub(super) fn dead_letter_queue_arguments(broker: &BrokerSettings) -> FieldTable {
    let mut arguments = queue_arguments(broker);
    if broker.queue_type == QueueType::Quorum {
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DEAD_LETTER_DELIVERY_LIMIT));
    }
    arguments
}

/// The arguments of the worker's queue. Its dead-letter exchange catches messages that the broker itself gives up (the
/// delivery limit).
pub(super) fn worker_queue_arguments(broker: &BrokerSettings, dead_letter: &DeadLetterSettings) -> FieldTable {
    let mut arguments = queue_arguments(broker);
    arguments.insert("x-dead-letter-exchange".into(), long_string(&dead_letter.exchange));
    arguments.insert("x-dead-letter-routing-key".into(), long_string(&dead_letter.queue));
    arguments
}

fn long_string(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}
