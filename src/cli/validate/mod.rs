//! `ticketlog validate`: what the worker would do with the messages of files.

mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};

use ticketlog_config::system::now_millis;
use ticketlog_contract::{Address, Decoder, Event, Findings, Identity, Message, Rejection, findings_of_clock};

use self::report::{Finding, Report, Seen};
use super::contract::ContractSource;
use super::source::{InputMessage, read_messages};
use super::terminal::{after_printing, note};
use super::{CommandError, ConfigArgs, exit};

/// What a file that is no NDJSON is.
const PRETTY: &str =
    "is JSON over several lines, but one message a line is expected; pass --whole, or write it with `jq -c .`";
const ARRAY: &str = "is an array, but one message a line is expected; write it with `jq -c '.[]'`";

/// Flags of `ticketlog validate`.
#[derive(Debug, Args)]
#[command(
    after_help = "The properties that are passed are assumed for every message. Nothing is known of those that are not passed, except that a
message without --message-id has no identity unless its body has one.

Exit codes:
  0   every message would be stored
  65  a message would become a dead letter; there is no message at all; or, with --strict, something was found
  66  a file cannot be read; the others were checked

Fields of --format json, one object a line:
  file, line, outcome   `stored` or `dead_lettered`
  identity, document    if stored: `_id`, `message_id`, `uuid` or `none`; what would be stored
  findings              if stored: what is probably a mistake, each with kind and text
  reason, field, detail if dead-lettered: the fault that its headers would name
  faults                if dead-lettered: all faults, each with reason, field and detail

