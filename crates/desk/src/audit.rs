//! The audit line: who did what, where, when, to which dead letters, with what outcome. It is logged, and appended to a file if
//! one is given.

use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use bson::oid::ObjectId;
use serde_json::{Value, json};
use tracing::{info, warn};

use ticketlog_config::system::{host_name, now_millis};

use super::DeskError;
use ticketlog_config::format::rfc3339;

/// The audit of one operation. Its beginning is written as well as its end, so that an operation that is killed leaves a
/// trace.
pub struct Audit {
    line: Value,
    ended: bool,
    file: Option<std::fs::File>,
    /// Whether the last line of the file is cut off, by a full disk for instance: then the next one begins on a line of its own.
    after_cut: bool,
}

impl Audit {
    /// Writes that the operation begins. `subject` is a JSON object with `action`, `queue` and what else describes it.
    ///
    /// # Errors
    /// The file cannot be written; the operation must not begin then.
    pub fn begin(file: Option<&Path>, who: &str, mut subject: Value) -> Result<Audit, DeskError> {
        let open = |path: &Path| {
            let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
            opened.map_err(|error| DeskError::CannotCreate(format!("{} cannot be written: {error}", path.display())))
        };
        let after_cut = file.is_some_and(|path| is_cut_off(path).unwrap_or(false));
        let file = file.map(open).transpose()?;
        if let Value::Object(subject) = &mut subject {
            subject.insert("operation".to_owned(), json!(ObjectId::new().to_hex()));
            subject.insert("who".to_owned(), json!(who));
            subject.insert("host".to_owned(), json!(host_name()));
        }
        let mut audit = Audit { line: subject, ended: false, file, after_cut };
        audit.write("begun", Value::Null)?;
        Ok(audit)
    }

    /// Writes the outcome, and whether the operation failed.
    pub fn end(mut self, outcome: Value, failed: bool) {
        self.ended = true;
        self.write_end(if failed { "failed" } else { "done" }, outcome);
    }

    fn write_end(&mut self, state: &str, outcome: Value) {
        if self.write(state, outcome).is_err() {
            warn!("the end of the operation could not be written to the audit file");
        }
    }

    fn write(&mut self, state: &str, outcome: Value) -> Result<(), DeskError> {
        let mut line = self.line.clone();
        if let Value::Object(line) = &mut line {
            line.insert("time".to_owned(), json!(rfc3339(Some(now_millis()))));
            line.insert("state".to_owned(), json!(state));
            if !outcome.is_null() {
                line.insert("outcome".to_owned(), outcome);
            }
        }
        log(&line);
        let text = line.to_string();
        if let Some(file) = &mut self.file {
            // One write, so that lines of several operations do not mix.
            let before = if std::mem::take(&mut self.after_cut) { "\n" } else { "" };
            file.write_all(format!("{before}{text}\n").as_bytes())?;
            file.sync_data()?;
        }
        Ok(())
    }
}

/// Whether the file has a last line without its end.
fn is_cut_off(path: &Path) -> std::io::Result<bool> {
    let mut file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() || file.seek(SeekFrom::End(0))? == 0 {
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
    let (action, state) = (text("action").unwrap_or_default(), text("state").unwrap_or_default());
    info!(
        action,
        state,
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
}
