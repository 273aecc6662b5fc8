//! Owns the settings: names, types and defaults (`config/default.toml`), layers, validation. Must not know what is done with
//! them.
//!
//! | module | owns |
//! |---|---|
//! | `layers` | reading a file, the environment, flags |
//! | `load` | merging them |
//! | `route` | the settings of one route |
//! | `validate`, `validate_routes` | bounds and contradictions |
//! | `error` | where a setting was given, and what is wrong with it |
//! | `variables` | environment variables that are no settings |
//! | `units`, `uri` | durations, sizes, server URIs |

mod error;
mod layers;
mod load;
mod route;
mod units;
mod uri;
mod validate;
mod validate_routes;
mod variables;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;

use crate::event::{Field, FieldKind, HiddenField, MaskKey, Rules, Treatment};

pub use error::{ConfigError, ConfigErrors, Source};
#[cfg(any(test, feature = "fuzzing"))]
pub use load::load_text;
pub use load::{EffectiveSetting, Loaded, Sources, load};
pub use route::{MAIN_ROUTE, RouteSettings};
pub use units::{HumanDuration, Retention, Size};
pub use uri::{broker_addresses, redacted, store_database, unencrypted_broker_host, unencrypted_store_host};

/// The annotated defaults, as compiled in.
pub const DEFAULT: &str = include_str!("../../config/default.toml");

/// Every setting. `config/default.toml` documents the meaning, unit and bounds of each.
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
    pub route: BTreeMap<String, RouteSettings>,
    /// The route that these settings are of; the configuration itself is of [`MAIN_ROUTE`].
    #[serde(skip, default = "route::main_route")]
    pub route_name: String,
    /// The routing keys of the main route, in the settings of another one.
    #[serde(skip)]
    pub main_routing_keys: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct BrokerSettings {
    pub uri: SecretString,
    /// The file that `uri` was read from; empty if it came from elsewhere.
    pub uri_file: String,
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
    pub queue: String,
    pub routing_keys: Vec<String>,
    pub queue_type: QueueType,
    pub shards: u16,
    pub declare: bool,
    pub prefetch: u16,
    pub prefetch_bytes: Size,
    pub heartbeat: HumanDuration,
    pub connect_timeout: HumanDuration,
    pub call_timeout: HumanDuration,
}

/// The content of the file now, if it is valid, or else what was read at first: credentials are renewed by replacing the
/// file.
fn current_uri(uri: &SecretString, file: &str, fault: impl Fn(&str) -> Option<String>) -> SecretString {
    let read = if file.is_empty() { None } else { std::fs::read_to_string(file).ok() };
    let Some(text) = read.as_deref().map(load::secret_text).filter(|text| !text.is_empty()) else { return uri.clone() };
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
        current_uri(&self.uri, &self.uri_file, |uri| validate::store_uri_fault(uri, self.allow_plaintext))
    }
}

impl BrokerSettings {
    /// The queues that the worker consumes: `queue`, and with several shards `queue.2` and so on.
    pub fn queues(&self) -> Vec<String> {
        let further = (2..=self.shards).map(|shard| format!("{}.{shard}", self.queue));
        std::iter::once(self.queue.clone()).chain(further).collect()
    }

    /// The exchange that spreads messages over several shards.
    pub fn shard_exchange(&self) -> String {
        format!("{}.shards", self.queue)
    }

    /// `uri`; if it came from a file, what the file says now.
    pub fn current_uri(&self) -> SecretString {
        current_uri(&self.uri, &self.uri_file, |uri| validate::broker_uri_fault(uri, self.allow_plaintext))
    }

    /// What is wrong with an address of the management API, which gets the login of `broker.uri`.
    pub fn management_fault(&self, url: &Url) -> Option<String> {
        validate::management_fault(url, self.allow_plaintext)
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
    pub queue: String,
    pub parked_queue: String,
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
    pub allow_plaintext: bool,
    pub database: String,
    pub collection: String,
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
    pub fields: BTreeMap<String, FieldSettings>,
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
    /// Where traces are sent to: `otlp` with the path `/v1/traces` (OpenTelemetry's specification of OTLP exporters). None if it is
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

impl EventSettings {
    fn hidden_fields(&self) -> Vec<HiddenField> {
        let hidden = |treatment| move |path: &String| HiddenField { path: path.clone(), treatment };
        let masked = self.mask.iter().map(hidden(Treatment::Mask));
        self.drop.iter().map(hidden(Treatment::Drop)).chain(masked).collect()
    }
}

impl Settings {
    /// The decoder's rules.
    pub fn rules(&self) -> Rules {
        let field = |(name, settings): (&String, &FieldSettings)| Field {
            name: name.clone(),
            kind: settings.r#type,
            required: settings.required,
        };
        Rules {
            addresses: self.has_several_routes().then(|| self.addresses()),
            max_bytes: self.event.max_bytes.bytes(),
            max_depth: self.event.max_depth,
            fields: self.event.fields.iter().map(field).collect(),
            add_ingested_at: self.store.retention.0.is_some(),
            hidden_fields: self.event.hidden_fields(),
            mask_key: MaskKey(self.event.mask_key.expose_secret().as_bytes().to_vec()),
        }
    }
}
