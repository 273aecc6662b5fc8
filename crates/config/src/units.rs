//! Owns how durations and sizes are written in configuration.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

/// A duration, written as `250ms`, `10s`, `5min`, `90days`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

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

impl fmt::Debug for HumanDuration {
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

fn parse_duration<E: Error>(text: &str) -> Result<Duration, E> {
    humantime::parse_duration(text).map_err(|_| E::custom("expected a duration such as \"250ms\", \"10s\" or \"5min\""))
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        parse_duration(&text.0).map(HumanDuration)
    }
}

impl<'de> Deserialize<'de> for Retention {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        if text.0 == "off" {
            return Ok(Retention(None));
        }
        parse_duration(&text.0)
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

/// A string, or an integer that is read as one. So a number of bytes needs no quotes, and the error for a duration without a
/// unit shows how to write one.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum StringOrNumber {
            String(String),
            Number(u64),
        }
        match StringOrNumber::deserialize(deserializer) {
            Ok(StringOrNumber::String(text)) => Ok(Text(text)),
            Ok(StringOrNumber::Number(number)) => Ok(Text(number.to_string())),
            Err(_) => Err(D::Error::custom("expected a string such as \"10s\" or \"8MiB\"")),
        }
    }
}
