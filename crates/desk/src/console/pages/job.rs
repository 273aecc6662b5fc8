//! The page of a job: how far it is, how it ended, and what to do next.

use std::collections::{BTreeMap, HashSet};

use bson::oid::ObjectId;
use maud::{Markup, html};
use serde::de::IgnoredAny;

use crate::{self as desk, Followed, Forecast, Operation as _, Replay, Sample};
use ticketlog_contract::dead_letter::indent_json;

use super::super::access::{Operator, Role};
use super::super::jobs::{Job, Outcome, Phase, Task};
use super::super::query::{DeadLetterQuery, QueueKind};
use super::super::state::Console;
use super::dead_letters::dead_letter_url;
use super::found::show_story;
use super::frame::{Section, csrf, dead_letters_text, may, number, page, time};

/// After how many a replay ends that were dead-lettered again, unless somebody changes it.
const STOP_AFTER: u64 = 100;
/// Most bytes of a body in a preview.
const MAX_PREVIEW: usize = 4096;

/// The page.
pub(in crate::console) fn job_page(console: &Console, operator: &Operator, job: &Job) -> Markup {
    let title = job.title();
    let events = (!job.is_over()).then(|| format!("/jobs/{}/events", job.id));
    let body = html! {
        h1 { (title) }
        p { (job.who) ", " (time(Some(job.started))) ": " (job.query.describe()) }
        div id="job" data-events=[events] aria-live="polite" { (job_status(console, operator, job)) }
        noscript { p { a href={ "/jobs/" (job.id) } { "Load again" } " to see how far it is." } }
    };
    page(console, operator, Section::DeadLetters(job.query.queue), title, &body)
}

/// The part that changes while the job runs.
pub(in crate::console) fn job_status(console: &Console, operator: &Operator, job: &Job) -> Markup {
    // How many messages are in the queue is not for who may see one publisher only.
    let sees_all = operator.publisher.is_none();
    let (done, total) = job.progress();
    html! {
        @match job.phase() {
            Phase::Waiting => {
                @let holder = console.queue(job.query.queue).holder();
                p class="warning" { "Waiting: " (holder.as_deref().unwrap_or("another job comes first")) "." }
                (stop_form(operator, job))
            }
            Phase::Running => {
                @if total > 0 && sees_all { progress max=(total) value=(done.min(total)) aria-label="Progress" {} }
                @if sees_all { p { (number(done)) @if total > 0 { " of " (number(total)) } " messages" } }
                @else { p { "It runs." } }
                @if !job.task.changes_queue() { p class="note" { "This does not change the queue." } }
                (stop_form(operator, job))
            }
            Phase::Failed(error) => p class="error" role="alert" { strong { "It failed: " } (error) },
            Phase::Done => {}
        }
        @for note in job.notes() { p class="note" { (note) } }
        @if let Some(outcome) = job.outcome() { (show_outcome(console, operator, job, &outcome)) }
    }
}

fn stop_form(operator: &Operator, job: &Job) -> Markup {
    html! {
        form method="post" action={ "/jobs/" (job.id) "/stop" } class="inline" { (csrf(operator)) button { "Stop" } }
    }
}

