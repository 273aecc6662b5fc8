//! Owns finding out what the user may do, without changing anything: by invalid requests. RabbitMQ checks permissions first (403), and
//! refuses an invalid request only after that (406).

use std::time::Duration;

use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, ExchangeKind};

use super::super::connection::{Connection, call, call_topology};
use super::super::error::{BrokerError, Refusal};

/// RabbitMQ's answer to a request: accepted, or refused.
pub(super) type Answer = Result<(), Refusal>;

/// Sends requests, each on a channel of its own, because a refusal closes the channel.
pub(super) struct Prober<'a> {
    pub connection: &'a Connection,
    pub limit: Duration,
}

impl Prober<'_> {
    async fn channel(&self) -> Result<Channel, BrokerError> {
        call(self.limit, "opening a channel", self.connection.create_channel()).await
    }

    async fn answer<T>(&self, request: impl Future<Output = lapin::Result<T>>) -> Result<Answer, BrokerError> {
        match call_topology(self.limit, "checking", request).await {
            Ok(_) => Ok(Ok(())),
            Err(BrokerError::Refused(refusal)) => Ok(Err(refusal)),
            Err(error) => Err(error),
        }
    }

    /// Declares an exchange, passively or not. Call it with `passive: false` only for one that exists.
    pub async fn exchange(
        &self,
        name: &str,
        kind: ExchangeKind,
        arguments: FieldTable,
        passive: bool,
    ) -> Result<Answer, BrokerError> {
        let options = ExchangeDeclareOptions { passive, durable: true, ..Default::default() };
        let channel = self.channel().await?;
        self.answer(channel.exchange_declare(name.into(), kind, options, arguments)).await
    }

    /// Declares a queue, passively or not. Call it with `passive: false` only for one that exists.
    pub async fn queue(&self, name: &str, arguments: FieldTable, passive: bool) -> Result<Answer, BrokerError> {
        let options = QueueDeclareOptions { passive, durable: true, ..Default::default() };
        let channel = self.channel().await?;
        self.answer(channel.queue_declare(name.into(), options, arguments)).await
    }

    /// Consumes with a priority that is a text. `PreconditionFailed` means that the user may read the queue.
    pub async fn read(&self, queue: &str) -> Result<Answer, BrokerError> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-priority".into(), AMQPValue::LongString("none".into()));
        let channel = self.channel().await?;
        call(self.limit, "setting the prefetch", channel.basic_qos(1, BasicQosOptions::default())).await?;
        let options = BasicConsumeOptions::default();
        self.answer(channel.basic_consume(queue.into(), "check".into(), options, arguments)).await
    }

    /// Publishes a message with another user's `user_id` to a routing key that nothing is bound to. `PreconditionFailed`
    /// means that the user may write to the exchange.
    pub async fn write(&self, exchange: &str) -> Result<Answer, BrokerError> {
        let channel = self.channel().await?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        call(self.limit, "turning on confirms", confirms).await?;
        let properties = BasicProperties::default().with_user_id("somebody-else-than-the-worker".into());
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let key = "ticketlog.check.bound.nowhere";
        let publish =
            async { channel.basic_publish(exchange.into(), key.into(), options, b"", properties).await?.await };
        self.answer(publish).await
    }
}
