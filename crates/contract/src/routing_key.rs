//! Owns which routing keys a binding of a topic exchange matches (AMQP 0-9-1, section 3.1.3.3): `*` is one word, `#` any number of
//! them.

/// What a pattern is compared with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Other {
    Key,
    /// A pattern, of which one key must match.
    Overlapping,
    /// A pattern, of which every key must match.
    Covered,
}

/// Whether a binding with this pattern matches the routing key.
pub fn binding_matches(pattern: &str, key: &str) -> bool {
    can_be_equal(pattern, key, Other::Key)
}

/// Whether some routing key is matched by both patterns.
pub fn bindings_overlap(pattern: &str, other: &str) -> bool {
    can_be_equal(pattern, other, Other::Overlapping)
}

/// Whether every routing key that `other` matches is matched by `pattern`, too. It may say no where both are the same in a roundabout
/// way, such as `*.#` and `#.*`.
pub fn binding_covers(pattern: &str, other: &str) -> bool {
    can_be_equal(pattern, other, Other::Covered)
}

/// The words; an empty text has none.
fn words(text: &str) -> Vec<&str> {
    if text.is_empty() { Vec::new() } else { text.split('.').collect() }
}

/// Whether the words of both can be equal. Fills a table of all pairs of
/// suffixes, from the end, so that many `#` take no longer than many words.
fn can_be_equal(pattern: &str, other: &str, kind: Other) -> bool {
    let (ours, theirs) = (words(pattern), words(other));
    // After an iteration, `row` says of each suffix of `theirs` whether it can equal the suffix of `ours` at hand.
    let mut row: Vec<bool> = Vec::new();
    for ours in (0..=ours.len()).map(|at| ours.get(ours.len() - at).copied()) {
        let below = std::mem::replace(&mut row, vec![false; theirs.len() + 1]);
        let is_below = |at: usize| below.get(at).copied().unwrap_or(false);
        let mut right = false;
        for at in (0..=theirs.len()).rev() {
            let theirs = theirs.get(at).copied();
            let can = match (ours, theirs) {
                (None, None) => true,
                (Some("#"), _) => is_below(at) || right,
                (_, Some("#")) if kind == Other::Overlapping => right || is_below(at),
                (_, Some("#")) if kind == Other::Covered => false,
                (Some(ours), Some(theirs)) => {
                    let equal = ours == "*" || ours == theirs || (kind == Other::Overlapping && theirs == "*");
                    equal && is_below(at + 1)
                }
                (None, Some(_)) | (Some(_), None) => false,
            };
            if let Some(cell) = row.get_mut(at) {
                *cell = can;
            }
            right = can;
        }
    }
    row.first().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn routing_keys_match_as_in_a_binding() {
        for (pattern, key, expected) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b.c", false),
            ("a.#", "a", true),
            ("#", "", true),
            ("*", "", false),
            ("", "", true),
            ("#.c", "a.b.c", true),
            ("a.#.c", "a.c", true),
            ("*.b", "a.b", true),
            ("#.x.#", "a.b.c", false),
            ("#.#.#.#", "a", true),
            ("a.b", "a.#", false),
        ] {
            assert_eq!(binding_matches(pattern, key), expected, "{pattern} {key}");
        }
        let many = "#.a.".repeat(40) + "x";
        assert!(!binding_matches(&many, &"a.".repeat(100)));
    }

    #[test]
    fn patterns_overlap_if_one_key_matches_both() {
        for (pattern, other, expected) in [
            ("ticket.#", "ticket_refresh.#", false),
            ("ticket.#", "ticket.refresh.#", true),
            ("ticket.*", "ticket.refresh.*", false),
            ("#.failed", "ticket.#", true),
            ("*.buy", "ticket.*", true),
            ("a.*.c", "a.b.d", false),
            ("#", "", true),
        ] {
            assert_eq!(bindings_overlap(pattern, other), expected, "{pattern} {other}");
            assert_eq!(bindings_overlap(other, pattern), expected, "{other} {pattern}");
        }
    }

    #[test]
    fn a_pattern_covers_narrower_ones() {
        for (pattern, other, expected) in [
            ("ticket.#", "ticket.*", true),
            ("ticket.#", "ticket.buy", true),
            ("ticket.#", "ticket", true),
            ("ticket.*", "ticket.#", false),
            ("ticket.*", "*.buy", false),
            ("*", "#", false),
            ("#.a", "b.#.a", true),
        ] {
            assert_eq!(binding_covers(pattern, other), expected, "{pattern} {other}");
        }
    }

    /// The definition, word by word.
    fn matches_slowly(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern, key) {
            ([], []) => true,
            (["#", rest @ ..], _) => (0..=key.len()).any(|skipped| matches_slowly(rest, &key[skipped..])),
            ([first, rest @ ..], [word, key @ ..]) => (*first == "*" || first == word) && matches_slowly(rest, key),
            _ => false,
        }
    }

    fn text_of(words: &[&'static str]) -> String {
        words.join(".")
    }

    proptest! {
        #[test]
        fn matches_and_overlaps_are_those_of_the_definition(
            pattern in prop::collection::vec(prop::sample::select(vec!["a", "b", "*", "#"]), 0..5),
            other in prop::collection::vec(prop::sample::select(vec!["a", "b", "*", "#"]), 0..5),
            key in prop::collection::vec(prop::sample::select(vec!["a", "b"]), 0..6),
        ) {
            let expected = matches_slowly(&pattern, &key);
            prop_assert_eq!(binding_matches(&text_of(&pattern), &text_of(&key)), expected);
            if expected && matches_slowly(&other, &key) {
                prop_assert!(bindings_overlap(&text_of(&pattern), &text_of(&other)));
            }
            if binding_covers(&text_of(&pattern), &text_of(&other)) && matches_slowly(&other, &key) {
                prop_assert!(expected);
            }
            prop_assert!(binding_covers("#", &text_of(&other)) && binding_covers(&text_of(&other), &text_of(&other)));
        }
    }
}
