//! Owns a sentence for each cause about what went wrong at the publisher, and one about what an operator can do. Pure. Must not
//! know pages.

use crate::dead_letter::Cause;
use crate::event::Reason;

/// What was done wrong, and what helps.
pub(super) struct Advice {
    /// What the publisher's code, or a setting, did.
    pub fault: &'static str,
    /// What an operator can do.
    pub remedy: &'static str,
    /// An expression that often mends it; empty if none does.
    pub expression: &'static str,
}

const fn advice(fault: &'static str, remedy: &'static str, expression: &'static str) -> Advice {
    Advice { fault, remedy, expression }
}

/// For a dead letter that no worker wrote.
const UNKNOWN: Advice = advice(
    "Somebody published this into the dead-letter queue, without the headers that a worker writes.",
    "Find out who. A replay needs to know where to: park it, or export and delete it.",
    "",
);

/// For each reason.
const BY_REASON: [(Reason, Advice); 20] = [
    (
        Reason::InvalidProperty,
        advice(
            "The publisher put bytes that are not UTF-8 into a property, a header name or the routing key: often Latin-1, or a text cut in the middle of a character.",
            "Replay it: such bytes are sent as \\xHH. The originals are in dl-original-bytes.",
            "",
        ),
    ),
    (
        Reason::UnexpectedRoutingKey,
        advice(
            "The queue has a binding that does not belong to its route: left over, or made by hand. `ticketlog check` names it.",
            "Remove the binding. If the route of that routing key has stored the event, delete the dead letter; else replay it.",
            "",
        ),
    ),
    (
        Reason::EmptyBody,
        advice(
            "The publisher sent no body at all.",
            "Nothing can be mended: ask for the event again, and delete it.",
            "",
        ),
    ),
    (
        Reason::InvalidUtf8,
        advice(
            "The publisher encoded the body as UTF-16 or Latin-1, or compressed it without saying so in content_encoding.",
            "The expression reads it as Latin-1.",
            "fromjson",
        ),
    ),
    (
        Reason::InvalidJson,
        advice(
            "The publisher wrote JSON by hand, or cut it off: NaN, a trailing comma, single quotes, a leading zero.",
            "Mend what is regular by an expression over the text; a body that was cut off must be asked for again.",
            r#"gsub("NaN"; "null") | fromjson"#,
        ),
    ),
    (
        Reason::NotAnObject,
        advice(
            "The publisher sent an array, or a bare value, where one event is expected: often several events in one message.",
            "An array of one event can be unpacked.",
            ".[0]",
        ),
    ),
    (
        Reason::TooLarge,
        advice(
            "The event is larger than event.max_bytes, or than MongoDB's 16 MiB.",
            "Raise the limit and replay, or leave out what makes it large.",
            "del(.attachment)",
        ),
    ),
    (
        Reason::TooDeep,
        advice(
            "The event is nested deeper than event.max_depth: often an object that contains itself.",
            "Raise the limit and replay, or leave out what is deep.",
            "del(.details)",
        ),
    ),
    (
        Reason::InvalidField,
        advice(
            "The publisher sent a value of another type than the field has.",
            "Correct the type in [event.fields] and replay, or change the values.",
            ".user_id |= tonumber",
        ),
    ),
    (
        Reason::MissingField,
        advice(
            "The publisher left out a field that is required.",
            "Make it optional and replay, or add it.",
            r#".status = "unknown""#,
        ),
    ),
    (
        Reason::InvalidFieldName,
        advice(
            "A key contains a NUL character, which MongoDB cannot store.",
            "Remove it from the keys.",
            r#"with_entries(.key |= gsub("\u0000"; ""))"#,
        ),
    ),
    (
        Reason::InvalidId,
        advice(
            "The publisher sent an _id that is not 24 hexadecimal digits.",
            "Leave it out: the event gets an _id of its own.",
            "del(._id)",
        ),
    ),
    (
        Reason::UnsupportedEncoding,
        advice(
            "content_encoding names a compression that is not known, or the body is not compressed that way.",
            "If the body is plain, send it as it is; otherwise export it and decompress it elsewhere.",
            ".",
        ),
    ),
    (
        Reason::IdentityConflict,
        advice(
            "Another event is stored under the same _id: the publisher used one id for two events.",
            "To keep both, leave out the _id.",
            "del(._id)",
        ),
    ),
    (
        Reason::DuplicateKey,
        advice(
            "A unique index of the collection holds this key already.",
            "Drop the index and replay, or delete it.",
            "",
        ),
    ),
    (
        Reason::RejectedByStore,
        advice(
            "MongoDB rejects the document, by a validator of the collection for instance.",
            "Correct the validator and replay, or change the values.",
            "",
        ),
    ),
    (
        Reason::DeliveryLimit,
        advice(
            "RabbitMQ gave up: it had delivered the message as often as the queue allows, without an acknowledgement.",
            "Find out why the workers died, then replay.",
            "",
        ),
    ),
    (
        Reason::Expired,
        advice(
            "The message waited longer in the queue than a policy, or its own expiration, allows.",
            "Remove the limit, then replay.",
            "",
        ),
    ),
    (Reason::Maxlen, advice("The queue was full.", "Remove the limit, or run more workers, then replay.", "")),
    (
        Reason::RejectedByClient,
        advice(
            "Another program consumed the workers' queue and rejected the message.",
            "Stop that program, then replay.",
            "",
        ),
    ),
];

/// The advice for a cause.
pub(super) fn for_cause(cause: Cause) -> &'static Advice {
    let known = BY_REASON.iter().find(|(reason, _)| cause == Cause::Reason(*reason));
    known.map_or(&UNKNOWN, |(_, advice)| advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_advice() {
        for name in Cause::names() {
            let advice = for_cause(Cause::parse(name).unwrap());
            assert_eq!(advice.fault == UNKNOWN.fault, name == "unknown", "{name}");
            assert!(advice.fault.ends_with('.') && advice.remedy.ends_with('.'), "{name}");
        }
    }
}
