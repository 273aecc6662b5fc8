//! Owns reading the values of configured fields, cast as Mongoose 9 casts them to `Number` and `String` (`make interop` compares with
//! Mongoose itself), and of a top-level `_id`.

use std::fmt;

use bson::Bson;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::fields::{BodyId, IdentityPart, Role};
use super::js_number;
use super::lint;
use super::recognise::is_date;
use super::rules::FieldKind;
use super::walk::{AnyValue, Walk};
use super::{FindingKind, Findings, LikelyCause};

/// `Number.MAX_SAFE_INTEGER`: integers up to this magnitude are exact in JavaScript.
const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

/// Casts the value of a configured field and writes it into the element at `at`.
pub(super) struct CastField<'w, 'r> {
    pub walk: &'w mut Walk<'r>,
    pub at: usize,
    pub role: Role,
}

impl CastField<'_, '_> {
    /// Casts a number. `number` is its value in JavaScript; `write` writes the exact value, unless the field is a String.
    fn number(self, number: f64, write: impl FnOnce(&mut Walk, usize)) {
        if self.role.identity == IdentityPart::Time {
            self.walk.fields.time = Some(number);
        }
        if self.role.kind == FieldKind::String {
            self.walk.writer.string(self.at, &js_number::to_text(number));
        } else {
            write(self.walk, self.at);
        }
        let findings = if self.is_number() { lint::of_number(number) } else { Findings::default() };
        self.walk.fields.set_found(self.role, true, findings);
    }

    /// Whether it is a number that is not a time: an id, or an amount.
    fn is_number(&self) -> bool {
        self.role.kind == FieldKind::Number && self.role.identity != IdentityPart::Time
    }

    fn text(self, text: &str) {
        let is_number = self.is_number();
        let CastField { walk, at, role } = self;
        if role.identity == IdentityPart::Uuid {
            walk.fields.uuid.push_str(text);
        }
        if role.kind != FieldKind::Number {
            walk.writer.string(at, text);
            let findings = if role.kind == FieldKind::String { lint::of_text(text) } else { Findings::default() };
            walk.fields.set_found(role, !text.is_empty(), findings);
        } else if text.is_empty() {
            walk.writer.null(at);
            walk.fields.set_valid(role, false);
        } else {
            match js_number::parse(text) {
                Some(number) if number.is_finite() => {
                    if role.identity == IdentityPart::Time {
                        walk.fields.time = Some(number);
                    }
                    integer_or_double(walk, at, number);
                    let of_value = if is_number { lint::of_number(number) } else { Findings::default() };
                    walk.fields.set_found(role, true, lint::of_number_text(text).and(of_value));
                }
                Some(_) => write_fault(walk, at, role, "a string with an infinite number"),
                None if is_date(text) => write_fault(walk, at, role, LikelyCause::DateText.detail()),
                None => write_fault(walk, at, role, "a string that is not a number"),
            }
        }
    }

    fn boolean(self, value: bool) {
        let CastField { walk, at, role } = self;
        match role.kind {
            FieldKind::Number => {
                if role.identity == IdentityPart::Time {
                    walk.fields.time = Some(f64::from(u8::from(value)));
                }
                walk.writer.integer(at, i64::from(value));
            }
            FieldKind::String => walk.writer.string(at, if value { "true" } else { "false" }),
            FieldKind::Any => walk.writer.boolean(at, value),
        }
        let is_cast = role.kind != FieldKind::Any;
        walk.fields.set_found(role, true, Findings::default().with(FindingKind::BooleanValue, is_cast));
    }

