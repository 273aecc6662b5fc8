//! Owns what the process knows of its own state: dependencies, breaker, shutdown. Written by the flow, read by HTTP.
//! Must not know how either talks to anybody.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What readiness depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// RabbitMQ: consuming.
    Broker,
    /// MongoDB: answering.
    Store,
    /// Dead letters: publishable, when there are any.
    DeadLetter,
    /// The circuit breaker: closed.
    Breaker,
}

impl Part {
    /// Every part.
    pub const ALL: [Part; 4] = [Part::Broker, Part::Store, Part::DeadLetter, Part::Breaker];

    /// The name in `/readyz`, `/status` and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Part::Broker => "broker",
            Part::Store => "store",
            Part::DeadLetter => "dead_letter",
            Part::Breaker => "breaker",
        }
    }
}

/// The state of all parts. Cheap to read and to write; only changes are worth a log line.
#[derive(Debug)]
pub struct Health {
    troubles: Mutex<BTreeMap<Part, String>>,
}

impl Default for Health {
    /// Nothing is up before it has shown so.
    fn default() -> Self {
        let starting = [Part::Broker, Part::Store].map(|part| (part, "starting".to_owned()));
        Health { troubles: Mutex::new(starting.into()) }
    }
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Part, String>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a part is well; true if it was not before.
    pub fn up(&self, part: Part) -> bool {
        let mut troubles = self.lock();
        let changed = troubles.remove(&part).is_some();
        if changed {
            crate::metrics::dependency(part, true);
            crate::metrics::ready(troubles.is_empty());
        }
        changed
    }

    /// Notes what is wrong with a part, in words for an operator; true if that is news.
    pub fn down(&self, part: Part, trouble: impl Into<String>) -> bool {
        let trouble = trouble.into();
        let before = self.lock().insert(part, trouble.clone());
        if before.is_none() {
            crate::metrics::dependency(part, false);
            crate::metrics::ready(false);
        }
        before.is_none_or(|before| before != trouble)
    }

    /// What is wrong, by part; empty when ready.
    pub fn troubles(&self) -> BTreeMap<Part, String> {
        self.lock().clone()
    }

    /// Whether a part is well.
    pub fn is_up(&self, part: Part) -> bool {
        !self.lock().contains_key(&part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_not_ready_and_tells_news_from_repetition() {
        let health = Health::default();
        assert_eq!(health.troubles().len(), 2);
        assert!(health.up(Part::Store) && health.up(Part::Broker) && !health.up(Part::Broker));
        assert!(health.troubles().is_empty());
        assert!(
            health.down(Part::Store, "gone") && !health.down(Part::Store, "gone") && health.down(Part::Store, "full")
        );
        assert!(!health.is_up(Part::Store) && health.is_up(Part::Breaker));
    }
}
