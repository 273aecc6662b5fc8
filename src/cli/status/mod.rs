//! `ticketlog status`: what workers do now, on one screen.

mod screen;

use std::time::Duration;

use clap::Args;
use console::Term;
use futures_util::future::join_all;
use serde_json::json;
use url::Url;

use ticketlog_config::Settings;
use ticketlog_http::client as http_client;
use ticketlog_status::{NoStatus, Sample};

use self::screen::Seen;
use super::terminal::{self, after_printing, print_coloured, print_line};
use super::worker_address::{own_worker, parse_http_url};
use super::{CommandError, exit};

/// Time between the two samples that rates are computed from.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often --watch draws the screen.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Flags of `ticketlog status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ticketlog status
  ticketlog status --watch http://worker-1:9464 http://worker-2:9464")]
pub(super) struct StatusArgs {
    /// The HTTP addresses of workers. A name with several addresses stands for a worker at each [default: http.listen].
    #[arg(value_name = "URL", value_parser = parse_http_url)]
    workers: Vec<Url>,
    /// Draw it again every two seconds, until Ctrl-C.
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// Print one JSON object for each worker, and each route of it.
    #[arg(long)]
    json: bool,
}

impl StatusArgs {
    pub fn run(&self, settings: &Settings) -> Result<u8, CommandError> {
        let workers = if self.workers.is_empty() { vec![own_worker(settings)] } else { self.workers.clone() };
        super::block_on(self.show(&workers))
    }

    async fn show(&self, workers: &[Url]) -> Result<u8, CommandError> {
        let mut before = read_all(workers).await;
        let mut interval = INTERVAL;
        loop {
            tokio::time::sleep(interval).await;
            let now = read_all(workers).await;
            if self.watch {
                Term::stdout().clear_screen()?;
            }
            let printed = now.iter().try_for_each(|(worker, now)| {
                let earlier = before.iter().find(|(url, _)| url == worker).and_then(|(_, sample)| sample.as_ref().ok());
                self.print(worker, earlier, now.as_ref())
            });
            if !self.watch || printed.is_err() {
                let ready = now.iter().all(|(_, sample)| sample.as_ref().is_ok_and(|now| now.status.is_ready()));
                return after_printing(Ok(if ready { 0 } else { exit::NOT_WELL }), printed);
            }
            (before, interval) = (now, WATCH_INTERVAL);
        }
    }

    fn print(
        &self,
        worker: &Url,
        before: Option<&Sample>,
        now: Result<&Sample, &NoStatus>,
    ) -> Result<(), CommandError> {
        let now = match now {
            Ok(now) => now,
            Err(error) if self.json => {
                return print_line(json!({ "worker": worker.as_str(), "error": error.to_string() }));
            }
            Err(error) => return print_coloured(format_args!("{worker}  {}", terminal::red(&error.to_string()))),
        };
        for route in now.status.routes() {
            let seen = Seen { worker, before, now, route };
            if self.json {
                print_line(seen.as_json())?;
            } else {
                seen.lines().into_iter().try_for_each(print_coloured)?;
            }
        }
        Ok(())
    }
}

/// Asks the worker at each address.
async fn read_all(workers: &[Url]) -> Vec<(Url, Result<Sample, NoStatus>)> {
    let read = async |url| {
        let sample = Sample::read(&url).await;
        (url, sample)
    };
    join_all(http_client::at_all_addresses(workers).await.into_iter().map(read)).await
}
