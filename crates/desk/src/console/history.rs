//! Owns reading the history: the audit lines that every operation writes when it begins and when it ends.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use serde_json::Value;

/// Most bytes that are read, from the end of the file; and most bytes of lines that are kept.
const MAX_READ: u64 = 64 << 20;
const MAX_KEPT: usize = 1 << 20;

/// In lines that name what an operation has touched.
const PROGRESS: &str = "\"state\":\"progress\"";

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
    let start = file.metadata()?.len().saturating_sub(MAX_READ);
    file.seek(SeekFrom::Start(start))?;
    Ok(entries(last_lines(BufReader::new(file.take(MAX_READ)))?.iter().map(String::as_str)))
}

/// The last lines that begin or end an operation. Those in between, which name dead letters, are many.
fn last_lines(mut file: impl BufRead) -> std::io::Result<VecDeque<String>> {
    let (mut lines, mut bytes) = (VecDeque::new(), 0);
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line).into_owned();
        line.clear();
        if text.contains(PROGRESS) {
            continue;
        }
        bytes += text.len();
        lines.push_back(text);
        while bytes > MAX_KEPT {
            bytes -= lines.pop_front().map_or(bytes, |line: String| line.len());
        }
    }
    Ok(lines)
}

/// Lines that are not audit lines, such as one that is cut off, are skipped.
fn entries<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut by_operation: HashMap<String, usize> = HashMap::new();
    for line in lines.filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
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
            line("1", "progress", Value::Null).to_string(),
            line("2", "begun", Value::Null).to_string(),
            line("1", "done", json!({ "moved": 3 })).to_string(),
        ];
        let lines = last_lines(lines.join("\n").as_bytes()).unwrap();
        let entries = entries(lines.iter().map(String::as_str));
        let states: Vec<_> = entries.iter().map(|entry| (entry.state.as_str(), &entry.outcome)).collect();
        assert_eq!(states, [("begun", &Value::Null), ("done", &json!({ "moved": 3 }))]);
    }

    #[test]
    fn a_missing_file_is_empty() {
        assert_eq!(read(Path::new("/nonexistent/history.ndjson")).unwrap(), []);
    }
}
