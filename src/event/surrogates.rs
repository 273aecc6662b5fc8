//! Owns lone surrogates in JSON: JavaScript cuts an emoji in two and writes one half as `\ud83d`, which is no character.
//! MongoDB's driver for Node stores it as U+FFFD, so the decoder does too. Must not know documents.

/// What replaces a lone surrogate: U+FFFD, REPLACEMENT CHARACTER. As long as the escape that it replaces, so that lines and
/// columns in later errors are right.
const REPLACEMENT: &str = "\\ufffd";

/// The text with every escaped lone surrogate replaced, or `None` if it has none.
pub fn replace_lone(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut replaced: Option<Vec<u8>> = None;
    let mut at = 0;
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\\')) {
        at += found;
        match (escape(bytes, at), escape(bytes, at + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => at += 12,
            (Some(0xD800..=0xDFFF), _) => {
                let out = replaced.get_or_insert_with(|| bytes.to_vec());
                if let Some(place) = out.get_mut(at..at + 6) {
                    place.copy_from_slice(REPLACEMENT.as_bytes());
                }
                at += 6;
            }
            // Another escape, such as `\\`, has at least two characters.
            _ => at += 2,
        }
    }
    replaced.and_then(|bytes| String::from_utf8(bytes).ok())
}

/// The code unit of the escape `\uXXXX` at `at`.
fn escape(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    let digits =
        std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lone_surrogates_are_replaced() {
        for (text, expected) in [
            (r#""\ud83d""#, Some(r#""\ufffd""#)),
            (r#""\uDE00 x""#, Some(r#""\ufffd x""#)),
            (r#""\ud83d\ud83d\ude00""#, Some(r#""\ufffd\ud83d\ude00""#)),
            (r#""\ude00\ud83d""#, Some(r#""\ufffd\ufffd""#)),
            (r#""\ud83d\ude00""#, None),
            (r#""\\ud83d""#, None),
            (r#""\u+83d \ud83""#, None),
            (r#"\"#, None),
        ] {
            assert_eq!(replace_lone(text).as_deref(), expected, "{text}");
        }
    }
}
