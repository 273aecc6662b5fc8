//! Owns one line of `ticketlog check`: what was looked at, how it is, and how to mend it. Must not know who looks.

use serde::Serialize;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and something is to be known or better.
    Warn,
    /// The worker will not work, or not keep its promises.
    Fail,
}

impl Level {
    /// As printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it is.
    pub level: Level,
    /// What was looked at, such as `broker.queue`: the setting that names it, where there is one.
    pub about: &'static str,
    /// What was seen.
    pub said: String,
    /// What to do; none where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    /// As it should be.
    pub fn ok(about: &'static str, said: impl Into<String>) -> Self {
        Finding { level: Level::Ok, about, said: said.into(), fix: None }
    }

    /// Works, but.
    pub fn warn(about: &'static str, said: impl Into<String>, fix: impl Into<String>) -> Self {
        Finding { level: Level::Warn, about, said: said.into(), fix: Some(fix.into()) }
    }

    /// Does not work.
    pub fn fail(about: &'static str, said: impl Into<String>, fix: impl Into<String>) -> Self {
        Finding { level: Level::Fail, about, said: said.into(), fix: Some(fix.into()) }
    }
}
