//! Owns `ticketlog health`: asks the worker of this configuration, or a console, for container health checks.

use std::time::Duration;

use url::Url;

use ticketlog_config::Settings;
use ticketlog_http::client as http_client;

use super::terminal::{after_printing, print_line};
use super::worker_address::{own_worker, parse_http_url};
use super::{CommandError, exit};

const TIMEOUT: Duration = Duration::from_secs(3);

/// Flags of `ticketlog health`.
#[derive(Debug, clap::Args)]
pub struct HealthArgs {
    /// Ask whether it is ready (/readyz: consuming, and MongoDB answers) instead of whether it is alive (/livez).
    #[arg(long)]
    ready: bool,
    /// The address to ask, such as that of a console (which is ready if it reaches the dead-letter queue) [default: http.listen].
    #[arg(long, value_name = "URL", value_parser = parse_http_url)]
    url: Option<Url>,
}

impl HealthArgs {
    pub(super) fn run(&self, settings: &Settings) -> Result<u8, CommandError> {
        let path = if self.ready { "readyz" } else { "livez" };
        let mut url = self.url.clone().unwrap_or_else(|| own_worker(settings));
        url.set_path(path);
        match super::block_on(async { Ok(http_client::get(&url, None, None, TIMEOUT).await) })? {
            Ok((status, body)) => {
                let code = if status == 200 { 0 } else { exit::NOT_WELL };
                after_printing(Ok(code), print_line(String::from_utf8_lossy(&body).trim_end()))
            }
            Err(_) => Err(CommandError::text(
                exit::NOT_WELL,
                match &self.url {
                    Some(_) => format!("nothing answers at {}", url.authority()),
                    None => format!("no worker answers at {} (http.listen)", url.authority()),
                },
            )),
        }
    }
}
