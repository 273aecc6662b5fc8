//! Owns `ticketlog dead list`: one line for each dead letter, printed as soon as it is read. Must not know how a queue is
//! browsed.

use std::io::{IsTerminal as _, stdout};

use clap::Args;
use serde_json::json;

use crate::config::Settings;
use crate::dead_letter::{escape, terminal_safe_json};

use super::super::CommandError;
use super::super::terminal::LineWriter;
use super::format::{age, rfc3339};
use super::reader::{LetterReader, SelectedLetter};
use super::selection::{QueueArgs, Selection};

/// Flags of `ticketlog dead list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    queue: QueueArgs,
    #[command(flatten)]
    selection: Selection,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

const COLUMN_NAMES: [&str; 10] =
    ["pos", "age", "reason", "field", "detail", "message id", "routing key", "bytes", "replays", "id"];
/// Widths of the columns on a terminal; 0 is unlimited.
const COLUMN_WIDTHS: [usize; 10] = [6, 5, 18, 12, 50, 24, 24, 8, 7, 0];

impl ListArgs {
    pub async fn run(&self, settings: &Settings) -> Result<u8, CommandError> {
        let mut reader = LetterReader::open(settings, &self.queue, Some(&self.selection)).await?;
        let lines = LineWriter::new(Box::new(stdout()));
        let listed = self.list(&mut reader, &lines).await;
        let (listed, written) = (reader.close(listed).await, lines.finish().await);
        written?;
        listed
    }

    async fn list(&self, reader: &mut LetterReader, lines: &LineWriter) -> Result<u8, CommandError> {
        let in_columns = stdout().is_terminal() && !self.json;
        if in_columns {
            lines.write(aligned(&COLUMN_NAMES.map(str::to_owned))).await?;
        }
        while let Some(letter) = reader.next().await? {
            let line = match (self.json, in_columns) {
                (true, _) => as_json(&letter),
                (false, true) => aligned(&columns(&letter)),
                (false, false) => columns(&letter).join("\t"),
            };
            lines.write(line).await?;
        }
        Ok(0)
    }
}

fn columns(letter: &SelectedLetter) -> [String; 10] {
    let record = &letter.record;
    let or_dash = |text: Option<&str>| text.filter(|text| !text.is_empty()).map_or("-".to_owned(), escape);
    [
        letter.position.to_string(),
        age(record.time),
        record.cause.as_str().to_owned(),
        or_dash(record.field.as_deref()),
        or_dash(Some(&record.detail)),
        or_dash(letter.delivery.message_id()),
        or_dash(Some(&record.routing_key)),
        letter.delivery.body.len().to_string(),
        record.replays.to_string(),
        or_dash(record.id.as_deref()),
    ]
}

/// The cells as one line, each cut or padded to the width of its column.
fn aligned(cells: &[String; 10]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(COLUMN_WIDTHS) {
        let too_long = width > 0 && cell.chars().count() > width;
        let shown: String = if too_long { cell.chars().take(width - 1).chain(['…']).collect() } else { cell.clone() };
        line.push_str(&format!("{shown:<width$}  "));
    }
    line.trim_end().to_owned()
}

fn as_json(letter: &SelectedLetter) -> String {
    let (record, delivery) = (&letter.record, &letter.delivery);
    let line = json!({
        "position": letter.position, "id": record.id, "time": record.time, "time_text": rfc3339(record.time),
        "reason": record.cause.as_str(), "field": record.field, "code": record.code, "detail": record.detail,
        "message_id": delivery.message_id(), "exchange": record.exchange, "routing_key": record.routing_key,
        "bytes": delivery.body.len(), "replays": record.replays, "replay_id": record.replay_id,
        "fingerprint": record.fingerprint, "worker": record.worker,
    });
    terminal_safe_json(&line.to_string())
}
