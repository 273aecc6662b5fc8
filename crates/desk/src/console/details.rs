//! The dead letters that the console holds with their bodies: the first of each group, and those that were shown. Their size and
//! their time are bounded.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::DeadLetter;

/// Most bytes of bodies and, roughly, of properties.
const MAX_BYTES: usize = 16 << 20;
/// Estimated bytes of a dead letter beside its body.
const OVERHEAD: usize = 4096;

/// A whole dead letter.
#[derive(Debug)]
pub(super) struct Detail {
    /// At its position when it was read.
    pub dead_letter: DeadLetter,
    /// Its size in memory, estimated.
    bytes: usize,
    read: Instant,
}

impl Detail {
    pub fn new(dead_letter: DeadLetter) -> Detail {
        let (properties, headers) = dead_letter.delivery.to_json();
        let texts = serde_json::json!([properties, headers]).to_string().len();
        let bytes = dead_letter.delivery.body.len() + texts * 3 + OVERHEAD;
        Detail { dead_letter, bytes, read: Instant::now() }
    }
}

#[derive(Debug, Default)]
struct Entries {
    by_id: HashMap<String, Arc<Detail>>,
    /// Oldest first.
    order: VecDeque<String>,
    bytes: usize,
}

/// Whole dead letters by id.
#[derive(Debug, Default)]
pub(super) struct Details(Mutex<Entries>);

impl Details {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The dead letter with this id; of the publisher `only`, if it is given.
    pub fn get(&self, id: &str, only: Option<&str>) -> Option<Arc<Detail>> {
        let found = self.entries().by_id.get(id).cloned()?;
        let DeadLetter { id, delivery, record, .. } = &found.dead_letter;
        let is_visible = only.is_none() || delivery.dead_letter_fields(record, id).publisher == only;
        is_visible.then_some(found)
    }

    /// Adds one; the oldest go if there is no room.
    pub fn add(&self, detail: Detail) {
        let mut entries = self.entries();
        let (bytes, id) = (detail.bytes, detail.dead_letter.id.clone());
        if bytes > MAX_BYTES / 2 {
            // It is alone: a body can be as large as RabbitMQ allows.
            *entries = Entries::default();
        }
        while entries.bytes + bytes > MAX_BYTES {
            let Some(oldest) = entries.order.pop_front() else { break };
            let removed = entries.by_id.remove(&oldest).map_or(0, |detail| detail.bytes);
            entries.bytes -= removed;
        }
        entries.bytes += bytes;
        entries.order.push_back(id.clone());
        let replaced = entries.by_id.insert(id.clone(), Arc::new(detail));
        if let Some(replaced) = replaced {
            entries.bytes -= replaced.bytes;
            let first = entries.order.iter().position(|known| *known == id);
            first.and_then(|first| entries.order.remove(first));
        }
    }

    /// Forgets those that were read before a time: somebody may have erased them since.
    pub fn forget_before(&self, time: Instant) {
        let mut entries = self.entries();
        let Entries { by_id, order, bytes } = &mut *entries;
        by_id.retain(|_, detail| detail.read >= time);
        order.retain(|id| by_id.contains_key(id));
        *bytes = by_id.values().map(|detail| detail.bytes).sum();
    }

    /// Forgets all.
    pub fn clear(&self) {
        *self.entries() = Entries::default();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use ticketlog_rabbitmq::Delivery;

    fn detail(id: &str, bytes: usize) -> Detail {
        let delivery = Delivery::with_body(&"x".repeat(bytes));
        let record = delivery.record("work");
        let dead_letter = DeadLetter { id: id.to_owned(), delivery, record, position: 1 };
        Detail { dead_letter, bytes: bytes + OVERHEAD, read: Instant::now() }
    }

    #[test]
    fn the_oldest_go_first() {
        let details = Details::default();
        for n in 0..10 {
            details.add(detail(&n.to_string(), 2 << 20));
        }
        assert!(details.get("0", None).is_none() && details.get("9", None).is_some());
        details.add(detail("9", 10));
        let lengths = |entries: &Entries| (entries.by_id.len(), entries.order.len());
        let (by_id, order) = lengths(&details.entries());
        assert_eq!(by_id, order);
        details.add(detail("large", 20 << 20));
        assert!(details.get("9", None).is_none() && details.get("large", None).is_some());
        assert!(details.get("large", Some("shop")).is_none(), "it names no publisher");
        details.forget_before(details.get("large", None).unwrap().read);
        assert!(details.get("large", None).is_some());
        details.forget_before(Instant::now() + Duration::from_secs(1));
        assert_eq!(lengths(&details.entries()), (0, 0));
        assert_eq!(details.entries().bytes, 0);
    }
}
