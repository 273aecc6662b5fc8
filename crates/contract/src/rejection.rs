//! What a rejection says about a message. It never holds a value of the message, because it is shown in headers, logs and
//! metrics.

use std::borrow::Cow;

use super::reason::Reason;

/// Why a message is rejected, and what its publisher needs to find the fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub reason: Reason,
    /// The field at fault, if it is one of the configured fields.
    pub field: Option<String>,
    /// Position, expected type, limit or error code. One line, at most 512 bytes, no value of the message.
    pub detail: Cow<'static, str>,
    /// MongoDB's error code, if MongoDB rejects it.
    pub code: Option<i32>,
}

impl Rejection {
    /// A rejection without a field.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Rejection { reason, field: None, detail: detail.into(), code: None }
    }

    /// The same with MongoDB's error code.
    #[must_use]
    pub fn with_code(self, code: Option<i32>) -> Self {
        Rejection { code, ..self }
    }

    /// Reason and, if there is one, field: `invalid_field user_id`.
    pub fn reason_and_field(&self) -> String {
        let parts = [Some(self.reason.as_str()), self.field.as_deref()];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// A rejection that names a configured field.
    pub fn of_field(reason: Reason, field: &str, detail: impl Into<Cow<'static, str>>) -> Self {
        Rejection { field: Some(field.to_owned()), ..Rejection::new(reason, detail) }
    }
}
