//! The audit lines: who did what, where, when, to which dead letters, with what outcome. They are logged, and appended to a file if
//! one is given.

use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use serde_json::{Map, Value, json};
use strum::IntoStaticStr;
use tracing::{info, warn};

use ticketlog_config::system::{host_name, now_millis};

use super::DeskError;
use ticketlog_config::format::rfc3339;
use ticketlog_contract::dead_letter::one_line;

/// Most dead letters that a line names, and bytes of an id: a worker's has 24.
const MAX_NAMED: usize = 100;
const MAX_ID: usize = 64;
/// How long an id waits for others before its line is written, if anything more is named.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// What became of a dead letter, as the lines of an audit name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Touched {
    Replayed,
    /// Replayed with a changed body.
    Edited,
    Parked,
    Unparked,
    Purged,
    Imported,
}

/// Dead letters whose outcome is known, and not written yet.
#[derive(Default)]
struct Named {
    /// By what became of them: lists of `dl-id`s.
    ids: Map<String, Value>,
    /// By `dl-id`: the `_id` of the document that a worker makes of it.
    documents: Map<String, Value>,
    count: usize,
    since: Option<Instant>,
}

/// The audit of one operation. Its beginning is written as well as its end, so that an operation that is killed leaves a
/// trace; and in between the ids of the dead letters that it has touched.
pub struct Audit {
    line: Value,
    ended: bool,
    file: Option<std::fs::File>,
    /// Whether the last line of the file is cut off, by a full disk for instance: then the next one begins on a line of its own.
    after_cut: bool,
    named: Named,
    /// Whether a line with ids could not be written.
    is_incomplete: bool,
}

impl Audit {
    /// Whether an operation could begin. It writes nothing; the file exists afterwards.
    ///
    /// # Errors
    /// As for [`Audit::begin`].
    pub fn check(file: Option<&Path>) -> Result<(), DeskError> {
        file.map_or(Ok(()), |path| open(path).map(drop))
    }

    /// Writes that the operation begins. `subject` is a JSON object with `action`, `queue` and what else describes it.
    ///
    /// # Errors
    /// The file cannot be written; the operation must not begin then.
    pub fn begin(file: Option<&Path>, who: &str, mut subject: Value) -> Result<Audit, DeskError> {
        let after_cut = file.is_some_and(|path| is_cut_off(path).unwrap_or(false));
        let file = file.map(open).transpose()?;
        if let Value::Object(subject) = &mut subject {
            subject.insert("operation".to_owned(), json!(ObjectId::new().to_hex()));
            subject.insert("who".to_owned(), json!(who));
            subject.insert("host".to_owned(), json!(host_name()));
        }
        let mut audit =
            Audit { line: subject, ended: false, file, after_cut, named: Named::default(), is_incomplete: false };
        audit.write("begun", Value::Null)?;
        Ok(audit)
    }

    /// Names a dead letter whose outcome a server has confirmed, with the `_id` of the document that a worker makes of it if that is
    /// known. Lines have a bounded number of them.
    pub fn name(&mut self, touched: Touched, id: &str, document: Option<ObjectId>) {
        let id = one_line(id, MAX_ID);
        if let Some(document) = document {
            self.named.documents.insert(id.clone(), json!(document.to_hex()));
        }
        let ids = self.named.ids.entry(<&str>::from(touched)).or_insert_with(|| json!([]));
        ids.as_array_mut().into_iter().for_each(|ids| ids.push(json!(id)));
        self.named.count += 1;
        let since = *self.named.since.get_or_insert_with(Instant::now);
        if self.named.count >= MAX_NAMED || since.elapsed() >= MAX_WAIT {
            self.write_named();
        }
    }

    /// What it names is repeated in no line, so that their length is bounded: the operation leads to its other lines.
    fn write_named(&mut self) {
        let Named { ids, documents, count, .. } = std::mem::take(&mut self.named);
        if count == 0 {
            return;
        }
        let kept = ["action", "operation", "queue", "who", "replay_id"];
        let kept = kept.into_iter().filter_map(|name| Some((name.to_owned(), self.line.get(name)?.clone())));
        let mut line: Map<String, Value> = kept.collect();
        line.insert("ids".to_owned(), Value::Object(ids));
        line.extend((!documents.is_empty()).then(|| ("documents".to_owned(), Value::Object(documents))));
        self.is_incomplete |= self.append(line, "progress").is_err();
    }

    /// Writes the outcome, and whether the operation failed. Returns whether all that was touched is named.
    pub fn end(mut self, outcome: Value, failed: bool) -> bool {
        self.ended = true;
        self.write_end(if failed { "failed" } else { "done" }, outcome);
        !self.is_incomplete
    }

    fn write_end(&mut self, state: &str, outcome: Value) {
        self.write_named();
        if self.write(state, outcome).is_err() {
            warn!("the end of the operation could not be written to the audit file");
        }
    }

    fn write(&mut self, state: &str, outcome: Value) -> Result<(), DeskError> {
        let Value::Object(mut line) = self.line.clone() else { return Ok(()) };
        line.extend((!outcome.is_null()).then(|| ("outcome".to_owned(), outcome)));
        self.append(line, state)
    }

