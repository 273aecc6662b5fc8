//! The settings of the process: their names and types.

use std::net::SocketAddr;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;

use super::servers;
use super::units::{HumanDuration, Retention, Size};
use ticketlog_contract::{FieldKind, HiddenField, Treatment};

/// The settings of the process, which its routes share. `config/default.toml` documents the meaning, unit and bounds of each.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Settings {
    pub broker: BrokerSettings,
    pub dead_letter: DeadLetterSettings,
    pub store: StoreSettings,
    pub batch: BatchSettings,
    pub write: WriteSettings,
    pub retry: RetrySettings,
    pub event: EventSettings,
    pub http: HttpSettings,
    pub log: LogSettings,
    pub telemetry: TelemetrySettings,
    pub shutdown: ShutdownSettings,
    pub operator: OperatorSettings,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct BrokerSettings {
    pub uri: SecretString,
    /// The file that `uri` was read from; empty if it came from elsewhere.
    pub uri_file: String,
    /// The name of the setting that `uri` came from, for messages: `broker.uri` or `operator.broker_uri`.
    #[serde(skip, default = "broker_uri")]
    pub uri_setting: &'static str,
    /// PEM file with further certificate authorities; empty for the system's only.
    pub tls_ca: String,
    /// PEM file with our client certificate; empty for none.
    pub tls_certificate: String,
    /// PEM file with its key.
    pub tls_key: String,
    pub allow_plaintext: bool,
    /// Address of the management API; empty for the usual one.
    pub management: String,
    pub exchange: String,
    pub queue_type: QueueType,
    pub shards: u16,
    pub declare: bool,
    pub prefetch: u16,
    pub prefetch_bytes: Size,
    pub heartbeat: HumanDuration,
    pub connect_timeout: HumanDuration,
    pub call_timeout: HumanDuration,
}

fn broker_uri() -> &'static str {
    "broker.uri"
}

fn store_uri() -> &'static str {
    "store.uri"
}

impl Settings {
    /// The same with the operators' logins in place of the worker's, where they are set.
    pub(super) fn into_operator(mut self) -> Self {
        let is_set = |uri: &SecretString| !uri.expose_secret().is_empty();
        let (operator, broker, store) = (&self.operator, &mut self.broker, &mut self.store);
        if is_set(&operator.broker_uri) {
            broker.uri = operator.broker_uri.clone();
            broker.uri_file.clone_from(&operator.broker_uri_file);
            broker.uri_setting = "operator.broker_uri";
        }
        if is_set(&operator.store_uri) {
            store.uri = operator.store_uri.clone();
            store.uri_file.clone_from(&operator.store_uri_file);
            store.uri_setting = "operator.store_uri";
        }
        self
    }
}

/// The content of the file now, if it is valid, or else what was read at first: credentials are renewed by replacing the
/// file.
fn current_uri(uri: &SecretString, file: &str, fault: impl Fn(&str) -> Option<String>) -> SecretString {
    let read = if file.is_empty() { None } else { std::fs::read_to_string(file).ok() };
    let Some(text) = read.as_deref().map(secret_text).filter(|text| !text.is_empty()) else { return uri.clone() };
    match fault(text) {
        None => text.to_owned().into(),
        Some(fault) => {
            tracing::warn!("the content of {file} is not used, because it {fault}");
            uri.clone()
        }
    }
}

impl StoreSettings {
    /// `uri`; if it came from a file, what the file says now.
    pub fn current_uri(&self) -> SecretString {
        current_uri(&self.uri, &self.uri_file, |uri| servers::store_uri_fault(uri, self.allow_plaintext))
    }
}

impl BrokerSettings {
    /// `uri`; if it came from a file, what the file says now.
    pub fn current_uri(&self) -> SecretString {
        current_uri(&self.uri, &self.uri_file, |uri| servers::broker_uri_fault(uri, self.allow_plaintext))
    }

    /// What is wrong with an address of the management API, which gets the login of `broker.uri`.
    pub fn management_fault(&self, url: &Url) -> Option<String> {
        servers::management_fault(url, self.allow_plaintext)
    }

