//! What the operations on dead letters have in common: an audit line, counts that are known also after a failure, and how they
//! are shown.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::oid::ObjectId;
use serde_json::{Map, Value, json};

use super::reader::Run;
use super::{Audit, DeskError, EndedEarly, Forecast, Touched};
use ticketlog_config::format::dead_letters;

/// Most destinations that are counted; further ones are counted together.
const MAX_COUNTED: usize = 1000;
/// Most destinations that are named in notes.
const MAX_DESTINATIONS: usize = 20;

/// Something that is done with dead letters, and recorded.
pub trait Operation: Sync {
    /// What it counts, as the audit names it, such as `replayed`.
    const COUNTED: &'static str;
    /// What the audit calls those that RabbitMQ does not take.
    const UNDELIVERABLE: &'static str = "undeliverable";

    /// The part of an audit line that describes it: a JSON object with `action`, and what else names its dead letters.
    fn subject(&self) -> Value;

    /// Does it; counts and names in `progress` what is done.
    fn perform(&self, run: Run<'_>, progress: &mut Progress) -> impl Future<Output = Result<(), DeskError>> + Send;

    /// The outcome as JSON, for the operator. Texts may quote bodies.
    fn to_json(&self, outcome: &Outcome) -> Value {
        json!({ Self::COUNTED: outcome.count, "backup": outcome.file })
    }

    /// The outcome as a sentence.
    fn to_text(&self, outcome: &Outcome) -> String;

    /// What the operator should read about those that RabbitMQ does not take at a destination.
    fn undeliverable_note(&self, destination: &str, count: u64) -> String {
        format!(
            "{} stayed where they are: {destination} is not deliverable. Check that a queue is bound and not full; replay \
             --to-queue replays into a queue directly",
            dead_letters(count)
        )
    }
}

/// How far an operation is.
pub struct Progress {
    /// What is done so far.
    pub outcome: Outcome,
    audit: Audit,
}

impl Progress {
    /// Names a dead letter in the audit, with the `_id` of the document that is made of it, if that is known. What became of it must be
    /// confirmed.
    pub(super) fn name(&mut self, touched: Touched, id: &str, document: Option<ObjectId>) {
        self.audit.name(touched, id, document);
    }
}

/// What an operation did, also if it failed on the way. What it does not do is empty.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Number of dead letters that it did what it is for with.
    pub count: u64,
    /// Number of dead letters that a replay has parked instead.
    pub parked: u64,
    /// What stays in the queue although RabbitMQ would take it, and why.
    pub stayed: Forecast,
    /// By destination: those that stay where they are because RabbitMQ does not take them.
    pub undeliverable: BTreeMap<String, u64>,
    /// The `_id`s of the documents that are made of those that were replayed, as far as they are known: the first hundred.
    pub document_ids: Vec<ObjectId>,
    /// The file that holds them, or their originals.
    pub file: Option<String>,
    /// The last line of a file, if a full disk or a crash has cut it off.
    pub cut_off: Option<String>,
    /// Bytes of the bodies that were published.
    pub bytes: u64,
    /// How long publishing took.
    pub duration: Duration,
    /// Whether the operator has stopped it.
    pub is_stopped: bool,
    /// Why a replay ended by itself before its end.
    pub ended_early: Option<EndedEarly>,
}

impl Outcome {
    /// Counts dead letters that stay because they cannot be delivered.
    pub(super) fn add_undeliverable(&mut self, destination: String, count: u64) {
        let has_room = self.undeliverable.len() < MAX_COUNTED || self.undeliverable.contains_key(&destination);
        let destination = if has_room { destination } else { "(other destinations)".to_owned() };
        *self.undeliverable.entry(destination).or_default() += count;
    }

    /// Number of dead letters that have left where they were.
    pub fn moved(&self) -> u64 {
        self.count + self.parked
    }

    /// Whether it did nothing, and nothing stayed for a reason of its own.
    pub fn is_empty(&self) -> bool {
        self.moved() == 0 && self.file.is_none() && self.undeliverable.is_empty() && self.stayed.total() == 0
    }

    /// What the operator should read beside the counts of an operation that has `failed`, or not.
    pub fn notes(&self, operation: &impl Operation, failed: bool) -> Vec<String> {
        let is_whole = !failed && !self.is_stopped && self.undeliverable.is_empty();
        let before = if is_whole {
            "; all lines before it are imported. A purge deletes only what it has written completely"
        } else {
            ""
        };
        let cut_off = self.cut_off.iter().map(|cut_off| format!("{cut_off}{before}"));
        let undeliverable = self.undeliverable.iter().take(MAX_DESTINATIONS);
        let undeliverable = undeliverable.map(|(at, count)| operation.undeliverable_note(at, *count));
        let more = self.undeliverable.len().saturating_sub(MAX_DESTINATIONS);
        let more = (more > 0).then(|| format!("{more} more destinations are not deliverable"));
        let early = self.ended_early.map(EndedEarly::to_text);
        cut_off.chain(undeliverable).chain(more).chain(early).collect()
    }

    /// For the audit: what is not zero, and no part of a message.
    fn to_audit(&self, counted: &str, undeliverable: &str) -> Value {
        let sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
        let mut audit = Map::from_iter([(counted.to_owned(), json!(self.count))]);
        for (name, count) in [
            ("parked", self.parked),
            (undeliverable, sum(&self.undeliverable)),
            ("skipped", sum(&self.stayed.rejected)),
            ("edit_failed", sum(&self.stayed.edit_failed)),
        ] {
            if count > 0 {
                audit.insert(name.to_owned(), json!(count));
            }
        }
        let seconds = self.duration.as_secs_f64();
        audit.extend((seconds > 0.0).then(|| ("seconds".to_owned(), json!(seconds))));
        audit.extend(self.file.iter().map(|file| ("backup".to_owned(), json!(file))));
        let is_stopped = self.is_stopped || self.ended_early.is_some();
        audit.extend(is_stopped.then(|| ("stopped".to_owned(), json!(true))));
        Value::Object(audit)
    }
}

/// What an operation did, and how it ended.
pub struct Done {
    /// What it did, also if it failed on the way.
    pub outcome: Outcome,
    /// Why it failed.
    pub ended: Result<(), DeskError>,
}

/// Runs an operation whose audit has begun.
pub async fn run<O: Operation>(operation: &O, audit: Audit, run: Run<'_>) -> Done {
    let mut progress = Progress { outcome: Outcome::default(), audit };
    let ended = operation.perform(run, &mut progress).await;
    let Progress { mut outcome, audit } = progress;
    outcome.is_stopped = run.report.is_stopped();
    if !audit.end(outcome.to_audit(O::COUNTED, O::UNDELIVERABLE), ended.is_err()) {
        run.report.note("the audit file could not be written: it does not name all dead letters of this operation");
    }
    Done { outcome, ended }
}
