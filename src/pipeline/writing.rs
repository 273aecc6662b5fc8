//! Owns one batch on its way into the store: attempts, the shrinking remainder, and a verdict for each event.
//! Must not know deliveries' tags, acks or dead letters. Dropping the future gives the batch up; nothing is lost by it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tracing::{info, warn};

use crate::event::{Reason, Rejection, same_event};
use crate::health::Part;
use crate::metrics::{self, WriteOutcome};
use crate::retry::Delays;
use crate::store::{Class, DocumentFault, Failure, Inserted};
use crate::telemetry::Sparingly;

use super::Context;
use super::intake::Pending;

static REPEATED: Sparingly = Sparingly::new(Duration::from_secs(10));

/// What became of one event. All of them are final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its document is durable.
    Stored,
    /// An equal document was there already.
    Duplicate,
    /// It can never be stored.
    Rejected(Rejection),
}

/// The setting under which a batch was made, for the [`Tuner`](super::tuning::Tuner) to learn from.
#[derive(Debug, Clone, Copy)]
pub struct Under {
    /// The setting's number.
    pub number: u64,
    /// Whether the batch is as large as it may be.
    pub full: bool,
}

/// Writes a batch. Ends only when every event has its verdict, however long the store is away.
pub async fn write(context: &Context, batch: Vec<Pending>, under: Under) -> Vec<(Pending, Verdict)> {
    let mut progress = Progress::new(&batch, context.settings.retry.document_attempts, Arc::clone(&context.stored));
    let mut delays = Delays::new(context.policy());
    while let Some(piece) = progress.next_piece(&batch) {
        let pause = match attempt(context, &batch, &mut progress, piece, under).await {
            Ok(pause) => pause,
            Err(failure) => {
                report(context, &failure);
                true
            }
        };
        if pause {
            tokio::time::sleep(delays.draw()).await;
        } else {
            delays.reset();
        }
    }
    batch.into_iter().zip(progress.verdicts).filter_map(|(pending, verdict)| Some((pending, verdict?))).collect()
}

/// One insert, and one read for what was there already. True if the next attempt should wait a little.
async fn attempt(
    context: &Context,
    batch: &[Pending],
    progress: &mut Progress,
    piece: Vec<usize>,
    under: Under,
) -> Result<bool, Failure> {
    let documents: Vec<_> = piece.iter().filter_map(|at| batch.get(*at)).map(|pending| &pending.document).collect();
    let started = Instant::now();
    let inserted = context.store.insert(&documents).await;
    let took = started.elapsed();
    let seconds = took.as_secs_f64();
    let faults = match inserted {
        Inserted::AllBut(faults) => faults,
        Inserted::Unknown(failure) => {
            metrics::write(WriteOutcome::Failed, seconds);
            if failure.class == Class::Transient {
                context.tuning.lock().failed(under.number);
            }
            return failed(context, progress, piece, failure);
        }
    };
    if under.full && piece.len() == batch.len() {
        context.tuning.lock().wrote(under.number, took, Instant::now());
    }
    metrics::write(if faults.is_empty() { WriteOutcome::Ok } else { WriteOutcome::Partial }, seconds);
    if context.health.up(Part::Store) {
        info!("the store answers");
    }
    let outcome = progress.wrote(&piece, &faults);
    let vanished = compare(context, batch, progress, &outcome.same_id).await?;
    if let Some(code) = outcome.unknown
        && REPEATED.allow(Instant::now()).is_some()
    {
        warn!(code, "holding a document that MongoDB refuses for a reason that is not known; trying it again alone");
    }
    match outcome.failure {
        Some(failure) => Err(failure),
        None => Ok(outcome.unknown.is_some() || vanished),
    }
}

/// Notes that nothing is known of these documents. What is not understood is looked into at once.
fn failed(context: &Context, progress: &mut Progress, piece: Vec<usize>, failure: Failure) -> Result<bool, Failure> {
    let alone = piece.len() == 1;
    progress.failed(piece, failure);
    if failure.class != Class::Unknown {
        return Err(failure);
    }
    if alone {
        report(context, &failure);
    } else {
        metrics::retry(&failure);
    }
    Ok(true)
}

