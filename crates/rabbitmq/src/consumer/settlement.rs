//! Owns the delivery tags of one channel and which of them may be acknowledged: the contiguous settled prefix, with one cumulative ack.
//! Pure; `H` is the handle that acknowledges.
//!
//! The rules behind it (AMQP 0-9-1 and RabbitMQ): tags count from 1 per channel; an ack with `multiple` acknowledges every
//! outstanding tag up to its own; an ack of a tag that is not outstanding closes the channel with 406.

use std::collections::VecDeque;

/// Acks to send now. Take the next ones only after these are written, so that none overtakes another.
#[derive(Debug, PartialEq, Eq)]
pub enum Acks<H> {
    /// One ack with `multiple`, and how many deliveries it acknowledges.
    Multiple(H, usize),
    /// One ack without `multiple` for each delivery, because an older delivery is not settled.
    Single(Vec<H>),
}

#[derive(Debug)]
enum Slot<H> {
    /// No outcome yet.
    Pending(H),
    /// It has an outcome and may be acknowledged.
    Settled(H),
    /// Acknowledged alone, ahead of the prefix.
    Acked,
}

/// The unacknowledged deliveries of one channel.
#[derive(Debug)]
pub struct Settlement<H> {
    slots: VecDeque<Slot<H>>,
    /// Tag of the first slot.
    first: u64,
    /// Number of `Acked` slots.
    acked_ahead: usize,
    /// Number of `Settled` slots.
    settled: usize,
    /// No slot below this tag is `Settled`: the search for single acks starts here.
    search_from: u64,
}

impl<H> Default for Settlement<H> {
    fn default() -> Self {
        Settlement { slots: VecDeque::new(), first: 1, acked_ahead: 0, settled: 0, search_from: 1 }
    }
}

impl<H> Settlement<H> {
    /// Adds the next delivery. False if `tag` is not the next tag; the channel must not be used any more then.
    #[must_use]
    pub fn receive(&mut self, tag: u64, handle: H) -> bool {
        if tag != self.next_tag() {
            return false;
        }
        self.slots.push_back(Slot::Pending(handle));
        true
    }

