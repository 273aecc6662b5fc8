//! Owns the life of one session: deliveries in, batches out, outcomes back, acks in order. One task, one loop.

mod accounting;
mod message_spans;
mod outcomes;
mod quarantine;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until};
use tracing::{info, warn};

use crate::observe::metrics::{self, Activity, GaugeValues};
use ticketlog_contract::{Decoder, Rejection};
use ticketlog_rabbitmq::{BrokerError, Delivery, Session, UnfinishedMessage};
use ticketlog_status::Component;

use super::batch_progress::DocumentOutcome;
use super::batcher::{BatchLimits, Batcher, Flow};
use super::breaker::Breaker;
use super::context::WorkerContext;
use super::dead_letters::{DeadLetterPublisher, PendingDeadLetter};
use super::decode::{self, PendingEvent};
use super::pace::Pace;
use super::steering::SteeringReceiver;
use super::write;
use accounting::Accounting;
use message_spans::MessageSpans;
use quarantine::Quarantine;

/// How often gauges are set and slow conditions checked.
const TICK: Duration = Duration::from_millis(250);
/// Bytes of documents decoded before other tasks run.
const YIELD_AFTER_BYTES: usize = 2 << 20;
/// Most delivery tags in memory behind an unsettled delivery, as a multiple of `broker.prefetch`.
const MAX_TRACKED_PREFETCHES: usize = 32;
/// Shares of `shutdown.timeout` to wait for outcomes: while every component is up, and while one is down.
const DRAIN_SHARE: f64 = 0.8;
const DRAIN_SHARE_IN_OUTAGE: f64 = 0.1;

type WrittenBatch = Vec<(PendingEvent, DocumentOutcome)>;
type BatchWrite = std::pin::Pin<Box<dyn Future<Output = WrittenBatch>>>;

/// How a session ended.
pub enum SessionEnd {
    /// It failed, perhaps while RabbitMQ delivered this message. Nothing of it may be acknowledged any more.
    Failed(BrokerError, Option<UnfinishedMessage>),
    /// The process is stopping, and everything is settled or requeued.
    Stopped,
    /// An operator wants it to pause; everything is settled or requeued.
    Steered,
    /// An outage lasted longer than `retry.requeue_after`, and everything is requeued.
    Requeued,
}

/// One session and the work on it.
pub struct SessionLoop<'a> {
    context: Arc<WorkerContext>,
    session: Session,
    dead_letters: &'a mut DeadLetterPublisher,
    breaker: &'a mut Breaker,
    decoder: Decoder,
    batcher: Batcher<PendingEvent>,
    writes: FuturesUnordered<BatchWrite>,
    quarantine: Quarantine,
    /// The last rejection that counted for the breaker.
    last_rejection: Option<Rejection>,
    accounting: Accounting,
    spans: MessageSpans,
    /// Most batches written at a time.
    concurrency: usize,
    pace: Pace,
    /// When the last tick was. The timer alone is not enough: under load, other branches of the loop are always ready.
    last_tick: Instant,
    steering: SteeringReceiver,
    /// Most delivery tags in memory behind an unsettled delivery.
    max_tracked_tags: usize,
    /// Set while the session is ending gracefully.
    draining: Option<Draining>,
}

/// A session that is ending gracefully: it consumes nothing more, and writes what is in flight.
struct Draining {
    /// When to stop waiting for outcomes.
    deadline: Instant,
    /// How it ends then.
    end: SessionEnd,
}

/// What the loop wakes up for.
enum Wakeup {
    /// The session is to end gracefully.
    End(SessionEnd),
    Written(WrittenBatch),
    Confirmed(Vec<PendingDeadLetter>),
    Deliveries,
    Timer,
}

impl<'a> SessionLoop<'a> {
    /// A loop for a session that was just opened.
    pub fn new(
        context: Arc<WorkerContext>,
        session: Session,
        steering: SteeringReceiver,
        dead_letters: &'a mut DeadLetterPublisher,
        breaker: &'a mut Breaker,
    ) -> Self {
        let settings = &context.settings;
        let (batch, prefetch) = (&settings.batch, settings.broker.prefetch);
        let (max_events, max_bytes, linger) = (batch.max_events, batch.max_bytes.bytes(), batch.linger.0);
        let pace = Pace::new(settings.write.max_rate);
        let limits = BatchLimits { max_events: max_events.min(pace.max_events()), max_bytes, linger };
        SessionLoop {
            session,
            dead_letters,
            breaker,
            decoder: Decoder::new(Arc::clone(&context.rules)),
            batcher: Batcher::new(limits),
            writes: FuturesUnordered::new(),
            quarantine: Quarantine::new(context.backoff(), &settings.retry),
            last_rejection: None,
            accounting: Accounting::new(Arc::clone(&context)),
            spans: MessageSpans::default(),
            concurrency: settings.write.concurrency,
            pace,
            last_tick: Instant::now(),
            steering,
            max_tracked_tags: MAX_TRACKED_PREFETCHES * usize::from(prefetch),
            draining: None,
            context,
        }
    }

