//! Owns what a message means: decoding, casting, limits, identity, and the closed list of reasons for refusing one.
//! Pure: no IO, no clock, no broker or database type. The same bytes and rules give the same answer in every worker.

mod cast;
mod decode;
mod encoding;
mod identity;
mod js_number;
mod known;
mod object;
mod rejection;
mod rules;
mod visit;
mod writer;

#[cfg(test)]
mod decode_tests;
#[cfg(test)]
mod property_tests;

pub use decode::{Decoder, Event, Identity, Message, plain};
pub use rejection::{Reason, Rejection, Stage};
pub use rules::{Field, FieldKind, MAX_DOCUMENT_BYTES, Rules};
pub use writer::{same_event, with_ingested_at};
