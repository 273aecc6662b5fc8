//! Owns the messages of AMQP: deliveries as they come in, messages to publish, and their headers and properties in other forms.

mod dead_letter;
mod delivery;
mod encoded_headers;
mod headers;
mod json;
mod outgoing;
mod replay;
mod smoke_test;
mod trace;

pub use delivery::Delivery;
#[cfg(test)]
pub(super) use encoded_headers::EncodedHeaders;
pub use json::check_round_trip as check_json_round_trip;
pub use outgoing::Outgoing;
pub(super) use outgoing::{fit_headers, return_key};
pub use replay::ReplayTarget;
pub use trace::TraceContext;
