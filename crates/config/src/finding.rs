//! Owns one line of `ticketlog check`: what was checked, the result, and the fix.

use serde::Serialize;

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
}

impl Finding {
    /// A check that passed.
    pub fn ok(subject: &'static str, message: impl Into<String>) -> Self {
        Finding { level: Level::Ok, subject, message: message.into(), fix: None }
    }

    /// A warning.
    pub fn warn(subject: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Finding { level: Level::Warn, subject, message: message.into(), fix: Some(fix.into()) }
    }

    /// A failure.
    pub fn fail(subject: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Finding { level: Level::Fail, subject, message: message.into(), fix: Some(fix.into()) }
    }
}
