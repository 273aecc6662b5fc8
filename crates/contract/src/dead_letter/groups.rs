//! Owns the statistics of a dead-letter queue: how many, by cause, how old. Their size is bounded, however many causes there are.

use std::collections::BTreeMap;

use super::{Cause, DeadLetterRecord};

/// Most groups; dead letters of further groups are counted together, without a fingerprint.
const MAX_GROUPS: usize = 1000;

/// Dead letters with one fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub cause: Cause,
    pub fingerprint: String,
    pub field: Option<String>,
    /// Of the first one seen.
    pub detail: String,
    pub count: u64,
    /// Milliseconds since 1970.
    pub oldest: Option<i64>,
    /// Milliseconds since 1970.
    pub newest: Option<i64>,
    pub replayed: u64,
}

#[derive(Debug, Default)]
pub struct Groups {
    groups: BTreeMap<(Cause, String), Group>,
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
    pub fn add(&mut self, record: &DeadLetterRecord, bytes: usize) {
        self.count += 1;
        self.bytes += bytes as u64;
        *self.by_replays.entry(record.replays.clamp(0, 100)).or_default() += 1;
        let known = (record.cause, record.fingerprint.clone());
        let room = self.groups.len() < MAX_GROUPS || self.groups.contains_key(&known);
        let key = if room { known } else { (record.cause, String::new()) };
        let group = self.groups.entry(key).or_insert_with_key(|(cause, fingerprint)| Group {
            cause: *cause,
            fingerprint: fingerprint.clone(),
            field: record.field.clone().filter(|_| room),
            detail: if room { record.detail.clone() } else { "(further causes)".to_owned() },
            count: 0,
            oldest: None,
            newest: None,
            replayed: 0,
        });
        group.count += 1;
        group.replayed += u64::from(record.replays > 0);
        group.oldest = group.oldest.into_iter().chain(record.time).min();
        group.newest = group.newest.max(record.time);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reason;

    #[test]
    fn counts_by_cause_within_bounds() {
        let mut groups = Groups::default();
        for n in 0..5000i64 {
            let record = DeadLetterRecord {
                cause: Cause::Reason(Reason::TooDeep),
                fingerprint: (n % 2500).to_string(),
                time: Some(n),
                replays: n % 2,
                ..DeadLetterRecord::read(|_| None, None, "")
            };
            groups.add(&record, 10);
        }
        groups.add(&DeadLetterRecord::read(|_| None, None, ""), 1);
        assert_eq!((groups.count, groups.bytes, groups.span()), (5001, 50_001, (Some(0), Some(4999))));
        assert_eq!(groups.by_cause(), [(Cause::Reason(Reason::TooDeep), 5000), (Cause::Unknown, 1)]);
        let largest = groups.largest_first();
        assert_eq!((largest.len(), largest[0].count, largest[0].fingerprint.as_str()), (MAX_GROUPS + 2, 3000, ""));
        assert_eq!(largest[1].count, 2);
        assert_eq!(groups.by_replays, BTreeMap::from([(0, 2501), (1, 2500)]));
    }
}
