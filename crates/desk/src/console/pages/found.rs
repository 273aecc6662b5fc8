//! What was found of an event, on the page of the search.

use maud::{Markup, html};

use crate::{Entry, Story};

use super::super::access::Operator;
use super::super::query::QueueKind;
use super::super::sought::Sought;
use super::super::state::Console;
use super::dead_letters::dead_letter_url;
use super::frame::csrf;

/// The story, in order of time. Bodies are shown if somebody asks for them.
pub(super) fn show_story(console: &Console, operator: &Operator, sought: &Sought, story: &Story) -> Markup {
    html! {
        h2 { (sought.describe()) }
        @for entry in &story.entries { (show_entry(console, entry)) }
        @match &operator.publisher {
            Some(publisher) => { @for line in story.lines_for(publisher) { p { (line) } } }
            None => { @for line in story.answer_lines() { p { (line) } } }
        }
        @if story.is_found() && !sought.with_bodies {
            form method="post" action="/find" {
                (csrf(operator))
                input type="hidden" name="find_by" value=(sought.by);
                input type="hidden" name="find" value=(sought.text);
                input type="hidden" name="bodies" value="1";
                button { "Show the bodies" }
            }
        }
    }
}

fn show_entry(console: &Console, entry: &Entry) -> Markup {
    let lines = entry.to_lines();
    let (what, more) = lines.split_first().map_or(("", &[][..]), |(what, more)| (what.as_str(), more));
    let link = entry.dead_letter().map(|(queue, id)| {
        let is_parked = queue == console.queue_name(QueueKind::Parked);
        dead_letter_url(if is_parked { QueueKind::Parked } else { QueueKind::DeadLetters }, id)
    });
    html! {
        section class="card" {
            p { strong { (what) } }
            ul class="plain" { @for line in more { li class="detail" { (line.trim_start()) } } }
            @if let Some(link) = link { p { a href=(link) { "Show this dead letter" } } }
        }
    }
}
