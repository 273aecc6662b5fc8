//! Owns the oracle of faults: after one, each published event is in the store exactly once and equal to what was sent, or
//! a dead letter, or still in its queue, and nothing else is anywhere.

use std::collections::HashMap;
use std::io::Write as _;

use bson::{Bson, Document};

use super::{Bed, Worker};

/// What became of numbered events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    pub attempted: usize,
    pub stored: usize,
    /// Redeliveries that were recognised by the workers, where they were asked.
    pub duplicate: Option<u64>,
    pub dead_lettered: usize,
    /// Still in the queue.
    pub returned: usize,
    pub lost: Vec<i32>,
    /// Stored more than once.
    pub doubled: Vec<i32>,
    /// Documents that nobody sent, or that differ from what was sent.
    pub unexpected: usize,
}

impl Bed {
    /// Judges events 0 to `count`. Takes everything out of the queue and of the dead-letter queue.
    pub async fn judge(&self, count: i32, workers: &[&Worker]) -> Verdict {
        let mut verdict = Verdict { attempted: count as usize, ..Verdict::default() };
        let mut found: HashMap<i32, u32> = HashMap::new();
        for document in self.documents().await {
            match numbered(&document) {
                Some(n) if (0..count).contains(&n) => *found.entry(n).or_default() += 1,
                _ => verdict.unexpected += 1,
            }
        }
        verdict.stored = found.len();
        verdict.doubled = found.iter().filter(|(_, times)| **times > 1).map(|(n, _)| *n).collect();
        let (queued, dead) = (self.take_all(&self.queue()).await, self.take_all(&self.dead_queue()).await);
        (verdict.returned, verdict.dead_lettered) = (queued.len(), dead.len());
        for message in queued.iter().chain(&dead) {
            match number_of(message.properties.message_id().as_ref().map(|id| id.as_str())) {
                Some(n) if (0..count).contains(&n) => *found.entry(n).or_default() += 1,
                _ => verdict.unexpected += 1,
            }
        }
        verdict.lost = (0..count).filter(|n| !found.contains_key(n)).collect();
        let duplicates = workers.iter().map(|worker| worker.settled("duplicate"));
        verdict.duplicate = (!workers.is_empty()).then(|| duplicates.sum());
        verdict
    }

    /// The same, expected to find everything in the store, and noted as the result of a row of the table of faults.
    pub async fn safe(&self, row: &str, count: i32, workers: &[&Worker]) {
        let verdict = self.judge(count, workers).await;
        verdict.note(row);
        assert_eq!(
            (verdict.stored, verdict.dead_lettered),
            (count as usize, 0),
            "no outage is a dead letter: {verdict}"
        );
        verdict.assert_safe();
    }
}

impl Verdict {
    /// Nothing lost, nothing twice, nothing else.
    pub fn assert_safe(&self) {
        assert_eq!((self.lost.len(), self.doubled.len(), self.unexpected), (0, 0, 0), "{self}");
    }

    /// What is printed and noted of it, in the order of the table.
    fn cells(&self) -> [(&'static str, String); 8] {
        [
            ("attempted", self.attempted.to_string()),
            ("stored", self.stored.to_string()),
            ("duplicate", self.duplicate.map_or("–".to_owned(), |count| count.to_string())),
            ("dead-lettered", self.dead_lettered.to_string()),
            ("returned", self.returned.to_string()),
            ("lost", self.lost.len().to_string()),
            ("doubled", self.doubled.len().to_string()),
            ("unexpected", self.unexpected.to_string()),
        ]
    }

    /// Prints it, and appends it to the table where one is asked for (`make chaos`).
    pub fn note(&self, row: &str) {
        println!("{row}: {self}");
        let Some(path) = std::env::var_os("TICKETLOG_CHAOS_TABLE") else { return };
        let cells: String = self.cells().iter().map(|(_, cell)| format!(" {cell} |")).collect();
        let line = format!("| {row} |{cells}\n");
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cells = self.cells().map(|(name, cell)| format!("{name} {cell}"));
        f.write_str(&cells.join(" "))
    }
}

fn number_of(message_id: Option<&str>) -> Option<i32> {
    message_id?.strip_prefix("m-")?.parse().ok()
}

/// The number of a document that equals what `Sent::numbered` sent, in every field and in their order.
fn numbered(document: &Document) -> Option<i32> {
    let n = document.get_i32("n").ok()?;
    let fields: Vec<(&str, &Bson)> = document.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let [("_id", Bson::ObjectId(_)), rest @ ..] = fields.as_slice() else { return None };
    let (user, text, status) =
        (Bson::Int32(n % 97), Bson::String(format!("operation {n}")), Bson::String("success".to_owned()));
    let expected = [("n", &Bson::Int32(n)), ("user_id", &user), ("text", &text), ("status", &status)];
    (rest == expected).then_some(n)
}
