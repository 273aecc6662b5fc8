//! Owns `ticketlog validate`: runs the worker's decoder over files. Must not know the decoder's rules.

use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use crate::config::Settings;
use crate::event::{Decoder, Event, Identity, Message, Rejection};

use super::source::{InputMessage, read_messages};
use super::{CommandError, exit};

/// Flags of `ticketlog validate`.
#[derive(Debug, Args)]
pub(super) struct ValidateArgs {
    /// NDJSON: one message a line [default: standard input, also `-`].
    files: Vec<PathBuf>,
    /// Each file is one message.
    #[arg(long)]
    whole: bool,
    /// Print one JSON object for each message, with the document that would be stored.
    #[arg(long)]
    json: bool,
    /// The AMQP `message_id` to assume.
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// The AMQP `content_encoding` to assume.
    #[arg(long, value_name = "NAME")]
    content_encoding: Option<String>,
}

impl ValidateArgs {
    pub fn run(&self, settings: &Settings) -> Result<u8, CommandError> {
        let mut decoder = Decoder::new(Arc::new(settings.rules()));
        let mut out = BufWriter::new(std::io::stdout().lock());
        let (mut accepted, mut rejected) = (0usize, 0usize);
        read_messages(&self.files, self.whole, |input| {
            let message = Message {
                body: &input.body,
                message_id: self.message_id.as_deref(),
                content_encoding: self.content_encoding.as_deref(),
                ..Message::default()
            };
            let result = decoder.decode(&message, || [0; 12]);
            if result.is_ok() {
                accepted += 1
            } else {
                rejected += 1
            }
            if self.json {
                writeln!(out, "{}", as_json(&input, &result))?;
            } else if let Err(rejection) = &result {
                writeln!(out, "{}:{}: {}: {}", input.file, input.line, rejection.reason.as_str(), rejection.detail)?;
            }
            Ok(())
        })?;
        out.flush()?;
        if !self.json {
            writeln!(out, "{accepted} would be stored, {rejected} would become dead letters")?;
            out.flush()?;
        }
        Ok(if rejected == 0 { 0 } else { exit::DATA })
    }
}

fn as_json(input: &InputMessage, result: &Result<Event, Rejection>) -> Value {
    let InputMessage { file, line, .. } = input;
    match result {
        Ok(event) => {
            let identity = match event.identity {
                Identity::Body => "_id",
                Identity::MessageId => "message_id",
                Identity::Uuid => "uuid",
                Identity::DeadLetter | Identity::None => "none",
            };
            json!({ "file": file, "line": line, "outcome": "stored", "identity": identity, "document": document(event) })
        }
        Err(rejection) => json!({
            "file": file, "line": line, "outcome": "dead_lettered", "reason": rejection.reason.as_str(),
            "field": rejection.field, "detail": rejection.detail,
        }),
    }
}

/// The document as relaxed extended JSON, as `mongosh` and `mongoexport` write it. Without an identity it has no `_id`: the
/// worker makes a fresh one for each delivery.
fn document(event: &Event) -> Value {
    let Ok(mut document) = bson::Document::from_reader(event.document.as_slice()) else { return Value::Null };
    if event.identity == Identity::None {
        document.remove("_id");
    }
    serde_json::to_value(&document).unwrap_or(Value::Null)
}
