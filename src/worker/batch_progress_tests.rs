//! Tests of the progress of a batch, without a store: what remains to be done after each reply of MongoDB.

use super::*;
use ticketlog_rabbitmq::Delivery;

fn pending(id: u8, body: &str) -> PendingEvent {
    let message = ticketlog_contract::Message { body: body.as_bytes(), ..Default::default() };
    let event = ticketlog_contract::Decoder::new(Default::default()).decode(&message, || [id; 12]).unwrap();
    PendingEvent {
        delivery: Delivery::with_body(body),
        id: event.id,
        document: event.document,
        time: None,
        findings: event.findings,
        held: None,
    }
}

fn progress(batch: &[PendingEvent]) -> BatchProgress {
    BatchProgress::new(batch, 3, Arc::default())
}

fn outcomes(progress: BatchProgress) -> Vec<Option<DocumentOutcome>> {
    progress.into_outcomes().collect()
}

fn failure(class: FailureClass) -> Failure {
    Failure { class, kind: FailureKind::Other, code: Some(7) }
}

#[test]
fn documents_without_an_error_are_stored() {
    let batch = vec![pending(1, "{}"), pending(2, "{}"), pending(3, "{}")];
    let mut progress = progress(&batch);
    let piece = progress.next_piece(&batch).unwrap();
    assert_eq!(piece, [0, 1, 2]);
    let remaining = progress.command_completed(&piece, &[(1, DocumentError::Rejected(121))]);
    assert_eq!(remaining, Remaining::default());
    assert_eq!(progress.next_piece(&batch), None);
    assert_eq!(progress.slots[0].outcome, Some(DocumentOutcome::Stored));
    assert!(
        matches!(&progress.slots[1].outcome, Some(DocumentOutcome::Rejected(r)) if r.reason == Reason::RejectedByStore)
    );
}

#[test]
fn equal_events_of_a_batch_are_stored_once_and_different_ones_conflict() {
    let batch =
        vec![pending(1, "{\"a\":1}"), pending(1, "{\"a\":1}"), pending(1, "{\"a\":2}"), pending(1, "{\"a\":1}")];
    let mut progress = progress(&batch);
    let piece = progress.next_piece(&batch).unwrap();
    assert_eq!(piece, [0]);
    progress.command_completed(&piece, &[]);
    let piece = progress.next_piece(&batch).unwrap();
    assert_eq!(piece, [2], "the equal event is not written, the different one is");
    assert_eq!(progress.command_completed(&piece, &[(0, DocumentError::DuplicateId)]).duplicate_ids, [2]);
    progress.compared(2, false);
    let piece = progress.next_piece(&batch).unwrap();
    assert_eq!(piece, [3]);
    progress.command_completed(&piece, &[(0, DocumentError::DuplicateId)]);
    progress.compared(3, true);
    assert_eq!(progress.next_piece(&batch), None);
    assert_eq!(progress.slots[1].outcome, Some(DocumentOutcome::Duplicate));
    assert!(
        matches!(&progress.slots[2].outcome, Some(DocumentOutcome::Rejected(r)) if r.reason == Reason::IdentityConflict)
    );
    assert_eq!(progress.slots[3].outcome, Some(DocumentOutcome::Duplicate));
}

#[test]
fn a_document_found_after_an_unknown_outcome_counts_as_stored() {
    let batch = vec![pending(1, "{}"), pending(2, "{}")];
    let mut progress = progress(&batch);
    let piece = progress.next_piece(&batch).unwrap();
    progress.command_failed(piece, failure(FailureClass::Transient));
    let piece = progress.next_piece(&batch).unwrap();
    assert_eq!(piece, [0, 1], "the same documents again");
    let remaining = progress.command_completed(&piece, &[(0, DocumentError::DuplicateId)]);
    assert_eq!(remaining.duplicate_ids, [0]);
    progress.compared(0, true);
    assert_eq!(outcomes(progress), [Some(DocumentOutcome::Stored), Some(DocumentOutcome::Stored)]);
}