/// Reads what is stored under `_id`s that were there already, and compares. True if some are gone again, or cannot be
/// seen: they are written again, after a pause.
async fn compare(
    context: &Context,
    batch: &[Pending],
    progress: &mut Progress,
    same_id: &[usize],
) -> Result<bool, Failure> {
    if same_id.is_empty() {
        return Ok(false);
    }
    let places: HashMap<[u8; 12], usize> = same_id.iter().filter_map(|at| Some((batch.get(*at)?.id, *at))).collect();
    let ids: Vec<[u8; 12]> = places.keys().copied().collect();
    let see = |id: [u8; 12], stored: &[u8]| {
        let Some((at, pending)) = places.get(&id).and_then(|at| Some((*at, batch.get(*at)?))) else { return };
        progress.compared(at, same_event(stored, pending.document.as_bytes()));
    };
    context.store.visit(&ids, see).await?;
    Ok(same_id.iter().any(|at| progress.undecided(*at)))
}

/// Says once in a while that the store fails, and why.
fn report(context: &Context, failure: &Failure) {
    metrics::retry(failure);
    let news = context.health.down(Part::Store, failure.to_string());
    if news || REPEATED.allow(Instant::now()).is_some() {
        warn!(kind = failure.kind, code = failure.code, "holding: {failure}; nothing is lost, trying again");
    }
}

/// What a write left to do.
#[derive(Debug, Default, PartialEq)]
struct Left {
    /// Positions whose `_id` is there already: to be compared.
    same_id: Vec<usize>,
    /// A code that is not understood: some documents are to be tried again after a pause.
    unknown: Option<i32>,
    /// A failure of the store that came as an error of single documents.
    failure: Option<Failure>,
}

/// The state of a batch. Pure.
struct Progress {
    verdicts: Vec<Option<Verdict>>,
    /// The position of an earlier event with the same `_id`.
    earlier: Vec<Option<usize>>,
    /// Whether an attempt ended without telling whether this document was written.
    in_doubt: Vec<bool>,
    /// Attempts that ended in a code that is not understood.
    attempts: Vec<u32>,
    most_attempts: u32,
    /// Documents stored by this process, and how many those were before each first failed without a known reason.
    stored: Arc<AtomicU64>,
    stored_before: Vec<Option<u64>>,
    /// Parts of the batch to be written apart, while the cause of a failure is being looked for.
    pieces: VecDeque<Vec<usize>>,
}

impl Progress {
    fn new(batch: &[Pending], most_attempts: u32, stored: Arc<AtomicU64>) -> Self {
        let mut seen = HashMap::with_capacity(batch.len());
        let earlier = batch.iter().enumerate().map(|(at, pending)| seen.insert(pending.id, at)).collect();
        let count = batch.len();
        Progress {
            verdicts: vec![None; count],
            earlier,
            in_doubt: vec![false; count],
            attempts: vec![0; count],
            most_attempts,
            stored,
            stored_before: vec![None; count],
            pieces: VecDeque::new(),
        }
    }

    fn undecided(&self, at: usize) -> bool {
        self.verdicts.get(at).is_some_and(Option::is_none)
    }

    fn decide(&mut self, at: usize, verdict: Verdict) {
        if let Some(slot) = self.verdicts.get_mut(at) {
            slot.get_or_insert(verdict);
        }
    }

    /// The positions to be written next; None when every event has its verdict. Of events with the same `_id`, one goes
    /// at a time; equal ones behind a stored one are duplicates without being sent.
    fn next_piece(&mut self, batch: &[Pending]) -> Option<Vec<usize>> {
        while let Some(piece) = self.pieces.pop_front() {
            let piece: Vec<usize> = piece.into_iter().filter(|at| self.undecided(*at)).collect();
            if !piece.is_empty() {
                return Some(piece);
            }
        }
        self.fold_equals(batch);
        let ready = |at: &usize| {
            let earlier = self.earlier.get(*at).copied().flatten();
            self.undecided(*at) && earlier.is_none_or(|earlier| !self.undecided(earlier))
        };
        let piece: Vec<usize> = (0..batch.len()).filter(ready).collect();
        (!piece.is_empty()).then_some(piece)
    }

    fn fold_equals(&mut self, batch: &[Pending]) {
        for at in 0..batch.len() {
            let Some(earlier) = self.earlier.get(at).copied().flatten() else { continue };
            let kept = matches!(self.verdicts.get(earlier), Some(Some(Verdict::Stored | Verdict::Duplicate)));
            let equal = match (batch.get(earlier), batch.get(at)) {
                (Some(a), Some(b)) => same_event(a.document.as_bytes(), b.document.as_bytes()),
                _ => false,
            };
            if kept && equal {
                self.decide(at, Verdict::Duplicate);
            }
        }
    }

    /// Remembers how much was stored before these first failed.
    fn remember(&mut self, piece: &[usize]) {
        let stored = self.stored.load(Ordering::Relaxed);
        for at in piece {
            if let Some(before) = self.stored_before.get_mut(*at) {
                before.get_or_insert(stored);
            }
        }
    }

