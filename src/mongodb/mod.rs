//! Owns everything about MongoDB, and is the only module that names its driver (written `::mongodb`).
//!
//! | module | owns |
//! |---|---|
//! | `uri` | what of `store.uri` the driver accepts |
//! | `client` | the collection: inserts, reads, timeouts |
//! | `collection` | which kinds of collection cannot be used |
//! | `insert` | the insert command and its reply |
//! | `error` | what errors mean for a message |
//! | `indexes` | the readers' indexes |
//! | `erase` | counting and deleting the documents of one user |
//! | `smoke_test` | what `ticketlog check --end-to-end` reads and deletes |
//! | `find` | finding the documents of an event |
//! | `watch` | following what is stored |
//! | `check` | what `ticketlog check` reports |

mod check;
mod client;
mod collection;
mod erase;
mod error;
mod find;
mod indexes;
mod insert;
mod smoke_test;
mod uri;
mod watch;

pub use check::check;
pub use client::{PoolListener, Store};
pub use erase::{UserDocuments, values_of};
pub use error::{DocumentError, Failure, FailureClass, FailureKind};
pub use find::{EventDocuments, EventQuery};
pub use indexes::{IndexReport, ensure_indexes, index_advice};
pub use insert::InsertResult;
pub use smoke_test::readers_index;
pub use uri::{StoreUriError, check_settings};
pub use watch::Watch;
