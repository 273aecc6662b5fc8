//! The rules that the messages of a route are decoded under: addresses, limits and configured fields.

use serde::{Deserialize, Serialize};

use super::{HiddenField, MaskKey, RouteAddresses};

/// MongoDB's limit on one document, in bytes: `maxBsonObjectSize`, 16 MiB since version 1.8.
pub const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;

/// What a route accepts, and how it stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Where its messages are published; `None` if it is the only route: then every message of its queue is meant for it.
    pub addresses: Option<RouteAddresses>,
    /// Longest body in bytes, as received and after decompression.
    pub max_bytes: usize,
    /// Deepest nesting; the root object is level 1.
    pub max_depth: usize,
    /// The configured fields, in the order in which faults are reported.
    pub fields: Vec<Field>,
    /// Whether the worker adds `ingested_at` to documents; the name is reserved then.
    pub add_ingested_at: bool,
    /// The fields that are not stored, or only as a hash.
    pub hidden_fields: Vec<HiddenField>,
    /// The key of these hashes.
    pub mask_key: MaskKey,
}

/// A configured top-level field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// The key, exactly as in the body.
    pub name: String,
    /// What it is cast to.
    #[serde(rename = "type")]
    pub kind: FieldKind,
    /// Whether a message without it, or with null, is rejected.
    pub required: bool,
}

/// The type that a configured field is cast to, as Mongoose casts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldKind {
    /// Mongoose `Number`.
    Number,
    /// Mongoose `String`.
    String,
    /// Mongoose `Mixed`: stored as sent.
    Any,
}

impl Default for Rules {
    fn default() -> Self {
        let field = |name: &str, kind| Field { name: name.to_owned(), kind, required: false };
        Rules {
            addresses: None,
            max_bytes: 8 * 1024 * 1024,
            max_depth: 64,
            fields: vec![
                field("user_id", FieldKind::Number),
                field("timestamp", FieldKind::Number),
                field("uuid", FieldKind::String),
                field("status", FieldKind::String),
            ],
            add_ingested_at: false,
            hidden_fields: Vec::new(),
            mask_key: MaskKey::default(),
        }
    }
}
