//! Owns `ticketlog dead stats`: one screen about a dead-letter queue.

use std::io::Write as _;

use clap::Args;
use serde_json::json;

use crate::config::Settings;
use crate::dead_letter::{Groups, escape, harmless_json};

use super::super::Fault;
use super::scan::Scan;
use super::{Selection, Target, age, count, stamp};

/// Fingerprints on the screen.
const SHOWN: usize = 20;
/// Characters of a cause.
const WIDE: usize = 160;

/// Flags of `ticketlog dead stats`.
#[derive(Debug, Args)]
pub(super) struct Stats {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    selection: Selection,
    /// Everything as one JSON object.
    #[arg(long)]
    json: bool,
}

impl Stats {
    pub async fn run(&self, settings: &Settings) -> Result<u8, Fault> {
        let mut scan = Scan::open(settings, &self.target, Some(&self.selection)).await?;
        let mut groups = Groups::default();
        let walked = async {
            while let Some(found) = scan.next().await? {
                groups.add(&found.record, found.delivery.body.len());
            }
            Ok(())
        }
        .await;
        scan.close(walked).await?;
        let queue = self.target.queue(settings);
        let text = if self.json { as_json(queue, &groups) } else { as_text(queue, &groups) };
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(0)
    }
}

fn as_json(queue: &str, groups: &Groups) -> String {
    let (oldest, newest) = groups.span();
    let by_reason: serde_json::Map<_, _> =
        groups.by_cause().into_iter().map(|(cause, count)| (cause.as_str().to_owned(), json!(count))).collect();
    let by_fingerprint: Vec<_> = groups
        .largest_first()
        .into_iter()
        .map(|group| {
            json!({
                "fingerprint": group.fingerprint, "reason": group.cause.as_str(), "field": group.field,
                "detail": group.detail, "routing_key": group.routing_key, "count": group.count,
                "oldest": group.oldest, "newest": group.newest, "replayed": group.replayed,
            })
        })
        .collect();
    let by_replays: serde_json::Map<_, _> =
        groups.by_replays.iter().map(|(times, count)| (times.to_string(), json!(count))).collect();
    let all = json!({
        "queue": queue, "count": groups.count, "bytes": groups.bytes, "oldest": oldest, "newest": newest,
        "by_reason": by_reason, "by_replays": by_replays, "by_fingerprint": by_fingerprint,
    });
    format!("{}\n", harmless_json(&all.to_string()))
}

fn as_text(queue: &str, groups: &Groups) -> String {
    let (oldest, newest) = groups.span();
    let total = count(groups.count, "dead letter");
    let mut out = format!("{queue}: {total}, {} bytes\n", groups.bytes);
    if groups.count == 0 {
        return out;
    }
    let line =
        format!("oldest {} ({} ago), newest {} ({} ago)\n", stamp(oldest), age(oldest), stamp(newest), age(newest));
    out.push_str(&line);
    let replays: Vec<String> = groups
        .by_replays
        .iter()
        .map(|(times, count)| if *times == 0 { format!("never {count}") } else { format!("{times}× {count}") })
        .collect();
    out.push_str(&format!("replayed: {}\n\n   count  reason\n", replays.join(", ")));
    for (cause, count) in groups.by_cause() {
        out.push_str(&format!("{count:>8}  {}\n", cause.as_str()));
    }
    out.push_str("\n   count  fingerprint       newest  cause\n");
    let largest = groups.largest_first();
    for group in largest.iter().take(SHOWN) {
        let (newest, key) = (age(group.newest), escape(&group.routing_key));
        let cause = format!("{} · {} · {key}", group.cause.as_str(), escape(&group.detail));
        let (cause, print): (String, String) =
            (cause.chars().take(WIDE).collect(), escape(&group.fingerprint).chars().take(16).collect());
        out.push_str(&format!("{:>8}  {print:<16}  {newest:>6}  {cause}\n", group.count));
    }
    if largest.len() > SHOWN {
        out.push_str(&format!("          … {} more; --json has them all\n", largest.len() - SHOWN));
    }
    out
}
