//! Owns `ticketlog console`: its flags.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use hyper::header::HeaderName;
use strum::VariantNames as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use url::Url;

use crate::observe::{logging, traces};
use ticketlog_config::RouteSettings;
use ticketlog_desk::console::{self, Authority, Options, Role};

use super::dead::{BrowseArgs, start_replay_span};
use super::find::find_documents;
use super::terminal::note;
use super::worker_address::{own_worker, parse_http_url};
use super::{CommandError, exit};

/// Flags of `ticketlog console`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ticketlog console
  ticketlog console --allow replay,edit --state-dir /var/lib/ticketlog
  ticketlog console --listen 0.0.0.0:9465 --behind-proxy --host desk.example --tokens /etc/ticketlog/tokens.toml")]
pub(super) struct ConsoleArgs {
    /// Where to listen. Other than loopback only with --behind-proxy and a login.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9465", env = "TICKETLOG_CONSOLE_LISTEN")]
    listen: SocketAddr,
    /// What is allowed besides viewing: replay (park and unpark, too), edit (change bodies while they are replayed), purge
    /// (delete). Nothing by default.
    #[arg(long, value_name = "ROLES", value_delimiter = ',', value_parser = roles(), env = "TICKETLOG_CONSOLE_ALLOW")]
    allow: Vec<Role>,
    /// The directory of the history, and of the originals of what is changed or deleted; it is created.
    #[arg(long, value_name = "DIR", env = "TICKETLOG_CONSOLE_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// A file with tokens to log in with: lines such as `anna = { token = "…", roles = ["view", "replay"] }`.
    #[arg(long, value_name = "FILE", env = "TICKETLOG_CONSOLE_TOKENS", hide_env_values = true)]
    tokens: Option<PathBuf>,
    /// People reach it through a proxy that ends TLS.
    #[arg(long, env = "TICKETLOG_CONSOLE_BEHIND_PROXY")]
    behind_proxy: bool,
    /// The header in which the proxy names the person who has logged in there. The proxy must replace what people send under this name.
    #[arg(long, value_name = "NAME", env = "TICKETLOG_CONSOLE_USER_HEADER")]
    user_header: Option<HeaderName>,
    /// A file with the secret that the proxy sends with every request, as X-Ticketlog-Proxy-Secret. --user-header needs it.
    #[arg(long, value_name = "FILE", env = "TICKETLOG_CONSOLE_PROXY_SECRET", hide_env_values = true)]
    proxy_secret: Option<PathBuf>,
    /// A host name in the address that people open, with the port if it is not 80 or 443; repeatable [default: the names of
    /// loopback].
    #[arg(long = "host", value_name = "NAME", value_delimiter = ',', env = "TICKETLOG_CONSOLE_HOSTS")]
    hosts: Vec<Authority>,
    /// The HTTP address of a worker; repeatable. A name with several addresses stands for a worker at each [default:
    /// http.listen].
    #[arg(long = "worker", value_name = "URL", value_delimiter = ',', value_parser = parse_http_url, env = "TICKETLOG_CONSOLE_WORKERS")]
    workers: Vec<Url>,
    /// The address of Grafana, for a link.
    #[arg(long, value_name = "URL", value_parser = parse_http_url, env = "TICKETLOG_CONSOLE_GRAFANA")]
    grafana: Option<Url>,
    /// The address of the directory docs of this project, for links to runbooks and to the event contract.
    #[arg(long, value_name = "URL", value_parser = parse_http_url, env = "TICKETLOG_CONSOLE_DOCS")]
    docs: Option<Url>,
    #[command(flatten, next_help_heading = "Queue")]
    browse: BrowseArgs,
}

/// The roles beside `view`, which everybody has.
fn roles() -> impl clap::builder::TypedValueParser<Value = Role> {
    let names = Role::VARIANTS.iter().filter(|name| **name != "view");
    PossibleValuesParser::new(names.copied()).map(|name| name.parse().unwrap_or(Role::View))
}

impl ConsoleArgs {
    pub fn run(&self, settings: RouteSettings) -> Result<u8, CommandError> {
        let _logging = logging::install(&settings.log).map_err(|error| CommandError::new(exit::CONFIG, error))?;
        super::block_on(self.serve(settings))
    }

    async fn serve(&self, settings: RouteSettings) -> Result<u8, CommandError> {
        let traces = traces::install(&settings.telemetry).map_err(|error| CommandError::new(exit::CONFIG, error))?;
        let workers = if self.workers.is_empty() { vec![own_worker(&settings)] } else { self.workers.clone() };
        let options = Options {
            listen: self.listen,
            allow: self.allow.iter().copied().collect::<BTreeSet<_>>(),
            tokens: self.tokens.clone(),
            user_header: self.user_header.clone(),
            proxy_secret: self.proxy_secret.clone(),
            behind_proxy: self.behind_proxy,
            hosts: self.hosts.clone(),
            state_dir: self.state_dir.clone(),
            workers,
            browse: self.browse.options(),
            start_span: start_replay_span,
            find_documents: Some(find_documents),
            grafana: self.grafana.clone(),
            docs: self.docs.clone(),
        };
        let bound = console::bind(settings, options).await.map_err(CommandError::usage)?;
        let console = bound
            .with_context(|| format!("cannot listen on {}; is another console running here?", self.listen))
            .map_err(|error| CommandError::new(exit::UNAVAILABLE, error))?;
        let address = console.address();
        info!(version = env!("CARGO_PKG_VERSION"), http = address, "console starting");
        note(format_args!("the console is at http://{address}/"));
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // Whatever runs is ended by closing its connection: nothing leaves a queue before it is confirmed elsewhere.
        tokio::select! {
            () = console.serve() => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if let Some(traces) = traces {
            traces.finish().await;
        }
        Ok(0)
    }
}
