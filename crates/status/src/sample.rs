//! What a worker says at one time, and the rates between two of these.

use std::time::{Duration, Instant};

use serde::Serialize;
use url::Url;

use ticketlog_http::client as http_client;

use crate::{LatencyBucket, RouteNumbers, RouteStatus, WorkerStatus};

/// How long a worker may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What a worker answers at `/status`; `None` if none answers.
pub async fn read_status(worker: &Url) -> Option<WorkerStatus> {
    ask(worker).await.ok()
}

/// Why an address gives no status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoStatus {
    /// Nothing answers in time.
    #[error("no worker answers")]
    NoAnswer,
    /// Something answers, with this HTTP status.
    #[error("something answers that is not a worker of ticketlog (HTTP {0} at /status)")]
    NoWorker(u16),
}

/// # Errors
/// Nothing answers, or no worker.
async fn ask(worker: &Url) -> Result<WorkerStatus, NoStatus> {
    let url = worker.join("/status").map_err(|_| NoStatus::NoAnswer)?;
    let (code, body) = http_client::get(&url, None, None, TIMEOUT).await.map_err(|_| NoStatus::NoAnswer)?;
    let status = Some(&body).filter(|_| code == 200).and_then(|body| serde_json::from_slice(body).ok());
    status.ok_or(NoStatus::NoWorker(code))
}

/// The answer of one worker.
#[derive(Debug, Clone)]
pub struct Sample {
    at: Instant,
    /// What it said.
    pub status: WorkerStatus,
}

/// How much was counted in a second; `None` if it is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct PerSecond {
    pub received: Option<f64>,
    pub stored: Option<f64>,
    pub dead_lettered: Option<f64>,
    pub duplicate: Option<f64>,
}

/// The numbers of a route, with what two samples tell together.
#[derive(Debug, Clone)]
pub struct RouteRates<'a> {
    /// Since the start.
    pub numbers: &'a RouteNumbers,
    /// Between the samples.
    pub per_second: PerSecond,
    /// Seconds from event to stored: the median, and 99 of 100. Of what was stored between the samples, or else of everything.
    pub latency: (Option<f64>, Option<f64>),
}

impl Sample {
    /// Asks a worker.
    ///
    /// # Errors
    /// Nothing answers, or no worker.
    pub async fn read(worker: &Url) -> Result<Self, NoStatus> {
        let status = ask(worker).await?;
        Ok(Sample { at: Instant::now(), status })
    }

    /// Whether both are of the same process: behind one address there may be several, or another one after a restart.
    pub fn is_of_same_process(&self, other: &Sample) -> bool {
        self.status.process == other.status.process
    }

    /// Whether it was taken within the last second.
    pub fn is_recent(&self) -> bool {
        self.at.elapsed() < Duration::from_secs(1)
    }

    /// The numbers of one of its routes, compared with an earlier sample of the same process. `None` if the worker does not tell them.
    pub fn rates<'a>(&self, route: &'a RouteStatus, before: Option<&Sample>) -> Option<RouteRates<'a>> {
        let numbers = route.numbers.as_ref()?;
        let before = before.filter(|before| self.is_of_same_process(before));
        let earlier = before.and_then(|before| before.status.routes().find(|earlier| earlier.queue == route.queue));
        let earlier = earlier.and_then(|earlier| earlier.numbers.as_ref());
        let seconds = before.map_or(0.0, |before| self.at.duration_since(before.at).as_secs_f64()).max(0.001);
        let rate = |count: fn(&RouteNumbers) -> u64| {
            earlier.map(|earlier| count(numbers).saturating_sub(count(earlier)) as f64 / seconds)
        };
        let all = &numbers.event_to_stored_seconds;
        let added = earlier.map(|earlier| added_to(&earlier.event_to_stored_seconds, all)).unwrap_or_default();
        let latency = |part| quantile(&added, part).or_else(|| quantile(all, part));
        let per_second = PerSecond {
            received: rate(|numbers| numbers.received),
            stored: rate(|numbers| numbers.stored),
            dead_lettered: rate(|numbers| numbers.dead_lettered),
            duplicate: rate(|numbers| numbers.duplicate),
        };
        Some(RouteRates { numbers, per_second, latency: (latency(0.5), latency(0.99)) })
    }
}

