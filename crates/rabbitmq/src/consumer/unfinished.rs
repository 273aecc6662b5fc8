//! The message that RabbitMQ was delivering when a session ended: if it is the same one again, it may be what ends the sessions.

use std::fmt;

use super::super::connection::incoming::AnnouncedMessage;

/// A message of which some frames arrived, and that was not handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedMessage {
    queue: String,
    message: AnnouncedMessage,
    /// Deliveries that the session handed over.
    handed_over: u64,
}

impl UnfinishedMessage {
    /// `None` if the last message of the session's channel was handed over.
    pub(super) fn new(queue: &str, message: AnnouncedMessage, handed_over: u64) -> Option<Self> {
        let is_unfinished = message.delivery_tag > handed_over;
        is_unfinished.then(|| UnfinishedMessage { queue: queue.to_owned(), message, handed_over })
    }

    /// Whether the session handed over no message at all.
    pub fn is_before_all(&self) -> bool {
        self.handed_over == 0
    }

    /// Whether it is certain which message it was, and everything known of both is the same.
    pub fn is_certainly(&self, other: &UnfinishedMessage) -> bool {
        let is_certain = |one: &UnfinishedMessage| one.message.delivery_tag == one.handed_over + 1;
        let (one, two) = (&self.message, &other.message);
        let is_same_id = one.message_id.is_empty() || two.message_id.is_empty() || one.message_id == two.message_id;
        let is_same_size = one.body_bytes.is_none() || two.body_bytes.is_none() || one.body_bytes == two.body_bytes;
        is_certain(self) && is_certain(other) && one.routing_key == two.routing_key && is_same_id && is_same_size
    }
}

impl fmt::Display for UnfinishedMessage {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let key = String::from_utf8_lossy(&self.message.routing_key);
        write!(f, "message {} of queue {:?}, routing key {key:?}", self.message.delivery_tag, self.queue)?;
        match self.message.message_id.as_slice() {
            [] => Ok(()),
            id => write!(f, ", message_id {:?}", String::from_utf8_lossy(id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unfinished(delivery_tag: u64, handed_over: u64, id: &str) -> Option<UnfinishedMessage> {
        let message_id = id.as_bytes().to_vec();
        let routing_key = b"ticket.a".to_vec();
        let message = AnnouncedMessage { delivery_tag, routing_key, message_id, ..AnnouncedMessage::default() };
        UnfinishedMessage::new("q", message, handed_over)
    }

    #[test]
    fn only_a_message_that_is_known_for_certain_is_the_same() {
        assert_eq!(unfinished(3, 3, ""), None);
        let known = unfinished(1, 0, "a\u{202e}").unwrap();
        assert!(known.is_certainly(&unfinished(8, 7, "a\u{202e}").unwrap()));
        assert!(known.is_certainly(&unfinished(1, 0, "").unwrap()), "its content header did not arrive");
        assert!(!known.is_certainly(&unfinished(1, 0, "b").unwrap()));
        assert!(!known.is_certainly(&unfinished(3, 1, "a\u{202e}").unwrap()), "it may have been message 2");
        assert_eq!(known.to_string(), r#"message 1 of queue "q", routing key "ticket.a", message_id "a\u{202e}""#);
    }
}
