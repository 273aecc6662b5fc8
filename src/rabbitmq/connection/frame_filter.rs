//! Owns what lapin cannot read in frames from RabbitMQ, and makes it readable without changing a frame's length. No IO. Must
//! not know where the bytes come from.
//!
//! AMQP texts need not be UTF-8 for RabbitMQ, but lapin ends the connection at the first one that is not, and the message
//! would come back every time. And lapin reads nested headers recursively, so that headers nested some 1,500 levels deep
//! would overflow its stack.

use std::collections::HashMap;

use super::invalid_text::{InvalidText, InvalidTexts};
use super::wire::{Wire, table};

/// Bytes of a frame before and after its payload (AMQP 0-9-1, section 4.2.3).
const HEAD: usize = 7;
const FRAME_END: usize = 1;
const METHOD: u8 = 1;
const CONTENT_HEADER: u8 = 2;
/// Class and method of what is read.
const CONNECTION_CLOSE: (u16, u16) = (10, 50);
const CHANNEL_CLOSE: (u16, u16) = (20, 40);
const RETURN: (u16, u16) = (60, 50);
const DELIVER: (u16, u16) = (60, 60);
const GET_OK: (u16, u16) = (60, 71);
/// Longest frame that is held back until it is complete, in bytes. A longer one passes as it is: RabbitMQ negotiates 128 KiB.
const MAX_HELD: usize = 16 << 20;
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

/// The filter of one connection.
#[derive(Debug)]
pub(super) struct FrameFilter {
    /// Bytes of the current frame that pass as they are.
    pass: usize,
    /// The beginning of a frame that is not complete yet.
    held: Vec<u8>,
    /// The message whose content header comes next, by channel.
    announced: HashMap<u16, Announced>,
    found: InvalidTexts,
}

/// A message by its method frame.
#[derive(Debug, Default)]
struct Announced {
    delivery_tag: u64,
    invalid: Vec<InvalidText>,
}

impl FrameFilter {
    /// A filter that reports what it replaces to `found`.
    pub fn new(found: InvalidTexts) -> Self {
        FrameFilter { pass: 0, held: Vec::new(), announced: HashMap::new(), found }
    }

    /// How many more bytes complete the frame that is held back; none if none is.
    pub fn missing(&self) -> Option<usize> {
        if self.held.is_empty() {
            return None;
        }
        let length = frame(&self.held).map_or(HEAD, |(_, length)| length);
        Some(length.saturating_sub(self.held.len()).max(1))
    }

    /// Adds bytes to the frame that is held back, at most the missing ones; returns the frame if that completes it.
    pub fn complete(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.held.extend_from_slice(bytes);
        if frame(&self.held).is_none_or(|(kind, length)| is_filtered(kind, length) && self.held.len() < length) {
            return None;
        }
        let mut frame = std::mem::take(&mut self.held);
        let passed = self.filter(&mut frame);
        (passed > 0).then_some(frame)
    }

    /// Makes the frames in `bytes` readable, in place. Returns how many of the bytes may pass; the rest is held back.
    pub fn filter(&mut self, bytes: &mut [u8]) -> usize {
        let total = bytes.len();
        let mut rest = bytes;
        while !rest.is_empty() {
            let passing = self.pass.min(rest.len());
            if passing > 0 {
                self.pass -= passing;
                rest = rest.get_mut(passing..).unwrap_or_default();
                continue;
            }
            match frame(rest) {
                Some((kind, length)) if !is_filtered(kind, length) => self.pass = length,
                Some((kind, length)) if length <= rest.len() => {
                    let Some((whole, after)) = rest.split_at_mut_checked(length) else { break };
                    self.frame(kind, whole);
                    rest = after;
                }
                _ => {
                    self.held = rest.to_vec();
                    return total - self.held.len();
                }
            }
        }
        total
    }

    fn frame(&mut self, kind: u8, frame: &mut [u8]) {
        let end = frame.len().saturating_sub(FRAME_END);
        let Some([_, high, low, ..]) = frame.first_chunk::<HEAD>().copied() else { return };
        let channel = u16::from_be_bytes([high, low]);
        let Some(payload) = frame.get_mut(HEAD..end) else { return };
        if kind == METHOD {
            if let Some(announced) = method(&mut Wire(payload)) {
                self.announced.insert(channel, announced);
            }
            return;
        }
        let Some(announced) = self.announced.get_mut(&channel) else { return };
        // Most messages: nothing can be invalid, nor nested deeply.
        if !payload.is_ascii() || payload.len() > table::SHALLOW_BYTES {
            let _ = properties(&mut Wire(payload), &mut announced.invalid);
        }
        if !announced.invalid.is_empty() {
            self.found.add(channel, announced.delivery_tag, std::mem::take(&mut announced.invalid));
        }
    }
}

