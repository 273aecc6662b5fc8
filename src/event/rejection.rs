//! Owns the vocabulary of bad messages: the closed set of reasons, and what a rejection says about its message.
//! A rejection never holds a value out of the message: it ends in headers, logs and metrics.

use std::borrow::Cow;

/// Why a message cannot become a document. The text forms are the same in headers, metrics, logs, CLI and docs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The body has no byte, or decompresses to none.
    EmptyBody,
    /// The body is not UTF-8 (or is UTF-16 or UTF-32).
    InvalidUtf8,
    /// The body is not exactly one JSON text (RFC 8259).
    InvalidJson,
    /// The body is JSON, but its root is no object.
    NotAnObject,
    /// Over `event.max_bytes`, before or after decompression, or over MongoDB's 16 MiB as BSON.
    TooLarge,
    /// Nested deeper than `event.max_depth`.
    TooDeep,
    /// A known field holds something its type cannot be cast from.
    InvalidField,
    /// A required field is absent or null.
    MissingField,
    /// A key contains a NUL character, which BSON cannot store.
    InvalidFieldName,
    /// `_id` is present and not 24 hexadecimal digits.
    InvalidId,
    /// `content_encoding` is unknown, or the body is not what it says.
    UnsupportedEncoding,
    /// A different document is stored under the same `_id`.
    IdentityConflict,
    /// A unique index other than `_id` already holds this key.
    DuplicateKey,
    /// MongoDB refuses this document (a validator, a limit).
    RejectedByStore,
    /// The broker gave up on the message by itself. The worker never writes this; the desk shows it.
    DeliveryLimit,
}

impl Reason {
    /// Every reason, in the order in which the documentation lists them.
    pub const ALL: [Reason; 15] = [
        Reason::EmptyBody,
        Reason::InvalidUtf8,
        Reason::InvalidJson,
        Reason::NotAnObject,
        Reason::TooLarge,
        Reason::TooDeep,
        Reason::InvalidField,
        Reason::MissingField,
        Reason::InvalidFieldName,
        Reason::InvalidId,
        Reason::UnsupportedEncoding,
        Reason::IdentityConflict,
        Reason::DuplicateKey,
        Reason::RejectedByStore,
        Reason::DeliveryLimit,
    ];

    /// The name used outside the program.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::EmptyBody => "empty_body",
            Reason::InvalidUtf8 => "invalid_utf8",
            Reason::InvalidJson => "invalid_json",
            Reason::NotAnObject => "not_an_object",
            Reason::TooLarge => "too_large",
            Reason::TooDeep => "too_deep",
            Reason::InvalidField => "invalid_field",
            Reason::MissingField => "missing_field",
            Reason::InvalidFieldName => "invalid_field_name",
            Reason::InvalidId => "invalid_id",
            Reason::UnsupportedEncoding => "unsupported_encoding",
            Reason::IdentityConflict => "identity_conflict",
            Reason::DuplicateKey => "duplicate_key",
            Reason::RejectedByStore => "rejected_by_store",
            Reason::DeliveryLimit => "delivery_limit",
        }
    }

    /// The reverse of [`Reason::as_str`].
    pub fn parse(name: &str) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// Where in the flow such a fault is found.
    pub fn stage(self) -> Stage {
        match self {
            Reason::IdentityConflict | Reason::DuplicateKey | Reason::RejectedByStore => Stage::Store,
            Reason::DeliveryLimit => Stage::Broker,
            _ => Stage::Decode,
        }
    }
}

/// The part of the flow that found a message bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The worker, from the message alone.
    Decode,
    /// MongoDB, or what it already holds.
    Store,
    /// RabbitMQ's own dead-lettering.
    Broker,
}

impl Stage {
    /// The name used outside the program.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Decode => "decode",
            Stage::Store => "store",
            Stage::Broker => "broker",
        }
    }
}

/// The verdict on a bad message: why, which field, and what a publisher needs to find the fault. Holds no values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The closed reason.
    pub reason: Reason,
    /// The configured field at fault, where there is one.
    pub field: Option<String>,
    /// Position, expected type, limit or driver code; at most 512 bytes of one-line text, no value of the message.
    pub detail: Cow<'static, str>,
}

impl Rejection {
    /// A rejection without a field.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Rejection { reason, field: None, detail: detail.into() }
    }

    /// Reason and field, as far as there is one: `invalid_field user_id`. For counting by.
    pub fn cause(&self) -> String {
        let parts = [Some(self.reason.as_str()), self.field.as_deref()];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// A rejection that names the configured field at fault.
    pub fn of_field(reason: Reason, field: &str, detail: impl Into<Cow<'static, str>>) -> Self {
        Rejection { reason, field: Some(field.to_owned()), detail: detail.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_one_name_and_reads_back() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert!(Reason::ALL.iter().all(|reason| Reason::parse(reason.as_str()) == Some(*reason)));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
        assert_eq!(Reason::parse("no_such_reason"), None);
    }
}
