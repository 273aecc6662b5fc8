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
    /// `None` if that is not known.
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
    /// Whether those that the workers hold are among them: RabbitMQ's management API tells, some seconds late.
    pub are_held_counted: bool,
    /// Number of dead letters of which it cannot be told whether they are it.
    pub undecided: u64,
    /// The first of them: queue, `dl-id` and reason.
    pub named: Vec<[String; 3]>,
    /// What a person should know besides.
    pub notes: Vec<String>,
    pub gaps: Vec<Gap>,
    /// Whether all of MongoDB, and all dead letters, were searched, and nothing that may be it is undecided.
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
        lines.extend(self.undecided_lines());
        if self.is_found() {
            lines.extend(self.waiting.filter(|waiting| *waiting > 0).map(|waiting| self.waiting_text(waiting)));
        } else {
            lines.push(self.next_step().to_owned());
        }
        lines
    }

    /// What is said to somebody who sees one publisher only. Of a place that could not be searched only its name: why may be about others.
    pub fn lines_for(&self, publisher: &str) -> Vec<String> {
        let gaps = self.gaps.iter().filter(|gap| gap.kind != GapKind::LeftOut);
        let gaps: Vec<String> = gaps.map(|gap| format!("could not be searched: {}", escape(&gap.place))).collect();
        let mut lines = Vec::new();
        if !self.is_found() {
            let which = if gaps.is_empty() && self.undecided == 0 { "" } else { " that could be searched and read" };
            lines.push(format!("Not found among the dead letters of {}{which}.", escape(publisher)));
        }
        lines.extend(gaps);
        lines.extend(self.undecided_lines());
        lines
    }

    /// The dead letters that may be it, and what else there is to know.
    fn undecided_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.undecided > 0 {
            let number = dead_letters(self.undecided);
            lines.push(format!("{number} may be it, which cannot be told (`ticketlog dead show`)"));
            lines.extend(self.named.iter().map(|[queue, id, why]| format!("    {}  {why}  in {queue}", escape(id))));
        }
        lines.extend(self.notes.iter().cloned());
        lines
    }

    fn not_found(&self) -> String {
        let what = match self.searched {
            [true, true] => "neither stored nor dead-lettered",
            [true, false] => "it is not stored, and whether it is dead-lettered is not known",
            [false, true] => "it is not dead-lettered, and whether it is stored is not known",
            [false, false] => "whether it is stored or dead-lettered is not known",
        };
        let waiting = match self.waiting {
            None => "how many messages wait for the workers is not known".to_owned(),
            Some(0) if self.are_held_counted => "no message waits for the workers".to_owned(),
            Some(0) => "no message waits for the workers, but how many they hold is not known".to_owned(),
            Some(waiting) => self.waiting_text(waiting),
        };
        format!("not found: {what}; {waiting}")
    }

    fn waiting_text(&self, waiting: u64) -> String {
        let verb = if waiting == 1 { "waits" } else { "wait" };
        let held = if self.are_held_counted { "" } else { ", not counting those that they hold," };
        format!("{} {verb} for the workers{held} and nobody can search these", counted(waiting, "message"))
    }

    /// What it means if all was searched, and what to do.
    fn next_step(&self) -> &'static str {
        match self.searched {
            [true, true] if self.waiting == Some(0) && self.are_held_counted => {
                "next: if it was published in the last seconds, run this again. Otherwise it was never confirmed to its publisher, or it was \
                 published with another id, or it was deleted. Ask the publisher for the confirm and the message_id; --user and --since \
                 find what a user did"
            }
            [true, true] => {
                "next: run this again when the workers have settled what is in the queue. If it is not found then, it was never confirmed to \
                 its publisher, or it was published with another id, or it was deleted: ask the publisher for the confirm and the message_id"
            }
            _ if self.gaps.is_empty() => {
                "next: look at the dead letters that may be it; until then it may be one of them"
            }
            _ => "next: search what was not searched; until then it may be there",
        }
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
            "waiting_with_held": self.are_held_counted,
            "undecided": { "dead_letters": self.undecided, "first": named.collect::<Vec<_>>() },
            "not_searched": gaps.collect::<Vec<_>>(), "notes": self.notes,
            "next": if self.is_found() { None } else { Some(self.next_step()) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_found(waiting: Option<u64>) -> Story {
        Story { waiting, are_held_counted: true, searched: [true, true], ..Story::default() }
    }

    fn gap(place: &str, kind: GapKind) -> Gap {
        Gap { place: place.to_owned(), why: "no primary".to_owned(), kind }
    }

    #[test]
    fn not_found_says_what_that_means_and_what_to_do() {
        insta::assert_snapshot!(not_found(Some(1204)).to_lines().join("\n"), @r"
        not found: neither stored nor dead-lettered; 1204 messages wait for the workers and nobody can search these
        next: run this again when the workers have settled what is in the queue. If it is not found then, it was never confirmed to its publisher, or it was published with another id, or it was deleted: ask the publisher for the confirm and the message_id
        ");
        insta::assert_snapshot!(not_found(Some(0)).to_lines().join("\n"), @r"
        not found: neither stored nor dead-lettered; no message waits for the workers
        next: if it was published in the last seconds, run this again. Otherwise it was never confirmed to its publisher, or it was published with another id, or it was deleted. Ask the publisher for the confirm and the message_id; --user and --since find what a user did
        ");
        let gaps = vec![gap("MongoDB", GapKind::Unavailable)];
        let half = Story { gaps, searched: [false, true], ..not_found(None) };
        insta::assert_snapshot!(half.to_lines().join("\n"), @r"
        not found: it is not dead-lettered, and whether it is stored is not known; how many messages wait for the workers is not known
        not searched: MongoDB: no primary
        next: search what was not searched; until then it may be there
        ");
        assert_eq!((half.failure(), not_found(Some(1)).failure()), (Some(GapKind::Unavailable), None));
        assert_eq!(half.to_json()["found"], false);
    }

    #[test]
    fn what_workers_hold_and_what_cannot_be_told_is_never_nowhere() {
        let text = |story: Story| story.to_lines().join("\n");
        let held = Story { are_held_counted: false, ..not_found(Some(0)) };
        let held = text(held);
        assert!(held.contains("; no message waits for the workers, but how many they hold is not known\n"), "{held}");
        assert!(held.contains("\nnext: run this again when the workers have settled"), "{held}");
        let ready = text(Story { are_held_counted: false, ..not_found(Some(2)) });
        assert!(ready.contains("2 messages wait for the workers, not counting those that they hold, and"), "{ready}");
        for (gaps, undecided) in [(vec![gap("queue a.dead", GapKind::LeftOut)], 0), (vec![], 5)] {
            let story = text(Story { gaps, undecided, searched: [true, false], ..not_found(Some(0)) });
            let first = "not found: it is not stored, and whether it is dead-lettered is not known; no message waits";
            assert!(story.starts_with(first) && !story.contains("never confirmed"), "{story}");
        }
    }

    #[test]
    fn who_sees_one_publisher_is_told_what_was_not_searched_and_what_may_be_it() {
        let documents = gap("collection log", GapKind::LeftOut);
        let all = Story { gaps: vec![documents.clone()], ..not_found(None) };
        assert_eq!(all.lines_for("shop"), ["Not found among the dead letters of shop."]);
        let story = Story {
            gaps: vec![documents, gap("queue q.parked", GapKind::Unavailable)],
            undecided: 1,
            named: vec![["q.dead", "0a", "invalid_json"].map(str::to_owned)],
            notes: vec!["20 of 30 in q.dead are shown (--limit)".to_owned()],
            ..not_found(None)
        };
        insta::assert_snapshot!(story.lines_for("shop").join("\n"), @r"
        Not found among the dead letters of shop that could be searched and read.
        could not be searched: queue q.parked
        1 dead letter may be it, which cannot be told (`ticketlog dead show`)
            0a  invalid_json  in q.dead
        20 of 30 in q.dead are shown (--limit)
        ");
    }
}
