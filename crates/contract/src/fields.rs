//! Owns the state of the configured fields while one message is decoded, and the check of all of them at the end.

use super::{Field, FieldKind, Reason, Rejection, Rules};

/// `_id` in the body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum BodyId {
    #[default]
    Absent,
    Given([u8; 12]),
    Invalid,
}

/// What a top-level key means.
#[derive(Debug, Clone, Copy)]
pub(super) struct Role {
    /// Its index in `Rules::fields`.
    pub index: Option<usize>,
    pub kind: FieldKind,
    pub identity: IdentityPart,
}

/// What a top-level key contributes to the identity, configured field or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdentityPart {
    Nothing,
    Uuid,
    Time,
}

/// The states of the configured fields in one message, and the parts of its identity. The last of equal keys wins.
#[derive(Debug, Default)]
pub(super) struct FieldStates {
    states: Vec<State>,
    pub id: BodyId,
    /// `timestamp` as a number.
    pub time: Option<f64>,
    /// `uuid` if it is a string, else empty.
    pub uuid: String,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    fault: Option<&'static str>,
    present: bool,
}

impl FieldStates {
    pub fn reset(&mut self, fields: usize) {
        self.states.clear();
        self.states.resize(fields, State::default());
        self.id = BodyId::Absent;
        self.time = None;
        self.uuid.clear();
    }

    /// The field has a valid value; `present` is false for what Mongoose counts as missing (null, `""`).
    pub fn set_valid(&mut self, role: Role, present: bool) {
        self.set(role, State { fault: None, present });
    }

    /// The value cannot be cast; `fault` says what was found, never the value.
    pub fn set_fault(&mut self, role: Role, fault: &'static str) {
        self.set(role, State { fault: Some(fault), present: true });
    }

    fn set(&mut self, role: Role, state: State) {
        if let Some(slot) = role.index.and_then(|index| self.states.get_mut(index)) {
            *slot = state;
        }
    }

    /// The fault of one field.
    pub fn check_cast(&self, rules: &Rules, name: &str) -> Result<(), Rejection> {
        let mut fields = rules.fields.iter().zip(&self.states);
        fields.find(|(field, _)| field.name == name).map_or(Ok(()), |(field, state)| state.check_cast(field))
    }

    /// The first fault, in the order of the rules.
    pub fn check(&self, rules: &Rules) -> Result<(), Rejection> {
        if self.id == BodyId::Invalid {
            return Err(Rejection::of_field(
                Reason::InvalidId,
                "_id",
                "_id must be null or a string of 24 hexadecimal digits",
            ));
        }
        for (field, state) in rules.fields.iter().zip(&self.states) {
            state.check_cast(field)?;
            if field.required && !state.present {
                return Err(Rejection::of_field(
                    Reason::MissingField,
                    &field.name,
                    format!("{} is required, and it is absent, null or empty", field.name),
                ));
            }
        }
        Ok(())
    }
}

impl State {
    fn check_cast(self, field: &Field) -> Result<(), Rejection> {
        let Some(fault) = self.fault else { return Ok(()) };
        let expected = if field.kind == FieldKind::String { "String" } else { "Number" };
        let detail = format!("{} expects a {expected}, found {fault}", field.name);
        Err(Rejection::of_field(Reason::InvalidField, &field.name, detail))
    }
}

/// The role of a top-level key; none for a key that is neither configured nor part of the identity.
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
