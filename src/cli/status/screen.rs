//! How a worker is shown: as lines of at most the terminal's width, and as JSON.

use std::time::Duration;

use serde_json::{Value, json};
use url::Url;

use ticketlog_config::format::{self, age};
use ticketlog_contract::dead_letter::escape;
use ticketlog_status::{DeadLetterSummary, RouteRates, RouteStatus, Sample, SuspectEvents, WorkerStatus};

use super::super::terminal::{fit, green, red, wrapped};

/// Most recent dead letters that are listed.
const MAX_RECENT: usize = 5;

/// A route of a worker.
pub(super) struct Seen<'a> {
    pub worker: &'a Url,
    pub before: Option<&'a Sample>,
    pub now: &'a Sample,
    pub route: &'a RouteStatus,
}

impl Seen<'_> {
    /// As JSON.
    pub fn as_json(&self) -> Value {
        let rates = self.now.rates(self.route, self.before);
        let numbers = rates.as_ref().map(|rates| rates.numbers);
        let latency = rates.as_ref().map(|rates| rates.latency).unwrap_or_default();
        let status = WorkerStatus { first: self.route.clone(), others: Vec::new(), ..self.now.status.clone() };
        json!({
            "worker": self.worker.as_str(), "status": status,
            "per_second": rates.as_ref().map(|rates| rates.per_second).unwrap_or_default(),
            "backlog": numbers.map(|numbers| numbers.backlog), "consumers": numbers.map(|numbers| numbers.consumers),
            "in_flight": numbers.map(|numbers| numbers.in_flight),
            "drains_in_seconds": rates.as_ref().map(RouteRates::drains_in),
            "event_to_stored_seconds": { "p50": latency.0, "p99": latency.1 },
            "seconds_since_stored": numbers.map(|numbers| numbers.seconds_since_stored),
            "dead_letters": numbers.map(|numbers| numbers.dead_letters), "parked": numbers.map(|numbers| numbers.parked),
            "unpublished": numbers.map(|numbers| numbers.unpublished),
        })
    }

    /// As lines.
    pub fn lines(&self) -> Vec<String> {
        let (status, route) = (&self.now.status, self.route);
        let state = if route.ready { green("ready") } else { red("not ready") };
        let host = self.worker.authority();
        let up = humantime::format_duration(Duration::from_secs(status.uptime_seconds)).to_string();
        let (queue, collection) = (escape(&route.queue), escape(&route.collection));
        let mut lines = vec![
            format!("{host}  {state}  up {}, version {}", first_units(&up), escape(&status.version)),
            fit(&format!("  from queue    {queue} to {collection}")),
        ];
        match self.now.rates(route, self.before) {
            Some(rates) => lines.extend(number_lines(&rates)),
            None => lines.push(note(
                "this worker is older than this command and does not tell its numbers here; /metrics has them, and so has \
                 `ticketlog status` of the worker's own version",
            )),
        }
        if self.before.is_some_and(|before| !before.is_of_same_process(self.now)) {
            lines.push(note(
                "another worker has answered here before: it was restarted, or several share this address; rates are \
                 unknown",
            ));
        }
        lines.extend(component_lines(route));
        lines.extend(suspect_line(route));
        lines.extend(recent_lines(route));
        lines.push(String::new());
        lines
    }
}

fn note(text: &str) -> String {
    wrapped(&format!("  note          {text}"), 16)
}

fn number_lines(rates: &RouteRates) -> Vec<String> {
    let (numbers, per_second) = (rates.numbers, &rates.per_second);
    let drains = rates.drains_in().map(|seconds| format!(", empty in {}", format::seconds(seconds)));
    let stored =
        numbers.seconds_since_stored.map_or("nothing so far".to_owned(), |ago| format!("{} ago", format::seconds(ago)));
    vec![
        format!(
            "  per second    {} received, {} stored, {} duplicate, {} dead-lettered",
            decimal(per_second.received),
            decimal(per_second.stored),
            decimal(per_second.duplicate),
            decimal(per_second.dead_lettered)
        ),
        format!(
            "  backlog       {} messages, consumers: {}, in flight: {}{}",
            count(numbers.backlog),
            count(numbers.consumers),
            numbers.in_flight,
            drains.unwrap_or_default()
        ),
        format!(
            "  latency       p50 {}, p99 {} from event to stored; last stored {stored}",
            rates.latency.0.map_or("?".to_owned(), format::seconds),
            rates.latency.1.map_or("?".to_owned(), format::seconds)
        ),
        format!(
            "  dead letters  {} waiting, {} parked, {} not published yet",
            count(numbers.dead_letters),
            count(numbers.parked),
            numbers.unpublished
        ),
    ]
}

fn component_lines(route: &RouteStatus) -> Vec<String> {
    let (up, down) = route.components();
    let mut lines = Vec::new();
    if !up.is_empty() {
        lines.push(format!("  up            {}", escape(&up.join(", "))));
    }
    for (name, problem) in down {
        lines.push(wrapped(&format!("  {}          {}: {}", red("down"), escape(name), escape(problem)), 16));
    }
    for warning in &route.warnings {
        lines.push(wrapped(&format!("  warning       {}", escape(warning)), 16));
    }
    lines
}

/// What is found most often in stored events.
fn suspect_line(route: &RouteStatus) -> Option<String> {
    let one = |suspects: &SuspectEvents| {
        format!("{} {} of {}", suspects.count, escape(&suspects.kind), escape(&suspects.publisher))
    };
    let most: Vec<_> = route.suspect_events.iter().take(MAX_RECENT).map(one).collect();
    (!most.is_empty())
        .then(|| wrapped(&format!("  suspect       {} (stored; docs/publish/findings.md)", most.join(", ")), 16))
}

fn recent_lines(route: &RouteStatus) -> Vec<String> {
    let line = |dead_letter: &DeadLetterSummary| {
        let time = age(Some(dead_letter.time));
        fit(&format!("  {time:>4} ago      {}: {}", escape(&dead_letter.cause), escape(&dead_letter.detail)))
    };
    route.last_dead_letters.iter().take(MAX_RECENT).map(line).collect()
}

/// The two largest units of a duration: `2days 3h`.
fn first_units(duration: &str) -> String {
    duration.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

fn decimal(number: Option<f64>) -> String {
    number.map_or("?".to_owned(), |number| format!("{number:.1}"))
}

fn count(number: Option<u32>) -> String {
    number.map_or("?".to_owned(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uptime_has_two_units() {
        assert_eq!(first_units("2days 3h 4m 1s"), "2days 3h");
    }
}
