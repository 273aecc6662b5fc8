//! Owns the closed sets of label values that belong to no other module.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use strum::{EnumCount, IntoStaticStr, VariantArray, VariantNames};

use ticketlog_contract::dead_letter::one_line;

/// The outcome of a delivery. Each delivery has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray, VariantNames, EnumCount)]
#[strum(serialize_all = "snake_case")]
pub enum DeliveryOutcome {
    /// Its document was written, durably.
    Stored,
    /// An equal document was stored already.
    Duplicate,
    /// Its dead letter is confirmed.
    DeadLettered,
    /// It was requeued, or its session ended first.
    Returned,
}

/// The result of an insert command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum WriteResult {
    /// Every document is stored.
    Ok,
    /// Some documents are not, each for its own reason.
    Partial,
    /// The command failed as a whole.
    Failed,
}

/// Why a batch was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum FlushCause {
    /// It has `max_events`.
    Events,
    /// It has `max_bytes`, or the next event would not fit.
    Bytes,
    /// Its first event has waited `linger`.
    Linger,
    /// No write was under way.
    Idle,
    /// The prefetch was exhausted, so that no further event could arrive.
    Prefetch,
    /// The worker is stopping.
    Drain,
}

/// Why a dead letter could not be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum PublishFailure {
    /// No queue is bound for it.
    Returned,
    /// The queue refuses it.
    Nacked,
    /// The connection or the request failed.
    Error,
}

/// What became of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum ReceiptOutcome {
    /// RabbitMQ has read it.
    Sent,
    /// RabbitMQ was slow, blocked publishers, could not be reached or refused it, or too many came at once.
    Dropped,
}

/// What became of a span of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum SpanOutcome {
    /// The collector took it.
    Exported,
    /// The collector could not be reached, or refused it.
    Failed,
    /// Too many spans waited.
    Dropped,
}

/// Names from outside as values of a label: the first ones as they are, further ones together as `other`.
#[derive(Debug)]
pub(super) struct BoundedNames {
    max: usize,
    seen: Mutex<BTreeSet<String>>,
}

/// The label of who or what has no name.
pub(super) const UNKNOWN: &str = "unknown";
/// Longest name, in bytes.
const MAX_NAME: usize = 60;

impl BoundedNames {
    pub const fn new(max: usize) -> Self {
        BoundedNames { max, seen: Mutex::new(BTreeSet::new()) }
    }

    /// The value of the label for a name; `unknown` if it is empty.
    pub fn name(&self, name: &str) -> String {
        let name = one_line(name, MAX_NAME);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if name.is_empty() {
            UNKNOWN.to_owned()
        } else if seen.contains(&name) || seen.len() < self.max {
            seen.insert(name.clone());
            name
        } else {
            "other".to_owned()
        }
    }
}

/// The queues whose depth is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum QueueRole {
    /// The worker's queue.
    Work,
    /// `dead_letter.queue`.
    DeadLetter,
    /// `dead_letter.parked_queue`.
    Parked,
}

/// What the session loop spends its time on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray, VariantNames, EnumCount)]
#[strum(serialize_all = "snake_case")]
pub enum Activity {
    /// Nothing is in flight.
    Idle,
    /// Events wait for a batch to fill, or for the next message.
    Lingering,
    /// A batch is due and all writers are busy.
    AwaitingWriter,
    /// Batches are being written and there is nothing else to do.
    Writing,
    /// Decoding messages.
    Decoding,
    /// Counting outcomes, settling, making dead letters.
    Settling,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_names_are_counted_together() {
        let names = BoundedNames::new(2);
        let values = ["a", "b", "c", "a", "", "d"].map(|name| names.name(name));
        assert_eq!(values, ["a", "b", "other", "a", "unknown", "other"]);
        assert_eq!(BoundedNames::new(1).name(&"x\n".repeat(90)).len(), MAX_NAME);
    }
}
