//! Settings that cannot be used, as the checks collect them.

/// A setting that cannot be used: its key, what is wrong, and how to fix it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SettingFault {
    pub key: String,
    pub text: String,
    /// The settings that it contradicts.
    pub contradicts: &'static [&'static str],
}

#[derive(Default)]
pub(super) struct Faults(pub Vec<SettingFault>);

impl Faults {
    /// Adds a fault unless `valid`. A setting has at most one fault, because a contradiction may follow from a value out of
    /// bounds.
    pub fn require(&mut self, valid: bool, key: impl Into<String>, text: impl Into<String>) {
        self.require_with(&[], valid, key, text);
    }

    /// The same of a setting that contradicts others, one of which may be the one that was given.
    pub fn require_with(
        &mut self,
        contradicts: &'static [&'static str],
        valid: bool,
        key: impl Into<String>,
        text: impl Into<String>,
    ) {
        let key = key.into();
        if !valid && !self.0.iter().any(|fault| fault.key == key) {
            self.0.push(SettingFault { key, text: text.into(), contradicts });
        }
    }
}
