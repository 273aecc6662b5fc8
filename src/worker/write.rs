//! Owns writing one batch: attempts, pauses, and the comparison with documents that are stored already. Dropping the
//! future abandons the batch, which loses nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::mongodb::{Failure, FailureClass, InsertResult};
use crate::observe::logging::LogThrottle;
use crate::observe::metrics::{self, WriteResult};
use ticketlog_contract::same_event;
use ticketlog_status::Component;

use super::batch_progress::{BatchProgress, DocumentOutcome};
use super::context::WorkerContext;
use super::decode::PendingEvent;

static THROTTLE: LogThrottle = LogThrottle::new(Duration::from_secs(10));

/// Writes a batch. Returns only when every event has its outcome, however long the store is unavailable.
pub async fn write(context: &WorkerContext, batch: Vec<PendingEvent>) -> Vec<(PendingEvent, DocumentOutcome)> {
    let attempts = context.settings.retry.document_attempts;
    let mut progress = BatchProgress::new(&batch, attempts, Arc::clone(&context.stored));
    let mut backoff = context.backoff();
    while let Some(piece) = progress.next_piece(&batch) {
        let pause = match attempt(context, &batch, &mut progress, piece).await {
            Ok(pause) => pause,
            Err(failure) => {
                report(context, &failure);
                true
            }
        };
        if pause {
            tokio::time::sleep(backoff.next_delay()).await;
        } else {
            backoff.reset();
        }
    }
    if progress.has_unclassified_failures() && context.health.up(Component::Document) {
        info!("the document that MongoDB rejected with an unknown code has its outcome");
    }
    let outcomes = progress.into_outcomes();
    batch.into_iter().zip(outcomes).filter_map(|(pending, outcome)| Some((pending, outcome?))).collect()
}

/// One insert, and one read of the documents that are stored already. True if the next attempt should wait.
async fn attempt(
    context: &WorkerContext,
    batch: &[PendingEvent],
    progress: &mut BatchProgress,
    piece: Vec<usize>,
) -> Result<bool, Failure> {
    let documents: Vec<_> = piece.iter().filter_map(|at| batch.get(*at)).map(|pending| &pending.document).collect();
    let started = Instant::now();
    let result = context.store.insert(&documents).await;
    let duration = started.elapsed();
    let errors = match result {
        InsertResult::Completed(errors) => errors,
        InsertResult::Failed(failure) => {
            metrics::write(WriteResult::Failed, duration.as_secs_f64());
            return command_failed(context, progress, piece, failure);
        }
    };
    metrics::write(if errors.is_empty() { WriteResult::Ok } else { WriteResult::Partial }, duration.as_secs_f64());
    let remaining = progress.command_completed(&piece, &errors);
    if remaining.failure.is_none() {
        store_answers(context);
    }
    let missing = compare(context, batch, progress, &remaining.duplicate_ids).await?;
    context.unknown_code.store(remaining.unknown_code.is_some(), Ordering::Relaxed);
    if let Some(code) = remaining.unknown_code {
        report_document(context, &Failure::unknown_code(code));
    }
    match remaining.failure {
        Some(failure) => Err(failure),
        None => Ok(remaining.unknown_code.is_some() || missing),
    }
}

/// The outcome of these documents is unknown. An unclassified failure is bisected without a report until one document is left.
fn command_failed(
    context: &WorkerContext,
    progress: &mut BatchProgress,
    piece: Vec<usize>,
    failure: Failure,
) -> Result<bool, Failure> {
    let alone = piece.len() == 1;
    context.unknown_code.store(failure.class == FailureClass::Unclassified, Ordering::Relaxed);
    progress.command_failed(piece, failure);
    if failure.class != FailureClass::Unclassified {
        return Err(failure);
    }
    if alone {
        report_document(context, &failure);
    } else {
        metrics::store_retry(&failure);
    }
    Ok(true)
}

/// Reads the documents stored under these events' `_id`s and compares them. True if some were not found: those are written
/// again after a pause.
async fn compare(
    context: &WorkerContext,
    batch: &[PendingEvent],
    progress: &mut BatchProgress,
    positions: &[usize],
) -> Result<bool, Failure> {
    if positions.is_empty() {
        return Ok(false);
    }
    let by_id: HashMap<[u8; 12], usize> = positions.iter().filter_map(|at| Some((batch.get(*at)?.id, *at))).collect();
    let ids: Vec<[u8; 12]> = by_id.keys().copied().collect();
    let compare = |id: [u8; 12], stored: &[u8]| {
        let Some((at, pending)) = by_id.get(&id).and_then(|at| Some((*at, batch.get(*at)?))) else { return };
        progress.compared(at, same_event(stored, pending.document.as_bytes()));
    };
    context.store.find_by_ids(&ids, compare).await?;
    Ok(positions.iter().any(|at| progress.is_unfinished(*at)))
}

/// Reports that the store fails; a repeated log line is throttled.
fn report(context: &WorkerContext, failure: &Failure) {
    metrics::store_retry(failure);
    let changed = context.health.down(Component::Store, failure.to_string());
    if changed || THROTTLE.permit(Instant::now()).is_some() {
        warn!(kind = failure.label(), code = failure.code, "{failure}; nothing is lost, retrying");
    }
}

/// Reports that one document fails for a reason that is not known: MongoDB answers, and whether the document is at fault
/// shows once another one is stored.
fn report_document(context: &WorkerContext, failure: &Failure) {
    metrics::store_retry(failure);
    store_answers(context);
    let problem = match failure.code {
        Some(code) => format!("MongoDB rejects one with code {code}, which ticketlog does not know"),
        None => "MongoDB's driver rejects one".to_owned(),
    };
    let text = format!("{problem}; it becomes a dead letter once another one is stored");
    if context.health.down(Component::Document, text.as_str()) || THROTTLE.permit(Instant::now()).is_some() {
        warn!(kind = failure.label(), code = failure.code, "a document has no outcome: {text}");
    }
}

fn store_answers(context: &WorkerContext) {
    if context.health.up(Component::Store) {
        info!("MongoDB answers again");
    }
}
