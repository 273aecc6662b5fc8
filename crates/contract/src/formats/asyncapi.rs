//! Owns the contract as AsyncAPI 3, from the side of a publisher: it sends, to a routing key of an exchange.

use serde_json::{Map, Value, json};
use strum::VariantArray as _;

use super::super::{FindingKind, Reason};
use super::{Contract, RouteContract, json_schema};

/// Where the schemas are.
const SCHEMAS: &str = "#/components/schemas/";

/// What a publisher does besides.
const PUBLISHING: &str = "Publish persistent and mandatory, wait for the confirm, and treat a returned message as an error. Set message_id (unique to the operation; in a retry the same one, and the same bytes) and app_id (the name of the service).";

/// One message and its schema for each route, a channel and an operation for each routing key.
pub fn render(contract: &Contract, strict: bool) -> Value {
    let mut schemas = json_schema::definitions(SCHEMAS);
    let (mut messages, mut channels, mut operations) = (Map::new(), Map::new(), Map::new());
    for route in &contract.routes {
        let name = format!("{}.event", route.route);
        schemas.insert(name.clone(), json_schema::event(route, strict, SCHEMAS).into());
        messages.insert(name.clone(), message(route, &name));
        for (at, routing_key) in route.routing_keys.iter().enumerate() {
            let suffix = if at == 0 { String::new() } else { format!(".{}", at + 1) };
            let channel = format!("{}{suffix}", route.route);
            operations.insert(format!("publish.{channel}"), operation(&channel));
            channels.insert(channel, channel_of(route, routing_key, &name));
        }
    }
    json!({
        "asyncapi": "3.0.0",
        "info": { "title": "ticketlog", "version": contract.version, "description": about() },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": schemas },
    })
}

fn about() -> String {
    let reasons = Reason::VARIANTS.iter().map(|reason| format!("\n- `{}`: {}", reason.as_str(), reason.meaning()));
    let reasons: String = reasons.collect();
    let findings = FindingKind::VARIANTS.iter().map(|kind| format!("\n- `{}`: {}", kind.as_str(), kind.meaning()));
    let findings: String = findings.collect();
    format!(
        "{PUBLISHING}\n\nA message that cannot be stored becomes a dead letter, for one of these reasons:\n{reasons}\n\n\
         What is stored, and probably a mistake:\n{findings}"
    )
}

fn message(route: &RouteContract, name: &str) -> Value {
    json!({
        "name": name,
        "title": format!("Event of the {} route", route.route),
        "contentType": "application/json",
        "payload": { "$ref": format!("{SCHEMAS}{name}") },
        "examples": [{ "name": "purchase", "payload": route.example() }],
    })
}

fn operation(channel: &str) -> Value {
    json!({
        "action": "send",
        "channel": { "$ref": format!("#/channels/{channel}") },
        "summary": PUBLISHING,
        "messages": [{ "$ref": format!("#/channels/{channel}/messages/event") }],
        "bindings": { "amqp": { "mandatory": true, "deliveryMode": 2, "bindingVersion": "0.3.0" } },
    })
}

fn channel_of(route: &RouteContract, routing_key: &str, message: &str) -> Value {
    let (address, parameters) = address(routing_key);
    let exchange = json!({ "name": route.exchange, "type": "topic", "durable": true, "autoDelete": false });
    json!({
        "address": address,
        "parameters": parameters,
        "description": format!("Routing keys that match `{routing_key}`, of the exchange `{}`.", route.exchange),
        "messages": { "event": { "$ref": format!("#/components/messages/{message}") } },
        "bindings": { "amqp": { "is": "routingKey", "exchange": exchange, "bindingVersion": "0.3.0" } },
    })
}

/// The routing key with a parameter for each wildcard.
fn address(routing_key: &str) -> (String, Map<String, Value>) {
    let mut parameters = Map::new();
    let mut parameter = |word: &str| {
        let description = match word {
            "*" => "One word.",
            "#" => "Any number of words with dots between them; if none, without the dot in front.",
            _ => return word.to_owned(),
        };
        let name = format!("words{}", parameters.len() + 1);
        parameters.insert(name.clone(), json!({ "description": description }));
        format!("{{{name}}}")
    };
    let words: Vec<String> = routing_key.split('.').map(&mut parameter).collect();
    (words.join("."), parameters)
}
