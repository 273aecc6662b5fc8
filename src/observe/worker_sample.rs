//! Owns what a worker says about itself at one time: its `/status` and its `/metrics`. Must not know how it is shown.

use std::time::{Duration, Instant};

use serde_json::Value;
use url::Url;

use crate::http_client;

/// How long a worker may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The comment with which `/metrics` begins, followed by the id of the process, which `/status` names too.
pub(super) const PROCESS_COMMENT: &str = "# process ";

/// The answers of one worker.
#[derive(Clone)]
pub struct Sample {
    at: Instant,
    /// Which process it was: behind one address there may be several, or another one after a restart.
    process: Option<String>,
    /// Its `/status`.
    pub status: Value,
    metrics: Vec<(String, f64)>,
}

impl Sample {
    /// Asks a worker; none if it does not answer.
    pub async fn read(worker: &Url) -> Option<Self> {
        let urls = [worker.join("/status").ok()?, worker.join("/metrics").ok()?];
        let [status, metrics] = http_client::get_both(urls.each_ref(), TIMEOUT).await?;
        let status: Value = serde_json::from_slice(&status).ok()?;
        Some(Sample::new(Instant::now(), status, &String::from_utf8_lossy(&metrics)))
    }

    /// From the two answers. If they are of two processes, the metrics are left out.
    fn new(at: Instant, status: Value, metrics: &str) -> Sample {
        let named = metrics.lines().find_map(|line| line.strip_prefix(PROCESS_COMMENT));
        let of_status = status.get("process").and_then(Value::as_str);
        let is_one = named.is_none() || of_status.is_none() || named == of_status;
        let metrics = if is_one { parse(metrics) } else { Vec::new() };
        // Workers of earlier versions do not name themselves.
        let start = metrics.iter().find(|(series, _)| series == "process_start_time_seconds");
        let process = of_status.map(str::to_owned).or_else(|| start.map(|(_, time)| time.to_string()));
        Sample { at, process, status, metrics }
    }

    /// Whether both are of the same process; only then their numbers belong together.
    pub fn is_of_same_process(&self, other: &Sample) -> bool {
        self.process == other.process
    }

    /// What it says of each of its routes, the first one first.
    pub fn routes(&self) -> Vec<Sample> {
        let of = |status: &Value| {
            let queue = status.get("queue").and_then(Value::as_str).unwrap_or_default();
            let label = format!("queue=\"{}\"", queue.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"));
            let metrics = self.metrics.iter().filter(|(series, _)| series.contains(&label)).cloned().collect();
            let mut status = status.clone();
            if let Value::Object(status) = &mut status {
                status.remove("routes");
                for key in ["version", "uptime_seconds"] {
                    status.insert(key.to_owned(), self.status.get(key).cloned().unwrap_or_default());
                }
            }
            Sample { at: self.at, process: self.process.clone(), status, metrics }
        };
        route_statuses(&self.status).map(of).collect()
    }

    /// What it says of the route that consumes this queue; of the first one if there is none.
    pub fn of_queue(self, queue: &str) -> Sample {
        let has = |sample: &Sample| sample.status.get("queue").and_then(Value::as_str) == Some(queue);
        self.routes().into_iter().find(has).unwrap_or(self)
    }

    /// Whether it was taken within the last second.
    pub fn is_recent(&self) -> bool {
        self.at.elapsed() < Duration::from_secs(1)
    }

    /// Whether it says that it is ready, in all its routes.
    pub fn is_ready(&self) -> bool {
        route_statuses(&self.status).all(|status| status.get("ready") == Some(&Value::Bool(true)))
    }

    /// The sum of all series of this name whose labels contain `label`, such as `outcome="stored"`; none if there is none,
    /// or if it is unknown (NaN).
    pub fn value(&self, name: &str, label: &str) -> Option<f64> {
        let values = self.series(name, label).map(|(_, value)| value).filter(|value| !value.is_nan());
        values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    }

    /// How much a counter grew in a second since an earlier sample of the same process.
    pub fn rate(&self, before: &Sample, name: &str, label: &str) -> Option<f64> {
        if !self.is_of_same_process(before) {
            return None;
        }
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let growth = self.value(name, label)? - before.value(name, label).unwrap_or(0.0);
        Some(growth.max(0.0) / seconds.max(0.001))
    }

    /// The quantile of a histogram: of what was added since an earlier sample of the same process, or else of everything.
    pub fn quantile(&self, before: Option<&Sample>, name: &str, quantile: f64) -> Option<f64> {
        let bucket = format!("{name}_bucket");
        let buckets = |sample: &Sample| -> Vec<(f64, f64)> {
            let bound = |labels: &str| labels.split("le=\"").nth(1)?.split('"').next()?.parse().ok();
            sample.series(&bucket, "le=").filter_map(|(labels, count)| Some((bound(labels)?, count))).collect()
        };
        let now = buckets(self);
        let earlier = before.filter(|before| self.is_of_same_process(before)).map(buckets).unwrap_or_default();
        let added = now.iter().map(|(bound, count)| {
            let known = earlier.iter().find(|(other, _)| other == bound).map_or(0.0, |(_, count)| *count);
            (*bound, count - known)
        });
        let added: Vec<_> = added.collect();
        quantile_of(&added, quantile).or_else(|| quantile_of(&now, quantile))
    }

    fn series<'a>(&'a self, name: &'a str, label: &'a str) -> impl Iterator<Item = (&'a str, f64)> + 'a {
        let found = self.metrics.iter().filter_map(move |(series, value)| {
            let labels = series.strip_prefix(name)?;
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, *value))
        });
        found.filter(move |(labels, _)| labels.contains(label))
    }
}

