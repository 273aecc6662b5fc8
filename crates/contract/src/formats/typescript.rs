//! Owns the contract as types of TypeScript.

use std::collections::BTreeSet;

use strum::VariantArray as _;

use super::super::{Field, FieldKind, FindingKind, Reason};
use super::strict::{self, capitalized};
use super::{Contract, RouteContract};

pub fn render(contract: &Contract, strict: bool) -> String {
    let flag = if strict { " --strict" } else { "" };
    let mut text =
        format!("// Made by `ticketlog contract --format typescript{flag}`, version {}.\n", contract.version);
    let reasons = Reason::VARIANTS.iter().map(|reason| reason.as_str());
    text += &union("RejectionReason", "Why a message becomes a dead letter.", reasons);
    let findings = FindingKind::VARIANTS.iter().map(|kind| kind.as_str());
    text += &union("FindingKind", "What is probably wrong with an event that is stored.", findings);
    let mut names = BTreeSet::new();
    for route in &contract.routes {
        let mut name = name_of_type(&route.route);
        while !names.insert(name.clone()) {
            name.push('_');
        }
        text += &interface(route, &name, strict);
    }
    text
}

fn union<'a>(name: &str, about: &str, texts: impl Iterator<Item = &'a str>) -> String {
    let texts: Vec<_> = texts.map(|text| format!("\"{text}\"")).collect();
    format!("\n{}export type {name} = {};\n", comment("", about), texts.join(" | "))
}

/// `ticket-refresh` becomes `TicketRefreshEvent`.
fn name_of_type(route: &str) -> String {
    let name: String = route.split(['-', '_']).map(capitalized).collect();
    let prefix = if name.starts_with(|first: char| first.is_ascii_alphabetic()) { "" } else { "Route" };
    format!("{prefix}{name}Event")
}

fn interface(route: &RouteContract, name: &str, strict: bool) -> String {
    let keys = route.routing_keys.join(" or ");
    let about = format!("For the exchange {}, with the routing key {keys}.", route.exchange);
    let mut text = format!("\n{}export interface {name} {{\n", comment("", &about));
    for field in &route.fields {
        let is_required = strict::is_required(field, strict);
        text += &property(&field.name, is_required, type_of(field, is_required, strict), &field.description());
    }
    text +=
        &property("_id", false, "string | null", "24 hexadecimal digits. Only for publishers that create ObjectIds.");
    if route.adds_ingested_at {
        text += &property("ingested_at", false, "never", "Reserved for the worker.");
    }
    for (lookalike, field) in strict::lookalikes(&route.fields).into_iter().filter(|_| strict) {
        text += &property(&lookalike, false, "never", &format!("The name is {field}."));
    }
    text + &comment("  ", "Any other field is stored as sent.") + "  [field: string]: unknown;\n}\n"
}

fn type_of(field: &Field, is_required: bool, strict: bool) -> &'static str {
    match (field.kind, is_required) {
        (FieldKind::Number, true) if strict && strict::is_time(field) => "number",
        (FieldKind::Number, true) => "number | string",
        (FieldKind::Number, false) => "number | string | null",
        (FieldKind::String, true) => "string",
        (FieldKind::String, false) => "string | null",
        (FieldKind::Any, true) => "NonNullable<unknown>",
        (FieldKind::Any, false) => "unknown",
    }
}

fn property(name: &str, is_required: bool, of_type: &str, about: &str) -> String {
    let optional = if is_required { "" } else { "?" };
    let is_identifier = name.chars().all(|c| c.is_ascii_alphabetic() || c == '_');
    let name = if is_identifier { name.to_owned() } else { serde_json::Value::from(name).to_string() };
    format!("{}  {name}{optional}: {of_type};\n", comment("  ", about))
}

/// On one line, and without the end of a comment in it.
fn comment(indent: &str, text: &str) -> String {
    let text = text.replace("*/", "* /").replace(char::is_control, " ");
    format!("{indent}/** {text} */\n")
}
