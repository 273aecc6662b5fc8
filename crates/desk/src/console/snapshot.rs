//! Owns what the console remembers of a queue after it has read it: each dead letter in little memory, without its body. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ticketlog_contract::dead_letter::{Cause, DeadLetterFields, Filter, Groups, SameIds};

/// Longest text that is kept, in bytes; that of the longest `dl-detail`.
const MAX_TEXT: usize = 512;

/// A text that many dead letters share, by its index.
type TextId = u32;

/// One dead letter.
#[derive(Debug, Clone)]
struct DeadLetter {
    id: Box<str>,
    message_id: Option<Box<str>>,
    cause: Cause,
    field: Option<TextId>,
    detail: TextId,
    fingerprint: TextId,
    exchange: TextId,
    routing_key: TextId,
    publisher: Option<TextId>,
    replay_id: Option<TextId>,
    code: Option<i64>,
    time: Option<i64>,
    replays: i64,
    bytes: u32,
    has_same_id: bool,
}

/// A dead letter, as pages show it in lists.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeadLetterLine<'a> {
    pub fields: DeadLetterFields<'a>,
    /// Length of its body.
    pub bytes: u32,
    /// Whether an earlier one has the same id.
    pub has_same_id: bool,
}

/// A queue as it was when it was read.
#[derive(Debug)]
pub(super) struct Snapshot {
    dead_letters: Vec<DeadLetter>,
    texts: Arc<[Box<str>]>,
    /// Milliseconds since 1970.
    pub taken: i64,
    /// How long reading took.
    pub took: Duration,
    /// Number of dead letters that have the same id as an earlier one.
    pub same_ids: u64,
}

/// Collects a snapshot.
#[derive(Debug, Default)]
pub(super) struct SnapshotBuilder {
    dead_letters: Vec<DeadLetter>,
    texts: Vec<Box<str>>,
    ids: HashMap<Box<str>, TextId>,
    same_ids: SameIds,
}

impl SnapshotBuilder {
    /// For about this many dead letters.
    pub fn with_capacity(count: usize) -> SnapshotBuilder {
        SnapshotBuilder { dead_letters: Vec::with_capacity(count), ..SnapshotBuilder::default() }
    }

    /// Texts are cut, because headers can hold anything.
    pub fn add(&mut self, fields: &DeadLetterFields, bytes: usize) {
        let dead_letter = DeadLetter {
            id: cut(fields.id).into(),
            message_id: fields.message_id.map(|text| cut(text).into()),
            cause: fields.cause,
            field: fields.field.map(|text| self.text(text)),
            detail: self.text(fields.detail),
            fingerprint: self.text(fields.fingerprint),
            exchange: self.text(fields.exchange),
            routing_key: self.text(fields.routing_key),
            publisher: fields.publisher.map(|text| self.text(text)),
            replay_id: fields.replay_id.map(|text| self.text(text)),
            code: fields.code,
            time: fields.time,
            replays: fields.replays,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            has_same_id: self
                .same_ids
                .add(fields.id, u32::try_from(self.dead_letters.len()).unwrap_or(u32::MAX))
                .is_some(),
        };
        self.dead_letters.push(dead_letter);
    }

    fn text(&mut self, text: &str) -> TextId {
        let text = cut(text);
        if let Some(id) = self.ids.get(text) {
            return *id;
        }
        let id = TextId::try_from(self.texts.len()).unwrap_or(TextId::MAX);
        self.texts.push(text.into());
        self.ids.insert(text.into(), id);
        id
    }

    pub fn finish(mut self, taken: i64, took: Duration) -> Snapshot {
        self.dead_letters.shrink_to_fit();
        Snapshot {
            dead_letters: self.dead_letters,
            texts: self.texts.into(),
            taken,
            took,
            same_ids: self.same_ids.count,
        }
    }
}

impl Snapshot {
    /// The part of one publisher, as if nothing else were in the queue.
    pub fn of_publisher(&self, name: &str) -> Snapshot {
        let is_own = |dead_letter: &&DeadLetter| self.line(dead_letter).fields.publisher == Some(name);
        let dead_letters: Vec<DeadLetter> = self.dead_letters.iter().filter(is_own).cloned().collect();
        let same_ids = dead_letters.iter().filter(|dead_letter| dead_letter.has_same_id).count() as u64;
        Snapshot { dead_letters, texts: Arc::clone(&self.texts), same_ids, ..*self }
    }

