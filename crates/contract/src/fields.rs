//! Owns the state of the configured fields while one message is decoded, and the check of all of them at the end.

use super::{Field, FieldKind, Findings, LikelyCause, Reason, Rejection, Rules};

/// `_id` in the body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum BodyId {
    #[default]
    Absent,
    Given([u8; 12]),
    Invalid,
    /// `{"$oid": …}` or the like.
    Extended,
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
    /// Keys that may look like a configured field, each with a NUL behind it. They are compared only if a field is absent.
    pub unknown_keys: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    fault: Option<&'static str>,
    present: bool,
    findings: Findings,
}

impl FieldStates {
    pub fn reset(&mut self, fields: usize) {
        self.states.clear();
        self.states.resize(fields, State::default());
        self.id = BodyId::Absent;
        self.time = None;
        self.uuid.clear();
        self.unknown_keys.clear();
    }

    /// The field has a valid value; `present` is false for what Mongoose counts as missing (null, `""`).
    pub fn set_valid(&mut self, role: Role, present: bool) {
        self.set_found(role, present, Findings::default());
    }

    /// The same, with what is probably wrong with the value.
    pub fn set_found(&mut self, role: Role, present: bool, findings: Findings) {
        self.set(role, State { fault: None, present, findings });
    }

    /// The value cannot be cast; `fault` says what was found, never the value.
    pub fn set_fault(&mut self, role: Role, fault: &'static str) {
        self.set(role, State { fault: Some(fault), present: true, findings: Findings::default() });
    }

    fn set(&mut self, role: Role, state: State) {
        if let Some(slot) = role.index.and_then(|index| self.states.get_mut(index)) {
            *slot = state;
        }
    }

    /// Which fields are present, as bits, and what is found in their values.
    pub fn present_and_findings(&self) -> (u64, Findings) {
        self.states.iter().take(64).enumerate().fold((0, Findings::default()), |(present, findings), (index, state)| {
            (present | u64::from(state.present) << index, findings.and(state.findings))
        })
    }

    /// The fields in whose values this is found.
    pub fn found_in<'r>(&self, rules: &'r Rules, finding: Findings) -> Vec<&'r str> {
        let fields = rules.fields.iter().zip(&self.states);
        let found = fields.filter(|(_, state)| state.findings.without(finding) != state.findings);
        found.map(|(field, _)| field.name.as_str()).collect()
    }

    /// The fault of one field.
    pub fn check_cast(&self, rules: &Rules, name: &str) -> Result<(), Rejection> {
        let mut fields = rules.fields.iter().zip(&self.states);
        fields.find(|(field, _)| field.name == name).map_or(Ok(()), |(field, state)| state.check_cast(field))
    }

    /// The first fault, in the order of the rules.
    pub fn check(&self, rules: &Rules) -> Result<(), Rejection> {
        self.faults(rules).next().map_or(Ok(()), Err)
    }

    /// All faults, `_id` first and then in the order of the rules.
    pub fn faults<'s>(&'s self, rules: &'s Rules) -> impl Iterator<Item = Rejection> + use<'s> {
        let fields = rules.fields.iter().zip(&self.states);
        self.fault_of_id().into_iter().chain(fields.filter_map(|(field, state)| state.fault_of(field)))
    }

    fn fault_of_id(&self) -> Option<Rejection> {
        let of_id = |found: &str| {
            let detail = format!("_id must be null or a string of 24 hexadecimal digits{found}");
            Some(Rejection::of_field(Reason::InvalidId, "_id", detail))
        };
        match self.id {
            BodyId::Invalid => of_id(""),
            BodyId::Extended => of_id(&format!(", found {}", LikelyCause::ExtendedJson.detail())),
            BodyId::Absent | BodyId::Given(_) => None,
        }
    }
}

impl State {
    /// Why it cannot be stored, if it cannot.
    fn fault_of(self, field: &Field) -> Option<Rejection> {
        let missing = || {
            let detail = format!("{} is required, and it is absent, null or empty", field.name);
            Rejection::of_field(Reason::MissingField, &field.name, detail)
        };
        self.check_cast(field).err().or_else(|| (field.required && !self.present).then(missing))
    }

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
