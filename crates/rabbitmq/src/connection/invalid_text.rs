//! The texts of messages that are not UTF-8: their original bytes, from the frame filter to the delivery.

use std::fmt::Write as _;

/// What bytes that are not UTF-8 are replaced by.
const REPLACEMENTS: &[u8] = b"?0123456789abcdefghijklmnopqrstuvwxyz";

/// A text of a message that is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InvalidText {
    /// The AMQP property, `exchange`, `routing_key`, or `header_name` for the name of a header at any depth.
    pub location: &'static str,
    /// As RabbitMQ sent it.
    pub bytes: Vec<u8>,
}

impl InvalidText {
    /// Replaces each byte that is not UTF-8 by a question mark, or by other characters if `number` is not 0, so that different
    /// names of headers stay different. `None` if there is no such byte.
    pub fn replace(location: &'static str, mut number: usize, text: &mut [u8]) -> Option<Self> {
        if std::str::from_utf8(text).is_ok() {
            return None;
        }
        let bytes = text.to_vec();
        let mut rest = text;
        for chunk in bytes.utf8_chunks() {
            rest = rest.get_mut(chunk.valid().len()..).unwrap_or_default();
            let (invalid, after) = rest.split_at_mut_checked(chunk.invalid().len())?;
            for byte in invalid {
                *byte = REPLACEMENTS.get(number % REPLACEMENTS.len()).copied().unwrap_or(b'?');
                number /= REPLACEMENTS.len();
            }
            rest = after;
        }
        Some(InvalidText { location, bytes })
    }

    /// The text with each byte that is not UTF-8 as `\xHH`; `None` if it is longer than AMQP's 255 bytes.
    pub fn escaped(&self) -> Option<String> {
        let mut text = String::with_capacity(self.bytes.len());
        for chunk in self.bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            for byte in chunk.invalid() {
                let _ = write!(text, "\\x{byte:02X}");
            }
        }
        (text.len() <= 255).then_some(text)
    }
}
