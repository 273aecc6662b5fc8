//! Owns everything about MongoDB, and is the only module that names its driver (written `::mongodb`). Must not know
//! deliveries or RabbitMQ.
//!
//! | module | owns |
//! |---|---|
//! | `client` | the collection: inserts, reads, timeouts |
//! | `insert` | the insert command and its reply |
//! | `error` | what errors mean for a message |
//! | `indexes` | the readers' indexes |
//! | `check` | what `ticketlog check` reports |

mod check;
mod client;
mod error;
mod indexes;
mod insert;

pub use check::check;
pub use client::{PoolListener, Store};
pub use error::{DocumentError, Failure, FailureClass, FailureKind};
pub use indexes::{IndexReport, ensure_indexes};
pub use insert::InsertResult;
