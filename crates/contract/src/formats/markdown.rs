//! Owns the contract as a page for people.

use strum::VariantArray as _;

use super::super::{FieldKind, FindingKind, Reason};
use super::strict;
use super::{Contract, RouteContract};

pub fn render(contract: &Contract, strict: bool) -> String {
    let mut text = format!("# What to publish\n\nMade by `ticketlog contract`, version {}.\n", contract.version);
    for route in &contract.routes {
        text += &of_route(route, strict);
    }
    let reasons = Reason::VARIANTS.iter().map(|reason| vec![code(reason.as_str()), reason.meaning().to_owned()]);
    text += &format!(
        "\n## Why a message is rejected\n\nIt becomes a dead letter, with one of these reasons:\n\n{}",
        table(&["reason", "when"], reasons)
    );
    let findings = FindingKind::VARIANTS.iter().map(|kind| [kind.as_str(), kind.meaning(), kind.advice()]);
    let findings = findings.map(|[name, meaning, advice]| vec![code(name), meaning.to_owned(), advice.to_owned()]);
    let findings = table(&["finding", "when", "why it hurts, and what to send"], findings);
    text + &format!("\n## What is stored, and probably a mistake\n\n{findings}")
}

fn of_route(route: &RouteContract, strict: bool) -> String {
    let keys: Vec<String> = route.routing_keys.iter().map(|key| code(key)).collect();
    let addresses = [
        vec!["exchange".to_owned(), format!("{}, topic, durable", code(&route.exchange))],
        vec!["routing keys".to_owned(), keys.join(", ")],
        vec!["publish".to_owned(), "persistent, `mandatory`, with confirms; a returned message is an error".to_owned()],
        vec!["properties".to_owned(), "`message_id`, `app_id`".to_owned()],
    ];
    let conditions: String = route.beside_the_schema().iter().map(|condition| format!("- {condition}\n")).collect();
    let hidden = if route.hides_fields { "\nSome fields are not stored, or only as a hash.\n" } else { "" };
    let example = serde_json::to_string_pretty(&route.example()).unwrap_or_default();
    format!(
        "\n## The {} route\n\n{}\n{}\nEvery other field is stored as sent.\n{hidden}\nA message is stored if its fields are as above, and:\n\n\
         {conditions}\n```json\n{example}\n```\n",
        route.route,
        table(&["", ""], addresses.into_iter()),
        fields(route, strict),
    )
}

fn fields(route: &RouteContract, strict: bool) -> String {
    let of_field = route.fields.iter().map(|field| {
        let required = if strict::is_required(field, strict) { "yes" } else { "no" };
        let kind = match field.kind {
            FieldKind::Number => "number",
            FieldKind::String => "text",
            FieldKind::Any => "any",
        };
        vec![code(&field.name), kind.to_owned(), required.to_owned(), field.description()]
    });
    let reserved = route.adds_ingested_at.then_some(["`ingested_at`", "–", "no", "Reserved for the worker."]);
    let id = ["`_id`", "24 hexadecimal digits", "no", "Only for publishers that create ObjectIds themselves."];
    let further = reserved.into_iter().chain([id]).map(|row| row.map(str::to_owned).to_vec());
    table(&["field", "type", "required", "what it is"], of_field.chain(further))
}

fn code(text: &str) -> String {
    format!("`{}`", text.replace(|c: char| c.is_control() || c == '`', " "))
}

fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let rows = rows.map(|row| line(row.into_iter().map(|cell| cell.replace('|', "\\|")).collect()));
    let head_line = line(head.iter().map(|cell| (*cell).to_owned()).collect());
    format!("{head_line}|{}\n{}", "---|".repeat(head.len()), rows.collect::<String>())
}
