//! Owns rejected messages until their dead letters are confirmed: those that wait, and those that are being published. Must
//! not know acks: it returns the deliveries that may be settled.

use std::collections::VecDeque;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::observe::logging::LogThrottle;
use crate::observe::metrics::{self, PublishFailure};
use ticketlog_config::system::now_millis;
use ticketlog_contract::dead_letter::{self, Origin, Receipt};
use ticketlog_contract::{Reason, Rejection};
use ticketlog_rabbitmq::{BrokerError, Delivery, Outgoing, PublishResult, Publisher};
use ticketlog_status::Component;
use ticketlog_status::DeadLetterSummary;

use super::backoff::Backoff;
use super::context::WorkerContext;
use super::decode::publisher;
use super::receipts::Receipts;

/// Most dead letters, and most bytes of them, that are published together before their confirms are awaited.
const MAX_UNCONFIRMED: usize = 64;
const MAX_UNCONFIRMED_BYTES: usize = 1 << 20;

static FAILURE_THROTTLE: LogThrottle = LogThrottle::new(Duration::from_secs(10));
static REJECTION_THROTTLE: LogThrottle = LogThrottle::new(Duration::from_secs(1));

/// A dead letter that is to be published, and the delivery to be settled afterwards.
pub struct PendingDeadLetter {
    /// The delivery's tag.
    pub tag: u64,
    /// Bytes of the dead letter: body, headers and texts.
    pub bytes: usize,
    /// Why it is rejected.
    pub reason: Reason,
    /// What `/status` shows of it.
    pub summary: DeadLetterSummary,
    /// The id of the replay that sent the message.
    pub replay_id: Option<String>,
    /// `app_id` or `user_id` of its publisher; empty if it has neither.
    publisher: String,
    /// What its publisher is told; `None` if receipts are off.
    receipt: Option<Receipt>,
    message: Outgoing,
}

impl PendingDeadLetter {
    /// Makes the dead letter of a delivery.
    pub fn new(context: &WorkerContext, delivery: Delivery, rejection: &Rejection) -> Self {
        let settings = &context.settings;
        let replay = delivery.replay_mark().cloned();
        let trace_id = delivery.trace_context().map(|context| context.trace_id_text());
        let origin = Origin {
            exchange: delivery.exchange(),
            routing_key: delivery.routing_key(),
            queue: &settings.queue,
            worker: &context.worker_name,
            replay: replay.as_ref(),
            user_id: delivery.user_id(),
            trace_id: trace_id.as_deref(),
        };
        let publisher = publisher(&delivery, replay.as_ref()).to_owned();
        let time = now_millis();
        let cause = match rejection.code {
            Some(code) => format!("{} {code}", rejection.reason_and_field()),
            None => rejection.reason_and_field(),
        };
        let (exchange, routing_key) = origin.published_to();
        let first_id = replay.as_ref().map(|replay| replay.first_id.as_str());
        let id = delivery.new_dead_letter_id(&cause, exchange, routing_key, first_id);
        let headers = dead_letter::headers(rejection, &origin, id.clone(), time);
        let is_smoke_test = delivery.is_smoke_test();
        let has_receipt = !settings.dead_letter.receipts.is_empty() && !is_smoke_test;
        let receipt = || dead_letter::receipt(rejection, &origin, (&id, time), &publisher, delivery.message_id());
        let receipt = has_receipt.then(receipt);
        if is_smoke_test {
            let (reason, detail) = (rejection.reason.as_str(), rejection.detail.as_ref());
            info!(reason, detail, dl_id = id, "an event of a smoke test becomes a dead letter");
        } else {
            log_rejection(context, rejection, &id, &origin, (&publisher, delivery.message_id()));
        }
        let tag = delivery.tag;
        let message = delivery.into_dead_letter(&settings.dead_letter.exchange, &settings.dead_letter_queue, headers);
        let bytes = message.bytes();
        let (cause, detail) = (rejection.reason_and_field(), rejection.detail.to_string());
        let summary = DeadLetterSummary { id, time, cause, detail };
        let replay_id = replay.map(|replay| replay.id);
        PendingDeadLetter { tag, bytes, reason: rejection.reason, summary, replay_id, publisher, receipt, message }
    }
}

