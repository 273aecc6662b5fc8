//! Owns exchanges, queues, their arguments and bindings: declared, or checked passively with `broker.declare = false`.

use lapin::options::{ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};

use ticketlog_config::{BrokerSettings, QueueType, RouteSettings};

use super::connection::{Connection, call, call_topology, close, connect};
use super::error::{BrokerError, RefusalKind};

/// The delivery limit of dead-letter queues, which no message reaches. `-1` and `0` mean "no limit" on RabbitMQ 4, but on
/// 3.x they destroy every message at its first requeue; dead letters must survive being browsed.
pub(super) const DEAD_LETTER_DELIVERY_LIMIT: i64 = 2_000_000_000;

/// The routing key of a binding to the shard exchange: the share of the queue.
pub(super) const SHARD_WEIGHT: &str = "1";

/// Ensures the topology: declares it, or without `declare` checks that it exists. Returns the channel, for further use.
///
/// # Errors
/// `Refused`: what is missing, what differs, or which permission is missing.
pub(super) async fn ensure(
    connection: &Connection,
    settings: &RouteSettings,
    declare: bool,
) -> Result<Channel, BrokerError> {
    match ensure_with(connection, settings, declare, declare).await {
        // A refusal may have ended the channel before the last request was sent. Then it is known only with an answer to each.
        Err(error)
            if declare
                && connection.status().connected()
                && !matches!(error, BrokerError::Refused(_) | BrokerError::Timeout(_)) =>
        {
            ensure_with(connection, settings, declare, false).await
        }
        result => result,
    }
}

/// With `nowait` only the queues of shards and the last request await an answer, because over a slow link each costs a round trip. RabbitMQ handles the
/// requests of a channel in their order, and a refusal ends the channel.
async fn ensure_with(
    connection: &Connection,
    settings: &RouteSettings,
    declare: bool,
    nowait: bool,
) -> Result<Channel, BrokerError> {
    let broker = &settings.broker;
    let channel = call(broker.call_timeout.0, "opening a channel", connection.create_channel()).await?;
    let mut declaration = Declaration { connection, channel, settings, passive: !declare, nowait };
    let dead_letter_exchange = &settings.dead_letter.exchange;
    declaration.exchange(dead_letter_exchange, ExchangeKind::Direct, FieldTable::default()).await?;
    for queue in [&settings.dead_letter_queue, &settings.parked_queue] {
        declaration.queue(queue, dead_letter_queue_arguments(broker)).await?;
        declaration.bind(queue, dead_letter_exchange, queue).await?;
    }
    declaration.exchange(&broker.exchange, ExchangeKind::Topic, FieldTable::default()).await?;
    declaration.queue(&settings.queue, worker_queue_arguments(settings)).await?;
    if broker.shards > 1 {
        declaration.shards().await?;
    } else {
        for key in &settings.routing_keys {
            declaration.bind(&settings.queue, &broker.exchange, key).await?;
        }
    }
    if nowait {
        declaration.wait().await?;
    }
    Ok(declaration.channel)
}

/// Declares the topology over a connection of its own (`ticketlog setup`), whatever `broker.declare` says.
///
/// # Errors
/// As for connecting, and as for declaring.
pub async fn setup(settings: &RouteSettings) -> Result<(), BrokerError> {
    let connection = connect(&settings.broker, "setup").await?;
    let result = async {
        let channel = ensure(&connection, settings, true).await?;
        declare_receipts(&channel, settings, false).await
    };
    let result = result.await;
    close(&connection, settings.broker.call_timeout.0).await;
    result
}

/// Declares the exchange for receipts, if there is to be one, or checks that it exists. No session needs it, so it is not part of what
/// [`ensure`] ensures: nothing that is wrong with it may keep the worker from consuming.
pub(super) async fn declare_receipts(
    channel: &Channel,
    settings: &RouteSettings,
    passive: bool,
) -> Result<(), BrokerError> {
    let name = settings.dead_letter.receipts.as_str();
    if name.is_empty() {
        return Ok(());
    }
    let options = ExchangeDeclareOptions { durable: true, passive, ..Default::default() };
    let request = channel.exchange_declare(name.into(), ExchangeKind::Topic, options, FieldTable::default());
    call_topology(settings.broker.call_timeout.0, "declaring an exchange", request).await
}

struct Declaration<'a> {
    connection: &'a Connection,
    channel: Channel,
    settings: &'a RouteSettings,
    passive: bool,
    nowait: bool,
}

