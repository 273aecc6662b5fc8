//! Owns the walk from JSON text straight to raw BSON, without a tree in between, and the limits on depth, size and keys.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::bson_writer::Writer;
use super::duplicate_keys::Keys;
use super::lookalike::Names;
use super::rules::MAX_DOCUMENT_BYTES;
use super::{Reason, Rejection, Rules, fields};

/// Bytes of unknown keys from which on no further ones are kept.
const MAX_UNKNOWN_BYTES: usize = 4096;

/// The rejection of an event that exceeds MongoDB's limit.
pub(super) fn document_too_large() -> Rejection {
    Rejection::new(Reason::TooLarge, "as BSON the event exceeds MongoDB's limit of 16 MiB")
}

/// The state of the walk through one message.
pub(super) struct Walk<'r> {
    pub rules: &'r Rules,
    pub names: &'r Names,
    pub writer: &'r mut Writer,
    keys: &'r mut Keys,
    pub fields: &'r mut fields::FieldStates,
    depth: usize,
    /// The rejection that ended the walk, if it is ours and not the JSON parser's.
    pub rejection: Option<Rejection>,
    /// Whether the root is an object.
    pub root_is_object: bool,
}

impl<'r> Walk<'r> {
    pub fn new(
        rules: &'r Rules,
        names: &'r Names,
        writer: &'r mut Writer,
        keys: &'r mut Keys,
        fields: &'r mut fields::FieldStates,
    ) -> Self {
        Walk { rules, names, writer, keys, fields, depth: 0, rejection: None, root_is_object: false }
    }
}

impl Walk<'_> {
    /// Ends the walk with a rejection. The returned error has no text; serde adds the position to it.
    pub fn reject<E: Error>(&mut self, rejection: Rejection) -> E {
        self.rejection = Some(rejection);
        E::custom("")
    }

    fn enter<E: Error>(&mut self) -> Result<(), E> {
        self.depth += 1;
        if self.depth > self.rules.max_depth {
            let detail = format!("nested deeper than event.max_depth = {}", self.rules.max_depth);
            return Err(self.reject(Rejection::new(Reason::TooDeep, detail)));
        }
        Ok(())
    }

    fn check_size<E: Error>(&mut self) -> Result<(), E> {
        if self.writer.len() > MAX_DOCUMENT_BYTES {
            return Err(self.reject(document_too_large()));
        }
        Ok(())
    }

    /// Reads the members of an object into the open document; `read_value` reads the value whose key starts at the given
    /// offset.
    pub fn members<'de, A: MapAccess<'de>>(
        &mut self,
        mut map: A,
        read_value: impl Fn(&mut Self, &mut A, usize) -> Result<(), A::Error>,
    ) -> Result<(), A::Error> {
        self.enter()?;
        let object = self.keys.open();
        loop {
            let at = self.writer.len();
            if map.next_key_seed(Key { walk: self })?.is_none() {
                break;
            }
            read_value(self, &mut map, at)?;
            self.check_size()?;
        }
        self.keys.close(object, self.writer.buffer());
        self.depth -= 1;
        Ok(())
    }

    /// The key that was written last, at this offset.
    pub fn key_at(&self, at: usize) -> &[u8] {
        self.writer.last_key(at)
    }

    /// Keeps the key at this offset, which is no configured field's, if it may look like one's.
    pub fn note_unknown_key(&mut self, at: usize) {
        let key = self.writer.last_key(at);
        if self.names.may_resemble(key) && self.fields.unknown_keys.len() < MAX_UNKNOWN_BYTES {
            self.fields.unknown_keys.extend_from_slice(key);
            self.fields.unknown_keys.push(0);
        }
    }

    /// Registers the key at this offset, so that the last of equal keys wins.
    pub fn register_key(&mut self, at: usize) {
        self.keys.register(self.writer.bytes(), at);
    }

    /// Reads the elements of an array into the open array.
    pub fn elements<'de, A: SeqAccess<'de>>(&mut self, mut seq: A) -> Result<(), A::Error> {
        self.enter()?;
        for index in 0.. {
            let at = self.writer.index(index);
            if seq.next_element_seed(AnyValue { walk: self, at })?.is_none() {
                self.writer.truncate(at);
                break;
            }
            self.check_size()?;
        }
        self.depth -= 1;
        Ok(())
    }
}

/// Writes one key as sent. BSON keys end with NUL and cannot contain it.
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
            return Err(self.walk.reject(Rejection::new(Reason::InvalidFieldName, "a key contains NUL")));
        }
        self.walk.writer.key(key.as_bytes());
        Ok(())
    }
}

/// Writes any value, as sent, into the element at `at`.
pub(super) struct AnyValue<'w, 'r> {
    pub walk: &'w mut Walk<'r>,
    pub at: usize,
}

impl<'de> DeserializeSeed<'de> for AnyValue<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyValue<'_, '_> {
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
        self.walk.members(map, |walk, map, at| {
            walk.register_key(at);
            map.next_value_seed(AnyValue { walk, at })
        })?;
        self.walk.writer.close(start);
        Ok(())
    }
}
