//! Owns the reasons for which a message is rejected, and what a rejection says about it. A rejection never holds a value of
//! the message, because it is shown in headers, logs and metrics.

use std::borrow::Cow;

use strum::{EnumString, IntoStaticStr, VariantArray};

/// Why a message cannot be stored. The names are the same in headers, metrics, logs, command line and docs, and the order is
/// that of the docs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, IntoStaticStr, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// An AMQP property, the routing key, the exchange or the name of a header is not UTF-8.
    InvalidProperty,
    /// With several routes: the routing key belongs to none of the patterns of its queue.
    UnexpectedRoutingKey,
    /// The body is empty, as received or decompressed.
    EmptyBody,
    /// The body is not UTF-8 (or is UTF-16 or UTF-32).
    InvalidUtf8,
    /// The body is not exactly one JSON text (RFC 8259).
    InvalidJson,
    /// The root of the JSON text is not an object.
    NotAnObject,
    /// Over `event.max_bytes`, before or after decompression, or over MongoDB's 16 MiB as BSON; or headers over 16 MiB.
    TooLarge,
    /// Nested deeper than `event.max_depth`.
    TooDeep,
    /// A configured field holds a value that cannot be cast to its type.
    InvalidField,
    /// A required field is absent or null.
    MissingField,
    /// A key contains NUL, which BSON keys cannot.
    InvalidFieldName,
    /// `_id` is present and not 24 hexadecimal digits.
    InvalidId,
    /// `content_encoding` is unknown, or the body is not encoded that way.
    UnsupportedEncoding,
    /// A different document is stored under the same `_id`.
    IdentityConflict,
    /// A unique index other than `_id` already holds this key.
    DuplicateKey,
    /// MongoDB rejects the document (a validator, a limit).
    RejectedByStore,
    /// RabbitMQ dead-lettered it: delivered too often (`x-death` says `delivery_limit`). This one and the next three are never
    /// written by the worker.
    DeliveryLimit,
    /// RabbitMQ dead-lettered it: its time to live passed (`expired`).
    Expired,
    /// RabbitMQ dead-lettered it: the queue was full (`maxlen`).
    Maxlen,
    /// RabbitMQ dead-lettered it: another client rejected it (`rejected`).
    RejectedByClient,
}

impl Reason {
    /// The name used outside the program.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The stage at which a message is rejected for this reason.
    pub fn stage(self) -> Stage {
        match self {
            Reason::IdentityConflict | Reason::DuplicateKey | Reason::RejectedByStore => Stage::Store,
            Reason::DeliveryLimit | Reason::Expired | Reason::Maxlen | Reason::RejectedByClient => Stage::Broker,
            _ => Stage::Decode,
        }
    }
}

/// The stage at which a message is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Stage {
    /// In the worker, from the message alone.
    Decode,
    /// By MongoDB, or by what is stored already.
    Store,
    /// By RabbitMQ's own dead-lettering.
    Broker,
}

impl Stage {
    /// The name used outside the program.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Why a message is rejected, and what its publisher needs to find the fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub reason: Reason,
    /// The field at fault, if it is one of the configured fields.
    pub field: Option<String>,
    /// Position, expected type, limit or error code. One line, at most 512 bytes, no value of the message.
    pub detail: Cow<'static, str>,
    /// MongoDB's error code, if MongoDB rejects it.
    pub code: Option<i32>,
}

impl Rejection {
    /// A rejection without a field.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Rejection { reason, field: None, detail: detail.into(), code: None }
    }

    /// The same with MongoDB's error code.
    #[must_use]
    pub fn with_code(self, code: Option<i32>) -> Self {
        Rejection { code, ..self }
    }

    /// Reason and, if there is one, field: `invalid_field user_id`.
    pub fn reason_and_field(&self) -> String {
        let parts = [Some(self.reason.as_str()), self.field.as_deref()];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// A rejection that names a configured field.
    pub fn of_field(reason: Reason, field: &str, detail: impl Into<Cow<'static, str>>) -> Self {
        Rejection { field: Some(field.to_owned()), ..Rejection::new(reason, detail) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_never_change() {
        let names: Vec<_> = Reason::VARIANTS.iter().map(|reason| reason.as_str()).collect();
        insta::assert_snapshot!(names.join(" "), @"invalid_property unexpected_routing_key empty_body invalid_utf8 invalid_json not_an_object too_large too_deep invalid_field missing_field invalid_field_name invalid_id unsupported_encoding identity_conflict duplicate_key rejected_by_store delivery_limit expired maxlen rejected_by_client");
        assert!(Reason::VARIANTS.iter().all(|reason| reason.as_str().parse() == Ok(*reason)));
        assert!("no_such_reason".parse::<Reason>().is_err());
    }
}
