//! Owns the events that are held while the breaker is open: when some of them are tried again, and how long they are held.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ticketlog_config::RetrySettings;
use ticketlog_contract::Rejection;

use super::super::backoff::Backoff;
use super::super::decode::{Held, PendingEvent};

/// Events that are tried again at a time, to find out whether MongoDB accepts them now.
const PROBE_EVENTS: usize = 20;

/// An event that MongoDB rejected, and why.
pub(super) type HeldEvent = (PendingEvent, Rejection);

/// What became of the events of a probe, once the last of them has its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    /// MongoDB rejects none of them any more.
    Passed,
    /// It rejects some of them again.
    Rejected,
}

/// Events that MongoDB rejected while the breaker was open.
pub(super) struct Quarantine {
    held: VecDeque<HeldEvent>,
    /// Events of a probe without an outcome.
    probing: usize,
    /// Whether MongoDB rejected an event of this probe again.
    rejected_again: bool,
    next_probe: Instant,
    backoff: Backoff,
    /// How long an event is held at least, and at most.
    hold: (Duration, Duration),
}

impl Quarantine {
    /// Nothing is held yet. An event is held for `retry.max` at least, and for three quarters of `retry.requeue_after` at most, so
    /// that its dead letter is confirmed before everything would be requeued.
    pub fn new(backoff: Backoff, retry: &RetrySettings) -> Self {
        Quarantine {
            held: VecDeque::new(),
            probing: 0,
            rejected_again: false,
            next_probe: Instant::now(),
            backoff,
            hold: (retry.max.0, retry.requeue_after.0.mul_f64(0.75)),
        }
    }

    /// Number of held events, those of a probe included.
    pub fn len(&self) -> usize {
        self.held.len() + self.probing
    }

    /// Holds an event that MongoDB rejected, for the first time or in a probe. Returns it if it was held for long enough: as long as
    /// possible, or while more than `limit` are held.
    #[must_use]
    pub fn hold(&mut self, mut event: HeldEvent, limit: usize, now: Instant) -> Option<HeldEvent> {
        let since = event.0.held.map_or(now, |held| held.since);
        event.0.held = Some(Held { since, in_probe: false });
        let (age, (least, most)) = (now.saturating_duration_since(since), self.hold);
        if age >= most || (age >= least && self.len() >= limit) {
            return Some(event);
        }
        self.held.push_back(event);
        None
    }

    /// Takes a few held events, if no probe is under way and the next one is due; and all that were held for as long as possible.
    pub fn take_probe(&mut self, now: Instant) -> Vec<PendingEvent> {
        let most = self.hold.1;
        let expires = |(pending, _): &HeldEvent| pending.held.is_none_or(|held| held.since + most <= now);
        if self.probing > 0 || self.held.is_empty() || (now < self.next_probe && !self.held.iter().any(expires)) {
            return Vec::new();
        }
        self.next_probe = now + self.backoff.next_delay();
        let (mut probe, mut kept) = (Vec::new(), VecDeque::new());
        for mut event in self.held.drain(..) {
            if probe.len() >= PROBE_EVENTS && !expires(&event) {
                kept.push_back(event);
                continue;
            }
            event.0.held.iter_mut().for_each(|held| held.in_probe = true);
            probe.push(event.0);
        }
        self.held = kept;
        self.probing = probe.len();
        self.rejected_again = false;
        probe
    }

    /// An event has its outcome. The result of the probe, if it is the last one of a probe.
    pub fn probed(&mut self, pending: &PendingEvent, rejected: bool) -> Option<Probe> {
        if !pending.held.is_some_and(|held| held.in_probe) {
            return None;
        }
        self.probing = self.probing.saturating_sub(1);
        self.rejected_again |= rejected;
        match (self.probing, self.rejected_again) {
            (0, true) => Some(Probe::Rejected),
            (0, false) => {
                // The next one at once.
                self.backoff.reset();
                self.next_probe = Instant::now();
                Some(Probe::Passed)
            }
            _ => None,
        }
    }