fn show_outcome(console: &Console, operator: &Operator, job: &Job, outcome: &Outcome) -> Markup {
    let queue = job.query.queue;
    let back = DeadLetterQuery::of_queue(queue).url("/dead-letters");
    html! {
        @match outcome {
            Outcome::Read { count } => p data-continue=(back) {
                @if operator.publisher.is_none() { strong { (dead_letters_text(*count as u64)) } " were read. " } @else { "The queue was read. " }
                a href=(back) { "Show them" }
            },
            Outcome::Found(true) => {
                @if let Task::Fetch(id) = &job.task {
                    p data-continue=(dead_letter_url(queue, id)) { a href=(dead_letter_url(queue, id)) { "Show it" } }
                }
            }
            Outcome::Found(false) => p class="warning" {
                "It is not in the queue any more: it was replayed, parked or deleted. " a href=(back) { "Back to the list" }
            },
            Outcome::Forecast(forecast, is_followed) => (show_forecast(operator, job, forecast, *is_followed)),
            Outcome::Replayed(done, followed) => {
                @if let Task::Replay(replay) = &job.task { (show_replay(console, job, replay, done, followed)) }
            }
            Outcome::Story(story) => {
                @if let Task::Find(sought) = &job.task { (show_story(console, operator, sought, story)) }
            }
            Outcome::Operated(done) => p class=(if matches!(job.phase(), Phase::Failed(_)) { "warning" } else { "good" }) {
                @match &job.task {
                    Task::Park(park) => { (park.to_text(done)) }
                    _ => { (dead_letters_text(done.count)) " deleted" }
                }
                ". " @if let Some(file) = &done.file { "They are in " code { (file) } ". " }
                a href=(back) { "Back" }
            },
        }
    }
}

fn counts(title: &str, counts: &BTreeMap<String, u64>) -> Markup {
    html! {
        @for (cause, count) in counts { li { strong { (number(*count)) } " " (title) ": " (cause) } }
    }
}

fn show_forecast(operator: &Operator, job: &Job, forecast: &Forecast, is_followed: bool) -> Markup {
    let Task::Forecast(replay) = &job.task else { return html! {} };
    let would_be_sent = forecast.accepted + forecast.parked + forecast.rejected.values().sum::<u64>();
    html! {
        h2 { "If replayed now: " (dead_letters_text(forecast.total())) }
        ul class="forecast" {
            li class="good" { strong { (number(forecast.accepted)) } " would be accepted by the workers; MongoDB may still reject them" }
            (counts("would be dead-lettered again", &forecast.rejected))
            @if forecast.parked > 0 { li { strong { (number(forecast.parked)) } " would be parked: they were replayed too often" } }
            (counts("would stay", &forecast.edit_failed))
        }
        @if may(operator, Role::Replay) && would_be_sent > 0 {
            form method="post" action="/replay" {
                (csrf(operator))
                input type="hidden" name="forecast" value=(job.id);
                label for="rate" { "Messages a second, at most" }
                input id="rate" name="rate" inputmode="decimal" placeholder="as fast as possible";
                label for="stop_after" { "End after this many are dead-lettered again" }
                input id="stop_after" name="stop_after" inputmode="numeric" placeholder="never" value=[is_followed.then_some(STOP_AFTER)];
                @if !is_followed { p class="note" { "No worker answers, so nobody would tell how many." } }
                @else { p class="note" { "Only if every worker is named (--worker) and trusts this login (dead_letter.operators); else empty the field." } }
                @if !forecast.rejected.is_empty() {
                    label { input type="checkbox" name="skip_rejected" value="1" checked; " Leave in the queue what would be dead-lettered again" }
                }
                button class="primary" { "Replay " (number(would_be_sent)) }
            }
        }
        @if !forecast.samples.is_empty() {
            h2 { "The first " (forecast.samples.len()) }
            @for sample in &forecast.samples { (show_sample(job.query.queue, sample, replay.edit.is_some())) }
        }
    }
}

fn show_sample(queue: QueueKind, sample: &Sample, is_edited: bool) -> Markup {
    let before = preview(&sample.before);
    let after = sample.after.as_deref().map(preview);
    html! {
        section class="card" {
            p {
                a href=(dead_letter_url(queue, &sample.name)) { (sample.name) } ": "
                @match &sample.problem {
                    None => span class="good" { "would be accepted" },
                    Some(problem) => span class="bad" { (problem) },
                }
            }
            div class="two" {
                (body_lines("Before", &before, after.as_deref().unwrap_or(&before)))
                @match &after {
                    Some(after) => (body_lines("After", after, &before)),
                    None if is_edited => p { "No new body." },
                    None => {},
                }
            }
        }
    }
}

