//! Owns what a worker asks about the queue that it consumes when something about it is in doubt: whether it is a stream, and its
//! delivery limit.

use lapin::options::BasicGetOptions;

use ticketlog_config::RouteSettings;

use super::super::connection::{Connection, call, close, connect};
use super::super::error::BrokerError;
use super::delivery_limit::{NotBrowsable, QueueKind, check_browsable, queue_kind};
use super::queue_depth::queue_counts;

/// `basic.get` is not implemented for streams (AMQP 0-9-1, section 1.1: reply code 540).
const NOT_IMPLEMENTED: u16 = 540;

/// Whether `broker.queue` is a stream. Without the permission to configure it, a message may be delivered once more to find
/// out.
///
/// # Errors
/// The broker does not answer, or there is no such queue.
pub async fn source_is_stream(settings: &RouteSettings) -> Result<bool, BrokerError> {
    let connection = connect(&settings.broker, "source queue").await?;
    let limit = settings.broker.call_timeout.0;
    let found = async {
        queue_counts(&connection, &settings.queue, limit).await?;
        match queue_kind(&connection, &settings.queue, limit).await? {
            Some(kind) => Ok(kind == QueueKind::Stream),
            None => refuses_get(&connection, settings).await,
        }
    };
    let found = found.await;
    close(&connection, limit).await;
    found
}

async fn refuses_get(connection: &Connection, settings: &RouteSettings) -> Result<bool, BrokerError> {
    let limit = settings.broker.call_timeout.0;
    let channel = call(limit, "opening a channel", connection.create_channel()).await?;
    let get = channel.basic_get(settings.queue.as_str().into(), BasicGetOptions { no_ack: false });
    match call(limit, "reading a message", get).await {
        Ok(_) => Ok(false),
        Err(BrokerError::Closed(NOT_IMPLEMENTED)) => Ok(true),
        Err(error) => Err(error),
    }
}

/// The delivery limit of `broker.queue`, as far as it can be found out; `None` if there is none.
///
/// # Errors
/// The broker does not answer, or there is no such queue.
pub async fn source_delivery_limit(settings: &RouteSettings) -> Result<Option<i64>, BrokerError> {
    let connection = connect(&settings.broker, "source queue").await?;
    let limit = settings.broker.call_timeout.0;
    let found = async {
        queue_counts(&connection, &settings.queue, limit).await?;
        let management = settings.broker.management_url();
        Ok(match check_browsable(&connection, &settings.broker, &settings.queue, management.as_ref()).await? {
            Ok(browsable) => browsable.limit,
            Err(NotBrowsable::LowLimit(limit)) => Some(limit),
            Err(_) => None,
        })
    };
    let found = found.await;
    close(&connection, limit).await;
    found
}
