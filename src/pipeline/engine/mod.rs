//! Owns the life of one session: deliveries in, batches out, outcomes back, acks in order. One task, one loop.
//! Must not know how a session is opened or why the next one is.

mod holding;
mod outcomes;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until};
use tracing::{info, warn};

use crate::batch::{Batcher, Flush, Limits};
use crate::broker::{BrokerError, Delivery, Session};
use crate::event::{Decoder, Rejection, Stage};
use crate::health::Part;
use crate::metrics::{self, Activity, Levels, Outcome};
use crate::retry::Delays;

use super::Context;
use super::breaker::Breaker;
use super::dead_lettering::{DeadLetters, Letter};
use super::intake::{self, Pending};
use super::tuning::Setting;
use super::writing::{self, Under, Verdict};

/// How often levels are exported and slow conditions looked at.
const TICK: Duration = Duration::from_millis(250);
/// Held events that are tried again at a time, to see whether the store has changed its mind.
const PROBES: usize = 20;
/// Bytes of documents decoded at a stretch before other tasks get their turn.
const STRETCH: usize = 2 << 20;
/// Tags remembered behind one delivery that stays unsettled, as a multiple of the prefetch, before it is given back.
const SPAN: usize = 32;

/// What tokio's timers count in. They round up: a batch that is due within one is due now, or it would be late.
const TIMER: Duration = Duration::from_millis(1);

/// How long the furthest that an event was ahead of our clock is shown.
const AHEAD: Duration = Duration::from_secs(60);

type Written = Vec<(Pending, Verdict)>;
type Writing = std::pin::Pin<Box<dyn Future<Output = Written>>>;

/// How a session ended.
pub enum Exit {
    /// It broke; nothing of it may be acknowledged any more.
    Broken(BrokerError),
    /// The process is stopping, and everything is settled or given back.
    Stopped,
    /// An outage lasted longer than `retry.release_after`; everything was given back.
    Released,
}

/// One session at work.
pub struct Engine<'a> {
    context: Arc<Context>,
    session: Session,
    letters: &'a mut DeadLetters,
    breaker: &'a mut Breaker,
    decoder: Decoder,
    batcher: Batcher<Pending>,
    writes: FuturesUnordered<Writing>,
    /// Bad messages that the open breaker holds back: refused by the decoder, and by the store.
    held_letters: Vec<Letter>,
    held_events: VecDeque<(Pending, Rejection)>,
    probe_at: Instant,
    probe_delays: Delays,
    /// For the age of the oldest unsettled delivery: the last tag of each chunk, and when it came.
    arrivals: VecDeque<(u64, Instant)>,
    /// When it last looked around. Not left to the timer alone: under load other branches are always ready.
    looked: Instant,
    /// The last rejection that a wrong setting could have caused.
    suspicion: Option<Rejection>,
    /// Deliveries that were counted as received and have no outcome yet.
    in_hand: usize,
    /// Set once the process is stopping: when to give up waiting.
    deadline: Option<Instant>,
    /// Up to when the loop's time is accounted for.
    lapped: Instant,
    /// The furthest that an event was ahead of our clock, and since when that is so.
    ahead: (f64, Instant),
    /// How much the store is given at a time.
    setting: Setting,
    /// Outcomes not counted yet.
    tally: [usize; 4],
}

/// What the loop is woken by.
enum Next {
    Stop,
    Written(Written),
    Confirmed(Vec<Letter>),
    Deliveries,
    Time,
}

impl<'a> Engine<'a> {
    /// Puts a fresh session to work.
    pub fn new(
        context: Arc<Context>,
        session: Session,
        letters: &'a mut DeadLetters,
        breaker: &'a mut Breaker,
    ) -> Self {
        let batch = &context.settings.batch;
        let limits =
            Limits { max_events: batch.max_events, max_bytes: batch.max_bytes.bytes(), linger: batch.linger.0 };
        let setting = context.tuning.lock().setting();
        Engine {
            session,
            letters,
            breaker,
            decoder: Decoder::new(Arc::clone(&context.rules)),
            batcher: Batcher::new(limits),
            writes: FuturesUnordered::new(),
            held_letters: Vec::new(),
            held_events: VecDeque::new(),
            probe_at: Instant::now(),
            probe_delays: Delays::new(context.policy()),
            arrivals: VecDeque::new(),
            looked: Instant::now(),
            suspicion: None,
            in_hand: 0,
            deadline: None,
            lapped: Instant::now(),
            ahead: (0.0, Instant::now()),
            setting,
            tally: [0; 4],
            context,
        }
    }

