//! The flags that the commands share: which queue, how it is browsed, which dead letters, the audit file.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::Value;
use url::Url;

use crate::observe::logging::{self, Logging};
use ticketlog_config::RouteSettings;
use ticketlog_config::{format, system};
use ticketlog_contract::dead_letter::{BodyCondition, Cause, Filter};
use ticketlog_desk::{self as desk, Audit, Source};
use ticketlog_rabbitmq::BrowseOptions;

use super::super::CommandError;
use super::super::worker_address::parse_http_url;

/// Which queue.
#[derive(Debug, Args)]
pub(super) struct QueueArgs {
    /// The queue [default: dead_letter.queue].
    #[arg(long, value_name = "NAME", conflicts_with = "parked", value_parser = parse_name)]
    pub queue: Option<String>,
    /// The parked queue.
    #[arg(long)]
    pub parked: bool,
    #[command(flatten)]
    pub browse: BrowseArgs,
}

/// How a queue is browsed.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct BrowseArgs {
    /// Browse the queue even if its delivery limit is low or unknown. Browsing counts as a delivery.
    #[arg(long)]
    trust_queue: bool,
    /// RabbitMQ's management API, for policies [default: broker.management, or else http on port 15672 of the broker's host,
    /// unless the connection uses TLS].
    #[arg(long, value_name = "URL", env = "TICKETLOG_MANAGEMENT", hide_env_values = true, value_parser = parse_http_url)]
    management: Option<Url>,
    /// How long to wait while another `ticketlog dead` uses the queue.
    #[arg(long, value_name = "TIME", default_value = "10min", value_parser = humantime::parse_duration)]
    wait: Duration,
}

impl BrowseArgs {
    pub fn options(&self) -> BrowseOptions {
        BrowseOptions { trust_queue: self.trust_queue, management: self.management.clone(), wait: self.wait }
    }
}

impl QueueArgs {
    pub fn name<'a>(&'a self, settings: &'a RouteSettings) -> &'a str {
        match &self.queue {
            Some(queue) => queue,
            None if self.parked => &settings.parked_queue,
            None => &settings.dead_letter_queue,
        }
    }

    pub fn source(&self, settings: &RouteSettings) -> Source {
        Source { queue: self.name(settings).to_owned(), browse: self.browse.options() }
    }
}

/// Which dead letters. All conditions must hold; of several values for one condition, one must match.
#[derive(Debug, Args)]
pub(super) struct Selection {
    /// By `dl-id`, as `dead list` shows it.
    #[arg(long, value_name = "ID")]
    pub id: Vec<String>,
    /// By reason, such as `invalid_json`; `unknown` for those without.
    #[arg(long, value_name = "REASON", value_parser = causes(), hide_possible_values = true)]
    pub reason: Vec<Cause>,
    /// By the field at fault.
    #[arg(long, value_name = "NAME")]
    pub field: Vec<String>,
    /// By MongoDB's error code, such as 121 for a validator.
    #[arg(long, value_name = "CODE", value_parser = parse_code)]
    pub code: Vec<i64>,
    /// Dead-lettered since a time: `2026-11-22`, `2026-11-22T03:00+01:00`, `03:00` of today (UTC), or a duration ago: `2h`.
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    pub since: Option<i64>,
    /// Dead-lettered before a time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub until: Option<i64>,
    /// By AMQP message_id.
    #[arg(long, value_name = "ID")]
    pub message_id: Vec<String>,
    /// By fingerprint, as `dead stats` shows it.
    #[arg(long, value_name = "HEX", value_parser = parse_fingerprint)]
    pub fingerprint: Vec<String>,
    /// By original routing key, with `*` and `#` as in a binding.
    #[arg(long, value_name = "PATTERN")]
    pub routing_key: Vec<String>,
    /// By publisher: AMQP app_id, or else user_id.
    #[arg(long, value_name = "NAME")]
    pub publisher: Vec<String>,
    /// With this text in the detail, an id, a name or the routing key.
    #[arg(long, value_name = "TEXT")]
    pub text: Option<String>,
    /// By the replay that sent it before.
    #[arg(long, value_name = "ID")]
    pub replay_id: Vec<String>,
    /// Replayed at least this many times.
    #[arg(long, value_name = "N")]
    pub replayed_at_least: Option<i64>,
    /// By a value in the JSON body, such as `ticket_details.route=42`. If repeated, all must hold.
    #[arg(long = "where", value_name = "PATH=VALUE", value_parser = BodyCondition::parse)]
    pub conditions: Vec<BodyCondition>,
    /// At most this many, from the head of the queue.
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
}

impl Selection {
    /// Those of a queue, as the operations take it.
    pub fn of(&self, source: Source) -> desk::Selection {
        desk::Selection { source, filter: self.filter(), limit: self.limit }
    }

    /// The conditions.
    pub fn filter(&self) -> Filter {
        Filter {
            ids: self.id.clone(),
            causes: self.reason.clone(),
            fields: self.field.clone(),
            codes: self.code.clone(),
            since: self.since,
            until: self.until,
            message_ids: self.message_id.clone(),
            fingerprints: self.fingerprint.clone(),
            routing_keys: self.routing_key.clone(),
            publishers: self.publisher.clone(),
            text: self.text.clone(),
            replay_ids: self.replay_id.clone(),
            replayed_at_least: self.replayed_at_least,
            conditions: self.conditions.clone(),
        }
    }
}

/// Flags of commands that change a queue.
#[derive(Debug, Args)]
pub(in crate::cli) struct AuditArgs {
    /// Append a line of JSON to this file about who did what and when. It is logged as well.
    #[arg(long, value_name = "FILE", env = "TICKETLOG_AUDIT_FILE")]
    pub audit_file: Option<PathBuf>,
}

impl AuditArgs {
    /// Begins the log, which has the audit as well. It ends with the value. A terminal gets warnings only: who reads it knows what
    /// they do, and reads the outcome.
    pub fn log(settings: &RouteSettings) -> Option<Logging> {
        let mut log = settings.log.clone();
        if std::io::stderr().is_terminal() {
            log.filter = "warn".to_owned();
        }
        // The audit file counts here; an invalid log filter is reported by `run`.
        logging::install(&log).ok()
    }

    /// Writes that an operation begins.
    ///
    /// # Errors
    /// The audit file cannot be written.
    pub fn begin(&self, subject: Value) -> Result<Audit, CommandError> {
        Ok(Audit::begin(self.audit_file.as_deref(), &desk::operator(), subject)?)
    }
}

/// An AMQP name.
pub(super) fn parse_name(text: &str) -> Result<String, String> {
    if text.len() <= 255 { Ok(text.to_owned()) } else { Err("must have at most 255 bytes".to_owned()) }
}

/// The reasons, which completions know.
fn causes() -> impl TypedValueParser<Value = Cause> {
    PossibleValuesParser::new(Cause::names()).map(|name| Cause::parse(&name).unwrap_or(Cause::Unknown))
}

/// Milliseconds since 1970.
fn parse_past(text: &str) -> Result<i64, String> {
    format::parse_past(text, system::now_millis())
}

fn parse_time(text: &str) -> Result<i64, String> {
    format::parse_time(text, system::now_millis())
}

fn parse_code(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| "expected a number, such as 121 for a validator".to_owned())
}

/// Those of the worker have 16 digits.
fn parse_fingerprint(text: &str) -> Result<String, String> {
    if text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err("expected 16 hexadecimal digits, as `ticketlog dead stats` shows them".to_owned())
}
