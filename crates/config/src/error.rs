//! Owns the errors of a configuration: where each setting was given, and all faults together.

use std::fmt;
use std::path::PathBuf;

/// Where a setting was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `config/default.toml`, compiled in.
    Default,
    /// A file, and a line in it, from 1; no line if the file cannot be read.
    File(PathBuf, Option<usize>),
    Environment(String),
    Flag(String),
}

impl Source {
    /// Whether both are of one file, of the environment, or of the flags, where none replaces the other.
    pub(super) fn is_same_layer(&self, other: &Source) -> bool {
        match (self, other) {
            (Source::File(file, _), Source::File(other, _)) => file == other,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Source::Default => f.write_str("built-in defaults"),
            Source::File(path, Some(line)) => write!(f, "{}, line {line}", path.display()),
            Source::File(path, None) => write!(f, "{}", path.display()),
            Source::Environment(name) => write!(f, "environment variable {name}"),
            Source::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A setting that cannot be used. Displayed on one line: where, which key, what is wrong, how to fix it.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    source: Source,
    key: Option<String>,
    text: String,
}

impl ConfigError {
    pub(super) fn new(source: Source, key: Option<String>, text: impl Into<String>) -> Self {
        ConfigError { source, key, text: text.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{}: {key} {}", self.source, self.text),
            None => write!(f, "{}: {}", self.source, self.text),
        }
    }
}

/// Every fault of a configuration, at least one. Displayed as one line each.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub(super) Vec<ConfigError>);

impl ConfigErrors {
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}
