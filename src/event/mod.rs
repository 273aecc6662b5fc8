//! Owns what a message means: decoding, casts, limits, identity, and the reasons for rejecting one. Pure: no IO, no clock, no
//! type of a driver. The same bytes and rules give the same result in every worker.
//!
//! | module | owns |
//! |---|---|
//! | `decode` | the order of the steps |
//! | `encoding` | `content_encoding` |
//! | `surrogates` | lone surrogates in JSON |
//! | `root`, `walk` | JSON to BSON: the root object, any value |
//! | `cast`, `js_number` | Mongoose's casts, JavaScript's numbers |
//! | `fields` | the state of the configured fields |
//! | `duplicate_keys`, `bson_writer` | the bytes of the document |
//! | `identity` | the `_id` |
//! | `json` | bodies as they were sent, documents as they are printed |
//! | `wanted` | comparing what a person types with what a message or a document has |
//! | `privacy` | fields that are not stored, or only as a hash |
//! | `routing_key` | which routing keys a binding matches |
//! | `rejection`, `rules` | why a message is rejected, and by which rules |

mod bson_writer;
mod cast;
mod decode;
mod duplicate_keys;
mod encoding;
mod fields;
mod identity;
mod js_number;
mod json;
mod privacy;
mod rejection;
mod root;
mod routing_key;
mod rules;
mod surrogates;
mod walk;
mod wanted;

#[cfg(test)]
mod decode_tests;
#[cfg(test)]
mod property_tests;

pub use bson_writer::{same_event, with_ingested_at};
pub use decode::{Decoder, Event, Identity, Message, decompressed_body};
pub use json::{Printed, read_json};
pub use privacy::{HiddenField, MaskKey, Treatment};
pub use rejection::{Reason, Rejection, Stage};
pub use routing_key::{binding_covers, binding_matches, bindings_overlap};
pub use rules::{Field, FieldKind, MAX_DOCUMENT_BYTES, Rules};
pub use surrogates::{hide_lone as hide_lone_surrogates, replace_lone as replace_lone_surrogates};
pub use wanted::Wanted;
