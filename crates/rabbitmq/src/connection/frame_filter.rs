//! Reads the frames that announce messages before lapin does, and changes what lapin cannot read. No IO.
//!
//! Three things end lapin's connection, or the process, and the message would come back every time. RabbitMQ sends content headers
//! that are larger than the negotiated frame: it adds headers (`x-death`, `x-delivery-count`) to messages that were as large as a
//! frame allows, and does not ask how large the publisher's frames were. AMQP texts need not be UTF-8 for RabbitMQ. And lapin reads
//! nested headers recursively, so that headers nested some 1,500 levels deep would overflow its stack. So headers are taken out of
//! the frame and kept as they are encoded, which also takes less memory than a parsed table; texts and nesting are changed in place.

use std::ops::Range;

use super::content_header::{self, LENGTH, headers_range, remove_headers_flag, take_headers};
use super::incoming::{AnnouncedMessage, HeadersFault, IncomingMessages, Unparsed, UnparsedOf};
use super::invalid_text::InvalidText;
use super::wire::Wire;

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
/// Longest frame that is held back until it is complete, in bytes. A longer method passes as it is, and of a longer content header
/// the headers are dropped: RabbitMQ's limit for a whole message is 16 MiB unless it is raised.
const MAX_HELD: usize = 16 << 20;
/// Bytes of a frame by whose end it is known where the headers are.
const BEFORE_HEADERS: usize = HEAD + content_header::BEFORE_HEADERS;

/// The filter of one connection.
#[derive(Debug)]
pub(super) struct FrameFilter {
    /// Longest frame that is held back until it is complete; see [`MAX_HELD`].
    max_held: usize,
    /// Bytes of the current frame that pass as they are.
    pass: usize,
    /// Bytes that are dropped next: headers that are too large to be held.
    drop: usize,
    /// Bytes of the headers that were dropped from the frame that is held back.
    dropped: Option<usize>,
    /// The beginning of a frame that is not complete yet.
    held: Vec<u8>,
    /// The message of each channel that was announced last.
    announced: Vec<Announced>,
    /// Which of them had the last frame, if it is not in `incoming` yet.
    last: Option<usize>,
    /// What is read next: an old one, so that a message costs no allocation.
    next: Announced,
    /// What is not in `incoming` yet.
    found: Vec<UnparsedOf>,
    incoming: IncomingMessages,
}

/// A message by its frames so far.
#[derive(Debug, Default)]
struct Announced {
    message: AnnouncedMessage,
    invalid: Vec<InvalidText>,
}

impl Announced {
    fn clear(&mut self, channel: u16) {
        let AnnouncedMessage { mut routing_key, mut message_id, .. } = std::mem::take(&mut self.message);
        routing_key.clear();
        message_id.clear();
        self.message = AnnouncedMessage { channel, routing_key, message_id, ..AnnouncedMessage::default() };
        self.invalid.clear();
    }
}

impl FrameFilter {
    /// A filter that adds what it takes out of messages to `incoming`.
    pub fn new(incoming: IncomingMessages) -> Self {
        FrameFilter {
            max_held: MAX_HELD,
            pass: 0,
            drop: 0,
            dropped: None,
            held: Vec::new(),
            announced: Vec::new(),
            last: None,
            next: Announced::default(),
            found: Vec::new(),
            incoming,
        }
    }

    /// How many more bytes complete the frame that is held back, or are to be dropped from it; `None` if no frame is held back.
    pub fn missing(&self) -> Option<usize> {
        if self.drop > 0 {
            return Some(self.drop);
        }
        if self.held.is_empty() {
            return None;
        }
        let length = frame(&self.held).map_or(HEAD, |(_, length)| length);
        Some(length.saturating_sub(self.held.len()).max(1))
    }

    /// Adds bytes to the frame that is held back, at most the missing ones; returns the frame if that completes it.
    pub fn complete(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.drop > 0 {
            self.drop = self.drop.saturating_sub(bytes.len());
            return None;
        }
        self.held.extend_from_slice(bytes);
        self.drop_large_headers();
        if frame(&self.held)
            .is_none_or(|(kind, length)| self.is_filtered(&self.held, kind, length) && self.held.len() < length)
        {
            return None;
        }
        let mut frame = std::mem::take(&mut self.held);
        let passed = self.filter(&mut frame);
        frame.truncate(passed);
        (passed > 0).then_some(frame)
    }

