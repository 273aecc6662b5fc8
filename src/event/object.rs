//! Owns repeated keys: an object keeps one element a key, in the place of the first and with the value of the last, as
//! `JSON.parse` does. Linear in the number of keys. Must not know what the elements hold.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

/// Up to this many keys are compared one by one; beyond it a hash table is cheaper.
const FEW: usize = 16;

/// Where one element of an open object lies in the output.
#[derive(Debug, Clone, Copy)]
struct Element {
    start: usize,
    key_len: usize,
    /// The element whose value counts: this one, or a later one of the same key.
    latest: usize,
    /// Whether an earlier element of the same key exists.
    repeats: bool,
}

/// The elements of all objects that are open, innermost last.
#[derive(Debug, Default)]
pub(super) struct Keys {
    elements: Vec<Element>,
    scratch: Vec<u8>,
    hasher: RandomState,
}

/// One open object.
pub(super) struct Frame {
    base: usize,
    index: Option<HashTable<usize>>,
    repeated: bool,
}

impl Keys {
    pub fn clear(&mut self) {
        self.elements.clear();
    }

    /// Gives back what one huge message made huge.
    pub fn shrink(&mut self, most: usize) {
        self.elements.shrink_to(most);
        self.scratch = Vec::new();
    }

    pub fn open(&self) -> Frame {
        Frame { base: self.elements.len(), index: None, repeated: false }
    }

    /// Notes the element that begins at `start`; its key has just been written and ends `out`, but for the NUL.
    pub fn note(&mut self, frame: &mut Frame, out: &[u8], start: usize) {
        let key_len = out.len().saturating_sub(start + 2);
        let key = out.get(start + 1..start + 1 + key_len).unwrap_or_default();
        let own = self.elements.len();
        let earlier = self.find(frame, out, key);
        if let Some(element) = earlier.and_then(|at| self.elements.get_mut(at)) {
            element.latest = own;
            frame.repeated = true;
        }
        self.elements.push(Element { start, key_len, latest: own, repeats: earlier.is_some() });
        if earlier.is_none() {
            self.index(frame, out, own);
        }
    }

    fn find(&self, frame: &Frame, out: &[u8], key: &[u8]) -> Option<usize> {
        if let Some(index) = &frame.index {
            let same = |at: &usize| self.key(out, *at) == key;
            return index.find(self.hasher.hash_one(key), same).copied();
        }
        let open = self.elements.get(frame.base..).unwrap_or_default();
        open.iter()
            .position(|element| element.key_len == key.len() && !element.repeats && key_of(out, element) == key)
            .map(|at| frame.base + at)
    }

    fn index(&self, frame: &mut Frame, out: &[u8], own: usize) {
        let hash = |at: &usize| self.hasher.hash_one(self.key(out, *at));
        if let Some(index) = &mut frame.index {
            index.insert_unique(hash(&own), own, hash);
        } else if own - frame.base >= FEW {
            let mut index = HashTable::with_capacity(4 * FEW);
            for at in frame.base..=own {
                if self.elements.get(at).is_some_and(|element| !element.repeats) {
                    index.insert_unique(hash(&at), at, hash);
                }
            }
            frame.index = Some(index);
        }
    }

    fn key<'a>(&self, out: &'a [u8], at: usize) -> &'a [u8] {
        self.elements.get(at).map(|element| key_of(out, element)).unwrap_or_default()
    }

    /// Ends the object, whose last element ends `out`: where keys were repeated, its elements are written anew.
    pub fn close(&mut self, frame: Frame, out: &mut Vec<u8>) {
        if frame.repeated
            && let Some(first) = self.elements.get(frame.base).map(|element| element.start)
        {
            self.scratch.clear();
            for element in self.elements.get(frame.base..).unwrap_or_default() {
                if !element.repeats {
                    let end = self.elements.get(element.latest + 1).map_or(out.len(), |next| next.start);
                    let start = self.elements.get(element.latest).map_or(end, |latest| latest.start);
                    self.scratch.extend_from_slice(out.get(start..end).unwrap_or_default());
                }
            }
            out.truncate(first);
            out.extend_from_slice(&self.scratch);
        }
        self.elements.truncate(frame.base);
    }
}

fn key_of<'a>(out: &'a [u8], element: &Element) -> &'a [u8] {
    out.get(element.start + 1..element.start + 1 + element.key_len).unwrap_or_default()
}
