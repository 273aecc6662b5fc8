//! A simulation of the deterministic core in random interleavings: decoder, batcher, batch progress and settlement run
//! between a model of the broker and a model of the store, with lost replies, failed commands, lost confirms, lost sessions
//! and a stop.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::batch_progress::{BatchProgress, DocumentOutcome};
use super::batcher::{BatchLimits, Batcher, Flow};
use super::decode::PendingEvent;
use crate::mongodb::{DocumentError, Failure, FailureClass, FailureKind};
use ticketlog_contract::{Decoder, Message, Reason};
use ticketlog_rabbitmq::{Acks, Delivery, Settlement};

const PREFETCH: usize = 12;
const WRITERS: usize = 2;
const LIMITS: BatchLimits = BatchLimits { max_events: 4, max_bytes: 400, linger: Duration::from_millis(5) };

/// What happens next. The number of `Write` selects one of the writes in progress.
#[derive(Debug, Clone, Copy)]
enum Step {
    Deliver(usize),
    Wait(u64),
    Flush,
    Write(usize, Reply),
    Confirm,
    ConfirmLost,
    Ack { single: bool },
    SessionLost { write_applied: bool },
}

/// How the store answers a command.
#[derive(Debug, Clone, Copy)]
enum Reply {
    Completed,
    /// The command completed, but its reply, or the read that follows it, was lost.
    Lost,
    /// The command did not run, because of a transient or an unclassified failure.
    Failed(FailureClass),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let reply = prop_oneof![
        4 => Just(Reply::Completed),
        1 => Just(Reply::Lost),
        1 => Just(Reply::Failed(FailureClass::Transient)),
        1 => Just(Reply::Failed(FailureClass::Unclassified)),
    ];
    let step = prop_oneof![
        6 => (1usize..6).prop_map(Step::Deliver),
        2 => (0u64..8).prop_map(Step::Wait),
        4 => Just(Step::Flush),
        8 => (any::<usize>(), reply).prop_map(|(pick, reply)| Step::Write(pick, reply)),
        3 => Just(Step::Confirm),
        1 => Just(Step::ConfirmLost),
        3 => any::<bool>().prop_map(|single| Step::Ack { single }),
        1 => any::<bool>().prop_map(|write_applied| Step::SessionLost { write_applied }),
    ];
    prop::collection::vec(step, 1..300)
}

/// Messages as (identity, content). Some identities repeat, with equal or with different content. The store rejects the
/// content 8, the decoder 9.
fn messages() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec((0u8..20, prop_oneof![6 => 0u8..2, 1 => Just(8u8), 1 => Just(9u8)]), 1..60)
}

struct Write {
    batch: Vec<PendingEvent>,
    progress: BatchProgress,
}

struct Simulation {
    messages: Vec<(u8, u8)>,
    now: Instant,
    // The broker's side.
    queue: VecDeque<usize>,
    outstanding: BTreeMap<u64, usize>,
    next_tag: u64,
    acked: BTreeSet<usize>,
    dead: Vec<usize>,
    /// Messages that the store rejected, for instance with an unknown code. If the session is lost before the dead letter is
    /// settled, the message is delivered again and may be stored.
    rejected_by_store: BTreeSet<usize>,
    // The store's side: the content by `_id`.
    stored: HashMap<[u8; 12], u8>,
    // The worker's side, which is lost with the session.
    settlement: Settlement<u64>,
    batcher: Batcher<PendingEvent>,
    writes: Vec<Write>,
    dead_letters: VecDeque<u64>,
    // Deliveries by outcome.
    received: usize,
    settled: usize,
    returned: usize,
    in_flight: usize,
    stored_count: Arc<AtomicU64>,
}

