//! Owns the life of the process between its sessions: wait for the store, open a session, let it work, begin again.
//! Must not know messages.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::broker::{BrokerError, Publisher, Session};
use crate::health::Part;
use crate::metrics;
use crate::retry::Delays;
use crate::store::{self, IndexReport, Store};
use crate::telemetry::Sparingly;

use super::Context;
use super::breaker::{self, Breaker};
use super::dead_lettering::DeadLetters;
use super::engine::{Engine, Exit};
use super::watch;

/// A session that lasted this long was a good one: the next failure begins with a short delay again.
const GOOD: Duration = Duration::from_secs(30);

static REPEATED: Sparingly = Sparingly::new(Duration::from_secs(10));

/// Works until the process is asked to stop. No outage ends it.
pub async fn run(context: Arc<Context>) {
    let mut letters = DeadLetters::new(Arc::clone(&context));
    let mut breaker = Breaker::new(breaker_limits(&context));
    let mut delays = Delays::new(context.policy());
    let mut few = None;
    let mut background = None;
    while wait_for_store(&context).await {
        background.get_or_insert_with(|| {
            [
                tokio::spawn(ensure_indexes(Arc::clone(&context))),
                tokio::spawn(watch::store(Arc::clone(&context))),
                tokio::spawn(watch::queues(Arc::clone(&context))),
            ]
        });
        let session = match open(&context, few).await {
            None => break,
            Some(Ok(session)) => session,
            Some(Err(error)) => {
                broken(&context, &error, delays.draw()).await;
                continue;
            }
        };
        let (opened, stored) = (Instant::now(), context.stored.load(Ordering::Relaxed));
        match Engine::new(Arc::clone(&context), session, &mut letters, &mut breaker).run().await {
            Exit::Stopped => break,
            Exit::Broken(end) => {
                if opened.elapsed() >= GOOD {
                    delays.reset();
                }
                // One at a time next: what ended the session must not count against its neighbours in the queue.
                few = matches!(end, BrokerError::Memory | BrokerError::Unreadable).then_some(1);
                broken(&context, &end, delays.draw()).await;
            }
            Exit::Released => {
                few = Some(after_release(&context, few, stored));
                released(&context).await;
            }
        }
    }
    info!("stopped");
}

/// With how many messages the next session begins. Two go first, to see whether writes pass: being given back again and
/// again would count towards the queue's delivery limit for all of them. Twice as many where the store is well and these
/// led to nothing: documents in doubt would hold up all others for ever; a neighbour tells whose fault it is.
fn after_release(context: &Context, few: Option<u16>, stored: u64) -> u16 {
    let in_doubt = context.health.is_up(Part::Store) && context.stored.load(Ordering::Relaxed) == stored;
    few.filter(|_| in_doubt).map_or(2, |few| few.saturating_mul(2))
}

fn breaker_limits(context: &Context) -> breaker::Limits {
    let dead = &context.settings.dead_letter;
    breaker::Limits {
        max_ratio: dead.max_ratio,
        window: dead.window.0,
        min_store: dead.min_store,
        min_decode: dead.min_decode,
    }
}

/// Opens a session, unless the process is asked to stop first.
async fn open(context: &Context, few: Option<u16>) -> Option<Result<Session, BrokerError>> {
    let opening = Session::open(&context.settings, few);
    let opened = tokio::select! {
        () = context.stop.cancelled() => return None,
        opened = opening => opened,
    };
    if let Ok(session) = &opened {
        metrics::session_opened();
        context.health.up(Part::Broker);
        // The topology has just been made sure of, and other workers may have taken the dead letters that failed.
        context.health.up(Part::DeadLetter);
        info!(queue = context.settings.broker.queue, prefetch = session.prefetch(), "consuming");
    }
    Some(opened)
}

/// Says that there is no session, and waits a little.
async fn broken(context: &Context, end: &BrokerError, delay: Duration) {
    metrics::session_ended(end);
    let news = context.health.down(Part::Broker, end.to_string());
    if news || REPEATED.allow(Instant::now()).is_some() {
        warn!(cause = end.label(), "no session: {end}; trying again, unacknowledged messages are in the queue");
    }
    pause(context, delay).await;
}

/// Waits until the store answers; false if the process is asked to stop first.
async fn wait_for_store(context: &Context) -> bool {
    let mut delays = Delays::new(context.policy());
    while !context.stop.is_cancelled() {
        let probed = tokio::select! {
            () = context.stop.cancelled() => return false,
            probed = context.store.probe() => probed,
        };
        match probed {
            Ok(()) => {
                if context.health.up(Part::Store) {
                    info!("the store answers");
                }
                return true;
            }
            Err(failure) => {
                let news = context.health.down(Part::Store, failure.to_string());
                if news || REPEATED.allow(Instant::now()).is_some() {
                    warn!(kind = failure.kind, code = failure.code, "waiting for the store: {failure}");
                }
                pause(context, delays.draw()).await;
            }
        }
    }
    false
}

/// After a release there is no use in taking messages before what was wrong is mended: the store is waited for by the
/// caller; here for the dead-letter exchange, and for a while behind an open breaker.
async fn released(context: &Context) {
    metrics::released();
    context
        .health
        .down(Part::Broker, "released: everything was given back during an outage; subscribing again when it is over");
    warn!("an outage lasted longer than retry.release_after: everything is given back to the queue until it is over");
    let mut delays = Delays::new(context.policy());
    let settings = &context.settings;
    while !context.health.is_up(Part::DeadLetter) && !context.stop.is_cancelled() {
        match Publisher::open(&settings.broker, &settings.dead_letter, "probe").await {
            Ok(publisher) => {
                publisher.close().await;
                return;
            }
            Err(_) => pause(context, delays.draw()).await,
        }
    }
    if !context.health.is_up(Part::Breaker) {
        pause(context, settings.retry.release_after.0).await;
    }
}

pub(super) async fn pause(context: &Context, delay: Duration) {
    tokio::select! {
        () = context.stop.cancelled() => {}
        () = tokio::time::sleep(delay) => {}
    }
}

async fn ensure_indexes(context: Arc<Context>) {
    if !context.settings.store.ensure_indexes {
        return;
    }
    let store: &Store = &context.store;
    let mut delays = Delays::new(context.policy());
    loop {
        match store::ensure_indexes(store, context.settings.store.retention.0).await {
            Ok(reports) => return report_indexes(&reports),
            Err(failure) if matches!(failure.class, store::Class::Transient) => pause(&context, delays.draw()).await,
            Err(failure) => {
                let fix = "grant createIndex, or set store.ensure_indexes = false";
                warn!("the indexes could not be created: {failure}; {fix}; trying again in ten minutes");
                pause(&context, Duration::from_secs(600)).await;
            }
        }
    }
}

fn report_indexes(reports: &[IndexReport]) {
    for report in reports {
        if let IndexReport::Differs(name) = report {
            warn!(name, "an index of this name or these keys exists with other options and stays as it is");
        }
    }
    info!(indexes = reports.len(), "the readers' indexes are there");
}
