//! Owns which keys look like the name of a configured field without being it: another case, other separators, one letter wrong.

use super::{FieldKind, Rules};

/// Keys and names longer than this many bytes look like nothing.
const MAX_LEN: usize = 40;

/// What publishers write behind the name of a field: its unit or type.
const SUFFIXES: [&[u8]; 11] =
    [b"ms", b"millis", b"sec", b"secs", b"seconds", b"us", b"ns", b"utc", b"str", b"value", b"number"];

/// The names of the configured fields, prepared for being compared with every unknown key of every event.
#[derive(Debug)]
pub(super) struct Names {
    names: Vec<Name>,
    /// All of them. A bit for each index in `Rules::fields`.
    pub all: u64,
    /// A bit for each first letter of a name.
    first_letters: u32,
    /// The fields that say what an event is about: all but its time and its identity. A bit for each index in `Rules::fields`.
    pub payload: u64,
    /// Whether `timestamp` is configured as a number.
    pub has_time: bool,
}

/// One name without separators, in lower case.
#[derive(Debug)]
struct Name {
    bit: u64,
    plain: Vec<u8>,
    /// Of `user_id`: `user` and `uid`, which publishers write for it.
    short: Vec<Vec<u8>>,
}

impl Names {
    pub fn new(rules: &Rules) -> Self {
        let fields = || rules.fields.iter().take(64).enumerate().map(|(index, field)| (1u64 << index, field));
        let names: Vec<Name> = fields().filter_map(|(bit, field)| Name::new(bit, &field.name)).collect();
        let is_payload = |name: &str| name != "timestamp" && name != "uuid";
        Names {
            first_letters: names
                .iter()
                .filter_map(|name| letter_bit(*name.plain.first()?))
                .fold(0, |all, bit| all | bit),
            all: names.iter().fold(0, |all, name| all | name.bit),
            names,
            payload: fields().filter(|(_, field)| is_payload(&field.name)).fold(0, |all, (bit, _)| all | bit),
            has_time: fields().any(|(_, field)| field.name == "timestamp" && field.kind == FieldKind::Number),
        }
    }

    /// Whether this key may look like one of the names: a quick answer for most keys.
    pub fn may_resemble(&self, key: &[u8]) -> bool {
        let first = key.iter().find(|byte| byte.is_ascii_alphanumeric());
        let bit = first.and_then(|first| letter_bit(*first)).unwrap_or(0);
        self.first_letters & bit != 0 && key.len() <= MAX_LEN
    }

    /// The configured fields that this key looks like, as bits. The key is none of them itself.
    pub fn resembled(&self, key: &[u8]) -> u64 {
        if self.may_resemble(key) { self.compared(key) } else { 0 }
    }

    fn compared(&self, key: &[u8]) -> u64 {
        let mut buffer = [0; MAX_LEN];
        let mut len = 0;
        for (slot, byte) in buffer.iter_mut().zip(key.iter().filter(|byte| byte.is_ascii_alphanumeric())) {
            *slot = byte.to_ascii_lowercase();
            len += 1;
        }
        let plain = buffer.get(..len).unwrap_or_default();
        self.names.iter().filter(|name| name.is_meant_by(plain)).fold(0, |all, name| all | name.bit)
    }
}

impl Name {
    fn new(bit: u64, name: &str) -> Option<Self> {
        let plain: Vec<u8> =
            name.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase()).collect();
        let stem = name.strip_suffix("_id").map(|stem| stem.as_bytes().to_ascii_lowercase());
        let short = stem.and_then(|stem| Some(vec![vec![*stem.first()?, b'i', b'd'], stem])).unwrap_or_default();
        (plain.len() <= MAX_LEN && !plain.is_empty()).then_some(Name { bit, plain, short })
    }

    fn is_meant_by(&self, plain: &[u8]) -> bool {
        let is_near =
            plain.len().abs_diff(self.plain.len()) <= 1 && self.plain.len() >= 5 && is_one_edit(plain, &self.plain);
        let has_suffix = || plain.strip_prefix(self.plain.as_slice()).is_some_and(|rest| SUFFIXES.contains(&rest));
        plain == self.plain || is_near || has_suffix() || self.short.iter().any(|short| plain == short)
    }
}

/// A bit for a letter or digit; digits share one.
fn letter_bit(byte: u8) -> Option<u32> {
    match byte.to_ascii_lowercase() {
        letter @ b'a'..=b'z' => Some(1 << (letter - b'a')),
        b'0'..=b'9' => Some(1 << 26),
        _ => None,
    }
}

/// Whether one letter is missing, added, wrong, or swapped with its neighbour. The lengths differ by at most one.
fn is_one_edit(left: &[u8], right: &[u8]) -> bool {
    let same = left.iter().zip(right).take_while(|(left, right)| left == right).count();
    let (left, right) = (left.get(same..).unwrap_or_default(), right.get(same..).unwrap_or_default());
    match (left, right) {
        ([a, b, left @ ..], [c, d, right @ ..]) if a == d && b == c && left == right => true,
        ([_, left @ ..], [_, right @ ..]) if left == right => true,
        ([_, rest @ ..], right) if rest == right => true,
        (left, [_, rest @ ..]) => left == rest,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_look_like_the_field_and_others_do_not() {
        let names = Names::new(&Rules::default());
        assert_eq!((names.payload, names.has_time), (0b1001, true));
        for (key, field) in [
            ("userId", 0b1),
            ("UserID", 0b1),
            ("USER_ID", 0b1),
            ("user-id", 0b1),
            ("user.id", 0b1),
            ("user_id ", 0b1),
            ("\u{feff}user_id", 0b1),
            ("usr_id", 0b1),
            ("user_ids", 0b1),
            ("uesr_id", 0b1),
            ("uid", 0b1),
            ("user", 0b1),
            ("@timestamp", 0b10),
            ("timestmap", 0b10),
            ("timeStamp", 0b10),
            ("timestamp_ms", 0b10),
            ("UUID", 0b100),
            ("staus", 0b1000),
            ("Status", 0b1000),
            ("username", 0),
            ("user_name", 0),
            ("state", 0),
            ("status_code", 0),
            ("time", 0),
            ("ticket_details", 0),
            ("operation_type", 0),
            ("", 0),
            ("é", 0),
        ] {
            assert_eq!(names.resembled(key.as_bytes()), field, "{key}");
        }
        assert_eq!(Names::new(&Rules { fields: Vec::new(), ..Rules::default() }).resembled(b"userId"), 0);
    }
}
