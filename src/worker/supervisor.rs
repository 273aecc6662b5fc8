//! Owns the life of the process between its sessions: wait for the store, open a session, run it, start again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tracing::{info, warn};

use crate::mongodb::{self, Failure, IndexReport};
use crate::observe::logging::LogThrottle;
use crate::observe::metrics;
use ticketlog_rabbitmq::{
    self as rabbitmq, BrokerError, PreparedSession, Publisher, Session, SessionOptions, UnfinishedMessage,
};
use ticketlog_status::Component;

use super::backoff::Backoff;
use super::breaker::Breaker;
use super::context::WorkerContext;
use super::dead_letters::DeadLetterPublisher;
use super::probes;
use super::session::{SessionEnd, SessionLoop};

/// After a session that lasted this long, the next failure starts with a short delay again.
const LONG_SESSION: Duration = Duration::from_secs(30);
/// When the indexes are ensured: after the first events, which would otherwise wait for a second connection, two round trips.
const INDEXES_AFTER: Duration = Duration::from_secs(1);
/// How soon the creation of indexes is tried again after a failure.
const INDEX_RETRY: Duration = Duration::from_secs(600);

/// How long a queue that is a stream is left alone.
const STREAM_RETRY: Duration = Duration::from_secs(60);
/// The longest pause between two requeues without anything stored.
const MAX_REQUEUE_PAUSE: Duration = Duration::from_secs(3600);

static THROTTLE: LogThrottle = LogThrottle::new(Duration::from_secs(10));

/// Runs until the process is asked to stop. No outage ends it.
pub async fn run(context: Arc<WorkerContext>) {
    tokio::select! {
        () = run_sessions(&context) => {}
        () = show_steering(&context) => {}
    }
}

async fn run_sessions(context: &Arc<WorkerContext>) {
    let dead_letter = &context.settings.dead_letter;
    let mut dead_letters = DeadLetterPublisher::new(Arc::clone(context));
    let mut breaker = Breaker::new(dead_letter.max_ratio, dead_letter.breaker_window);
    let mut next = NextSession::new(Arc::clone(context));
    let mut background = None;
    while wait_until_resumed(context).await {
        let Some(prepared) = connect(context).await else { break };
        background.get_or_insert_with(|| start_background_tasks(context));
        // Whatever is wanted from here on ends the session.
        let steering = context.steering.subscribe();
        if steering.paused_since().is_some() {
            if let Ok(prepared) = prepared {
                prepared.close().await;
            }
            continue;
        }
        context.has_session.store(true, Ordering::Relaxed);
        let session = match open_session(context, prepared, next.options).await {
            None => break,
            Some(Ok(session)) => session,
            Some(Err(error)) => {
                context.has_session.store(false, Ordering::Relaxed);
                session_failed(context, &error, None, next.backoff.next_delay()).await;
                continue;
            }
        };
        let (opened, stored) = (Instant::now(), context.stored.load(Ordering::Relaxed));
        let session = SessionLoop::new(Arc::clone(context), session, steering, &mut dead_letters, &mut breaker);
        let end = session.run().await;
        context.has_session.store(false, Ordering::Relaxed);
        match end {
            SessionEnd::Stopped => break,
            SessionEnd::Steered => {}
            SessionEnd::Failed(error, at) => next.after_failure(error, at, opened.elapsed()).await,
            SessionEnd::Requeued => next.after_requeue(context.stored.load(Ordering::Relaxed) == stored).await,
        }
    }
    info!("stopped");
}

/// When and how the next session starts, after those before it.
struct NextSession {
    context: Arc<WorkerContext>,
    options: SessionOptions,
    backoff: Backoff,
    /// Requeues after which the same might happen again at once.
    requeues_in_a_row: u32,
    /// The message at which the connection of the last session ended.
    ended_at: Option<UnfinishedMessage>,
}

impl NextSession {
    fn new(context: Arc<WorkerContext>) -> Self {
        let backoff = context.backoff();
        NextSession { context, options: SessionOptions::default(), backoff, requeues_in_a_row: 0, ended_at: None }
    }