Examples:
  ticketlog validate --strict events.ndjson
  ticketlog validate --whole --format github tests/events/*.json
  our-program --print-events | ticketlog validate --routing-key ticket.buy --app-id shop"
)]
pub(super) struct ValidateArgs {
    /// NDJSON: one message a line [default: standard input, also `-`].
    files: Vec<PathBuf>,
    #[command(flatten)]
    source: ContractSource,
    /// Each file is one message.
    #[arg(long)]
    whole: bool,
    /// How to print the result: text, one JSON object for each message, annotations of GitHub Actions, or JUnit's XML.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Fail if anything is found, even if every message would be stored.
    #[arg(long)]
    strict: bool,
    /// An input without any message is not an error.
    #[arg(long)]
    allow_empty: bool,
    /// The routing key to assume: the worker of a route rejects messages that are meant for another one [default: none, as if they were
    /// sent to the queue by its name].
    #[arg(long, value_name = "KEY")]
    routing_key: Option<String>,
    /// The AMQP `message_id` to assume.
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// The AMQP `timestamp` to assume, in seconds since 1970.
    #[arg(long, value_name = "SECONDS")]
    timestamp: Option<u64>,
    /// The AMQP `app_id` to assume; empty: the messages have none.
    #[arg(long, value_name = "NAME")]
    app_id: Option<String>,
    /// The AMQP `content_encoding` to assume.
    #[arg(long, value_name = "NAME")]
    content_encoding: Option<String>,
    /// The AMQP `content_type` to assume. The worker ignores it.
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// A header to assume. The worker stores none, and drops those of dead letters.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
}

/// How the result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Github,
    Junit,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    if name.is_empty() || name.len() > 255 {
        return Err("a name has 1 to 255 bytes".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

impl ValidateArgs {
    pub fn run(&self, config: &ConfigArgs) -> Result<u8, CommandError> {
        self.note_properties();
        let (rules, exchange) = self.source.rules_and_exchange(config)?;
        let mut decoder = Decoder::new(Arc::new(rules));
        let format = if self.json { Format::Json } else { self.format };
        let mut report = Report::new(format, self.strict);
        let standard_input = [PathBuf::from("-")];
        let files = if self.files.is_empty() { &standard_input[..] } else { &self.files };
        let mut is_unreadable = false;
        for file in files {
            match self.check_file(&exchange, &mut decoder, &mut report, file) {
                // The others are checked all the same.
                Err(error) if error.code == exit::NO_INPUT => {
                    note(format_args!("{:#}", error.error));
                    is_unreadable = true;
                }
                other => other?,
            }
        }
        let is_empty = report.is_empty() && !is_unreadable && !self.allow_empty;
        let (failed, printed) = report.finish();
        if is_empty {
            note("there is no message in the input; pass --allow-empty if that is right");
        }
        let code = match (is_unreadable, failed || is_empty) {
            (true, _) => exit::NO_INPUT,
            (false, true) => exit::DATA,
            (false, false) => 0,
        };
        after_printing(Ok(code), printed)
    }

    /// Says what becomes of properties that change nothing.
    fn note_properties(&self) {
        let is_text = |content_type: &String| content_type.to_ascii_lowercase().contains("json");
        if self.content_type.as_ref().is_some_and(|content_type| !is_text(content_type)) {
            note("content_type is ignored: the body must be JSON in UTF-8 whatever it says");
        }
        for (name, _) in &self.headers {
            if name.starts_with("dl-") || name == "x-death" {
                note(format_args!("the worker drops the header {name}, which belongs to dead letters"));
            }
        }
    }

    fn check_file(
        &self,
        exchange: &str,
        decoder: &mut Decoder,
        report: &mut Report,
        file: &Path,
    ) -> Result<(), CommandError> {
        let address = self.routing_key.as_deref().map(|routing_key| Address { exchange, routing_key });
        let mut is_first = true;
        let mut is_skipped = false;
        read_messages(&[file.to_owned()], self.whole, |input| {
            let hint = if is_first && !self.whole { hint(&input.body) } else { None };
            is_first = false;
            if is_skipped {
                return Ok(());
            }
            let message = Message {
                address,
                body: &input.body,
                message_id: self.message_id.as_deref(),
                timestamp: self.timestamp,
                app_id: self.app_id.as_deref(),
                content_encoding: self.content_encoding.as_deref(),
                ..Message::default()
            };
            let mut seen = see(decoder, &message, &input);
            if let Some((text, is_whole_file)) = hint {
                seen.hint = Some(text);
                is_skipped = is_whole_file;
            }
            report.add(&seen, self.whole);
            Ok(())
        })
    }
}

/// What a file is, by its first line, if it is not NDJSON; and whether its further lines are not messages either.
fn hint(first_line: &[u8]) -> Option<(&'static str, bool)> {
    match first_line.trim_ascii() {
        b"{" => Some((PRETTY, true)),
        b"[" => Some((ARRAY, true)),
        [b'[', ..] => Some((ARRAY, false)),
        _ => None,
    }
}

/// Decodes one message.
fn see<'a>(decoder: &mut Decoder, message: &Message, input: &'a InputMessage) -> Seen<'a> {
    let result = decoder.decode(message, || [0; 12]);
    let (findings, faults) = match &result {
        Ok(event) => (explained(decoder, message, event), Vec::new()),
        Err(_) => (Vec::new(), decoder.faults(message)),
    };
    Seen { file: &input.file, line: input.line, event: result.ok(), findings, faults, hint: None }
}

fn explained(decoder: &Decoder, message: &Message, event: &Event) -> Vec<Finding> {
    let ahead = findings_of_clock(event.time, message.timestamp, now_millis() as f64);
    let found: Findings = event.findings.and(ahead);
    found.iter().map(|kind| Finding { kind: kind.as_str(), text: decoder.explain(event, kind) }).collect()
}

/// The name of an identity in JSON.
fn identity_name(identity: Identity) -> &'static str {
    match identity {
        Identity::Body => "_id",
        Identity::MessageId => "message_id",
        Identity::Uuid => "uuid",
        Identity::DeadLetter | Identity::None => "none",
    }
}

/// The detail, without the line in the message if a message is one line: the line in the file is what the reader needs.
fn detail_of(rejection: &Rejection, whole: bool) -> String {
    if whole { rejection.detail.to_string() } else { rejection.detail.replace("at line 1 column ", "at column ") }
}
