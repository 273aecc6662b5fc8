//! Owns the circuit breaker: it opens when MongoDB rejects nearly all events for a reason that a validator or an index can
//! cause. Then a setting is more likely at fault than the messages. Pure.

use std::collections::VecDeque;

use ticketlog_contract::Reason;

/// What the store said about one event.
#[derive(Debug)]
struct Vote {
    id: [u8; 12],
    rejected: bool,
}

/// Judges the last votes, one for each event. So the number of dead letters before it opens does not depend on the rate of
/// events.
#[derive(Debug)]
pub struct Breaker {
    max_ratio: f64,
    window: usize,
    votes: VecDeque<Vote>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    /// Rejected events are held.
    Open,
    /// Nothing is held any more, and the next event decides; whether one was rejected since, once there was one.
    HalfOpen(Option<bool>),
}

impl Breaker {
    /// A closed breaker. It opens when more than `max_ratio` of the last `window` votes are rejections, once there are at
    /// least half as many; 1.0 never opens it.
    pub fn new(max_ratio: f64, window: usize) -> Self {
        Breaker { max_ratio, window: window.max(1), votes: VecDeque::new(), state: State::Closed }
    }

    /// Whether a rejection for this reason counts: whether a validator or an index of the collection can cause it.
    pub fn counts(reason: Reason) -> bool {
        matches!(reason, Reason::DuplicateKey | Reason::RejectedByStore)
    }

    /// Whether rejected events are to be held instead of dead-lettered.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Records what the store said about the event with this `_id`. A rejection of an event whose rejection is among those
    /// that are judged is the same vote: after a lost session, or while dead letters cannot be published, events come again.
    pub fn vote(&mut self, id: [u8; 12], rejected: bool) {
        if let State::HalfOpen(any_rejected) = &mut self.state {
            *any_rejected = Some(rejected || *any_rejected == Some(true));
        }
        if rejected && self.votes.iter().any(|vote| vote.rejected && vote.id == id) {
            return;
        }
        if self.votes.len() == self.window {
            self.votes.pop_front();
        }
        self.votes.push_back(Vote { id, rejected });
    }

    /// Opens or closes; true if that is a change.
    pub fn evaluate(&mut self) -> bool {
        let rejections = self.votes.iter().filter(|vote| vote.rejected).count();
        let exceeded = rejections as f64 > self.max_ratio * self.votes.len() as f64;
        match self.state {
            State::Open => !exceeded && self.close(),
            State::HalfOpen(Some(false)) => {
                self.forget();
                false
            }
            State::HalfOpen(None) => false,
            State::HalfOpen(Some(true)) => self.open(),
            State::Closed => exceeded && self.votes.len() >= self.window.div_ceil(2) && self.open(),
        }
    }

    fn open(&mut self) -> bool {
        self.state = State::Open;
        true
    }

    fn forget(&mut self) {
        self.state = State::Closed;
        self.votes.clear();
    }

    /// Closes, and forgets the votes; true if that is a change.
    pub fn close(&mut self) -> bool {
        let was_open = self.is_open();
        if was_open {
            self.forget();
        }
        was_open
    }

    /// Nothing is held any more, and nothing arrives that would show whether MongoDB accepts events: an open breaker leaves
    /// that to the next event. True if that is a change.
    pub fn half_open(&mut self) -> bool {
        let was_open = self.is_open();
        if was_open {
            self.state = State::HalfOpen(None);
        }
        was_open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Votes of as many events, all different.
    fn vote(breaker: &mut Breaker, rejected: bool, count: usize) {
        (0..count).for_each(|_| breaker.vote(bson::oid::ObjectId::new().bytes(), rejected));
    }

    #[test]
    fn opens_only_when_nearly_all_of_the_last_events_are_rejected() {
        let opens = |votes: &[(bool, usize)]| {
            let mut breaker = Breaker::new(0.9, 200);
            votes.iter().for_each(|(rejected, count)| vote(&mut breaker, *rejected, *count));
            breaker.evaluate() && breaker.is_open()
        };
        assert!(!opens(&[(true, 99)]));
        assert!(opens(&[(true, 100)]));
        assert!(!opens(&[(false, 20), (true, 180)]), "exactly the ratio");
        assert!(opens(&[(false, 10_000), (true, 181)]));
        assert!(!opens(&[(true, 500), (false, 30)]));
    }

    /// docs/operate/runbooks/TicketlogBreakerOpen.md states this number.
    #[test]
    fn a_validator_that_rejects_everything_costs_at_most_180_dead_letters() {
        let mut breaker = Breaker::new(0.9, 200);
        vote(&mut breaker, false, 100_000);
        assert!(!breaker.evaluate());
        let mut dead_letters = 0;
        loop {
            vote(&mut breaker, true, 1);
            if breaker.evaluate() {
                break;
            }
            dead_letters += 1;
        }
        assert_eq!(dead_letters, 180);
    }

    #[test]
    fn closes_when_enough_events_pass() {
        let mut breaker = Breaker::new(0.9, 200);
        vote(&mut breaker, true, 200);
        assert!(breaker.evaluate() && breaker.is_open());
        vote(&mut breaker, true, 20);
        vote(&mut breaker, false, 19);
        assert!(!breaker.evaluate());
        vote(&mut breaker, false, 1);
        assert!(breaker.evaluate() && !breaker.is_open());
        vote(&mut breaker, true, 99);
        assert!(!breaker.evaluate(), "the votes before it closed do not count");
    }

    #[test]
    fn an_event_that_comes_again_and_again_has_one_vote() {
        let mut breaker = Breaker::new(0.9, 200);
        let ids: Vec<[u8; 12]> = (0..99).map(|n| [n; 12]).collect();
        for _ in 0..5 {
            ids.iter().for_each(|id| breaker.vote(*id, true));
            assert!(!breaker.evaluate());
        }
        breaker.vote([99; 12], true);
        assert!(breaker.evaluate());
    }

    #[test]
    fn the_next_event_decides_when_nothing_is_held_any_more() {
        for (votes, opens) in [(&[true][..], true), (&[false], false), (&[false, true], true), (&[], false)] {
            let mut breaker = Breaker::new(0.9, 200);
            vote(&mut breaker, true, 100);
            assert!(breaker.evaluate() && breaker.half_open() && !breaker.half_open() && !breaker.is_open());
            votes.iter().for_each(|rejected| vote(&mut breaker, *rejected, 1));
            assert_eq!((breaker.evaluate(), breaker.is_open()), (opens, opens), "{votes:?}");
        }
    }

    #[test]
    fn closing_is_a_change_once() {
        let mut breaker = Breaker::new(0.9, 200);
        vote(&mut breaker, true, 100);
        assert!(breaker.evaluate() && breaker.close() && !breaker.close() && !breaker.is_open());
    }

    #[test]
    fn a_ratio_of_one_never_opens() {
        let mut breaker = Breaker::new(1.0, 200);
        vote(&mut breaker, true, 5000);
        assert!(!breaker.evaluate());
    }
}
