//! Owns `ticketlog dead list`: a line for each dead letter, as soon as it is seen.

use std::io::{IsTerminal as _, stdout};

use clap::Args;
use serde_json::json;

use crate::config::Settings;
use crate::dead_letter::{escape, harmless_json};

use super::super::Fault;
use super::super::terminal::Lines;
use super::scan::{Found, Scan};
use super::{Selection, Target, age, stamp};

/// Flags of `ticketlog dead list`.
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    selection: Selection,
    /// A JSON object a line.
    #[arg(long)]
    json: bool,
}

const NAMES: [&str; 10] =
    ["pos", "age", "reason", "field", "detail", "message id", "routing key", "bytes", "replays", "id"];
/// Widths of the columns on a terminal; the last is as wide as it is.
const WIDTHS: [usize; 10] = [6, 5, 18, 12, 50, 24, 24, 8, 7, 0];

impl List {
    pub async fn run(&self, settings: &Settings) -> Result<u8, Fault> {
        let mut scan = Scan::open(settings, &self.target, Some(&self.selection)).await?;
        let lines = Lines::to(Box::new(stdout()));
        let listed = self.list(&mut scan, &lines).await;
        let (listed, written) = (scan.close(listed).await, lines.end().await);
        written?;
        listed
    }

    async fn list(&self, scan: &mut Scan, lines: &Lines) -> Result<u8, Fault> {
        let wide = stdout().is_terminal() && !self.json;
        if wide {
            lines.line(aligned(&NAMES.map(str::to_owned))).await?;
        }
        while let Some(found) = scan.next().await? {
            let line = match (self.json, wide) {
                (true, _) => as_json(&found),
                (false, true) => aligned(&columns(&found)),
                (false, false) => columns(&found).join("\t"),
            };
            lines.line(line).await?;
        }
        Ok(0)
    }
}

fn columns(found: &Found) -> [String; 10] {
    let record = &found.record;
    let or_dash = |text: Option<&str>| text.filter(|text| !text.is_empty()).map_or("-".to_owned(), escape);
    [
        found.position.to_string(),
        age(record.time),
        record.cause.as_str().to_owned(),
        or_dash(record.field.as_deref()),
        or_dash(Some(&record.detail)),
        or_dash(found.delivery.message_id()),
        or_dash(Some(&record.routing_key)),
        found.delivery.body.len().to_string(),
        record.replays.to_string(),
        or_dash(record.id.as_deref()),
    ]
}

/// Cells cut to the width of their columns.
fn aligned(cells: &[String; 10]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(WIDTHS) {
        let long = width > 0 && cell.chars().count() > width;
        let shown: String = if long { cell.chars().take(width - 1).chain(['…']).collect() } else { cell.clone() };
        line.push_str(&format!("{shown:<width$}  "));
    }
    line.trim_end().to_owned()
}

fn as_json(found: &Found) -> String {
    let (record, delivery) = (&found.record, &found.delivery);
    let line = json!({
        "position": found.position, "id": record.id, "time": record.time, "time_text": stamp(record.time),
        "reason": record.cause.as_str(), "field": record.field, "detail": record.detail,
        "message_id": delivery.message_id(), "exchange": record.exchange, "routing_key": record.routing_key,
        "bytes": delivery.body.len(), "replays": record.replays, "replay_id": record.replay_id,
        "fingerprint": record.fingerprint, "worker": record.worker,
    });
    harmless_json(&line.to_string())
}
