//! Owns the oracle. After a fault, each published event must be in MongoDB exactly once and as it was sent, or in the
//! dead-letter queue, or still in its queue; and there must be nothing else in any of them.

use std::collections::HashMap;
use std::io::Write as _;

use bson::{Bson, Document};

use super::{TestEnv, Worker};

/// Where the numbered events of a test are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OracleReport {
    pub attempted: usize,
    pub stored: usize,
    /// Redeliveries that the workers recognised; `None` if they were not asked.
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

impl TestEnv {
    /// Looks for events 0 to `count`. Empties the queue and the dead-letter queue.
    pub async fn oracle_report(&self, count: i32, workers: &[&Worker]) -> OracleReport {
        let mut report = OracleReport { attempted: count as usize, ..OracleReport::default() };
        let mut found: HashMap<i32, u32> = HashMap::new();
        for document in self.documents().await {
            match numbered(&document) {
                Some(n) if (0..count).contains(&n) => *found.entry(n).or_default() += 1,
                _ => report.unexpected += 1,
            }
        }
        report.stored = found.len();
        report.doubled = found.iter().filter(|(_, times)| **times > 1).map(|(n, _)| *n).collect();
        let (queued, dead) =
            (self.take_all_messages(&self.queue()).await, self.take_all_messages(&self.dead_letter_queue()).await);
        (report.returned, report.dead_lettered) = (queued.len(), dead.len());
        for message in queued.iter().chain(&dead) {
            match number_of(message.properties.message_id().as_ref().map(|id| id.as_str())) {
                Some(n) if (0..count).contains(&n) => *found.entry(n).or_default() += 1,
                _ => report.unexpected += 1,
            }
        }
        report.lost = (0..count).filter(|n| !found.contains_key(n)).collect();
        let duplicates = workers.iter().map(|worker| worker.settled("duplicate"));
        report.duplicate = (!workers.is_empty()).then(|| duplicates.sum());
        report
    }

    /// Asserts that all events are in MongoDB, and records the report under `row`, which begins with the number of the
    /// fault.
    pub async fn assert_all_stored(&self, row: &str, count: i32, workers: &[&Worker]) {
        let report = self.oracle_report(count, workers).await;
        report.record(row);
        assert_eq!(
            (report.stored, report.dead_lettered),
            (count as usize, 0),
            "all events must be stored, and none dead-lettered: {report}"
        );
        report.assert_safe();
    }
}

impl OracleReport {
    /// Asserts that nothing is lost, nothing is stored twice, and there is nothing else.
    pub fn assert_safe(&self) {
        assert_eq!((self.lost.len(), self.doubled.len(), self.unexpected), (0, 0, 0), "{self}");
    }

    /// The columns of the table, in their order.
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

    /// Prints it; in `make chaos`, also appends it to the table of faults.
    pub fn record(&self, row: &str) {
        println!("{row}: {self}");
        let Some(path) = std::env::var_os("TICKETLOG_CHAOS_TABLE") else { return };
        let cells: String = self.cells().iter().map(|(_, cell)| format!(" {cell} |")).collect();
        let line = format!("| {row} |{cells}\n");
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

impl std::fmt::Display for OracleReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cells = self.cells().map(|(name, cell)| format!("{name} {cell}"));
        f.write_str(&cells.join(" "))
    }
}

fn number_of(message_id: Option<&str>) -> Option<i32> {
    message_id?.strip_prefix("m-")?.parse().ok()
}

/// The number of the document, if it equals what `TestMessage::numbered` sent in every field and in their order.
fn numbered(document: &Document) -> Option<i32> {
    let n = document.get_i32("n").ok()?;
    let fields: Vec<(&str, &Bson)> = document.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let [("_id", Bson::ObjectId(_)), rest @ ..] = fields.as_slice() else { return None };
    let (user, text, status) =
        (Bson::Int32(n % 97), Bson::String(format!("operation {n}")), Bson::String("success".to_owned()));
    let expected = [("n", &Bson::Int32(n)), ("user_id", &user), ("text", &text), ("status", &status)];
    (rest == expected).then_some(n)
}
