//! What is probably wrong with an event that is stored all the same: a closed list, each with its explanation. The metrics, `validate`, the
//! log and the table of docs/publish/findings.md take it from here.

use strum::{EnumMessage, EnumString, IntoStaticStr, VariantArray};

/// A probable mistake of the publisher. The doc comment says in one sentence what it is, `message` in one sentence why it hurts and what to
/// send instead. The order is that of the docs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, EnumMessage, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[repr(u8)]
pub enum FindingKind {
    /// `timestamp` is before 2001 or after 2100 if it is read as milliseconds: often seconds, microseconds, .NET ticks or a year.
    #[strum(
        message = "timestamp is not milliseconds since 1970, so the event is filed under a wrong date and its time counts nowhere: send Date.now(), int(time.time() * 1000) or toEpochMilli()"
    )]
    TimestampUnit,
    /// `timestamp`, or the AMQP property `timestamp`, is more than a day ahead of the clock.
    #[strum(
        message = "timestamp is more than a day ahead, so the event is sorted behind all that really happens until then: send the time at which the operation happened"
    )]
    TimestampAhead,
    /// The event has no `timestamp`, and the message has no AMQP property `timestamp`.
    #[strum(
        message = "the event has no time, so nobody can tell when it happened or sort it: send timestamp in milliseconds since 1970"
    )]
    NoTime,
    /// The AMQP property `timestamp` is before 2001 or after 2100 if it is read as seconds: often milliseconds.
    #[strum(
        message = "the AMQP property timestamp is not seconds since 1970, so the time from publishing to storing is unknown: send whole seconds in the property, and milliseconds in the body"
    )]
    PropertyTimestampUnit,
    /// The message has neither `message_id`, nor a `uuid` or an `_id` in the body.
    #[strum(
        message = "the message has no identity, so a redelivery or a retry is stored as another entry: send a unique message_id, and the same one and the same bytes in a retry"
    )]
    NoIdentity,
    /// The message has no AMQP property `app_id`.
    #[strum(
        message = "the message does not say which program published it, so nobody can tell its team of mistakes and rejections: set app_id"
    )]
    NoAppId,
    /// A configured field is absent, and a key looks like its name, such as `userId` or `Status`.
    #[strum(
        message = "a key looks like a configured field that is absent, so a search by that field does not find the event: spell the name exactly as configured"
    )]
    FieldName,
    /// The configured fields are inside another object, an array or a text: CloudEvents, Debezium, MassTransit, `{"events": […]}`.
    #[strum(
        message = "the event is inside an envelope or a batch, so its fields are not found: send the event itself as the root object, one message for each event"
    )]
    Envelope,
    /// A configured number is a text of white space only.
    #[strum(
        message = "a blank text became the number 0, so the event belongs to user 0 or to 1970: leave the field out, or send null"
    )]
    BlankNumber,
    /// A configured field is `true` or `false`.
    #[strum(
        message = "a boolean became 1, 0 or a text, so the event belongs to user 1 or user 0: send the value itself"
    )]
    BooleanValue,
    /// A configured number is a text such as `5e10`, `0x1f` or `007`.
    #[strum(
        message = "a text in another notation than plain digits became a number that may not be the one that was meant: send a JSON number, or configure the field as a string"
    )]
    NumberNotation,
    /// A configured number is larger than 2^53 - 1.
    #[strum(
        message = "JavaScript rounds integers above 9007199254740991, so several users share one log as texts and are never found as numbers: configure the field as a string and send a text"
    )]
    UnsafeInteger,
    /// A configured text is blank, or what a program writes for a value that it does not have, such as `undefined` or `[object Object]`.
    #[strum(
        message = "a text stands for a missing value, so unrelated events look alike: leave the field out, or send null"
    )]
    PlaceholderText,
}

impl FindingKind {
    /// The name used outside the program.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// When it is found.
    pub fn meaning(self) -> &'static str {
        self.get_documentation().unwrap_or_default()
    }

    /// Why it hurts, and what to send instead.
    pub fn advice(self) -> &'static str {
        self.get_message().unwrap_or_default()
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// What is found in one event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Findings(u16);

impl Findings {
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn contains(self, kind: FindingKind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// With another one, if `is_found`.
    #[must_use]
    pub fn with(self, kind: FindingKind, is_found: bool) -> Self {
        Findings(if is_found { self.0 | kind.bit() } else { self.0 })
    }

    /// What is in either.
    #[must_use]
    pub fn and(self, others: Findings) -> Self {
        Findings(self.0 | others.0)
    }

    /// What is not in the others.
    #[must_use]
    pub fn without(self, others: Findings) -> Self {
        Findings(self.0 & !others.0)
    }

    /// In the order of the docs.
    pub fn iter(self) -> impl Iterator<Item = FindingKind> {
        FindingKind::VARIANTS.iter().copied().filter(move |kind| self.contains(*kind))
    }
}

impl From<FindingKind> for Findings {
    fn from(kind: FindingKind) -> Self {
        Findings(kind.bit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_never_change_and_each_is_explained_in_a_sentence() {
        insta::assert_snapshot!(FindingKind::VARIANTS.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" "), @"timestamp_unit timestamp_ahead no_time property_timestamp_unit no_identity no_app_id field_name envelope blank_number boolean_value number_notation unsafe_integer placeholder_text");
        assert!(FindingKind::VARIANTS.len() <= 16, "the set has 16 bits");
        for kind in FindingKind::VARIANTS {
            assert!(kind.meaning().ends_with('.') && kind.advice().contains(": "), "{}", kind.as_str());
            assert!(!kind.advice().ends_with('.') && !kind.advice().contains('\n'), "{}", kind.as_str());
            assert_eq!(kind.as_str().parse(), Ok(*kind));
        }
    }

    #[test]
    fn a_set_has_each_kind_once() {
        let both =
            Findings::from(FindingKind::Envelope).with(FindingKind::NoTime, true).with(FindingKind::NoAppId, false);
        assert_eq!(both.iter().collect::<Vec<_>>(), [FindingKind::NoTime, FindingKind::Envelope]);
        assert!(both.without(both).is_empty() && !both.and(Findings::default()).is_empty());
    }
}
