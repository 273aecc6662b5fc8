//! Owns the counts of stored events that are probably mistakes, by finding and publisher. Bounded, however many publishers there are.

use std::collections::BTreeMap;

use ::metrics::{Counter, counter};

use ticketlog_contract::{FindingKind, Findings};
use ticketlog_status::SuspectEvents;

use super::PUBLISHERS_SEEN;
use super::catalogue::SUSPECT_EVENTS;
use super::labels::UNKNOWN;

/// Most publishers that are told apart here; some of them share the label `other`.
const MAX_PUBLISHERS: usize = 40;

/// The counts of one route.
#[derive(Default)]
pub(super) struct Suspects {
    publishers: BTreeMap<String, Publisher>,
}

struct Publisher {
    /// The value of the label.
    label: String,
    counts: BTreeMap<FindingKind, (u64, Counter)>,
}

impl Suspects {
    /// Counts what is found in an event of a publisher, which is empty if unknown. Returns what was not found before in events of this
    /// publisher, and how it is called.
    pub fn count(&mut self, publisher: &str, findings: Findings) -> (Findings, &str) {
        // Every event of a publisher without a name is counted here, and glibc takes 100 ns to compare a text of no bytes that is in no memory.
        let publisher = if publisher.is_empty() { UNKNOWN } else { publisher };
        let is_full = self.publishers.len() >= MAX_PUBLISHERS && !self.publishers.contains_key(publisher);
        let name = if is_full { "other" } else { publisher };
        if !self.publishers.contains_key(name) {
            let label = if is_full || name == UNKNOWN { name.to_owned() } else { PUBLISHERS_SEEN.name(name) };
            self.publishers.insert(name.to_owned(), Publisher { label, counts: BTreeMap::new() });
        }
        let Some(Publisher { label, counts }) = self.publishers.get_mut(name) else { return (Findings::default(), "") };
        let mut new = Findings::default();
        for kind in findings.iter() {
            let (count, counter) = counts.entry(kind).or_insert_with(|| {
                (0, counter!(SUSPECT_EVENTS, "kind" => kind.as_str(), "publisher" => label.clone()))
            });
            new = new.with(kind, *count == 0);
            *count += 1;
            counter.increment(1);
        }
        (new, label.as_str())
    }

    /// The counts, the largest first.
    pub fn largest_first(&self) -> Vec<SuspectEvents> {
        let mut sums: BTreeMap<(FindingKind, &str), u64> = BTreeMap::new();
        for publisher in self.publishers.values() {
            for (kind, (count, _)) in &publisher.counts {
                *sums.entry((*kind, &publisher.label)).or_default() += count;
            }
        }
        let shown = |((kind, publisher), count): ((FindingKind, &str), u64)| SuspectEvents {
            kind: kind.as_str().to_owned(),
            publisher: publisher.to_owned(),
            count,
        };
        let mut all: Vec<_> = sums.into_iter().map(shown).collect();
        all.sort_by_key(|suspects| std::cmp::Reverse(suspects.count));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_new_once_and_the_memory_is_bounded() {
        let mut suspects = Suspects::default();
        let found = Findings::from(FindingKind::TimestampUnit).with(FindingKind::NoIdentity, true);
        assert_eq!(suspects.count("a", FindingKind::NoIdentity.into()), (FindingKind::NoIdentity.into(), "a"));
        assert_eq!(suspects.count("a", found), (FindingKind::TimestampUnit.into(), "a"));
        assert_eq!(suspects.count("a", found), (Findings::default(), "a"));
        assert_eq!(suspects.count("", found).1, "unknown");
        for n in 0..500 {
            suspects.count(&format!("publisher {n}"), found);
        }
        assert_eq!(suspects.publishers.len(), MAX_PUBLISHERS + 1);
        let largest = suspects.largest_first();
        assert!(largest.len() <= 2 * 22 && largest[0].publisher == "other" && largest[0].count > 450, "{largest:?}");
        assert_eq!(largest.iter().map(|suspects| suspects.count).sum::<u64>(), 1 + 2 + 2 + 2 + 2 * 500);
    }
}
