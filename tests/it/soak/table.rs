//! Owns what a run reports: the samples with their slopes, the verdict on each, and the oracle's numbers. It is written after every
//! sample, so that a run that is killed leaves what it has.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::faults::Happened;
use super::oracle::SoakReport;
use super::processes::Replays;
use super::samples::{SERIES, Sample};
use super::{Plan, RATE};

/// Shorter runs get no verdict: their second half is not past the start.
const LEAST_HOURS: f64 = 1.0;

pub struct Table {
    plan: Plan,
    versions: String,
    samples: Vec<Sample>,
    published: i32,
    end: String,
    happened: String,
    oracle: String,
}

impl Table {
    pub fn new(plan: Plan, versions: String) -> Self {
        let (samples, published) = (Vec::new(), 0);
        let (end, oracle) = ("The run has not ended.".to_owned(), "The oracle has not looked.\n".to_owned());
        Table { plan, versions, samples, published, end, happened: String::new(), oracle }
    }

    pub fn add(&mut self, sample: Sample, published: i32) {
        let values = SERIES.iter().zip(&sample.values).map(|((name, _), value)| format!("{name} {}", cell(*value)));
        println!("{:.3} h, {published} published; {}", sample.hours, values.collect::<Vec<_>>().join("; "));
        self.samples.push(sample);
        self.published = published;
        self.write();
    }

    pub fn ends(&mut self, length: Duration, why: Option<String>) {
        let hours = length.as_secs_f64() / 3600.0;
        self.end = match why {
            None => format!("The load lasted {hours:.2} hours."),
            Some(why) => {
                format!("The load lasted {hours:.2} of {:.2} hours: {why}.", self.plan.length.as_secs_f64() / 3600.0)
            }
        };
        self.write();
    }

    pub fn faults(&mut self, happened: &Happened, replays: Replays) {
        let faults: Vec<String> = happened.iter().map(|(fault, times)| format!("{} {times}", fault.name())).collect();
        self.happened = format!(
            "Faults: {}. Replays: {} ({} ended by a fault).",
            faults.join(", "),
            replays.done + replays.failed,
            replays.failed
        );
        self.write();
    }

    pub fn oracle(&mut self, report: &SoakReport) {
        self.published = report.published;
        self.oracle = format!(
            "| published | malformed | stored | edited and stored | dead-lettered | parked | copies | returned | lost | doubled | unexpected |\n\
             |---|---|---|---|---|---|---|---|---|---|---|\n\
             | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            report.published,
            report.malformed,
            report.stored,
            report.edited,
            report.dead,
            report.parked,
            report.copies,
            report.returned,
            report.lost.len(),
            report.doubled.len(),
            report.unexpected.len()
        );
        self.write();
    }

    /// The names of what grows; empty if the run was too short to tell.
    pub fn growing(&self) -> Vec<String> {
        let names = SERIES.iter().zip(self.trends()).filter(|(_, trend)| trend.verdict() == "yes");
        names.map(|((name, _), _)| (*name).to_owned()).collect()
    }

    fn trends(&self) -> Vec<Trend> {
        let trend = |(at, (_, allowed)): (usize, &(&str, f64))| {
            let values = self.samples.iter().filter_map(|sample| Some((sample.hours, sample.values[at]?)));
            Trend::of(&values.collect::<Vec<_>>(), *allowed)
        };
        SERIES.iter().enumerate().map(trend).collect()
    }

    /// In Markdown.
    pub fn text(&self) -> String {
        let mut text = wrapped(&format!(
            "{}, ticketlog {}, {}. {} At {RATE} events a second, {} were published. Seed {}. {}",
            self.versions,
            env!("CARGO_PKG_VERSION"),
            date(),
            self.end,
            self.published,
            self.plan.seed,
            self.happened
        ));
        text += &format!("\n{}\n", self.oracle);
        text += "| what | first | middle | last | most | an hour | an hour, second half | grows |\n|---|---|---|---|---|---|---|---|\n";
        for ((name, _), trend) in SERIES.iter().zip(self.trends()) {
            let cells = [trend.first, trend.middle, trend.last, trend.most, trend.slope, trend.late_slope].map(cell);
            text += &format!("| {name} | {} | {} |\n", cells.join(" | "), trend.verdict());
        }
        text
    }

    fn write(&self) {
        let Some(path) = std::env::var_os("SOAK_TABLE") else { return };
        std::fs::write(path, self.text()).unwrap();
    }
}

