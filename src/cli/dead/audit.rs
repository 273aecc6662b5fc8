//! Owns the audit line: who did what, where, when, to which dead letters, with what outcome. Logged, and appended to a
//! file where one is given. Must not know how it is done.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

use serde_json::{Value, json};
use tracing::info;

use crate::config::Settings;
use crate::telemetry::{self, Logging};

use super::super::{Fault, now_millis};
use super::{Audited, Selection, note, stamp};

/// A change on its way. Its beginning is noted as well as its end: a kill leaves a trace.
pub(super) struct Audit {
    line: Value,
    ended: bool,
    _logging: Option<Logging>,
    file: Option<std::fs::File>,
}

impl Audit {
    /// Notes that it begins; refuses to begin where that cannot be noted.
    pub fn begin(
        settings: &Settings,
        audited: &Audited,
        action: &str,
        queue: &str,
        selection: &Selection,
    ) -> Result<Audit, Fault> {
        Audit::begin_as(settings, audited, subject(action, queue, selection))
    }

    /// The same with a subject of its own.
    pub fn begin_as(settings: &Settings, audited: &Audited, mut line: Value) -> Result<Audit, Fault> {
        // A filter that cannot be read is an error of `run`; here the file is what counts.
        let logging = telemetry::install(&settings.log).ok();
        let file = match &audited.audit_file {
            None => None,
            Some(path) => {
                let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
                let wrong = |error| anyhow::Error::msg(format!("{} cannot be written: {error}", path.display()));
                Some(opened.map_err(|error| Fault::new(73, wrong(error)))?)
            }
        };
        if let Value::Object(line) = &mut line {
            line.insert("who".to_owned(), json!(who()));
            line.insert("host".to_owned(), json!(crate::host::name()));
        }
        let mut audit = Audit { line, ended: false, _logging: logging, file };
        audit.write("begun", Value::Null)?;
        Ok(audit)
    }

    /// Notes what came of it, and whether it failed before its end.
    pub fn end(mut self, outcome: Value, failed: bool) {
        self.ended = true;
        if self.write(if failed { "failed" } else { "done" }, outcome).is_err() {
            note("the audit file could not be written; what was done is done");
        }
    }

    fn write(&mut self, state: &str, outcome: Value) -> Result<(), Fault> {
        let mut line = self.line.clone();
        if let Value::Object(line) = &mut line {
            line.insert("time".to_owned(), json!(stamp(Some(now_millis()))));
            line.insert("state".to_owned(), json!(state));
            if !outcome.is_null() {
                line.insert("outcome".to_owned(), outcome);
            }
        }
        let text = line.to_string();
        info!(audit = text, "dead-letter desk");
        if let Some(file) = &mut self.file {
            // One write, so that lines of several desks do not mix.
            file.write_all(format!("{text}\n").as_bytes())?;
            file.sync_data()?;
        }
        Ok(())
    }
}

impl Drop for Audit {
    /// It never came to its end: the queue could not be opened, for instance.
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.write("failed", Value::Null);
        }
    }
}

/// What a line is about.
pub(super) fn subject(action: &str, queue: &str, selection: &Selection) -> Value {
    json!({ "action": action, "queue": queue, "filter": filter(selection) })
}

/// The person behind `sudo`, or the user, as the environment says; and the user id, which it cannot change.
fn who() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let uid = std::fs::metadata("/proc/self").map(|own| own.uid().to_string()).unwrap_or_else(|_| "unknown".to_owned());
    named.map_or_else(|| format!("uid {uid}"), |name| format!("{name} (uid {uid})"))
}

/// What was selected, as far as anything was.
fn filter(selection: &Selection) -> Value {
    let mut filter = serde_json::Map::new();
    let mut put = |name: &str, value: Value| {
        if !(value.is_null() || value.as_array().is_some_and(Vec::is_empty)) {
            filter.insert(name.to_owned(), value);
        }
    };
    put("id", json!(selection.id));
    put("reason", selection.reason.iter().map(|cause| cause.as_str()).collect());
    put("field", json!(selection.field));
    put("since", selection.since.map_or(Value::Null, |since| json!(stamp(Some(since)))));
    put("until", selection.until.map_or(Value::Null, |until| json!(stamp(Some(until)))));
    put("message_id", json!(selection.message_id));
    put("fingerprint", json!(selection.fingerprint));
    put("routing_key", json!(selection.routing_key));
    put("replayed_at_least", json!(selection.replayed_at_least));
    // Its values are out of payloads: only the paths are noted.
    put("where", selection.wheres.iter().map(|condition| json!(condition.path())).collect());
    put("limit", json!(selection.limit));
    Value::Object(filter)
}