    /// Runs until the session ends.
    pub async fn run(mut self) -> SessionEnd {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = self.work(&mut tick).await.unwrap_or_else(|error| SessionEnd::Failed(error, None));
        self.end(end).await
    }

    /// The loop: do what is possible without waiting, then wait for whatever comes next.
    async fn work(&mut self, tick: &mut Interval) -> Result<SessionEnd, BrokerError> {
        let stop = self.context.stop.clone();
        let mut chunk = Vec::new();
        loop {
            self.start_writes();
            if let Some(end) = self.drained() {
                return Ok(end);
            }
            if self.last_tick.elapsed() >= TICK && self.tick() {
                return Ok(SessionEnd::Requeued);
            }
            self.accounting.time_spent(Activity::Settling);
            let waiting = self.waiting_for();
            let linger = self.linger_timer();
            let wakeup = tokio::select! {
                biased;
                () = stop.cancelled(), if !self.is_stopping() => Wakeup::End(SessionEnd::Stopped),
                () = self.steering.changed(), if self.draining.is_none() => Wakeup::End(SessionEnd::Steered),
                Some(written) = self.writes.next(), if !self.writes.is_empty() => Wakeup::Written(written),
                confirmed = self.dead_letters.next_confirmed() => Wakeup::Confirmed(confirmed),
                received = self.session.next(&mut chunk) => { received?; Wakeup::Deliveries }
                () = sleep_until_some(linger) => Wakeup::Timer,
                _ = tick.tick() => Wakeup::Timer,
            };
            self.accounting.time_spent(waiting);
            match wakeup {
                Wakeup::End(end) => self.start_draining(end).await?,
                Wakeup::Written(written) => self.apply_outcomes(written),
                Wakeup::Confirmed(confirmed) => self.apply_confirmed(confirmed),
                Wakeup::Deliveries => {
                    self.receive(&mut chunk).await;
                    // Only now: how large the next messages may be is known from those that have arrived.
                    if self.draining.is_none() {
                        self.session.adjust_prefetch().await?;
                    }
                    self.accounting.time_spent(Activity::Decoding);
                }
                Wakeup::Timer => {}
            }
        }
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
        self.writes.len() < self.concurrency && self.paced_until().is_none()
    }

    /// When the next batch may start, if it must wait. In a session that ends nothing waits.
    fn paced_until(&self) -> Option<Instant> {
        if self.draining.is_some() { None } else { self.pace.wait_until(Instant::now()) }
    }

    fn linger_timer(&self) -> Option<Instant> {
        let deadline = self.batcher.linger_deadline().filter(|_| self.writes.len() < self.concurrency);
        deadline.map(|deadline| self.paced_until().map_or(deadline, |until| until.max(deadline)))
    }

    /// Starts writing batches that are due, as long as writers are free.
    fn start_writes(&mut self) {
        let exhausted = self.accounting.in_flight() >= usize::from(self.session.prefetch());
        while self.can_write() {
            let flow = Flow { idle: self.writes.is_empty(), exhausted };
            let Some((batch, cause)) = self.batcher.take(Instant::now(), flow) else { break };
            metrics::batch_closed(cause, batch.len(), batch.iter().map(PendingEvent::document_bytes).sum());
            self.pace.started(batch.len(), Instant::now());
            let context = Arc::clone(&self.context);
            let span = self.spans.batch(&batch, &context.settings);
            self.writes.push(Box::pin(async move {
                let written = write::write(&context, batch).await;
                if let Some(span) = span {
                    span.end();
                }
                written
            }));
            self.context.writes_in_flight.store(self.writes.len(), Ordering::Relaxed);
        }
    }

