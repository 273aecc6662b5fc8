//! The deterministic core as a whole, in random interleavings: decoder, batcher, verdicts and settlement between a model
//! of the broker and a model of the store, with lost replies, failed commands, lost confirms, lost sessions and a stop.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::batch::{Batcher, Limits};
use crate::broker::{Acks, Delivery, Settlement};
use crate::event::{Decoder, Message};

const PREFETCH: usize = 12;
const WRITERS: usize = 2;
const LIMITS: Limits = Limits { max_events: 4, max_bytes: 400, linger: Duration::from_millis(5) };

/// What happens next. Numbers pick among what there is.
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
    Ran,
    /// It ran, and the reply, or the read that follows, was lost.
    Lost,
    /// It did not run, for a reason known or not.
    Failed(Class),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let reply = prop_oneof![
        4 => Just(Reply::Ran),
        1 => Just(Reply::Lost),
        1 => Just(Reply::Failed(Class::Transient)),
        1 => Just(Reply::Failed(Class::Unknown)),
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

/// Messages as (identity, content): some identities repeat with equal content and some with other; 8 is refused by the
/// store, 9 by the decoder.
fn messages() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec((0u8..20, prop_oneof![6 => 0u8..2, 1 => Just(8u8), 1 => Just(9u8)]), 1..60)
}

struct Write {
    batch: Vec<Pending>,
    progress: Progress,
}

struct World {
    messages: Vec<(u8, u8)>,
    now: Instant,
    // The broker's side.
    queue: VecDeque<usize>,
    outstanding: BTreeMap<u64, usize>,
    next_tag: u64,
    acked: BTreeSet<usize>,
    dead: Vec<usize>,
    /// Refused by the store with a code that nobody understands. Where its dead letter is not settled before the session
    /// is lost, the next attempt may be taken.
    given_up: BTreeSet<usize>,
    // The store's side: what is there, and how often each was inserted.
    stored: HashMap<[u8; 12], u8>,
    // The worker's side, which a lost session takes with it.
    settlement: Settlement<u64>,
    batcher: Batcher<Pending>,
    writes: Vec<Write>,
    letters: VecDeque<u64>,
    // The ledger.
    received: usize,
    settled: usize,
    returned: usize,
    in_hand: usize,
    durable: Arc<AtomicU64>,
}

impl World {
    fn new(messages: Vec<(u8, u8)>) -> Self {
        World {
            now: Instant::now(),
            queue: (0..messages.len()).collect(),
            messages,
            outstanding: BTreeMap::new(),
            next_tag: 1,
            acked: BTreeSet::new(),
            dead: Vec::new(),
            given_up: BTreeSet::new(),
            stored: HashMap::new(),
            settlement: Settlement::default(),
            batcher: Batcher::new(LIMITS),
            writes: Vec::new(),
            letters: VecDeque::new(),
            received: 0,
            settled: 0,
            returned: 0,
            in_hand: 0,
            durable: Arc::default(),
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
        assert_eq!(self.received, self.settled + self.returned + self.in_hand, "the ledger balances");
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
        self.in_hand += 1;
        let body = if content == 9 { "{".to_owned() } else { format!("{{\"content\":{content}}}") };
        let mut delivery = Delivery::of_body(&body);
        delivery.tag = tag;
        let message = Message { body: body.as_bytes(), ..Message::default() };
        match Decoder::new(Arc::default()).decode(&message, || [id; 12]) {
            Ok(event) => {
                let document = bson::RawDocumentBuf::from_bytes(event.document).unwrap();
                let pending = Pending { delivery, id: event.id, document, time: None };
                self.batcher.push(pending, 100, self.now);
            }
            Err(_) => self.letters.push_back(tag),
        }
    }

    fn flush(&mut self) {
        while self.writes.len() < WRITERS
            && let Some((batch, _)) = self.batcher.take(self.now)
        {
            assert!((1..=LIMITS.max_events).contains(&batch.len()));
            let progress = Progress::new(&batch, 3, Arc::clone(&self.durable));
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
                Reply::Ran => self.run(&mut write, &piece),
                Reply::Lost => {
                    self.insert(&write.batch, &piece);
                    write.progress.failed(piece, Failure::timed_out());
                }
                Reply::Failed(class) => write.progress.failed(piece, Failure { class, kind: "other", code: Some(7) }),
            }
            self.writes.insert(at, write);
        } else {
            self.apply(write);
        }
    }

    fn run(&mut self, write: &mut Write, piece: &[usize]) {
        let faults = self.insert(&write.batch, piece);
        let left = write.progress.wrote(piece, &faults);
        for at in left.same_id {
            let pending = &write.batch[at];
            let mine = content_of(pending);
            write.progress.compared(at, self.stored[&pending.id] == mine);
        }
    }