#[test]
fn a_document_that_is_not_found_is_written_again() {
    let batch = vec![pending(1, "{}")];
    let mut progress = progress(&batch);
    let piece = progress.next_piece(&batch).unwrap();
    progress.command_completed(&piece, &[(0, DocumentError::DuplicateId)]);
    assert_eq!(progress.next_piece(&batch), Some(vec![0]));
}

#[test]
fn an_unclassified_failure_is_bisected_down_to_its_document() {
    let batch: Vec<_> = (0..9).map(|id| pending(id, "{}")).collect();
    let mut progress = progress(&batch);
    let mut commands = 0;
    while let Some(piece) = progress.next_piece(&batch) {
        commands += 1;
        assert!(commands < 20, "the bisection ends");
        if piece.contains(&6) {
            progress.command_failed(piece, failure(FailureClass::Unclassified));
        } else {
            progress.command_completed(&piece, &[]);
        }
    }
    for (at, outcome) in outcomes(progress).iter().enumerate() {
        assert_eq!(matches!(outcome, Some(DocumentOutcome::Rejected(_))), at == 6, "{at}");
    }
}

#[test]
fn an_unknown_code_is_retried_alone_a_bounded_number_of_times() {
    let batch = vec![pending(1, "{}"), pending(2, "{}")];
    let mut progress = progress(&batch);
    let piece = progress.next_piece(&batch).unwrap();
    assert!(progress.command_completed(&piece, &[(1, DocumentError::Unclassified(4242))]).unknown_code.is_some());
    for _ in 0..2 {
        assert_eq!(progress.next_piece(&batch), Some(vec![1]));
        progress.command_completed(&[1], &[(0, DocumentError::Unclassified(4242))]);
    }
    assert_eq!(progress.next_piece(&batch), None);
    assert!(matches!(&progress.slots[1].outcome, Some(DocumentOutcome::Rejected(r)) if r.detail.contains("4242")));
}

#[test]
fn attempts_of_an_earlier_session_count_but_two_remain() {
    for (deliveries, attempts) in [(0, 5), (2, 3), (9, 2)] {
        let mut batch = vec![pending(1, "{}"), pending(2, "{}")];
        batch[1].delivery = Delivery::with_body("{}").redelivered(deliveries);
        let mut progress = BatchProgress::new(&batch, 5, Arc::default());
        let piece = progress.next_piece(&batch).unwrap();
        progress.command_completed(&piece, &[(1, DocumentError::Unclassified(4242))]);
        let mut made = 1;
        while progress.next_piece(&batch).is_some() {
            progress.command_completed(&[1], &[(0, DocumentError::Unclassified(4242))]);
            made += 1;
        }
        assert_eq!(made, attempts, "after {deliveries} deliveries");
    }
}

#[test]
fn documents_with_a_failure_of_the_store_are_retried() {
    let batch = vec![pending(1, "{}"), pending(2, "{}")];
    let mut progress = progress(&batch);
    let piece = progress.next_piece(&batch).unwrap();
    let remaining = progress.command_completed(&piece, &[(0, DocumentError::Retry(failure(FailureClass::Operator)))]);
    assert_eq!(remaining.failure, Some(failure(FailureClass::Operator)));
    assert_eq!(progress.next_piece(&batch), Some(vec![0]));
}

#[test]
fn an_unknown_code_is_an_outage_while_no_other_document_is_stored() {
    let batch = vec![pending(1, "{}"), pending(2, "{}")];
    let mut progress = progress(&batch);
    for _ in 0..50 {
        let piece = progress.next_piece(&batch).unwrap();
        progress.command_failed(piece, failure(FailureClass::Unclassified));
    }
    assert!(progress.is_unfinished(0) && progress.is_unfinished(1));
    for _ in 0..2 {
        let piece = progress.next_piece(&batch).unwrap();
        progress.command_completed(&piece, &[]);
    }
    assert_eq!(outcomes(progress), [Some(DocumentOutcome::Stored), Some(DocumentOutcome::Stored)]);
}
