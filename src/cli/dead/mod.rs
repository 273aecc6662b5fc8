//! Owns `ticketlog dead`: the commands of the dead-letter desk and the flags that they share. Each has its own file.
//! Must not know how a queue is looked through.

mod audit;
mod carrying;
mod edit;
mod export;
mod follow;
mod import;
mod list;
mod moving;
mod purge;
mod replay;
mod scan;
mod show;
mod stats;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use url::Url;

use crate::broker::{DeskError, Trust};
use crate::config::Settings;
use crate::dead_letter::{Cause, Filter, Where};

use super::Fault;
use super::terminal::{confirm, note, say};

/// The dead-letter desk.
#[derive(Debug, Args)]
pub(super) struct Dead {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How many, by reason and by fingerprint, how old, how often replayed.
    Stats(stats::Stats),
    /// One line each: position, age, reason, field, detail, message id, routing key, size, replays, id.
    List(list::List),
    /// Everything about one: properties, headers, the body with the fault marked.
    Show(show::Show),
    /// Writes them as NDJSON, whole; they stay where they are.
    Export(export::Export),
    /// Puts exported ones back into the dead-letter queue.
    Import(import::Import),
    /// Publishes them again to where they were published first; each leaves the queue when the broker has it.
    Replay(replay::Replay),
    /// Sets them aside in the parked queue.
    Park(moving::Park),
    /// Brings them back from the parked queue; they count as never replayed.
    Unpark(moving::Unpark),
    /// Deletes them, after exporting them to a file.
    Purge(purge::Purge),
}

/// Which queue.
#[derive(Debug, Args)]
struct Target {
    /// The queue to look into; by default dead_letter.queue.
    #[arg(long, value_name = "NAME", conflicts_with = "parked", value_parser = name)]
    queue: Option<String>,
    /// The parked queue.
    #[arg(long)]
    parked: bool,
    #[command(flatten)]
    trust: TrustFlags,
}

#[derive(Debug, Clone, Args)]
struct TrustFlags {
    /// Look even where the queue's delivery limit is near or cannot be found out. Every look is a delivery.
    #[arg(long)]
    trust_queue: bool,
    /// RabbitMQ's management API, asked for policies. By default http on port 15672 of the broker, if that is not TLS.
    #[arg(long, value_name = "URL", env = "TICKETLOG_MANAGEMENT", hide_env_values = true, value_parser = address)]
    management: Option<Url>,
    /// How long to wait while another desk is at work on the queue.
    #[arg(long, value_name = "TIME", default_value = "10min", value_parser = humantime::parse_duration)]
    wait: Duration,
}

impl TrustFlags {
    fn trust(&self) -> Trust {
        Trust { blindly: self.trust_queue, management: self.management.clone(), wait: self.wait }
    }
}

impl Target {
    fn queue<'a>(&'a self, settings: &'a Settings) -> &'a str {
        match &self.queue {
            Some(queue) => queue,
            None if self.parked => &settings.dead_letter.parked_queue,
            None => &settings.dead_letter.queue,
        }
    }
}

