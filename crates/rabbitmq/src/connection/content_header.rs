//! The content header of a message as it is encoded (AMQP 0-9-1, section 2.3.5.2): takes the headers out of it, and reads the other
//! properties.

use std::ops::Range;

use ticketlog_contract::dead_letter;

use super::incoming::{AnnouncedMessage, HeadersFault, Unparsed};
use super::invalid_text::InvalidText;
use super::wire::{Wire, table};

/// Bytes before the flags: class, weight and body size.
const BEFORE_FLAGS: usize = 2 + 2 + 8;
/// The properties, in the order of their flags from the highest bit on (AMQP 0-9-1,
/// section 1.8.3).
const PROPERTIES: [&str; 14] = [
    "content_type",
    "content_encoding",
    "headers",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "timestamp",
    "type",
    "user_id",
    "app_id",
    "cluster_id",
];
const HEADERS_FLAG: u16 = 1 << 13;
const TEXTS_BEFORE_HEADERS: usize = 2;
/// Bytes of the length before a table.
pub(super) const LENGTH: usize = 4;
/// Bytes by whose end it is known where the headers are.
pub(super) const BEFORE_HEADERS: usize = BEFORE_FLAGS + 2 + TEXTS_BEFORE_HEADERS * 256 + LENGTH;
/// Longest header, and most bytes of headers, that stay in a returned message: of a message that we published, the short ones of our
/// own identify it.
const MAX_RETURNED_HEADER: usize = 255;
const MAX_RETURNED_HEADERS: usize = 1024;

/// Where the headers are in the payload of a content header, with the length before them. `None` if there are none, or if it is cut
/// before their length.
pub(super) fn headers_range(payload: &[u8]) -> Option<Range<usize>> {
    let flags = u16::from_be_bytes(*payload.get(BEFORE_FLAGS..)?.first_chunk()?);
    let mut at = BEFORE_FLAGS + 2;
    for n in 0..TEXTS_BEFORE_HEADERS {
        if flags & flag(n) != 0 {
            at += 1 + usize::from(*payload.get(at)?);
        }
    }
    let length = u32::from_be_bytes(*payload.get(at..)?.first_chunk()?) as usize;
    (flags & HEADERS_FLAG != 0).then_some(at..at + LENGTH + length)
}

/// The flag of a property, by its place in `PROPERTIES`.
fn flag(property: usize) -> u16 {
    1 << (15 - property)
}

pub(super) fn remove_headers_flag(payload: &mut [u8]) {
    if let Some(flags) = payload.get_mut(BEFORE_FLAGS) {
        *flags &= !HEADERS_FLAG.to_be_bytes()[0];
    }
}

/// Takes the headers out of the payload of a content header, or drops them if they are too large. Those of a returned message that
/// identify it stay. Returns how many bytes remain.
pub(super) fn take_headers(payload: &mut [u8], unparsed: &mut Unparsed, is_return: bool, too_large: bool) -> usize {
    let length = payload.len();
    let Some(range) = headers_range(payload).filter(|range| range.end <= length) else { return length };
    let mut headers = Vec::new();
    if too_large {
        unparsed.fault = Some(HeadersFault::TooLarge(range.len() - LENGTH));
    } else {
        headers.extend_from_slice(payload.get(range.start + LENGTH..range.end).unwrap_or_default());
        if table::fields(&mut Wire(&mut headers), 1, &mut unparsed.invalid_texts).is_none() {
            unparsed.fault = Some(HeadersFault::Malformed);
            headers.clear();
        }
    }
    let stay = if is_return { returned_headers(&headers) } else { Vec::new() };
    let mut at = range.start;
    if stay.is_empty() {
        remove_headers_flag(payload);
    } else {
        let encoded = [&u32::try_from(stay.len()).unwrap_or(0).to_be_bytes(), stay.as_slice()].concat();
        at += encoded.len();
        if let Some(place) = payload.get_mut(range.start..at) {
            place.copy_from_slice(&encoded);
        }
    }
    payload.copy_within(range.end.., at);
    unparsed.headers = headers;
    length - (range.end - at)
}

fn returned_headers(headers: &[u8]) -> Vec<u8> {
    let mut stay = Vec::new();
    for (name, value) in table::entries(headers).filter(|(name, _)| name.starts_with(dead_letter::PREFIX.as_bytes())) {
        let may_be_key = [dead_letter::ID, dead_letter::FIRST_ID].iter().any(|key| key.as_bytes() == name);
        if may_be_key && value.len() <= MAX_RETURNED_HEADER && stay.len() + value.len() <= MAX_RETURNED_HEADERS {
            stay.extend(u8::try_from(name.len()));
            stay.extend_from_slice(name);
            stay.extend_from_slice(value);
        }
    }
    stay
}

/// Reads a content header without headers (AMQP 0-9-1, section 2.3.5.2). None where it is not well-formed: lapin reports that.
pub(super) fn properties(
    wire: &mut Wire,
    message: &mut AnnouncedMessage,
    invalid: &mut Vec<InvalidText>,
) -> Option<()> {
    wire.take(2 + 2)?;
    message.body_bytes = wire.u64();
    let flags = wire.u16()?;
    for (_, name) in PROPERTIES.iter().enumerate().filter(|(n, _)| flags & flag(*n) != 0) {
        match *name {
            "headers" => drop(wire.long_bytes()?),
            "delivery_mode" | "priority" => drop(wire.take(1)?),
            "timestamp" => drop(wire.take(8)?),
            _ => {
                let text = wire.short_string()?;
                invalid.extend(InvalidText::replace(name, 0, text));
                if *name == "message_id" {
                    message.message_id.clear();
                    message.message_id.extend_from_slice(text);
                }
            }
        }
    }
    Some(())
}
