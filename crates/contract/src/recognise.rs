//! Owns how a rejected body is recognised as what it probably is. Only rejected messages come here, so time does not matter, but every loop
//! ends with the body.

use bson::RawDocument;

use super::LikelyCause;

/// What bytes that are not text, or not JSON, probably are: by the marks that their formats begin with.
pub(super) fn of_bytes(body: &[u8]) -> Option<LikelyCause> {
    use LikelyCause::*;
    match body {
        [0x1f, 0x8b, ..] => Some(Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Zstd),
        // RFC 1950: CM 8, and the two bytes as a number are a multiple of 31.
        [0x78, flags, ..] if (0x7800 + u32::from(*flags)).is_multiple_of(31) && std::str::from_utf8(body).is_err() => {
            Some(Zlib)
        }
        [0xac, 0xed, 0x00, 0x05, ..] => Some(JavaObject),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 0, 0xfe, 0xff, ..] => Some(Utf16),
        // A described type whose descriptor is amqp-sequence or amqp-value (AMQP 1.0, section 3.2).
        [0x00, 0x53, 0x76 | 0x77, ..] | [0x00, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x76 | 0x77, ..] => Some(Amqp10Value),
        [0x80, 2..=5, .., b'.'] => Some(Pickle),
        [b'O', b'b', b'j', 1, ..] | [0xc3, 0x01, _, _, _, _, _, _, _, _, ..] => Some(Avro),
        _ if is_bson(body) => Some(Bson),
        _ if is_message_pack(body) => Some(MessagePack),
        _ if has_registry_header(body) => Some(Avro),
        // Where JSON in UTF-8 has no NUL (RFC 4627, section 3).
        [0, ..] | [_, 0, ..] => Some(Utf16),
        _ if is_protobuf(body) => Some(Protobuf),
        _ => None,
    }
}

/// Most bytes of which a copy in UTF-8 is made.
const MAX_LATIN1: usize = 1 << 20;

/// The same of bytes that are not UTF-8: a JSON text in another encoding is the last guess.
pub(super) fn of_invalid_utf8(body: &[u8]) -> Option<LikelyCause> {
    of_bytes(body).or_else(|| {
        if body.len() > MAX_LATIN1 {
            return None;
        }
        let text: String = body.iter().map(|byte| char::from(*byte)).collect();
        serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok().then_some(LikelyCause::Latin1)
    })
}

fn is_bson(body: &[u8]) -> bool {
    RawDocument::from_bytes(body).is_ok_and(|document| document.iter_elements().all(|element| element.is_ok()))
}

/// A map whose first key is a text, or an array of such maps.
fn is_message_pack(body: &[u8]) -> bool {
    let map = match body {
        [0x91..=0x9f, rest @ ..] | [0xdc, _, _, rest @ ..] => rest,
        _ => body,
    };
    match map {
        [0x81..=0x8f, key, ..] | [0xde, _, _, key, ..] | [0xdf, _, _, _, _, key, ..] => {
            matches!(key, 0xa1..=0xbf | 0xd9..=0xdb)
        }
        _ => false,
    }
}

/// Zero, and the number of a schema in four bytes; not the first characters of a text in UTF-16 or UTF-32.
fn has_registry_header(body: &[u8]) -> bool {
    match body {
        [0, 0, 0, character, 0, 0, 0, ..] if *character >= b'\t' => false,
        [0, 0, _, _, _, ..] => true,
        _ => false,
    }
}

/// Every byte belongs to a field with a small number, and there are bytes that no text has.
fn is_protobuf(body: &[u8]) -> bool {
    let is_text = |byte: &u8| (b' '..0x7f).contains(byte) || matches!(byte, b'\t' | b'\n' | b'\r');
    if body.iter().all(is_text) {
        return false;
    }
    let mut rest = body;
    while !rest.is_empty() {
        let Some((key, behind)) = varint(rest) else { return false };
        let Some(after) = skip_field(key, behind) else { return false };
        rest = after;
    }
    !body.is_empty()
}

fn skip_field(key: u64, rest: &[u8]) -> Option<&[u8]> {
    if !(1..=1000).contains(&(key >> 3)) {
        return None;
    }
    match key & 7 {
        0 => Some(varint(rest)?.1),
        1 => rest.get(8..),
        2 => {
            let (length, behind) = varint(rest)?;
            behind.get(usize::try_from(length).ok()?..)
        }
        5 => rest.get(4..),
        _ => None,
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * u32::try_from(at).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(at + 1..)?));
        }
    }
    None
}

