//! Owns `ticketlog validate`: the worker's own decoder, run over files. Must not know the decoder's rules.

use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use crate::config::Settings;
use crate::event::{Decoder, Event, Identity, Message, Rejection};

use super::source::{self, Line};
use super::{Fault, source::lines};

/// Flags of `ticketlog validate`.
#[derive(Debug, Args)]
pub(super) struct Validate {
    /// NDJSON: one message a line. Standard input without any, or for `-`.
    files: Vec<PathBuf>,
    /// Each file is one message.
    #[arg(long)]
    whole: bool,
    /// One JSON object a message, with the document that would be stored.
    #[arg(long)]
    json: bool,
    /// The AMQP `message_id` to assume.
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// The AMQP `content_encoding` to assume.
    #[arg(long, value_name = "NAME")]
    content_encoding: Option<String>,
}

impl Validate {
    pub fn run(&self, settings: &Settings) -> Result<u8, Fault> {
        let mut decoder = Decoder::new(Arc::new(settings.rules()));
        let mut out = BufWriter::new(std::io::stdout().lock());
        let (mut good, mut bad) = (0usize, 0usize);
        lines(&self.files, self.whole, |line| {
            let message = Message {
                body: &line.body,
                message_id: self.message_id.as_deref(),
                content_encoding: self.content_encoding.as_deref(),
                ..Message::default()
            };
            let verdict = decoder.decode(&message, || [0; 12]);
            if verdict.is_ok() {
                good += 1
            } else {
                bad += 1
            }
            if self.json {
                writeln!(out, "{}", as_json(&line, &verdict))?;
            } else if let Err(rejection) = &verdict {
                writeln!(out, "{}:{}: {}: {}", line.file, line.number, rejection.reason.as_str(), rejection.detail)?;
            }
            Ok(())
        })?;
        out.flush()?;
        if !self.json {
            writeln!(out, "{good} would be stored, {bad} would become dead letters")?;
            out.flush()?;
        }
        Ok(if bad == 0 { 0 } else { 65 })
    }
}

fn as_json(line: &source::Line, verdict: &Result<Event, Rejection>) -> Value {
    let Line { file, number, .. } = line;
    match verdict {
        Ok(event) => {
            let identity = match event.identity {
                Identity::Body => "_id",
                Identity::MessageId => "message_id",
                Identity::Uuid => "uuid",
                Identity::Letter | Identity::None => "none",
            };
            json!({ "file": file, "line": number, "outcome": "stored", "identity": identity, "document": document(event) })
        }
        Err(rejection) => json!({
            "file": file, "line": number, "outcome": "dead_lettered", "reason": rejection.reason.as_str(),
            "field": rejection.field, "detail": rejection.detail,
        }),
    }
}

/// Relaxed extended JSON, as `mongosh` and `mongoexport` write it. Without an identity the `_id` is only made on arrival.
fn document(event: &Event) -> Value {
    let Ok(mut document) = bson::Document::from_reader(event.document.as_slice()) else { return Value::Null };
    if event.identity == Identity::None {
        document.remove("_id");
    }
    serde_json::to_value(&document).unwrap_or(Value::Null)
}
