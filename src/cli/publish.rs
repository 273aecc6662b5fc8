//! Owns `ticketlog publish`: where the messages come from, and the summary.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use ticketlog_config::system::{now_millis, since_epoch};
use ticketlog_config::{MAIN_ROUTE, RouteSettings};
use ticketlog_contract::Address;
use ticketlog_rabbitmq::{BatchPublisher, Outgoing, Publisher, Rate};

use super::generate::Generator;
use super::source::{self, InputMessage};
use super::terminal::print_line;
use super::terminal_report::TerminalReport;
use super::{CommandError, exit};

/// Most messages read ahead of publishing.
const READ_AHEAD: usize = 500;

/// The time of the first generated event with --seed, without --at: 2026-01-01T00:00:00Z in milliseconds.
const SEEDED_START: u64 = 1_767_225_600_000;

/// Flags of `ticketlog publish`.
#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    /// NDJSON: one message a line, published as it is [default: standard input, also `-`].
    #[arg(conflicts_with = "generate")]
    files: Vec<PathBuf>,
    /// Publish this many generated ticket operations instead.
    #[arg(long, value_name = "N")]
    generate: Option<u64>,
    /// Percentage of malformed messages among the generated ones.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = percent, requires = "generate")]
    malformed: f64,
    /// Generate the same messages for the same seed [default: a random seed].
    #[arg(long, requires = "generate")]
    seed: Option<u64>,
    /// Distinct users among the generated events.
    #[arg(long, default_value_t = 10_000, requires = "generate", value_parser = clap::value_parser!(u32).range(1..))]
    users: u32,
    /// The time of the first generated event: `now`, or milliseconds since 1970 [default: now; with --seed 2026-01-01].
    #[arg(long, value_name = "TIME", value_parser = start_time, requires = "generate")]
    at: Option<StartTime>,
    /// Most messages a second, such as `500` or `500/s`.
    #[arg(long, value_name = "N/s")]
    rate: Option<Rate>,
    /// Routing key [default: ticket.event; of generated events, ticket. and the operation].
    #[arg(long, value_name = "KEY")]
    routing_key: Option<String>,
    /// Use this field of the body as the message_id, for instance `uuid`; it must be a text [default: none].
    #[arg(long, value_name = "FIELD", conflicts_with = "generate")]
    message_id_from: Option<String>,
    /// The app_id: the name of the publisher, by which rejections are counted.
    #[arg(long, value_name = "NAME", value_parser = short_text)]
    app_id: Option<String>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy)]
enum StartTime {
    Now,
    Millis(u64),
}

fn percent(text: &str) -> Result<f64, String> {
    let value: f64 = text.trim_end_matches('%').parse().map_err(|_| "expected a percentage, 0 to 100".to_owned())?;
    if (0.0..=100.0).contains(&value) { Ok(value / 100.0) } else { Err("expected a percentage, 0 to 100".to_owned()) }
}

fn short_text(text: &str) -> Result<String, String> {
    if text.len() <= 255 { Ok(text.to_owned()) } else { Err("must have at most 255 bytes".to_owned()) }
}

fn start_time(text: &str) -> Result<StartTime, String> {
    if text == "now" {
        return Ok(StartTime::Now);
    }
    text.parse().map(StartTime::Millis).map_err(|_| "expected `now`, or milliseconds since 1970".to_owned())
}

impl PublishArgs {
    pub fn run(&self, settings: &RouteSettings) -> Result<u8, CommandError> {
        self.check_routing_key(settings)?;
        super::block_on(async {
            let publisher = Publisher::open_without_topology(&settings.broker, "publish").await?;
            let exchange = &settings.broker.exchange;
            if !publisher.exchange_exists(exchange).await? {
                let text =
                    format!("exchange {exchange:?} does not exist; correct broker.exchange, or run `ticketlog setup`");
                return Err(CommandError::text(exit::UNAVAILABLE, text));
            }
            let mut publisher =
                BatchPublisher::new(publisher, self.rate, TerminalReport::new(self.generate, "published"));
            let malformed = match self.generate {
                Some(count) => self.publish_generated(settings, &mut publisher, count).await,
                None => self.publish_files(settings, &mut publisher).await,
            };
            // What was read before an error is published and counted.
            publisher.flush(&mut Vec::new()).await?;
            let reported = self.report(publisher, *malformed.as_ref().unwrap_or(&0)).await;
            malformed?;
            reported
        })
    }

    /// The routing key of messages from files.
    fn key(&self) -> &str {
        self.routing_key.as_deref().unwrap_or("ticket.event")
    }