/// A cause is logged when it is seen for the first time, and at most one rejection a second besides.
fn log_rejection(
    context: &WorkerContext,
    rejection: &Rejection,
    dl_id: &str,
    origin: &Origin,
    (publisher, message_id): (&str, Option<&str>),
) {
    let fingerprint = dead_letter::fingerprint(rejection);
    let (reason, detail) = (rejection.reason.as_str(), rejection.detail.as_ref());
    let (trace_id, (_, routing_key)) = (origin.trace_id, origin.published_to());
    let publisher = Some(publisher).filter(|name| !name.is_empty());
    if context.causes.is_new(&fingerprint) {
        metrics::new_cause();
        let text = "a message is rejected for a new cause and becomes a dead letter";
        warn!(reason, detail, publisher, message_id, routing_key, fingerprint, dl_id, trace_id, "{text}");
    } else if let Some(suppressed) = REJECTION_THROTTLE.permit(Instant::now()) {
        let text = "a message is rejected and becomes a dead letter";
        warn!(reason, detail, publisher, message_id, routing_key, dl_id, trace_id, suppressed, "{text}");
    }
}

/// The result of publishing a batch of dead letters.
struct Published {
    connection: Option<Publisher>,
    confirmed: Vec<PendingDeadLetter>,
    retry: Vec<PendingDeadLetter>,
    problem: Option<String>,
}

type Publishing = Pin<Box<dyn Future<Output = Published>>>;

/// The dead letters of one session, and the connection that publishes them, which outlives it.
pub struct DeadLetterPublisher {
    context: Arc<WorkerContext>,
    waiting: VecDeque<PendingDeadLetter>,
    connection: Option<Publisher>,
    receipts: Option<Receipts>,
    /// The publish under way, and the number of its dead letters.
    publishing: Option<(Publishing, usize)>,
    backoff: Backoff,
    /// When the next publish may start.
    not_before: Instant,
    /// After a failure dead letters are published one at a time, so that one that always fails does not block the others.
    singly: bool,
}

impl DeadLetterPublisher {
    /// Connects when the first dead letter comes.
    pub fn new(context: Arc<WorkerContext>) -> Self {
        let backoff = context.backoff();
        let receipts = Receipts::start(&context);
        DeadLetterPublisher {
            context,
            receipts,
            waiting: VecDeque::new(),
            connection: None,
            publishing: None,
            backoff,
            not_before: Instant::now(),
            singly: false,
        }
    }

    /// Adds a dead letter.
    pub fn push(&mut self, dead_letter: PendingDeadLetter) {
        self.waiting.push_back(dead_letter);
    }

