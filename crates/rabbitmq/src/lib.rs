//! Owns everything about RabbitMQ, and is the only module that names lapin.
//!
//! | module | owns |
//! |---|---|
//! | `connection` | opening connections, TLS, the handshake, timeouts |
//! | `message` | deliveries, messages to publish, headers and properties |
//! | `consumer` | a session: prefetch, delivery tags, acknowledgements |
//! | `publisher` | publishing with confirms |
//! | `receipts` | publishing receipts of dead letters |
//! | `batch_publisher` | publishing many messages for an operator |
//! | `rate` | how many messages a second |
//! | `topology` | exchanges, queues, bindings |
//! | `browser` | reading a queue without changing it |
//! | `copy_queue` | copies of what is published |
//! | `admin` | `check`, bindings, delivery limits, queue depths, the management API |
//! | `error` | what refusals and failures mean |

mod admin;
mod batch_publisher;
mod browser;
mod connection;
mod consumer;
mod copy_queue;
mod error;
mod message;
mod publisher;
mod rate;
mod receipts;
pub mod report;
mod topology;

pub use admin::{
    ManagementError, QueueCounts, QueueDepths, check, copied_keys, messages_by_management, removing_policies,
    source_delivery_limit, source_is_stream,
};
pub use batch_publisher::{BatchPublisher, PublishCounts, Results};
pub use browser::mark::MarkedBrowser;
pub use browser::{AckHandle, BrowseError, BrowseOptions, BrowsedMessage, QueueBrowser};
pub use connection::check_frame_filter;
pub use connection::check_settings;
pub use connection::reserve_runtime;
pub use connection::uri::user_name;
pub use consumer::{Acks, PreparedSession, Session, SessionOptions, Settlement, UnfinishedMessage};
pub use copy_queue::CopyQueue;
pub use error::{BrokerError, Refusal, RefusalKind};
pub use message::check_json_round_trip;
pub use message::{Delivery, Outgoing, ReplayTarget, TraceContext};
pub use publisher::{PublishResult, Publisher, Unfinished};
pub use rate::Rate;
pub use receipts::ReceiptPublisher;
pub use topology::setup;
