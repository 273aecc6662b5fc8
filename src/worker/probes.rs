//! Owns the checks beside the flow: whether an idle store still answers, its clock, the depth of the queues, and policies
//! that can delete dead letters.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use strum::VariantArray as _;
use tracing::warn;

use crate::observe::metrics::{self, QueueRole};
use ticketlog_config::system::since_epoch;
use ticketlog_rabbitmq::{self as rabbitmq, QueueDepths};
use ticketlog_status::Component;

use super::context::WorkerContext;

/// How often an idle store is probed.
const STORE_INTERVAL: Duration = Duration::from_secs(5);
/// How often MongoDB's clock is read.
const CLOCK_INTERVAL: Duration = Duration::from_secs(60);
/// How often queue depths are read.
const QUEUES_INTERVAL: Duration = Duration::from_secs(10);
/// How often policies are read, and how often it is tried while they cannot be read: RabbitMQ logs each refusal.
const POLICIES_INTERVAL: Duration = Duration::from_secs(60);
const POLICIES_RETRY: Duration = Duration::from_secs(600);
/// How soon queue depths are read again after a failure.
const QUEUES_RETRY: Duration = Duration::from_secs(5);

/// Probes the store while nothing is written, so that readiness does not depend on the next message.
pub async fn store(context: Arc<WorkerContext>) {
    let mut clock_read_at: Option<Instant> = None;
    while !context.stop.is_cancelled() {
        context.sleep(STORE_INTERVAL).await;
        // While batches are being written, they show whether the store answers.
        if context.writes_in_flight.load(Ordering::Relaxed) == 0 && !context.stop.is_cancelled() {
            probe(&context).await;
        }
        if context.health.is_up(Component::Store)
            && clock_read_at.is_none_or(|at| at.elapsed() >= CLOCK_INTERVAL)
            && let Ok(ahead) = context.store.clock_ahead().await
        {
            metrics::set_store_clock_skew(ahead);
            clock_read_at = Some(Instant::now());
        }
    }
}

async fn probe(context: &WorkerContext) {
    match context.store.probe().await {
        Ok(()) => {
            context.health.up(Component::Store);
        }
        Err(failure) => {
            if context.health.down(Component::Store, failure.to_string()) {
                warn!(kind = failure.label(), code = failure.code, "MongoDB does not answer: {failure}");
            }
        }
    }
}

/// Exports the depth of the queues and their numbers of consumers.
pub async fn queues(context: Arc<WorkerContext>) {
    let settings = &context.settings;
    let broker = &settings.broker;
    // In the order of the roles.
    let names = [settings.queues(), vec![settings.dead_letter_queue.clone()], vec![settings.parked_queue.clone()]];
    let mut depths = QueueDepths::default();
    let mut filled_since = [0.0; QueueRole::VARIANTS.len()];
    while !context.stop.is_cancelled() {
        // The file of broker.uri may name another user by now, and `ticketlog dead` replays as that user.
        rabbitmq::user_name(broker).into_iter().for_each(|user| context.trusted_users.add(user));
        // While there is no session, its own connection attempts are enough; a paused worker makes none.
        let may_connect = context.health.is_up(Component::Broker) || !context.health.is_up(Component::Consumer);
        let read = if may_connect { depths.read_each(broker, &names).await.ok() } else { None };
        let pause = if read.is_some() { QUEUES_INTERVAL } else { QUEUES_RETRY };
        let counts = read.unwrap_or_else(|| vec![None; names.len()]);
        for ((role, counts), since) in QueueRole::VARIANTS.iter().zip(counts).zip(&mut filled_since) {
            context.metrics.set_queue_counts(*role, counts);
            match counts.map(|counts| counts.ready) {
                Some(0) => *since = 0.0,
                Some(_) if *since == 0.0 => *since = since_epoch().as_secs_f64(),
                _ => {}
            }
            metrics::set_queue_filled_since(*role, counts.map(|_| *since));
        }
        context.sleep(pause).await;
    }
}

/// Warns while a policy can remove messages from the dead-letter queue or the parked queue.
pub async fn policies(context: Arc<WorkerContext>) {
    let settings = &context.settings;
    let broker = &settings.broker;
    while !context.stop.is_cancelled() {
        let mut pause = POLICIES_INTERVAL;
        for (role, queue) in
            [(QueueRole::DeadLetter, &settings.dead_letter_queue), (QueueRole::Parked, &settings.parked_queue)]
        {
            let keys = rabbitmq::removing_policies(broker, queue).await.ok();
            if keys.is_none() {
                pause = POLICIES_RETRY;
            }
            metrics::set_queue_removes(role, keys.as_ref().map(|keys| !keys.is_empty()));
            let warning = keys
                .filter(|keys| !keys.is_empty())
                .map(|keys| format!("a policy can delete dead letters from queue {queue}: {}", keys.join(", ")));
            if context.health.set_warning(queue, warning.clone()) {
                warn!(queue, "{}", warning.unwrap_or_default());
            }
        }
        context.sleep(pause).await;
    }
}
