//! Owns the contract as JSON Schema, 2020-12. It has only keywords of the standard, and one type in a schema: ajv rejects
//! other keywords, and warns of two types.

use serde_json::{Map, Value, json};

use super::super::{Field, FieldKind};
use super::RouteContract;
use super::strict::{self, Bounds, PLACEHOLDERS};

/// A plain decimal number of at most 15 digits on each side of the point: JavaScript's `Number()` reads it, and keeps it.
const NUMBER_TEXT: &str = r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?$";

/// Where the definitions of a JSON Schema are.
const DEFINITIONS: &str = "#/$defs/";

pub fn render(route: &RouteContract, strict: bool) -> Value {
    let mut schema = event(route, strict, DEFINITIONS);
    let suffix = if strict { ":strict" } else { "" };
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("$id".to_owned(), json!(format!("urn:ticketlog:event:{}{suffix}", route.route)));
    schema.insert("$defs".to_owned(), definitions(DEFINITIONS).into());
    schema.into()
}

/// The schema of an event; `refs` is where its [`definitions`] are.
pub fn event(route: &RouteContract, strict: bool, refs: &str) -> Map<String, Value> {
    let value = reference(refs, "value");
    let mut properties: Map<String, Value> =
        route.fields.iter().map(|field| (field.name.clone(), property(field, strict, &value))).collect();
    properties.insert("_id".to_owned(), object_id());
    if strict {
        properties.extend(strict::lookalikes(&route.fields).into_iter().map(|(name, _)| (name, Value::Bool(false))));
    }
    if route.adds_ingested_at {
        properties.insert("ingested_at".to_owned(), Value::Bool(false));
    }
    let required: Vec<_> =
        route.fields.iter().filter(|field| strict::is_required(field, strict)).map(|field| &field.name).collect();
    let schema = json!({
        "title": format!("Event of the {} route", route.route),
        "description": description(route),
        "type": "object",
        "properties": properties,
        "required": required,
        "propertyNames": reference(refs, "key"),
        "additionalProperties": value,
        "examples": [route.example()],
    });
    if let Value::Object(schema) = schema { schema } else { Map::new() }
}

/// What the schema refers to.
pub fn definitions(refs: &str) -> Map<String, Value> {
    let (value, key) = (reference(refs, "value"), reference(refs, "key"));
    let any = json!({
        "description": "Any JSON value: without NUL in a key and without a number that is too large, at any depth.",
        "anyOf": [
            { "type": "object", "propertyNames": key, "additionalProperties": value },
            { "type": "array", "items": value },
            number(Bounds::of_doubles()),
            { "type": "string" },
            { "type": "boolean" },
            { "type": "null" },
        ],
    });
    let key = json!({ "type": "string", "pattern": r"^[^\u0000]*$" });
    Map::from_iter([("value".to_owned(), any), ("key".to_owned(), key)])
}

fn description(route: &RouteContract) -> String {
    let conditions = route.beside_the_schema().join("; ");
    format!(
        "What a publisher should send; the worker accepts more. A message that matches is stored, if also: {conditions}."
    )
}

fn reference(refs: &str, name: &str) -> Value {
    json!({ "$ref": format!("{refs}{name}") })
}

fn property(field: &Field, strict: bool, value: &Value) -> Value {
    let required = strict::is_required(field, strict);
    let mut choices = match field.kind {
        FieldKind::Number if strict && strict::is_time(field) => vec![number(Bounds::of(field))],
        FieldKind::Number => {
            let bounds = if strict { Bounds::of(field) } else { Bounds::of_doubles() };
            vec![number(bounds), json!({ "type": "string", "pattern": NUMBER_TEXT, "maxLength": 32 })]
        }
        FieldKind::String if strict => {
            vec![json!({ "type": "string", "pattern": r"\S", "not": { "enum": PLACEHOLDERS } })]
        }
        FieldKind::String if required => vec![json!({ "type": "string", "minLength": 1 })],
        FieldKind::String => vec![json!({ "type": "string" })],
        FieldKind::Any if required => {
            return json!({ "description": field.description(), "allOf": [value], "not": { "enum": [null, ""] } });
        }
        FieldKind::Any => return json!({ "description": field.description(), "allOf": [value] }),
    };
    if !required {
        choices.push(json!({ "type": "null" }));
    }
    json!({ "description": field.description(), "anyOf": choices })
}

/// `not` says the same as `maximum`, but in Python, where NaN is neither more nor less than anything, it holds NaN back.
fn number(Bounds(minimum, maximum): Bounds) -> Value {
    json!({ "type": "number", "minimum": minimum, "maximum": maximum, "not": { "type": "number", "exclusiveMinimum": maximum } })
}

/// Its `maxLength` holds back a line feed behind the digits, before which `$` matches in Python.
fn object_id() -> Value {
    let text = json!({ "type": "string", "pattern": "^[0-9a-fA-F]{24}$", "maxLength": 24 });
    let description = "The _id of the document. Only for publishers that create ObjectIds themselves.";
    json!({ "description": description, "anyOf": [text, { "type": "null" }] })
}
