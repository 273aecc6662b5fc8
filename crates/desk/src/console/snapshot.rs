//! Owns what the console remembers of a queue after it has read it: each dead letter in little memory, without its body. Pure.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ticketlog_contract::dead_letter::{Cause, DeadLetterFields, Filter, Groups};

use super::compact::{CompactId, TextId, Texts, TextsBuilder};

/// Longest text that is kept, in bytes; that of the longest `dl-detail`.
const MAX_TEXT: usize = 512;

/// One dead letter, in 56 bytes.
#[derive(Debug, Clone)]
struct DeadLetter {
    id: CompactId,
    message_id: Option<CompactId>,
    /// The index of what it shares with others.
    shared: u32,
    bytes: u32,
    /// `None` is the smallest number.
    time: i64,
    has_same_id: bool,
}

/// What many dead letters have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shared {
    cause: Cause,
    field: Option<TextId>,
    code: Option<i64>,
    detail: TextId,
    fingerprint: TextId,
    exchange: TextId,
    routing_key: TextId,
    publisher: Option<TextId>,
    replays: i64,
    replay_id: Option<TextId>,
}

/// A dead letter, as pages show it in lists.
#[derive(Debug)]
pub(super) struct DeadLetterLine<'a> {
    id: Cow<'a, str>,
    message_id: Option<Cow<'a, str>>,
    shared: &'a Shared,
    texts: &'a Texts,
    time: Option<i64>,
    /// Length of its body.
    pub bytes: u32,
    /// Whether an earlier one has the same id.
    pub has_same_id: bool,
}

impl DeadLetterLine<'_> {
    pub fn fields(&self) -> DeadLetterFields<'_> {
        let (shared, texts) = (self.shared, self.texts);
        DeadLetterFields {
            id: &self.id,
            cause: shared.cause,
            field: shared.field.map(|id| texts.get(id)),
            code: shared.code,
            detail: texts.get(shared.detail),
            time: self.time,
            message_id: self.message_id.as_deref(),
            fingerprint: texts.get(shared.fingerprint),
            exchange: texts.get(shared.exchange),
            routing_key: texts.get(shared.routing_key),
            publisher: shared.publisher.map(|id| texts.get(id)),
            replays: shared.replays,
            replay_id: shared.replay_id.map(|id| texts.get(id)),
        }
    }
}

/// A queue as it was when it was read.
#[derive(Debug)]
pub(super) struct Snapshot {
    dead_letters: Vec<DeadLetter>,
    shared: Arc<[Shared]>,
    texts: Arc<Texts>,
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
    shared: Vec<Shared>,
    known: HashMap<Shared, u32>,
    texts: TextsBuilder,
}

impl SnapshotBuilder {
    /// For about this many dead letters.
    pub fn with_capacity(count: usize) -> SnapshotBuilder {
        SnapshotBuilder { dead_letters: Vec::with_capacity(count), ..SnapshotBuilder::default() }
    }

    /// Texts are cut, because headers can hold anything.
    pub fn add(&mut self, fields: &DeadLetterFields, bytes: usize) {
        let mut text = |text: &str| self.texts.add(cut(text));
        let shared = Shared {
            cause: fields.cause,
            field: fields.field.map(&mut text),
            code: fields.code,
            detail: text(fields.detail),
            fingerprint: text(fields.fingerprint),
            exchange: text(fields.exchange),
            routing_key: text(fields.routing_key),
            publisher: fields.publisher.map(&mut text),
            replays: fields.replays,
            replay_id: fields.replay_id.map(&mut text),
        };
        let all = &mut self.shared;
        let shared = *self.known.entry(shared).or_insert_with(|| {
            all.push(shared);
            u32::try_from(all.len() - 1).unwrap_or(u32::MAX)
        });
        self.dead_letters.push(DeadLetter {
            id: CompactId::new(cut(fields.id), &mut self.texts),
            message_id: fields.message_id.map(|text| CompactId::new(cut(text), &mut self.texts)),
            shared,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            time: fields.time.unwrap_or(i64::MIN),
            has_same_id: false,
        });
    }

