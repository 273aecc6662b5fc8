//! Owns the merging of layers, and the error that names file, line, key and fix. Reads the files it is given.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use toml::{Table, Value};

use super::check::{self, Fault};
use super::layers::{self, Leaf, Source};
use super::{DEFAULT, Settings, redacted};

/// Settings whose value is never shown, and which can come from a file of their own.
const SECRETS: [&str; 2] = ["broker.uri", "store.uri"];

/// Where settings come from, later ones over earlier ones: defaults, files, environment, flags.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// TOML files, in order.
    pub files: Vec<PathBuf>,
    /// The process's environment variables.
    pub environment: Vec<(String, String)>,
    /// Flags: name as typed, section, key, value.
    pub flags: Vec<(String, String, String, String)>,
}

/// A setting that cannot be used. Displays as one line: where, which key, what is wrong and how to mend it.
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

impl std::error::Error for ConfigError {}

/// The settings, and where each came from.
#[derive(Debug)]
pub struct Loaded {
    /// Checked, and holding together.
    pub settings: Settings,
    /// Every setting as text, in order.
    pub effective: Vec<Effective>,
}

/// One setting as it is in force. Secrets are redacted.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// Its section.
    pub section: String,
    /// Its key in the section.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// Where it was given.
    pub source: Source,
}

/// Merges the layers into settings that hold together.
///
/// # Errors
/// The first fault: an unreadable file, broken TOML, an unknown key, a wrong type, a value out of bounds, a contradiction.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut merged = Merged::defaults()?;
    for path in &sources.files {
        let text = std::fs::read_to_string(path).map_err(|error| {
            ConfigError::new(Source::File(path.clone(), 1), None, format!("cannot be read: {}", error.kind()))
        })?;
        for leaf in layers::file(path, &text)? {
            merged.set(leaf)?;
        }
    }
    for leaf in layers::environment(&sources.environment, &merged.defaults) {
        merged.set(leaf)?;
    }
    for (name, section, key, text) in &sources.flags {
        let leaf = layers::flag(name, section, key, text, &merged.defaults);
        merged.set(leaf)?;
    }
    merged.finish()
}

/// Settings out of the text of one file.
///
/// # Errors
/// As for [`load`].
#[cfg(any(test, feature = "fuzzing"))]
pub fn load_text(name: &str, text: &str) -> Result<Loaded, ConfigError> {
    let mut merged = Merged::defaults()?;
    for leaf in layers::file(std::path::Path::new(name), text)? {
        merged.set(leaf)?;
    }
    merged.finish()
}

struct Merged {
    defaults: Table,
    table: Table,
    settings: Settings,
    origins: Vec<(String, Source)>,
}

impl Merged {
    fn defaults() -> Result<Self, ConfigError> {
        let broken = |error: toml::de::Error| ConfigError::new(Source::Default, None, error.message().to_owned());
        let defaults: Table = toml::from_str(DEFAULT).map_err(broken)?;
        let settings = Settings::deserialize(Value::Table(defaults.clone())).map_err(broken)?;
        Ok(Merged { table: defaults.clone(), defaults, settings, origins: Vec::new() })
    }

    /// Puts one setting over what there is. Taking the whole again after each shows at once which one does not fit.
    fn set(&mut self, leaf: Leaf) -> Result<(), ConfigError> {
        let leaf = resolve_file(leaf)?;
        self.known(&leaf)?;
        let path = leaf.path();
        let refuse = |text: String| ConfigError::new(leaf.source.clone(), Some(path.clone()), text);
        let mut table = self.table.clone();
        if let Some(Value::Table(section)) = table.get_mut(&leaf.section) {
            section.insert(leaf.key.clone(), leaf.value.clone());
        }
        self.settings = Settings::deserialize(Value::Table(table.clone())).map_err(|error| {
            if SECRETS.contains(&path.as_str()) {
                refuse("must be a text".to_owned())
            } else {
                refuse(format!("has a wrong value: {}", plain(error.message())))
            }
        })?;
        self.table = table;
        self.origins.push((path, leaf.source));
        Ok(())
    }

