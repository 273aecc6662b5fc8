//! What audit files say of an event: the operations that have touched its dead letters, and how many erasures there were.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;

use ticketlog_config::format::parse_time;

use super::super::DeskError;

/// How often the files are read at most: an id that is found may lead to others.
const MAX_PASSES: usize = 3;

/// By what the lines of an event are recognised.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// `dl-id`s.
    pub dead_letters: BTreeSet<String>,
    /// `_id`s.
    pub documents: BTreeSet<String>,
}

impl Known {
    fn texts(&self) -> impl Iterator<Item = &String> {
        self.dead_letters.iter().chain(&self.documents)
    }
}

/// An operation that has touched a dead letter of the event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Touch {
    /// Milliseconds since 1970.
    pub time: Option<i64>,
    /// What became of it, such as `replayed`.
    pub what: String,
    pub who: String,
    pub operation: String,
    pub queue: String,
    pub replay_id: Option<String>,
    /// The dead letter.
    pub dead_letter: String,
    /// Number of dead letters with this id: identical messages share one.
    pub count: u64,
    /// The `_id` of the document that was made of it.
    pub document: Option<String>,
    /// The file of the originals.
    pub backup: Option<String>,
    pub file: String,
}

/// What audit files say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Trail {
    pub touches: Vec<Touch>,
    /// Number of erasures, and of documents and dead letters that they deleted.
    pub erasures: u64,
    pub erased: u64,
    /// The position of each touch, by its operation, by what became of it and by the dead letter.
    positions: HashMap<[String; 3], usize>,
    operations: BTreeSet<String>,
}

impl Trail {
    fn add(&mut self, touch: Touch) {
        let key = [&touch.operation, &touch.what, &touch.dead_letter].map(Clone::clone);
        let position = *self.positions.entry(key).or_insert(self.touches.len());
        match self.touches.get_mut(position) {
            Some(same) => same.count += 1,
            None => {
                self.operations.insert(touch.operation.clone());
                self.touches.push(touch);
            }
        }
    }
}

/// Reads files, and again with what was found, until nothing more is.
///
/// # Errors
/// A file cannot be read.
pub(super) fn read(files: &[PathBuf], known: &mut Known) -> Result<Trail, DeskError> {
    let mut trail = Trail::default();
    for _ in 0..MAX_PASSES {
        let before = known.clone();
        trail = Trail::default();
        for path in files {
            let unreadable = |error| DeskError::NoInput(format!("{} cannot be read: {error}", path.display()));
            let file = BufReader::new(File::open(path).map_err(unreadable)?);
            read_lines(file, path, known, &mut trail).map_err(unreadable)?;
        }
        if *known == before {
            break;
        }
    }
    Ok(trail)
}

fn read_lines(mut file: impl BufRead, path: &Path, known: &mut Known, trail: &mut Trail) -> std::io::Result<()> {
    let path = path.display().to_string();
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        let is_of_event = known.texts().any(|known| text.contains(known.as_str()))
            || text.contains("\"action\":\"erase\"")
            || trail.operations.iter().any(|operation| text.contains(operation));
        // Lines that are not whole are left out.
        if is_of_event && let Ok(line) = serde_json::from_str::<Value>(&text) {
            add_line(&line, &path, known, trail);
        }
        line.clear();
    }
    Ok(())
}

fn text(line: &Value, name: &str) -> Option<String> {
    line.get(name).and_then(Value::as_str).map(str::to_owned)
}

/// What an operation touched is only what its lines name: that it began, and with which filter, is no proof of anything.
fn add_line(line: &Value, file: &str, known: &mut Known, trail: &mut Trail) {
    let (Some(operation), Some(state)) = (text(line, "operation"), text(line, "state")) else { return };
    let or_empty = |name: &str| text(line, name).unwrap_or_default();
    let touch = Touch {
        time: text(line, "time").and_then(|time| parse_time(&time, 0).ok()),
        what: or_empty("action"),
        who: or_empty("who"),
        operation: operation.clone(),
        count: 1,
        queue: or_empty("queue"),
        replay_id: text(line, "replay_id"),
        file: file.to_owned(),
        ..Touch::default()
    };
    let outcome = |name: &str| line.get("outcome").and_then(|outcome| outcome.get(name));
    match state.as_str() {
        "progress" => add_named(line, &touch, known, trail),
        "begun" => {}
        _ if touch.what == "erase" => {
            let count = |name: &str| outcome(name).and_then(Value::as_u64).unwrap_or(0);
            trail.erasures += 1;
            trail.erased += count("documents") + count("dead_letters") + count("parked");
        }
        _ => {
            let backup = outcome("backup").and_then(Value::as_str);
            let named = trail.touches.iter_mut().filter(|touch| touch.operation == operation);
            named.for_each(|touch| touch.backup = backup.map(str::to_owned));
        }
    }
}