    /// With --route, what is published must reach that route.
    fn check_routing_key(&self, settings: &RouteSettings) -> Result<(), CommandError> {
        if self.key().len() > 255 {
            return Err(CommandError::usage("--routing-key has at most 255 bytes"));
        }
        let (name, exchange) = (&settings.name, &settings.broker.exchange);
        let address = Address { exchange, routing_key: self.key() };
        if name != MAIN_ROUTE && settings.addresses().check(address).is_err() {
            let patterns = settings.routing_keys.join(", ");
            return Err(CommandError::usage(format!("route {name} needs a --routing-key that matches {patterns}")));
        }
        Ok(())
    }

    async fn publish_generated(
        &self,
        settings: &RouteSettings,
        publisher: &mut BatchPublisher<()>,
        count: u64,
    ) -> Result<u64, CommandError> {
        let millis = match (self.at, self.seed) {
            (Some(StartTime::Millis(millis)), _) => millis,
            (None, Some(_)) => SEEDED_START,
            _ => now_millis().unsigned_abs(),
        };
        let follows_clock =
            !matches!(self.at, Some(StartTime::Millis(_))) && (self.seed.is_none() || self.at.is_some());
        let seed = self.seed.unwrap_or_else(rand::random);
        let mut generator = Generator::new(seed, self.users, self.malformed, millis);
        let mut malformed = 0;
        for _ in 0..count {
            if follows_clock {
                generator.set_clock(now_millis().unsigned_abs());
            }
            let message = generator.next_message();
            malformed += u64::from(message.malformed);
            let id = Some(message.message_id.as_str());
            let seconds = generator.millis() / 1000;
            let key = self.routing_key.as_ref().unwrap_or(&message.routing_key);
            let mut outgoing = Outgoing::event(&settings.broker.exchange, key, id, seconds, message.body);
            outgoing = self.app_id.iter().fold(outgoing, |outgoing, name| outgoing.with_app_id(name));
            if let Some(encoding) = message.content_encoding {
                outgoing = outgoing.with_content_encoding(encoding);
            }
            publisher.push(outgoing, (), &mut Vec::new()).await?;
        }
        Ok(malformed)
    }

    /// Publishes the messages of the files. Only a few are read ahead, so that files of any size take little memory.
    async fn publish_files(
        &self,
        settings: &RouteSettings,
        publisher: &mut BatchPublisher<()>,
    ) -> Result<u64, CommandError> {
        let (sender, mut inputs) = tokio::sync::mpsc::channel(READ_AHEAD);
        let files = self.files.clone();
        let reader = tokio::task::spawn_blocking(move || {
            source::read_messages(&files, false, |input| {
                sender.blocking_send(input).map_err(|_| CommandError::text(exit::SOFTWARE, "stopped"))
            })
        });
        while let Some(input) = inputs.recv().await {
            let seconds = since_epoch().as_secs();
            let id = self.message_id_from.as_ref().map(|field| message_id(&input, field)).transpose()?;
            let outgoing = Outgoing::event(&settings.broker.exchange, self.key(), id.as_deref(), seconds, input.body);
            let outgoing = self.app_id.iter().fold(outgoing, |outgoing, name| outgoing.with_app_id(name));
            publisher.push(outgoing, (), &mut Vec::new()).await?;
        }
        reader.await.map_err(|_| CommandError::text(exit::SOFTWARE, "reading the input was aborted"))??;
        Ok(0)
    }

    async fn report(&self, publisher: BatchPublisher<()>, malformed: u64) -> Result<u8, CommandError> {
        let (counts, took) = publisher.close().await;
        let (seconds, confirmed, bytes) = (took.as_secs_f64(), counts.confirmed(), counts.bytes);
        let (returned, refused) = (counts.returned, counts.refused);
        let printed = if self.json {
            let summary = json!({
                "confirmed": confirmed, "bytes": bytes, "malformed": malformed, "returned": returned, "refused": refused,
                "seconds": seconds,
            });
            print_line(summary)
        } else {
            let per_second = counts.published as f64 / seconds.max(1e-9);
            print_line(format_args!(
                "{confirmed} messages published and confirmed ({malformed} of them malformed), {bytes} bytes, {seconds:.1} s, {per_second:.0}/s"
            ))
        };
        if returned + refused > 0 {
            let text = format!(
                "{returned} messages were returned (no queue is bound for their routing key), and {refused} were refused (by a \
                 full queue, for instance)"
            );
            return Err(CommandError::text(exit::UNAVAILABLE, text));
        }
        printed.map(|()| 0)
    }
}

/// The message id that a body has in this field.
fn message_id(input: &InputMessage, field: &str) -> Result<String, CommandError> {
    let body: Option<serde_json::Value> = serde_json::from_slice(&input.body).ok();
    let id = body.as_ref().and_then(|body| body.get(field)?.as_str()).filter(|id| (1..=255).contains(&id.len()));
    id.map(str::to_owned).ok_or_else(|| {
        let text = format!(
            "{}:{}: --message-id-from {field}: expected a JSON object with a text of 1 to 255 bytes in this field; what was read \
             before this line is published",
            input.file, input.line
        );
        CommandError::text(exit::DATA, text)
    })
}
