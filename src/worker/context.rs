//! Owns what every part of the worker shares: settings, the store, health, counters.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::mongodb::Store;
use crate::observe::health::Health;
use crate::observe::metrics::{FlowMetrics, RouteScope};
use crate::observe::status::RecentActivity;
use ticketlog_config::RouteSettings;
use ticketlog_contract::Rules;

use super::backoff::Backoff;
use super::causes::KnownCauses;
use super::steering::Steering;

/// What every part of the worker is given.
pub struct WorkerContext {
    /// Of its route.
    pub settings: RouteSettings,
    /// Shared by all routes.
    pub steering: Arc<Steering>,
    /// Whether there is a session, or one is being opened: something may be in flight.
    pub has_session: AtomicBool,
    /// The decoder's rules, from the settings.
    pub rules: Arc<Rules>,
    /// The collection.
    pub store: Store,
    /// The causes of dead letters that this process has seen.
    pub causes: KnownCauses,
    /// What readiness depends on.
    pub health: Arc<Health>,
    /// The latest dead letters and replays, for `/status`.
    pub recent: Arc<RecentActivity>,
    /// Which route is counted and logged for.
    pub scope: RouteScope,
    /// The metrics of the session loop.
    pub metrics: Arc<FlowMetrics>,
    /// Cancelled when the process is asked to stop.
    pub stop: CancellationToken,
    /// Batches being written. While there are any, they show whether the store answers.
    pub writes_in_flight: AtomicUsize,
    /// Whether MongoDB answered the last write, and rejected documents with a code that is not about documents.
    pub unknown_code: AtomicBool,
    /// Documents stored by this process.
    pub stored: Arc<AtomicU64>,
    /// The highest delivery count of a message since the last requeue.
    pub highest_delivery_count: AtomicI64,
    /// Users at the broker whose replays are trusted.
    pub trusted_users: TrustedUsers,
    /// `host/version`, for dead letters.
    pub worker_name: String,
}

/// Users at the broker whose replays are trusted: `dead_letter.operators`, and the worker's own, which may change.
pub struct TrustedUsers(RwLock<Arc<[String]>>);

impl TrustedUsers {
    /// These users.
    pub fn new(users: Vec<String>) -> Self {
        TrustedUsers(RwLock::new(users.into()))
    }

    /// All of them.
    pub fn get(&self) -> Arc<[String]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a user, unless it is one already.
    pub fn add(&self, user: String) {
        let users = self.get();
        if !users.contains(&user) {
            *self.0.write().unwrap_or_else(PoisonError::into_inner) = users.iter().cloned().chain([user]).collect();
        }
    }
}

impl WorkerContext {
    /// The delays of a new series of attempts.
    pub fn backoff(&self) -> Backoff {
        let retry = &self.settings.retry;
        Backoff::new(retry.initial.0, retry.max.0)
    }

    /// Sleeps, or returns early when the process is asked to stop.
    pub async fn sleep(&self, duration: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(duration) => {}
        }
    }
}
