//! Owns the settings: their names, types and defaults (`config/default.toml`), how layers are merged, what contradicts
//! what. Must not know what is done with them.

mod check;
mod layers;
mod load;
mod units;
mod uri;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use secrecy::SecretString;
use serde::Deserialize;

use crate::event::{Field, FieldKind, Rules};

pub use layers::Source;
#[cfg(any(test, feature = "fuzzing"))]
pub use load::load_text;
pub use load::{ConfigError, Effective, Loaded, Sources, load};
pub use units::{Retention, Size, Span};
pub use uri::{broker_addresses, broker_in_the_open, redacted, store_in_the_open};

/// The annotated defaults, as compiled in.
pub const DEFAULT: &str = include_str!("../../config/default.toml");

/// Every setting. What each means, its unit and bounds stand in `config/default.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Settings {
    pub broker: Broker,
    pub dead_letter: DeadLetter,
    pub store: Store,
    pub batch: Batch,
    pub write: Write,
    pub retry: Retry,
    pub event: Event,
    pub http: Http,
    pub log: Log,
    pub shutdown: Shutdown,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Broker {
    pub uri: SecretString,
    /// PEM file with further certificate authorities; empty for the system's alone.
    pub tls_ca: String,
    /// PEM file with our certificate, for brokers that ask for one; empty for none.
    pub tls_certificate: String,
    /// PEM file with its key.
    pub tls_key: String,
    pub allow_plaintext: bool,
    pub exchange: String,
    pub queue: String,
    pub routing_keys: Vec<String>,
    pub queue_type: QueueType,
    pub declare: bool,
    pub prefetch: u16,
    pub prefetch_bytes: Size,
    pub heartbeat: Span,
    pub connect_timeout: Span,
    pub call_timeout: Span,
}

/// The kinds of queue that the worker declares.
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
pub struct DeadLetter {
    pub exchange: String,
    pub queue: String,
    pub parked_queue: String,
    pub max_replays: u32,
    /// Further users at the broker whose replays are believed.
    pub operators: Vec<String>,
    pub max_ratio: f64,
    pub window: Span,
    pub min_store: usize,
    pub min_decode: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Store {
    pub uri: SecretString,
    pub allow_plaintext: bool,
    pub database: String,
    pub collection: String,
    pub ensure_indexes: bool,
    pub retention: Retention,
    pub write_timeout: Span,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Batch {
    pub max_events: usize,
    pub max_bytes: Size,
    pub linger: Span,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Write {
    pub concurrency: usize,
    pub adaptive: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Retry {
    pub initial: Span,
    pub max: Span,
    pub release_after: Span,
    pub document_attempts: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Event {
    pub max_bytes: Size,
    pub max_depth: usize,
    pub fields: BTreeMap<String, KnownField>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct KnownField {
    pub r#type: FieldType,
    #[serde(default)]
    pub required: bool,
}

/// How a known field is cast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum FieldType {
    Number,
    String,
    Any,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Http {
    pub listen: SocketAddr,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Log {
    pub format: LogFormat,
    pub filter: String,
}

/// The form of log lines.
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
pub struct Shutdown {
    pub timeout: Span,
}

impl Settings {
    /// The rules that messages are held against.
    pub fn rules(&self) -> Rules {
        let field = |(name, known): (&String, &KnownField)| Field {
            name: name.clone(),
            kind: match known.r#type {
                FieldType::Number => FieldKind::Number,
                FieldType::String => FieldKind::String,
                FieldType::Any => FieldKind::Any,
            },
            required: known.required,
        };
        Rules {
            max_bytes: self.event.max_bytes.bytes(),
            max_depth: self.event.max_depth,
            fields: self.event.fields.iter().map(field).collect(),
            stamp: self.store.retention.0.is_some(),
        }
    }
}
