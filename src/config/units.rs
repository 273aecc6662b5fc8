//! Owns how durations and sizes are written in configuration. Must not know which settings use them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

/// A duration, written as `250ms`, `10s`, `5min`, `90days`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A size in bytes, written as `512KiB`, `8MiB`, `1MB`, or as a plain number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// How long documents are kept: `off`, or a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention(pub Option<Duration>);

impl Size {
    /// The number of bytes, for use as a length.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", bytesize::ByteSize(self.0).display().iec())
    }
}

impl fmt::Debug for Size {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn duration<E: Error>(text: &str) -> Result<Duration, E> {
    humantime::parse_duration(text).map_err(|_| E::custom("expected a duration such as \"250ms\", \"10s\" or \"5min\""))
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        duration(&text.0).map(Span)
    }
}

impl<'de> Deserialize<'de> for Retention {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        if text.0 == "off" {
            return Ok(Retention(None));
        }
        duration(&text.0)
            .map(Some)
            .map(Retention)
            .map_err(|_: D::Error| D::Error::custom("expected \"off\" or a duration such as \"90days\""))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        let size = text.0.parse::<bytesize::ByteSize>();
        size.map(|size| Size(size.as_u64()))
            .map_err(|_| D::Error::custom("expected a size such as \"512KiB\" or \"8MiB\", or a number of bytes"))
    }
}

/// A text, or an integer read as one: a number of bytes needs no quotes, a duration gets the better message.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Text(String),
            Number(u64),
        }
        match Either::deserialize(deserializer) {
            Ok(Either::Text(text)) => Ok(Text(text)),
            Ok(Either::Number(number)) => Ok(Text(number.to_string())),
            Err(_) => Err(D::Error::custom("expected a text such as \"10s\" or \"8MiB\"")),
        }
    }
}
