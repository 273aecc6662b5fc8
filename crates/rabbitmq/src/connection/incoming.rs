//! What the frame filter keeps of messages, beside what lapin reads: headers as they are encoded, texts that are not UTF-8, and which
//! message RabbitMQ sent last.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::invalid_text::InvalidText;

/// What a message has that lapin does not read.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Unparsed {
    /// The fields of its headers, encoded; lapin's parser accepts all of them.
    pub headers: Vec<u8>,
    /// Why `headers` is empty although the message has headers.
    pub fault: Option<HeadersFault>,
    /// Texts that were replaced so that they can be read.
    pub invalid_texts: Vec<InvalidText>,
}

/// An `Unparsed`, by channel and delivery tag.
pub(super) type UnparsedOf = ((u16, u64), Unparsed);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadersFault {
    /// They are too large; their size in bytes.
    TooLarge(usize),
    /// They are not encoded as AMQP says.
    Malformed,
}

/// A message by those of its frames that have arrived.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct AnnouncedMessage {
    pub channel: u16,
    /// 0 for a returned message.
    pub delivery_tag: u64,
    pub routing_key: Vec<u8>,
    /// None until the content header has arrived.
    pub body_bytes: Option<u64>,
    /// Empty if it has none, or until the content header has arrived.
    pub message_id: Vec<u8>,
}

/// The messages of a connection that are not handed over yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct IncomingMessages(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Whether there ever was an `Unparsed`, so that other connections pay nothing.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<AnnouncedMessage>,
    /// By channel and delivery tag.
    unparsed: HashMap<(u16, u64), Unparsed>,
}

impl IncomingMessages {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what is known of messages, before lapin reads their frames.
    pub(super) fn add(&self, last: &AnnouncedMessage, unparsed: impl IntoIterator<Item = UnparsedOf>) {
        let mut state = self.lock();
        state.last.get_or_insert_default().clone_from(last);
        state.unparsed.extend(unparsed);
        if !state.unparsed.is_empty() {
            self.0.any.store(true, Ordering::Release);
        }
    }

    /// What lapin does not read of a delivery.
    pub fn take(&self, channel: u16, delivery_tag: u64) -> Unparsed {
        if !self.0.any.load(Ordering::Acquire) {
            return Unparsed::default();
        }
        self.lock().unparsed.remove(&(channel, delivery_tag)).unwrap_or_default()
    }

    /// The message that RabbitMQ sent last on the connection.
    pub fn last(&self) -> Option<AnnouncedMessage> {
        self.lock().last.clone()
    }

    /// All that was added, in order.
    pub(super) fn into_parts(self) -> (Option<AnnouncedMessage>, Vec<UnparsedOf>) {
        let mut state = self.lock();
        let mut unparsed: Vec<_> = state.unparsed.drain().collect();
        unparsed.sort_unstable_by_key(|(delivery, _)| *delivery);
        (state.last.take(), unparsed)
    }
}