    /// Takes those that were tried longest ago, as far as more than `limit` are held.
    pub fn take_excess(&mut self, limit: usize) -> Vec<HeldEvent> {
        let excess = self.len().saturating_sub(limit).min(self.held.len());
        self.held.drain(..excess).collect()
    }

    /// Takes all held events: the breaker is closed.
    pub fn take_all(&mut self) -> Vec<PendingEvent> {
        self.backoff.reset();
        self.next_probe = Instant::now();
        self.held.drain(..).map(|(pending, _)| pending).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ticketlog_contract::{Decoder, Message, Reason};
    use ticketlog_rabbitmq::Delivery;

    fn event(n: usize) -> HeldEvent {
        let body = format!("{{\"n\":{n}}}");
        let message = Message { body: body.as_bytes(), ..Message::default() };
        let event = Decoder::new(Default::default()).decode(&message, || [0; 12]).unwrap();
        let delivery = Delivery::with_body(&body);
        let pending = PendingEvent {
            delivery,
            id: event.id,
            document: event.document,
            time: None,
            findings: event.findings,
            held: None,
        };
        (pending, Rejection::new(Reason::DuplicateKey, ""))
    }

    /// Holds 50 events, at least 15 s and at most 450 s. Probes follow each other without a delay.
    fn quarantine(start: Instant) -> Quarantine {
        let settings = ticketlog_config::load_text("f", "").unwrap().settings;
        let backoff = Backoff::new(Duration::from_nanos(1), Duration::from_nanos(1));
        let mut quarantine = Quarantine::new(backoff, &settings.retry);
        (0..50).for_each(|n| assert!(quarantine.hold(event(n), 0, start).is_none(), "a new one is held at any limit"));
        quarantine
    }

    /// Holds the events of a probe again; how many it gives back.
    fn reject(quarantine: &mut Quarantine, probe: Vec<PendingEvent>, limit: usize, now: Instant) -> usize {
        let again = |pending: PendingEvent| {
            quarantine.probed(&pending, true);
            quarantine.hold((pending, Rejection::new(Reason::DuplicateKey, "")), limit, now)
        };
        probe.into_iter().filter_map(again).count()
    }

    #[test]
    fn a_probe_passes_whole_or_not_at_all() {
        let start = Instant::now();
        let mut quarantine = quarantine(start);
        let later = start + Duration::from_secs(1);
        let probe = quarantine.take_probe(later);
        assert_eq!((probe.len(), quarantine.len()), (20, 50));
        assert!(quarantine.take_probe(later).is_empty(), "one at a time");
        let results: Vec<_> = probe.iter().enumerate().map(|(at, event)| quarantine.probed(event, at == 3)).collect();
        assert_eq!((results[18], results[19], quarantine.len()), (None, Some(Probe::Rejected), 30));
        let probe = quarantine.take_probe(later + Duration::from_secs(1));
        let results: Vec<_> = probe.iter().map(|event| quarantine.probed(event, false)).collect();
        assert_eq!((results.last(), quarantine.len()), (Some(&Some(Probe::Passed)), 10));
        assert_eq!(quarantine.take_all().len(), 10);
    }

    #[test]
    fn what_exceeds_the_limit_is_given_back_by_and_by() {
        let start = Instant::now();
        let mut quarantine = quarantine(start);
        for (seconds, limit, given_back) in [(1, 0, 0), (16, 50, 0), (17, 40, 10), (18, 40, 0), (19, 10, 20)] {
            let now = start + Duration::from_secs(seconds);
            let probe = quarantine.take_probe(now);
            assert_eq!(reject(&mut quarantine, probe, limit, now), given_back, "{seconds} s, limit {limit}");
        }
        assert_eq!((quarantine.len(), quarantine.take_excess(15).len(), quarantine.len()), (20, 5, 15));
    }

    #[test]
    fn everything_is_tried_once_more_when_it_was_held_for_too_long() {
        let start = Instant::now();
        let mut quarantine = quarantine(start);
        let now = start + Duration::from_secs(450);
        let probe = quarantine.take_probe(now);
        assert_eq!(probe.len(), 50);
        assert_eq!((reject(&mut quarantine, probe, 100, now), quarantine.len()), (50, 0));
    }
}
