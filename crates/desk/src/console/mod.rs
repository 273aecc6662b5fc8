//! The console: the desk for dead letters in a browser, over the same operations as `ticketlog dead`. Server-rendered pages, with
//! little script.
//!
//! | module | owns |
//! |---|---|
//! | `options` | how it runs, and what may not go together |
//! | `access` | roles, tokens, sessions |
//! | `state` | what all requests share |
//! | `guard` | what every request must pass: host, proxy, login, forms of this site |
//! | `site` | which site a request is for and which one it comes from |
//! | `operator` | who sends a request |
//! | `query` | the fields of URLs and forms |
//! | `request` | what the handlers of requests share |
//! | `snapshot` | what is remembered of a queue |
//! | `details` | the dead letters that are held with their bodies |
//! | `jobs` | what runs in the background |
//! | `operations` | what the jobs do |
//! | `export` | the download |
//! | `history` | who did what |
//! | `routes` | which page answers which request; `actions` those that start or change something |
//! | `pages` | the HTML |

mod access;
mod actions;
mod compact;
mod details;
mod export;
mod find;
mod guard;
mod history;
mod jobs;
mod operations;
mod operator;
mod options;
mod pages;
mod query;
mod request;
mod routes;
mod site;
mod snapshot;
mod sought;
mod state;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

use ticketlog_config::RouteSettings;
use ticketlog_config::system::now_millis;
use ticketlog_http::server as http_server;

use access::{ProxySecret, TokenFile};
use state::Console;

pub use access::Role;
pub use options::Options;
pub use site::Authority;

/// Longest duration of a connection: an export of a long queue takes its time.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(3600);

/// How long bodies, and jobs that have parts of them, are held in memory.
const BODIES_HELD: Duration = Duration::from_secs(14 * 60);

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
    let tokens = options.tokens.as_deref().map(TokenFile::open).transpose()?;
    let proxy_secret = options.proxy_secret.as_deref().map(ProxySecret::read).transpose()?;
    if let Some(directory) = &options.state_dir {
        create_directory(directory).map_err(|error| format!("{} cannot be used: {error}", directory.display()))?;
    }
    let listen = options.listen;
    let console = Console::new(settings, options, tokens, proxy_secret);
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
fn create_directory(directory: &Path) -> std::io::Result<()> {
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