    /// The tag of the next delivery.
    pub fn next_tag(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Records that the delivery has an outcome. A tag that is unknown or settled already is ignored.
    pub fn settle(&mut self, tag: u64) {
        let Some(slot) = tag.checked_sub(self.first).and_then(|at| self.slots.get_mut(at as usize)) else { return };
        if matches!(slot, Slot::Pending(_))
            && let Slot::Pending(handle) = std::mem::replace(slot, Slot::Acked)
        {
            *slot = Slot::Settled(handle);
            self.settled += 1;
            self.search_from = self.search_from.min(tag);
        }
    }

    /// Deliveries without an outcome.
    #[cfg(test)]
    fn pending(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot, Slot::Pending(_))).count()
    }

    /// The oldest tag that is not acknowledged, or the next one.
    pub fn oldest_unacked(&self) -> u64 {
        self.first
    }

    /// Number of deliveries that count against the prefetch.
    pub fn unacked(&self) -> usize {
        self.slots.len() - self.acked_ahead
    }

    /// Number of tags in memory, from the oldest that is not acknowledged to the newest.
    pub fn tracked(&self) -> usize {
        self.slots.len()
    }

    /// The cumulative ack of the settled prefix, if there is one.
    pub fn take_prefix(&mut self) -> Option<Acks<H>> {
        let mut last = None;
        let mut covered = 0;
        while let Some(slot) = self.slots.pop_front() {
            match slot {
                Slot::Pending(handle) => {
                    self.slots.push_front(Slot::Pending(handle));
                    break;
                }
                Slot::Settled(handle) => {
                    last = Some(handle);
                    covered += 1;
                    self.settled -= 1;
                }
                Slot::Acked => self.acked_ahead -= 1,
            }
            self.first += 1;
        }
        last.map(|handle| Acks::Multiple(handle, covered))
    }

    /// Single acks of at most `max` settled deliveries that wait behind an unsettled one.
    pub fn take_single(&mut self, max: usize) -> Option<Acks<H>> {
        let mut handles = Vec::new();
        let from = self.search_from.saturating_sub(self.first);
        for slot in self.slots.iter_mut().skip(from as usize) {
            if handles.len() == max || self.settled == 0 {
                break;
            }
            self.search_from = self.search_from.max(self.first) + 1;
            if matches!(slot, Slot::Settled(_))
                && let Slot::Settled(handle) = std::mem::replace(slot, Slot::Acked)
            {
                handles.push(handle);
                self.settled -= 1;
            }
        }
        self.acked_ahead += handles.len();
        (!handles.is_empty()).then_some(Acks::Single(handles))
    }

    /// Forgets all deliveries. Returns the handle of the last unsettled one: its `nack` with `multiple` requeues all that are
    /// not settled. Call it only when every settled delivery is acknowledged.
    pub fn take_unsettled(&mut self) -> Option<H> {
        let last = self.slots.drain(..).rev().find_map(|slot| match slot {
            Slot::Pending(handle) => Some(handle),
            _ => None,
        });
        self.acked_ahead = 0;
        last
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn received(count: u64) -> Settlement<u64> {
        let mut settlement = Settlement::default();
        for tag in 1..=count {
            assert!(settlement.receive(tag, tag));
        }
        settlement
    }

    #[test]
    fn only_the_settled_prefix_is_acknowledged() {
        let mut settlement = received(5);
        settlement.settle(2);
        settlement.settle(3);
        assert_eq!(settlement.take_prefix(), None);
        settlement.settle(1);
        assert_eq!(settlement.take_prefix(), Some(Acks::Multiple(3, 3)));
        assert_eq!(settlement.take_prefix(), None);
        settlement.settle(3);
        settlement.settle(99);
        assert_eq!((settlement.pending(), settlement.unacked()), (2, 2));
    }

    #[test]
    fn an_unsettled_delivery_does_not_block_the_others() {
        let mut settlement = received(4);
        for tag in [2, 3] {
            settlement.settle(tag);
        }
        assert_eq!(settlement.take_single(1), Some(Acks::Single(vec![2])));
        assert_eq!(settlement.take_single(9), Some(Acks::Single(vec![3])));
        assert_eq!(settlement.take_single(9), None);
        settlement.settle(1);
        assert_eq!(settlement.take_prefix(), Some(Acks::Multiple(1, 1)));
        assert_eq!(settlement.take_unsettled(), Some(4));
        assert_eq!(settlement.unacked(), 0);
    }

    #[test]
    fn a_gap_in_the_tags_is_detected() {
        let mut settlement = received(2);
        assert!(!settlement.receive(4, 4));
        assert!(!settlement.receive(2, 2));
        assert!(settlement.receive(3, 3));
    }

    /// Applies acks to the broker's set of outstanding tags; false if the broker would refuse them.
    fn broker_accepts(outstanding: &mut BTreeSet<u64>, acks: &Acks<u64>) -> bool {
        match acks {
            Acks::Multiple(tag, covered) => {
                let upto: Vec<u64> = outstanding.range(..=*tag).copied().collect();
                let valid = upto.last() == Some(tag) && upto.len() == *covered;
                outstanding.retain(|other| other > tag);
                valid
            }
            Acks::Single(tags) => tags.iter().all(|tag| outstanding.remove(tag)),
        }
    }

    proptest! {
        #[test]
        fn the_broker_accepts_every_ack_and_none_is_early(steps in prop::collection::vec((0u8..4, 0u64..40), 1..200)) {
            let mut settlement = Settlement::default();
            let (mut outstanding, mut settled, mut next) = (BTreeSet::new(), BTreeSet::new(), 1u64);
            for (step, pick) in steps {
                match step {
                    0 => {
                        prop_assert!(settlement.receive(next, next));
                        outstanding.insert(next);
                        next += 1;
                    }
                    1 if next > 1 => {
                        let tag = 1 + pick % (next - 1);
                        settlement.settle(tag);
                        settled.insert(tag);
                    }
                    2 => if let Some(acks) = settlement.take_prefix() {
                        prop_assert!(broker_accepts(&mut outstanding, &acks));
                    },
                    3 => if let Some(acks) = settlement.take_single(3) {
                        prop_assert!(broker_accepts(&mut outstanding, &acks));
                    },
                    _ => {}
                }
                let acked: Vec<u64> = (1..next).filter(|tag| !outstanding.contains(tag)).collect();
                prop_assert!(acked.iter().all(|tag| settled.contains(tag)));
                prop_assert_eq!(settlement.unacked(), outstanding.len());
                prop_assert_eq!(settlement.pending(), (1..next).filter(|tag| !settled.contains(tag)).count());
            }
            let rest: Vec<u64> = (1..next).filter(|tag| !settled.contains(tag)).collect();
            prop_assert_eq!(settlement.take_unsettled(), rest.last().copied());
        }
    }
}
