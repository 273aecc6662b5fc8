//! Owns reading one layer of settings (a file, the environment, flags) into entries with their sources.

use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::error::{ConfigError, Source};

/// One setting of one layer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub section: String,
    pub key: String,
    pub value: Value,
    pub source: Source,
}

impl Entry {
    /// `section.key`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }
}

/// The settings of a TOML file, and its faults: invalid TOML, or keys outside a section.
pub(super) fn read_file(path: &Path, text: &str) -> (Vec<Entry>, Vec<ConfigError>) {
    let at = |offset: usize| Source::File(path.to_owned(), Some(line_of(text, offset)));
    let (mut entries, mut errors) = (Vec::new(), Vec::new());
    let parsed = DeTable::parse(text).and_then(|spans| Ok((spans, toml::from_str::<Table>(text)?)));
    let (spans, mut values) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            errors.push(ConfigError::new(at(offset), None, format!("not valid TOML: {}", error.message())));
            return (entries, errors);
        }
    };
    for (section, table) in spans.get_ref() {
        let DeValue::Table(keys) = table.get_ref() else {
            let text = match table.get_ref() {
                DeValue::Array(_) => "is a list; a section is written once, such as [broker] or [route.NAME]",
                _ => "is outside a section; put it under one, such as [broker]",
            };
            errors.push(ConfigError::new(at(section.span().start), Some(section.get_ref().to_string()), text));
            continue;
        };
        let Some(Value::Table(mut section_values)) = values.remove(section.get_ref().as_ref()) else { continue };
        for key in keys.keys() {
            if let Some(value) = section_values.remove(key.get_ref().as_ref()) {
                let (section, name) = (section.get_ref().to_string(), key.get_ref().to_string());
                entries.push(Entry { section, key: name, value, source: at(key.span().start) });
            }
        }
    }
    (entries, errors)
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// The settings among environment variables: `TICKETLOG_<SECTION>__<KEY>`. Names without the double underscore are ignored:
/// Kubernetes sets such variables for a service of this name.
pub(super) fn read_environment(variables: &[(String, String)], defaults: &Table) -> Vec<Entry> {
    let mut entries: Vec<Entry> = variables
        .iter()
        .filter_map(|(name, text)| {
            let (section, key) = name.strip_prefix("TICKETLOG_")?.split_once("__")?;
            let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
            let value = parse_as_default(text, default_of(defaults, &section, &key));
            Some(Entry { section, key, value, source: Source::Environment(name.clone()) })
        })
        .collect();
    entries.sort_by_key(Entry::path);
    entries
}

/// A setting given on the command line.
pub(super) fn read_flag(flag: &str, section: &str, key: &str, text: &str, defaults: &Table) -> Entry {
    let value = parse_as_default(text, default_of(defaults, section, key));
    Entry { section: section.to_owned(), key: key.to_owned(), value, source: Source::Flag(flag.to_owned()) }
}

/// The default that a setting replaces. Routes have none, but are tables like the fields.
fn default_of<'a>(defaults: &'a Table, section: &str, key: &str) -> Option<&'a Value> {
    let section = defaults.get(section)?;
    if section.as_table()?.is_empty() { Some(section) } else { section.get(key) }
}

/// Parses a text as the type of the default. A text that does not fit stays a text and is rejected later, with a type error.
fn parse_as_default(text: &str, default: Option<&Value>) -> Value {
    let parsed = match default {
        Some(Value::Integer(_)) => text.trim().parse().ok().map(Value::Integer),
        Some(Value::Float(_)) => text.trim().parse().ok().map(Value::Float),
        Some(Value::Boolean(_)) => text.trim().parse().ok().map(Value::Boolean),
        Some(Value::Array(_)) => parse_list(text.trim()),
        Some(Value::Table(_)) => parse_toml(text),
        _ => None,
    };
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// A list as in TOML, without its brackets too, or texts with commas between them. No setting has names that begin with a quote or a
/// bracket.
fn parse_list(text: &str) -> Option<Value> {
    match text.as_bytes().first() {
        Some(b'[') => parse_toml(text),
        Some(b'"' | b'\'') => parse_toml(&format!("[{text}]")),
        _ => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Some(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
    }
}

fn parse_toml(text: &str) -> Option<Value> {
    toml::from_str::<Table>(&format!("value = {text}")).ok().and_then(|mut table| table.remove("value"))
}
