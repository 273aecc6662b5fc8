//! Owns the console: the desk for dead letters in a browser, over the same operations as `ticketlog dead`. Server-rendered
//! pages, with little script. Must not know how a dead letter is read, replayed or deleted.
//!
//! | module | owns |
//! |---|---|
//! | `options` | how it runs, and what may not go together |
//! | `access` | roles, tokens, sessions |
//! | `guard` | what every request must pass: host, proxy, login, forms of this site |
//! | `site` | which site a request is for and which one it comes from |
//! | `operator` | who sends a request |
//! | `query` | the fields of URLs and forms |
//! | `snapshot` | what is remembered of a queue |
//! | `details` | the dead letters that are held with their bodies |
//! | `jobs` | what runs in the background |
//! | `operations` | what the jobs do |
//! | `export` | the download |
//! | `history` | who did what |
//! | `routes`, `actions` | which page answers which request |
//! | `pages` | the HTML |

mod access;
mod actions;
mod details;
mod export;
mod guard;
mod history;
mod jobs;
mod operations;
mod operator;
mod options;
mod pages;
mod query;
mod routes;
mod site;
mod snapshot;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use url::Url;

use crate::config::RouteSettings;
use crate::desk::Source;
use crate::http_server;
use crate::observe::worker_sample::Sample;
use crate::rabbitmq::{BrokerError, QueueDepths};
use crate::system::now_millis;

use access::{Logins, ProxySecret, Tokens};
use details::Details;
use jobs::Jobs;
use query::QueueKind;
use snapshot::Snapshot;

pub use access::Role;
pub use options::Options;
pub use site::Authority;

/// Longest duration of a connection: an export of a long queue takes its time.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(3600);

/// Most downloads that run or wait for their queue.
const MAX_DOWNLOADS: usize = 4;
/// How long bodies, and jobs that have parts of them, are held in memory.
const BODIES_HELD: Duration = Duration::from_secs(14 * 60);

/// What the console knows of one queue.
#[derive(Debug, Default)]
struct QueueState {
    /// Held by whoever reads the queue: RabbitMQ would show two readers one half each.
    turn: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
    details: Details,
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

    /// Who uses the queue, such as `anna is replaying`.
    fn holder(&self) -> Option<String> {
        self.known().holder.clone()
    }

    fn set_holder(&self, holder: Option<String>) {
        self.known().holder = holder;
    }

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.known().snapshot.clone()
    }

    fn set_snapshot(&self, snapshot: Snapshot) {
        let mut known = self.known();
        (known.snapshot, known.stale) = (Some(Arc::new(snapshot)), None);
    }

    /// What has changed the queue since the snapshot.
    fn stale(&self) -> Option<String> {
        self.known().stale.clone()
    }

    fn set_stale(&self, change: String) {
        self.known().stale = Some(change);
    }
}

/// The two latest samples of a worker.
#[derive(Clone)]
struct Samples {
    before: Option<Sample>,
    now: Sample,
}

/// Everything that requests share.
struct Console {
    settings: RouteSettings,
    options: Options,
    /// None if nobody logs in here.
    logins: Option<Logins>,
    /// `None` if no proxy sends it.
    proxy_secret: Option<ProxySecret>,
    /// What forms contain where there are no sessions.
    csrf: String,
    dead_letters: QueueState,
    parked: QueueState,
    jobs: Jobs,
    downloads: Arc<Semaphore>,
    depths: tokio::sync::Mutex<QueueDepths>,
    samples: tokio::sync::Mutex<HashMap<Url, Samples>>,
}

impl Console {
    fn queue(&self, queue: QueueKind) -> &QueueState {
        match queue {
            QueueKind::DeadLetters => &self.dead_letters,
            QueueKind::Parked => &self.parked,
        }
    }

    fn queue_name(&self, queue: QueueKind) -> &str {
        match queue {
            QueueKind::DeadLetters => &self.settings.dead_letter_queue,
            QueueKind::Parked => &self.settings.parked_queue,
        }
    }

    fn source(&self, queue: QueueKind) -> Source {
        Source { queue: self.queue_name(queue).to_owned(), browse: self.options.browse.clone() }
    }

    /// Number of messages that are ready in each queue; none if it is not known.
    async fn depths(&self) -> Result<[Option<u32>; 2], BrokerError> {
        let names = [QueueKind::DeadLetters, QueueKind::Parked].map(|queue| [self.queue_name(queue)]);
        let names = names.each_ref().map(|queue| &queue[..]);
        let counts = self.depths.lock().await.read(&self.settings.broker, &names).await?;
        let ready = |at: usize| counts.get(at).copied().flatten().map(|counts| counts.ready);
        Ok([ready(0), ready(1)])
    }
}

/// A console that listens.
pub struct BoundConsole {
    listener: TcpListener,
    console: Arc<Console>,
}

/// Binds the address of a console.
///
/// # Errors
/// The options contradict each other, or the file of tokens is wrong: a text. Or the address cannot be used.
pub async fn bind(settings: RouteSettings, options: Options) -> Result<std::io::Result<BoundConsole>, String> {
    options.check()?;
    let tokens = options.tokens.as_deref().map(Tokens::read).transpose()?;
    let proxy_secret = options.proxy_secret.as_deref().map(ProxySecret::read).transpose()?;
    if let Some(directory) = &options.state_dir {
        create_directory(directory).map_err(|error| format!("{} cannot be used: {error}", directory.display()))?;
    }
    let mut allowed = options.allow.clone();
    allowed.insert(Role::Look);
    let listen = options.listen;
    let console = Console {
        settings,
        logins: tokens.map(|tokens| Logins::new(tokens, allowed)),
        proxy_secret,
        csrf: access::random_id(),
        options,
        dead_letters: QueueState::default(),
        parked: QueueState::default(),
        jobs: Jobs::default(),
        downloads: Arc::new(Semaphore::new(MAX_DOWNLOADS)),
        depths: tokio::sync::Mutex::default(),
        samples: tokio::sync::Mutex::default(),
    };
    Ok(TcpListener::bind(listen).await.map(|listener| BoundConsole { listener, console: Arc::new(console) }))
}

/// Drops what was read of bodies some time ago: `ticketlog erase` cannot reach the memory of this process.
async fn forget_bodies(console: Arc<Console>) {
    let mut interval = tokio::time::interval(Duration::from_secs(30));
    loop {
        interval.tick().await;
        if let Some(time) = Instant::now().checked_sub(BODIES_HELD) {
            [&console.dead_letters, &console.parked].iter().for_each(|queue| queue.details.forget_before(time));
        }
        let held = i64::try_from(BODIES_HELD.as_millis()).unwrap_or(i64::MAX);
        console.jobs.forget_bodies_before(now_millis().saturating_sub(held));
    }
}

/// Creates the directory, readable for its owner only, if there is none.
fn create_directory(directory: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

impl BoundConsole {
    /// Where it listens.
    pub fn address(&self) -> String {
        self.listener.local_addr().map(|address| address.to_string()).unwrap_or_default()
    }

    /// Serves for ever.
    pub async fn serve(self) {
        tokio::spawn(forget_bodies(Arc::clone(&self.console)));
        let router = routes::router(self.console);
        http_server::serve(self.listener, CONNECTION_TIMEOUT, TowerToHyperService::new(router)).await;
    }
}
