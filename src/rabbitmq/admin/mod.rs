//! Owns what can be found out about RabbitMQ without changing anything: `ticketlog check`, delivery limits, queue depths,
//! the management API. Must not know messages.

mod check;
pub(super) mod delivery_limit;
mod management_api;
mod permissions;
pub(super) mod queue_depth;
mod removal;

pub use check::check;
pub use queue_depth::{QueueCounts, QueueDepths};
pub use removal::removing_policies;
