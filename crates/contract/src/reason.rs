//! The reasons for which a message is rejected, each with its explanation: the console, the tables of docs/publish/rejected.md and
//! docs/operate/dead-letters.md, metrics, headers and `--reason` all take it from here.

use strum::{EnumMessage, EnumProperty, EnumString, IntoStaticStr, VariantArray};

/// Why a message cannot be stored. The order is that of the docs. Of each reason:
///
/// - the doc comment says when a message is rejected for it,
/// - `message` what the publisher, or somebody else, did wrong,
/// - `detailed_message` what an operator can do,
/// - `edit`, where there is one, an expression for `--edit` that often helps.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    EnumMessage,
    EnumProperty,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// An AMQP property, a header name, the routing key or the exchange is not UTF-8.
    #[strum(
        message = "The publisher put bytes that are not UTF-8 into a property, a header name or the routing key: often Latin-1, or a text cut in the middle of a character. The detail names it, and dl-original-bytes has the bytes in base64.",
        detailed_message = "Replay it: each such byte is sent as \\xHH."
    )]
    InvalidProperty,
    /// In a worker with several routes: the routing key belongs to no pattern of the route whose queue the message came through, and does not name that queue itself.
    #[strum(
        message = "The queue has a binding that does not belong to its route, left over or made by hand (`ticketlog check` names it); or the routing key has a typo.",
        detailed_message = "Remove the binding. If the route of that routing key has stored the event, delete the dead letter; else replay it. To store it in this collection all the same: `dead replay --to-queue`."
    )]
    UnexpectedRoutingKey,
    /// The body is empty, as received or decompressed.
    #[strum(
        message = "The publisher sent no body at all.",
        detailed_message = "Nothing can be edited: ask for the event again, and delete the dead letter."
    )]
    EmptyBody,
    /// The body is not UTF-8, or is UTF-16 or UTF-32.
    #[strum(
        message = "The publisher encoded the body as UTF-16 or Latin-1, or compressed it without saying so in content_encoding.",
        detailed_message = "The expression reads it as Latin-1.",
        props(edit = "fromjson")
    )]
    InvalidUtf8,
    /// Not exactly one JSON text (RFC 8259): truncated, trailing comma, comment, `NaN`, `01`, `1e400`.
    #[strum(
        message = "The publisher wrote JSON by hand, or cut it off: NaN, a trailing comma, single quotes, a leading zero. The detail has line and column.",
        detailed_message = "Edit what is regular by an expression over the text; a body that was cut off must be asked for again.",
        props(edit = "gsub(\"NaN\"; \"null\") | fromjson")
    )]
    InvalidJson,
    /// JSON, but an array, a string, a number, `true`, `false` or `null`.
    #[strum(
        message = "The publisher sent an array, or a bare value, where one event is expected: often several events in one message.",
        detailed_message = "An array of one event can be unpacked.",
        props(edit = ".[0]")
    )]
    NotAnObject,
    /// Larger than `event.max_bytes`, before or after decompression, or than 16 MiB as BSON; or headers of more than 16 MiB.
    #[strum(
        message = "The event is larger than event.max_bytes, or than MongoDB's 16 MiB. Headers of more than 16 MiB are not in the dead letter any more.",
        detailed_message = "Raise the limit and replay, or leave out what makes it large.",
        props(edit = "del(.attachment)")
    )]
    TooLarge,
    /// Nested deeper than `event.max_depth`.
    #[strum(
        message = "The event is nested deeper than event.max_depth: often an object that contains itself.",
        detailed_message = "Raise the limit and replay, or leave out what is deep.",
        props(edit = "del(.details)")
    )]
    TooDeep,
    /// A configured field that cannot be cast to its type; `dl-field` names it.
    #[strum(
        message = "The publisher sent a value of another type than the field in dl-field has, such as `user_id: \"abc\"`.",
        detailed_message = "Correct the type in [event.fields] and replay, or change the values.",
        props(edit = ".timestamp |= fromdate * 1000")
    )]
    InvalidField,
    /// A required field is absent, null or `""`.
    #[strum(
        message = "The publisher left out a field that is required.",
        detailed_message = "Make it optional and replay, or add it.",
        props(edit = ".status = \"unknown\"")
    )]
    MissingField,
    /// A key with a NUL character.
    #[strum(
        message = "A key contains a NUL character, which MongoDB cannot store.",
        detailed_message = "Remove it from the keys.",
        props(edit = "with_entries(.key |= gsub(\"\\u0000\"; \"\"))")
    )]
    InvalidFieldName,
    /// `_id` is not 24 hexadecimal digits.
    #[strum(
        message = "The publisher sent an _id that is not 24 hexadecimal digits.",
        detailed_message = "Leave it out: the event gets an _id of its own.",
        props(edit = "del(._id)")
    )]
    InvalidId,
    /// Another `content_encoding`, or a body that is not encoded that way.
    #[strum(
        message = "content_encoding names a compression that is not known, or the body is not compressed that way.",
        detailed_message = "If the body is plain, send it as it is: an edited body has no content_encoding. Otherwise export it, decompress it elsewhere, and publish the event again.",
        props(edit = ".")
    )]
    UnsupportedEncoding,
    /// A different document has this `_id`.
    #[strum(
        message = "Another event is stored under the same _id: the publisher used one id for two events.",
        detailed_message = "To keep both, leave out the _id.",
        props(edit = "del(._id)")
    )]
    IdentityConflict,
    /// Another unique index of the collection already holds this key.
    #[strum(
        message = "A unique index of the collection holds this key already.",
        detailed_message = "Drop the index and replay, or delete the dead letter."
    )]
    DuplicateKey,
    /// MongoDB rejects the document, for instance because of a validator.
    #[strum(
        message = "MongoDB rejects the document, by a validator of the collection for instance. The detail has the code.",
        detailed_message = "Correct the validator and replay, or change the values."
    )]
    RejectedByStore,
    /// RabbitMQ itself dead-lettered the message (see `x-death`): delivered more often than the queue's delivery limit.
    #[strum(
        message = "RabbitMQ gave up: it had delivered the message as often as the queue allows, without an acknowledgement.",
        detailed_message = "Find out why the workers ended, then replay."
    )]
    DeliveryLimit,
    /// RabbitMQ itself dead-lettered the message: its time to live has passed.
    #[strum(
        message = "The message waited longer in the queue than a policy, or its own expiration, allows.",
        detailed_message = "Remove the limit, then replay."
    )]
    Expired,
    /// RabbitMQ itself dead-lettered the message: the queue was full.
    #[strum(message = "The queue was full.", detailed_message = "Remove the limit, or run more workers, then replay.")]
    Maxlen,
    /// RabbitMQ itself dead-lettered the message: another client rejected it.
    #[strum(
        message = "Another program consumed the workers' queue and rejected the message.",
        detailed_message = "Stop that program, then replay."
    )]
    RejectedByClient,
}

impl Reason {
    /// The name used outside the program.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// When a message is rejected for it.
    pub fn meaning(self) -> &'static str {
        self.get_documentation().unwrap_or_default()
    }

    /// What the publisher, or somebody else, did wrong.
    pub fn fault(self) -> &'static str {
        self.get_message().unwrap_or_default()
    }

    /// What an operator can do.
    pub fn remedy(self) -> &'static str {
        self.get_detailed_message().unwrap_or_default()
    }

    /// An expression for `--edit` that often helps.
    pub fn edit(self) -> Option<&'static str> {
        self.get_str("edit")
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

    #[test]
    fn every_reason_is_explained_in_whole_sentences() {
        for reason in Reason::VARIANTS {
            for text in [reason.meaning(), reason.fault(), reason.remedy()] {
                assert!(text.ends_with('.') && !text.contains('\n'), "{}: {text}", reason.as_str());
            }
        }
        assert_eq!(Reason::InvalidJson.edit(), Some(r#"gsub("NaN"; "null") | fromjson"#));
        assert_eq!(Reason::InvalidFieldName.edit(), Some(r#"with_entries(.key |= gsub("\u0000"; ""))"#));
        assert_eq!(Reason::Maxlen.edit(), None);
    }
}
