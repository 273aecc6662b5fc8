//! Owns which dead letters are copies of one. The worker writes a copy if its connection, or the worker itself, ends between
//! the confirm of a dead letter and the ack of its message. Pure. Must not know where dead letters come from.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_128;

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

/// The dead letters met so far, by `dl-id`.
#[derive(Debug, Default)]
pub struct Copies {
    met: HashMap<u128, Counts>,
}

/// The dead letters of one `dl-id` without a message_id.
#[derive(Debug, Default)]
struct Counts {
    /// Their `dl-delivery-count`.
    delivery_counts: Vec<i64>,
    /// Whether they belong to more than one message.
    several: bool,
}

impl Copies {
    /// The key of a dead letter; none if it has no `dl-id`.
    pub fn key(record: &DeadLetterRecord) -> Option<u128> {
        record.id.as_ref().map(|id| xxh3_128(id.as_bytes()))
    }

    /// Adds a dead letter.
    ///
    /// Equal messages with one `message_id` are one event. Without it they may be different events, but each delivery of one
    /// message has another count: equal counts show that there are several messages, and then none is a copy.
    pub fn meet(&mut self, record: &DeadLetterRecord, has_message_id: bool) -> Met {
        let Some(key) = Copies::key(record) else { return Met::New };
        let is_new = !self.met.contains_key(&key);
        let counts = self.met.entry(key).or_default();
        let was_counted = record.delivery_count.is_none_or(|count| counts.delivery_counts.contains(&count));
        if !was_counted && !has_message_id {
            counts.delivery_counts.extend(record.delivery_count);
        }
        if is_new {
            return Met::New;
        }
        if has_message_id {
            return Met::Copy;
        }
        counts.several |= was_counted;
        if counts.several { Met::New } else { Met::Doubtful }
    }

    /// Whether the dead letters of this key belong to several messages.
    pub fn are_several(&self, key: Option<u128>) -> bool {
        key.and_then(|key| self.met.get(&key)).is_some_and(|counts| counts.several)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meet(copies: &mut Copies, id: Option<&str>, count: Option<i64>, has_message_id: bool) -> Met {
        let record = DeadLetterRecord {
            id: id.map(str::to_owned),
            delivery_count: count,
            ..DeadLetterRecord::read(|_| None, None, "")
        };
        copies.meet(&record, has_message_id)
    }

    #[test]
    fn equal_dead_letters_with_a_message_id_are_copies() {
        let mut copies = Copies::default();
        let met = [Some(0), Some(0), None, Some(3)].map(|count| meet(&mut copies, Some("a"), count, true));
        assert_eq!(met, [Met::New, Met::Copy, Met::Copy, Met::Copy]);
        assert_eq!(meet(&mut copies, Some("b"), Some(0), true), Met::New);
    }

    #[test]
    fn without_a_message_id_equal_delivery_counts_show_that_there_are_several_messages() {
        let mut copies = Copies::default();
        let mut met = |count| meet(&mut copies, Some("a"), Some(count), false);
        assert_eq!([met(0), met(1), met(2)], [Met::New, Met::Doubtful, Met::Doubtful]);
        assert_eq!([met(1), met(7)], [Met::New, Met::New]);
        let key = |id: &str| Some(xxh3_128(id.as_bytes()));
        assert!(copies.are_several(key("a")) && !copies.are_several(key("b")));
    }

    #[test]
    fn a_dead_letter_without_id_or_count_is_no_copy() {
        let mut copies = Copies::default();
        assert_eq!([1, 2].map(|_| meet(&mut copies, None, Some(0), true)), [Met::New; 2]);
        assert_eq!([1, 2].map(|_| meet(&mut copies, Some("a"), None, false)), [Met::New; 2]);
    }
}