    /// Waits after a session that failed, perhaps while RabbitMQ delivered the message `at`.
    async fn after_failure(&mut self, error: BrokerError, at: Option<UnfinishedMessage>, lasted: Duration) {
        if lasted >= LONG_SESSION {
            self.backoff.reset();
        }
        // One message at a time, so that the message that ended the session does not use up the delivery limit of the others.
        let at = at.filter(|_| error.may_be_due_to_a_message());
        let one_message = matches!(error, BrokerError::MemoryBudget | BrokerError::UnparsableFrame)
            || at.as_ref().is_some_and(UnfinishedMessage::is_before_all);
        let again = self.ended_at.take().zip(at.as_ref()).is_some_and(|(last, at)| last.is_certainly(at));
        self.ended_at.clone_from(&at);
        self.options.initial_prefetch = one_message.then_some(1);
        let mut delay = self.backoff.next_delay();
        if error == BrokerError::Stream {
            self.options.is_no_stream = is_no_stream(&self.context).await;
            if self.options.is_no_stream {
                return;
            }
            // A stream is noticed only when it delivers a message.
            delay = STREAM_RETRY;
        }
        session_failed(&self.context, &error, at.filter(|_| again), delay).await;
    }

    /// Waits after a session that requeued everything.
    async fn after_requeue(&mut self, nothing_stored: bool) {
        self.requeues_in_a_row = match (nothing_stored, is_near_delivery_limit(&self.context).await) {
            (_, true) => (self.requeues_in_a_row + 1).max(2),
            (true, false) => self.requeues_in_a_row + 1,
            (false, false) => 1,
        };
        let previous = self.options.initial_prefetch;
        self.options.initial_prefetch = Some(prefetch_after_requeue(&self.context, previous, nothing_stored));
        wait_after_requeue(&self.context, self.requeues_in_a_row).await;
    }
}

/// Waits while consuming is paused; false if the process is asked to stop first.
async fn wait_until_resumed(context: &WorkerContext) -> bool {
    let mut steering = context.steering.subscribe();
    while let Some(since) = steering.paused_since() {
        show_paused(context, since);
        tokio::select! {
            () = context.stop.cancelled() => return false,
            () = steering.changed() => {}
        }
    }
    !context.stop.is_cancelled()
}

fn show_paused(context: &WorkerContext, since: SystemTime) {
    let since = humantime::format_rfc3339_seconds(since);
    if context.health.down(Component::Consumer, format!("paused by an operator since {since}")) {
        info!("paused");
    }
}

/// Shows at once what is wanted, whatever the flow is waiting for.
async fn show_steering(context: &WorkerContext) {
    let mut steering = context.steering.subscribe();
    loop {
        steering.changed().await;
        match steering.paused_since() {
            None if context.health.up(Component::Consumer) => info!("resumed"),
            None => {}
            Some(since) if !context.has_session.load(Ordering::Relaxed) => show_paused(context, since),
            Some(_) => {
                context.health.down(Component::Consumer, "pausing: what is in flight is written first");
                info!("pausing: what is in flight is written, the rest waits in the queue");
            }
        }
    }
}

fn start_background_tasks(context: &Arc<WorkerContext>) -> [tokio::task::JoinHandle<()>; 4] {
    let scope = || context.scope.clone();
    [
        tokio::spawn(scope().run(ensure_indexes(Arc::clone(context)))),
        tokio::spawn(scope().run(probes::store(Arc::clone(context)))),
        tokio::spawn(scope().run(probes::queues(Arc::clone(context)))),
        tokio::spawn(scope().run(probes::policies(Arc::clone(context)))),
    ]
}

