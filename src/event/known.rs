//! Owns what the decoder remembers of the known top-level fields of one message, and the verdict on them at the end.
//! Must not know JSON or BSON.

use super::{FieldKind, Reason, Rejection, Rules};

/// What stands in `_id` of the body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum BodyId {
    #[default]
    Absent,
    Given([u8; 12]),
    Invalid,
}

/// The part a top-level key plays.
#[derive(Debug, Clone, Copy)]
pub(super) struct Role {
    /// Its place in `Rules::fields`.
    pub index: Option<usize>,
    pub kind: FieldKind,
    pub identity: IdentityPart,
}

/// What a top-level key contributes to the identity, whether or not it is a configured field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdentityPart {
    Nothing,
    Uuid,
    Time,
}

/// The memory of one message. Repeated keys overwrite: the last value of a key counts.
#[derive(Debug, Default)]
pub(super) struct Known {
    states: Vec<State>,
    pub id: BodyId,
    pub time: Option<f64>,
    pub uuid: String,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    fault: Option<&'static str>,
    present: bool,
}

impl Known {
    pub fn reset(&mut self, fields: usize) {
        self.states.clear();
        self.states.resize(fields, State::default());
        self.id = BodyId::Absent;
        self.time = None;
        self.uuid.clear();
    }

    /// A value that satisfies its field; `present` is false for what Mongoose counts as missing (null, `""`).
    pub fn accept(&mut self, role: Role, present: bool) {
        self.set(role, State { fault: None, present });
    }

    /// A value that cannot be cast; `fault` says what was found, never the value.
    pub fn refuse(&mut self, role: Role, fault: &'static str) {
        self.set(role, State { fault: Some(fault), present: true });
    }

    fn set(&mut self, role: Role, state: State) {
        if let Some(slot) = role.index.and_then(|index| self.states.get_mut(index)) {
            *slot = state;
        }
    }

    /// What is wrong with the known fields, the first in the order of the rules.
    pub fn verdict(&self, rules: &Rules) -> Result<(), Rejection> {
        if self.id == BodyId::Invalid {
            return Err(Rejection::of_field(
                Reason::InvalidId,
                "_id",
                "_id is neither null nor a string of 24 hexadecimal digits",
            ));
        }
        for (field, state) in rules.fields.iter().zip(&self.states) {
            if let Some(fault) = state.fault {
                let expected = if field.kind == FieldKind::String { "String" } else { "Number" };
                return Err(Rejection::of_field(
                    Reason::InvalidField,
                    &field.name,
                    format!("{} expects a {expected}, found {fault}", field.name),
                ));
            }
            if field.required && !state.present {
                return Err(Rejection::of_field(
                    Reason::MissingField,
                    &field.name,
                    format!("{} is required, but absent, null or empty", field.name),
                ));
            }
        }
        Ok(())
    }
}

/// Finds the part that a top-level key plays; None for a key that is just stored.
pub(super) fn role(rules: &Rules, key: &[u8]) -> Option<Role> {
    let identity = match key {
        b"uuid" => IdentityPart::Uuid,
        b"timestamp" => IdentityPart::Time,
        _ => IdentityPart::Nothing,
    };
    let index = rules.fields.iter().position(|field| field.name.as_bytes() == key);
    if index.is_none() && identity == IdentityPart::Nothing {
        return None;
    }
    let kind = index.and_then(|index| rules.fields.get(index)).map_or(FieldKind::Any, |field| field.kind);
    Some(Role { index, kind, identity })
}
