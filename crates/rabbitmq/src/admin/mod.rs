//! Owns what can be found out about RabbitMQ without changing anything: `ticketlog check`, delivery limits, queue depths, the source
//! queue, the management API.

mod bindings;
mod check;
mod check_bindings;
mod check_dead_letters;
pub(super) mod delivery_limit;
mod exchange_type;
mod management_api;
mod permissions;
pub(super) mod queue_depth;
mod removal;
mod source_queue;

pub use bindings::copied_keys;
pub use check::check;
pub use management_api::ManagementError;
pub use queue_depth::{QueueCounts, QueueDepths, messages_by_management};
pub use removal::removing_policies;
pub use source_queue::{source_delivery_limit, source_is_stream};
