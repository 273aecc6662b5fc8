//! Owns how `ticketlog validate` prints what it has seen: as text, JSON, annotations of GitHub Actions, or JUnit's XML.

use std::fmt::Write as _;
use std::io::{BufWriter, Stdout, Write as _};

use serde::Serialize;
use serde_json::json;

use ticketlog_contract::dead_letter::{escape, terminal_safe};
use ticketlog_contract::{Event, Identity, Printed, Rejection};

use super::super::CommandError;
use super::super::terminal::note;
use super::{Format, detail_of, identity_name};

/// What is probably a mistake.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub kind: &'static str,
    pub text: String,
}

/// What the worker would do with a message.
pub(super) struct Seen<'a> {
    pub file: &'a str,
    pub line: usize,
    /// `None`: it would become a dead letter, because of `faults`.
    pub event: Option<Event>,
    pub findings: Vec<Finding>,
    pub faults: Vec<Rejection>,
    /// What the file is, if it is not NDJSON.
    pub hint: Option<&'static str>,
}

/// Prints messages one after the other, and counts them.
pub(super) struct Report {
    format: Format,
    strict: bool,
    out: BufWriter<Stdout>,
    /// Once it has failed nothing more is printed: the messages are still counted, so that a closed output hides no rejection.
    written: Result<(), CommandError>,
    stored: usize,
    rejected: usize,
    without_identity: usize,
    with_findings: usize,
    /// JUnit's test cases that are not fine.
    cases: String,
}

/// One message that would be stored. The document keeps its order.
#[derive(Serialize)]
struct Stored<'a> {
    file: &'a str,
    line: usize,
    outcome: &'static str,
    identity: &'static str,
    findings: &'a [Finding],
    document: Printed<'a>,
}

impl Report {
    pub fn new(format: Format, strict: bool) -> Self {
        let out = BufWriter::new(std::io::stdout());
        let (stored, rejected, without_identity, with_findings) = (0, 0, 0, 0);
        let (written, cases) = (Ok(()), String::new());
        Report { format, strict, out, written, stored, rejected, without_identity, with_findings, cases }
    }

    /// Whether there was no message.
    pub fn is_empty(&self) -> bool {
        self.stored + self.rejected == 0
    }

    /// Counts and prints a message; `whole`: it is a file of its own.
    pub fn add(&mut self, seen: &Seen, whole: bool) {
        match &seen.event {
            Some(event) => {
                self.stored += 1;
                self.without_identity += usize::from(event.identity == Identity::None);
                self.with_findings += usize::from(!seen.findings.is_empty());
            }
            None => self.rejected += 1,
        }
        if self.written.is_ok() {
            self.written = self.print(seen, whole);
        }
    }

    fn print(&mut self, seen: &Seen, whole: bool) -> Result<(), CommandError> {
        match self.format {
            Format::Text => self.add_text(seen, whole)?,
            Format::Json => writeln!(self.out, "{}", terminal_safe(&as_json(seen)))?,
            Format::Github => self.add_github(seen, whole)?,
            Format::Junit => self.add_case(seen, whole),
        }
        if let Some(hint) = seen.hint {
            self.out.flush()?;
            note(format_args!("{} {hint}", seen.file));
        }
        Ok(())
    }

    fn add_text(&mut self, seen: &Seen, whole: bool) -> Result<(), CommandError> {
        let (file, line) = (escape(seen.file), seen.line);
        for fault in &seen.faults {
            let detail = detail_of(fault, whole);
            writeln!(self.out, "{file}:{line}: {}: {}", fault.reason.as_str(), escape(&detail))?;
        }
        for Finding { kind, text } in &seen.findings {
            writeln!(self.out, "{file}:{line}: warning: {kind}: {}", escape(text))?;
        }
        Ok(())
    }

    /// Workflow commands (GitHub's page "Workflow commands for GitHub Actions").
    fn add_github(&mut self, seen: &Seen, whole: bool) -> Result<(), CommandError> {
        let place = match seen.file {
            "-" => String::new(),
            file => format!("file={},line={},", github_property(file), seen.line),
        };
        for fault in &seen.faults {
            let detail = github_text(&detail_of(fault, whole));
            writeln!(self.out, "::error {place}title={}::{detail}", fault.reason.as_str())?;
        }
        let level = if self.strict { "error" } else { "warning" };
        for Finding { kind, text } in &seen.findings {
            writeln!(self.out, "::{level} {place}title={kind}::{}", github_text(text))?;
        }
        Ok(())
    }