/// What `/status` says of each route.
pub fn route_statuses(status: &Value) -> impl Iterator<Item = &Value> {
    let further = status.get("routes").and_then(Value::as_array).into_iter().flatten();
    std::iter::once(status).chain(further)
}

/// What `/status` says of the route that consumes this queue; of the first one if there is none.
pub fn status_of_queue<'a>(status: &'a Value, queue: &str) -> &'a Value {
    let has = |status: &&Value| status.get("queue").and_then(Value::as_str) == Some(queue);
    route_statuses(status).find(has).unwrap_or(status)
}

/// The series of Prometheus' text format, without timestamps.
fn parse(text: &str) -> Vec<(String, f64)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(series, value)| Some((series.to_owned(), value.parse().ok()?)))
        .collect()
}

/// As Prometheus' `histogram_quantile`: the buckets are cumulative, and values within one are spread evenly.
fn quantile_of(buckets: &[(f64, f64)], quantile: f64) -> Option<f64> {
    let total = buckets.iter().map(|(_, count)| *count).fold(0.0, f64::max);
    if total <= 0.0 {
        return None;
    }
    let wanted = total * quantile;
    let (mut lower, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= wanted {
            let within = if *count > below { (wanted - below) / (count - below) } else { 0.0 };
            return Some(if bound.is_finite() { lower + (bound - lower) * within } else { lower });
        }
        (lower, below) = (*bound, *count);
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(text: &str, at: Instant) -> Sample {
        Sample::new(at, Value::Null, text)
    }

    #[test]
    fn the_numbers_of_two_processes_are_never_mixed() {
        let start = Instant::now();
        let sample = |status, metrics, received, seconds| {
            let text = format!("{PROCESS_COMMENT}{metrics}\na {received}\nh_bucket{{le=\"1\"}} {received}\n");
            Sample::new(start + Duration::from_secs(seconds), serde_json::json!({ "process": status }), &text)
        };
        let before = sample("p", "p", 100, 0);
        assert_eq!(sample("p", "p", 300, 2).rate(&before, "a", ""), Some(100.0));
        let other = sample("q", "q", 300, 2);
        assert_eq!((other.rate(&before, "a", ""), other.quantile(Some(&before), "h", 1.0)), (None, Some(1.0)));
        assert_eq!((other.value("a", ""), sample("p", "q", 300, 2).value("a", "")), (Some(300.0), None));
        let earlier_version =
            |time| Sample::new(start, Value::Null, &format!("process_start_time_seconds {time}\na 1\n"));
        assert!(earlier_version(1.5).is_of_same_process(&earlier_version(1.5)));
        assert!(!earlier_version(1.5).is_of_same_process(&earlier_version(1.6)));
    }

    #[test]
    fn values_are_summed_by_label_and_rates_are_per_second() {
        let text = "# TYPE a counter\na{outcome=\"x\"} 5\na{outcome=\"y\"} 2\nab 9\nn NaN\n";
        let start = Instant::now();
        let before = sample(text, start);
        assert_eq!((before.value("a", ""), before.value("a", "\"x\"")), (Some(7.0), Some(5.0)));
        assert_eq!((before.value("n", ""), before.value("missing", "")), (None, None));
        let now = sample("a{outcome=\"x\"} 25\n", start + Duration::from_secs(2));
        assert_eq!(now.rate(&before, "a", "\"x\""), Some(10.0));
    }

    #[test]
    fn quantiles_are_those_of_what_was_added() {
        let start = Instant::now();
        let text = |low, high| {
            format!("h_bucket{{le=\"1\"}} {low}\nh_bucket{{le=\"2\"}} {high}\nh_bucket{{le=\"+Inf\"}} {high}\n")
        };
        let (before, now) = (sample(&text(10, 10), start), sample(&text(10, 14), start));
        assert_eq!(now.quantile(Some(&before), "h", 0.5), Some(1.5));
        assert_eq!(before.quantile(None, "h", 0.5), Some(0.5));
        assert_eq!(now.quantile(Some(&now), "h", 1.0), Some(2.0));
        assert_eq!(sample("", start).quantile(None, "h", 0.5), None);
    }
}
