//! Owns the exchanges, queues and bindings that the worker needs: declared idempotently, or only checked.
//! Must not know sessions or messages.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};
use tokio::time::timeout;

use crate::config::{Broker, DeadLetter, QueueType, Settings};

use super::BrokerError;

/// A delivery limit that no message reaches. `-1` and `0` would mean "none" on RabbitMQ 4, but on 3.x they destroy every
/// message at its first requeue; dead letters must survive being looked at.
pub(super) const NEVER: i64 = 2_000_000_000;

/// Makes sure of the topology, on a channel of its own: declares it, or with `broker.declare = false` checks it passively.
///
/// # Errors
/// `Topology` in the broker's words: what is missing, what is expected and what is there, what is not permitted.
pub(super) async fn ensure(connection: &Connection, broker: &Broker, dead: &DeadLetter) -> Result<(), BrokerError> {
    let channel = super::call(broker.call_timeout.0, "opening a channel", connection.create_channel()).await?;
    let mut work = Declaration { connection, channel, broker, passive: !broker.declare };
    work.exchange(&dead.exchange, ExchangeKind::Direct).await?;
    for queue in [&dead.queue, &dead.parked_queue] {
        work.queue(queue, dead_arguments(broker)).await?;
        work.bind(queue, &dead.exchange, queue).await?;
    }
    work.exchange(&broker.exchange, ExchangeKind::Topic).await?;
    work.queue(&broker.queue, work_arguments(broker, dead)).await?;
    for key in &broker.routing_keys {
        work.bind(&broker.queue, &broker.exchange, key).await?;
    }
    super::call(broker.call_timeout.0, "closing a channel", work.channel.close(200, "done".into())).await
}

/// Declares the topology over a connection of its own (`ticketlog setup`), whatever `broker.declare` says.
///
/// # Errors
/// As for connecting, and as for declaring.
pub async fn setup(settings: &Settings) -> Result<(), BrokerError> {
    let connection = super::connect(&settings.broker, "setup").await?;
    let limit = settings.broker.call_timeout.0;
    let broker = Broker { declare: true, ..settings.broker.clone() };
    let done = ensure(&connection, &broker, &settings.dead_letter).await;
    super::close(&connection, limit).await;
    done
}

struct Declaration<'a> {
    connection: &'a Connection,
    channel: Channel,
    broker: &'a Broker,
    passive: bool,
}

impl Declaration<'_> {
    async fn call<T>(
        &mut self,
        what: &'static str,
        request: impl Future<Output = lapin::Result<T>>,
    ) -> Result<(), BrokerError> {
        let limit = self.broker.call_timeout.0;
        let error = match timeout(limit, request).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => BrokerError::of_topology(&error),
            Err(_) => return Err(BrokerError::Timeout(what)),
        };
        match error {
            // RabbitMQ 4 wants a permission even for a look. What may not be looked at is the operator's affair; whether it
            // serves shows when it is used. The refusal took the channel with it.
            BrokerError::Topology(said) if self.passive && said.starts_with("ACCESS_REFUSED") => {
                self.channel = super::call(limit, "opening a channel", self.connection.create_channel()).await?;
                Ok(())
            }
            error => Err(explain(error)),
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

    /// AMQP cannot check a binding; with `broker.declare = false` it is the operator's affair.
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

fn typed(broker: &Broker) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text(broker.queue_type.as_str()));
    arguments
}

/// The arguments of the dead-letter queue and the parked queue.
pub(super) fn dead_arguments(broker: &Broker) -> FieldTable {
    let mut arguments = typed(broker);
    if broker.queue_type == QueueType::Quorum {
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(NEVER));
    }
    arguments
}

/// The arguments of the worker's queue. The dead-letter exchange is the net for messages that the broker itself gives up
/// on (its delivery limit).
pub(super) fn work_arguments(broker: &Broker, dead: &DeadLetter) -> FieldTable {
    let mut arguments = typed(broker);
    arguments.insert("x-dead-letter-exchange".into(), text(&dead.exchange));
    arguments.insert("x-dead-letter-routing-key".into(), text(&dead.queue));
    arguments
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// Adds what to do to the broker's words.
pub(super) fn explain(error: BrokerError) -> BrokerError {
    let BrokerError::Topology(said) = error else { return error };
    let fix = if said.starts_with("PRECONDITION_FAILED") {
        "; it exists with other properties: change the configuration to match, delete it when it is empty, or use it as \
         it is with broker.declare = false"
    } else if said.starts_with("NOT_FOUND") {
        "; run `ticketlog setup`, or set broker.declare = true"
    } else {
        "; grant the user of broker.uri the permission"
    };
    BrokerError::Topology(format!("{said}{fix}"))
}
