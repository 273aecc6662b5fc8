//! Owns the walk through the headers of a message: names that are not UTF-8, and nesting that is too deep. Must not know
//! frames.

use super::super::invalid_text::InvalidText;
use super::Wire;

/// Deepest nesting of headers, in levels: the headers themselves are the first. It also fits into JSON, where a level may
/// take two, and serde_json reads at most 128.
const MAX_DEPTH: usize = 60;
/// Headers of so many bytes cannot be nested so deeply that they overflow a stack: a level takes at least five bytes.
pub(crate) const SHALLOW_BYTES: usize = 5 * MAX_DEPTH;
/// Type codes (RabbitMQ's page on AMQP 0-9-1 errata).
const TABLE: u8 = b'F';
const ARRAY: u8 = b'A';
const BYTE_ARRAY: u8 = b'x';

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

fn values(wire: &mut Wire, depth: usize, invalid: &mut Vec<InvalidText>) -> Option<()> {
    while !wire.0.is_empty() {
        value(wire, depth, invalid)?;
    }
    Some(())
}

fn value(wire: &mut Wire, depth: usize, invalid: &mut Vec<InvalidText>) -> Option<()> {
    let kind = wire.take(1)?.first_mut()?;
    match *kind {
        TABLE | ARRAY if depth >= MAX_DEPTH => {
            *kind = BYTE_ARRAY;
            wire.long_bytes()?;
        }
        TABLE => fields(&mut Wire(wire.long_bytes()?), depth + 1, invalid)?,
        ARRAY => values(&mut Wire(wire.long_bytes()?), depth + 1, invalid)?,
        b'S' | BYTE_ARRAY => drop(wire.long_bytes()?),
        b't' | b'b' | b'B' => drop(wire.take(1)?),
        b's' | b'u' | b'U' => drop(wire.take(2)?),
        b'I' | b'i' | b'f' => drop(wire.take(4)?),
        b'D' => drop(wire.take(5)?),
        b'l' | b'L' | b'd' | b'T' => drop(wire.take(8)?),
        b'V' => {}
        _ => return None,
    }
    Some(())
}
