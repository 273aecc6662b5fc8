//! Owns which dead letters are copies of one. The worker writes a copy if its connection, or the worker itself, ends between
//! the confirm of a dead letter and the ack of its message. Pure. Must not know where dead letters come from.

use std::collections::HashMap;

use xxhash_rust::xxh3::Xxh3;

use super::DeadLetterRecord;

/// What a dead letter is beside those met before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// It is not a copy of one of them.
    New,
    /// It is a copy of one of them.
    Copy,
    /// It is a copy unless [`Copies::are_several`] becomes true for it.
    Doubtful,
}

/// The dead letters met so far, by their keys.
#[derive(Debug, Default)]
pub struct Copies {
    met: HashMap<u128, Counts>,
}

/// The dead letters of one key.
#[derive(Debug, Default)]
struct Counts {
    /// Whether one was met that is not only evidence.
    is_met: bool,
    /// The `dl-delivery-count` of those without a message_id.
    delivery_counts: Vec<i64>,
    /// Whether they belong to more than one message.
    several: bool,
}

impl Copies {
    /// The key of a dead letter: equal for copies; none if it has no `dl-id`. Headers can be forged, so equal ids alone are
    /// not enough.
    pub fn key(record: &DeadLetterRecord, message_id: Option<&str>, body: &[u8]) -> Option<u128> {
        let id = record.id.as_ref()?;
        let mut hash = Xxh3::new();
        for part in [id.as_bytes(), message_id.unwrap_or_default().as_bytes(), body] {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Some(hash.digest128())
    }

    /// Adds a dead letter.
    ///
    /// Equal messages with one `message_id` are one event. Without it they may be different events, but each delivery of one
    /// message has another count: equal counts show that there are several messages, and then none is a copy.
    pub fn meet(&mut self, key: Option<u128>, delivery_count: Option<i64>, has_message_id: bool) -> Met {
        let Some(key) = key else { return Met::New };
        self.add_evidence(Some(key), delivery_count, has_message_id);
        let counts = self.met.entry(key).or_default();
        if !std::mem::replace(&mut counts.is_met, true) {
            return Met::New;
        }
        match (has_message_id, counts.several) {
            (true, _) => Met::Copy,
            (false, true) => Met::New,
            (false, false) => Met::Doubtful,
        }
    }

    /// Takes a dead letter that is not selected as evidence about those that are.
    pub fn add_evidence(&mut self, key: Option<u128>, delivery_count: Option<i64>, has_message_id: bool) {
        let Some(key) = key.filter(|_| !has_message_id) else { return };
        let counts = self.met.entry(key).or_default();
        let is_first = !counts.is_met && counts.delivery_counts.is_empty();
        let was_counted = delivery_count.is_none_or(|count| counts.delivery_counts.contains(&count));
        if !was_counted {
            counts.delivery_counts.extend(delivery_count);
        }
        counts.several |= was_counted && !is_first;
    }

    /// Whether the dead letters of this key belong to several messages.
    pub fn are_several(&self, key: Option<u128>) -> bool {
        key.and_then(|key| self.met.get(&key)).is_some_and(|counts| counts.several)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> Option<u128> {
        let record = DeadLetterRecord { id: Some(id.to_owned()), ..DeadLetterRecord::read(|_| None, None, "") };
        Copies::key(&record, None, b"body")
    }

    #[test]
    fn equal_dead_letters_with_a_message_id_are_copies() {
        let mut copies = Copies::default();
        let met = [Some(0), Some(0), None, Some(3)].map(|count| copies.meet(key("a"), count, true));
        assert_eq!(met, [Met::New, Met::Copy, Met::Copy, Met::Copy]);
        assert_eq!(copies.meet(key("b"), Some(0), true), Met::New);
    }

    #[test]
    fn equal_ids_alone_make_no_copies() {
        let record = DeadLetterRecord { id: Some("a".to_owned()), ..DeadLetterRecord::read(|_| None, None, "") };
        let key = |message_id, body: &[u8]| Copies::key(&record, message_id, body);
        assert!(key(Some("m"), b"x") != key(Some("m"), b"y") && key(Some("m"), b"x") != key(Some("n"), b"x"));
        assert_eq!(key(Some("m"), b"x"), key(Some("m"), b"x"));
    }

    #[test]
    fn without_a_message_id_equal_delivery_counts_show_that_there_are_several_messages() {
        let mut copies = Copies::default();
        let mut met = |count| copies.meet(key("a"), Some(count), false);
        assert_eq!([met(0), met(1), met(2)], [Met::New, Met::Doubtful, Met::Doubtful]);
        assert_eq!([met(1), met(7)], [Met::New, Met::New]);
        assert!(copies.are_several(key("a")) && !copies.are_several(key("b")));
    }

    #[test]
    fn a_dead_letter_that_is_not_selected_is_evidence() {
        let mut copies = Copies::default();
        assert_eq!([0, 1].map(|count| copies.meet(key("a"), Some(count), false)), [Met::New, Met::Doubtful]);
        copies.add_evidence(key("a"), Some(0), false);
        assert!(copies.are_several(key("a")));
        copies.add_evidence(key("b"), Some(0), false);
        assert_eq!(copies.meet(key("b"), Some(0), false), Met::New);
        assert!(copies.are_several(key("b")));
    }

    #[test]
    fn a_dead_letter_without_id_or_count_is_no_copy() {
        let mut copies = Copies::default();
        assert_eq!([1, 2].map(|_| copies.meet(None, Some(0), true)), [Met::New; 2]);
        assert_eq!([1, 2].map(|_| copies.meet(key("a"), None, false)), [Met::New; 2]);
    }
}
