//! Merging the layers into settings; every fault on the way is collected.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize as _;
use toml::{Table, Value};

use super::error::{ConfigError, ConfigErrors, Source};
use super::faults::SettingFault;
use super::layers::{self, Entry};
use super::route::{ROUTES, RouteSettings, RouteTables, is_route_name};
use super::settings::{Settings, secret_text};
use super::uri::{redacted, store_database};
use super::validate::validate;
use super::variables::{Meaning, Variables, nearest};

/// The annotated defaults, as compiled in.
pub const DEFAULT: &str = include_str!("../../../config/default.toml");

/// Settings whose value is never shown, and which can come from a file (`<key>_file`).
const SECRETS: [&str; 5] = ["broker.uri", MASK_KEY, "store.uri", "operator.broker_uri", "operator.store_uri"];
/// The secret that is not a URI.
const MASK_KEY: &str = "event.mask_key";

/// Where settings come from. Later ones win: defaults, files, environment, flags.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// TOML files, in order.
    pub files: Vec<PathBuf>,
    /// The environment variables of the process.
    pub environment: Vec<(String, String)>,
    /// The names of those that stand for flags, not for settings.
    pub other_variables: Vec<String>,
    /// Flags: the name as typed, section, key, value.
    pub flags: Vec<(String, String, String, String)>,
}

/// The settings, typed and as text.
#[derive(Debug)]
pub struct Loaded {
    /// Those of the process; valid.
    pub settings: Arc<Settings>,
    /// Those of its routes, [`MAIN_ROUTE`](super::MAIN_ROUTE) first; valid.
    pub routes: Vec<RouteSettings>,
    /// Every setting with its source, in order.
    pub effective: Vec<EffectiveSetting>,
    /// Environment variables that begin with `TICKETLOG_` and are not settings.
    pub ignored_variables: Vec<String>,
}

/// A setting in force. Secrets are redacted.
#[derive(Debug, Clone, PartialEq)]
pub struct EffectiveSetting {
    /// Its section.
    pub section: String,
    /// Its key in the section.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// Where it was given.
    pub source: Source,
}

impl EffectiveSetting {
    /// `section.key`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }
}

/// Merges the layers into valid settings.
///
/// # Errors
/// Every fault: unreadable files, invalid TOML, unknown keys, wrong types, values out of bounds, contradictions.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    let mut merged = MergedSettings::defaults()?;
    for path in &sources.files {
        match std::fs::read_to_string(path) {
            Ok(text) => merged.add_file(path, &text),
            Err(error) => {
                let text = format!("cannot be read: {error}");
                merged.errors.push(ConfigError::new(Source::File(path.clone(), None), None, text));
            }
        }
    }
    for entry in layers::read_environment(&sources.environment, &merged.defaults) {
        merged.set(entry);
    }
    for (name, section, key, text) in &sources.flags {
        merged.set(layers::read_flag(name, section, key, text, &merged.defaults));
    }
    let variables = Variables::new(&merged.defaults, &sources.other_variables);
    let mut ignored = Vec::new();
    for (name, _) in &sources.environment {
        match variables.meaning(name) {
            Meaning::Mistyped(nearest) => {
                let text = format!("is not a setting; did you mean {nearest}?");
                merged.errors.push(ConfigError::new(Source::Environment(name.clone()), None, text));
            }
            Meaning::Unknown => ignored.push(name.clone()),
            Meaning::Known => {}
        }
    }
    merged.finish().map(|loaded| Loaded { ignored_variables: ignored, ..loaded })
}

/// The settings in the text of one file.
///
/// # Errors
/// As for [`load`].
pub fn load_text(name: &str, text: &str) -> Result<Loaded, ConfigErrors> {
    let mut merged = MergedSettings::defaults()?;
    merged.add_file(Path::new(name), text);
    merged.finish()
}

/// The settings in a table of all sections.
struct Parsed {
    settings: Settings,
    routes: RouteTables,
}

impl Parsed {
    fn new(mut table: Table) -> Result<Self, toml::de::Error> {
        let routes = RouteTables::take_from(&mut table)?;
        Ok(Parsed { settings: Settings::deserialize(Value::Table(table))?, routes })
    }
}

struct MergedSettings {
    defaults: Table,
    table: Table,
    parsed: Parsed,
    /// Which settings were given, and where, in the order of the layers.
    given: Vec<(String, Source)>,
    /// The same of secrets that are not empty: the setting, how it was given (`broker.uri_file`), and where.
    secrets: Vec<(String, String, Source)>,
    errors: Vec<ConfigError>,
}

