//! Owns the statistics of a dead-letter queue: how many, by cause, how old. Their size is bounded, however many causes there are.

use std::collections::BTreeMap;

use super::{Cause, DeadLetterFields};

/// Most groups; dead letters of further groups are counted together, without a fingerprint.
const MAX_GROUPS: usize = 1000;
/// Most publishers of a group that are counted by name.
const MAX_PUBLISHERS: usize = 20;
/// Number of points of a group's history.
pub const HISTORY_POINTS: usize = 24;

/// Dead letters with one fingerprint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    pub cause: Cause,
    pub fingerprint: String,
    pub field: Option<String>,
    /// Of the first one seen.
    pub detail: String,
    /// Of the first one seen.
    pub id: String,
    /// Of the first one seen.
    pub message_id: Option<String>,
    pub count: u64,
    /// Milliseconds since 1970.
    pub oldest: Option<i64>,
    /// Milliseconds since 1970.
    pub newest: Option<i64>,
    pub replayed: u64,
    /// By publisher; the name is empty where there is none.
    pub publishers: BTreeMap<String, u64>,
    /// How many were dead-lettered in each part of the time that the groups are over.
    pub history: [u32; HISTORY_POINTS],
}

impl Group {
    /// `is_known` tells a group from the one that collects further fingerprints.
    fn new(first: &DeadLetterFields, is_known: bool) -> Self {
        Group {
            cause: first.cause,
            fingerprint: if is_known { first.fingerprint } else { "" }.to_owned(),
            field: first.field.filter(|_| is_known).map(str::to_owned),
            detail: if is_known { first.detail } else { "(further causes)" }.to_owned(),
            id: first.id.to_owned(),
            message_id: first.message_id.map(str::to_owned),
            ..Group::default()
        }
    }
}

#[derive(Debug, Default)]
pub struct Groups {
    groups: BTreeMap<(Cause, String), Group>,
    /// The time of which each group has a history.
    history_over: Option<(i64, i64)>,
    pub count: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Number of dead letters by how often they were replayed.
    pub by_replays: BTreeMap<i64, u64>,
}

/// The value of a name; of `(other)` if there are `max` names and this is not one of them.
pub fn bounded<'a, V: Default>(values: &'a mut BTreeMap<String, V>, name: &str, max: usize) -> &'a mut V {
    let has_room = values.len() < max || values.contains_key(name);
    values.entry(if has_room { name } else { "(other)" }.to_owned()).or_default()
}

impl Groups {
    /// Groups with a history from `start` to `end`, in milliseconds since 1970.
    pub fn over(start: i64, end: i64) -> Self {
        Groups { history_over: Some((start, end)), ..Groups::default() }
    }

    pub fn add(&mut self, fields: &DeadLetterFields, bytes: usize) {
        self.count += 1;
        self.bytes += bytes as u64;
        *self.by_replays.entry(fields.replays.clamp(0, 100)).or_default() += 1;
        let known = (fields.cause, fields.fingerprint.to_owned());
        let is_known = self.groups.len() < MAX_GROUPS || self.groups.contains_key(&known);
        let key = if is_known { known } else { (fields.cause, String::new()) };
        let group = self.groups.entry(key).or_insert_with(|| Group::new(fields, is_known));
        group.count += 1;
        group.replayed += u64::from(fields.replays > 0);
        group.oldest = group.oldest.into_iter().chain(fields.time).min();
        group.newest = group.newest.max(fields.time);
        *bounded(&mut group.publishers, fields.publisher.unwrap_or_default(), MAX_PUBLISHERS) += 1;
        let point = self.history_over.zip(fields.time).map(|((start, end), time)| point(time, start, end));
        if let Some(count) = point.and_then(|point| group.history.get_mut(point)) {
            *count += 1;
        }
    }

