//! Owns the state of one batch while it is written: which events have their outcome, and which are written next. Pure. Must
//! not know the store, delivery tags, acks or dead letters.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::mongodb::{DocumentError, Failure, FailureClass, FailureKind};
use ticketlog_contract::{Reason, Rejection, same_event};
use ticketlog_rabbitmq::Delivery;

use super::decode::PendingEvent;

/// The final outcome of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentOutcome {
    /// Its document is durable.
    Stored,
    /// An equal document was stored already.
    Duplicate,
    /// It can never be stored.
    Rejected(Rejection),
}

/// What remains to be done after an insert.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Remaining {
    /// Positions whose `_id` is stored already: compare the documents.
    pub duplicate_ids: Vec<usize>,
    /// An unknown code: its documents are retried after a pause.
    pub unknown_code: Option<i32>,
    /// A failure of the store that was reported as an error of single documents.
    pub failure: Option<Failure>,
}

/// One event of the batch.
#[derive(Debug, Default)]
struct Slot {
    outcome: Option<DocumentOutcome>,
    /// Position of the previous event with the same `_id`.
    previous_same_id: Option<usize>,
    /// Whether an earlier attempt may have written this document: its outcome is unknown.
    maybe_written: bool,
    /// Attempts that ended with an unknown code.
    unclassified_failures: u32,
    /// Documents stored by this process when this one first failed with an unknown code.
    stored_at_first_failure: Option<u64>,
}

/// The state of a batch.
pub(super) struct BatchProgress {
    slots: Vec<Slot>,
    /// `retry.document_attempts`.
    max_unclassified_failures: u32,
    /// Documents stored by this process.
    stored: Arc<AtomicU64>,
    /// Parts of the batch to write separately, to find the document that causes a failure.
    pieces: VecDeque<Vec<usize>>,
}

/// Attempts that an earlier session, or another worker, may have made: its deliveries, as far as RabbitMQ counts them. At
/// least two attempts remain, because a delivery may have ended for another cause.
fn failures_before(delivery: &Delivery, max_unclassified_failures: u32) -> u32 {
    if !delivery.redelivered {
        return 0;
    }
    let earlier = delivery.earlier_deliveries().and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
    earlier.min(max_unclassified_failures.saturating_sub(2))
}

impl BatchProgress {
    pub fn new(batch: &[PendingEvent], max_unclassified_failures: u32, stored: Arc<AtomicU64>) -> Self {
        let mut last_with_id = HashMap::with_capacity(batch.len());
        let slot = |(at, pending): (usize, &PendingEvent)| Slot {
            previous_same_id: last_with_id.insert(pending.id, at),
            unclassified_failures: failures_before(&pending.delivery, max_unclassified_failures),
            ..Slot::default()
        };
        let slots = batch.iter().enumerate().map(slot).collect();
        BatchProgress { slots, max_unclassified_failures, stored, pieces: VecDeque::new() }
    }

    /// The outcomes, in the order of the batch.
    pub fn into_outcomes(self) -> impl Iterator<Item = Option<DocumentOutcome>> {
        self.slots.into_iter().map(|slot| slot.outcome)
    }

    /// Whether any document failed with an unknown code.
    pub fn has_unclassified_failures(&self) -> bool {
        self.slots.iter().any(|slot| slot.unclassified_failures > 0)
    }

    /// Whether the event has no outcome yet.
    pub fn is_unfinished(&self, at: usize) -> bool {
        self.slots.get(at).is_some_and(|slot| slot.outcome.is_none())
    }

    fn finish(&mut self, at: usize, outcome: DocumentOutcome) {
        if let Some(slot) = self.slots.get_mut(at) {
            slot.outcome.get_or_insert(outcome);
        }
    }

    fn reject(
        &mut self,
        at: usize,
        reason: Reason,
        detail: impl Into<std::borrow::Cow<'static, str>>,
        code: Option<i32>,
    ) {
        self.finish(at, DocumentOutcome::Rejected(Rejection::new(reason, detail).with_code(code)));
    }

    /// The positions to write next; none when every event has its outcome. Of events with the same `_id` one is written at
    /// a time; those equal to a stored one are duplicates without being written.
    pub fn next_piece(&mut self, batch: &[PendingEvent]) -> Option<Vec<usize>> {
        while let Some(piece) = self.pieces.pop_front() {
            let piece: Vec<usize> = piece.into_iter().filter(|at| self.is_unfinished(*at)).collect();
            if !piece.is_empty() {
                return Some(piece);
            }
        }
        self.finish_equal_events(batch);
        let ready = |at: &usize| {
            let previous = self.slots.get(*at).and_then(|slot| slot.previous_same_id);
            self.is_unfinished(*at) && previous.is_none_or(|previous| !self.is_unfinished(previous))
        };
        let piece: Vec<usize> = (0..batch.len()).filter(ready).collect();
        (!piece.is_empty()).then_some(piece)
    }