/// The prefetch of the session after a requeue. Two messages first, to find out whether writes succeed, because each
/// requeue may count towards the queue's delivery limit. Twice as many as before if MongoDB rejects documents with an unknown
/// code and nothing was stored: then these documents block the queue, and another one must be stored to show that they are
/// at fault.
fn prefetch_after_requeue(context: &WorkerContext, previous: Option<u16>, nothing_stored: bool) -> u16 {
    let blocked = context.unknown_code.load(Ordering::Relaxed) && nothing_stored;
    previous.filter(|_| blocked).map_or(2, |previous| previous.saturating_mul(2))
}

/// Whether a message has used up half of the queue's delivery limit; beyond it RabbitMQ drops or dead-letters it.
async fn is_near_delivery_limit(context: &WorkerContext) -> bool {
    let highest = context.highest_delivery_count.swap(0, Ordering::Relaxed);
    if highest == 0 {
        return false;
    }
    let limit = rabbitmq::source_delivery_limit(&context.settings).await.ok().flatten();
    let is_near = limit.is_some_and(|limit| highest >= limit / 2);
    if is_near {
        warn!(highest, limit, "a message has used up half of the delivery limit of the queue: waiting longer");
    }
    is_near
}

/// Whether the queue is known to be no stream: a publisher may have set the header of one.
async fn is_no_stream(context: &WorkerContext) -> bool {
    let is_no_stream = rabbitmq::source_is_stream(&context.settings).await == Ok(false);
    if is_no_stream {
        warn!(
            "a message has the header x-stream-offset although the queue is not a stream; it is stored like the others"
        );
    }
    is_no_stream
}

/// Waits for MongoDB, and connects to RabbitMQ meanwhile, because over a slow link each takes six round trips. `None` if the
/// process is asked to stop first.
async fn connect(context: &WorkerContext) -> Option<Result<PreparedSession, BrokerError>> {
    let connected = async {
        let (answered_at_once, prepared) =
            tokio::join!(wait_for_store(context), PreparedSession::open(&context.settings));
        if answered_at_once {
            return prepared;
        }
        // What was true of RabbitMQ before an outage of MongoDB may not be true after it.
        if let Ok(prepared) = prepared {
            prepared.close().await;
        }
        PreparedSession::open(&context.settings).await
    };
    tokio::select! {
        biased;
        () = context.stop.cancelled() => None,
        connected = connected => Some(connected),
    }
}

/// Starts a session; `None` if the process is asked to stop first.
async fn open_session(
    context: &WorkerContext,
    prepared: Result<PreparedSession, BrokerError>,
    options: SessionOptions,
) -> Option<Result<Session, BrokerError>> {
    let settings = &context.settings;
    let opened = tokio::select! {
        biased;
        () = context.stop.cancelled() => return None,
        opened = async { Session::start(prepared?, settings, options).await } => opened,
    };
    if let Ok(session) = &opened {
        metrics::session_opened();
        context.health.up(Component::Broker);
        // The session has ensured the topology, and other workers may have published the dead letters that failed.
        context.health.up(Component::DeadLetter);
        // What the last session could not store is in the queue, perhaps of another worker.
        context.health.up(Component::Document);
        info!(queue = settings.queue, prefetch = session.prefetch(), "consuming");
    }
    Some(opened)
}

/// Reports that there is no session, and waits. `again` is the message at which this session and the one before it ended.
async fn session_failed(
    context: &WorkerContext,
    error: &BrokerError,
    again: Option<UnfinishedMessage>,
    delay: Duration,
) {
    metrics::session_ended(error);
    let problem = match again {
        Some(message) => format!(
            "{error}, twice in a row while RabbitMQ delivered the same message: {message}. If it does not stop, take this \
             message out of the queue with another client"
        ),
        None => error.to_string(),
    };
    let changed = context.health.down(Component::Broker, problem.as_str());
    if changed || THROTTLE.permit(Instant::now()).is_some() {
        warn!(cause = error.label(), "no session: {problem}; retrying, unacknowledged messages are in the queue");
    }
    context.sleep(delay).await;
}

