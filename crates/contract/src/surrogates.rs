//! Owns lone surrogates in JSON: JavaScript cuts an emoji in two and writes one half as `\ud83d`, which is not a character. MongoDB's
//! driver for Node stores it as U+FFFD, so the decoder does too.

/// What replaces a lone surrogate: U+FFFD, REPLACEMENT CHARACTER. As long as the escape that it replaces, so that lines and
/// columns in later errors are right.
const REPLACEMENT: &str = "\\ufffd";

/// The text with every escaped lone surrogate replaced, or `None` if it has none.
pub fn replace_lone(text: &str) -> Option<String> {
    replaced(text, |_| REPLACEMENT.to_owned())
}

/// A JSON text whose lone surrogates are characters that occur nowhere else in it, for programs that cannot hold a lone surrogate.
#[derive(Debug, PartialEq, Eq)]
pub struct HiddenSurrogates {
    /// The text without lone surrogates.
    pub text: String,
    /// The character that stands for U+D800; those behind it stand for the others.
    first: u32,
}

/// Hides lone surrogates behind characters for private use that are neither in the text nor in `others`. `None` if it has none, or if no such
/// characters are left.
pub fn hide_lone(text: &str, others: &str) -> Option<HiddenSurrogates> {
    let used: Vec<u32> = [text, others].into_iter().flat_map(private_characters).collect();
    // Supplementary private use areas A and B (Unicode, section 23.5).
    let is_free = |first: &u32| !used.iter().any(|code| (*first..*first + SURROGATES).contains(code));
    let first = (0xF_0000..0x10_F800).step_by(SURROGATES as usize).find(is_free)?;
    let stand_in = |unit: u16| char::from_u32(first + u32::from(unit) - 0xD800).map(String::from).unwrap_or_default();
    replaced(text, stand_in).map(|text| HiddenSurrogates { text, first })
}

impl HiddenSurrogates {
    /// Puts the lone surrogates back into a JSON text that was made of this one.
    pub fn restore(&self, text: &str) -> String {
        let mut restored = String::with_capacity(text.len());
        for c in text.chars() {
            match u32::from(c).checked_sub(self.first).filter(|at| *at < SURROGATES) {
                Some(at) => restored.push_str(&format!("\\u{:04x}", at + 0xD800)),
                None => restored.push(c),
            }
        }
        restored
    }
}

/// How many surrogates there are.
const SURROGATES: u32 = 0x800;

/// The characters of the text in planes 15 and 16, escaped or not.
fn private_characters(text: &str) -> impl Iterator<Item = u32> + '_ {
    let escaped = text.match_indices("\\u").filter_map(|(at, _)| {
        let pair = [escape(text.as_bytes(), at)?, escape(text.as_bytes(), at + 6)?];
        char::decode_utf16(pair).next()?.ok().map(u32::from)
    });
    text.chars().map(u32::from).chain(escaped).filter(|code| *code >= 0xF_0000)
}

/// The text with what `stand_in` makes of each lone surrogate; `None` if it has none.
fn replaced(text: &str, stand_in: impl Fn(u16) -> String) -> Option<String> {
    let bytes = text.as_bytes();
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\\')) {
        at += found;
        match (escape(bytes, at), escape(bytes, at + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => at += 12,
            (Some(unit @ 0xD800..=0xDFFF), _) => {
                out.push_str(text.get(copied..at)?);
                out.push_str(&stand_in(unit));
                at += 6;
                copied = at;
            }
            // Another escape, such as `\\`, has at least two characters.
            _ => at += 2,
        }
    }
    (copied > 0).then(|| out + text.get(copied..).unwrap_or_default())
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

    #[test]
    fn lone_surrogates_survive_being_hidden() {
        let text = r#"{"a\udfff":"\ud83d x \ud83d\ude00 \udb80\udc00 \\ud83d"}"#;
        let hidden = hide_lone(text, "\u{f0800}").unwrap();
        assert_eq!(hidden.first, 0xF_1000);
        assert!(replace_lone(&hidden.text).is_none() && hidden.text.contains("\u{f103d} x"), "{hidden:?}");
        assert_eq!(hidden.restore(&hidden.text), text);
        assert_eq!(hide_lone(r#""\ud83d\ude00""#, ""), None);
    }
}