    /// The whole command failed.
    fn failed(&mut self, piece: Vec<usize>, failure: Failure) {
        if failure.class == Class::Unknown {
            self.remember(&piece);
        }
        for at in &piece {
            if let Some(doubt) = self.in_doubt.get_mut(*at) {
                *doubt = true;
            }
        }
        match (failure.class, piece.as_slice()) {
            (Class::Unknown, [only]) => {
                self.not_understood(*only, failure.code);
                // Behind the others: what becomes of them tells whose fault it is.
                self.pieces.push_back(piece);
            }
            (Class::Unknown, _) => self.halve(&piece),
            // Too much for the time there is, perhaps.
            (_, [_, _, ..]) if failure.kind == Failure::timed_out().kind => self.halve(&piece),
            _ => self.pieces.push_front(piece),
        }
    }

    fn halve(&mut self, piece: &[usize]) {
        let (left, right) = piece.split_at(piece.len() / 2);
        self.pieces.push_front(right.to_vec());
        self.pieces.push_front(left.to_vec());
    }

    /// A failure of one document that has no known meaning. Only the contrast shows that the document is at fault and
    /// not the store: another one must have been stored in the meantime.
    fn not_understood(&mut self, at: usize, code: Option<i32>) {
        let Some(attempts) = self.attempts.get_mut(at) else { return };
        *attempts += 1;
        let before = self.stored_before.get(at).copied().flatten();
        let contrast = before.is_some_and(|before| self.stored.load(Ordering::Relaxed) > before);
        if *attempts >= self.most_attempts && contrast {
            let code = code.map_or_else(|| "without a code".to_owned(), |code| format!("with code {code}"));
            let detail = format!("MongoDB refused the document alone {} times {code}", self.most_attempts);
            self.decide(at, Verdict::Rejected(Rejection::new(Reason::RejectedByStore, detail)));
        }
    }

    /// The command ran to its end. What is not among the faults is durable.
    fn wrote(&mut self, piece: &[usize], faults: &[(usize, DocumentFault)]) -> Left {
        let faulty: HashMap<usize, DocumentFault> =
            faults.iter().filter_map(|(index, fault)| Some((*piece.get(*index)?, *fault))).collect();
        let mut left = Left::default();
        self.remember(&faulty.keys().copied().collect::<Vec<_>>());
        // First those that were stored: they are the contrast for the others.
        let (bad, good): (Vec<usize>, Vec<usize>) = piece.iter().partition(|at| faulty.contains_key(*at));
        for at in good.iter().chain(&bad) {
            match faulty.get(at) {
                None => {
                    self.stored.fetch_add(1, Ordering::Relaxed);
                    self.decide(*at, Verdict::Stored);
                }
                Some(DocumentFault::SameId) => left.same_id.push(*at),
                Some(DocumentFault::OtherIndex) => {
                    let detail = "another unique index of the collection already holds this key (code 11000)";
                    self.decide(*at, Verdict::Rejected(Rejection::new(Reason::DuplicateKey, detail)));
                }
                Some(DocumentFault::Refused(code)) => {
                    let meaning = if *code == 121 { "the collection's validator" } else { "MongoDB" };
                    let detail = format!("{meaning} refuses the document (code {code})");
                    self.decide(*at, Verdict::Rejected(Rejection::new(Reason::RejectedByStore, detail)));
                }
                Some(DocumentFault::Retry(failure)) => left.failure = Some(*failure),
                Some(DocumentFault::Unknown(code)) => {
                    self.not_understood(*at, Some(*code));
                    self.pieces.push_back(vec![*at]);
                    left.unknown = Some(*code);
                }
            }
        }
        left
    }

    /// Whether the document that stands under this event's `_id` is equal to it.
    fn compared(&mut self, at: usize, equal: bool) {
        let ours_perhaps = self.in_doubt.get(at).copied().unwrap_or_default();
        let verdict = match (equal, ours_perhaps) {
            (true, true) => Verdict::Stored,
            (true, false) => Verdict::Duplicate,
            (false, _) => {
                let detail = "a different document is stored under this _id (code 11000)";
                Verdict::Rejected(Rejection::new(Reason::IdentityConflict, detail))
            }
        };
        self.decide(at, verdict);
    }
}

#[cfg(test)]
#[path = "simulation_tests.rs"]
mod simulation;
#[cfg(test)]
#[path = "writing_tests.rs"]
mod tests;
