//! The answer to a search: the story of an event in order of time; or that it was not found, what that means, and what to do next. Pure.

use serde_json::{Value, json};

use ticketlog_config::format::{counted, dead_letters};
use ticketlog_contract::dead_letter::escape;

use super::entry::Entry;

/// Why a place was not searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GapKind {
    /// Nobody asked for it, or it cannot have the answer.
    LeftOut,
    /// No index serves the query.
    NoIndex,
    /// A login may not.
    NoPermission,
    /// A server does not answer, or cannot.
    Unavailable,
}

/// A place that was not searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Such as `queue q.dead`.
    pub place: String,
    pub why: String,
    pub kind: GapKind,
}

/// Whether exactly the message that was given is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exactly {
    pub collection: String,
    /// The `_id` that a worker gives it; `None` if it cannot be known.
    pub id: Option<String>,
    /// `None` if MongoDB was not asked.
    pub is_stored: Option<bool>,
    /// The answer as a sentence.
    pub text: String,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Story {
    /// In order of time.
    pub entries: Vec<Entry>,
    pub exactly: Vec<Exactly>,
    /// Messages that wait for the workers; `None` if that is not known.
    pub waiting: Option<u64>,
    /// Number of dead letters that may be it, because the decoder cannot read them.
    pub undecided: u64,
    /// The first of them: queue, `dl-id` and reason.
    pub named: Vec<[String; 3]>,
    /// What a person should know besides.
    pub notes: Vec<String>,
    pub gaps: Vec<Gap>,
    /// Whether MongoDB and the dead letters were searched, at least in part.
    pub searched: [bool; 2],
}

impl Story {
    pub fn is_found(&self) -> bool {
        !self.entries.is_empty()
    }

    /// The most important reason for which it is not known whether there is more; `None` if all was searched that was asked for.
    pub fn failure(&self) -> Option<GapKind> {
        let failures = self.gaps.iter().map(|gap| gap.kind).filter(|kind| *kind != GapKind::LeftOut);
        failures.max()
    }

    /// The first of a kind.
    pub fn gap(&self, kind: GapKind) -> Option<&Gap> {
        self.gaps.iter().find(|gap| gap.kind == kind)
    }

    /// As lines for a terminal.
    pub fn to_lines(&self) -> Vec<String> {
        self.entries.iter().flat_map(Entry::to_lines).chain(self.answer_lines()).collect()
    }

    /// What is said besides the entries: whether it was found, what was not searched, and what to do.
    pub fn answer_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        lines.extend(self.exactly.iter().map(|exactly| escape(&exactly.text)));
        if !self.is_found() {
            lines.push(self.not_found());
        }
        lines.extend(self.gaps.iter().map(|gap| format!("not searched: {}: {}", escape(&gap.place), escape(&gap.why))));
        if self.undecided > 0 {
            lines.push(format!(
                "{} may be it, because the decoder cannot read them (`ticketlog dead show`)",
                dead_letters(self.undecided)
            ));
            lines.extend(self.named.iter().map(|[queue, id, why]| format!("    {}  {why}  in {queue}", escape(id))));
        }
        lines.extend(self.notes.iter().cloned());
        if self.is_found() {
            lines.extend(self.waiting.filter(|waiting| *waiting > 0).map(waiting_text));
        } else {
            lines.extend(self.next_step());
        }
        lines
    }

    fn not_found(&self) -> String {
        let what = match self.searched {
            [true, true] => "neither stored nor dead-lettered",
            [true, false] => "it is not stored",
            [false, true] => "it is not dead-lettered",
            [false, false] => return "not known: nothing could be searched".to_owned(),
        };
        let waiting = match self.waiting {
            None => "; how many messages wait for the workers is not known".to_owned(),
            Some(0) => "; no message waits for the workers".to_owned(),
            Some(waiting) => format!("; {}", waiting_text(waiting)),
        };
        format!("not found: {what}{waiting}")
    }

    /// What it means if all was searched, and what to do.
    fn next_step(&self) -> Option<String> {
        if self.failure().is_some() || self.searched != [true, true] {
            return Some("next: search what was not searched; until then it may be there".to_owned());
        }
        Some(match self.waiting {
            Some(0) => {
                "next: it was never confirmed to its publisher, or it was published with another id, or it was deleted. Ask the \
                 publisher for the confirm and the message_id; --user and --since find what a user did"
            }
            _ => {
                "next: run this again when the workers have read the queue. If none of these messages is it, it was never confirmed to \
                 its publisher, or it was published with another id: ask the publisher for the confirm and the message_id"
            }
        }
        .to_owned())
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let entries: Vec<Value> = self.entries.iter().map(Entry::to_json).collect();
        let exactly = self.exactly.iter().map(|exactly| {
            json!({ "collection": exactly.collection, "_id": exactly.id, "stored": exactly.is_stored, "text": exactly.text })
        });
        let gaps = self.gaps.iter().map(|gap| json!({ "place": gap.place, "why": gap.why }));
        let named = self.named.iter().map(|[queue, id, why]| json!({ "queue": queue, "id": id, "reason": why }));
        json!({
            "found": self.is_found(), "story": entries, "exactly": exactly.collect::<Vec<_>>(), "waiting": self.waiting,
            "undecided": { "dead_letters": self.undecided, "first": named.collect::<Vec<_>>() },
            "not_searched": gaps.collect::<Vec<_>>(), "notes": self.notes,
            "next": if self.is_found() { None } else { self.next_step() },
        })
    }
}

fn waiting_text(waiting: u64) -> String {
    let verb = if waiting == 1 { "waits" } else { "wait" };
    format!("{} {verb} for the workers, and nobody can search these", counted(waiting, "message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_found(waiting: Option<u64>) -> Story {
        Story { waiting, searched: [true, true], ..Story::default() }
    }

    #[test]
    fn not_found_says_what_that_means_and_what_to_do() {
        insta::assert_snapshot!(not_found(Some(1204)).to_lines().join("\n"), @r"
        not found: neither stored nor dead-lettered; 1204 messages wait for the workers, and nobody can search these
        next: run this again when the workers have read the queue. If none of these messages is it, it was never confirmed to its publisher, or it was published with another id: ask the publisher for the confirm and the message_id
        ");
        insta::assert_snapshot!(not_found(Some(0)).to_lines().join("\n"), @r"
        not found: neither stored nor dead-lettered; no message waits for the workers
        next: it was never confirmed to its publisher, or it was published with another id, or it was deleted. Ask the publisher for the confirm and the message_id; --user and --since find what a user did
        ");
        let gap = Gap { place: "MongoDB".to_owned(), why: "no primary".to_owned(), kind: GapKind::Unavailable };
        let half = Story { gaps: vec![gap], searched: [false, true], ..not_found(None) };
        insta::assert_snapshot!(half.to_lines().join("\n"), @r"
        not found: it is not dead-lettered; how many messages wait for the workers is not known
        not searched: MongoDB: no primary
        next: search what was not searched; until then it may be there
        ");
        assert_eq!((half.failure(), not_found(Some(1)).failure()), (Some(GapKind::Unavailable), None));
        assert_eq!(half.to_json()["found"], false);
    }
}