    fn append(&mut self, mut line: Map<String, Value>, state: &str) -> Result<(), DeskError> {
        line.insert("time".to_owned(), json!(rfc3339(Some(now_millis()))));
        line.insert("state".to_owned(), json!(state));
        let line = Value::Object(line);
        log(&line);
        let text = line.to_string();
        if let Some(file) = &mut self.file {
            // One write, so that lines of several operations do not mix.
            let before = if std::mem::take(&mut self.after_cut) { "\n" } else { "" };
            let written = file.write_all(format!("{before}{text}\n").as_bytes());
            // It may have got half a line.
            self.after_cut = written.is_err();
            // A pipe or a device cannot be synced.
            let is_regular = file.metadata().is_ok_and(|found| found.is_file());
            let synced = written.and_then(|()| if is_regular { file.sync_data() } else { Ok(()) });
            synced.map_err(|error| DeskError::CannotWrite { file: "the audit file".to_owned(), error })?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<std::fs::File, DeskError> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    opened.map_err(|error| DeskError::CannotCreate(format!("{} cannot be written: {error}", path.display())))
}

/// Whether the file has a last line without its end.
fn is_cut_off(path: &Path) -> std::io::Result<bool> {
    // Opening a pipe would wait for whoever writes to it.
    if !std::fs::metadata(path)?.is_file() {
        return Ok(false);
    }
    let mut file = std::fs::File::open(path)?;
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// Logs the line with a field for each of its parts.
fn log(line: &Value) {
    let text = |name: &str| line.get(name).and_then(Value::as_str);
    let outcome = |name: &str| line.get("outcome").and_then(|outcome| outcome.get(name));
    let count = |name: &str| outcome(name).and_then(Value::as_u64);
    let backup = outcome("backup").and_then(Value::as_str);
    let filter = line.get("filter").and_then(Value::as_object).filter(|filter| !filter.is_empty());
    let conditions =
        filter.map(|filter| filter.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>());
    let named = |name: &str| line.get(name).map(ToString::to_string);
    let (action, state) = (text("action").unwrap_or_default(), text("state").unwrap_or_default());
    info!(
        action,
        state,
        operation = text("operation"),
        queue = text("queue"),
        who = text("who"),
        replay_id = text("replay_id"),
        filter = conditions.map(|conditions| conditions.join(", ")),
        replayed = count("replayed"),
        parked = count("parked"),
        moved = count("moved"),
        stayed = count("stayed"),
        purged = count("purged"),
        exported = count("exported"),
        imported = count("imported"),
        documents = count("documents"),
        dead_letters = count("dead_letters"),
        backup,
        ids = named("ids"),
        documents_by_id = named("documents"),
        "dead letters: {action} {state}"
    );
}

impl Drop for Audit {
    /// An operation that ended early has failed: its queue could not be opened, for instance.
    fn drop(&mut self) {
        if !self.ended {
            self.write_end("failed", Value::Null);
        }
    }
}

/// The name of the user, behind `sudo` as well, from the environment; and the user id, which the environment cannot change.
pub fn operator() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let uid = std::fs::metadata("/proc/self").map(|own| own.uid().to_string()).unwrap_or_else(|_| "unknown".to_owned());
    name.map_or_else(|| format!("uid {uid}"), |name| format!("{name} (uid {uid})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_off_spoils_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        for (before, lines) in [("", 2), ("{}\n", 3), ("{\"half a li", 3)] {
            std::fs::write(&path, before).unwrap();
            let audit = Audit::begin(Some(&path), "anna", json!({ "action": "park" })).unwrap();
            audit.end(json!({}), false);
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text.lines().count(), lines, "{text}");
            let whole =
                text.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok_and(|line| line["who"] == "anna"));
            assert_eq!(whole.count(), 2, "{text}");
        }
    }
    #[test]
    fn a_pipe_or_a_device_can_take_the_lines() {
        let audit = Audit::begin(Some(Path::new("/dev/null")), "anna", json!({ "action": "park" })).unwrap();
        assert!(audit.end(json!({}), false));
    }

    #[test]
    fn every_dead_letter_is_named_in_lines_of_bounded_length() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit");
        let filter = json!({ "id": vec!["a".repeat(24); 1000] });
        let subject = json!({ "action": "replay", "queue": "q", "replay_id": "r", "filter": filter });
        let mut audit = Audit::begin(Some(&path), "anna", subject).unwrap();
        for n in 0..450 {
            let document = (n % 2 == 0).then(ObjectId::new);
            audit.name(if n % 3 == 0 { Touched::Edited } else { Touched::Replayed }, &format!("{n:024}"), document);
        }
        audit.name(Touched::Replayed, &"forged\n".repeat(100), None);
        assert!(audit.end(json!({}), false));
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let states: Vec<&str> = lines.iter().map(|line| line["state"].as_str().unwrap()).collect();
        assert_eq!(states, ["begun", "progress", "progress", "progress", "progress", "progress", "done"]);
        let named = |line: &Value| ["replayed", "edited"].map(|key| line["ids"][key].as_array().unwrap().len());
        let counts: Vec<usize> = lines[1..6].iter().map(|line| named(line).iter().sum()).collect();
        assert_eq!(counts, [100, 100, 100, 100, 51]);
        assert_eq!(lines[1]["documents"].as_object().unwrap().len(), 50);
        for line in &lines[1..6] {
            let known = ["operation", "who", "queue", "replay_id"].map(|key| line[key] == lines[0][key]);
            assert!(known == [true; 4] && line.get("filter").is_none() && line.to_string().len() < 10_000, "{line}");
        }
        assert!(lines[5]["ids"].to_string().contains("forged forged"));
    }
}
