//! Owns `ticketlog publish`: where messages come from, how fast they go, and what is shown meanwhile.
//! Must not know how a publish is confirmed.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::json;

use crate::broker::{Outgoing, Publisher};
use crate::config::Settings;

use super::Fault;
use super::carrier::{Carrier, progress};
use super::generate::Generator;
use super::source;
use super::terminal::say;

/// Lines read ahead.
const AHEAD: usize = 500;

/// When generated events with a seed begin, unless told otherwise: 2026-01-01T00:00:00Z in milliseconds.
const SEEDED_START: u64 = 1_767_225_600_000;

/// Flags of `ticketlog publish`.
#[derive(Debug, Args)]
pub(super) struct Publish {
    /// NDJSON: one message a line, sent as it is. Standard input without any, or for `-`.
    #[arg(conflicts_with = "generate")]
    files: Vec<PathBuf>,
    /// Publish this many made-up ticket operations instead.
    #[arg(long, value_name = "N")]
    generate: Option<u64>,
    /// Percentage of malformed messages among the generated ones.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = percent, requires = "generate")]
    malformed: f64,
    /// The same seed gives the same messages. Without: random ones, of now.
    #[arg(long, requires = "generate")]
    seed: Option<u64>,
    /// Distinct users among the generated events.
    #[arg(long, default_value_t = 10_000, requires = "generate")]
    users: u32,
    /// When generated events begin: `now`, or milliseconds since 1970. With --seed: 2026-01-01.
    #[arg(long, value_name = "TIME", value_parser = start, requires = "generate")]
    at: Option<Start>,
    /// Most messages a second, such as `500` or `500/s`.
    #[arg(long, value_name = "N/s", value_parser = rate)]
    rate: Option<f64>,
    /// Routing key of messages from files.
    #[arg(long, default_value = "ticket.event")]
    routing_key: String,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy)]
enum Start {
    Now,
    Millis(u64),
}

fn percent(text: &str) -> Result<f64, String> {
    let value: f64 = text.trim_end_matches('%').parse().map_err(|_| "a percentage, 0 to 100".to_owned())?;
    if (0.0..=100.0).contains(&value) { Ok(value / 100.0) } else { Err("a percentage, 0 to 100".to_owned()) }
}

fn start(text: &str) -> Result<Start, String> {
    if text == "now" {
        return Ok(Start::Now);
    }
    text.parse().map(Start::Millis).map_err(|_| "`now`, or milliseconds since 1970".to_owned())
}

pub(super) fn rate(text: &str) -> Result<f64, String> {
    let value: f64 = text.trim_end_matches("/s").parse().map_err(|_| "messages a second, such as 500".to_owned())?;
    if (0.001..=1e9).contains(&value) { Ok(value) } else { Err("messages a second, at least 0.001".to_owned()) }
}

fn now_millis() -> u64 {
    u64::try_from(now().as_millis()).unwrap_or_default()
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

impl Publish {
    pub fn run(&self, settings: &Settings) -> Result<u8, Fault> {
        super::runtime()?.block_on(async {
            let publisher = Publisher::open(&settings.broker, &settings.dead_letter, "publish").await?;
            let mut work = Carrier::new(settings, publisher, self.rate, progress(self.generate, "published"));
            let malformed = match self.generate {
                Some(count) => self.generated(settings, &mut work, count).await?,
                None => self.given(settings, &mut work).await?,
            };
            work.flush().await?;
            self.report(work, malformed).await
        })
    }

    async fn generated(&self, settings: &Settings, work: &mut Carrier<()>, count: u64) -> Result<u64, Fault> {
        let millis = match (self.at, self.seed) {
            (Some(Start::Millis(millis)), _) => millis,
            (None, Some(_)) => SEEDED_START,
            _ => now_millis(),
        };
        let live = !matches!(self.at, Some(Start::Millis(_))) && (self.seed.is_none() || self.at.is_some());
        let seed = self.seed.unwrap_or_else(rand::random);
        let Some(mut generator) = Generator::new(seed, self.users, self.malformed, millis) else {
            return Err(Fault::usage("--users needs a positive number"));
        };
        let mut malformed = 0;
        for _ in 0..count {
            if live {
                generator.set_clock(now_millis());
            }
            let made = generator.make();
            malformed += u64::from(made.malformed);
            let id = Some(made.message_id.as_str());
            let seconds = generator.millis() / 1000;
            let mut outgoing = Outgoing::event(&settings.broker.exchange, &made.routing_key, id, seconds, made.body);
            if let Some(encoding) = made.content_encoding {
                outgoing = outgoing.encoded(encoding);
            }
            work.push(outgoing, ()).await?;
        }
        Ok(malformed)
    }

    /// Reads a window's worth of lines at a time, so that files of any size take little memory.
    async fn given(&self, settings: &Settings, work: &mut Carrier<()>) -> Result<u64, Fault> {
        if self.routing_key.len() > 255 {
            return Err(Fault::usage("--routing-key has at most 255 bytes"));
        }
        let (sender, mut lines) = tokio::sync::mpsc::channel(AHEAD);
        let files = self.files.clone();
        let reader = tokio::task::spawn_blocking(move || {
            source::lines(&files, false, |line| sender.blocking_send(line.body).map_err(|_| Fault::usage("stopped")))
        });
        while let Some(body) = lines.recv().await {
            let seconds = now().as_secs();
            let outgoing = Outgoing::event(&settings.broker.exchange, &self.routing_key, None, seconds, body);
            work.push(outgoing, ()).await?;
        }
        reader.await.map_err(|_| Fault::usage("reading ended early"))??;
        Ok(0)
    }

    async fn report(&self, work: Carrier<()>, malformed: u64) -> Result<u8, Fault> {
        let (tally, took) = work.close().await;
        let (seconds, confirmed, bytes) = (took.as_secs_f64(), tally.confirmed(), tally.bytes);
        let (returned, refused) = (tally.returned, tally.refused);
        if self.json {
            let summary = json!({
                "confirmed": confirmed, "bytes": bytes, "malformed": malformed, "returned": returned, "refused": refused,
                "seconds": seconds,
            });
            say(summary)?;
        } else {
            let per_second = tally.published as f64 / seconds.max(1e-9);
            say(format_args!(
                "published {confirmed} confirmed ({malformed} of them malformed on purpose), {bytes} bytes, {seconds:.1} s, {per_second:.0}/s"
            ))?;
        }
        if returned + refused > 0 {
            let text = format!(
                "{returned} messages have no queue bound for their routing key, {refused} were refused by a full queue"
            );
            return Err(Fault::new(69, anyhow::Error::msg(text)));
        }
        Ok(0)
    }
}