/// How a value changes in the course of a run.
struct Trend {
    first: Option<f64>,
    middle: Option<f64>,
    last: Option<f64>,
    most: Option<f64>,
    /// An hour, over the whole run and over its second half.
    slope: Option<f64>,
    late_slope: Option<f64>,
    /// Half of the run.
    late_hours: f64,
    allowed: f64,
    /// Whether the median of the last quarter is above nine tenths of the first half. Some values have two levels, such as the
    /// connections before and after an election.
    is_new: bool,
}

impl Trend {
    fn of(values: &[(f64, f64)], allowed: f64) -> Self {
        let hours = values.last().map_or(0.0, |(hours, _)| *hours);
        let late: Vec<(f64, f64)> = values.iter().copied().filter(|(at, _)| *at >= hours / 2.0).collect();
        let value = |at: Option<&(f64, f64)>| at.map(|(_, value)| *value);
        Trend {
            first: value(values.first()),
            middle: value(late.first()),
            last: value(values.last()),
            most: values.iter().map(|(_, value)| *value).reduce(f64::max),
            slope: slope(values),
            late_slope: slope(&late),
            late_hours: hours / 2.0,
            allowed,
            is_new: quantile(values, hours * 0.75..=hours, 0.5) > quantile(values, 0.0..=hours / 2.0, 0.9),
        }
    }

    /// It grows if the slope of the second half makes it more than it may, and more than it was.
    fn verdict(&self) -> &'static str {
        match self.late_slope {
            Some(slope) if self.late_hours * 2.0 >= LEAST_HOURS - 0.02 => {
                if self.is_new && slope * self.late_hours > self.allowed { "yes" } else { "no" }
            }
            _ => "too short to tell",
        }
    }
}

/// The median of the slopes between all pairs (Theil and Sen), which single outliers do not change.
fn slope(values: &[(f64, f64)]) -> Option<f64> {
    let later = |(at, from): (usize, &(f64, f64))| {
        let from = *from;
        values[at + 1..].iter().map(move |to| (to.1 - from.1) / (to.0 - from.0))
    };
    let mut slopes: Vec<f64> = values.iter().enumerate().flat_map(later).collect();
    slopes.sort_by(f64::total_cmp);
    slopes.get(slopes.len() / 2).copied()
}

/// The quantile of the values of a time.
fn quantile(values: &[(f64, f64)], hours: RangeInclusive<f64>, part: f64) -> Option<f64> {
    let mut found: Vec<f64> = values.iter().filter(|(at, _)| hours.contains(at)).map(|(_, value)| *value).collect();
    found.sort_by(f64::total_cmp);
    found.get((found.len() as f64 * part) as usize).copied()
}

fn cell(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        // No `-0`.
        Some(value) if value.abs() < 0.005 => "0".to_owned(),
        Some(value) if value.fract() == 0.0 => format!("{value}"),
        Some(value) => format!("{value:.2}"),
    }
}

/// Lines of at most 120 columns.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().unwrap();
        if last.is_empty() {
            last.push_str(word);
        } else if last.len() + 1 + word.len() <= 120 {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n") + "\n"
}

/// Today, in UTC.
fn date() -> String {
    humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string().split('T').next().unwrap().to_owned()
}

#[test]
fn a_slope_is_the_median_of_all_pairs() {
    let values: Vec<(f64, f64)> = (0..60).map(|at| (f64::from(at), 3.0 * f64::from(at))).collect();
    assert_eq!(slope(&values), Some(3.0));
    let with_outlier: Vec<(f64, f64)> = (0..60).map(|at| (f64::from(at), if at == 50 { 900.0 } else { 7.0 })).collect();
    assert_eq!(slope(&with_outlier), Some(0.0));
    assert_eq!(slope(&values[..1]), None);
}

#[test]
fn only_the_second_half_counts() {
    let verdict = |value: fn(f64) -> f64| {
        let values: Vec<(f64, f64)> = (0..=120).map(|at| f64::from(at) / 60.0).map(|at| (at, value(at))).collect();
        Trend::of(&values, 2.0).verdict()
    };
    assert_eq!(verdict(|at| 40.0 + at.min(0.8) * 50.0), "no", "a start");
    assert_eq!(verdict(|at| 40.0 + at * 1.9), "no");
    assert_eq!(verdict(|at| 40.0 + at * 2.1), "yes");
    assert_eq!(verdict(|at| if (0.3..0.5).contains(&at) || at > 1.4 { 14.0 } else { 7.0 }), "no", "two levels");
    let values: Vec<(f64, f64)> = (0..30).map(|at| (f64::from(at) / 60.0, f64::from(at))).collect();
    assert_eq!(Trend::of(&values, 2.0).verdict(), "too short to tell");
}
