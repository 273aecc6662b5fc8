//! Which dead letters of a queue have the same `dl-id` as an earlier one. They are shown as such and otherwise treated each by
//! itself. Pure.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64;

/// The ids of the dead letters read so far, each with the position of the first that has it.
#[derive(Debug, Default)]
pub struct SameIds {
    /// Hashes and positions as bytes, which take no padding: 13 to 26 bytes for each.
    first: HashMap<[u8; 8], [u8; 4]>,
    /// Number of dead letters that have the same id as an earlier one.
    pub count: u64,
}

impl SameIds {
    /// For about this many ids, so that their memory need not be copied while they become more.
    pub fn with_capacity(count: usize) -> Self {
        SameIds { first: HashMap::with_capacity(count), count: 0 }
    }

    /// Adds the dead letter at `position`. Returns the position of the first that has this id, if this is not the first.
    pub fn add(&mut self, id: &str, position: u32) -> Option<u32> {
        let hash = xxh3_64(id.as_bytes()).to_le_bytes();
        let first = u32::from_le_bytes(*self.first.entry(hash).or_insert(position.to_le_bytes()));
        (first != position).then(|| {
            self.count += 1;
            first
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_with_an_id_is_named() {
        let mut same = SameIds::default();
        let found = [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("a", 5)].map(|(id, position)| same.add(id, position));
        assert_eq!(found, [None, None, Some(1), None, Some(1)]);
        assert_eq!(same.count, 2);
    }
}
