//! Owns the flow: what goes from the broker through the decoder and the batcher to the store, and what comes back.
//! Must not name a driver, nor know how a message is decoded or a batch closed.
//!
//! Read `supervise` for the life of the process, `engine` for the life of a session, and the others for one stage each.

mod breaker;
mod dead_lettering;
mod engine;
mod intake;
mod supervise;
mod tuning;
mod watch;
mod writing;

use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::event::Rules;
use crate::health::Health;
use crate::metrics::Recorders;
use crate::recent::Recent;
use crate::retry::Policy;
use crate::store::Store;

pub use supervise::run;
use tuning::{Bounds, Tuner};

/// What every part of the flow is given.
pub struct Context {
    /// The configuration.
    pub settings: Settings,
    /// The rules made of it.
    pub rules: Arc<Rules>,
    /// The collection.
    pub store: Store,
    /// What readiness depends on.
    pub health: Arc<Health>,
    /// What became of the latest bad messages and replays.
    pub recent: Arc<Recent>,
    /// The counters of the flow.
    pub recorders: Recorders,
    /// Cancelled when the process is asked to stop.
    pub stop: CancellationToken,
    /// Batches being written: while there are any, they tell how the store is.
    pub writing: AtomicUsize,
    /// Documents stored by this process.
    pub stored: Arc<AtomicU64>,
    /// How many batches are written at a time, and how large they are. Outlives sessions.
    pub tuning: Tuning,
    /// The users at the broker who replay: what they replay carries their names.
    pub logins: Vec<String>,
    /// `host/version`, for dead letters.
    pub worker: String,
}

/// The [`Tuner`], for the writes that report to it and the engine that follows it.
pub struct Tuning(Mutex<Tuner>);

impl Tuning {
    /// Within the bounds of the configuration.
    pub fn new(settings: &Settings) -> Self {
        Tuning(Mutex::new(Tuner::new(Bounds {
            concurrency: settings.write.concurrency,
            events: settings.batch.max_events,
            slow: settings.store.write_timeout.0 / 10,
            adaptive: settings.write.adaptive,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Tuner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Context {
    /// Delays between attempts.
    pub fn policy(&self) -> Policy {
        Policy { initial: self.settings.retry.initial.0, max: self.settings.retry.max.0 }
    }
}