impl MergedSettings {
    fn defaults() -> Result<Self, ConfigErrors> {
        let invalid = |error: toml::de::Error| {
            ConfigErrors(vec![ConfigError::new(Source::Default, None, error.message().to_owned())])
        };
        let defaults: Table = toml::from_str(DEFAULT).map_err(invalid)?;
        let parsed = Parsed::new(defaults.clone()).map_err(invalid)?;
        Ok(MergedSettings {
            table: defaults.clone(),
            defaults,
            parsed,
            given: Vec::new(),
            secrets: Vec::new(),
            errors: Vec::new(),
        })
    }

    fn add_file(&mut self, path: &Path, text: &str) {
        let (entries, errors) = layers::read_file(path, text);
        self.errors.extend(errors);
        entries.into_iter().for_each(|entry| self.set(entry));
    }

    /// Sets one setting, or records why it cannot be set.
    fn set(&mut self, entry: Entry) {
        if let Err(error) = self.try_set(entry) {
            self.errors.push(error);
        }
    }

    /// Deserializes all settings again, so that a type error belongs to this one.
    fn try_set(&mut self, entry: Entry) -> Result<(), ConfigError> {
        let name = entry.path();
        let (entry, file) = read_secret_file(entry)?;
        self.check_name(&entry)?;
        let path = entry.path();
        let is_empty = entry.value.as_str().is_some_and(str::is_empty);
        if SECRETS.contains(&path.as_str()) && !is_empty {
            self.check_given_once(&path, &name, &entry.source)?;
        }
        let mut table = self.table.clone();
        if let Some(Value::Table(section)) = table.get_mut(&entry.section) {
            if SECRETS.contains(&path.as_str()) {
                section.insert(format!("{}_file", entry.key), Value::String(file));
            }
            section.insert(entry.key, entry.value);
        }
        match Parsed::new(table.clone()) {
            Ok(parsed) => self.parsed = parsed,
            Err(error) => {
                let secret = SECRETS.contains(&path.as_str());
                let text = if secret { "must be a string".to_owned() } else { plain_type_error(error.message()) };
                return Err(ConfigError::new(entry.source, Some(path), text));
            }
        }
        self.table = table;
        self.given.push((path, entry.source));
        Ok(())
    }

    /// Refuses a secret that one layer gives twice, as a text and as a file: neither comes before the other. `name` is how it is given
    /// now. Layers replace each other.
    fn check_given_once(&mut self, path: &str, name: &str, source: &Source) -> Result<(), ConfigError> {
        let is_other =
            |(of, given, at): &&(String, String, Source)| of == path && given != name && at.is_same_layer(source);
        let Some((_, given, at)) = self.secrets.iter().find(is_other) else {
            self.secrets.push((path.to_owned(), name.to_owned(), source.clone()));
            return Ok(());
        };
        let text = format!("and {given} ({at}) are both set; remove one of the two");
        Err(ConfigError::new(source.clone(), Some(name.to_owned()), text))
    }

