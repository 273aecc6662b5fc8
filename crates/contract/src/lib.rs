//! What a message means: decoding, casts, limits, identity, and the reasons for rejecting one. Pure: no IO, no clock, no type of a
//! driver. The same bytes and rules give the same result in every worker.
//!
//! Would the worker store this? [`Decoder::decode`] answers, for the worker as for everybody who wants to know beforehand:
//!
//! ```
//! use ticketlog_contract::{Address, Decoder, Identity, Message, Reason, RouteAddresses, Rules};
//!
//! let tickets = RouteAddresses { routing_keys: vec!["ticket.#".to_owned()], queues: vec!["tickets.log".to_owned()] };
//! let mut decoder = Decoder::new(Rules { addresses: Some(tickets), ..Rules::default() }.into());
//! let message = Message {
//!     body: br#"{"user_id": "42", "operation_type": "buy"}"#,
//!     message_id: Some("3f1c"),
//!     address: Some(Address { exchange: "tickets", routing_key: "ticket.buy" }),
//!     ..Message::default()
//! };
//! let fresh_id = || [0; 12]; // the worker makes an ObjectId for a message without an identity
//!
//! let event = decoder.decode(&message, fresh_id).expect("it would be stored");
//! assert_eq!(event.identity, Identity::MessageId);
//! assert_eq!(event.document.get_i32("user_id").unwrap(), 42); // cast as Mongoose casts it
//!
//! let text = decoder.decode(&Message { body: br#"{"user_id": "forty-two"}"#, ..message }, fresh_id).unwrap_err();
//! assert_eq!((text.reason, text.field.as_deref()), (Reason::InvalidField, Some("user_id")));
//! let other = Some(Address { exchange: "tickets", routing_key: "refund.buy" });
//! let elsewhere = decoder.decode(&Message { address: other, ..message }, fresh_id).unwrap_err();
//! assert_eq!(elsewhere.reason, Reason::UnexpectedRoutingKey);
//! ```
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
//! | `finding`, `lint`, `lookalike`, `envelope` | what is probably wrong with an event that is stored |
//! | `json` | bodies as they were sent, documents as they are printed |
//! | `wanted` | comparing what a person types with what a message or a document has |
//! | `privacy` | fields that are not stored, or only as a hash |
//! | `routing_key`, `route` | which routing keys a binding matches, which messages are meant for a route |
//! | `formats` | the contract as JSON Schema, AsyncAPI, TypeScript and Markdown |
//! | `reason`, `rejection`, `rules` | why a message is rejected, and by which rules |
//! | `likely_cause`, `recognise` | what a rejected body probably is instead of an event |

mod bson_writer;
mod cast;
pub mod dead_letter;
mod decode;
mod duplicate_keys;
mod encoding;
mod envelope;
mod fields;
mod finding;
mod formats;
mod identity;
mod js_number;
mod json;
mod likely_cause;
mod lint;
mod lookalike;
mod privacy;
mod reason;
mod recognise;
mod rejection;
mod root;
mod route;
mod routing_key;
mod rules;
mod surrogates;
mod walk;
mod wanted;

#[cfg(test)]
mod decode_tests;
#[cfg(test)]
mod likely_cause_tests;
#[cfg(test)]
mod lint_tests;
#[cfg(test)]
mod property_tests;

pub use bson_writer::{add_ingested_at, different_fields, same_event};
pub use decode::{Decoder, Event, Identity, Message, decompressed_body};
pub use finding::{FindingKind, Findings};
pub use formats::{Contract, RouteContract};
pub use json::{Printed, read_json};
pub use likely_cause::LikelyCause;
pub use lint::{findings_of_clock, is_plausible_time};
pub use privacy::{HiddenField, MaskKey, Treatment};
pub use reason::{Reason, Stage};
pub use rejection::Rejection;
pub use route::{Address, RouteAddresses};
pub use routing_key::{binding_covers, binding_matches, bindings_overlap};
pub use rules::{Field, FieldKind, MAX_DOCUMENT_BYTES, Rules};
pub use surrogates::{hide_lone as hide_lone_surrogates, replace_lone as replace_lone_surrogates};
pub use wanted::Wanted;