    /// Makes the frames in `bytes` readable and moves them together. Returns how many of the bytes lapin may read; the frame that is
    /// cut by the end is held back.
    pub fn filter(&mut self, bytes: &mut [u8]) -> usize {
        let (mut read, mut kept) = (0, 0);
        while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
            let (length, remaining) = match frame(rest) {
                _ if self.pass > 0 => (self.pass.min(rest.len()), self.pass.min(rest.len())),
                Some((kind, length)) if !self.is_filtered(rest, kind, length) => {
                    self.pass = length;
                    continue;
                }
                Some((kind, length)) if length <= rest.len() => {
                    (length, rest.get_mut(..length).map_or(0, |whole| self.frame(kind, whole)))
                }
                _ => {
                    self.held = rest.to_vec();
                    self.drop_large_headers();
                    break;
                }
            };
            self.pass = self.pass.saturating_sub(length);
            if read != kept {
                bytes.copy_within(read..read + remaining, kept);
            }
            (read, kept) = (read + length, kept + remaining);
        }
        if let Some(announced) = self.last.take().and_then(|at| self.announced.get(at)) {
            self.incoming.add(&announced.message, self.found.drain(..));
        }
        kept
    }

    /// Reads a whole frame; returns how many bytes remain of it.
    fn frame(&mut self, kind: u8, frame: &mut [u8]) -> usize {
        let length = frame.len();
        let Some([_, high, low, ..]) = frame.first_chunk::<HEAD>().copied() else { return length };
        let channel = u16::from_be_bytes([high, low]);
        let Some(payload) = frame.get_mut(HEAD..length.saturating_sub(FRAME_END)) else { return length };
        if kind == METHOD {
            self.next.clear(channel);
            if method(&mut Wire(payload), &mut self.next).is_some() {
                self.announce(channel);
            }
            return length;
        }
        let fault = self.dropped.take().map(HeadersFault::TooLarge);
        let mut unknown = Announced::default();
        let announced = match self.announced.iter_mut().enumerate().find(|(_, it)| it.message.channel == channel) {
            Some((at, announced)) => {
                self.last = Some(at);
                announced
            }
            None => &mut unknown,
        };
        let is_return = announced.message.delivery_tag == 0;
        let mut unparsed =
            Unparsed { invalid_texts: std::mem::take(&mut announced.invalid), fault, ..Unparsed::default() };
        let remaining = take_headers(payload, &mut unparsed, is_return, length > self.max_held);
        let Some(payload) = payload.get_mut(..remaining) else { return length };
        let _ = content_header::properties(&mut Wire(payload), &mut announced.message, &mut unparsed.invalid_texts);
        if !is_return && unparsed != Unparsed::default() {
            self.found.push(((channel, announced.message.delivery_tag), unparsed));
        }
        shorten(frame, remaining)
    }

    /// Makes what was read the last message of its channel.
    fn announce(&mut self, channel: u16) {
        let known = self.announced.iter().position(|announced| announced.message.channel == channel);
        let at = known.unwrap_or(self.announced.len());
        if known.is_none() {
            self.announced.push(Announced::default());
        }
        if let Some(announced) = self.announced.get_mut(at) {
            std::mem::swap(announced, &mut self.next);
        }
        self.last = Some(at);
    }

    /// Drops the headers of a frame that is too long to be held, as soon as it is known where they are.
    fn drop_large_headers(&mut self) {
        let Some((CONTENT_HEADER, length)) = frame(&self.held).filter(|(_, length)| *length > self.max_held) else {
            return;
        };
        let Some(headers) = self.large_headers(&self.held, length) else { return };
        remove_headers_flag(self.held.get_mut(HEAD..).unwrap_or_default());
        self.dropped = Some(headers.len() - LENGTH);
        self.drop = headers.end.saturating_sub(self.held.len());
        self.held.drain(headers.start..headers.end.min(self.held.len()));
        set_payload_length(&mut self.held, length - headers.len() - HEAD - FRAME_END);
    }

    /// Whether a frame that begins like this, of this kind and length, is held back until it is complete.
    fn is_filtered(&self, bytes: &[u8], kind: u8, length: usize) -> bool {
        let is_short = length <= self.max_held;
        match kind {
            METHOD => is_short,
            CONTENT_HEADER => is_short || bytes.len() < BEFORE_HEADERS || self.large_headers(bytes, length).is_some(),
            _ => false,
        }
    }

    /// Where the headers are in a content header frame of this length, with the length before them, if they are what makes it too
    /// long.
    fn large_headers(&self, bytes: &[u8], length: usize) -> Option<Range<usize>> {
        let headers = headers_range(bytes.get(HEAD..)?)?;
        let (start, end) = (HEAD + headers.start, HEAD + headers.end);
        (end < length && length - headers.len() <= self.max_held).then_some(start..end)
    }
}

