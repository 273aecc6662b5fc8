//! Owns the page of one dead letter: its body with the fault marked, properties, headers, and an editor for its body.

use maud::{Markup, html};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::replayed_message;
use ticketlog_contract::dead_letter::{escape, fault_offset, indent_json, render_hex, render_text, terminal_safe};
use ticketlog_contract::{Decoder, Event, Message, Printed, Rejection};

use super::super::access::{Operator, Role};
use super::super::details::Detail;
use super::super::query::{DeadLetterQuery, QueueKind};
use super::super::state::Console;
use super::dead_letters::actions;
use super::frame::{Section, csrf, hidden, may, number, page, time};

/// Most bytes of a body on the page, and in the editor.
const MAX_SHOWN: usize = 256 << 10;
/// Most bytes that are shown in hexadecimal.
const MAX_HEX: usize = 4096;

/// The page; `body` is the decompressed body.
pub(in crate::console) fn dead_letter_page(
    console: &Console,
    operator: &Operator,
    queue: QueueKind,
    detail: &Detail,
    body: &[u8],
) -> Markup {
    let (record, delivery) = (&detail.dead_letter.record, &detail.dead_letter.delivery);
    let [fault, remedy] = record.cause.explanation_of(&record.detail);
    let (properties, headers) = delivery.to_json();
    let mut query = DeadLetterQuery::of_queue(queue);
    query.filter.ids = vec![detail.dead_letter.id.clone()];
    let title = format!("{} {}", record.cause.as_str(), record.field.as_deref().unwrap_or_default());
    let content = html! {
        p class="crumbs" { a href=(DeadLetterQuery::of_queue(queue).url("/dead-letters")) { "Dead letters" } }
        h1 { (title) }
        section class="card" {
            p class="detail" { strong { (record.detail) } }
            p {
                (fault) " " (remedy)
                @if let Some(contract) = console.options.docs_page("publish/contract.md") { " " a href=(contract) { "The contract" } }
            }
        }
        dl class="facts" {
            (fact("Dead letter", html! { code { (detail.dead_letter.id) } @if operator.publisher.is_none() { " at position " (detail.dead_letter.position) " in the queue when it was read" } }))
            (fact("Dead-lettered", time(record.time)))
            (fact("Published to", html! { code { (record.exchange) } " with routing key " code { (record.routing_key) } }))
            (fact("Publisher", html! { (delivery.app_id().or(record.user_id.as_deref()).unwrap_or("not named: no app_id, no user_id")) }))
            (fact("Worker", html! { (record.worker) }))
            (fact("Replayed", html! { (record.replays) " times" }))
        }
        (actions(operator, &query))
        h2 { "Body, " (number(delivery.body.len() as u64)) " bytes" @if body.len() != delivery.body.len() { ", " (number(body.len() as u64)) " decompressed" } }
        (shown_body(detail, body))
        @if queue == QueueKind::DeadLetters && may(operator, Role::Edit) { (editor(operator, &query, body)) }
        (table("Properties", &properties))
        (table("Headers", &headers))
    };
    page(console, operator, Section::DeadLetters(queue), &title, &content)
}