    /// Events that equal an earlier, stored event of the batch are duplicates.
    fn finish_equal_events(&mut self, batch: &[PendingEvent]) {
        for at in 0..batch.len() {
            let Some(previous) = self.slots.get(at).and_then(|slot| slot.previous_same_id) else { continue };
            let outcome = self.slots.get(previous).and_then(|slot| slot.outcome.as_ref());
            let stored = matches!(outcome, Some(DocumentOutcome::Stored | DocumentOutcome::Duplicate));
            let equal = match (batch.get(previous), batch.get(at)) {
                (Some(a), Some(b)) => same_event(a.document.as_bytes(), b.document.as_bytes()),
                _ => false,
            };
            if stored && equal {
                self.finish(at, DocumentOutcome::Duplicate);
            }
        }
    }

    /// Notes how many documents this process had stored when these first failed.
    fn note_first_failure(&mut self, positions: impl IntoIterator<Item = usize>) {
        let stored = self.stored.load(Ordering::Relaxed);
        for at in positions {
            if let Some(slot) = self.slots.get_mut(at) {
                slot.stored_at_first_failure.get_or_insert(stored);
            }
        }
    }

    /// The whole command failed.
    pub fn command_failed(&mut self, piece: Vec<usize>, failure: Failure) {
        if failure.class == FailureClass::Unclassified {
            self.note_first_failure(piece.iter().copied());
        }
        for at in &piece {
            if let Some(slot) = self.slots.get_mut(*at) {
                slot.maybe_written = true;
            }
        }
        match (failure.class, piece.as_slice()) {
            (FailureClass::Unclassified, [only]) => {
                self.unclassified_failure(*only, failure.code);
                // Behind the others: their outcomes show whether the document or the store is at fault.
                self.pieces.push_back(piece);
            }
            (FailureClass::Unclassified, _) => self.bisect(&piece),
            // The batch may be too large for the timeout.
            (_, [_, _, ..]) if failure.kind == FailureKind::Timeout => self.bisect(&piece),
            _ => self.pieces.push_front(piece),
        }
    }

    fn bisect(&mut self, piece: &[usize]) {
        let (left, right) = piece.split_at(piece.len() / 2);
        self.pieces.push_front(right.to_vec());
        self.pieces.push_front(left.to_vec());
    }

    /// One document failed with an unknown code. It is rejected only after enough attempts, and only if another document was
    /// stored since the first of them: without that, the store may be at fault.
    fn unclassified_failure(&mut self, at: usize, code: Option<i32>) {
        let stored = self.stored.load(Ordering::Relaxed);
        let Some(slot) = self.slots.get_mut(at) else { return };
        slot.unclassified_failures += 1;
        let others_stored = slot.stored_at_first_failure.is_some_and(|before| stored > before);
        if slot.unclassified_failures >= self.max_unclassified_failures && others_stored {
            let with_code = code.map_or_else(|| "without a code".to_owned(), |code| format!("with code {code}"));
            let detail = format!("MongoDB rejected the document alone again and again {with_code}");
            self.reject(at, Reason::RejectedByStore, detail, code);
        }
    }

    /// The command completed: documents without an error are durable.
    pub fn command_completed(&mut self, piece: &[usize], errors: &[(usize, DocumentError)]) -> Remaining {
        let errors: HashMap<usize, DocumentError> =
            errors.iter().filter_map(|(index, error)| Some((*piece.get(*index)?, *error))).collect();
        self.note_first_failure(errors.keys().copied());
        let mut remaining = Remaining::default();
        // The stored ones first, because unclassified failures are judged by whether others were stored.
        for at in piece.iter().filter(|at| !errors.contains_key(*at)) {
            self.stored.fetch_add(1, Ordering::Relaxed);
            self.finish(*at, DocumentOutcome::Stored);
        }
        for at in piece {
            if let Some(error) = errors.get(at) {
                self.document_failed(*at, *error, &mut remaining);
            }
        }
        remaining
    }

    fn document_failed(&mut self, at: usize, error: DocumentError, remaining: &mut Remaining) {
        match error {
            DocumentError::DuplicateId => remaining.duplicate_ids.push(at),
            DocumentError::DuplicateKey => {
                let detail = "another unique index of the collection already holds this key (code 11000)";
                self.reject(at, Reason::DuplicateKey, detail, Some(11_000));
            }
            DocumentError::Rejected(code) => {
                let rejecter = if code == 121 { "the collection's validator" } else { "MongoDB" };
                let detail = format!("{rejecter} rejects the document (code {code})");
                self.reject(at, Reason::RejectedByStore, detail, Some(code));
            }
            DocumentError::Retry(failure) => remaining.failure = Some(failure),
            DocumentError::Unclassified(code) => {
                self.unclassified_failure(at, Some(code));
                self.pieces.push_back(vec![at]);
                remaining.unknown_code = Some(code);
            }
        }
    }

    /// The document stored under this event's `_id` was compared with it.
    pub fn compared(&mut self, at: usize, equal: bool) {
        let maybe_written = self.slots.get(at).is_some_and(|slot| slot.maybe_written);
        match (equal, maybe_written) {
            (true, true) => self.finish(at, DocumentOutcome::Stored),
            (true, false) => self.finish(at, DocumentOutcome::Duplicate),
            (false, _) => {
                let detail = "a different document has this _id (code 11000)";
                self.reject(at, Reason::IdentityConflict, detail, Some(11_000));
            }
        }
    }
}

#[cfg(test)]
#[path = "batch_progress_tests.rs"]
mod tests;
