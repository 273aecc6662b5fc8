//! Owns every delivery tag of one channel and what may be acknowledged: the contiguous settled prefix, by one
//! cumulative ack. Pure; `H` is the handle that acknowledges. Must not know why a delivery is settled.
//!
//! The broker's rules behind it (AMQP 0-9-1 and RabbitMQ): tags count from 1 per channel; `multiple` settles every
//! outstanding tag up to the one named; naming a tag that is not outstanding closes the channel with 406.

use std::collections::VecDeque;

/// Acks to send now. The next are asked for only after these are written, so that none overtakes another.
#[derive(Debug, PartialEq, Eq)]
pub enum Acks<H> {
    /// One ack with `multiple`, which covers this many deliveries.
    UpTo(H, usize),
    /// Acks without `multiple`, one a delivery, behind a delivery that stays unsettled.
    Each(Vec<H>),
}

#[derive(Debug)]
enum Slot<H> {
    /// No outcome yet.
    Pending(H),
    /// To be acknowledged.
    Settled(H),
    /// Acknowledged on its own, ahead of the prefix.
    Acked,
}

/// The unsettled deliveries of one channel.
#[derive(Debug)]
pub struct Settlement<H> {
    slots: VecDeque<Slot<H>>,
    /// Tag of the first slot.
    first: u64,
    /// Slots that are acknowledged ahead of the prefix.
    ahead: usize,
    /// Slots that are settled and not acknowledged.
    settled: usize,
    /// No slot below this tag is settled: where the search for single acks goes on.
    searched: u64,
}

impl<H> Default for Settlement<H> {
    fn default() -> Self {
        Settlement { slots: VecDeque::new(), first: 1, ahead: 0, settled: 0, searched: 1 }
    }
}

impl<H> Settlement<H> {
    /// Takes in the next delivery. False if `tag` is not the next one: then the channel can't be trusted any more.
    #[must_use]
    pub fn receive(&mut self, tag: u64, handle: H) -> bool {
        let expected = self.first + self.slots.len() as u64;
        if tag != expected {
            return false;
        }
        self.slots.push_back(Slot::Pending(handle));
        true
    }

    /// Notes that the delivery may be acknowledged. A tag that is unknown or settled already is ignored.
    pub fn settle(&mut self, tag: u64) {
        let Some(slot) = tag.checked_sub(self.first).and_then(|at| self.slots.get_mut(at as usize)) else { return };
        if matches!(slot, Slot::Pending(_))
            && let Slot::Pending(handle) = std::mem::replace(slot, Slot::Acked)
        {
            *slot = Slot::Settled(handle);
            self.settled += 1;
            self.searched = self.searched.min(tag);
        }
    }

    /// Deliveries without an outcome.
    #[cfg(test)]
    fn pending(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot, Slot::Pending(_))).count()
    }

    /// The oldest tag that is not acknowledged, or the next to come.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Deliveries that the broker counts against the prefetch.
    pub fn unacked(&self) -> usize {
        self.slots.len() - self.ahead
    }

    /// How many tags are remembered: from the oldest that is not acknowledged to the newest.
    pub fn span(&self) -> usize {
        self.slots.len()
    }

    /// The cumulative ack of the settled prefix, if it has grown.
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
                Slot::Acked => self.ahead -= 1,
            }
            self.first += 1;
        }
        last.map(|handle| Acks::UpTo(handle, covered))
    }

    /// Single acks of at most `most` settled deliveries behind an unsettled one, so that it does not hold them up.
    pub fn take_scattered(&mut self, most: usize) -> Option<Acks<H>> {
        let mut handles = Vec::new();
        let from = self.searched.saturating_sub(self.first);
        for slot in self.slots.iter_mut().skip(from as usize) {
            if handles.len() == most || self.settled == 0 {
                break;
            }
            self.searched = self.searched.max(self.first) + 1;
            if matches!(slot, Slot::Settled(_))
                && let Slot::Settled(handle) = std::mem::replace(slot, Slot::Acked)
            {
                handles.push(handle);
                self.settled -= 1;
            }
        }
        self.ahead += handles.len();
        (!handles.is_empty()).then_some(Acks::Each(handles))
    }

    /// Ends the accounting: the handle of the last unsettled delivery, whose `nack` with `multiple` gives back all of
    /// them. Only to be called when nothing settled is left to acknowledge.
    pub fn take_rest(&mut self) -> Option<H> {
        let rest = self.slots.drain(..).rev().find_map(|slot| match slot {
            Slot::Pending(handle) => Some(handle),
            _ => None,
        });
        self.ahead = 0;
        rest
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
        assert_eq!(settlement.take_prefix(), Some(Acks::UpTo(3, 3)));
        assert_eq!(settlement.take_prefix(), None);
        settlement.settle(3);
        settlement.settle(99);
        assert_eq!((settlement.pending(), settlement.unacked()), (2, 2));
    }

    #[test]
    fn a_stuck_delivery_does_not_hold_up_the_others() {
        let mut settlement = received(4);
        for tag in [2, 3] {
            settlement.settle(tag);
        }
        assert_eq!(settlement.take_scattered(1), Some(Acks::Each(vec![2])));
        assert_eq!(settlement.take_scattered(9), Some(Acks::Each(vec![3])));
        assert_eq!(settlement.take_scattered(9), None);
        settlement.settle(1);
        assert_eq!(settlement.take_prefix(), Some(Acks::UpTo(1, 1)));
        assert_eq!(settlement.take_rest(), Some(4));
        assert_eq!(settlement.unacked(), 0);
    }

    #[test]
    fn a_tag_out_of_line_is_refused() {
        let mut settlement = received(2);
        assert!(!settlement.receive(4, 4));
        assert!(!settlement.receive(2, 2));
        assert!(settlement.receive(3, 3));
    }

    /// The broker's side of the books: which tags are outstanding.
    fn broker_accepts(outstanding: &mut BTreeSet<u64>, acks: &Acks<u64>) -> bool {
        match acks {
            Acks::UpTo(tag, covered) => {
                let upto: Vec<u64> = outstanding.range(..=*tag).copied().collect();
                let sound = upto.last() == Some(tag) && upto.len() == *covered;
                outstanding.retain(|other| other > tag);
                sound
            }
            Acks::Each(tags) => tags.iter().all(|tag| outstanding.remove(tag)),
        }
    }

    proptest! {
        #[test]
        fn every_ack_is_one_the_broker_accepts_and_none_is_early(steps in prop::collection::vec((0u8..4, 0u64..40), 1..200)) {
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
                    3 => if let Some(acks) = settlement.take_scattered(3) {
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
            prop_assert_eq!(settlement.take_rest(), rest.last().copied());
        }
    }
}
