//! The contract as a document: what publishers need to know of the routes of a configuration, in formats that their tools read. It holds no
//! secret: neither addresses of servers, nor keys, nor which fields are hidden.

mod asyncapi;
mod json_schema;
mod markdown;
mod strict;
mod typescript;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use strum::VariantArray as _;

use super::encoding::CONTENT_ENCODINGS;
use super::{Field, FieldKind, FindingKind, MaskKey, Reason, RouteAddresses, Rules};

/// The version of the JSON document. A reader rejects another one.
const DOCUMENT_VERSION: u64 = 1;

/// What the routes of a process accept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contract {
    /// The version of the program.
    pub version: String,
    /// At least one.
    pub routes: Vec<RouteContract>,
}

/// What a route accepts, and where its messages are published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteContract {
    /// Its name.
    pub route: String,
    /// A topic exchange.
    pub exchange: String,
    /// Patterns, as in a binding of a topic exchange.
    pub routing_keys: Vec<String>,
    /// The queue, or its shards.
    pub queues: Vec<String>,
    /// Whether a message with another routing key is rejected, as where there are several routes.
    pub rejects_other_routing_keys: bool,
    /// Longest body in bytes, before and after decompression.
    pub max_bytes: usize,
    /// Deepest nesting; the root object is level 1.
    pub max_depth: usize,
    /// The configured fields.
    pub fields: Vec<Field>,
    /// Whether the worker adds `ingested_at`; the name is reserved then.
    pub adds_ingested_at: bool,
    /// Whether some fields are not stored, or only as a hash.
    pub hides_fields: bool,
}

/// A route as it is served.
#[derive(Serialize)]
struct WithSchema<'a> {
    #[serde(flatten)]
    route: &'a RouteContract,
    schema: Value,
}

impl Contract {
    pub fn new(routes: Vec<RouteContract>) -> Self {
        Contract { version: env!("CARGO_PKG_VERSION").to_owned(), routes }
    }

    /// The document that a worker serves: everything, with the JSON Schema of each route.
    pub fn to_json(&self, strict: bool) -> Value {
        let routes = self.routes.iter().map(|route| WithSchema { route, schema: route.json_schema(strict) });
        json!({
            "contract": DOCUMENT_VERSION,
            "version": self.version,
            "content_encodings": CONTENT_ENCODINGS,
            "rejections": Reason::VARIANTS.iter().map(|reason| (reason.as_str(), reason.meaning())).collect::<BTreeMap<_, _>>(),
            "findings": FindingKind::VARIANTS.iter().map(|kind| (kind.as_str(), kind.advice())).collect::<BTreeMap<_, _>>(),
            "routes": routes.collect::<Vec<_>>(),
        })
    }

    /// Reads what [`Contract::to_json`] has made, here or in another version of the program.
    ///
    /// # Errors
    /// A text for the user: it is something else, or of a version that this program does not know.
    pub fn from_json(bytes: &[u8]) -> Result<Self, &'static str> {
        let json: Value = serde_json::from_slice(bytes).map_err(|_| "is not JSON")?;
        match json.get("contract").and_then(Value::as_u64) {
            Some(DOCUMENT_VERSION) => {}
            Some(_) => return Err("is a contract in a format that this version of ticketlog does not know"),
            None => return Err("is not what `ticketlog contract` prints and a worker serves at /contract.json"),
        }
        let contract: Contract = serde_json::from_value(json).map_err(|_| "is a contract that lacks something")?;
        if contract.routes.is_empty() { Err("is a contract without a route") } else { Ok(contract) }
    }

    /// An AsyncAPI 3 document of what a publisher does.
    pub fn asyncapi(&self, strict: bool) -> Value {
        asyncapi::render(self, strict)
    }

    /// A module with the type of the event of each route.
    pub fn typescript(&self, strict: bool) -> String {
        typescript::render(self, strict)
    }

    /// A page for people.
    pub fn markdown(&self, strict: bool) -> String {
        markdown::render(self, strict)
    }
}

impl RouteContract {
    /// The rules of the route, but for fields that are hidden.
    pub fn rules(&self) -> Rules {
        let addresses = RouteAddresses { routing_keys: self.routing_keys.clone(), queues: self.queues.clone() };
        Rules {
            addresses: self.rejects_other_routing_keys.then_some(addresses),
            max_bytes: self.max_bytes,
            max_depth: self.max_depth,
            fields: self.fields.clone(),
            add_ingested_at: self.adds_ingested_at,
            hidden_fields: Vec::new(),
            mask_key: MaskKey::default(),
        }
    }

    /// A JSON Schema (2020-12). A message that matches it is stored, if what [`RouteContract::beside_the_schema`] says holds as well.
    pub fn json_schema(&self, strict: bool) -> Value {
        json_schema::render(self, strict)
    }

    /// What a schema cannot say, one condition each.
    pub fn beside_the_schema(&self) -> Vec<String> {
        let mut conditions = vec![
            "it is JSON as RFC 8259 defines it, in UTF-8: NaN and Infinity are not JSON".to_owned(),
            "no object has a key twice: the last value counts, but each of them is checked".to_owned(),
            format!("the body has at most {} bytes, before and after decompression", self.max_bytes),
            "it has at most 16 MiB as BSON".to_owned(),
            format!("it is nested at most {} levels deep, the root object being 1", self.max_depth),
            format!("`content_encoding` is absent or one of {}", CONTENT_ENCODINGS.join(", ")),
            "no other event has its `_id`, and no validator or unique index of the collection rejects it".to_owned(),
        ];
        if self.rejects_other_routing_keys {
            conditions.push(format!("the routing key matches {}", self.routing_keys.join(" or ")));
        }
        conditions
    }

    /// An event that is stored, and in which nothing is wrong.
    fn example(&self) -> Map<String, Value> {
        let mut event: Map<_, _> = self.fields.iter().map(|field| (field.name.clone(), field.example())).collect();
        event.entry("operation_type").or_insert(json!("purchase"));
        event.entry("ticket_details").or_insert(json!({ "route": "Red Line", "fare": 2.75 }));
        event
    }
}

impl Field {
    /// What it is, where the name has a meaning, and how its values are stored.
    fn description(&self) -> String {
        let meaning = match self.name.as_str() {
            "user_id" => "The user of the operation. ",
            "timestamp" => "Unix time of the operation in milliseconds, as Date.now() returns it. ",
            "uuid" => "Identifies the operation across systems: the identity of a message without message_id. ",
            "status" => "How the operation ended, such as success or failed. ",
            _ => "",
        };
        let stored = match self.kind {
            FieldKind::Number => "Stored as a number; a text with a plain number is converted.",
            FieldKind::String => "Stored as a text.",
            FieldKind::Any => "Stored as sent.",
        };
        format!("{meaning}{stored}")
    }

    fn example(&self) -> Value {
        match (self.name.as_str(), self.kind) {
            ("user_id", FieldKind::Number) => json!(42),
            ("timestamp", FieldKind::Number) => json!(1_796_040_000_000_u64),
            ("uuid", FieldKind::String) => json!("3f1c2a77-0d4e-4b5e-9a36-5a1f6f0c9d21"),
            ("status", FieldKind::String) => json!("success"),
            (_, FieldKind::Number) => json!(1),
            (_, FieldKind::String | FieldKind::Any) => json!("text"),
        }
    }
}