/// Which dead letters. All conditions must hold; of one given several times, any.
#[derive(Debug, Args)]
struct Selection {
    /// By `dl-id`, as `dead list` shows it.
    #[arg(long, value_name = "ID")]
    id: Vec<String>,
    /// By reason, such as `invalid_json`; `unknown` for what has none.
    #[arg(long, value_name = "REASON", value_parser = cause)]
    reason: Vec<Cause>,
    /// By the field at fault.
    #[arg(long, value_name = "NAME")]
    field: Vec<String>,
    /// Dead since then: `2026-11-22T03:00:00Z`, or so long ago: `2h`.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<i64>,
    /// Dead before then.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<i64>,
    /// By AMQP message_id.
    #[arg(long, value_name = "ID")]
    message_id: Vec<String>,
    /// By fingerprint: what `dead stats` groups by.
    #[arg(long, value_name = "HEX")]
    fingerprint: Vec<String>,
    /// By original routing key; `*` and `#` as in a binding.
    #[arg(long, value_name = "PATTERN")]
    routing_key: Vec<String>,
    /// Replayed at least so often.
    #[arg(long, value_name = "N")]
    replayed_at_least: Option<i64>,
    /// By a value in the JSON body, such as `ticket_details.route=42`. Given several times, all must hold.
    #[arg(long = "where", value_name = "PATH=VALUE", value_parser = Where::parse)]
    wheres: Vec<Where>,
    /// At most so many of them, from the head of the queue.
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

impl Selection {
    fn filter(&self) -> Filter {
        Filter {
            ids: self.id.clone(),
            causes: self.reason.clone(),
            fields: self.field.clone(),
            since: self.since,
            until: self.until,
            message_ids: self.message_id.clone(),
            fingerprints: self.fingerprint.clone(),
            routing_keys: self.routing_key.clone(),
            replayed_at_least: self.replayed_at_least,
            wheres: self.wheres.clone(),
        }
    }
}

/// What changes something says so.
#[derive(Debug, Args)]
struct Audited {
    /// Append a line of JSON to this file about what was done, when and by whom; it is logged as well.
    #[arg(long, value_name = "FILE", env = "TICKETLOG_AUDIT_FILE")]
    audit_file: Option<PathBuf>,
}

/// A name in AMQP.
fn name(text: &str) -> Result<String, String> {
    if text.len() <= 255 { Ok(text.to_owned()) } else { Err("at most 255 bytes".to_owned()) }
}

/// The address of an HTTP service; there is no TLS in here.
fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| url.scheme() == "http" && url.has_host());
    url.ok_or_else(|| "an address such as http://127.0.0.1:15672; https is not spoken here".to_owned())
}

fn cause(text: &str) -> Result<Cause, String> {
    Cause::parse(text).ok_or_else(|| format!("there is no such reason; the reasons are {}", Cause::names()))
}

/// Milliseconds since 1970 of a point in time, or of so long ago.
fn time(text: &str) -> Result<i64, String> {
    let point = humantime::parse_rfc3339_weak(text).ok();
    let point = point.or_else(|| SystemTime::now().checked_sub(humantime::parse_duration(text).ok()?));
    let since = point.and_then(|point| point.duration_since(SystemTime::UNIX_EPOCH).ok());
    since
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .ok_or_else(|| "a time such as 2026-11-22T03:00:00Z or, so long ago, 2h or 3days".to_owned())
}

impl Dead {
    pub fn run(self, settings: Settings) -> Result<u8, Fault> {
        super::stack::deep(move || {
            super::runtime()?.block_on(async {
                match &self.command {
                    Command::Stats(command) => command.run(&settings).await,
                    Command::List(command) => command.run(&settings).await,
                    Command::Show(command) => command.run(&settings).await,
                    Command::Export(command) => command.run(&settings).await,
                    Command::Import(command) => command.run(&settings).await,
                    Command::Replay(command) => command.run(&settings).await,
                    Command::Park(command) => command.run(&settings).await,
                    Command::Unpark(command) => command.run(&settings).await,
                    Command::Purge(command) => command.run(&settings).await,
                }
            })
        })
    }
}

impl From<DeskError> for Fault {
    fn from(error: DeskError) -> Self {
        match error {
            DeskError::Broker(error) => error.into(),
            DeskError::Forbidden { .. } => Fault::new(77, error),
            DeskError::Busy { .. } => Fault::new(75, error),
            other => Fault::new(69, other),
        }
    }
}

/// `3m`, `2h`, `5d`: short enough for a column.
fn age(millis: Option<i64>) -> String {
    let Some(millis) = millis else { return "-".to_owned() };
    let now = crate::cli::now_millis();
    let seconds = now.saturating_sub(millis).max(0) / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A time as RFC 3339.
fn stamp(millis: Option<i64>) -> String {
    let point = millis
        .and_then(|millis| u64::try_from(millis).ok())
        .and_then(|millis| SystemTime::UNIX_EPOCH.checked_add(std::time::Duration::from_millis(millis)));
    // Beyond the year 9999 there is no such text.
    match point.filter(|_| millis.is_some_and(|millis| millis < 253_402_300_800_000)) {
        Some(point) => humantime::format_rfc3339_millis(point).to_string(),
        None => "-".to_owned(),
    }
}

/// `1 dead letter`, `2 dead letters`.
fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
