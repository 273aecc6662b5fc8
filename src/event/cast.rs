//! Owns casting: one known top-level value, read as Mongoose 9 casts it for `Number` and `String` (facts tested against
//! Mongoose itself by the interoperability test). Must not know limits or identity beyond noting what it saw.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::js_number;
use super::known::{BodyId, IdentityPart, Role};
use super::rules::FieldKind;
use super::visit::{Value, Walk};

/// Integers up to this magnitude are the same number in JavaScript and here: `Number.MAX_SAFE_INTEGER`.
const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

/// Reads the value of a known field into the element at `at`.
pub(super) struct Known<'w, 'r> {
    pub walk: &'w mut Walk<'r>,
    pub at: usize,
    pub role: Role,
}

impl Known<'_, '_> {
    /// A number, given exactly (`write`) and as JavaScript has it (`number`).
    fn number(self, number: f64, write: impl FnOnce(&mut Walk, usize)) {
        if self.role.identity == IdentityPart::Time {
            self.walk.known.time = Some(number);
        }
        if self.role.kind == FieldKind::String {
            self.walk.writer.string(self.at, &js_number::to_text(number));
        } else {
            write(self.walk, self.at);
        }
        self.walk.known.accept(self.role, true);
    }

    fn text(self, text: &str) {
        let Known { walk, at, role } = self;
        if role.identity == IdentityPart::Uuid {
            walk.known.uuid.push_str(text);
        }
        if role.kind != FieldKind::Number {
            walk.writer.string(at, text);
            walk.known.accept(role, !text.is_empty());
        } else if text.is_empty() {
            walk.writer.null(at);
            walk.known.accept(role, false);
        } else {
            match js_number::parse(text) {
                Some(number) if number.is_finite() => {
                    if role.identity == IdentityPart::Time {
                        walk.known.time = Some(number);
                    }
                    double_or_integer(walk, at, number);
                    walk.known.accept(role, true);
                }
                Some(_) => refuse(walk, at, role, "a string of an infinite number"),
                None => refuse(walk, at, role, "a string that is no number"),
            }
        }
    }

    fn boolean(self, value: bool) {
        let Known { walk, at, role } = self;
        match role.kind {
            FieldKind::Number => {
                if role.identity == IdentityPart::Time {
                    walk.known.time = Some(f64::from(u8::from(value)));
                }
                walk.writer.integer(at, i64::from(value));
            }
            FieldKind::String => walk.writer.string(at, if value { "true" } else { "false" }),
            FieldKind::Any => walk.writer.boolean(at, value),
        }
        walk.known.accept(role, true);
    }

    /// An array or object, already read by `write` as it is: fine for `Any`, a fault for the others.
    fn container<E>(self, found: &'static str, write: impl FnOnce(Value) -> Result<(), E>) -> Result<(), E> {
        let Known { walk, at, role } = self;
        write(Value { walk, at })?;
        match role.kind {
            FieldKind::Any => walk.known.accept(role, true),
            _ => walk.known.refuse(role, found),
        }
        Ok(())
    }
}

/// An integer where JavaScript's number is one exactly, else a double (`-0` stays a double).
fn double_or_integer(walk: &mut Walk, at: usize, number: f64) {
    if number.fract() == 0.0 && number.abs() <= MAX_SAFE_INTEGER && !(number == 0.0 && number.is_sign_negative()) {
        walk.writer.integer(at, number as i64);
    } else {
        walk.writer.double(at, number);
    }
}

fn refuse(walk: &mut Walk, at: usize, role: Role, found: &'static str) {
    walk.writer.null(at);
    walk.known.refuse(role, found);
}

impl<'de> DeserializeSeed<'de> for Known<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.role.identity {
            IdentityPart::Uuid => self.walk.known.uuid.clear(),
            IdentityPart::Time => self.walk.known.time = None,
            IdentityPart::Nothing => {}
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Known<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.boolean(value);
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.number(value as f64, |walk, at| walk.writer.integer(at, value));
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.number(value as f64, |walk, at| walk.writer.unsigned(at, value));
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.number(value, |walk, at| walk.writer.double(at, value));
        Ok(())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.text(value);
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.walk.writer.null(self.at);
        self.walk.known.accept(self.role, false);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        self.container("an array", |value| value.visit_seq(seq))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.container("an object", |value| value.visit_map(map))
    }
}

/// Reads the value of a top-level `_id` and takes its element out again: `_id` stands in front, not in its place.
pub(super) struct Id<'w, 'r> {
    pub walk: &'w mut Walk<'r>,
    pub at: usize,
}

impl Id<'_, '_> {
    fn set(self, id: BodyId) {
        self.walk.writer.truncate(self.at);
        self.walk.known.id = id;
    }
}

impl<'de> DeserializeSeed<'de> for Id<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Id<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        let id = bson::oid::ObjectId::parse_str(value);
        self.set(id.map_or(BodyId::Invalid, |id| BodyId::Given(id.bytes())));
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.set(BodyId::Absent);
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.set(BodyId::Invalid);
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.set(BodyId::Invalid);
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.set(BodyId::Invalid);
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.set(BodyId::Invalid);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        Value { walk: &mut *self.walk, at: self.at }.visit_seq(seq)?;
        self.set(BodyId::Invalid);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        Value { walk: &mut *self.walk, at: self.at }.visit_map(map)?;
        self.set(BodyId::Invalid);
        Ok(())
    }
}
