//! Opening a queue for browsing: whether that is safe, the lock, and how many messages there are.

use std::time::Duration;

use lapin::Channel;
use lapin::options::BasicGetOptions;

use ticketlog_config::BrokerSettings;

use super::super::admin::delivery_limit::{Browsable, NotBrowsable, check_browsable};
use super::super::admin::queue_depth::queue_counts;
use super::super::connection::{Connection, call};
use super::super::error::{BrokerError, RefusalKind};
use super::super::report::Report;
use super::error::{BrowseError, BrowseOptions};
use super::lock;

/// How long to wait for the next message of a queue that is not empty, each time.
pub(super) const IDLE_WAIT: Duration = Duration::from_millis(200);
/// How often to read the depth of a queue until it stops changing.
const MAX_DEPTH_READS: u32 = 20;

pub(super) async fn prepare(
    connection: &Connection,
    broker: &BrokerSettings,
    queue: &str,
    options: &BrowseOptions,
    report: &dyn Report,
) -> Result<(Channel, (u32, bool), Browsable), BrowseError> {
    let limit = broker.call_timeout.0;
    // The queue must exist before anything is declared under its name.
    queue_counts(connection, queue, limit).await.map_err(|error| match error.refusal() {
        Some(RefusalKind::NotFound) => BrowseError::NoQueue { queue: queue.to_owned() },
        _ => error.into(),
    })?;
    let browsable = if options.trust_queue {
        Browsable { limit: None, policies_unknown: None }
    } else {
        match check_browsable(connection, broker, queue, options.management.as_ref()).await? {
            Ok(browsable) => browsable,
            Err(NotBrowsable::NoPermission) => return Err(BrowseError::NoPermission { queue: queue.to_owned() }),
            Err(NotBrowsable::NoManagementApi(reason)) => {
                return Err(BrowseError::PoliciesUnknown { queue: queue.to_owned(), reason });
            }
            Err(reason) => return Err(BrowseError::Unsafe { queue: queue.to_owned(), reason: reason.to_string() }),
        }
    };
    lock::acquire(connection, queue, limit, options, report).await?;
    let count = stable_depth(connection, queue, limit, Held::ByOthers).await?;
    let channel = call(limit, "opening a channel", connection.create_channel()).await?;
    Ok((channel, count, browsable))
}

/// Who may hold messages of the queue while its depth is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// Only others, who are waited for.
    ByOthers,
    /// The browser that asks, too.
    ByThisToo,
}

/// Whether a queue is empty, asked by a request that only the queue itself answers. A message that it has after all goes back.
async fn is_empty(connection: &Connection, queue: &str, limit: Duration) -> Result<bool, BrokerError> {
    let channel = call(limit, "opening a channel", connection.create_channel()).await?;
    let got = call(limit, "asking for a message", channel.basic_get(queue.into(), BasicGetOptions::default())).await?;
    call(limit, "closing a channel", channel.close(200, "closing".into())).await?;
    Ok(got.is_none())
}

/// The depth of a queue once nothing is being requeued, and whether something else still reads the queue or holds messages of
/// it. A quorum queue counts whatever holds messages as a consumer, also after its cancel (measured on 3.10, 4.0 and 4.3); a
/// classic queue does not, and the depth must stop changing.
pub(super) async fn stable_depth(
    connection: &Connection,
    queue: &str,
    limit: Duration,
    held: Held,
) -> Result<(u32, bool), BrokerError> {
    let mut counts = queue_counts(connection, queue, limit).await?;
    for _ in 0..MAX_DEPTH_READS {
        tokio::time::sleep(IDLE_WAIT / 2).await;
        let now = queue_counts(connection, queue, limit).await?;
        let is_stable = now.ready == counts.ready && (held == Held::ByThisToo || now.consumers == 0);
        counts = now;
        if is_stable {
            break;
        }
    }
    // RabbitMQ also answers 0 for a quorum queue whose leader does not reply within 250 ms.
    if counts.ready == 0 && counts.consumers == 0 && !is_empty(connection, queue, limit).await? {
        return Err(BrokerError::Timeout("counting the messages of the queue".into()));
    }
    Ok((counts.ready, counts.consumers > 0))
}
