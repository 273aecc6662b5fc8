//! `ticketlog dead show`: one dead letter with everything about it, safe for a terminal.

use std::borrow::Cow;
use std::io::{IsTerminal as _, Write as _};

use clap::{Args, ValueEnum};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use ticketlog_config::RouteSettings;
use ticketlog_config::format::{age, rfc3339};
use ticketlog_contract::dead_letter::{escape, fault_offset, indent_json, render_hex, render_text, terminal_safe};
use ticketlog_desk::{DeadLetter, DeadLetterReader, DeskError, Run, readable_body};

use super::super::terminal_report::TerminalReport;
use super::super::{CommandError, exit};
use super::selection::QueueArgs;

/// Most bytes shown in hexadecimal, without --full.
const MAX_HEX_BYTES: usize = 1024;

/// Flags of `ticketlog dead show`.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// A `dl-id` as `dead list` shows it, a message_id, or `@N` for the N-th in the queue.
    id: String,
    #[command(flatten, next_help_heading = "Queue")]
    queue: QueueArgs,
    /// How to show the body.
    #[arg(long, value_enum, default_value_t = BodyFormat::Auto)]
    body: BodyFormat,
    /// Show the whole body instead of an excerpt.
    #[arg(long)]
    full: bool,
    /// Print only the bytes of the body.
    #[arg(long, conflicts_with_all = ["json", "body"])]
    raw: bool,
    /// Print the line that `dead export` writes.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BodyFormat {
    /// As text if it is UTF-8, else in hexadecimal.
    Auto,
    /// As text.
    Text,
    /// Indented, if it is JSON.
    Json,
    /// In hexadecimal.
    Hex,
}

impl ShowArgs {
    pub async fn run(&self, settings: &RouteSettings) -> Result<u8, CommandError> {
        let report = TerminalReport::reading();
        let run = Run { settings, report: &report };
        let mut reader = DeadLetterReader::open(run, &self.queue.source(settings).into()).await?;
        let dead_letter = self.find(&mut reader).await;
        let dead_letter = reader.close(dead_letter).await?;
        drop(report);
        let Some(dead_letter) = dead_letter else {
            let text = format!("queue {} has no dead letter {}", self.queue.name(settings), escape(&self.id));
            return Err(CommandError::text(exit::NO_INPUT, text));
        };
        let mut out = std::io::stdout();
        if self.raw {
            self.check_raw(&dead_letter.delivery.body)?;
            out.write_all(&dead_letter.delivery.body)?;
        } else if self.json {
            writeln!(out, "{}", dead_letter.archive(self.queue.name(settings)))?;
        } else {
            out.write_all(self.render(&dead_letter, settings).as_bytes())?;
        }
        out.flush()?;
        Ok(0)
    }

    /// A terminal would obey what is in a body.
    fn check_raw(&self, body: &[u8]) -> Result<(), CommandError> {
        let text = String::from_utf8_lossy(body);
        if std::io::stdout().is_terminal() && terminal_safe(&text) != text {
            let text = "the body has characters that a terminal obeys or hides; redirect the output to a file, or leave out --raw";
            return Err(CommandError::usage(text));
        }
        Ok(())
    }

    async fn find(&self, reader: &mut DeadLetterReader) -> Result<Option<DeadLetter>, DeskError> {
        let wanted_position: Option<u32> = self.id.strip_prefix('@').and_then(|number| number.parse().ok());
        while let Some(dead_letter) = reader.next().await? {
            let is_at_position = wanted_position == Some(dead_letter.position);
            if is_at_position || dead_letter.id == self.id || dead_letter.delivery.message_id() == Some(&self.id) {
                return Ok(Some(dead_letter));
            }
        }
        Ok(None)
    }

    fn render(&self, dead_letter: &DeadLetter, settings: &RouteSettings) -> String {
        let (record, delivery) = (&dead_letter.record, &dead_letter.delivery);
        let (properties, headers) = delivery.to_json();
        let since = format!("{} ({} ago)", rfc3339(record.time), age(record.time));
        let field = record.field.as_ref().map(|field| format!(", field {}", escape(field))).unwrap_or_default();
        let from = format!("exchange {:?}, routing key {:?}", escape(&record.exchange), escape(&record.routing_key));
        let mut out = format!(
            "dead letter {}, at {} of {}\n  why      {}{field}\n           {}\n  since    {since}\n  from     {from}\n  replays  {}\n",
            escape(&dead_letter.id),
            dead_letter.position,
            self.queue.name(settings),
            record.cause.as_str(),
            escape(&record.detail),
            record.replays,
        );
        push_section(&mut out, "properties", &properties);
        push_section(&mut out, "headers", &headers);
        let body = readable_body(delivery, &settings.rules());
        let encoding = match (&body, delivery.content_encoding()) {
            (Cow::Owned(body), Some(name)) => format!(", {} after {} decompression", body.len(), escape(name)),
            _ => String::new(),
        };
        out.push_str(&format!("body, {} bytes{encoding}\n", delivery.body.len()));
        out.push_str(&self.render_body(dead_letter, &body));
        out
    }

    fn render_body(&self, dead_letter: &DeadLetter, body: &[u8]) -> String {
        let record = &dead_letter.record;
        let max = if self.full { usize::MAX } else { MAX_HEX_BYTES };
        let readable = match self.body {
            BodyFormat::Hex => None,
            BodyFormat::Text => Some(String::from_utf8_lossy(body)),
            BodyFormat::Auto | BodyFormat::Json => std::str::from_utf8(body).ok().map(Cow::Borrowed),
        };
        let Some(readable) = readable else {
            return render_hex(body, max, fault_offset("", &record.detail, None));
        };
        if self.body == BodyFormat::Json && serde_json::from_str::<IgnoredAny>(&readable).is_ok() {
            return render_text(&indent_json(&readable), None, self.full);
        }
        render_text(&readable, fault_offset(&readable, &record.detail, record.field.as_deref()), self.full)
    }
}

fn push_section(out: &mut String, name: &str, values: &Map<String, Value>) {
    if values.is_empty() {
        return;
    }
    out.push_str(&format!("{name}\n"));
    for (name, value) in values {
        let value = match value {
            Value::String(text) => escape(text),
            other => escape(&other.to_string()),
        };
        out.push_str(&format!("  {:<20} {value}\n", escape(name)));
    }
}