    /// Decodes deliveries. Other tasks run in between and afterwards: heartbeats, acks, HTTP.
    async fn receive(&mut self, chunk: &mut Vec<Delivery>) {
        let now = Instant::now();
        self.accounting.received(chunk, now);
        let mut decoded_bytes = 0;
        let context = Arc::clone(&self.context);
        let (settings, trusted_users) = (&context.settings, context.trusted_users.get());
        for mut delivery in chunk.drain(..) {
            delivery.recognise_mark(&trusted_users);
            self.spans.received(&delivery, &settings.queue);
            match decode::decode(&mut self.decoder, delivery) {
                Ok(pending) => {
                    let bytes = pending.document_bytes();
                    self.spans.decoded(&pending);
                    self.session.document_added(bytes);
                    self.batcher.push(pending, bytes, now);
                    decoded_bytes += bytes;
                }
                Err((delivery, rejection)) => self.dead_letter(delivery, &rejection),
            }
            if decoded_bytes >= YIELD_AFTER_BYTES {
                decoded_bytes = 0;
                tokio::task::yield_now().await;
            }
        }
        tokio::task::yield_now().await;
    }

    /// Sets the gauges, and tries some of the held events again. True if it is time to requeue everything.
    fn tick(&mut self) -> bool {
        let now = Instant::now();
        self.last_tick = now;
        let age = self.accounting.oldest_age(&self.session, now);
        let values = GaugeValues {
            oldest_age_seconds: age.as_secs_f64(),
            waiting_events: self.batcher.len(),
            dead_letters: self.dead_letters.len() + self.quarantine.len(),
            writes: self.writes.len(),
            ..GaugeValues::default()
        };
        self.accounting.set_gauges(&self.session, now, values);
        if self.draining.is_none() {
            self.probe_held(now);
            self.review_idle_breaker();
        }
        let requeue_after = self.context.settings.retry.requeue_after.0;
        let overdue = age >= requeue_after || self.session.tracked_tags() > self.max_tracked_tags;
        overdue && self.draining.is_none()
    }

    /// Stops consuming and lingering. While something is down, outcomes are awaited only briefly, and the rest is requeued.
    async fn start_draining(&mut self, end: SessionEnd) -> Result<(), BrokerError> {
        let share = if self.all_up() { DRAIN_SHARE } else { DRAIN_SHARE_IN_OUTAGE };
        let deadline = Instant::now() + self.context.settings.shutdown.timeout.0.mul_f64(share);
        let is_consuming = self.draining.is_none();
        if matches!(end, SessionEnd::Stopped) {
            self.context.health.down(Component::Broker, "stopping");
        }
        info!(in_flight = self.accounting.in_flight(), "the session ends: writing what is in flight");
        self.draining = Some(Draining { deadline, end });
        if is_consuming {
            let mut chunk = Vec::new();
            self.session.stop(&mut chunk).await?;
            self.receive(&mut chunk).await;
        }
        self.batcher.drain();
        Ok(())
    }

    /// Whether MongoDB and the dead letters are up; the broker is, or there would be no session.
    fn all_up(&self) -> bool {
        [Component::Store, Component::Document, Component::DeadLetter, Component::Breaker]
            .iter()
            .all(|part| self.context.health.is_up(*part))
    }

    fn is_stopping(&self) -> bool {
        self.draining.as_ref().is_some_and(|draining| matches!(draining.end, SessionEnd::Stopped))
    }

    /// How the session ends, once there is nothing more to wait for.
    fn drained(&mut self) -> Option<SessionEnd> {
        let done = self.writes.is_empty() && self.batcher.is_empty() && self.dead_letters.len() == 0;
        let draining = self.draining.take_if(|draining| done || Instant::now() >= draining.deadline)?;
        Some(draining.end)
    }

    /// Ends the session: what has no outcome is requeued and counted as returned.
    async fn end(self, end: SessionEnd) -> SessionEnd {
        let SessionLoop { context, mut session, dead_letters, writes, mut accounting, .. } = self;
        drop(writes);
        context.writes_in_flight.store(0, Ordering::Relaxed);
        dead_letters.clear();
        let returned = accounting.end();
        match end {
            SessionEnd::Failed(error, _) => {
                let unfinished = session.unfinished();
                session.abandon().await;
                return SessionEnd::Failed(error, unfinished);
            }
            SessionEnd::Requeued => {
                if let Err(error) = session.stop(&mut Vec::new()).await {
                    session.abandon().await;
                    return SessionEnd::Failed(error, None);
                }
            }
            SessionEnd::Stopped | SessionEnd::Steered => {}
        }
        match session.requeue_unsettled().await {
            Ok(()) if returned > 0 => info!(returned, "requeued what was in flight"),
            Ok(()) => {}
            Err(error) => warn!("the session ended before everything was requeued: {error}"),
        }
        end
    }
}

async fn sleep_until_some(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
