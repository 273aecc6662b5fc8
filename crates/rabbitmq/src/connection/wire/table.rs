//! The walk through the headers of a message in AMQP's encoding: where a value ends, names that are not UTF-8, and nesting that is
//! too deep.

use super::super::invalid_text::InvalidText;
use super::Wire;

/// Deepest nesting of headers, in levels: the headers themselves are the first. It also fits into JSON, where a level may
/// take two, and serde_json reads at most 128.
const MAX_DEPTH: usize = 60;
/// Type codes (RabbitMQ's page on AMQP 0-9-1 errata).
const TABLE: u8 = b'F';
const ARRAY: u8 = b'A';
const BYTE_ARRAY: u8 = b'x';
/// Bytes of a length before the content of a table, an array, a text or a byte array.
const LENGTH: usize = 4;

/// Reads the fields of a table. Values nested too deep become byte arrays, which are encoded alike but for the type code.
pub(crate) fn fields(wire: &mut Wire, depth: usize, invalid: &mut Vec<InvalidText>) -> Option<()> {
    let mut replaced = 0;
    while !wire.0.is_empty() {
        let name = InvalidText::replace("header_name", replaced, wire.short_string()?);
        replaced += usize::from(name.is_some());
        invalid.extend(name);
        value(wire, depth, invalid)?;
    }
    Some(())
}

fn value(wire: &mut Wire, depth: usize, invalid: &mut Vec<InvalidText>) -> Option<()> {
    let length = value_length(wire.0)?;
    let (kind, content) = wire.take(length)?.split_first_mut()?;
    match *kind {
        TABLE | ARRAY if depth >= MAX_DEPTH => *kind = BYTE_ARRAY,
        TABLE => fields(&mut Wire(content.get_mut(LENGTH..)?), depth + 1, invalid)?,
        ARRAY => {
            let mut values = Wire(content.get_mut(LENGTH..)?);
            while !values.0.is_empty() {
                value(&mut values, depth + 1, invalid)?;
            }
        }
        _ => {}
    }
    Some(())
}

/// Bytes of the value that `bytes` begin with, type code included. Returns `None` if the type is unknown or the length is cut.
fn value_length(bytes: &[u8]) -> Option<usize> {
    let (kind, content) = bytes.split_first()?;
    let length = match *kind {
        b'V' => 0,
        b't' | b'b' | b'B' => 1,
        b's' | b'u' | b'U' => 2,
        b'I' | b'i' | b'f' => 4,
        b'D' => 5,
        b'l' | b'L' | b'd' | b'T' => 8,
        TABLE | ARRAY | b'S' | BYTE_ARRAY => LENGTH + u32::from_be_bytes(*content.first_chunk()?) as usize,
        _ => return None,
    };
    Some(1 + length)
}

/// Name and value, with its type code, of each field of a table, up to the first that is not well-formed.
pub(crate) fn entries(mut table: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let (length, rest) = table.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (value, rest) = rest.split_at_checked(value_length(rest)?)?;
        table = rest;
        Some((name, value))
    })
}
