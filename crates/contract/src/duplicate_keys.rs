//! Duplicate keys: an object keeps one element for each key, in the place of the first and with the value of the last, as
//! `JSON.parse` does. In the time of sorting the keys.

/// Up to this many keys are compared with each other; with more, sorting is cheaper.
const MAX_COMPARED: usize = 16;

/// One element of an open object: where it is in the output.
#[derive(Debug, Clone, Copy)]
struct Element {
    start: usize,
    key_len: usize,
}

impl Element {
    fn key(self, out: &[u8]) -> &[u8] {
        out.get(self.start + 1..self.start + 1 + self.key_len).unwrap_or_default()
    }
}

/// The elements of all open objects, innermost last.
#[derive(Debug, Default)]
pub(super) struct Keys {
    elements: Vec<Element>,
    scratch: Vec<u8>,
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

    /// Starts an object; returns what [`Keys::close`] needs.
    pub fn open(&self) -> usize {
        self.elements.len()
    }

    /// Registers the element that starts at `start`. Its key was just written: `out` ends with it and a NUL.
    pub fn register(&mut self, out: &[u8], start: usize) {
        self.elements.push(Element { start, key_len: out.len().saturating_sub(start + 2) });
    }

    /// Ends the object; its last element is the end of `out`. If it has duplicate keys, its elements are rewritten.
    pub fn close(&mut self, base: usize, out: &mut Vec<u8>) {
        let own = self.elements.get(base..).unwrap_or_default();
        if own.len() > MAX_COMPARED || any_equal(own, out) {
            let kept = first_and_last(own, out);
            if let Some(first) = own.first().filter(|_| kept.len() < own.len()) {
                self.scratch.clear();
                for (_, last) in kept {
                    let start = own.get(last).map_or(out.len(), |element| element.start);
                    let end = own.get(last + 1).map_or(out.len(), |next| next.start);
                    self.scratch.extend_from_slice(out.get(start..end).unwrap_or_default());
                }
                out.truncate(first.start);
                out.extend_from_slice(&self.scratch);
            }
        }
        self.elements.truncate(base);
    }
}

fn any_equal(elements: &[Element], out: &[u8]) -> bool {
    let same = |a: &Element, b: &Element| a.key_len == b.key_len && a.key(out) == b.key(out);
    let before = |at| elements.get(..at).unwrap_or_default();
    elements.iter().enumerate().any(|(at, element)| before(at).iter().any(|earlier| same(earlier, element)))
}

/// The positions of the first and of the last element of each key, in the order of the first ones.
fn first_and_last(elements: &[Element], out: &[u8]) -> Vec<(usize, usize)> {
    let key = |at: usize| elements.get(at).map(|element| element.key(out)).unwrap_or_default();
    let mut order: Vec<usize> = (0..elements.len()).collect();
    // Stable: elements with equal keys stay in their order.
    order.sort_by_key(|at| key(*at));
    let same_key = order.chunk_by(|a, b| key(*a) == key(*b));
    let mut kept: Vec<_> = same_key.filter_map(|same| Some((*same.first()?, *same.last()?))).collect();
    kept.sort_unstable();
    kept
}