/// Kind and length of the frame that `bytes` begin with.
fn frame(bytes: &[u8]) -> Option<(u8, usize)> {
    let [kind, _, _, a, b, c, d] = *bytes.first_chunk::<HEAD>()?;
    Some((kind, u32::from_be_bytes([a, b, c, d]) as usize + HEAD + FRAME_END))
}

/// Shortens a frame to this many bytes of payload. Returns its length.
fn shorten(frame: &mut [u8], payload: usize) -> usize {
    let end = frame.last().copied();
    set_payload_length(frame, payload);
    if let (Some(last), Some(end)) = (frame.get_mut(HEAD + payload), end) {
        *last = end;
    }
    HEAD + payload + FRAME_END
}

fn set_payload_length(frame: &mut [u8], payload: usize) {
    let length = u32::try_from(payload).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(at) = frame.get_mut(HEAD - LENGTH..HEAD) {
        at.copy_from_slice(&length);
    }
}

/// Reads a method that announces a message; none for other methods. RabbitMQ up to 4.0 cuts long reply texts anywhere, also
/// within a character.
fn method(wire: &mut Wire, announced: &mut Announced) -> Option<()> {
    match (wire.u16()?, wire.u16()?) {
        CONNECTION_CLOSE | CHANNEL_CLOSE => {
            wire.take(2)?;
            InvalidText::replace("reply_text", 0, wire.short_string()?);
            return None;
        }
        DELIVER => {
            wire.short_string()?;
            announced.message.delivery_tag = wire.u64()?;
            wire.take(1)?;
        }
        GET_OK => {
            announced.message.delivery_tag = wire.u64()?;
            wire.take(1)?;
        }
        RETURN => {
            wire.take(2)?;
            wire.short_string()?;
        }
        _ => return None,
    }
    announced.invalid.extend(InvalidText::replace("exchange", 0, wire.short_string()?));
    let routing_key = wire.short_string()?;
    announced.invalid.extend(InvalidText::replace("routing_key", 0, routing_key));
    announced.message.routing_key.extend_from_slice(routing_key);
    Some(())
}

/// What lapin receives if the bytes arrive in pieces of these sizes, read as `FilteredStream` reads.
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
pub fn check_frame_filter(bytes: &[u8]) {
    // The lower limit makes even short frames too long to be held.
    for max_held in [MAX_HELD, BEFORE_HEADERS] {
        let pass = |bytes: &[u8], sizes: &mut dyn Iterator<Item = usize>| {
            let incoming = IncomingMessages::default();
            let mut filter = FrameFilter { max_held, ..FrameFilter::new(incoming.clone()) };
            (filtered(&mut filter, bytes, sizes), incoming.into_parts())
        };
        let whole = pass(bytes, &mut std::iter::empty());
        assert!(whole.0.len() <= bytes.len(), "bytes were added");
        let singly = pass(bytes, &mut bytes.iter().map(|_| 1));
        assert_eq!(singly, whole, "the result depends on the pieces");
        assert_eq!(pass(&whole.0, &mut std::iter::empty()).0, whole.0, "a filtered frame was changed again");
    }
}

#[cfg(test)]
#[path = "frame_filter_tests.rs"]
mod tests;
