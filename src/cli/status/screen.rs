//! Owns how a worker is shown: as lines of at most the terminal's width, and as JSON. Must not know where the numbers come
//! from.

use std::time::Duration;

use serde_json::{Value, json};
use url::Url;

use crate::dead_letter::escape;
use crate::desk::age;
use crate::observe::worker_numbers::WorkerNumbers;
use crate::observe::worker_sample::Sample;

use super::super::terminal::{fit, green, red, wrapped};

/// Most recent dead letters that are listed.
const MAX_RECENT: usize = 5;

/// One worker as JSON.
pub(super) fn as_json(worker: &Url, before: Option<&Sample>, now: &Sample) -> Value {
    let numbers = WorkerNumbers::new(before, now);
    json!({
        "worker": worker.as_str(), "status": now.status,
        "per_second": { "received": numbers.received, "stored": numbers.stored, "dead_lettered": numbers.dead_lettered, "duplicate": numbers.duplicates },
        "backlog": numbers.backlog, "consumers": numbers.consumers, "in_flight": numbers.in_flight,
        "drains_in_seconds": numbers.drains_in(),
        "event_to_stored_seconds": { "p50": numbers.latency.0, "p99": numbers.latency.1 },
        "seconds_since_stored": numbers.last_stored,
        "dead_letters": numbers.dead_letters, "parked": numbers.parked, "unpublished": numbers.unpublished,
    })
}

/// One worker as lines.
pub(super) fn lines(worker: &Url, before: Option<&Sample>, now: &Sample) -> Vec<String> {
    let text = |name: &str| now.status.get(name).and_then(Value::as_str).map(escape).unwrap_or_default();
    let uptime = now.status.get("uptime_seconds").and_then(Value::as_u64).unwrap_or(0);
    let state = if now.is_ready() { green("ready") } else { red("not ready") };
    let host = worker.authority();
    let up = humantime::format_duration(Duration::from_secs(uptime)).to_string();
    let mut lines = vec![
        format!("{host}  {state}  up {}, version {}", first_units(&up), text("version")),
        fit(&format!("  from queue    {} to {}", text("queue"), text("collection"))),
    ];
    lines.extend(number_lines(&WorkerNumbers::new(before, now)));
    if before.is_some_and(|before| !before.is_of_same_process(now)) {
        let text = "another worker has answered here before: it was restarted, or several share this address; rates are \
                    unknown";
        lines.push(wrapped(&format!("  note          {text}"), 16));
    }
    lines.extend(component_lines(&now.status));
    lines.extend(recent_lines(&now.status));
    lines.push(String::new());
    lines
}

fn number_lines(numbers: &WorkerNumbers) -> Vec<String> {
    let drains = numbers.drains_in().map(|seconds| format!(", empty in {}", seconds_text(Some(seconds))));
    let stored =
        numbers.last_stored.map_or("nothing so far".to_owned(), |ago| format!("{} ago", seconds_text(Some(ago))));
    vec![
        format!(
            "  per second    {} received, {} stored, {} duplicate, {} dead-lettered",
            decimal(numbers.received),
            decimal(numbers.stored),
            decimal(numbers.duplicates),
            decimal(numbers.dead_lettered)
        ),
        format!(
            "  backlog       {} messages, consumers: {}, in flight: {}{}",
            count(numbers.backlog),
            count(numbers.consumers),
            count(numbers.in_flight),
            drains.unwrap_or_default()
        ),
        format!(
            "  latency       p50 {}, p99 {} from event to stored; last stored {stored}",
            seconds_text(numbers.latency.0),
            seconds_text(numbers.latency.1)
        ),
        format!(
            "  dead letters  {} waiting, {} parked, {} not published yet",
            count(numbers.dead_letters),
            count(numbers.parked),
            count(numbers.unpublished)
        ),
    ]
}

fn component_lines(status: &Value) -> Vec<String> {
    let components = status.get("components").and_then(Value::as_object).into_iter().flatten();
    let state = |(name, value): (&String, &Value)| (escape(name), value.as_str().map(escape).unwrap_or_default());
    let (up, down): (Vec<_>, Vec<_>) = components.map(state).partition(|(_, state)| state == "ok");
    let mut lines = Vec::new();
    if !up.is_empty() {
        let names: Vec<String> = up.into_iter().map(|(name, _)| name).collect();
        lines.push(format!("  up            {}", names.join(", ")));
    }
    for (name, problem) in down {
        lines.push(wrapped(&format!("  {}          {name}: {problem}", red("down")), 16));
    }
    let warnings = status.get("warnings").and_then(Value::as_array).into_iter().flatten();
    for warning in warnings.filter_map(Value::as_str) {
        lines.push(wrapped(&format!("  warning       {}", escape(warning)), 16));
    }
    lines
}

fn recent_lines(status: &Value) -> Vec<String> {
    let recent = status.get("last_dead_letters").and_then(Value::as_array).into_iter().flatten();
    let line = |letter: &Value| {
        let text = |name: &str| letter.get(name).and_then(Value::as_str).map(escape).unwrap_or_default();
        let time = age(letter.get("time").and_then(Value::as_i64));
        fit(&format!("  {time:>4} ago      {}: {}", text("cause"), text("detail")))
    };
    recent.take(MAX_RECENT).map(line).collect()
}

/// The two largest units of a duration: `2days 3h`.
fn first_units(duration: &str) -> String {
    duration.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

fn decimal(number: Option<f64>) -> String {
    number.map_or("?".to_owned(), |number| format!("{number:.1}"))
}

fn count(number: Option<f64>) -> String {
    number.map_or("?".to_owned(), |number| format!("{number:.0}"))
}

/// `4 ms`, `1.2 s`, `3 min`, `2.5 h`.
fn seconds_text(seconds: Option<f64>) -> String {
    match seconds {
        None => "?".to_owned(),
        Some(seconds) if seconds < 1.0 => format!("{:.0} ms", seconds * 1000.0),
        Some(seconds) if seconds < 120.0 => format!("{seconds:.1} s"),
        Some(seconds) if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        Some(seconds) => format!("{:.1} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_one_unit() {
        let texts = [None, Some(0.0042), Some(1.24), Some(150.0), Some(9000.0)].map(seconds_text);
        assert_eq!(texts, ["?", "4 ms", "1.2 s", "2 min", "2.5 h"]);
        assert_eq!(first_units("2days 3h 4m 1s"), "2days 3h");
    }
}