/// Adds the dead letters of a line that are of the event.
fn add_named(line: &Value, touch: &Touch, known: &mut Known, trail: &mut Trail) {
    let document = |id: &str| line.get("documents").and_then(|documents| text(documents, id));
    for (what, ids) in line.get("ids").and_then(Value::as_object).into_iter().flatten() {
        for id in ids.as_array().into_iter().flatten().filter_map(Value::as_str) {
            let document = document(id);
            let is_known = known.dead_letters.contains(id)
                || document.as_ref().is_some_and(|document| known.documents.contains(document));
            if !is_known {
                continue;
            }
            known.dead_letters.insert(id.to_owned());
            known.documents.extend(document.clone());
            trail.add(Touch { what: what.clone(), dead_letter: id.to_owned(), document, ..touch.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use bson::oid::ObjectId;
    use serde_json::json;

    use super::super::super::{Audit, Touched};
    use super::*;

    fn known(dead_letters: &[&str], documents: &[&str]) -> Known {
        let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        Known { dead_letters: set(dead_letters), documents: set(documents) }
    }

    #[test]
    fn an_id_leads_to_its_operations_and_a_document_to_its_dead_letter() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit");
        let (a, b, document) = ("a".repeat(24), "b".repeat(24), ObjectId::new());
        let begin = |action: &str| {
            let subject = json!({ "action": action, "queue": "q", "replay_id": (action == "replay").then_some("r1") });
            Audit::begin(Some(&path), "anna", subject).unwrap()
        };
        let mut park = begin("park");
        [&a, &b].into_iter().for_each(|id| park.name(Touched::Parked, id, None));
        park.end(json!({ "moved": 2 }), false);
        let mut replay = begin("replay");
        replay.name(Touched::Edited, &a, Some(document));
        replay.end(json!({ "replayed": 1, "backup": "q.ndjson" }), false);
        begin("erase").end(json!({ "documents": 3, "dead_letters": 1, "parked": 0 }), false);
        let files = [path];
        let said = |known: &mut Known| {
            let trail = read(&files, known).unwrap();
            let touches: Vec<_> = trail.touches.iter().map(|touch| (touch.what.clone(), touch.who.clone())).collect();
            (touches, trail)
        };
        let both = [("parked".to_owned(), "anna".to_owned()), ("edited".to_owned(), "anna".to_owned())];
        let (touches, trail) = said(&mut known(&[&a], &[]));
        assert_eq!((touches, trail.erasures, trail.erased), (both.to_vec(), 1, 4));
        let edited = &trail.touches[1];
        assert_eq!((edited.backup.as_deref(), edited.replay_id.as_deref()), (Some("q.ndjson"), Some("r1")));
        assert!(edited.document == Some(document.to_hex()) && edited.time.is_some());
        assert_eq!(said(&mut known(&[], &[&document.to_hex()])).0, both, "the document leads to both");
        assert_eq!(said(&mut known(&[&b], &[])).0, both[..1]);
        assert_eq!(said(&mut known(&["c"], &[])).0, []);
    }

    #[test]
    fn an_operation_that_names_nothing_has_touched_nothing_and_identical_messages_are_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit");
        let id = "a".repeat(24);
        let subject = json!({ "action": "purge", "queue": "q", "filter": { "id": [&id], "message_id": ["m-17"] } });
        let begin = || Audit::begin(Some(&path), "anna", subject.clone()).unwrap();
        begin().end(json!({ "purged": 0 }), false);
        drop(begin());
        let mut known = known(&[&id], &[]);
        assert_eq!(read(std::slice::from_ref(&path), &mut known).unwrap().touches, []);
        let mut purge = begin();
        (0..500).for_each(|_| purge.name(Touched::Purged, &id, None));
        purge.end(json!({ "purged": 500, "backup": "q.ndjson" }), false);
        let trail = read(&[path], &mut known).unwrap();
        let touches: Vec<_> = trail.touches.iter().map(|touch| (touch.count, touch.backup.as_deref())).collect();
        assert_eq!(touches, [(500, Some("q.ndjson"))]);
    }

    #[test]
    fn lines_that_are_cut_off_and_files_that_are_missing() {
        let mut known = known(&["a"], &[]);
        let mut trail = Trail::default();
        let lines = b"{\"operation\":\"a\",\"sta\n\xff\"a\"\n{\"operation\":1}\n";
        read_lines(&lines[..], Path::new("f"), &mut known, &mut trail).unwrap();
        assert_eq!(trail, Trail::default());
        assert!(matches!(read(&["/nonexistent/audit".into()], &mut known), Err(DeskError::NoInput(_))));
    }
}