    /// Number of dead letters that are not confirmed.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.publishing.as_ref().map_or(0, |(_, count)| *count)
    }

    /// Drops the dead letters of a session that is over. A publish under way is dropped with its connection.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.publishing = None;
    }

    /// Publishes waiting dead letters and returns those that are confirmed; waits for ever while there are none. Cancel safe.
    pub async fn next_confirmed(&mut self) -> Vec<PendingDeadLetter> {
        loop {
            if self.publishing.is_none() {
                if self.waiting.is_empty() {
                    return pending().await;
                }
                tokio::time::sleep_until(self.not_before.into()).await;
                self.start_publishing();
            }
            let Some((publishing, _)) = &mut self.publishing else { continue };
            let published = publishing.await;
            self.publishing = None;
            let confirmed = self.finish(published);
            if !confirmed.is_empty() {
                return confirmed;
            }
        }
    }

    fn start_publishing(&mut self) {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let max = if self.singly { 1 } else { MAX_UNCONFIRMED };
        while batch.len() < max
            && (batch.is_empty() || bytes < MAX_UNCONFIRMED_BYTES)
            && let Some(dead_letter) = self.waiting.pop_front()
        {
            bytes += dead_letter.bytes;
            batch.push(dead_letter);
        }
        let count = batch.len();
        let publishing = publish(Arc::clone(&self.context), self.connection.take(), batch);
        self.publishing = Some((Box::pin(publishing), count));
    }

    fn finish(&mut self, mut published: Published) -> Vec<PendingDeadLetter> {
        self.connection = published.connection;
        let failed_singly = self.singly && published.problem.is_some();
        self.singly = published.problem.is_some();
        for dead_letter in published.retry.into_iter().rev() {
            if failed_singly {
                self.waiting.push_back(dead_letter);
            } else {
                self.waiting.push_front(dead_letter);
            }
        }
        if let Some(receipts) = &self.receipts {
            published
                .confirmed
                .iter_mut()
                .filter_map(|dead_letter| dead_letter.receipt.take())
                .for_each(|it| receipts.send(it));
        }
        match published.problem {
            None => self.succeeded(),
            Some(problem) => self.failed(&problem),
        }
        published.confirmed
    }

    fn succeeded(&mut self) {
        self.backoff.reset();
        if self.context.health.up(Component::DeadLetter) {
            info!("dead letters are published again");
        }
    }

    fn failed(&mut self, problem: &str) {
        self.not_before = Instant::now() + self.backoff.next_delay();
        let text = format!("dead_letter_unavailable: {problem}");
        let changed = self.context.health.down(Component::DeadLetter, text.as_str());
        if changed || FAILURE_THROTTLE.permit(Instant::now()).is_some() {
            warn!(waiting = self.waiting.len(), "{text}; the original messages stay in the queue");
        }
    }
}

/// Publishes a batch of dead letters. After any failure the connection is dropped, and what is not confirmed is retried.
async fn publish(
    context: Arc<WorkerContext>,
    connection: Option<Publisher>,
    mut batch: Vec<PendingDeadLetter>,
) -> Published {
    let settings = &context.settings;
    let opened = match connection {
        Some(connection) => Ok(connection),
        None => Publisher::open(settings, "dead letters").await.inspect(|_| metrics::publisher_opened()),
    };
    let mut connection = match opened {
        Ok(connection) => connection,
        Err(error) => return failed(batch, &error),
    };
    let on_blocked = || {
        let text = "dead_letter_unavailable: RabbitMQ blocks publishers (a memory or disk alarm)";
        if context.health.down(Component::DeadLetter, text) {
            warn!("{text}; the original messages stay in the queue");
        }
        true
    };
    let mut messages: Vec<_> = batch.iter_mut().map(|dead_letter| &mut dead_letter.message).collect();
    match connection.publish(&mut messages, settings.broker.call_timeout.0, on_blocked).await {
        Ok(results) => apply_results(connection, batch, &results),
        Err(unfinished) => failed(batch, &unfinished.error),
    }
}

fn failed(retry: Vec<PendingDeadLetter>, error: &BrokerError) -> Published {
    metrics::dead_letter_failed(PublishFailure::Error);
    Published { connection: None, confirmed: Vec::new(), retry, problem: Some(error.to_string()) }
}

/// Separates the confirmed dead letters from those to retry.
fn apply_results(connection: Publisher, batch: Vec<PendingDeadLetter>, results: &[PublishResult]) -> Published {
    let mut published =
        Published { connection: Some(connection), confirmed: Vec::new(), retry: Vec::new(), problem: None };
    for (dead_letter, result) in batch.into_iter().zip(results) {
        let (cause, problem) = match result {
            PublishResult::Confirmed => {
                metrics::dead_letter_confirmed(dead_letter.reason, &dead_letter.publisher);
                published.confirmed.push(dead_letter);
                continue;
            }
            PublishResult::Returned => {
                (PublishFailure::Returned, "no queue is bound to the dead-letter exchange; run `ticketlog setup`")
            }
            PublishResult::Nacked => (PublishFailure::Nacked, "the dead-letter queue refuses messages; is it full?"),
        };
        metrics::dead_letter_failed(cause);
        published.problem = Some(problem.to_owned());
        published.retry.push(dead_letter);
    }
    if published.problem.is_some() {
        // A new connection declares the topology, which may be all that is missing.
        published.connection = None;
    }
    published
}
