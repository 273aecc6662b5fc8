//! Remembers which causes of dead letters this process has seen, so that the first of a new one can be reported. Bounded.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Most causes that are remembered; beyond it none is new. A cause has no value of a message in it, so there are few.
const MAX_CAUSES: usize = 1_000;

/// The fingerprints of the causes seen so far.
#[derive(Debug, Default)]
pub struct KnownCauses(Mutex<HashSet<String>>);

impl KnownCauses {
    /// Whether it is new. It is known from now on.
    pub fn is_new(&self, fingerprint: &str) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !known.contains(fingerprint) && known.len() < MAX_CAUSES && known.insert(fingerprint.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_new_once_and_the_memory_is_bounded() {
        let known = KnownCauses::default();
        assert!(known.is_new("a") && !known.is_new("a") && known.is_new("b"));
        let new = (0..2 * MAX_CAUSES).filter(|n| known.is_new(&n.to_string())).count();
        assert_eq!(new, MAX_CAUSES - 2);
        assert!(!known.is_new("c"));
    }
}
