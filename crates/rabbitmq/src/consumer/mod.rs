//! Owns consuming from a queue: the session, its delivery tags and acknowledgements, its prefetch.

mod prefetch;
mod prepared;
mod session;
mod settlement;
mod unfinished;

pub use prepared::PreparedSession;
pub use session::{Session, SessionOptions};
pub use settlement::{Acks, Settlement};
pub use unfinished::UnfinishedMessage;
