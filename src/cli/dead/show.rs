//! Owns `ticketlog dead show`: one dead letter, whole, safe for a terminal.

use std::borrow::Cow;
use std::io::Write as _;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use crate::broker::Delivery;
use crate::config::Settings;
use crate::dead_letter::{Record, escape, fault_at, hex, text};
use crate::event;

use super::super::Fault;
use super::scan::{Found, Scan, message};
use super::{Target, age, stamp};

/// Bytes shown in hexadecimal, unless all are asked for.
const HEX: usize = 1024;

/// Flags of `ticketlog dead show`.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// The id that `dead list` shows, a message_id, or `@N` for the N-th of the queue.
    id: String,
    #[command(flatten)]
    target: Target,
    /// How to show the body.
    #[arg(long, value_enum, default_value_t = Form::Auto)]
    body: Form,
    /// All of the body, not an excerpt.
    #[arg(long)]
    full: bool,
    /// The bytes of the body and nothing else, as they are.
    #[arg(long, conflicts_with_all = ["json", "body"])]
    raw: bool,
    /// The line that `dead export` would write.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// As text where it is UTF-8, in hexadecimal otherwise.
    Auto,
    /// As it is.
    Text,
    /// Indented, if it is JSON.
    Json,
    /// In hexadecimal.
    Hex,
}

/// The one that is shown.
struct Subject {
    delivery: Delivery,
    record: Record,
    position: u32,
}

impl Show {
    pub async fn run(&self, settings: &Settings) -> Result<u8, Fault> {
        let mut scan = Scan::open(settings, &self.target, None).await?;
        let found = self.find(&mut scan).await;
        let Some(found) = scan.close(found).await? else {
            let text = format!("{} holds no dead letter {}", self.target.queue(settings), escape(&self.id));
            return Err(Fault::new(66, anyhow::Error::msg(text)));
        };
        let mut out = std::io::stdout();
        if self.raw {
            out.write_all(&found.delivery.body)?;
        } else if self.json {
            let archived = found.delivery.archive(&found.record, self.target.queue(settings));
            let archived = archived.ok_or_else(super::export::too_deep)?;
            writeln!(out, "{}", archived.to_line())?;
        } else {
            out.write_all(self.render(&found, settings).as_bytes())?;
        }
        out.flush()?;
        Ok(0)
    }

    async fn find(&self, scan: &mut Scan) -> Result<Option<Subject>, Fault> {
        let place: Option<u32> = self.id.strip_prefix('@').and_then(|place| place.parse().ok());
        while let Some(Found { delivery, record, position, .. }) = scan.next().await? {
            let id = Some(self.id.as_str());
            if place == Some(position) || record.id.as_deref() == id || delivery.message_id() == id {
                return Ok(Some(Subject { delivery, record, position }));
            }
        }
        Ok(None)
    }

    fn render(&self, found: &Subject, settings: &Settings) -> String {
        let (record, delivery) = (&found.record, &found.delivery);
        let (properties, headers) = delivery.shown();
        let since = format!("{} ({} ago)", stamp(record.time), age(record.time));
        let field = record.field.as_ref().map(|field| format!(", field {}", escape(field))).unwrap_or_default();
        let from = format!("exchange {:?}, routing key {:?}", escape(&record.exchange), escape(&record.routing_key));
        let mut out = format!(
            "dead letter {}, at {} of {}\n  why      {}{field}\n           {}\n  since    {since}\n  from     {from}\n  replays  {}\n",
            record.id.as_deref().map_or("without id".to_owned(), escape),
            found.position,
            self.target.queue(settings),
            record.cause.as_str(),
            escape(&record.detail),
            record.replays,
        );
        section(&mut out, "properties", &properties);
        section(&mut out, "headers", &headers);
        let plain = event::plain(&message(delivery), &settings.rules());
        let encoding = match (&plain, delivery.content_encoding()) {
            (Ok(Cow::Owned(plain)), Some(name)) => format!(", {} after {}", plain.len(), escape(name)),
            _ => String::new(),
        };
        out.push_str(&format!("body, {} bytes{encoding}\n", delivery.body.len()));
        out.push_str(&self.body(found, plain.as_deref().unwrap_or(&delivery.body)));
        out
    }

    fn body(&self, found: &Subject, body: &[u8]) -> String {
        let record = &found.record;
        let most = if self.full { usize::MAX } else { HEX };
        let readable = match self.body {
            Form::Hex => None,
            Form::Text => Some(String::from_utf8_lossy(body)),
            Form::Auto | Form::Json => std::str::from_utf8(body).ok().map(Cow::Borrowed),
        };
        let Some(readable) = readable else {
            return hex(body, most, fault_at("", &record.detail, None));
        };
        if self.body == Form::Json
            && let Ok(value) = serde_json::from_str::<Value>(&readable)
        {
            return text(&serde_json::to_string_pretty(&value).unwrap_or_default(), None, self.full);
        }
        text(&readable, fault_at(&readable, &record.detail, record.field.as_deref()), self.full)
    }
}

fn section(out: &mut String, name: &str, values: &Map<String, Value>) {
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