/// What a text that is not JSON probably is; `fault` is the offset at which it stops being JSON.
pub(super) fn of_text(text: &str, fault: usize) -> Option<LikelyCause> {
    use LikelyCause::*;
    let trimmed = text.trim_start();
    let inside = trimmed.trim_start_matches(['{', '[']).trim_start();
    let is_nested = inside.len() < trimmed.len();
    let at = |words: &[&str]| {
        (0..=2).any(|back| starts_with_any(text.get(fault.saturating_sub(back)..).unwrap_or_default(), words))
    };
    match () {
        () if text.ends_with('\0') && is_nested => Some(TrailingNul),
        () if starts_with_any(trimmed, &["b'", "b\""]) => Some(PythonBytes),
        () if trimmed.starts_with("[object ") => Some(ObjectText),
        () if trimmed.starts_with('<') => Some(Xml),
        () if starts_with_any(inside, &["&quot;", "&#34;", "&#x22;"]) => Some(HtmlEscapes),
        () if at(&["NaN", "-NaN", "Infinity", "-Infinity", "nan,", "nan}", "nan]", "inf,", "inf}", "inf]"]) => {
            Some(NotANumber)
        }
        () if is_nested && (inside.starts_with('\'') || at(&["None", "True", "False"])) => Some(PythonDict),
        () if starts_with_any(trimmed, &["(dp", "(lp", "ccopy_reg"]) => Some(Pickle),
        () if is_php(trimmed) => Some(PhpSerialized),
        () if is_form(trimmed) => Some(FormData),
        () if is_base64(trimmed.trim_end()) => Some(Base64),
        () if is_nested && fault > 1 && text.get(fault..).is_some_and(|rest| rest.starts_with(['{', '['])) => {
            let before = text.get(..fault).unwrap_or_default();
            serde_json::from_str::<serde::de::IgnoredAny>(before).is_ok().then_some(SeveralObjects)
        }
        () => of_bytes(text.as_bytes()),
    }
}

/// What a text of no known format probably is, by the error of the parser.
pub(super) fn of_fault(text: &str, error: &serde_json::Error) -> Option<LikelyCause> {
    let trimmed = text.trim_start();
    let is_plain = !trimmed.is_empty() && !trimmed.starts_with(['{', '[', '"']);
    match () {
        () if is_plain => Some(LikelyCause::PlainText),
        () if error.is_eof() && !trimmed.is_empty() => Some(LikelyCause::CutOff),
        () if error.to_string().starts_with("key must be a string") => Some(LikelyCause::UnquotedKey),
        () => None,
    }
}

/// What a JSON text that is not an object probably is.
pub(super) fn of_root(text: &str) -> Option<LikelyCause> {
    let trimmed = text.trim();
    if trimmed.starts_with('[') {
        return Some(LikelyCause::Array);
    }
    let inner = serde_json::from_str::<String>(trimmed).ok()?;
    let is_json = |text: &str| {
        text.trim_start().starts_with(['{', '[', '"']) && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
    };
    if is_json(&inner) { Some(LikelyCause::EncodedTwice) } else { of_text(&inner, 0) }
}

/// Whether a text that is not a number is a date, such as `2026-11-30T12:32:21Z`, `30.11.2026` or `Mon Nov 30 2026`.
pub(super) fn is_date(text: &str) -> bool {
    // A publisher decides how long a text is; no date is longer.
    if text.len() > 128 {
        return false;
    }
    let numbers: Vec<&str> = text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).collect();
    let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphabetic()).filter(|part| !part.is_empty()).collect();
    let is_year = |number: &&str| number.len() == 4 && (number.starts_with("19") || number.starts_with("20"));
    let is_month = |word: &&str| {
        let months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
        word.get(..3).is_some_and(|start| months.contains(&start.to_ascii_lowercase().as_str()))
    };
    let is_plain = words.iter().all(|word| matches!(*word, "T" | "Z" | "t" | "z" | "UTC" | "GMT" | "AM" | "PM"));
    numbers.iter().any(is_year) && (numbers.len() >= 3 && is_plain || words.iter().any(is_month))
}

fn starts_with_any(text: &str, starts: &[&str]) -> bool {
    starts.iter().any(|start| text.starts_with(start))
}

/// `a:2:{…`, `O:8:"stdClass":1:{…`, `s:3:"…`.
fn is_php(text: &str) -> bool {
    let mut parts = text.splitn(3, ':');
    let kind = parts.next().is_some_and(|kind| matches!(kind, "a" | "O" | "C" | "s"));
    let length =
        parts.next().is_some_and(|length| !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()));
    kind && length && parts.next().is_some_and(|rest| rest.starts_with(['{', '"']))
}

/// `key=value`, without white space, and further pairs behind `&`.
fn is_form(text: &str) -> bool {
    let is_key = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.%+[]".contains(&byte);
    let is_pair = |pair: &str| pair.split_once('=').is_some_and(|(key, _)| !key.is_empty() && key.bytes().all(is_key));
    let text = text.trim_end();
    // Base64 may end with `=`.
    !text.contains(char::is_whitespace)
        && !text.trim_end_matches('=').is_empty()
        && text.trim_end_matches('=').contains('=')
        && text.split('&').all(is_pair)
}

/// Base64 of an object, an array or of something that is compressed.
fn is_base64(text: &str) -> bool {
    let is_character = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_=\r\n".contains(&byte);
    let starts = ["ey", "ew", "W3", "Ww", "Wy", "H4sI", "KLUv"];
    text.len() >= 8 && text.bytes().all(is_character) && starts_with_any(text, &starts)
}
