//! Owns what the process looks at beside the flow: whether an idle store still answers, its clock, and how long the
//! queues are. Must not know messages.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::broker::Watch;
use crate::health::Part;
use crate::metrics;

use super::Context;
use super::supervise::pause;

/// How often an idle store is asked whether it still answers.
const STORE: Duration = Duration::from_secs(5);
/// How often its clock is looked at.
const CLOCK: Duration = Duration::from_secs(60);
/// How often the queues are looked at.
const QUEUES: Duration = Duration::from_secs(10);
/// Between looks at queues that could not be looked at.
const QUEUES_AGAIN: Duration = Duration::from_secs(5);

/// Looks after the store while nothing is written, so that readiness does not wait for the next message to find out.
pub async fn store(context: Arc<Context>) {
    let mut clock_seen: Option<Instant> = None;
    while !context.stop.is_cancelled() {
        pause(&context, STORE).await;
        // While there are writes, they tell.
        if context.writing.load(Ordering::Relaxed) == 0 && !context.stop.is_cancelled() {
            probe(&context).await;
        }
        if context.health.is_up(Part::Store)
            && clock_seen.is_none_or(|seen| seen.elapsed() >= CLOCK)
            && let Ok(ahead) = context.store.clock_ahead().await
        {
            metrics::store_clock(ahead);
            clock_seen = Some(Instant::now());
        }
    }
}

async fn probe(context: &Context) {
    match context.store.probe().await {
        Ok(()) => {
            context.health.up(Part::Store);
        }
        Err(failure) => {
            if context.health.down(Part::Store, failure.to_string()) {
                warn!(kind = failure.kind, code = failure.code, "the store does not answer: {failure}");
            }
        }
    }
}

/// Exports how long the queues are and how many consume them.
pub async fn queues(context: Arc<Context>) {
    let (broker, dead) = (&context.settings.broker, &context.settings.dead_letter);
    let names = [broker.queue.as_str(), &dead.queue, &dead.parked_queue];
    let mut watch = Watch::default();
    while !context.stop.is_cancelled() {
        // While there is no session, its attempts at one are enough for the broker.
        let looked = if context.health.is_up(Part::Broker) { watch.look(broker, &names).await.ok() } else { None };
        let again = if looked.is_some() { QUEUES } else { QUEUES_AGAIN };
        let seen = looked.unwrap_or_else(|| vec![None; names.len()]);
        for (queue, seen) in metrics::QUEUES.into_iter().zip(seen) {
            metrics::queue(queue, seen);
        }
        pause(&context, again).await;
    }
}
