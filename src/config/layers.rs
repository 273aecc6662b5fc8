//! Owns reading one layer (a file, the environment, flags) into single settings that remember where they stand.
//! Must not know which settings exist, beyond the type of the default that an environment variable replaces.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::load::ConfigError;

/// Where a setting was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `config/default.toml`, compiled in.
    Default,
    /// A file, with the line (from 1).
    File(PathBuf, usize),
    /// An environment variable.
    Environment(String),
    /// A command-line flag.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Source::Default => f.write_str("built-in defaults"),
            Source::File(path, line) => write!(f, "{}, line {line}", path.display()),
            Source::Environment(name) => write!(f, "environment variable {name}"),
            Source::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One setting of one layer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Leaf {
    pub section: String,
    pub key: String,
    pub value: Value,
    pub source: Source,
}

impl Leaf {
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }
}

/// The settings of a TOML file.
///
/// # Errors
/// Text that is no TOML, or a key outside a section; both with the line.
pub(super) fn file(path: &Path, text: &str) -> Result<Vec<Leaf>, ConfigError> {
    let at = |offset: usize| Source::File(path.to_owned(), line_of(text, offset));
    let broken = |error: toml::de::Error| {
        let offset = error.span().map_or(0, |span| span.start);
        ConfigError::new(at(offset), None, format!("is no TOML: {}", error.message()))
    };
    let spans = DeTable::parse(text).map_err(broken)?;
    let mut values: Table = toml::from_str(text).map_err(broken)?;
    let mut leaves = Vec::new();
    for (section, table) in spans.get_ref() {
        let DeValue::Table(keys) = table.get_ref() else {
            let text = "stands outside a section; put it under one, such as [broker]";
            return Err(ConfigError::new(at(section.span().start), Some(section.get_ref().to_string()), text));
        };
        let Some(Value::Table(mut section_values)) = values.remove(section.get_ref().as_ref()) else { continue };
        for key in keys.keys() {
            if let Some(value) = section_values.remove(key.get_ref().as_ref()) {
                let (section, name) = (section.get_ref().to_string(), key.get_ref().to_string());
                leaves.push(Leaf { section, key: name, value, source: at(key.span().start) });
            }
        }
    }
    Ok(leaves)
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// The settings among environment variables: `TICKETLOG_<SECTION>__<KEY>`. Names without the double underscore are not
/// ours (Kubernetes makes some of the kind for a service of this name).
pub(super) fn environment(variables: &[(String, String)], defaults: &Table) -> Vec<Leaf> {
    let mut leaves: Vec<Leaf> = variables
        .iter()
        .filter_map(|(name, text)| {
            let (section, key) = name.strip_prefix("TICKETLOG_")?.split_once("__")?;
            let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
            let default = defaults.get(&section).and_then(|table| table.get(&key));
            let value = typed(text, default);
            Some(Leaf { section, key, value, source: Source::Environment(name.clone()) })
        })
        .collect();
    leaves.sort_by_key(Leaf::path);
    leaves
}

/// A setting given on the command line.
pub(super) fn flag(flag: &str, section: &str, key: &str, text: &str, defaults: &Table) -> Leaf {
    let default = defaults.get(section).and_then(|table| table.get(key));
    let value = typed(text, default);
    Leaf { section: section.to_owned(), key: key.to_owned(), value, source: Source::Flag(flag.to_owned()) }
}

/// Reads a text as the type that the default has; what does not fit stays a text, and is refused with its type later.
fn typed(text: &str, default: Option<&Value>) -> Value {
    let read = match default {
        Some(Value::Integer(_)) => text.trim().parse().ok().map(Value::Integer),
        Some(Value::Float(_)) => text.trim().parse().ok().map(Value::Float),
        Some(Value::Boolean(_)) => text.trim().parse().ok().map(Value::Boolean),
        Some(Value::Array(_)) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Some(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
        Some(Value::Table(_)) => {
            toml::from_str::<Table>(&format!("value = {text}")).ok().and_then(|mut table| table.remove("value"))
        }
        _ => None,
    };
    read.unwrap_or_else(|| Value::String(text.to_owned()))
}