    /// Casts an object, which is written from `start` on: Mongoose takes an object with an `_id` for a populated document,
    /// and casts its `_id`, for a String only if that is a text (`lib/cast/string.js`, `lib/schema/number.js`).
    fn object(self, start: usize) {
        let id = self.walk.writer.bytes().get(start..).and_then(embedded_id);
        match id.filter(|id| self.role.kind == FieldKind::Number || id.as_str().is_some_and(|id| !id.is_empty())) {
            Some(id) => {
                self.walk.writer.truncate(start);
                self.populated(&id);
            }
            None => {
                let is_extended = self.walk.writer.bytes().get(start..).is_some_and(is_extended_json);
                let found = if is_extended { LikelyCause::ExtendedJson.detail() } else { "an object" };
                self.walk.fields.set_fault(self.role, found);
            }
        }
    }

    fn populated(self, id: &Bson) {
        match id {
            Bson::String(text) => self.text(text),
            Bson::Boolean(value) => self.boolean(*value),
            Bson::Null => {
                self.walk.writer.null(self.at);
                self.walk.fields.set_valid(self.role, false);
            }
            Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => {
                let number = id.to_string().parse().unwrap_or(f64::NAN);
                self.number(number, |walk, at| integer_or_double(walk, at, number));
            }
            _ => write_fault(self.walk, self.at, self.role, "an object"),
        }
    }
}

/// Whether the first key of a BSON document begins with `$`.
fn is_extended_json(document: &[u8]) -> bool {
    document.get(5) == Some(&b'$')
}

/// The `_id` of a BSON document.
fn embedded_id(document: &[u8]) -> Option<Bson> {
    let document = bson::RawDocument::from_bytes(document).ok()?;
    document.get("_id").ok().flatten().and_then(|id| id.try_into().ok())
}

/// Writes an integer if JavaScript represents that integer exactly, else a double (`-0` stays a double).
fn integer_or_double(walk: &mut Walk, at: usize, number: f64) {
    if number.fract() == 0.0 && number.abs() <= MAX_SAFE_INTEGER && !(number == 0.0 && number.is_sign_negative()) {
        walk.writer.integer(at, number as i64);
    } else {
        walk.writer.double(at, number);
    }
}

/// Records the fault, and writes null so that the rest of the message can be read.
fn write_fault(walk: &mut Walk, at: usize, role: Role, found: &'static str) {
    walk.writer.null(at);
    walk.fields.set_fault(role, found);
}

impl<'de> DeserializeSeed<'de> for CastField<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.role.identity {
            IdentityPart::Uuid => self.walk.fields.uuid.clear(),
            IdentityPart::Time => self.walk.fields.time = None,
            IdentityPart::Nothing => {}
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for CastField<'_, '_> {
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
        self.walk.fields.set_valid(self.role, false);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        AnyValue { walk: &mut *self.walk, at: self.at }.visit_seq(seq)?;
        match self.role.kind {
            FieldKind::Any => self.walk.fields.set_valid(self.role, true),
            _ => self.walk.fields.set_fault(self.role, "an array"),
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let start = self.walk.writer.len();
        AnyValue { walk: &mut *self.walk, at: self.at }.visit_map(map)?;
        match self.role.kind {
            FieldKind::Any => self.walk.fields.set_valid(self.role, true),
            _ => self.object(start),
        }
        Ok(())
    }
}

/// Reads the value of a top-level `_id` and removes its element, because the document starts with `_id`.
pub(super) struct ReadId<'w, 'r> {
    pub walk: &'w mut Walk<'r>,
    pub at: usize,
}

impl ReadId<'_, '_> {
    fn set(self, id: BodyId) {
        self.walk.writer.truncate(self.at);
        self.walk.fields.id = id;
    }
}

impl<'de> DeserializeSeed<'de> for ReadId<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ReadId<'_, '_> {
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
        AnyValue { walk: &mut *self.walk, at: self.at }.visit_seq(seq)?;
        self.set(BodyId::Invalid);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let start = self.walk.writer.len();
        AnyValue { walk: &mut *self.walk, at: self.at }.visit_map(map)?;
        let is_extended = self.walk.writer.bytes().get(start..).is_some_and(is_extended_json);
        self.set(if is_extended { BodyId::Extended } else { BodyId::Invalid });
        Ok(())
    }
}