    /// Number of dead letters.
    pub fn len(&self) -> usize {
        self.dead_letters.len()
    }

    fn line<'a>(&'a self, dead_letter: &'a DeadLetter) -> DeadLetterLine<'a> {
        let text = |id: TextId| self.texts.get(id as usize).map_or("", |text| text);
        let fields = DeadLetterFields {
            id: &dead_letter.id,
            cause: dead_letter.cause,
            field: dead_letter.field.map(text),
            code: dead_letter.code,
            detail: text(dead_letter.detail),
            time: dead_letter.time,
            message_id: dead_letter.message_id.as_deref(),
            fingerprint: text(dead_letter.fingerprint),
            exchange: text(dead_letter.exchange),
            routing_key: text(dead_letter.routing_key),
            publisher: dead_letter.publisher.map(text),
            replays: dead_letter.replays,
            replay_id: dead_letter.replay_id.map(text),
        };
        DeadLetterLine { fields, bytes: dead_letter.bytes, has_same_id: dead_letter.has_same_id }
    }

    /// The selected dead letters, in the order of the queue. A filter on bodies selects nothing.
    pub fn selected<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = DeadLetterLine<'a>> {
        self.dead_letters
            .iter()
            .map(|dead_letter| self.line(dead_letter))
            .filter(|line| filter.matches(&line.fields, || None))
    }

    /// The selected dead letters by fingerprint, with their history from the oldest to the newest in the queue.
    pub fn groups(&self, filter: &Filter) -> Groups {
        let times = || self.dead_letters.iter().filter_map(|dead_letter| dead_letter.time);
        let mut groups = Groups::over(times().min().unwrap_or(0), times().max().unwrap_or(0));
        self.selected(filter).for_each(|line| groups.add(&line.fields, line.bytes as usize));
        groups
    }
}

/// The beginning of a text.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ticketlog_contract::Reason;

    fn fields<'a>(id: &'a str, fingerprint: &'a str, time: i64) -> DeadLetterFields<'a> {
        DeadLetterFields {
            id,
            cause: Cause::Reason(Reason::TooDeep),
            field: None,
            code: None,
            detail: "nested",
            time: Some(time),
            message_id: None,
            fingerprint,
            exchange: "x",
            routing_key: "k",
            publisher: Some("shop"),
            replays: 0,
            replay_id: None,
        }
    }

    fn snapshot() -> Snapshot {
        let mut builder = SnapshotBuilder::default();
        for n in 0..100 {
            let fingerprint = if n % 4 == 0 { "a" } else { "b" };
            builder.add(&fields(&format!("id{n}"), fingerprint, 1000 + n), 10);
        }
        builder.finish(5, Duration::ZERO)
    }

    #[test]
    fn texts_are_kept_once_and_dead_letters_are_selected() {
        let snapshot = snapshot();
        assert_eq!((snapshot.len(), snapshot.texts.len()), (100, 6));
        let some = Filter { ids: vec!["id7".into()], ..Filter::default() };
        assert_eq!(snapshot.selected(&some).count(), 1);
        let groups = snapshot.groups(&Filter { until: Some(1010), ..Filter::default() });
        assert_eq!((groups.count, groups.largest_first().len()), (11, 2));
    }

    #[test]
    fn a_publisher_sees_nothing_of_others() {
        let mut builder = SnapshotBuilder::default();
        builder.add(&DeadLetterFields { publisher: Some("other"), ..fields("x", "a", 1) }, 10);
        builder.add(&DeadLetterFields { publisher: None, ..fields("y", "a", 2) }, 10);
        builder.add(&fields("z", "a", 1000), 10);
        builder.add(&DeadLetterFields { publisher: Some("other"), ..fields("x", "a", 2000) }, 10);
        let snapshot = builder.finish(5, Duration::ZERO);
        let own = snapshot.of_publisher("shop");
        let all = Filter::default();
        let groups = own.groups(&all);
        let groups = groups.largest_first();
        assert_eq!((snapshot.same_ids, own.same_ids, own.len(), groups.len()), (1, 0, 1, 1));
        assert_eq!((groups[0].id.as_str(), groups[0].history[0]), ("z", 1), "the time begins with its own");
        assert_eq!([snapshot.of_publisher("").len(), snapshot.of_publisher("sho").len()], [0, 0]);
    }
}
