//! Owns whether RabbitMQ has the type of the shard exchange, which a plugin brings. Changes nothing.

use lapin::types::FieldTable;

use ticketlog_config::BrokerSettings;
use ticketlog_config::finding::Finding;

use super::super::connection::{close, connect};
use super::super::error::{BrokerError, RefusalKind};
use super::super::topology;
use super::permissions::Prober;

/// A failure if the plugin is not enabled. It is asked on a connection of its own, because the answer may be the end of it.
pub(super) async fn missing_plugin(broker: &BrokerSettings) -> Result<Option<Finding>, BrokerError> {
    let (connection, limit) = (connect(broker, "check").await?, broker.call_timeout.0);
    let prober = Prober { connection: &connection, limit };
    // The default exchange cannot be declared, and RabbitMQ looks at the type before it refuses that.
    let answer = prober.exchange("", topology::shard_exchange_kind(), FieldTable::default(), false).await;
    close(&connection, limit).await;
    let is_unknown = answer?.is_err_and(|refusal| refusal.kind == RefusalKind::UnknownExchangeType);
    let finding = || {
        let message = "RabbitMQ does not have the exchange type x-consistent-hash: its plugin is not enabled";
        let fix = "run `rabbitmq-plugins enable rabbitmq_consistent_hash_exchange` on every node";
        Finding::fail("broker.shards", message, fix)
    };
    Ok(is_unknown.then(finding))
}