    pub fn finish(mut self, taken: i64, took: Duration) -> Snapshot {
        self.dead_letters.shrink_to_fit();
        let same_ids = mark_same_ids(&mut self.dead_letters);
        let (shared, texts) = (self.shared.into(), Arc::new(self.texts.finish()));
        Snapshot { dead_letters: self.dead_letters, shared, texts, taken, took, same_ids }
    }
}

/// Marks those that have the same id as an earlier one; returns how many. By sorting, which takes four bytes for each: a map would
/// take as much memory as the dead letters.
fn mark_same_ids(dead_letters: &mut [DeadLetter]) -> u64 {
    let count = u32::try_from(dead_letters.len()).unwrap_or(u32::MAX);
    let mut order: Vec<u32> = (0..count).collect();
    let id = |dead_letters: &[DeadLetter], at: u32| dead_letters.get(at as usize).map(|dead_letter| dead_letter.id);
    order.sort_unstable_by_key(|at| (id(dead_letters, *at), *at));
    let mut same = 0;
    for pair in order.windows(2) {
        if let [first, second] = pair
            && id(dead_letters, *first) == id(dead_letters, *second)
            && let Some(later) = dead_letters.get_mut(*second as usize)
        {
            later.has_same_id = true;
            same += 1;
        }
    }
    same
}

impl Snapshot {
    /// The part of one publisher, as if nothing else were in the queue.
    pub fn of_publisher(&self, name: &str) -> Snapshot {
        let is_own = |dead_letter: &&DeadLetter| {
            self.line(dead_letter).is_some_and(|line| line.fields().publisher == Some(name))
        };
        let dead_letters: Vec<DeadLetter> = self.dead_letters.iter().filter(is_own).cloned().collect();
        let same_ids = dead_letters.iter().filter(|dead_letter| dead_letter.has_same_id).count() as u64;
        Snapshot {
            dead_letters,
            same_ids,
            shared: Arc::clone(&self.shared),
            texts: Arc::clone(&self.texts),
            taken: self.taken,
            took: self.took,
        }
    }

    /// Number of dead letters.
    pub fn len(&self) -> usize {
        self.dead_letters.len()
    }

    fn line<'a>(&'a self, dead_letter: &'a DeadLetter) -> Option<DeadLetterLine<'a>> {
        Some(DeadLetterLine {
            id: dead_letter.id.text(&self.texts),
            message_id: dead_letter.message_id.map(|id| id.text(&self.texts)),
            shared: self.shared.get(dead_letter.shared as usize)?,
            texts: &self.texts,
            time: Some(dead_letter.time).filter(|time| *time != i64::MIN),
            bytes: dead_letter.bytes,
            has_same_id: dead_letter.has_same_id,
        })
    }

    /// The selected dead letters, in the order of the queue. A filter on bodies selects nothing.
    pub fn selected<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = DeadLetterLine<'a>> {
        self.dead_letters
            .iter()
            .filter_map(|dead_letter| self.line(dead_letter))
            .filter(|line| filter.matches(&line.fields(), || None))
    }

    /// The selected dead letters by fingerprint, with their history from the oldest to the newest in the queue.
    pub fn groups(&self, filter: &Filter) -> Groups {
        let times = || self.dead_letters.iter().map(|dead_letter| dead_letter.time).filter(|time| *time != i64::MIN);
        let mut groups = Groups::over(times().min().unwrap_or(0), times().max().unwrap_or(0));
        self.selected(filter).for_each(|line| groups.add(&line.fields(), line.bytes as usize));
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
            builder.add(&fields(&format!("{n:024x}"), fingerprint, 1000 + n), 10);
        }
        builder.finish(5, Duration::ZERO)
    }

    #[test]
    fn texts_are_kept_once_and_dead_letters_are_selected() {
        let snapshot = snapshot();
        assert_eq!((snapshot.len(), snapshot.texts.len()), (100, 6));
        let some = Filter { ids: vec![format!("{:024x}", 7)], ..Filter::default() };
        assert_eq!(snapshot.selected(&some).count(), 1);
        let groups = snapshot.groups(&Filter { until: Some(1010), ..Filter::default() });
        assert_eq!((groups.count, groups.largest_first().len()), (10, 2), "before that time");
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
