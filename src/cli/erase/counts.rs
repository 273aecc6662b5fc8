//! Owns what `ticketlog erase` counts of a user, as text and as JSON.

use serde_json::{Value, json};

use ticketlog_config::format::{counted, dead_letters};
use ticketlog_contract::dead_letter::escape;
use ticketlog_desk::{Undecided, UserDeadLetters};

use super::super::terminal::note;

const NOTHING_LEFT: &str =
    "left: nothing that can be seen. What workers hold at this moment cannot: if they are behind, run it again later";

/// What is found, was erased, or is left.
#[derive(Debug, Clone)]
pub(super) struct Counts {
    pub documents: u64,
    pub undecided_documents: u64,
    pub dead: UserDeadLetters,
    pub parked: UserDeadLetters,
    /// Events of any user that wait for the workers; `None` if that is not known.
    pub waiting: Option<u64>,
}

impl Default for Counts {
    fn default() -> Self {
        let dead_letters = UserDeadLetters::default;
        Counts { documents: 0, undecided_documents: 0, dead: dead_letters(), parked: dead_letters(), waiting: Some(0) }
    }
}

impl Counts {
    /// Adds what another route has.
    pub fn add(&mut self, more: Counts) {
        self.documents += more.documents;
        self.dead.add(more.dead);
        self.parked.add(more.parked);
    }

    /// Whether nothing is certainly the user's.
    pub fn is_empty(&self) -> bool {
        self.documents + self.dead.found + self.parked.found == 0
    }

    fn undecided_dead_letters(&self) -> u64 {
        self.dead.undecided + self.parked.undecided
    }

    fn named(&self) -> impl Iterator<Item = &Undecided> {
        self.dead.named.iter().chain(&self.parked.named)
    }

    pub fn erased_json(&self) -> Value {
        json!({ "documents": self.documents, "dead_letters": self.dead.found, "parked": self.parked.found })
    }

    pub fn to_json(&self) -> Value {
        let named: Vec<_> = self
            .named()
            .map(
                |dead_letter| json!({ "queue": dead_letter.queue, "id": dead_letter.id, "reason": dead_letter.reason }),
            )
            .collect();
        json!({
            "documents": self.documents, "dead_letters": self.dead.found, "parked": self.parked.found,
            "undecided": { "documents": self.undecided_documents, "dead_letters": self.undecided_dead_letters(), "first": named },
            "waiting": self.waiting,
        })
    }

    pub fn to_text(&self) -> String {
        let (dead, parked) = (dead_letters(self.dead.found), self.parked.found);
        format!("{}, {dead} and {parked} parked", documents(self.documents))
    }

    /// What is left of the user after the erasure, and why.
    pub fn left_text(&self) -> String {
        let mut reasons = Vec::new();
        if !self.is_empty() {
            reasons.push(format!("{} came meanwhile (run it again)", self.to_text()));
        }
        let undecided = [
            (self.undecided_documents, documents(self.undecided_documents)),
            (self.undecided_dead_letters(), dead_letters(self.undecided_dead_letters())),
        ];
        let undecided: Vec<String> =
            undecided.into_iter().filter(|(count, _)| *count > 0).map(|(_, text)| text).collect();
        if !undecided.is_empty() {
            reasons.push(format!("{} may be the user's (named above)", undecided.join(" and ")));
        }
        match self.waiting {
            Some(0) => {}
            Some(waiting) => reasons.push(format!("{waiting} events wait for the workers (run it again later)")),
            None => {
                reasons.push("how many events wait for the workers is not known: the login may not see it".to_owned())
            }
        }
        if reasons.is_empty() { NOTHING_LEFT.to_owned() } else { format!("left: {}", reasons.join("; ")) }
    }

    /// Names what may be the user's, so that a person can check it.
    pub fn note_undecided(&self) {
        if self.undecided_documents > 0 {
            note(format_args!(
                "{} may be the user's and stay: user_id is an array that holds it, or a double that several ids become",
                documents(self.undecided_documents)
            ));
        }
        if self.undecided_dead_letters() == 0 {
            return;
        }
        note(format_args!(
            "{} may be anybody's and stay, because the decoder cannot tell (`ticketlog dead show`):",
            dead_letters(self.undecided_dead_letters())
        ));
        for Undecided { queue, id, reason } in self.named() {
            note(format_args!("  {}  {reason}  in {queue}", escape(id)));
        }
        let more = self.undecided_dead_letters() - self.named().count() as u64;
        if more > 0 {
            note(format_args!("  and {more} more"));
        }
    }
}

fn documents(count: u64) -> String {
    counted(count, "document")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_said_with_its_reason() {
        let mut left = Counts::default();
        assert_eq!(left.left_text(), NOTHING_LEFT);
        left.documents = 1;
        left.dead.undecided = 2;
        left.waiting = None;
        insta::assert_snapshot!(left.left_text(), @"left: 1 document, 0 dead letters and 0 parked came meanwhile (run it again); 2 dead letters may be the user's (named above); how many events wait for the workers is not known: the login may not see it");
        assert!(!left.is_empty());
        left.documents = 0;
        assert!(left.is_empty());
    }
}
