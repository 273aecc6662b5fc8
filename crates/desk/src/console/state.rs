//! What all requests to the console share: the settings, the two queues, the jobs, and the samples of workers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio::time::timeout;
use url::Url;

use crate::{Selection, Source};
use ticketlog_config::RouteSettings;
use ticketlog_rabbitmq::report::Report as _;
use ticketlog_rabbitmq::{BrokerError, QueueDepths};
use ticketlog_status::Sample;

use super::access::{Logins, ProxySecret, Role, TokenFile, random_id};
use super::details::Details;
use super::jobs::{Job, Jobs, POLL};
use super::options::Options;
use super::query::{DeadLetterQuery, QueueKind};
use super::snapshot::Snapshot;

/// Most downloads that run or wait for their queue.
const MAX_DOWNLOADS: usize = 4;

/// What the console knows of one queue.
#[derive(Debug, Default)]
pub(super) struct QueueState {
    /// Held by whoever reads the queue: RabbitMQ would show two readers one half each.
    pub turn: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
    pub details: Details,
}

#[derive(Debug, Default)]
struct Known {
    holder: Option<String>,
    snapshot: Option<Arc<Snapshot>>,
    stale: Option<String>,
}

impl QueueState {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn at the queue; `None` if the job is stopped before.
    pub async fn wait_for_turn(&self, job: &Job) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let mut turn = pin!(self.turn.lock());
        loop {
            match timeout(POLL, &mut turn).await {
                Ok(turn) => return Some(turn),
                Err(_) if job.is_stopped() => return None,
                Err(_) => {}
            }
        }
    }

    /// Who uses the queue, such as `anna is replaying`.
    pub fn holder(&self) -> Option<String> {
        self.known().holder.clone()
    }

    pub fn set_holder(&self, holder: Option<String>) {
        self.known().holder = holder;
    }

    /// The queue as it was read; the part of the publisher `only`, if it is given.
    pub fn snapshot(&self, only: Option<&str>) -> Option<Arc<Snapshot>> {
        let snapshot = self.known().snapshot.clone()?;
        Some(only.map_or_else(|| Arc::clone(&snapshot), |only| Arc::new(snapshot.of_publisher(only))))
    }

    pub fn set_snapshot(&self, snapshot: Snapshot) {
        let mut known = self.known();
        (known.snapshot, known.stale) = (Some(Arc::new(snapshot)), None);
    }

    /// What has changed the queue since the snapshot.
    pub fn stale(&self) -> Option<String> {
        self.known().stale.clone()
    }

    pub fn set_stale(&self, change: String) {
        self.known().stale = Some(change);
    }
}

/// The two latest samples of a worker.
#[derive(Clone)]
pub(super) struct Samples {
    pub before: Option<Sample>,
    pub now: Sample,
}

/// Everything that requests share.
pub(super) struct Console {
    pub settings: RouteSettings,
    pub options: Options,
    /// `None` if nobody logs in here.
    pub logins: Option<Logins>,
    /// `None` if no proxy sends it.
    pub proxy_secret: Option<ProxySecret>,
    /// What forms contain where there are no sessions.
    pub csrf: String,
    pub dead_letters: QueueState,
    pub parked: QueueState,
    pub jobs: Jobs,
    pub downloads: Arc<Semaphore>,
    pub depths: tokio::sync::Mutex<QueueDepths>,
    pub samples: tokio::sync::Mutex<HashMap<Url, Samples>>,
}

impl Console {
    pub fn queue(&self, queue: QueueKind) -> &QueueState {
        match queue {
            QueueKind::DeadLetters => &self.dead_letters,
            QueueKind::Parked => &self.parked,
        }
    }

    pub fn queue_name(&self, queue: QueueKind) -> &str {
        match queue {
            QueueKind::DeadLetters => &self.settings.dead_letter_queue,
            QueueKind::Parked => &self.settings.parked_queue,
        }
    }

    pub fn source(&self, queue: QueueKind) -> Source {
        Source { queue: self.queue_name(queue).to_owned(), browse: self.options.browse.clone() }
    }

    pub fn new(
        settings: RouteSettings,
        options: Options,
        tokens: Option<TokenFile>,
        proxy_secret: Option<ProxySecret>,
    ) -> Console {
        let mut allowed = options.allow.clone();
        allowed.insert(Role::View);
        Console {
            settings,
            logins: tokens.map(|tokens| Logins::new(tokens, allowed)),
            proxy_secret,
            csrf: random_id(),
            options,
            dead_letters: QueueState::default(),
            parked: QueueState::default(),
            jobs: Jobs::default(),
            downloads: Arc::new(Semaphore::new(MAX_DOWNLOADS)),
            depths: tokio::sync::Mutex::default(),
            samples: tokio::sync::Mutex::default(),
        }
    }

    /// The dead letters that a request selects.
    pub fn selection(&self, query: &DeadLetterQuery) -> Selection {
        query.selection(self.source(query.queue))
    }

    /// A path in the directory of the console.
    pub fn kept(&self, name: impl AsRef<Path>) -> Option<PathBuf> {
        self.options.state_dir.as_ref().map(|directory| directory.join(name))
    }

    /// The file of the history.
    pub fn history_file(&self) -> Option<PathBuf> {
        self.kept("history.ndjson")
    }

    /// Number of messages that are ready in each queue; `None` if it is not known.
    pub async fn depths(&self) -> Result<[Option<u32>; 2], BrokerError> {
        let mut depths = self.depths.lock().await;
        let mut ready = [None; 2];
        for (ready, queue) in ready.iter_mut().zip([QueueKind::DeadLetters, QueueKind::Parked]) {
            let counts = depths.read(&self.settings.broker, &[self.queue_name(queue).to_owned()]).await?;
            *ready = counts.map(|counts| counts.ready);
        }
        Ok(ready)
    }
}