impl Declaration<'_> {
    async fn call<T>(
        &mut self,
        action: &'static str,
        request: impl Future<Output = lapin::Result<T>>,
    ) -> Result<(), BrokerError> {
        let limit = self.settings.broker.call_timeout.0;
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

    /// Waits until everything is declared.
    async fn wait(&mut self) -> Result<(), BrokerError> {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let channel = self.channel.clone();
        let request = channel.queue_declare(self.settings.queue.as_str().into(), options, FieldTable::default());
        self.call("declaring the topology", request).await
    }

    /// Puts the shard exchange between the exchange and the queues. In this order no message is lost or routed to two queues, also
    /// while the first queue is still bound directly: RabbitMQ delivers a message once to a queue, however many bindings lead to it.
    /// Each queue has an answer, so that `broker.call_timeout` is for one of them, not for all.
    async fn shards(&mut self) -> Result<(), BrokerError> {
        let (settings, exchange) = (self.settings, &self.settings.broker.exchange);
        let shard_exchange = settings.shard_exchange();
        self.exchange(&shard_exchange, shard_exchange_kind(), shard_exchange_arguments()).await?;
        self.bind(&settings.queue, &shard_exchange, SHARD_WEIGHT).await?;
        for key in &settings.routing_keys {
            self.bind_exchange(&shard_exchange, exchange, key).await?;
        }
        for key in &settings.routing_keys {
            self.unbind(&settings.queue, exchange, key).await?;
        }
        let nowait = std::mem::take(&mut self.nowait);
        for queue in settings.queues().iter().skip(1) {
            self.queue(queue, shard_queue_arguments(settings)).await?;
            self.nowait = nowait;
            self.bind(queue, &shard_exchange, SHARD_WEIGHT).await?;
            self.nowait = false;
        }
        self.nowait = nowait;
        Ok(())
    }

    async fn exchange(&mut self, name: &str, kind: ExchangeKind, arguments: FieldTable) -> Result<(), BrokerError> {
        let (passive, nowait) = (self.passive, self.nowait);
        let options = ExchangeDeclareOptions { durable: true, passive, nowait, ..Default::default() };
        let channel = self.channel.clone();
        let request = channel.exchange_declare(name.into(), kind, options, arguments);
        self.call("declaring an exchange", request).await
    }

    async fn queue(&mut self, name: &str, arguments: FieldTable) -> Result<(), BrokerError> {
        let (passive, nowait) = (self.passive, self.nowait);
        let options = QueueDeclareOptions { durable: true, passive, nowait, ..Default::default() };
        let channel = self.channel.clone();
        self.call("declaring a queue", channel.queue_declare(name.into(), options, arguments)).await
    }

    async fn bind(&mut self, queue: &str, exchange: &str, key: &str) -> Result<(), BrokerError> {
        let (channel, options) = (self.channel.clone(), QueueBindOptions { nowait: self.nowait });
        let bind = channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default());
        self.call_binding("binding a queue", bind).await
    }

    async fn bind_exchange(&mut self, to: &str, from: &str, key: &str) -> Result<(), BrokerError> {
        let (channel, options) = (self.channel.clone(), ExchangeBindOptions { nowait: self.nowait });
        let bind = channel.exchange_bind(to.into(), from.into(), key.into(), options, FieldTable::default());
        self.call_binding("binding an exchange", bind).await
    }

    async fn unbind(&mut self, queue: &str, exchange: &str, key: &str) -> Result<(), BrokerError> {
        let channel = self.channel.clone();
        let unbind = channel.queue_unbind(queue.into(), exchange.into(), key.into(), FieldTable::default());
        self.call_binding("unbinding a queue", unbind).await
    }

    /// AMQP cannot check a binding: with `broker.declare = false` the request is not sent.
    async fn call_binding(
        &mut self,
        action: &'static str,
        request: impl Future<Output = lapin::Result<()>>,
    ) -> Result<(), BrokerError> {
        if self.passive { Ok(()) } else { self.call(action, request).await }
    }
}

/// The type of the shard exchange, of the plugin `rabbitmq_consistent_hash_exchange`.
pub(super) fn shard_exchange_kind() -> ExchangeKind {
    ExchangeKind::Custom("x-consistent-hash".to_owned())
}

/// Equal messages go to the same queue, but nothing depends on it.
pub(super) fn shard_exchange_arguments() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("hash-property".into(), long_string("message_id"));
    arguments
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
pub(super) fn worker_queue_arguments(settings: &RouteSettings) -> FieldTable {
    let mut arguments = queue_arguments(&settings.broker);
    arguments.insert("x-dead-letter-exchange".into(), long_string(&settings.dead_letter.exchange));
    arguments.insert("x-dead-letter-routing-key".into(), long_string(&settings.dead_letter_queue));
    arguments
}

/// The arguments of the further shards: as those of the first, and their leaders are spread over the nodes.
pub(super) fn shard_queue_arguments(settings: &RouteSettings) -> FieldTable {
    let mut arguments = worker_queue_arguments(settings);
    arguments.insert("x-queue-leader-locator".into(), long_string("balanced"));
    arguments
}

fn long_string(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}
