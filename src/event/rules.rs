//! Owns the rules a message is held against: limits and known fields. Built from configuration, compared by nobody.

/// MongoDB's limit on one document, in bytes: `maxBsonObjectSize`, 16 MiB since version 1.8.
pub const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;

/// What every message is decoded under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Longest body in bytes, as received and after decompression.
    pub max_bytes: usize,
    /// Deepest nesting; the root object is level 1.
    pub max_depth: usize,
    /// The fields that are cast, in the order in which faults are reported.
    pub fields: Vec<Field>,
    /// Whether documents carry `ingested_at`, which is then reserved.
    pub stamp: bool,
}

/// One known top-level field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The key, exactly as in the body.
    pub name: String,
    /// What it is cast to.
    pub kind: FieldKind,
    /// Whether a message without it (or with null) is refused.
    pub required: bool,
}

/// What a known field is cast to; the casts are Mongoose's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
            max_bytes: 8 * 1024 * 1024,
            max_depth: 64,
            fields: vec![
                field("user_id", FieldKind::Number),
                field("timestamp", FieldKind::Number),
                field("uuid", FieldKind::String),
                field("status", FieldKind::String),
            ],
            stamp: false,
        }
    }
}
