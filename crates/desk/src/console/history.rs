//! Owns reading the history: the audit lines that every operation writes when it begins and when it ends.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use serde_json::Value;

/// Most bytes that are read, from the end of the file.
const MAX_BYTES: u64 = 1 << 20;

/// One operation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub began: String,
    /// `done`, `failed`; or `begun` if no end is known: it runs, or was killed.
    pub state: String,
    pub who: String,
    pub action: String,
    pub queue: String,
    pub filter: Value,
    pub replay_id: Option<String>,
    pub outcome: Value,
}

/// The operations in the file, newest first.
///
/// # Errors
/// The file cannot be read; a missing one is empty.
pub(super) fn read(path: &Path) -> std::io::Result<Vec<Entry>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let start = file.metadata()?.len().saturating_sub(MAX_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(entries(&String::from_utf8_lossy(&bytes)))
}

/// Lines that are not audit lines, such as one that is cut off, are skipped.
fn entries(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut by_operation: HashMap<String, usize> = HashMap::new();
    for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let text = |name: &str| line.get(name).and_then(Value::as_str).map(str::to_owned);
        let (Some(state), Some(time)) = (text("state"), text("time")) else { continue };
        let operation = text("operation").unwrap_or_default();
        let outcome = line.get("outcome").cloned().unwrap_or_default();
        let begun = by_operation.get(&operation).and_then(|at| entries.get_mut(*at));
        if let Some(entry) = begun {
            (entry.state, entry.outcome) = (state, outcome);
            continue;
        }
        by_operation.insert(operation, entries.len());
        let or_empty = |name: &str| text(name).unwrap_or_default();
        let filter = line.get("filter").cloned().unwrap_or_default();
        let (who, action, queue) = (or_empty("who"), or_empty("action"), or_empty("queue"));
        entries.push(Entry { began: time, state, who, action, queue, filter, replay_id: text("replay_id"), outcome });
    }
    entries.reverse();
    entries
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_operation_is_its_begin_and_its_end() {
        let line = |operation: &str, state: &str, outcome: Value| {
            json!({
                "operation": operation, "time": "2026-11-28T03:00:00Z", "state": state, "who": "anna", "action": "park",
                "queue": "q", "filter": {}, "outcome": outcome,
            })
        };
        let lines = [
            "half a line".to_owned(),
            line("1", "begun", Value::Null).to_string(),
            line("2", "begun", Value::Null).to_string(),
            line("1", "done", json!({ "moved": 3 })).to_string(),
        ];
        let entries = entries(&lines.join("\n"));
        let states: Vec<_> = entries.iter().map(|entry| (entry.state.as_str(), &entry.outcome)).collect();
        assert_eq!(states, [("begun", &Value::Null), ("done", &json!({ "moved": 3 }))]);
    }

    #[test]
    fn a_missing_file_is_empty() {
        assert_eq!(read(Path::new("/nonexistent/history.ndjson")).unwrap(), []);
    }
}
