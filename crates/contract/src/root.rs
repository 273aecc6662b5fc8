//! Owns the root object of a message: its `_id`, the configured fields, and everything else.

use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};

use super::cast::{CastField, ReadId};
use super::walk::{AnyValue, Walk};
use super::{Reason, Rejection, fields};

/// Reads the value of the root object's key at the offset `at`.
fn root_member<'de, A: MapAccess<'de>>(walk: &mut Walk, map: &mut A, at: usize) -> Result<(), A::Error> {
    let key = walk.key_at(at);
    if key == b"_id" {
        return map.next_value_seed(ReadId { walk, at });
    }
    if walk.rules.add_ingested_at && key == b"ingested_at" {
        let detail = "ingested_at is reserved for the worker while store.retention is set";
        return Err(walk.reject(Rejection::of_field(Reason::InvalidField, "ingested_at", detail)));
    }
    let role = fields::role(walk.rules, key);
    walk.register_key(at);
    match role {
        Some(role) => map.next_value_seed(CastField { walk, at, role }),
        None => {
            walk.note_unknown_key(at);
            map.next_value_seed(AnyValue { walk, at })
        }
    }
}

/// The root value. If it is not an object, it is still read to its end, to tell whether it is JSON at all.
pub(super) struct Root<'w, 'r> {
    pub walk: &'w mut Walk<'r>,
}

impl<'de> Visitor<'de> for Root<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.walk.root_is_object = true;
        self.walk.members(map, root_member)
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