    /// An unordered insert.
    fn insert(&mut self, batch: &[Pending], piece: &[usize]) -> Vec<(usize, DocumentFault)> {
        let mut faults = Vec::new();
        for (index, at) in piece.iter().enumerate() {
            let pending = &batch[*at];
            let content = content_of(pending);
            match self.stored.entry(pending.id) {
                _ if content == 8 => faults.push((index, DocumentFault::Refused(121))),
                Entry::Occupied(_) => faults.push((index, DocumentFault::SameId)),
                Entry::Vacant(free) => drop(free.insert(content)),
            }
        }
        faults
    }

    fn apply(&mut self, write: Write) {
        for (pending, verdict) in write.batch.iter().zip(write.progress.verdicts) {
            match verdict.expect("every event of a finished batch has its verdict") {
                Verdict::Stored | Verdict::Duplicate => self.settle(pending.delivery.tag),
                Verdict::Rejected(rejection) => {
                    let tag = pending.delivery.tag;
                    self.letters.push_back(tag);
                    if rejection.reason == Reason::RejectedByStore {
                        self.given_up.insert(self.outstanding[&tag]);
                    }
                }
            }
        }
    }

    fn settle(&mut self, tag: u64) {
        self.settlement.settle(tag);
        self.settled += 1;
        self.in_hand -= 1;
    }

    /// A dead letter reaches its queue; without its confirm it is published once more.
    fn confirm(&mut self, heard: bool) {
        let Some(tag) = self.letters.pop_front() else { return };
        self.dead.push(self.outstanding[&tag]);
        if heard { self.settle(tag) } else { self.letters.push_front(tag) }
    }

    fn ack(&mut self, single: bool) {
        let acks = if single { self.settlement.take_scattered(3) } else { self.settlement.take_prefix() };
        let tags: Vec<u64> = match acks {
            None => return,
            Some(Acks::UpTo(tag, covered)) => {
                let tags: Vec<u64> = self.outstanding.range(..=tag).map(|(tag, _)| *tag).collect();
                assert_eq!((tags.last(), tags.len()), (Some(&tag), covered));
                tags
            }
            Some(Acks::Each(tags)) => tags,
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
        self.returned += self.in_hand;
        self.in_hand = 0;
        self.next_tag = 1;
        self.settlement = Settlement::default();
        self.batcher = Batcher::new(LIMITS);
        self.letters.clear();
    }

    /// Everything goes well from here on, until the queue is empty; then the worker stops.
    fn finish(&mut self) {
        let mut turns = 0;
        while !self.queue.is_empty() || self.in_hand > 0 {
            for step in [Step::Deliver(3), Step::Wait(9), Step::Flush, Step::Write(0, Reply::Ran), Step::Confirm] {
                self.step(step);
            }
            self.step(Step::Ack { single: turns % 2 == 1 });
            turns += 1;
            assert!(turns < 10_000, "no progress");
        }
        self.step(Step::Ack { single: false });
        assert_eq!(self.settlement.take_rest(), None, "nothing is left to give back");
    }

    fn judge(&self) {
        assert_eq!(self.acked.len(), self.messages.len(), "each is acknowledged once");
        for (at, (id, content)) in self.messages.iter().enumerate() {
            let stored = self.stored.get(&[*id; 12]) == Some(content);
            let dead = self.dead.contains(&at);
            assert!(stored || dead, "{at} is lost");
            assert!(!(stored && dead) || self.given_up.contains(&at), "{at} is both stored and dead");
            assert!(!stored || *content < 2, "a malformed message was stored");
        }
    }
}

fn content_of(pending: &Pending) -> u8 {
    u8::try_from(pending.document.get_i32("content").unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_message_ends_in_one_place(messages in messages(), steps in steps()) {
        let mut world = World::new(messages);
        steps.into_iter().for_each(|step| world.step(step));
        world.finish();
        world.judge();
    }

    /// A stop gives back just what has no outcome.
    #[test]
    fn a_stop_returns_the_rest(messages in messages(), steps in steps()) {
        let mut world = World::new(messages);
        steps.into_iter().for_each(|step| world.step(step));
        world.step(Step::Ack { single: false });
        (0..PREFETCH).for_each(|_| world.step(Step::Ack { single: true }));
        prop_assert_eq!(world.settlement.unacked(), world.in_hand, "whatever has an outcome is acknowledged");
        let last = world.outstanding.keys().last().copied();
        prop_assert_eq!(world.settlement.take_rest(), last);
        world.outstanding.values().for_each(|message| assert!(!world.acked.contains(message)));
    }
}