    fn check_name(&self, entry: &Entry) -> Result<(), ConfigError> {
        let unknown = |key: String, kind: &str, suggestion: Option<&String>| {
            let hint = suggestion.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            Err(ConfigError::new(entry.source.clone(), Some(key), format!("is an unknown {kind}{hint}")))
        };
        let Some(Value::Table(section)) = self.defaults.get(&entry.section) else {
            return unknown(format!("[{}]", entry.section), "section", nearest(&entry.section, self.defaults.keys()));
        };
        if entry.section == ROUTES && !is_route_name(&entry.key) {
            let text = "is not a valid route name: use 1 to 40 letters, digits, - or _ (main is reserved)";
            return Err(ConfigError::new(entry.source.clone(), Some(entry.path()), text));
        }
        if entry.section != ROUTES && !section.contains_key(&entry.key) {
            return unknown(entry.path(), "setting", nearest(&entry.key, section.keys()));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Loaded, ConfigErrors> {
        self.use_database_of_uri();
        let effective = self.effective();
        let settings = Arc::new(self.parsed.settings);
        let routes = self.parsed.routes.resolve(&settings);
        let invalid = validate(&settings, &routes).into_iter().map(|fault| {
            let source = source_of_fault(&self.given, &fault);
            ConfigError::new(source, Some(fault.key), fault.text)
        });
        self.errors.extend(invalid);
        if !self.errors.is_empty() {
            return Err(ConfigErrors(self.errors));
        }
        Ok(Loaded { settings, routes, effective, ignored_variables: Vec::new() })
    }

    /// Without `store.database`, the database that `store.uri` names is used, as other clients do; without that too,
    /// the one of `operator.store_uri`.
    fn use_database_of_uri(&mut self) {
        let (store, operator) = (&self.parsed.settings.store, &self.parsed.settings.operator);
        let named = |uri: &SecretString| store_database(uri.expose_secret()).map(str::to_owned);
        // Only where there is no worker's URI: a worker is not moved by the login of its operators.
        let is_given = ["store.uri", "store.uri_file"].iter().any(|path| self.source(path) != Source::Default);
        let of_operator = || Some(("operator.store_uri", named(&operator.store_uri)?)).filter(|_| !is_given);
        let Some((uri, database)) = named(&store.uri).map(|name| ("store.uri", name)).or_else(of_operator) else {
            return;
        };
        let source = self.source(uri);
        if self.source("store.database") == Source::Default {
            let value = Value::String(database);
            self.set(Entry { section: "store".to_owned(), key: "database".to_owned(), value, source });
        }
    }

    fn source(&self, path: &str) -> Source {
        let last = self.given.iter().rev().find(|(given, _)| given == path);
        last.map_or(Source::Default, |(_, source)| source.clone())
    }

    fn effective(&self) -> Vec<EffectiveSetting> {
        let sections = self.table.iter().filter_map(|(section, table)| Some((section, table.as_table()?)));
        let mut effective = Vec::new();
        for (section, (key, value)) in
            sections.flat_map(|(section, table)| table.iter().map(move |pair| (section, pair)))
        {
            let path = format!("{section}.{key}");
            let value = match value {
                Value::String(text) if path == MASK_KEY && !text.is_empty() => Value::String("***".to_owned()),
                Value::String(text) if SECRETS.contains(&path.as_str()) && path != MASK_KEY => {
                    Value::String(redacted(text))
                }
                other => other.clone(),
            };
            let source = self.source(&path);
            effective.push(EffectiveSetting { section: section.clone(), key: key.clone(), value, source });
        }
        effective
    }
}

/// Where the setting at fault was given, or else the last given one of those that it contradicts.
fn source_of_fault(given: &[(String, Source)], fault: &SettingFault) -> Source {
    let last = |wanted: &dyn Fn(&str) -> bool| given.iter().rev().find(|(path, _)| wanted(path));
    let is_part =
        |path: &str| fault.key.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let found = last(&is_part).or_else(|| last(&|path| fault.contradicts.contains(&path)));
    found.map_or(Source::Default, |(_, source)| source.clone())
}

/// The first line of a type error, without the names of Rust types.
fn plain_type_error(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let line = line.replace("invalid socket address syntax", "expected an address such as \"127.0.0.1:9464\"");
    let line = line.replace("expected a sequence", "expected a list such as a,b or [\"a\", \"b\"]");
    let line = line.replace("expected struct RouteTable", "expected a table: [route.NAME]");
    let line = line.replace("expected u16", "expected a whole number, at most 65535");
    let line = ["u32", "u64", "usize"]
        .iter()
        .fold(line, |line, name| line.replace(&format!("expected {name}"), "expected a whole number"));
    format!("has a wrong value: {line}")
}

/// `uri_file = "path"` becomes `uri = <the content of that file>`, and the path; it is empty for other entries.
fn read_secret_file(entry: Entry) -> Result<(Entry, String), ConfigError> {
    let path = entry.path();
    let Some(secret) = path.strip_suffix("_file").filter(|path| SECRETS.contains(path)) else {
        return Ok((entry, String::new()));
    };
    let error = |text: String| ConfigError::new(entry.source.clone(), Some(path.clone()), text);
    let Value::String(file) = &entry.value else { return Err(error("must be the path of a file".to_owned())) };
    if file.is_empty() {
        return Ok((entry, String::new()));
    }
    let text = std::fs::read_to_string(Path::new(file))
        .map_err(|cause| error(format!("names {file}, which cannot be read: {cause}")))?;
    if secret_text(&text).is_empty() {
        return Err(error(format!("names {file}, which is empty")));
    }
    let key = secret.rsplit_once('.').map_or(secret, |(_, key)| key).to_owned();
    let file = file.clone();
    Ok((Entry { key, value: Value::String(secret_text(&text).to_owned()), ..entry }, file))
}