    /// `management`, if it is set.
    pub fn management_url(&self) -> Option<Url> {
        Url::parse(&self.management).ok()
    }
}

/// The types of queue that the worker declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueType {
    /// Replicated, and the default.
    Quorum,
    /// Not replicated.
    Classic,
}

impl QueueType {
    /// The value of `x-queue-type`.
    pub fn as_str(self) -> &'static str {
        match self {
            QueueType::Quorum => "quorum",
            QueueType::Classic => "classic",
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct DeadLetterSettings {
    pub exchange: String,
    /// The exchange for receipts; empty for none.
    pub receipts: String,
    pub max_replays: u32,
    /// Users at the broker, in addition to the user of `uri`, whose replays are trusted.
    pub operators: Vec<String>,
    pub max_ratio: f64,
    /// Number of the last outcomes of the store that the breaker judges.
    pub breaker_window: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct StoreSettings {
    pub uri: SecretString,
    /// The file that `uri` was read from; empty if it came from elsewhere.
    pub uri_file: String,
    /// The name of the setting that `uri` came from, for messages: `store.uri` or `operator.store_uri`.
    #[serde(skip, default = "store_uri")]
    pub uri_setting: &'static str,
    pub allow_plaintext: bool,
    pub database: String,
    pub ensure_indexes: bool,
    pub retention: Retention,
    pub write_timeout: HumanDuration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct BatchSettings {
    pub max_events: usize,
    pub max_bytes: Size,
    pub linger: HumanDuration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct WriteSettings {
    pub concurrency: usize,
    pub max_rate: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RetrySettings {
    pub initial: HumanDuration,
    pub max: HumanDuration,
    pub requeue_after: HumanDuration,
    pub document_attempts: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct EventSettings {
    pub max_bytes: Size,
    pub max_depth: usize,
    pub drop: Vec<String>,
    pub mask: Vec<String>,
    pub mask_key: SecretString,
    /// The file that `mask_key` was read from; empty if it came from elsewhere.
    pub mask_key_file: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct FieldSettings {
    pub r#type: FieldKind,
    #[serde(default)]
    pub required: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct HttpSettings {
    pub listen: SocketAddr,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct LogSettings {
    pub format: LogFormat,
    pub filter: String,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// One line of text an event.
    Text,
    /// One JSON object an event.
    Json,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct TelemetrySettings {
    /// The address of a collector; empty for none.
    pub otlp: String,
}

impl TelemetrySettings {
    /// Where traces are sent to: `otlp` with the path `/v1/traces` (OpenTelemetry's specification of OTLP exporters). `None` if it is
    /// empty.
    pub fn traces_url(&self) -> Option<Url> {
        let mut url = Url::parse(&self.otlp).ok()?;
        let path = url.path().trim_end_matches('/').to_owned();
        if !path.ends_with("/v1/traces") {
            url.set_path(&format!("{path}/v1/traces"));
        }
        Some(url)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ShutdownSettings {
    pub timeout: HumanDuration,
}

/// The logins of operators' commands; empty for those of the worker.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct OperatorSettings {
    pub broker_uri: SecretString,
    /// The file that `broker_uri` was read from; empty if it came from elsewhere.
    pub broker_uri_file: String,
    pub store_uri: SecretString,
    /// The file that `store_uri` was read from; empty if it came from elsewhere.
    pub store_uri_file: String,
}

impl EventSettings {
    pub(super) fn hidden_fields(&self) -> Vec<HiddenField> {
        let hidden = |treatment| move |path: &String| HiddenField { path: path.clone(), treatment };
        let masked = self.mask.iter().map(hidden(Treatment::Mask));
        self.drop.iter().map(hidden(Treatment::Drop)).chain(masked).collect()
    }
}

/// The secret in the text of its file.
pub(super) fn secret_text(text: &str) -> &str {
    text.trim_start_matches('\u{feff}').trim()
}
