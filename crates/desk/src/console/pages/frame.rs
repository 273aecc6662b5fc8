//! The frame of every page, and the parts that pages share. Texts are escaped by the templates.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use ticketlog_config::format::{age, rfc3339};
use ticketlog_contract::dead_letter::HISTORY_POINTS;

use super::super::access::{Operator, Role};
use super::super::query::QueueKind;
use super::super::sought::BY;
use super::super::state::Console;

/// The style and the script.
pub(in crate::console) const STYLE: &str = include_str!("../assets/console.css");
pub(in crate::console) const SCRIPT: &str = include_str!("../assets/console.js");

/// Why a request has no page, as a page.
#[derive(Debug)]
pub(in crate::console) struct Problem {
    status: StatusCode,
    text: String,
}

impl Problem {
    pub fn new(status: StatusCode, text: impl Into<String>) -> Problem {
        Problem { status, text: text.into() }
    }

    pub fn bad_request(text: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, text)
    }

    pub fn not_found(text: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, text)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let page = document(
            title,
            &html! {
                main id="main" class="narrow" {
                    h1 { (title) }
                    p { (self.text) }
                    p { a href="/" { "Back to the console" } }
                }
            },
        );
        (self.status, page).into_response()
    }
}

/// Which entry of the navigation a page belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Now,
    DeadLetters(QueueKind),
    History,
}

pub(super) fn document(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " – ticketlog" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/static/console.css";
                script src="/static/console.js" defer {}
            }
            body { (body) }
        }
    }
}

/// A whole page.
pub(super) fn page(console: &Console, operator: &Operator, section: Section, title: &str, body: &Markup) -> Markup {
    let link = |target: Section, href: &str, text: &str| {
        let current = (target == section).then_some("page");
        html! { li { a href=(href) aria-current=[current] { (text) } } }
    };
    document(
        title,
        &html! {
            a class="skip" href="#main" { "Skip to the content" }
            header class="top" {
                span class="brand" { "ticketlog" }
                nav aria-label="Main" {
                    ul {
                        @if operator.publisher.is_none() { (link(Section::Now, "/", "Now")) }
                        (link(Section::DeadLetters(QueueKind::DeadLetters), "/dead-letters", "Dead letters"))
                        (link(Section::DeadLetters(QueueKind::Parked), "/dead-letters?queue=parked", "Parked"))
                        @if operator.publisher.is_none() { (link(Section::History, "/history", "History")) }
                    }
                }
                (search_form(operator))
                div class="who" {
                    span title=(roles(operator)) { (operator.name) @if let Some(publisher) = &operator.publisher { ", for " (publisher) } }
                    @if operator.has_session {
                        form method="post" action="/logout" { (csrf(operator)) button class="plain" { "Log out" } }
                    }
                }
            }
            main id="main" { (running(console, operator, title)) (body) }
        },
    )
}

fn roles(operator: &Operator) -> String {
    let names: Vec<&str> = operator.roles.iter().map(|role| role.as_str()).collect();
    format!("may {}", names.join(", "))
}

/// What runs now, so that two people see each other.
fn running(console: &Console, operator: &Operator, title: &str) -> Markup {
    let mut jobs = console.jobs.running();
    // The page of the job itself says it already.
    jobs.retain(|job| job.title() != title && job.is_visible_to(operator));
    html! {
        @for job in &jobs {
            p class="banner" role="status" {
                (job.who) " is " (job.task.doing()) ", since " (time(Some(job.started))) ". "
                a href={ "/jobs/" (job.id) } { "Show progress" }
            }
        }
    }
}

/// The hidden field that proves that a form is of this session.
pub(super) fn csrf(operator: &Operator) -> Markup {
    html! {
        @if let Some(csrf) = &operator.csrf { input type="hidden" name="csrf" value=(csrf); }
    }
}

/// The fields of a list as hidden fields of a form.
pub(super) fn hidden(fields: &[(&'static str, String)]) -> Markup {
    html! {
        @for (name, value) in fields { input type="hidden" name=(name) value=(value); }
    }
}

pub(super) fn may(operator: &Operator, role: Role) -> bool {
    operator.roles.contains(&role)
}

/// A time with its age.
pub(super) fn time(millis: Option<i64>) -> Markup {
    let Some(_) = millis else { return html! { "–" } };
    let text = rfc3339(millis);
    let short = text.get(..19).unwrap_or(&text).replace('T', " ");
    html! { time datetime=(text) title=(text) { (short) } " (" (age(millis)) " ago)" }
}

/// The age of a time, for tables.
pub(super) fn ago(millis: Option<i64>) -> Markup {
    let Some(_) = millis else { return html! { "–" } };
    let text = rfc3339(millis);
    html! { time datetime=(text) title=(text) { (age(millis)) " ago" } }
}

/// A number with spaces between thousands.
pub(super) fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// `1 dead letter`, `12 034 dead letters`.
pub(super) fn dead_letters_text(count: u64) -> String {
    format!("{} dead letter{}", number(count), if count == 1 { "" } else { "s" })
}

/// How many were dead-lettered when, as bars; the text says the same.
pub(super) fn sparkline(history: &[u32; HISTORY_POINTS]) -> Markup {
    let highest = history.iter().copied().max().unwrap_or(0).max(1);
    let bars: String = history
        .iter()
        .enumerate()
        .map(|(at, count)| {
            let height = if *count == 0 { 0 } else { (count * 18 / highest).max(2) };
            format!("<rect x=\"{}\" y=\"{}\" width=\"3\" height=\"{height}\"/>", at * 4, 20 - height)
        })
        .collect();
    html! { svg class="spark" width="96" height="20" viewBox="0 0 96 20" aria-hidden="true" { (PreEscaped(bars)) } }
}

/// The search field.
fn search_form(operator: &Operator) -> Markup {
    html! {
        form method="post" action="/find" class="find" role="search" {
            (csrf(operator))
            select name="find_by" aria-label="Find an event by" {
                @for (name, shown) in BY { option value=(name) { (shown) } }
            }
            input name="find" aria-label="Find an event" placeholder="find an event" required autocomplete="off" spellcheck="false";
            button { "Find" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        assert_eq!([0, 999, 1000, 1_234_567].map(number), ["0", "999", "1\u{202f}000", "1\u{202f}234\u{202f}567"]);
    }

    #[test]
    fn the_assets_are_small_and_of_this_site() {
        assert!(STYLE.len() + SCRIPT.len() < 50_000);
        for asset in [STYLE, SCRIPT] {
            assert!(!asset.contains("http:") && !asset.contains("https:") && !asset.contains("//cdn"));
        }
    }
}