    /// Works until the session ends, one way or another.
    pub async fn run(mut self) -> Exit {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let exit = match self.work(&mut tick).await {
            Ok(exit) => exit,
            Err(end) => Exit::Broken(end),
        };
        self.end(exit).await
    }

    /// The main loop. What can be done without waiting is done first; then it waits for whatever comes next.
    async fn work(&mut self, tick: &mut Interval) -> Result<Exit, BrokerError> {
        let stop = self.context.stop.clone();
        let mut chunk = Vec::new();
        loop {
            self.start_writes();
            if self.is_done() {
                return Ok(Exit::Stopped);
            }
            if self.looked.elapsed() >= TICK && self.look_around() {
                return Ok(Exit::Released);
            }
            let linger = self.batcher.deadline().filter(|_| self.can_write()).and_then(|due| due.checked_sub(TIMER));
            self.lap(Activity::Settling);
            let waiting = self.waiting_for();
            let next = tokio::select! {
                biased;
                () = stop.cancelled(), if self.deadline.is_none() => Next::Stop,
                Some(written) = self.writes.next(), if !self.writes.is_empty() => Next::Written(written),
                letters = self.letters.next() => Next::Confirmed(letters),
                end = self.session.next(&mut chunk) => { end?; Next::Deliveries }
                () = at(linger) => Next::Time,
                _ = tick.tick() => Next::Time,
            };
            self.lap(waiting);
            match next {
                Next::Stop => self.drain().await?,
                Next::Written(written) => self.apply(written),
                Next::Confirmed(letters) => self.confirm(letters),
                Next::Deliveries => {
                    self.take_in(&mut chunk).await?;
                    self.lap(Activity::Decoding);
                }
                Next::Time => {}
            }
        }
    }

    /// Accounts for the time since the last lap.
    fn lap(&mut self, activity: Activity) {
        let now = Instant::now();
        self.context.recorders.spent(activity, now.saturating_duration_since(self.lapped));
        self.lapped = now;
    }

    /// What the loop is about to wait for.
    fn waiting_for(&self) -> Activity {
        match (self.batcher.is_empty(), self.writes.is_empty()) {
            (false, _) if !self.can_write() => Activity::AwaitingWriter,
            (false, _) => Activity::Lingering,
            (true, false) => Activity::Writing,
            (true, true) => Activity::Idle,
        }
    }

    fn can_write(&self) -> bool {
        self.writes.len() < self.setting.concurrency
    }

    /// Hands batches that are due to free writers.
    fn start_writes(&mut self) {
        self.setting = self.context.tuning.lock().setting();
        self.batcher.resize(self.setting.events);
        // Where the whole prefetch is in hand, no company can come.
        let full = self.in_hand >= usize::from(self.session.prefetch());
        let early = if full { self.context.settings.batch.linger.0 } else { TIMER };
        while self.can_write()
            && let Some((batch, cause)) = self.batcher.take(Instant::now() + early)
        {
            let bytes = batch.iter().map(|pending| pending.document.as_bytes().len()).sum();
            metrics::flushed(cause, batch.len(), bytes);
            let context = Arc::clone(&self.context);
            let under = Under { number: self.setting.number, full: matches!(cause, Flush::Events | Flush::Bytes) };
            self.writes.push(Box::pin(async move { writing::write(&context, batch, under).await }));
            self.context.writing.store(self.writes.len(), Ordering::Relaxed);
        }
    }