/// Whether a frame of this kind and length is held back until it is complete.
fn is_filtered(kind: u8, length: usize) -> bool {
    matches!(kind, METHOD | CONTENT_HEADER) && length <= MAX_HELD
}

/// Kind and length of the frame that `bytes` begin with.
fn frame(bytes: &[u8]) -> Option<(u8, usize)> {
    let [kind, _, _, a, b, c, d] = *bytes.first_chunk::<HEAD>()?;
    Some((kind, u32::from_be_bytes([a, b, c, d]) as usize + HEAD + FRAME_END))
}

/// Reads a method that announces a message; none for other methods. RabbitMQ up to 4.0 cuts long reply texts anywhere, also
/// within a character.
fn method(wire: &mut Wire) -> Option<Announced> {
    let mut announced = Announced::default();
    match (wire.u16()?, wire.u16()?) {
        CONNECTION_CLOSE | CHANNEL_CLOSE => {
            wire.take(2)?;
            InvalidText::replace("reply_text", 0, wire.short_string()?);
            return None;
        }
        DELIVER => {
            wire.short_string()?;
            announced.delivery_tag = wire.u64()?;
            wire.take(1)?;
        }
        GET_OK => {
            announced.delivery_tag = wire.u64()?;
            wire.take(1)?;
        }
        RETURN => {
            wire.take(2)?;
            wire.short_string()?;
        }
        _ => return None,
    }
    announced.invalid.extend(InvalidText::replace("exchange", 0, wire.short_string()?));
    announced.invalid.extend(InvalidText::replace("routing_key", 0, wire.short_string()?));
    Some(announced)
}

/// Reads a content header (AMQP 0-9-1, section 2.3.5.2). None where it is not well-formed: lapin reports that.
fn properties(wire: &mut Wire, invalid: &mut Vec<InvalidText>) -> Option<()> {
    wire.take(2 + 2 + 8)?;
    let flags = wire.u16()?;
    for (n, name) in PROPERTIES.iter().enumerate() {
        if flags & (1 << (15 - n)) == 0 {
            continue;
        }
        match *name {
            "headers" => table::fields(&mut Wire(wire.long_bytes()?), 1, invalid)?,
            "delivery_mode" | "priority" => drop(wire.take(1)?),
            "timestamp" => drop(wire.take(8)?),
            _ => invalid.extend(InvalidText::replace(name, 0, wire.short_string()?)),
        }
    }
    Some(())
}

/// What lapin receives if the bytes arrive in pieces of these sizes, read as `FilteredStream` reads.
#[cfg(any(test, feature = "fuzzing"))]
fn filtered(filter: &mut FrameFilter, bytes: &[u8], sizes: impl IntoIterator<Item = usize>) -> Vec<u8> {
    let (mut received, mut rest) = (Vec::new(), bytes);
    for mut size in sizes.into_iter().chain([bytes.len()]) {
        while size > 0 && !rest.is_empty() {
            let missing = filter.missing();
            let (piece, after) = rest.split_at(missing.unwrap_or(size).min(size).min(rest.len()));
            rest = after;
            size -= piece.len();
            let mut piece = piece.to_vec();
            if missing.is_some() {
                received.extend(filter.complete(&piece).unwrap_or_default());
            } else {
                let passed = filter.filter(&mut piece);
                received.extend(piece.into_iter().take(passed));
            }
        }
    }
    received
}

/// Asserts what must hold for any bytes.
#[cfg(any(test, feature = "fuzzing"))]
pub fn check_frame_filter(bytes: &[u8]) {
    let filter = || FrameFilter::new(InvalidTexts::default());
    let whole = filtered(&mut filter(), bytes, []);
    assert!(whole.len() <= bytes.len(), "bytes were added");
    let singly = filtered(&mut filter(), bytes, bytes.iter().map(|_| 1));
    assert_eq!(singly, whole, "the result depends on the pieces");
    assert_eq!(filtered(&mut filter(), &whole, []), whole, "a filtered frame was changed again");
}

#[cfg(test)]
#[path = "frame_filter_tests.rs"]
mod tests;
