//! Owns the options of browsing, and the reasons for which a queue cannot be browsed, or no further.

use std::time::Duration;

use url::Url;

use super::super::admin::ManagementError;
use super::super::error::BrokerError;
use super::super::topology::DEAD_LETTER_DELIVERY_LIMIT;

#[derive(Debug, Clone, Default)]
pub struct BrowseOptions {
    /// Browse whatever the delivery limit is.
    pub trust_queue: bool,
    /// Address of RabbitMQ's management API, if it is not the usual one.
    pub management: Option<Url>,
    /// How long to wait for another browser of the same queue.
    pub wait: Duration,
}

/// Why a queue cannot be browsed.
#[derive(Debug, thiserror::Error)]
pub enum BrowseError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Browsing would destroy messages.
    #[error(
        "queue {queue} cannot be browsed safely: {reason}. Raise its delivery limit with a policy, or move its messages to \
         a queue that `ticketlog setup` declares (delivery limit {DEAD_LETTER_DELIVERY_LIMIT}). --trust-queue browses \
         it all the same; park and replay reset the delivery count"
    )]
    Unsafe { queue: String, reason: String },
    /// The management API is named, but does not show them.
    #[error(
        "queue {queue}: policies are unknown, and one may set a delivery limit, at which browsing loses messages: {reason}"
    )]
    PoliciesUnknown { queue: String, reason: ManagementError },
    #[error(
        "queue {queue}: a permission is missing. `ticketlog dead` needs the permission to configure {queue} (to read its \
         delivery limit) and {queue}.desk (its lock), to read the queue, and to write to the exchanges; give the operators' login \
         of deploy/rabbitmq, which has them, in operator.broker_uri"
    )]
    NoPermission { queue: String },
    #[error(
        "there is no queue {queue}; correct --queue, or dead_letter.queue of the configuration. `ticketlog setup` declares the queues of \
         the configuration"
    )]
    NoQueue { queue: String },
    /// Another browser holds the lock for longer than the wait.
    #[error("queue {queue} is in use by another `ticketlog dead`; try again later, or wait longer (--wait)")]
    Locked { queue: String },
    /// The operator stopped it.
    #[error("it was stopped early")]
    Stopped,
    /// The broker closed the channel: its consumer timeout.
    #[error(
        "queue {queue}: RabbitMQ closed the channel because messages were held for longer than its consumer timeout (30 \
         minutes by default). What was held is back in the queue. Use --limit for smaller parts, or a faster --rate or --edit"
    )]
    ConsumerTimeout { queue: String },
    /// A message has used half of the delivery limit.
    #[error(
        "queue {queue}: a message was delivered {count} times, and RabbitMQ drops it after {limit} deliveries. Do not browse \
         this queue again: raise its delivery limit, or run `ticketlog dead park --trust-queue`, which resets the count"
    )]
    NearDeliveryLimit { queue: String, count: i64, limit: i64 },
}