    /// The groups, the largest first.
    pub fn largest_first(&self) -> Vec<&Group> {
        let mut groups: Vec<_> = self.groups.values().collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.count));
        groups
    }

    /// Counts by cause, the largest first.
    pub fn by_cause(&self) -> Vec<(Cause, u64)> {
        let mut causes: BTreeMap<Cause, u64> = BTreeMap::new();
        for group in self.groups.values() {
            *causes.entry(group.cause).or_default() += group.count;
        }
        let mut causes: Vec<_> = causes.into_iter().collect();
        causes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        causes
    }

    /// The times of the oldest and the newest.
    pub fn span(&self) -> (Option<i64>, Option<i64>) {
        let oldest = self.groups.values().filter_map(|group| group.oldest).min();
        (oldest, self.groups.values().filter_map(|group| group.newest).max())
    }
}

/// The part of the time from `start` to `end` that holds `time`.
fn point(time: i64, start: i64, end: i64) -> usize {
    let span = (i128::from(end) - i128::from(start) + 1).max(1);
    let share = (i128::from(time) - i128::from(start)) * HISTORY_POINTS as i128 / span;
    usize::try_from(share).unwrap_or(0).min(HISTORY_POINTS - 1)
}

#[cfg(test)]
mod tests {
    use super::super::DeadLetterRecord;
    use super::*;
    use crate::Reason;

    fn fields<'a>(fingerprint: &'a str, publisher: &'a str, time: i64) -> DeadLetterFields<'a> {
        DeadLetterFields {
            id: "id",
            cause: Cause::Reason(Reason::TooDeep),
            field: None,
            code: None,
            detail: "nested",
            time: Some(time),
            message_id: None,
            fingerprint,
            exchange: "x",
            routing_key: "k",
            publisher: Some(publisher),
            replays: time % 2,
            replay_id: None,
        }
    }

    #[test]
    fn counts_by_cause_within_bounds() {
        let mut groups = Groups::default();
        for n in 0..5000i64 {
            groups.add(&fields(&(n % 2500).to_string(), &n.to_string(), n), 10);
        }
        let unknown = DeadLetterRecord::read(|_| None, None, "");
        groups.add(&DeadLetterFields { cause: unknown.cause, time: None, replays: 0, ..fields("", "", 0) }, 1);
        assert_eq!((groups.count, groups.bytes, groups.span()), (5001, 50_001, (Some(0), Some(4999))));
        assert_eq!(groups.by_cause(), [(Cause::Reason(Reason::TooDeep), 5000), (Cause::Unknown, 1)]);
        let largest = groups.largest_first();
        assert_eq!((largest.len(), largest[0].count, largest[0].fingerprint.as_str()), (MAX_GROUPS + 2, 3000, ""));
        assert_eq!((largest[1].count, largest[1].publishers.len()), (2, 2));
        assert_eq!((largest[0].publishers.len(), largest[0].publishers["(other)"]), (MAX_PUBLISHERS + 1, 2980));
        assert_eq!(groups.by_replays, BTreeMap::from([(0, 2501), (1, 2500)]));
    }

    #[test]
    fn a_history_divides_the_time_into_equal_parts() {
        let mut groups = Groups::over(1000, 1099);
        (0..100).for_each(|n| groups.add(&fields(if n % 4 == 0 { "a" } else { "b" }, "shop", 1000 + n), 1));
        let [largest, other] = groups.largest_first()[..] else { panic!() };
        assert_eq!((largest.count, largest.history.iter().sum::<u32>()), (75, 75));
        assert_eq!((other.oldest, other.newest, other.history[0]), (Some(1000), Some(1096), 2));
        assert_eq!(largest.publishers, BTreeMap::from([("shop".to_owned(), 75)]));
        assert_eq!([point(0, 0, 0), point(0, 0, 23), point(23, 0, 23), point(11, 0, 23)], [0, 0, 23, 11]);
        assert_eq!(point(i64::MAX, i64::MIN, i64::MAX), HISTORY_POINTS - 1);
    }
}