impl RouteRates<'_> {
    /// Seconds until the backlog is empty at the present rate.
    pub fn drains_in(&self) -> Option<f64> {
        let (backlog, stored) = (f64::from(self.numbers.backlog?), self.per_second.stored?);
        (backlog > 0.0 && stored > 0.0).then(|| backlog / stored)
    }
}

fn added_to(before: &[LatencyBucket], now: &[LatencyBucket]) -> Vec<LatencyBucket> {
    let added = |bucket: &LatencyBucket| {
        let earlier = before.iter().find(|earlier| earlier.up_to == bucket.up_to).map_or(0, |earlier| earlier.count);
        LatencyBucket { count: bucket.count.saturating_sub(earlier), ..*bucket }
    };
    now.iter().map(added).collect()
}

/// As Prometheus' `histogram_quantile`: values within a bucket are spread evenly.
fn quantile(buckets: &[LatencyBucket], part: f64) -> Option<f64> {
    let total: u64 = buckets.iter().map(|bucket| bucket.count).sum();
    let wanted = total as f64 * part;
    let (mut lower, mut below) = (0.0, 0.0);
    for LatencyBucket { up_to, count } in buckets.iter().filter(|_| total > 0) {
        let Some(bound) = up_to else { return Some(lower) };
        let count = *count as f64;
        if below + count >= wanted {
            return Some(lower + (bound - lower) * if count > 0.0 { (wanted - below) / count } else { 0.0 });
        }
        (lower, below) = (*bound, below + count);
    }
    (total > 0).then_some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(process: &str, seconds: u64, received: u64, latency: [u64; 3]) -> Sample {
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        let bounds = [Some(1.0), Some(2.0), None];
        let buckets = bounds.into_iter().zip(latency).map(|(up_to, count)| LatencyBucket { up_to, count });
        let numbers = RouteNumbers { received, event_to_stored_seconds: buckets.collect(), ..RouteNumbers::default() };
        let first = RouteStatus { numbers: Some(numbers), ..RouteStatus::default() };
        let status = WorkerStatus { process: process.to_owned(), first, ..WorkerStatus::default() };
        Sample { at: *START + Duration::from_secs(seconds), status }
    }

    fn rates<'a>(now: &'a Sample, before: Option<&Sample>) -> RouteRates<'a> {
        now.rates(&now.status.first, before).unwrap()
    }

    #[test]
    fn rates_are_per_second_and_never_between_two_processes() {
        let before = sample("p", 0, 100, [0; 3]);
        assert_eq!(rates(&sample("p", 2, 300, [0; 3]), Some(&before)).per_second.received, Some(100.0));
        let other = sample("q", 2, 300, [4, 0, 0]);
        let rates = rates(&other, Some(&before));
        assert_eq!((rates.per_second, rates.numbers.received), (PerSecond::default(), 300));
        assert_eq!(rates.latency.0, Some(0.5), "of everything");
        assert!(sample("q", 0, 0, [0; 3]).rates(&RouteStatus::default(), None).is_none());
    }

    #[test]
    fn quantiles_are_those_of_what_was_added() {
        let (before, now) = (sample("p", 0, 0, [10, 0, 0]), sample("p", 1, 0, [10, 4, 0]));
        assert_eq!(rates(&now, Some(&before)).latency.0, Some(1.5));
        assert_eq!(rates(&before, None).latency.0, Some(0.5));
        assert_eq!(rates(&now, Some(&now)).latency.0, Some(0.7), "nothing was added: of everything");
        assert_eq!(rates(&sample("p", 0, 0, [0, 0, 3]), None).latency, (Some(2.0), Some(2.0)));
        assert_eq!(rates(&sample("p", 0, 0, [0; 3]), None).latency, (None, None));
    }
}
