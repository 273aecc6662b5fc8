//! Owns duplicate keys: an object keeps one element for each key, in the place of the first and with the value of the last,
//! as `JSON.parse` does. Linear in the number of keys. Must not know what the elements hold.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

/// Up to this many keys are compared one by one; with more, a hash table is cheaper.
const MAX_LINEAR: usize = 16;

/// One element of an open object: where it is in the output.
#[derive(Debug, Clone, Copy)]
struct Element {
    start: usize,
    key_len: usize,
    /// The element whose value wins: this one, or a later one with the same key.
    latest: usize,
    /// Whether an earlier element has the same key.
    is_duplicate: bool,
}

/// The elements of all open objects, innermost last.
#[derive(Debug, Default)]
pub(super) struct Keys {
    elements: Vec<Element>,
    scratch: Vec<u8>,
    hasher: RandomState,
}

/// The keys of one open object.
pub(super) struct ObjectKeys {
    /// The index of its first element in `Keys::elements`.
    base: usize,
    /// Elements by key, once there are many.
    index: Option<HashTable<usize>>,
    has_duplicates: bool,
}

impl Keys {
    pub fn clear(&mut self) {
        self.elements.clear();
    }

    /// Frees memory that one huge message needed.
    pub fn shrink(&mut self, max: usize) {
        self.elements.shrink_to(max);
        self.scratch = Vec::new();
    }

    pub fn open(&self) -> ObjectKeys {
        ObjectKeys { base: self.elements.len(), index: None, has_duplicates: false }
    }

    /// Registers the element that starts at `start`. Its key was just written: `out` ends with it and a NUL.
    pub fn register(&mut self, object: &mut ObjectKeys, out: &[u8], start: usize) {
        let key_len = out.len().saturating_sub(start + 2);
        let key = out.get(start + 1..start + 1 + key_len).unwrap_or_default();
        let own = self.elements.len();
        let earlier = self.find(object, out, key);
        if let Some(element) = earlier.and_then(|at| self.elements.get_mut(at)) {
            element.latest = own;
            object.has_duplicates = true;
        }
        self.elements.push(Element { start, key_len, latest: own, is_duplicate: earlier.is_some() });
        if earlier.is_none() {
            self.index(object, out, own);
        }
    }

    fn find(&self, object: &ObjectKeys, out: &[u8], key: &[u8]) -> Option<usize> {
        if let Some(index) = &object.index {
            let same = |at: &usize| self.key(out, *at) == key;
            return index.find(self.hasher.hash_one(key), same).copied();
        }
        let open = self.elements.get(object.base..).unwrap_or_default();
        open.iter()
            .position(|element| element.key_len == key.len() && !element.is_duplicate && key_of(out, element) == key)
            .map(|at| object.base + at)
    }

    fn index(&self, object: &mut ObjectKeys, out: &[u8], own: usize) {
        let hash = |at: &usize| self.hasher.hash_one(self.key(out, *at));
        if let Some(index) = &mut object.index {
            index.insert_unique(hash(&own), own, hash);
        } else if own - object.base >= MAX_LINEAR {
            let mut index = HashTable::with_capacity(4 * MAX_LINEAR);
            for at in object.base..=own {
                if self.elements.get(at).is_some_and(|element| !element.is_duplicate) {
                    index.insert_unique(hash(&at), at, hash);
                }
            }
            object.index = Some(index);
        }
    }

    fn key<'a>(&self, out: &'a [u8], at: usize) -> &'a [u8] {
        self.elements.get(at).map(|element| key_of(out, element)).unwrap_or_default()
    }

    /// Ends the object; its last element is the end of `out`. If it has duplicate keys, its elements are rewritten.
    pub fn close(&mut self, object: ObjectKeys, out: &mut Vec<u8>) {
        if object.has_duplicates
            && let Some(first) = self.elements.get(object.base).map(|element| element.start)
        {
            self.scratch.clear();
            for element in self.elements.get(object.base..).unwrap_or_default() {
                if !element.is_duplicate {
                    let end = self.elements.get(element.latest + 1).map_or(out.len(), |next| next.start);
                    let start = self.elements.get(element.latest).map_or(end, |latest| latest.start);
                    self.scratch.extend_from_slice(out.get(start..end).unwrap_or_default());
                }
            }
            out.truncate(first);
            out.extend_from_slice(&self.scratch);
        }
        self.elements.truncate(object.base);
    }
}

fn key_of<'a>(out: &'a [u8], element: &Element) -> &'a [u8] {
    out.get(element.start + 1..element.start + 1 + element.key_len).unwrap_or_default()
}
