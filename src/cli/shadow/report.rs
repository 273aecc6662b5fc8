//! The report of `ticketlog shadow`: counts, examples, differences. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use ticketlog_contract::dead_letter::{bounded, escape};
use ticketlog_contract::{Rejection, different_fields, same_event};

/// Most causes, and fields, that are told apart; others are counted together.
const MAX_CAUSES: usize = 50;
/// Most characters of a field's name, which publishers choose.
const MAX_FIELD: usize = 100;

/// What a shadow has seen.
#[derive(Default)]
pub(super) struct Report {
    /// How long it has read.
    pub took: Duration,
    events: u64,
    bytes: u64,
    decoding: Duration,
    accepted: u64,
    /// By reason and field: how many, and the detail of the first.
    refused: BTreeMap<String, (u64, String)>,
    equal: u64,
    /// How many differ, and by field.
    different: u64,
    fields: BTreeMap<String, u64>,
    not_stored: u64,
    not_compared: u64,
}

impl Report {
    pub fn events(&self) -> u64 {
        self.events
    }

    /// An event with a body of this size, in bytes, was decoded in this time.
    pub fn decoded(&mut self, bytes: usize, took: Duration) {
        self.events += 1;
        self.bytes += bytes as u64;
        self.decoding += took;
    }

    pub fn accepted(&mut self) {
        self.accepted += 1;
    }

    pub fn refused(&mut self, rejection: &Rejection) {
        let (count, detail) = bounded(&mut self.refused, &rejection.reason_and_field(), MAX_CAUSES);
        if *count == 0 {
            *detail = rejection.detail.to_string();
        }
        *count += 1;
    }

    /// A document has no identity, or too many wait.
    pub fn not_compared(&mut self) {
        self.not_compared += 1;
    }

    /// What would be stored, and what is.
    pub fn compared(&mut self, own: &[u8], stored: Option<&[u8]>) {
        match stored {
            None => self.not_stored += 1,
            Some(stored) if same_event(own, stored) => self.equal += 1,
            Some(stored) => {
                self.different += 1;
                for field in different_fields(own, stored) {
                    let field: String = field.chars().take(MAX_FIELD).collect();
                    *bounded(&mut self.fields, &field, MAX_CAUSES) += 1;
                }
            }
        }
    }

    fn is_compared(&self) -> bool {
        self.equal + self.different + self.not_stored + self.not_compared > 0
    }

    fn micros(&self) -> f64 {
        self.decoding.as_secs_f64() * 1e6 / self.events.max(1) as f64
    }

    pub fn to_json(&self) -> Value {
        let refused: Vec<Value> = self
            .refused
            .iter()
            .map(|(cause, (count, detail))| json!({ "cause": cause, "count": count, "example": detail }))
            .collect();
        let compared = self.is_compared().then(|| {
            json!({
                "equal": self.equal, "different": self.different, "fields": self.fields, "not_stored": self.not_stored,
                "not_compared": self.not_compared,
            })
        });
        json!({
            "seconds": self.took.as_secs_f64(), "events": self.events, "bytes": self.bytes, "would_be_stored": self.accepted,
            "would_be_refused": refused, "decoding_us": self.micros(), "compared": compared,
        })
    }

    pub fn to_text(&self) -> String {
        let (events, bytes, seconds) = (self.events, self.bytes, self.took.as_secs_f64());
        let rate = events as f64 / seconds.max(1e-9);
        let mut text = format!(
            "{events} events ({bytes} bytes) in {seconds:.1} s, {rate:.0}/s; decoding took {:.1} us each\n",
            self.micros()
        );
        let _ = writeln!(text, "{:>10}  would be stored", self.accepted);
        for (cause, (count, detail)) in &self.refused {
            let _ = writeln!(text, "{count:>10}  would become dead letters: {cause}; the first: {detail}");
        }
        if self.is_compared() {
            let _ = writeln!(text, "compared with what the workers stored:");
            let _ = writeln!(text, "{:>10}  equal", self.equal);
            let fields: Vec<_> =
                self.fields.iter().map(|(field, count)| format!("{} ({count})", escape(field))).collect();
            let _ = writeln!(
                text,
                "{:>10}  different{}{}",
                self.different,
                if fields.is_empty() { "" } else { ": " },
                fields.join(", ")
            );
            let _ = writeln!(text, "{:>10}  not stored within five seconds", self.not_stored);
            if self.not_compared > 0 {
                let _ =
                    writeln!(text, "{:>10}  not compared: without identity, or too many at a time", self.not_compared);
            }
        }
        text.truncate(text.trim_end().len());
        text
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;
    use ticketlog_contract::Reason;

    #[test]
    fn causes_and_differences_are_counted() {
        let bytes = |document: bson::Document| document.to_vec().unwrap();
        let mut report = Report::default();
        for _ in 0..2 {
            report.decoded(100, Duration::from_micros(4));
            report.refused(&Rejection::new(Reason::InvalidJson, "at line 1"));
        }
        report.decoded(100, Duration::from_micros(4));
        report.accepted();
        let own = bytes(doc! { "_id": 1, "a": 1, "b": "x" });
        report.compared(&own, Some(&own));
        report.compared(&own, Some(&bytes(doc! { "_id": 1, "a": "1", "b": "x", "c": 2 })));
        report.compared(&own, None);
        let json = report.to_json();
        assert_eq!(json["would_be_refused"], json!([{ "cause": "invalid_json", "count": 2, "example": "at line 1" }]));
        let compared =
            json!({ "equal": 1, "different": 1, "fields": { "a": 1, "c": 1 }, "not_stored": 1, "not_compared": 0 });
        assert_eq!(json["compared"], compared);
        assert!(report.to_text().contains("1  different: a (1), c (1)"), "{}", report.to_text());
    }

    #[test]
    fn names_of_fields_are_escaped_cut_and_few() {
        let mut report = Report::default();
        let own = doc! { "_id": 1 }.to_vec().unwrap();
        for n in 0..1000 {
            let key = format!("{n:03}\u{9b}31m\n{}", "x".repeat(300));
            report.compared(&own, Some(&doc! { "_id": 1, key: { "$oid": "zz" } }.to_vec().unwrap()));
        }
        let text = report.to_text();
        assert!(text.len() < 10_000 && text.contains("000\\u009b31m\\n") && text.contains("(other) (950)"), "{text}");
    }
}
