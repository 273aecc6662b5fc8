//! Owns one line of `ticketlog check`: what was checked, the result, and the fix.

use std::time::Duration;

use serde::Serialize;

use super::format::seconds;

/// The result of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, but an operator should know about it.
    Warn,
    /// The worker will not work, or cannot keep its promises.
    Fail,
}

impl Level {
    /// The name that is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        }
    }
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The result.
    pub level: Level,
    /// What was checked: the setting that names it, such as `broker.queue`, where there is one.
    pub subject: &'static str,
    /// What was found.
    pub message: String,
    /// What to do; `None` if the check passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// How long it took, if that is part of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<u64>,
}

impl Finding {
    /// A check that passed.
    pub fn ok(subject: &'static str, message: impl Into<String>) -> Self {
        Finding { level: Level::Ok, subject, message: message.into(), fix: None, milliseconds: None }
    }

    /// The same with how long it took, in its message as well.
    #[must_use]
    pub fn after(mut self, time: Duration) -> Self {
        self.message += &format!(" ({})", seconds(time.as_secs_f64()));
        self.milliseconds = Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// A warning.
    pub fn warn(subject: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Finding { level: Level::Warn, subject, message: message.into(), fix: Some(fix.into()), milliseconds: None }
    }

    /// A failure.
    pub fn fail(subject: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Finding { level: Level::Fail, subject, message: message.into(), fix: Some(fix.into()), milliseconds: None }
    }
}
