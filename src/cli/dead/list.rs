//! `ticketlog dead list`: one line for each dead letter, printed as soon as it is read.

use std::io::stdout;

use clap::Args;
#[cfg(test)]
use console::measure_text_width;
use console::{Alignment, pad_str};
use serde_json::json;

use ticketlog_config::RouteSettings;
use ticketlog_config::format::{age, rfc3339};
use ticketlog_contract::dead_letter::{SameIds, escape, terminal_safe};
use ticketlog_desk::{DeadLetter, DeadLetterReader, DeskError, Run};

use super::super::CommandError;
use super::super::terminal::{LineWriter, after_printing, columns, note};
use super::super::terminal_report::TerminalReport;
use super::selection::{QueueArgs, Selection};

/// Flags of `ticketlog dead list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten, next_help_heading = "Queue")]
    queue: QueueArgs,
    #[command(flatten, next_help_heading = "Which dead letters")]
    selection: Selection,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// A column of the table on a terminal.
struct Column {
    name: &'static str,
    width: usize,
    /// The column with the lowest is left out first if the terminal is too narrow.
    importance: u8,
}

const fn column(name: &'static str, width: usize, importance: u8) -> Column {
    Column { name, width, importance }
}

const COLUMNS: [Column; 11] = [
    column("pos", 5, 9),
    column("age", 4, 8),
    column("reason", 20, 11),
    column("field", 10, 6),
    column("detail", 12, 7),
    column("message id", 24, 3),
    column("routing key", 20, 4),
    column("bytes", 7, 1),
    column("replays", 7, 2),
    column("id", 24, 10),
    column("publisher", 16, 5),
];
/// The column that takes what the others leave.
const DETAIL: usize = 4;
/// Columns between two cells.
const GAP: usize = 2;

/// The layout for a terminal of this width: the width of each column, 0 if it is left out.
fn layout(columns: usize) -> [usize; 11] {
    let mut widths = COLUMNS.map(|column| column.width);
    loop {
        let used: usize = widths.iter().filter(|width| **width > 0).map(|width| width + GAP).sum();
        if used <= columns + GAP {
            if let Some(detail) = widths.get_mut(DETAIL).filter(|width| **width > 0) {
                *detail += columns + GAP - used;
            }
            return widths;
        }
        let shown = widths.iter_mut().zip(&COLUMNS).filter(|(width, _)| **width > 0);
        let Some((least, _)) = shown.min_by_key(|(_, column)| column.importance) else { return widths };
        *least = 0;
    }
}

impl ListArgs {
    pub async fn run(&self, settings: &RouteSettings) -> Result<u8, CommandError> {
        let run = Run { settings, report: &TerminalReport::notes() };
        let mut reader = DeadLetterReader::open(run, &self.selection.of(self.queue.source(settings))).await?;
        let lines = LineWriter::new(Box::new(stdout()));
        let widths = columns().filter(|_| !self.json).map(layout);
        let listed = self.list(&mut reader, &lines, widths).await;
        let closed = reader.close(listed).await;
        let ended = after_printing(closed.map(|()| 0).map_err(CommandError::from), lines.finish().await);
        let hidden = widths.iter().flat_map(|widths| widths.iter().zip(&COLUMNS)).filter(|(width, _)| **width == 0);
        let names: Vec<&str> = hidden.map(|(_, column)| column.name).collect();
        if !names.is_empty() && ended.is_ok() {
            note(format_args!("not shown at this width: {} (--json shows all)", names.join(", ")));
        }
        ended
    }

    async fn list(
        &self,
        reader: &mut DeadLetterReader,
        lines: &LineWriter,
        widths: Option<[usize; 11]>,
    ) -> Result<(), DeskError> {
        let mut same_ids = SameIds::with_capacity(reader.total() as usize);
        let mut is_first = true;
        while let Some(dead_letter) = reader.next().await? {
            if let (Some(widths), true) = (&widths, std::mem::take(&mut is_first)) {
                lines.write(aligned(&COLUMNS.map(|column| column.name.to_owned()), widths)).await?;
            }
            let same_as = same_ids.add(&dead_letter.id, dead_letter.position);
            let line = match &widths {
                _ if self.json => as_json(&dead_letter, same_as),
                Some(widths) => aligned(&cells(&dead_letter, same_as), widths),
                None => cells(&dead_letter, same_as).join("\t"),
            };
            lines.write(line).await?;
        }
        Ok(())
    }
}

/// `same_as` is the position of an earlier dead letter with the same id.
fn cells(dead_letter: &DeadLetter, same_as: Option<u32>) -> [String; 11] {
    let record = &dead_letter.record;
    let or_dash = |text: Option<&str>| text.filter(|text| !text.is_empty()).map_or("-".to_owned(), escape);
    [
        dead_letter.position.to_string(),
        age(record.time),
        record.cause.as_str().to_owned(),
        or_dash(record.field.as_deref()),
        match same_as {
            Some(first) => format!("same id as @{first}: {}", escape(&record.detail)),
            None => or_dash(Some(&record.detail)),
        },
        or_dash(dead_letter.delivery.message_id()),
        or_dash(Some(&record.routing_key)),
        dead_letter.delivery.body.len().to_string(),
        record.replays.to_string(),
        or_dash(Some(&dead_letter.id)),
        or_dash(publisher(dead_letter)),
    ]
}

/// `app_id`, or else `user_id`.
fn publisher(dead_letter: &DeadLetter) -> Option<&str> {
    dead_letter.delivery.dead_letter_fields(&dead_letter.record, &dead_letter.id).publisher
}

/// The cells as one line, each cut or padded to the width of its column.
fn aligned(cells: &[String; 11], widths: &[usize; 11]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths).filter(|(_, width)| **width > 0) {
        line.push_str(&pad_str(cell, *width, Alignment::Left, Some("…")));
        line.push_str(&" ".repeat(GAP));
    }
    line.trim_end().to_owned()
}

fn as_json(dead_letter: &DeadLetter, same_as: Option<u32>) -> String {
    let (record, delivery) = (&dead_letter.record, &dead_letter.delivery);
    let line = json!({
        "position": dead_letter.position, "id": dead_letter.id, "same_id_as": same_as, "time": record.time, "time_text": rfc3339(record.time),
        "reason": record.cause.as_str(), "field": record.field, "code": record.code, "detail": record.detail,
        "publisher": publisher(dead_letter), "message_id": delivery.message_id(), "exchange": record.exchange, "routing_key": record.routing_key,
        "bytes": delivery.body.len(), "replays": record.replays, "replay_id": record.replay_id,
        "fingerprint": record.fingerprint, "worker": record.worker,
    });
    terminal_safe(&line.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_hides_the_least_important_columns() {
        for columns in [20, 80, 100, 160, 240] {
            let widths = layout(columns);
            let names: Vec<&str> =
                widths.iter().zip(&COLUMNS).filter(|(width, _)| **width > 0).map(|(_, column)| column.name).collect();
            let cells = std::array::from_fn(|_| "x".repeat(300));
            assert!(measure_text_width(&aligned(&cells, &widths)) <= columns, "{columns}: {names:?}");
            let expected: &[&str] = match columns {
                20 => &["reason"],
                80 => &["pos", "age", "reason", "detail", "id"],
                100 => &["pos", "age", "reason", "field", "detail", "id"],
                _ => &["pos", "age", "reason", "field", "detail", "message id"],
            };
            assert_eq!(names.get(..expected.len()), Some(expected), "{columns}");
        }
        assert_eq!(layout(240).iter().filter(|width| **width == 0).count(), 0);
    }
}
