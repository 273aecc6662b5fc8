//! Owns the audit line: who did what, where, when, to which dead letters, with what outcome. It is logged, and appended to a
//! file if one is given. Must not know how a command does its work.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

use serde_json::{Value, json};
use tracing::info;

use crate::config::Settings;
use crate::observe::logging::{self, Logging};
use crate::system::{host_name, now_millis};

use super::super::terminal::note;
use super::super::{CommandError, exit};
use super::format::rfc3339;
use super::selection::{AuditArgs, Selection};

/// The audit of one command. Its beginning is written as well as its end, so that a command that is killed leaves a trace.
pub(super) struct Audit {
    line: Value,
    ended: bool,
    _logging: Option<Logging>,
    file: Option<std::fs::File>,
}

impl Audit {
    /// Writes that the command begins.
    ///
    /// # Errors
    /// The audit file cannot be written; the command must not begin then.
    pub fn begin(settings: &Settings, args: &AuditArgs, mut line: Value) -> Result<Audit, CommandError> {
        // The audit file counts here; an invalid log filter is reported by `run`.
        let logging = logging::install(&settings.log).ok();
        let file = match &args.audit_file {
            None => None,
            Some(path) => {
                let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
                Some(opened.map_err(|error| {
                    CommandError::text(exit::CANNOT_CREATE, format!("{} cannot be written: {error}", path.display()))
                })?)
            }
        };
        if let Value::Object(line) = &mut line {
            line.insert("who".to_owned(), json!(user()));
            line.insert("host".to_owned(), json!(host_name()));
        }
        let mut audit = Audit { line, ended: false, _logging: logging, file };
        audit.write("begun", Value::Null)?;
        Ok(audit)
    }

    /// Writes the outcome, and whether the command failed.
    pub fn end(mut self, outcome: Value, failed: bool) {
        self.ended = true;
        if self.write(if failed { "failed" } else { "done" }, outcome).is_err() {
            note("the end of the command could not be written to the audit file");
        }
    }

    fn write(&mut self, state: &str, outcome: Value) -> Result<(), CommandError> {
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
            // One write, so that lines of several commands do not mix.
            file.write_all(format!("{text}\n").as_bytes())?;
            file.sync_data()?;
        }
        Ok(())
    }
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
        backup,
        "ticketlog dead {action}: {state}"
    );
}

impl Drop for Audit {
    /// A command that ended early has failed: its queue could not be opened, for instance.
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.write("failed", Value::Null);
        }
    }
}

/// The part of an audit line that names the action, the queue and the selection.
pub(super) fn subject(action: &str, queue: &str, selection: &Selection) -> Value {
    json!({ "action": action, "queue": queue, "filter": filter(selection) })
}

/// The name of the user, behind `sudo` as well, from the environment; and the user id, which the environment cannot change.
fn user() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let uid = std::fs::metadata("/proc/self").map(|own| own.uid().to_string()).unwrap_or_else(|_| "unknown".to_owned());
    name.map_or_else(|| format!("uid {uid}"), |name| format!("{name} (uid {uid})"))
}

/// The conditions of a selection, without those that are not set.
fn filter(selection: &Selection) -> Value {
    let mut filter = serde_json::Map::new();
    let mut put = |name: &str, value: Value| {
        if !(value.is_null() || value.as_array().is_some_and(Vec::is_empty)) {
            filter.insert(name.to_owned(), value);
        }
    };
    let time = |millis: Option<i64>| millis.map_or(Value::Null, |millis| json!(rfc3339(Some(millis))));
    put("id", json!(selection.id));
    put("reason", selection.reason.iter().map(|cause| cause.as_str()).collect());
    put("field", json!(selection.field));
    put("code", json!(selection.code));
    put("since", time(selection.since));
    put("until", time(selection.until));
    put("message_id", json!(selection.message_id));
    put("fingerprint", json!(selection.fingerprint));
    put("routing_key", json!(selection.routing_key));
    put("replayed_at_least", json!(selection.replayed_at_least));
    // Only the paths: the values come from payloads.
    put("where", selection.conditions.iter().map(|condition| json!(condition.path())).collect());
    put("limit", json!(selection.limit));
    Value::Object(filter)
}
