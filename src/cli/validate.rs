//! `ticketlog validate`: what the worker would do with the messages of files.

use std::io::{BufWriter, ErrorKind, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use ticketlog_config::RouteSettings;
use ticketlog_contract::dead_letter::{escape, terminal_safe};
use ticketlog_contract::{Address, Decoder, Event, Identity, Message, Printed, Rejection};

use super::source::{InputMessage, read_messages};
use super::terminal::after_printing;
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
    /// The routing key to assume: the worker of a route rejects messages that are meant for another one [default: none, as if they were
    /// sent to the queue by its name].
    #[arg(long, value_name = "KEY")]
    routing_key: Option<String>,
    /// The AMQP `message_id` to assume.
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// The AMQP `content_encoding` to assume.
    #[arg(long, value_name = "NAME")]
    content_encoding: Option<String>,
}

impl ValidateArgs {
    pub fn run(&self, settings: &RouteSettings) -> Result<u8, CommandError> {
        let mut decoder = Decoder::new(Arc::new(settings.rules()));
        let mut out = BufWriter::new(std::io::stdout().lock());
        let (mut accepted, mut rejected) = (0usize, 0usize);
        let exchange = settings.broker.exchange.as_str();
        let address = self.routing_key.as_deref().map(|routing_key| Address { exchange, routing_key });
        // A closed output hides no rejection: the rest is read to know whether there is one.
        let mut written = Ok(());
        let ended = read_messages(&self.files, self.whole, |input| {
            let message = Message {
                address,
                body: &input.body,
                message_id: self.message_id.as_deref(),
                content_encoding: self.content_encoding.as_deref(),
                ..Message::default()
            };
            let result = decoder.decode(&message, || [0; 12]);
            *(if result.is_ok() { &mut accepted } else { &mut rejected }) += 1;
            if written.is_ok() {
                written = self.write(&mut out, &input, &result);
            }
            if written.is_err() && rejected > 0 {
                Err(std::io::Error::from(ErrorKind::BrokenPipe).into())
            } else {
                Ok(())
            }
        });
        if written.is_ok() && ended.is_ok() && !self.json {
            written = writeln!(out, "{accepted} would be stored, {rejected} would become dead letters");
        }
        let written = written.and_then(|()| out.flush()).map_err(CommandError::from);
        let ended = ended.or_else(|error| if written.is_err() && error.is_broken_pipe() { Ok(()) } else { Err(error) });
        after_printing(ended.map(|()| if rejected == 0 { 0 } else { exit::DATA }), written)
    }

    fn write(
        &self,
        out: &mut impl Write,
        input: &InputMessage,
        result: &Result<Event, Rejection>,
    ) -> std::io::Result<()> {
        if self.json {
            writeln!(out, "{}", terminal_safe(&as_json(input, result)))
        } else if let Err(rejection) = result {
            let (file, detail) = (escape(&input.file), escape(&rejection.detail));
            writeln!(out, "{file}:{}: {}: {detail}", input.line, rejection.reason.as_str())
        } else {
            Ok(())
        }
    }
}

/// One message that would be stored. The document keeps its order.
#[derive(Serialize)]
struct Stored<'a> {
    file: &'a str,
    line: usize,
    outcome: &'static str,
    identity: &'static str,
    document: Printed<'a>,
}

fn as_json(input: &InputMessage, result: &Result<Event, Rejection>) -> String {
    let InputMessage { file, line, .. } = input;
    let json = match result {
        Ok(event) => {
            let identity = match event.identity {
                Identity::Body => "_id",
                Identity::MessageId => "message_id",
                Identity::Uuid => "uuid",
                Identity::DeadLetter | Identity::None => "none",
            };
            let document = event.to_bson();
            let document = Printed(&document);
            let stored = Stored { file, line: *line, outcome: "stored", identity, document };
            return serde_json::to_string(&stored).unwrap_or_default();
        }
        Err(rejection) => json!({
            "file": file, "line": line, "outcome": "dead_lettered", "reason": rejection.reason.as_str(),
            "field": rejection.field, "detail": rejection.detail,
        }),
    };
    json.to_string()
}