/// A body, indented if it is JSON, and cut.
fn preview(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let is_json = serde_json::from_str::<IgnoredAny>(&text).is_ok();
    let text = if is_json { indent_json(&text) } else { text.into_owned() };
    match text.get(..text.floor_char_boundary(MAX_PREVIEW)) {
        Some(cut) if cut.len() < text.len() => format!("{cut}…"),
        _ => text,
    }
}

/// The lines of a body; those that the other body does not have are marked.
fn body_lines(title: &str, body: &str, other: &str) -> Markup {
    let others: HashSet<&str> = other.lines().map(|line| line.trim_end_matches(',')).collect();
    html! {
        figure {
            figcaption { (title) }
            pre class="body" tabindex="0" {
                @for line in body.lines() {
                    @if others.contains(line.trim_end_matches(',')) { (line) } @else { mark { (line) } }
                    "\n"
                }
            }
        }
    }
}

fn show_replay(console: &Console, job: &Job, replay: &Replay, done: &desk::Outcome, followed: &Followed) -> Markup {
    let mut dead_lettered_again = DeadLetterQuery::of_queue(QueueKind::DeadLetters);
    dead_lettered_again.filter.replay_ids = vec![replay.id.clone()];
    let back = DeadLetterQuery::of_queue(job.query.queue).url("/dead-letters");
    let ids = &done.document_ids;
    html! {
        p { strong { (replay.to_text(done)) } }
        @if followed.expected > 0 { (show_followed(followed, &dead_lettered_again, ids)) }
        @if !ids.is_empty() { (documents(console, ids)) }
        p { a href=(back) { "Back to the dead letters" } }
    }
}

fn show_followed(followed: &Followed, dead_lettered_again: &DeadLetterQuery, ids: &[ObjectId]) -> Markup {
    let (known, unknown) = (&followed.outcomes, followed.unknown());
    html! {
        h2 { "Outcomes" }
        ul class="forecast" {
            li class="good" { (documents_link(ids, html! { strong { (number(known.stored)) } " stored" })) }
            li { (documents_link(ids, html! { strong { (number(known.duplicate)) } " already stored" })) }
            li class=(if followed.dead_lettered_again() > 0 { "bad" } else { "" }) {
                a href=(dead_lettered_again.url("/dead-letters")) { strong { (number(followed.dead_lettered_again())) } " dead-lettered again" }
                @if !known.dead_lettered_again.is_empty() { ul { (counts("dead-lettered again", &known.dead_lettered_again)) } }
            }
            @if unknown > 0 { li { strong { (number(unknown)) } " not known yet" } }
        }
        @if let Some(cause) = &followed.not_ready { p class="warning" { "Waiting: " (cause) } }
        @if followed.is_over && unknown > 0 {
            p class="warning" {
                "Nothing new for a minute. They are still in the queue, or at a worker that was not asked (--worker), or the "
                "workers do not trust this login (dead_letter.operators)."
            }
        }
    }
}

fn documents_link(ids: &[ObjectId], text: Markup) -> Markup {
    html! { @if ids.is_empty() { (text) } @else { a href="#documents" { (text) } } }
}

/// How to find the documents: the console has no access to MongoDB.
fn documents(console: &Console, ids: &[ObjectId]) -> Markup {
    let ids: Vec<_> = ids.iter().map(|id| format!("ObjectId(\"{id}\")")).collect();
    let collection = serde_json::Value::from(console.settings.collection.as_str());
    let query = format!("db.getCollection({collection}).find({{ _id: {{ $in: [\n  {}\n] }} }})", ids.join(",\n  "));
    html! {
        h2 id="documents" { "In MongoDB" }
        p { "In mongosh, this finds the first " (ids.len()) " of them that are stored, by the " code { "_id" } " that the workers give them:" }
        pre class="body" tabindex="0" { (query) }
    }
}