fn fact(name: &str, value: Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn table(title: &str, values: &Map<String, Value>) -> Markup {
    html! {
        h2 { (title) }
        @if values.is_empty() { p { "None." } } @else {
            dl class="facts" {
                @for (name, value) in values {
                    (fact(&escape(name), html! { code { @match value { Value::String(text) => (escape(text)), other => (escape(&other.to_string())) } } }))
                }
            }
        }
    }
}

/// The text as it is shown: indented if it is JSON on one line.
fn readable(text: &str) -> String {
    let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
    if is_json && !text.trim().contains('\n') { indent_json(text) } else { text.to_owned() }
}

fn shown_body(detail: &Detail, body: &[u8]) -> Markup {
    let record = &detail.dead_letter.record;
    let (shown, is_text) = match std::str::from_utf8(body) {
        Ok(text) if text.len() > MAX_SHOWN => {
            let cut = text.get(..text.floor_char_boundary(MAX_SHOWN)).unwrap_or_default();
            (render_text(cut, None, false), true)
        }
        Ok(text) => {
            // A detail with a position means the text as it was sent.
            let has_position = fault_offset(text, &record.detail, None).is_some();
            let text = if has_position { text.to_owned() } else { readable(text) };
            let fault = fault_offset(&text, &record.detail, record.field.as_deref());
            (render_text(&text, fault, true), true)
        }
        Err(_) => (render_hex(body, MAX_HEX, fault_offset("", &record.detail, None)), false),
    };
    html! {
        @if body.is_empty() { p { "It is empty." } } @else {
            @if is_text && body.len() > MAX_SHOWN { p { "It is long: this is its beginning. Export it to see all." } }
            @if !is_text { p { "It is not UTF-8, so it is shown in hexadecimal." } }
            pre class="body" tabindex="0" aria-label="Body, with a caret under the fault" {
                (marked(&shown))
            }
        }
    }
}

/// The lines, with carets marked.
fn marked(text: &str) -> Markup {
    html! {
        @for line in text.lines() {
            @match line.find('^').filter(|at| line.get(..*at).is_some_and(|before| before.trim().is_empty())) {
                Some(at) => { (line.get(..at).unwrap_or_default()) mark { (line.get(at..).unwrap_or_default()) } }
                None => (line),
            }
            "\n"
        }
    }
}

fn editor(operator: &Operator, query: &DeadLetterQuery, body: &[u8]) -> Markup {
    let text = std::str::from_utf8(body).ok().filter(|text| text.len() <= MAX_SHOWN);
    html! {
        h2 id="edit" { "Edit the body" }
        @match text {
            None => p { "It is too large for the editor, or not UTF-8. An expression can change it: “Edit and replay”, above." },
            Some(text) => {
                form method="post" action="/forecast" class="editor" {
                    (csrf(operator)) (hidden(&query.fields()))
                    label for="body" { "New body. A changed body is a new event with a new _id; the original is kept." }
                    textarea id="body" name="body" rows="12" spellcheck="false" data-validate="/validate" { "\n" (readable(text)) }
                    div id="validation" role="status" aria-live="polite" {}
                    button class="primary" { "Forecast the replay" }
                }
            }
        }
    }
}

/// What the worker's decoder says of a body that replaces that of a dead letter, as a fragment.
pub(in crate::console) fn validation(console: &Console, body: &[u8], original: Option<&Detail>) -> Markup {
    let mut decoder = Decoder::new(std::sync::Arc::new(console.settings.rules()));
    let message = match original {
        Some(Detail { dead_letter, .. }) => {
            replayed_message(&console.settings, &dead_letter.delivery, &dead_letter.record, Some(body))
        }
        None => Message { body, ..Message::default() },
    };
    match decoder.decode(&message, || [0; 12]) {
        Ok(event) => accepted(&event),
        Err(rejection) => rejected(body, &rejection),
    }
}

fn accepted(event: &Event) -> Markup {
    let json = serde_json::to_string_pretty(&Printed(&event.to_bson())).unwrap_or_default();
    html! {
        p class="good" { strong { "The worker would store this:" } }
        @for kind in event.findings.iter() { p { "Probably a mistake: " code { (kind.as_str()) } ", " (kind.advice()) "." } }
        pre class="body" { (terminal_safe(&json)) }
    }
}

fn rejected(body: &[u8], rejection: &Rejection) -> Markup {
    let text = String::from_utf8_lossy(body);
    let fault = fault_offset(&text, &rejection.detail, rejection.field.as_deref());
    html! {
        p class="bad" { strong { "The worker would reject this: " (rejection.reason_and_field()) } }
        p { (rejection.detail) }
        @if fault.is_some() {
            pre class="body" {
                (marked(&render_text(&text, fault, false)))
            }
        }
    }
}
