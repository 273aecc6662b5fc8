//! The verdicts of a batch, without a store: what each answer of MongoDB leaves to do.

use super::*;
use crate::broker::Delivery;

fn pending(id: u8, body: &str) -> Pending {
    let message = crate::event::Message { body: body.as_bytes(), ..Default::default() };
    let event = crate::event::Decoder::new(Default::default()).decode(&message, || [id; 12]).unwrap();
    let document = bson::RawDocumentBuf::from_bytes(event.document).unwrap();
    Pending { delivery: Delivery::of_body(body), id: event.id, document, time: None }
}

fn progress(batch: &[Pending]) -> Progress {
    Progress::new(batch, 3, Arc::default())
}

fn failure(class: Class) -> Failure {
    Failure { class, kind: "other", code: Some(7) }
}

#[test]
fn everything_without_a_fault_is_stored() {
    let batch = vec![pending(1, "{}"), pending(2, "{}"), pending(3, "{}")];
    let mut progress = progress(&batch);
    let piece = progress.next_piece(&batch).unwrap();
    assert_eq!(piece, [0, 1, 2]);
    let left = progress.wrote(&piece, &[(1, DocumentFault::Refused(121))]);
    assert_eq!(left, Left::default());
    assert_eq!(progress.next_piece(&batch), None);
    assert_eq!(progress.verdicts[0], Some(Verdict::Stored));
    assert!(matches!(&progress.verdicts[1], Some(Verdict::Rejected(r)) if r.reason == Reason::RejectedByStore));
}

#[test]
fn equal_events_of_a_batch_are_stored_once_and_others_of_the_same_id_conflict() {
    let batch =
        vec![pending(1, "{\"a\":1}"), pending(1, "{\"a\":1}"), pending(1, "{\"a\":2}"), pending(1, "{\"a\":1}")];
    let mut progress = progress(&batch);
    let piece = progress.next_piece(&batch).unwrap();
    assert_eq!(piece, [0]);
    progress.wrote(&piece, &[]);
    let piece = progress.next_piece(&batch).unwrap();
    assert_eq!(piece, [2], "the equal one is folded, the different one is asked about");
    assert_eq!(progress.wrote(&piece, &[(0, DocumentFault::SameId)]).same_id, [2]);
    progress.compared(2, false);
    let piece = progress.next_piece(&batch).unwrap();
    assert_eq!(piece, [3]);
    progress.wrote(&piece, &[(0, DocumentFault::SameId)]);
    progress.compared(3, true);
    assert_eq!(progress.next_piece(&batch), None);
    assert_eq!(progress.verdicts[1], Some(Verdict::Duplicate));
    assert!(matches!(&progress.verdicts[2], Some(Verdict::Rejected(r)) if r.reason == Reason::IdentityConflict));
    assert_eq!(progress.verdicts[3], Some(Verdict::Duplicate));
}

#[test]
fn what_is_there_after_a_doubtful_attempt_is_ours() {
    let batch = vec![pending(1, "{}"), pending(2, "{}")];
    let mut progress = progress(&batch);
    let piece = progress.next_piece(&batch).unwrap();
    progress.failed(piece, failure(Class::Transient));
    let piece = progress.next_piece(&batch).unwrap();
    assert_eq!(piece, [0, 1], "the same documents again");
    let left = progress.wrote(&piece, &[(0, DocumentFault::SameId)]);
    assert_eq!(left.same_id, [0]);
    progress.compared(0, true);
    assert_eq!(progress.verdicts, [Some(Verdict::Stored), Some(Verdict::Stored)]);
}

#[test]
fn a_document_that_vanished_is_written_again() {
    let batch = vec![pending(1, "{}")];
    let mut progress = progress(&batch);
    let piece = progress.next_piece(&batch).unwrap();
    progress.wrote(&piece, &[(0, DocumentFault::SameId)]);
    assert_eq!(progress.next_piece(&batch), Some(vec![0]));
}

#[test]
fn an_unexplained_failure_is_bisected_down_to_its_document() {
    let batch: Vec<_> = (0..9).map(|id| pending(id, "{}")).collect();
    let mut progress = progress(&batch);
    let mut commands = 0;
    while let Some(piece) = progress.next_piece(&batch) {
        commands += 1;
        assert!(commands < 20, "it ends");
        if piece.contains(&6) {
            progress.failed(piece, failure(Class::Unknown));
        } else {
            progress.wrote(&piece, &[]);
        }
    }
    for (at, verdict) in progress.verdicts.iter().enumerate() {
        assert_eq!(matches!(verdict, Some(Verdict::Rejected(_))), at == 6, "{at}");
    }
}

#[test]
fn an_unknown_code_is_tried_alone_a_bounded_number_of_times() {
    let batch = vec![pending(1, "{}"), pending(2, "{}")];
    let mut progress = progress(&batch);
    let piece = progress.next_piece(&batch).unwrap();
    assert!(progress.wrote(&piece, &[(1, DocumentFault::Unknown(4242))]).unknown.is_some());
    for _ in 0..2 {
        assert_eq!(progress.next_piece(&batch), Some(vec![1]));
        progress.wrote(&[1], &[(0, DocumentFault::Unknown(4242))]);
    }
    assert_eq!(progress.next_piece(&batch), None);
    assert!(matches!(&progress.verdicts[1], Some(Verdict::Rejected(r)) if r.detail.contains("4242")));
}

#[test]
fn a_store_failure_on_single_documents_leaves_them_undecided() {
    let batch = vec![pending(1, "{}"), pending(2, "{}")];
    let mut progress = progress(&batch);
    let piece = progress.next_piece(&batch).unwrap();
    let left = progress.wrote(&piece, &[(0, DocumentFault::Retry(failure(Class::Hold)))]);
    assert_eq!(left.failure, Some(failure(Class::Hold)));
    assert_eq!(progress.next_piece(&batch), Some(vec![0]));
}

#[test]
fn an_unknown_code_without_contrast_is_an_outage_and_no_verdict() {
    let batch = vec![pending(1, "{}"), pending(2, "{}")];
    let mut progress = progress(&batch);
    for _ in 0..50 {
        let piece = progress.next_piece(&batch).unwrap();
        progress.failed(piece, failure(Class::Unknown));
    }
    assert_eq!(progress.verdicts, [None, None]);
    for _ in 0..2 {
        let piece = progress.next_piece(&batch).unwrap();
        progress.wrote(&piece, &[]);
    }
    assert_eq!(progress.verdicts, [Some(Verdict::Stored), Some(Verdict::Stored)]);
}