/// Whether the store answers; a text if it does, but its collection cannot be used.
async fn probe_store(context: &WorkerContext) -> Result<Option<String>, Failure> {
    context.store.probe().await?;
    context.store.unfit_collection().await
}

/// Waits until the store answers and its collection can be used. Returns whether they did at once.
async fn wait_for_store(context: &WorkerContext) -> bool {
    let mut backoff = context.backoff();
    let mut at_once = true;
    loop {
        let problem = match probe_store(context).await {
            Ok(None) => {
                if context.health.up(Component::Store) {
                    info!("MongoDB answers");
                }
                return at_once;
            }
            Ok(Some(unfit)) => unfit,
            Err(failure) => failure.to_string(),
        };
        at_once = false;
        let changed = context.health.down(Component::Store, problem.as_str());
        if changed || THROTTLE.permit(Instant::now()).is_some() {
            warn!("waiting for MongoDB: {problem}");
        }
        context.sleep(backoff.next_delay()).await;
    }
}

/// Waits after a requeue until consuming makes sense again, because each delivery may count towards the queue's delivery
/// limit: until inserts succeed and dead letters can be published; and if inserts fail all the same, twice as long after every
/// further requeue. The caller waits for the store.
async fn wait_after_requeue(context: &WorkerContext, requeues_in_a_row: u32) {
    metrics::requeued();
    let is_outage = ![Component::Store, Component::DeadLetter].iter().all(|part| context.health.is_up(*part));
    let problem = if is_outage {
        "an outage lasted longer than retry.requeue_after; consuming starts again when it is over"
    } else {
        "a message had no outcome for longer than retry.requeue_after, or too many were settled behind it; consuming starts again soon"
    };
    context.health.down(Component::Broker, format!("requeued: {problem}"));
    warn!("everything was requeued: {problem}");
    let mut backoff = context.backoff();
    while let Err(failure) = context.store.try_insert().await
        && !context.stop.is_cancelled()
    {
        if THROTTLE.permit(Instant::now()).is_some() {
            warn!(kind = failure.label(), code = failure.code, "waiting until inserts succeed: {failure}");
        }
        context.sleep(backoff.next_delay()).await;
    }
    let settings = &context.settings;
    while !context.health.is_up(Component::DeadLetter) && !context.stop.is_cancelled() {
        match Publisher::open(settings, "probe").await {
            Ok(publisher) => {
                publisher.close().await;
                break;
            }
            Err(_) => context.sleep(backoff.next_delay()).await,
        }
    }
    let pause = settings.retry.requeue_after.0;
    if requeues_in_a_row > 1 && !context.unknown_code.load(Ordering::Relaxed) {
        context.sleep(pause.saturating_mul(1 << (requeues_in_a_row - 2).min(10)).min(MAX_REQUEUE_PAUSE)).await;
    }
}

async fn ensure_indexes(context: Arc<WorkerContext>) {
    let settings = &context.settings;
    if !settings.store.ensure_indexes {
        return;
    }
    context.sleep(INDEXES_AFTER).await;
    let mut backoff = context.backoff();
    loop {
        match mongodb::ensure_indexes(&context.store, settings.store.retention.0).await {
            Ok(reports) if report_indexes(&reports) => return,
            Ok(_) => context.sleep(INDEX_RETRY).await,
            Err(_) => context.sleep(backoff.next_delay()).await,
        }
    }
}

/// Logs what became of the indexes; false if some could not be created.
fn report_indexes(reports: &[IndexReport]) -> bool {
    let mut complete = true;
    for report in reports {
        match report {
            IndexReport::Ready(_) => {}
            IndexReport::Differs(name) => {
                warn!(name, "an index with this name or these keys has other options and stays as it is");
            }
            IndexReport::Failed(name, failure) => {
                complete = false;
                let advice = mongodb::index_advice(failure);
                warn!(name, "the index could not be created: {failure}; {advice}; retrying in ten minutes");
            }
        }
    }
    if complete {
        info!(indexes = reports.len(), "the readers' indexes exist");
    }
    complete
}