    fn known(&self, leaf: &Leaf) -> Result<(), ConfigError> {
        let refuse = |key: String, kind: &str, near: Option<&String>| {
            let hint = near.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            Err(ConfigError::new(leaf.source.clone(), Some(key), format!("is no {kind}{hint}")))
        };
        let Some(Value::Table(section)) = self.defaults.get(&leaf.section) else {
            return refuse(
                format!("[{}]", leaf.section),
                "section of this program",
                nearest(&leaf.section, self.defaults.keys()),
            );
        };
        if !section.contains_key(&leaf.key) {
            return refuse(leaf.path(), "setting of this program", nearest(&leaf.key, section.keys()));
        }
        Ok(())
    }

    fn finish(self) -> Result<Loaded, ConfigError> {
        match check::first_fault(&self.settings) {
            None => Ok(Loaded { effective: self.effective(), settings: self.settings }),
            Some(fault) => Err(ConfigError::new(self.culprit(&fault), Some(fault.key.to_owned()), fault.text)),
        }
    }

    /// Where the fault comes from: where its key was given, or else the setting that it names as contradicting.
    fn culprit(&self, fault: &Fault) -> Source {
        let given = |wanted: &dyn Fn(&str) -> bool| self.origins.iter().rev().find(|(path, _)| wanted(path));
        let found = given(&|path| path == fault.key).or_else(|| given(&|path| fault.text.contains(path)));
        found.map_or(Source::Default, |(_, source)| source.clone())
    }

    fn source(&self, path: &str) -> Source {
        let given = self.origins.iter().rev().find(|(given, _)| given == path);
        given.map_or(Source::Default, |(_, source)| source.clone())
    }

    fn effective(&self) -> Vec<Effective> {
        let sections = self.table.iter().filter_map(|(section, table)| Some((section, table.as_table()?)));
        let mut effective = Vec::new();
        for (section, (key, value)) in
            sections.flat_map(|(section, table)| table.iter().map(move |pair| (section, pair)))
        {
            let path = format!("{section}.{key}");
            let value = match value {
                Value::String(text) if SECRETS.contains(&path.as_str()) => Value::String(redacted(text)),
                other => other.clone(),
            };
            effective.push(Effective { section: section.clone(), key: key.clone(), value, source: self.source(&path) });
        }
        effective
    }
}

/// The first line of a type error, without names of Rust's.
fn plain(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let line = line.replace("invalid socket address syntax", "expected an address such as \"127.0.0.1:9464\"");
    let line = line.replace("expected u16", "expected a whole number, at most 65535");
    ["u32", "u64", "usize"]
        .iter()
        .fold(line, |line, name| line.replace(&format!("expected {name}"), "expected a whole number"))
}

/// `uri_file = "path"` becomes `uri = <the first line of that file>`.
fn resolve_file(leaf: Leaf) -> Result<Leaf, ConfigError> {
    let path = leaf.path();
    let Some(secret) = path.strip_suffix("_file").filter(|path| SECRETS.contains(path)) else { return Ok(leaf) };
    let refuse = |text: String| ConfigError::new(leaf.source.clone(), Some(path.clone()), text);
    let Value::String(file) = &leaf.value else { return Err(refuse("must be the path of a file".to_owned())) };
    let text = std::fs::read_to_string(Path::new(file))
        .map_err(|error| refuse(format!("names {file}, which cannot be read: {}", error.kind())))?;
    let key = secret.rsplit_once('.').map_or(secret, |(_, key)| key).to_owned();
    Ok(Leaf { key, value: Value::String(text.trim().to_owned()), ..leaf })
}

/// The known name that is a slip of the keyboard away.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    known
        .map(|other| (distance(name, other), other))
        .filter(|(steps, _)| *steps <= 3)
        .min_by_key(|(steps, _)| *steps)
        .map(|(_, other)| other)
}

/// Levenshtein's distance.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        if let Some(first) = row.first_mut() {
            *first = before;
        }
        for (b, cell) in right.chars().zip(row.iter_mut().skip(1)) {
            let replaced = diagonal + usize::from(a != b);
            diagonal = *cell;
            before = replaced.min(before + 1).min(*cell + 1);
            *cell = before;
        }
    }
    row.last().copied().unwrap_or_default()
}
