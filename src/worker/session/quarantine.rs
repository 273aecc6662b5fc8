//! Owns the events that are held while the breaker is open, and when some of them are tried again. Must not know how they
//! are written.

use std::collections::VecDeque;
use std::time::Instant;

use crate::event::Rejection;

use super::super::backoff::Backoff;
use super::super::decode::PendingEvent;

/// Events that are tried again at a time, to find out whether MongoDB accepts them now.
const PROBE_EVENTS: usize = 20;

/// Events that MongoDB rejected while the breaker was open.
pub(super) struct Quarantine {
    held: VecDeque<PendingEvent>,
    /// The last rejection that counted for the breaker.
    last_rejection: Option<Rejection>,
    next_probe: Instant,
    backoff: Backoff,
}

impl Quarantine {
    pub fn new(backoff: Backoff) -> Self {
        Quarantine { held: VecDeque::new(), last_rejection: None, next_probe: Instant::now(), backoff }
    }

    /// Notes a rejection that counts for the breaker.
    pub fn note(&mut self, rejection: &Rejection) {
        self.last_rejection = Some(rejection.clone());
    }

    /// Reason and detail of the last rejection that counted.
    pub fn last_rejection(&self) -> (&str, &str) {
        let last = self.last_rejection.as_ref();
        (last.map_or("", |last| last.reason.as_str()), last.map_or("", |last| last.detail.as_ref()))
    }

    pub fn hold(&mut self, pending: PendingEvent) {
        self.held.push_back(pending);
    }

    /// Number of held events.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Takes a few held events, if the next probe is due.
    pub fn take_probe(&mut self, now: Instant) -> Vec<PendingEvent> {
        if self.held.is_empty() {
            self.backoff.reset();
        }
        if self.held.is_empty() || now < self.next_probe {
            return Vec::new();
        }
        self.next_probe = now + self.backoff.next_delay();
        let count = PROBE_EVENTS.min(self.held.len());
        self.held.drain(..count).collect()
    }

    /// Takes all held events: the breaker is closed.
    pub fn take_all(&mut self) -> Vec<PendingEvent> {
        self.held.drain(..).collect()
    }
}
