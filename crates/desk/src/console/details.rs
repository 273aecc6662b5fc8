//! The dead letters that the console holds with their bodies: the first of each group, and those that were shown. Their size and
//! their time are bounded.

use std::collections::VecDeque;
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

/// Whole dead letters, oldest first; each id once.
#[derive(Debug, Default)]
pub(super) struct Details(Mutex<VecDeque<Arc<Detail>>>);

impl Details {
    fn entries(&self) -> MutexGuard<'_, VecDeque<Arc<Detail>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The dead letter with this id; of the publisher `only`, if it is given.
    pub fn get(&self, id: &str, only: Option<&str>) -> Option<Arc<Detail>> {
        let found = self.entries().iter().find(|detail| detail.dead_letter.id == id).cloned()?;
        let DeadLetter { id, delivery, record, .. } = &found.dead_letter;
        let is_visible = only.is_none() || delivery.dead_letter_fields(record, id).publisher == only;
        is_visible.then_some(found)
    }

    /// Adds one; the oldest go if there is no room. One that is larger is alone: a body can be as large as RabbitMQ allows.
    pub fn add(&self, detail: Detail) {
        let mut entries = self.entries();
        entries.retain(|known| known.dead_letter.id != detail.dead_letter.id);
        let mut bytes = detail.bytes + entries.iter().map(|known| known.bytes).sum::<usize>();
        while bytes > MAX_BYTES {
            let Some(oldest) = entries.pop_front() else { break };
            bytes -= oldest.bytes;
        }
        entries.push_back(Arc::new(detail));
    }

    /// Forgets those that were read before a time: somebody may have erased them since.
    pub fn forget_before(&self, time: Instant) {
        self.entries().retain(|detail| detail.read >= time);
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.entries().clear();
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
        assert_eq!(details.entries().iter().filter(|detail| detail.dead_letter.id == "9").count(), 1);
        details.add(detail("large", 20 << 20));
        assert!(details.get("9", None).is_none() && details.get("large", None).is_some());
        assert!(details.get("large", Some("shop")).is_none(), "it names no publisher");
        details.forget_before(details.get("large", None).unwrap().read);
        assert!(details.get("large", None).is_some());
        details.forget_before(Instant::now() + Duration::from_secs(1));
        assert!(details.entries().is_empty());
    }
}