    /// Decodes what came. Afterwards other tasks get their turn: heartbeats, acks, HTTP.
    async fn take_in(&mut self, chunk: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        let now = Instant::now();
        if let Some(last) = chunk.last() {
            self.arrivals.push_back((last.tag, now));
        }
        let mut rejected = Vec::new();
        let mut decoded = 0;
        self.count_in(chunk);
        for delivery in chunk.drain(..) {
            match intake::decode(&mut self.decoder, delivery, &self.context.logins) {
                Ok(pending) => {
                    self.breaker.note(now, Stage::Decode, true);
                    let bytes = pending.document.as_bytes().len();
                    self.session.grew(bytes);
                    self.batcher.push(pending, bytes, now);
                    decoded += bytes;
                }
                Err(bad) => rejected.push(bad),
            }
            if decoded >= STRETCH {
                decoded = 0;
                tokio::task::yield_now().await;
            }
        }
        self.reject_decoded(rejected, now);
        if self.deadline.is_none() {
            self.session.adapt().await?;
        }
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Counts deliveries on both sides of the ledger at once, so that it balances at every scrape.
    fn count_in(&mut self, chunk: &[Delivery]) {
        let again = chunk.iter().filter(|delivery| delivery.redelivered).count();
        let bytes = chunk.iter().map(|delivery| delivery.body.len()).sum();
        self.context.recorders.received(chunk.len() - again, again, bytes);
        self.in_hand += chunk.len();
        self.context.recorders.in_flight(self.in_hand);
    }

    /// Exports levels, probes behind an open breaker; true when it is time to give everything back.
    fn look_around(&mut self) -> bool {
        let now = Instant::now();
        self.looked = now;
        let oldest = self.session.oldest();
        while self.arrivals.front().is_some_and(|(last, _)| *last < oldest) {
            self.arrivals.pop_front();
        }
        let waits = self.session.unacked() > 0;
        let since = self.arrivals.front().filter(|_| waits).map_or(now, |(_, since)| *since);
        let age = now.saturating_duration_since(since);
        self.context.recorders.levels(&self.levels(age));
        metrics::tuned(self.setting.concurrency, self.setting.events);
        if self.ahead.1.elapsed() >= AHEAD {
            self.ahead = (0.0, now);
        }
        if self.held_events.is_empty() {
            self.probe_delays.reset();
        } else if now >= self.probe_at && self.writes.is_empty() && self.batcher.is_empty() {
            self.try_held_again(PROBES);
            self.probe_at = now + self.probe_delays.draw();
        }
        let settings = &self.context.settings;
        let stuck = self.session.span() > SPAN * usize::from(settings.broker.prefetch);
        (stuck || age >= settings.retry.release_after.0) && self.deadline.is_none()
    }

    fn levels(&self, age: Duration) -> Levels {
        Levels {
            in_flight: self.in_hand,
            in_flight_bytes: self.session.held_bytes(),
            unacked: self.session.unacked(),
            prefetch: self.session.prefetch(),
            oldest_seconds: age.as_secs_f64(),
            waiting: self.batcher.len(),
            letters: self.letters.len() + self.held_letters.len() + self.held_events.len(),
            writes: self.writes.len(),
            events_ahead: self.ahead.0,
        }
    }

    /// Begins to stop: no more deliveries, no more waiting for company. While something is down there is little to
    /// wait for, and what is in hand is soon given back.
    async fn drain(&mut self) -> Result<(), BrokerError> {
        let timeout = self.context.settings.shutdown.timeout.0;
        let patience =
            if self.context.health.troubles().is_empty() { timeout.mul_f64(0.8) } else { timeout.mul_f64(0.1) };
        self.deadline = Some(Instant::now() + patience);
        self.context.health.down(Part::Broker, "stopping");
        info!(unsettled = self.in_hand, "stopping: flushing what is in hand");
        let mut chunk = Vec::new();
        self.session.stop(&mut chunk).await?;
        self.take_in(&mut chunk).await?;
        self.batcher.drain();
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.deadline.is_some_and(|deadline| {
            let idle = self.writes.is_empty() && self.batcher.is_empty() && self.letters.len() == 0;
            idle || Instant::now() >= deadline
        })
    }

    /// Settles the books: whatever has no outcome by now goes back to the queue.
    async fn end(self, exit: Exit) -> Exit {
        let Engine { context, mut session, letters, writes, in_hand: returned, .. } = self;
        drop(writes);
        context.writing.store(0, Ordering::Relaxed);
        letters.forget();
        context.recorders.settled(Outcome::Returned, returned);
        context.recorders.levels(&Levels::default());
        match exit {
            Exit::Broken(end) => {
                session.abandon().await;
                return Exit::Broken(end);
            }
            Exit::Released => {
                if let Err(end) = session.stop(&mut Vec::new()).await {
                    session.abandon().await;
                    return Exit::Broken(end);
                }
            }
            Exit::Stopped => {}
        }
        match session.give_back().await {
            Ok(()) if returned > 0 => info!(returned, "given back to the queue"),
            Ok(()) => {}
            Err(end) => warn!("the session ended before everything was given back: {end}"),
        }
        exit
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
