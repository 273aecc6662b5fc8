//! Owns the pages that ask before something is done with dead letters.

use maud::{Markup, html};

use super::super::access::Operator;
use super::super::query::DeadLetterQuery;
use super::super::state::Console;
use super::frame::{Section, csrf, dead_letters_text, hidden, page};

/// What is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::console) enum ActForm {
    Replay,
    Edit,
    Park,
    Unpark,
    Purge,
}

/// The page. `count` is the number of dead letters of the snapshot that are selected, if there is one; `problem` says why the last attempt was
/// refused.
pub(in crate::console) fn act_page(
    console: &Console,
    operator: &Operator,
    query: &DeadLetterQuery,
    form: ActForm,
    count: Option<u64>,
    problem: Option<&str>,
) -> Markup {
    let title = match form {
        ActForm::Replay => "Replay",
        ActForm::Edit => "Edit and replay",
        ActForm::Park => "Park",
        ActForm::Unpark => "Unpark",
        ActForm::Purge => "Delete",
    };
    let body = html! {
        p class="crumbs" { a href=(query.url("/dead-letters")) { "Dead letters" } }
        h1 { (title) }
        p {
            "Selected: " strong { (query.describe()) }
            @match count {
                Some(count) => { ", " strong { (dead_letters_text(count)) } " when the queue was last read." }
                None => ". The queue has not been read yet, so the count is unknown.",
            }
        }
        @if let Some(problem) = problem { p class="error" role="alert" { (problem) } }
        @match form {
            ActForm::Replay => (replay_form(operator, query)),
            ActForm::Edit => (edit_form(operator, query)),
            ActForm::Park | ActForm::Unpark => (park_form(console, operator, query, (form, count))),
            ActForm::Purge => (purge_form(console, operator, query, count)),
        }
    };
    page(console, operator, Section::DeadLetters(query.queue), title, &body)
}

/// `count` of a form that acts without a forecast: no more than its page shows, whatever arrives meanwhile.
fn limit_input(count: Option<u64>) -> Markup {
    html! {
        label for="limit" { "At most, from the head of the queue" }
        input id="limit" name="limit" inputmode="numeric" pattern="[0-9]*" placeholder="all" value=[count];
    }
}

fn replay_form(operator: &Operator, query: &DeadLetterQuery) -> Markup {
    html! {
        p {
            "They are published again to the exchange that they came from, unchanged. First the console reads them and forecasts "
            "what the workers would do; nothing is sent before you have seen that."
        }
        form method="post" action="/forecast" {
            (csrf(operator)) (hidden(&query.fields())) (limit_input(None))
            button class="primary" { "Forecast" }
        }
    }
}

fn edit_form(operator: &Operator, query: &DeadLetterQuery) -> Markup {
    let suggested = match query.filter.causes.as_slice() {
        [cause] => cause.edit().unwrap_or_default(),
        _ => "",
    };
    html! {
        p {
            "An expression in the language of " code { "jq" } " changes each body. Its input is the decompressed body or, where "
            "that is not JSON, its text as a string. A dead letter stays in the queue if the expression fails or the decoder rejects the new body. First you see the first ten before "
            "and after, and a forecast for all."
        }
        form method="post" action="/forecast" class="editor" {
            (csrf(operator)) (hidden(&query.fields()))
            label for="expression" { "Expression" }
            textarea id="expression" name="expression" rows="3" spellcheck="false" required { "\n" (suggested) }
            (limit_input(None))
            button class="primary" { "Show before and after" }
        }
        details {
            summary { "Examples" }
            ul {
                li { code { ".timestamp |= fromdate * 1000" } " makes milliseconds of a text such as 2026-11-22T10:00:00Z" }
                li { code { "del(.attachment)" } " removes a field" }
                li { code { ".status //= \"unknown\"" } " sets a missing field" }
                li { code { "gsub(\"NaN\"; \"null\") | fromjson" } " changes the text of a body that is not JSON" }
                li { code { "if .type == \"x\" then .type = \"y\" else . end" } " changes some" }
            }
        }
    }
}

fn park_form(
    console: &Console,
    operator: &Operator,
    query: &DeadLetterQuery,
    (form, count): (ActForm, Option<u64>),
) -> Markup {
    let settings = &console.settings;
    let (to, action) = match form {
        ActForm::Unpark => (&settings.dead_letter_queue, "/unpark"),
        _ => (&settings.parked_queue, "/park"),
    };
    html! {
        p {
            "They are moved to " code { (to) } ", each confirmed there before it leaves. "
            @if form == ActForm::Unpark { "Their replay count starts at 0 again." }
        }
        form method="post" action=(action) {
            (csrf(operator)) (hidden(&query.fields())) (limit_input(count))
            button class="primary" { "Move them" }
        }
    }
}

fn purge_form(console: &Console, operator: &Operator, query: &DeadLetterQuery, count: Option<u64>) -> Markup {
    let queue = console.queue_name(query.queue);
    html! {
        p {
            "They are written to a file in the console's directory, which is synced to disk, and then deleted from the queue. "
            code { "ticketlog dead import FILE" } " brings them back."
        }
        form method="post" action="/purge" {
            (csrf(operator)) (hidden(&query.fields())) (limit_input(count))
            label for="confirm" { "Type the name of the queue, " code { (queue) } ", to confirm" }
            input id="confirm" name="confirm" autocomplete="off" required;
            button class="danger" { "Delete them" }
        }
    }
}