    fn add_case(&mut self, seen: &Seen, whole: bool) {
        let faults = seen.faults.iter().map(|fault| (fault.reason.as_str(), detail_of(fault, whole), true));
        let findings = seen.findings.iter().map(|found| (found.kind, found.text.clone(), self.strict));
        let (mut failures, mut notes) = (String::new(), String::new());
        for (name, text, is_failure) in faults.chain(findings) {
            let text = xml(&text);
            // Writing to memory does not fail.
            let _ = if is_failure {
                write!(failures, "<failure type=\"{name}\" message=\"{text}\"/>")
            } else {
                writeln!(notes, "warning: {name}: {text}")
            };
        }
        if failures.is_empty() && notes.is_empty() {
            return;
        }
        let notes = if notes.is_empty() { notes } else { format!("<system-out>{notes}</system-out>") };
        let (file, line) = (xml(seen.file), seen.line);
        let case = format!("    <testcase classname=\"{file}\" name=\"line {line}\" file=\"{file}\" line=\"{line}\">");
        let _ = writeln!(self.cases, "{case}{failures}{notes}</testcase>");
    }

    fn has_failed(&self) -> bool {
        self.rejected > 0 || self.strict && self.with_findings > 0
    }

    /// Prints the summary. Returns whether something is wrong with a message, and whether all could be printed.
    pub fn finish(mut self) -> (bool, Result<(), CommandError>) {
        let failed = self.has_failed();
        let printed = std::mem::replace(&mut self.written, Ok(())).and_then(|()| self.print_summary());
        (failed, printed)
    }

    fn print_summary(&mut self) -> Result<(), CommandError> {
        let Report { stored, rejected, without_identity, with_findings, .. } = *self;
        match self.format {
            Format::Text | Format::Github => {
                let counts = [(without_identity, "without identity"), (with_findings, "with warnings")];
                let counts =
                    counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
                let counts = counts.collect::<Vec<_>>().join(", ");
                let counts = if counts.is_empty() { counts } else { format!(" ({counts})") };
                writeln!(self.out, "{stored} would be stored{counts}, {rejected} would become dead letters")?;
            }
            Format::Json => {}
            Format::Junit => {
                let tests = stored + rejected;
                let failures = rejected + if self.strict { with_findings } else { 0 };
                writeln!(self.out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>")?;
                let suite = format!("name=\"ticketlog validate\" tests=\"{tests}\" failures=\"{failures}\"");
                writeln!(self.out, "  <testsuite {suite}>\n{}  </testsuite>\n</testsuites>", self.cases)?;
            }
        }
        Ok(self.out.flush()?)
    }
}

fn as_json(seen: &Seen) -> String {
    let Seen { file, line, findings, faults, .. } = seen;
    let fault =
        |fault: &Rejection| json!({ "reason": fault.reason.as_str(), "field": fault.field, "detail": fault.detail });
    match (&seen.event, faults.first()) {
        (Some(event), _) => {
            let document = event.to_bson();
            let (identity, document) = (identity_name(event.identity), Printed(&document));
            let stored = Stored { file, line: *line, outcome: "stored", identity, findings, document };
            serde_json::to_string(&stored).unwrap_or_default()
        }
        (None, first) => json!({
            "file": file, "line": line, "outcome": "dead_lettered", "reason": first.map(|first| first.reason.as_str()),
            "field": first.map(|first| &first.field), "detail": first.map(|first| &first.detail),
            "faults": faults.iter().map(fault).collect::<Vec<_>>(),
        })
        .to_string(),
    }
}

fn github_text(text: &str) -> String {
    escape(text).replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn github_property(text: &str) -> String {
    github_text(text).replace(':', "%3A").replace(',', "%2C")
}

/// The text in an attribute or an element, without characters that XML 1.0 does not have.
fn xml(text: &str) -> String {
    let text = escape(text);
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_as_each_format_needs_it() {
        assert_eq!(github_text("100 %\n"), "100 %25\\n");
        assert_eq!(github_property("a:b,c"), "a%3Ab%2Cc");
        assert_eq!(xml("<\"&\u{1}"), "&lt;&quot;&amp;\\u0001");
    }
}
