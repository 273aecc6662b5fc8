//! Owns the one visitor that goes from JSON text straight to raw BSON, with depth, size and key rules on the way.
//! Must not know bodies, encodings or identities.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::object::{Frame, Keys};
use super::rules::MAX_DOCUMENT_BYTES;
use super::writer::Writer;
use super::{Reason, Rejection, Rules, cast, known};

/// The verdict on an event that MongoDB could not hold.
pub(super) fn too_large() -> Rejection {
    Rejection::new(Reason::TooLarge, "as BSON the event is larger than a MongoDB document may be (16 MiB)")
}

/// One message on its way through the visitor.
pub(super) struct Walk<'r> {
    rules: &'r Rules,
    pub writer: &'r mut Writer,
    keys: &'r mut Keys,
    pub known: &'r mut known::Known,
    depth: usize,
    /// The verdict that ended the walk, where it was ours and not the JSON parser's.
    pub fault: Option<Rejection>,
    /// Whether the root is an object.
    pub is_object: bool,
}

impl<'r> Walk<'r> {
    pub fn new(rules: &'r Rules, writer: &'r mut Writer, keys: &'r mut Keys, known: &'r mut known::Known) -> Self {
        Walk { rules, writer, keys, known, depth: 0, fault: None, is_object: false }
    }
}

impl Walk<'_> {
    /// Ends the walk with a verdict of ours; serde's own error only carries the position.
    fn fail<E: Error>(&mut self, rejection: Rejection) -> E {
        self.fault = Some(rejection);
        E::custom("")
    }

    fn enter<E: Error>(&mut self) -> Result<(), E> {
        self.depth += 1;
        if self.depth > self.rules.max_depth {
            let detail = format!("nested deeper than event.max_depth = {}", self.rules.max_depth);
            return Err(self.fail(Rejection::new(Reason::TooDeep, detail)));
        }
        Ok(())
    }

    fn check_size<E: Error>(&mut self) -> Result<(), E> {
        if self.writer.len() > MAX_DOCUMENT_BYTES {
            return Err(self.fail(too_large()));
        }
        Ok(())
    }

    /// Reads the members of an object into the document that is open. Only those of the root have parts to play.
    fn members<'de, A: MapAccess<'de>>(&mut self, mut map: A, root: bool) -> Result<(), A::Error> {
        self.enter()?;
        let mut frame = self.keys.open();
        loop {
            let at = self.writer.len();
            if map.next_key_seed(Key { walk: self })?.is_none() {
                break;
            }
            if root {
                self.root_value(&mut map, &mut frame, at)?;
            } else {
                self.keys.note(&mut frame, self.writer.bytes(), at);
                map.next_value_seed(Value { walk: self, at })?;
            }
            self.check_size()?;
        }
        self.keys.close(frame, self.writer.buffer());
        self.depth -= 1;
        Ok(())
    }

    fn root_value<'de, A: MapAccess<'de>>(
        &mut self,
        map: &mut A,
        frame: &mut Frame,
        at: usize,
    ) -> Result<(), A::Error> {
        let key = self.writer.bytes().get(at + 1..self.writer.len() - 1).unwrap_or_default();
        if key == b"_id" {
            return map.next_value_seed(cast::Id { walk: self, at });
        }
        if self.rules.stamp && key == b"ingested_at" {
            let detail = "ingested_at is the worker's own field while store.retention is set";
            return Err(self.fail(Rejection::of_field(Reason::InvalidField, "ingested_at", detail)));
        }
        let role = known::role(self.rules, key);
        self.keys.note(frame, self.writer.bytes(), at);
        match role {
            Some(role) => map.next_value_seed(cast::Known { walk: self, at, role }),
            None => map.next_value_seed(Value { walk: self, at }),
        }
    }

    fn elements<'de, A: SeqAccess<'de>>(&mut self, mut seq: A) -> Result<(), A::Error> {
        self.enter()?;
        let mut digits = itoa::Buffer::new();
        for index in 0usize.. {
            let at = self.writer.key(digits.format(index).as_bytes());
            if seq.next_element_seed(Value { walk: self, at })?.is_none() {
                self.writer.truncate(at);
                break;
            }
            self.check_size()?;
        }
        self.depth -= 1;
        Ok(())
    }
}

/// Writes one key, as sent; NUL is what BSON keys end with and cannot contain.
struct Key<'w, 'r> {
    walk: &'w mut Walk<'r>,
}

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<(), E> {
        if key.as_bytes().contains(&0) {
            return Err(self.walk.fail(Rejection::new(Reason::InvalidFieldName, "a key contains a NUL character")));
        }
        self.walk.writer.key(key.as_bytes());
        Ok(())
    }
}

/// Writes any value, as sent, into the element at `at`.
pub(super) struct Value<'w, 'r> {
    pub walk: &'w mut Walk<'r>,
    pub at: usize,
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.walk.writer.boolean(self.at, value);
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.walk.writer.integer(self.at, value);
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.walk.writer.unsigned(self.at, value);
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.walk.writer.double(self.at, value);
        Ok(())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.walk.writer.string(self.at, value);
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.walk.writer.null(self.at);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        let start = self.walk.writer.open_array(self.at);
        self.walk.elements(seq)?;
        self.walk.writer.close(start);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let start = self.walk.writer.open_document(self.at);
        self.walk.members(map, false)?;
        self.walk.writer.close(start);
        Ok(())
    }
}

/// The root: an object, or a value that is read to its end only to know whether it is JSON at all.
pub(super) struct Root<'w, 'r> {
    pub walk: &'w mut Walk<'r>,
}

impl<'de> Visitor<'de> for Root<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.walk.is_object = true;
        self.walk.members(map, true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        self.walk.elements(seq)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}
