//! `ticketlog dead stats`: the statistics of a dead-letter queue on one screen.

use std::collections::BTreeMap;
use std::io::Write as _;

use clap::Args;
use serde_json::json;

use ticketlog_config::RouteSettings;
use ticketlog_config::format::{age, dead_letters, rfc3339};
use ticketlog_contract::dead_letter::{DeadLetterFields, Groups, SameIds, bounded, escape, terminal_safe};
use ticketlog_desk::{DeadLetter, DeadLetterReader, Run};

use super::super::CommandError;
use super::super::terminal::wrapped;
use super::super::terminal_report::TerminalReport;
use super::selection::{QueueArgs, Selection};

/// Most fingerprints that are printed as text.
const MAX_FINGERPRINTS: usize = 20;
/// Most publishers, and most routing keys, that are counted by name; and of each that are printed as text.
const MAX_NAMES: usize = 200;
const MAX_PRINTED_NAMES: usize = 10;
/// Most characters of a printed cause.
const MAX_CAUSE: usize = 160;
/// The column where causes begin.
const CAUSE_COLUMN: usize = 36;

/// Flags of `ticketlog dead stats`.
#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    #[command(flatten, next_help_heading = "Queue")]
    queue: QueueArgs,
    #[command(flatten, next_help_heading = "Which dead letters")]
    selection: Selection,
    /// Print everything as one JSON object.
    #[arg(long)]
    json: bool,
}

impl StatsArgs {
    pub async fn run(&self, settings: &RouteSettings) -> Result<u8, CommandError> {
        let report = TerminalReport::reading();
        let run = Run { settings, report: &report };
        let reader = DeadLetterReader::open(run, &self.selection.of(self.queue.source(settings))).await?;
        let (mut groups, mut same_ids) = (Groups::default(), SameIds::with_capacity(reader.total() as usize));
        let mut names = Names::default();
        let add = |dead_letter: DeadLetter| {
            let fields = dead_letter.delivery.dead_letter_fields(&dead_letter.record, &dead_letter.id);
            groups.add(&fields, dead_letter.delivery.body.len());
            same_ids.add(&dead_letter.id, dead_letter.position);
            names.add(&fields);
        };
        reader.read_all(add).await?;
        // Its progress bar is no longer in the way.
        drop(report);
        let queue = self.queue.name(settings);
        let text = if self.json {
            as_json(queue, &groups, &names, same_ids.count)
        } else {
            as_text(queue, &groups, &names, same_ids.count)
        };
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(0)
    }
}

/// How many are of which publisher (`app_id`, or else `user_id`), and how many have which routing key.
#[derive(Default)]
struct Names {
    publishers: BTreeMap<String, u64>,
    routing_keys: BTreeMap<String, u64>,
}

impl Names {
    fn add(&mut self, fields: &DeadLetterFields) {
        let publisher = fields.publisher.filter(|name| !name.is_empty()).unwrap_or("unknown");
        *bounded(&mut self.publishers, publisher, MAX_NAMES) += 1;
        *bounded(&mut self.routing_keys, fields.routing_key, MAX_NAMES) += 1;
    }
}

/// A table of counts, the largest first.
fn counts(title: &str, counts: &BTreeMap<String, u64>) -> String {
    let mut all: Vec<_> = counts.iter().collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let mut out = format!("\n   count  {title}\n");
    for (name, count) in all.iter().take(MAX_PRINTED_NAMES) {
        out.push_str(&format!("{count:>8}  {}\n", escape(name)));
    }
    if all.len() > MAX_PRINTED_NAMES {
        out.push_str(&format!("          … {} more; --json prints them\n", all.len() - MAX_PRINTED_NAMES));
    }
    out
}

fn as_json(queue: &str, groups: &Groups, names: &Names, same_id: u64) -> String {
    let (oldest, newest) = groups.span();
    let by_reason: serde_json::Map<_, _> =
        groups.by_cause().into_iter().map(|(cause, count)| (cause.as_str().to_owned(), json!(count))).collect();
    let by_fingerprint: Vec<_> = groups
        .largest_first()
        .into_iter()
        .map(|group| {
            json!({
                "fingerprint": group.fingerprint, "reason": group.cause.as_str(), "field": group.field,
                "detail": group.detail, "count": group.count, "first_id": group.id, "first_message_id": group.message_id,
                "oldest": group.oldest, "newest": group.newest, "replayed": group.replayed, "by_publisher": group.publishers,
            })
        })
        .collect();
    let by_replays: serde_json::Map<_, _> =
        groups.by_replays.iter().map(|(times, count)| (times.to_string(), json!(count))).collect();
    let all = json!({
        "queue": queue, "count": groups.count, "same_id": same_id, "bytes": groups.bytes, "oldest": oldest, "newest": newest,
        "by_reason": by_reason, "by_publisher": names.publishers, "by_routing_key": names.routing_keys, "by_replays": by_replays,
        "by_fingerprint": by_fingerprint,
    });
    format!("{}\n", terminal_safe(&all.to_string()))
}

fn as_text(queue: &str, groups: &Groups, names: &Names, same_id: u64) -> String {
    let (oldest, newest) = groups.span();
    let total = dead_letters(groups.count);
    let mut out = format!("{queue}: {total}, {} bytes\n", groups.bytes);
    if groups.count == 0 {
        return out;
    }
    let line =
        format!("oldest {} ({} ago), newest {} ({} ago)\n", rfc3339(oldest), age(oldest), rfc3339(newest), age(newest));
    out.push_str(&line);
    let replays: Vec<String> = groups
        .by_replays
        .iter()
        .map(|(times, count)| if *times == 0 { format!("never {count}") } else { format!("{times}× {count}") })
        .collect();
    out.push_str(&format!("replayed: {}\n", replays.join(", ")));
    if same_id > 0 {
        out.push_str(&format!("same id as another: {same_id} (each is a dead letter of its own)\n"));
    }
    out.push_str("\n   count  reason\n");
    for (cause, count) in groups.by_cause() {
        out.push_str(&format!("{count:>8}  {}\n", cause.as_str()));
    }
    out.push_str(&counts("publisher", &names.publishers));
    out.push_str(&counts("routing key", &names.routing_keys));
    out.push_str("\n   count  fingerprint       newest  cause\n");
    let largest = groups.largest_first();
    for group in largest.iter().take(MAX_FINGERPRINTS) {
        let newest = age(group.newest);
        let cause = format!("{}: {}", group.cause.as_str(), escape(&group.detail));
        let (cause, fingerprint): (String, String) =
            (cause.chars().take(MAX_CAUSE).collect(), escape(&group.fingerprint).chars().take(16).collect());
        let line = format!("{:>8}  {fingerprint:<16}  {newest:>6}  {cause}", group.count);
        out.push_str(&wrapped(&line, CAUSE_COLUMN));
        out.push('\n');
    }
    if largest.len() > MAX_FINGERPRINTS {
        out.push_str(&format!("          … {} more; --json prints all\n", largest.len() - MAX_FINGERPRINTS));
    }
    out
}