impl Simulation {
    fn new(messages: Vec<(u8, u8)>) -> Self {
        Simulation {
            now: Instant::now(),
            queue: (0..messages.len()).collect(),
            messages,
            outstanding: BTreeMap::new(),
            next_tag: 1,
            acked: BTreeSet::new(),
            dead: Vec::new(),
            rejected_by_store: BTreeSet::new(),
            stored: HashMap::new(),
            settlement: Settlement::default(),
            batcher: Batcher::new(LIMITS),
            writes: Vec::new(),
            dead_letters: VecDeque::new(),
            received: 0,
            settled: 0,
            returned: 0,
            in_flight: 0,
            stored_count: Arc::default(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Deliver(count) => (0..count).for_each(|_| self.deliver()),
            Step::Wait(millis) => self.now += Duration::from_millis(millis),
            Step::Flush => self.flush(),
            Step::Write(pick, reply) => self.write(pick, reply),
            Step::Confirm => self.confirm(true),
            Step::ConfirmLost => self.confirm(false),
            Step::Ack { single } => self.ack(single),
            Step::SessionLost { write_applied } => self.lose_session(write_applied),
        }
        assert_eq!(
            self.received,
            self.settled + self.returned + self.in_flight,
            "received = settled + returned + in flight"
        );
        assert!(self.settlement.unacked() <= PREFETCH, "bounded by the prefetch");
        assert_eq!(self.settlement.unacked(), self.outstanding.len(), "both sides agree on what is unacknowledged");
    }

    fn deliver(&mut self) {
        if self.outstanding.len() == PREFETCH {
            return;
        }
        let Some(message) = self.queue.pop_front() else { return };
        let (id, content) = self.messages[message];
        let tag = self.next_tag;
        self.next_tag += 1;
        self.outstanding.insert(tag, message);
        assert!(self.settlement.receive(tag, tag));
        self.received += 1;
        self.in_flight += 1;
        let body = if content == 9 { "{".to_owned() } else { format!("{{\"content\":{content}}}") };
        let mut delivery = Delivery::with_body(&body);
        delivery.tag = tag;
        let message = Message { body: body.as_bytes(), ..Message::default() };
        match Decoder::new(Arc::default()).decode(&message, || [id; 12]) {
            Ok(event) => {
                let pending = PendingEvent {
                    delivery,
                    id: event.id,
                    document: event.document,
                    time: None,
                    findings: event.findings,
                    held: None,
                };
                self.batcher.push(pending, 100, self.now);
            }
            Err(_) => self.dead_letters.push_back(tag),
        }
    }

    fn flush(&mut self) {
        while self.writes.len() < WRITERS
            && let Some((batch, _)) = self.batcher.take(self.now, Flow::default())
        {
            assert!((1..=LIMITS.max_events).contains(&batch.len()));
            let progress = BatchProgress::new(&batch, 3, Arc::clone(&self.stored_count));
            self.writes.push(Write { batch, progress });
        }
    }

    fn write(&mut self, pick: usize, reply: Reply) {
        if self.writes.is_empty() {
            return;
        }
        let at = pick % self.writes.len();
        let mut write = self.writes.remove(at);
        if let Some(piece) = write.progress.next_piece(&write.batch) {
            match reply {
                Reply::Completed => self.run(&mut write, &piece),
                Reply::Lost => {
                    self.insert(&write.batch, &piece);
                    write.progress.command_failed(piece, Failure::TIMEOUT);
                }
                Reply::Failed(class) => {
                    write.progress.command_failed(piece, Failure { class, kind: FailureKind::Other, code: Some(7) })
                }
            }
            self.writes.insert(at, write);
        } else {
            self.apply(write);
        }
    }

    fn run(&mut self, write: &mut Write, piece: &[usize]) {
        let faults = self.insert(&write.batch, piece);
        let remaining = write.progress.command_completed(piece, &faults);
        for at in remaining.duplicate_ids {
            let pending = &write.batch[at];
            let content = content_of(pending);
            write.progress.compared(at, self.stored[&pending.id] == content);
        }
    }

    /// An unordered insert; returns the errors by position.
    fn insert(&mut self, batch: &[PendingEvent], piece: &[usize]) -> Vec<(usize, DocumentError)> {
        let mut faults = Vec::new();
        for (index, at) in piece.iter().enumerate() {
            let pending = &batch[*at];
            let content = content_of(pending);
            match self.stored.entry(pending.id) {
                _ if content == 8 => faults.push((index, DocumentError::Rejected(121))),
                Entry::Occupied(_) => faults.push((index, DocumentError::DuplicateId)),
                Entry::Vacant(free) => drop(free.insert(content)),
            }
        }
        faults
    }

    fn apply(&mut self, write: Write) {
        for (pending, outcome) in write.batch.iter().zip(write.progress.into_outcomes()) {
            match outcome.expect("every event of a finished batch has its outcome") {
                DocumentOutcome::Stored | DocumentOutcome::Duplicate => self.settle(pending.delivery.tag),
                DocumentOutcome::Rejected(rejection) => {
                    let tag = pending.delivery.tag;
                    self.dead_letters.push_back(tag);
                    if rejection.reason == Reason::RejectedByStore {
                        self.rejected_by_store.insert(self.outstanding[&tag]);
                    }
                }
            }
        }
    }

    fn settle(&mut self, tag: u64) {
        self.settlement.settle(tag);
        self.settled += 1;
        self.in_flight -= 1;
    }

    /// A dead letter reaches its queue. If its confirm is lost, it is published again.
    fn confirm(&mut self, confirmed: bool) {
        let Some(tag) = self.dead_letters.pop_front() else { return };
        self.dead.push(self.outstanding[&tag]);
        if confirmed { self.settle(tag) } else { self.dead_letters.push_front(tag) }
    }

    fn ack(&mut self, single: bool) {
        let acks = if single { self.settlement.take_single(3) } else { self.settlement.take_prefix() };
        let tags: Vec<u64> = match acks {
            None => return,
            Some(Acks::Multiple(tag, covered)) => {
                let tags: Vec<u64> = self.outstanding.range(..=tag).map(|(tag, _)| *tag).collect();
                assert_eq!((tags.last(), tags.len()), (Some(&tag), covered));
                tags
            }
            Some(Acks::Single(tags)) => tags,
        };
        for tag in tags {
            let message = self.outstanding.remove(&tag).expect("the broker knows the tag");
            assert!(self.is_safe(message), "acknowledged before it was stored or dead-lettered: {message}");
            assert!(self.acked.insert(message), "acknowledged twice");
        }
    }

    fn is_safe(&self, message: usize) -> bool {
        let (id, content) = self.messages[message];
        self.stored.get(&[id; 12]) == Some(&content) || self.dead.contains(&message)
    }

    fn lose_session(&mut self, write_applied: bool) {
        for mut write in std::mem::take(&mut self.writes) {
            if write_applied && let Some(piece) = write.progress.next_piece(&write.batch) {
                self.insert(&write.batch, &piece);
            }
        }
        for message in std::mem::take(&mut self.outstanding).into_values().rev() {
            self.queue.push_front(message);
        }
        self.returned += self.in_flight;
        self.in_flight = 0;
        self.next_tag = 1;
        self.settlement = Settlement::default();
        self.batcher = Batcher::new(LIMITS);
        self.dead_letters.clear();
    }

    /// Runs without further failures until the queue is empty; then the worker stops.
    fn finish(&mut self) {
        let mut turns = 0;
        while !self.queue.is_empty() || self.in_flight > 0 {
            for step in [Step::Deliver(3), Step::Wait(9), Step::Flush, Step::Write(0, Reply::Completed), Step::Confirm]
            {
                self.step(step);
            }
            self.step(Step::Ack { single: turns % 2 == 1 });
            turns += 1;
            assert!(turns < 10_000, "no progress");
        }
        self.step(Step::Ack { single: false });
        assert_eq!(self.settlement.take_unsettled(), None, "nothing is left to requeue");
    }

    fn check_result(&self) {
        assert_eq!(self.acked.len(), self.messages.len(), "each message is acknowledged once");
        for (at, (id, content)) in self.messages.iter().enumerate() {
            let stored = self.stored.get(&[*id; 12]) == Some(content);
            let dead = self.dead.contains(&at);
            assert!(stored || dead, "{at} is lost");
            assert!(!(stored && dead) || self.rejected_by_store.contains(&at), "{at} is both stored and dead-lettered");
            assert!(!stored || *content < 2, "a message that must be rejected was stored");
        }
    }
}

fn content_of(pending: &PendingEvent) -> u8 {
    u8::try_from(pending.document.get_i32("content").unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_message_is_stored_or_dead_lettered(messages in messages(), steps in steps()) {
        let mut simulation = Simulation::new(messages);
        steps.into_iter().for_each(|step| simulation.step(step));
        simulation.finish();
        simulation.check_result();
    }

    /// A stop requeues exactly the deliveries without an outcome.
    #[test]
    fn a_stop_requeues_what_has_no_outcome(messages in messages(), steps in steps()) {
        let mut simulation = Simulation::new(messages);
        steps.into_iter().for_each(|step| simulation.step(step));
        simulation.step(Step::Ack { single: false });
        (0..PREFETCH).for_each(|_| simulation.step(Step::Ack { single: true }));
        prop_assert_eq!(simulation.settlement.unacked(), simulation.in_flight, "every delivery with an outcome is acknowledged");
        let last = simulation.outstanding.keys().last().copied();
        prop_assert_eq!(simulation.settlement.take_unsettled(), last);
        simulation.outstanding.values().for_each(|message| assert!(!simulation.acked.contains(message)));
    }
}
