//! Owns the pages of many dead letters: the groups of a queue, and a list.

use maud::{Markup, html};

use ticketlog_contract::dead_letter::{Cause, Group};

use super::super::access::{Operator, Role};
use super::super::query::{DeadLetterQuery, PAGE_SIZE, QueueKind};
use super::super::snapshot::{DeadLetterLine, Snapshot};
use super::super::state::Console;
use super::frame::{Section, ago, csrf, dead_letters_text, hidden, may, number, page, sparkline, time};

/// Most groups on a page.
const MAX_GROUPS: usize = 200;
/// Messages that are read in a second, roughly: the page says how long it may take.
const READ_PER_SECOND: u32 = 10_000;

fn title(queue: QueueKind) -> &'static str {
    match queue {
        QueueKind::DeadLetters => "Dead letters",
        QueueKind::Parked => "Parked dead letters",
    }
}

/// The page before the queue was ever read: it is long and reading it costs time, or another site has sent the person here.
pub(in crate::console) fn first_read_page(
    console: &Console,
    operator: &Operator,
    queue: QueueKind,
    depth: u32,
) -> Markup {
    let body = html! {
        h1 { (title(queue)) }
        p {
            @if operator.publisher.is_none() {
                "There are " strong { (number(depth.into())) } " messages in " code { (console.queue_name(queue)) } ". To show them, "
                "the console reads them all, which takes about " (depth / READ_PER_SECOND + 1) " s and changes nothing. "
            } @else { "To show the dead letters, the console reads the whole queue, which takes a while and changes nothing. " }
            "Meanwhile "
            "nobody else can read the queue or replay."
        }
        (read_form(operator, queue, "Read the queue"))
    };
    page(console, operator, Section::DeadLetters(queue), title(queue), &body)
}

/// The page before a dead letter is shown that another site links to.
pub(in crate::console) fn first_fetch_page(console: &Console, operator: &Operator, query: &DeadLetterQuery) -> Markup {
    let body = html! {
        h1 { (title(query.queue)) }
        p {
            "You followed a link from another site. To show this dead letter, the console reads " code { (console.queue_name(query.queue)) }
            " up to it, which changes nothing. Meanwhile nobody else can read the queue or replay."
        }
        form method="post" action="/read" class="inline" {
            (csrf(operator)) (hidden(&query.fields()))
            button { "Read the queue" }
        }
    };
    page(console, operator, Section::DeadLetters(query.queue), title(query.queue), &body)
}

fn read_form(operator: &Operator, queue: QueueKind, text: &str) -> Markup {
    html! {
        form method="post" action="/read" class="inline" {
            (csrf(operator)) (hidden(&DeadLetterQuery::of_queue(queue).fields()))
            button { (text) }
        }
    }
}

/// How old the snapshot is, and whether it is still right.
fn freshness(console: &Console, operator: &Operator, queue: QueueKind, snapshot: &Snapshot) -> Markup {
    html! {
        div class="freshness" {
            "As read " (time(Some(snapshot.taken))) " in " (format!("{:.1}", snapshot.took.as_secs_f64())) " s. "
            @if snapshot.same_ids > 0 { (number(snapshot.same_ids)) " have the same id as an earlier one. " }
            (read_form(operator, queue, "Read again"))
        }
        @if let Some(change) = console.queue(queue).stale() {
            p class="warning" { "Out of date: " (change) ". Read the queue again." }
        }
    }
}

/// The page with the groups.
pub(in crate::console) fn groups_page(
    console: &Console,
    operator: &Operator,
    query: &DeadLetterQuery,
    snapshot: &Snapshot,
) -> Markup {
    let counted = snapshot.groups(&query.filter);
    let (selected, groups) = (counted.count, counted.largest_first());
    let all = snapshot.len() as u64;
    let body = html! {
        h1 { (title(query.queue)) }
        (freshness(console, operator, query.queue, snapshot))
        (filter_form(query))
        p {
            strong { (dead_letters_text(selected)) } " of " (groups.len()) (if groups.len() == 1 { " cause" } else { " causes" })
            @if selected < all { ", of " (number(all)) " in the queue" }
            ". " a href=(query.url("/dead-letters/list")) { "List them" }
        }
        @if selected > 0 { (actions(operator, query)) }
        @if !groups.is_empty() {
            table {
                thead { tr { th class="num" { "Count" } th { "Cause" } th { "Publisher" } th { "First" } th { "Last" } th { "When" } } }
                tbody { @for group in groups.iter().take(MAX_GROUPS) { (group_row(query.queue, group)) } }
            }
            @if groups.len() > MAX_GROUPS { p class="note" { (groups.len() - MAX_GROUPS) " smaller groups are not shown; use the filter." } }
        }
    };
    page(console, operator, Section::DeadLetters(query.queue), title(query.queue), &body)
}

fn group_row(queue: QueueKind, group: &Group) -> Markup {
    let mut query = DeadLetterQuery::of_queue(queue);
    query.filter.causes = vec![group.cause];
    if !group.fingerprint.is_empty() {
        query.filter.fingerprints = vec![group.fingerprint.clone()];
    }
    let publishers: Vec<&str> =
        group.publishers.keys().map(|name| if name.is_empty() { "–" } else { name.as_str() }).take(3).collect();
    html! {
        tr {
            td class="num" data-label="Count" { (number(group.count)) }
            td data-label="Cause" {
                a href=(query.url("/dead-letters/list")) { (group.cause.as_str()) @if let Some(field) = &group.field { ": " (field) } }
                br; span class="detail" { (group.detail) }
            }
            td data-label="Publisher" { (publishers.join(", ")) @if group.publishers.len() > 3 { ", …" } }
            td data-label="First" { (ago(group.oldest)) }
            td data-label="Last" { (ago(group.newest)) }
            td data-label="When" { (sparkline(&group.history)) }
        }
    }
}

fn filter_form(query: &DeadLetterQuery) -> Markup {
    let fields = query.fields();
    let value = |name: &str| fields.iter().find(|(field, _)| *field == name).map_or("", |(_, value)| value.as_str());
    let shown = ["reason", "text", "field", "publisher", "since", "until"];
    let kept: Vec<_> = fields.iter().filter(|(name, _)| !shown.contains(name)).cloned().collect();
    let input = |name: &'static str, label: &'static str, hint: &'static str| {
        html! {
            div { label for=(name) { (label) } input id=(name) name=(name) value=(value(name)) placeholder=(hint); }
        }
    };
    html! {
        form method="get" class="filter" role="search" aria-label="Filter" {
            (hidden(&kept))
            div {
                label for="reason" { "Reason" }
                select id="reason" name="reason" {
                    option value="" { "any" }
                    @for name in Cause::names() { option value=(name) selected[value("reason") == name] { (name) } }
                }
            }
            (input("text", "Text", "detail, id, key"))
            (input("field", "Field", "user_id"))
            (input("publisher", "Publisher", "app_id"))
            (input("since", "Since", "2h, or a time (UTC)"))
            (input("until", "Until", "10min"))
            div { button { "Filter" } " " a href=(DeadLetterQuery::of_queue(query.queue).url("/dead-letters")) { "Clear" } }
        }
    }
}

/// Links to what can be done with the selected dead letters.
pub(super) fn actions(operator: &Operator, query: &DeadLetterQuery) -> Markup {
    let is_parked = query.queue == QueueKind::Parked;
    let link = |role: Role, action: &str, text: &str| {
        let mut url = query.url("/act");
        url.push_str(if url.contains('?') { "&" } else { "?" });
        url.push_str(&format!("action={action}"));
        html! { @if may(operator, role) { a class="button" href=(url) { (text) } } }
    };
    html! {
        p class="actions" {
            @if is_parked { (link(Role::Replay, "unpark", "Unpark…")) }
            @else {
                (link(Role::Replay, "replay", "Replay…"))
                (link(Role::Edit, "edit", "Edit and replay…"))
                (link(Role::Replay, "park", "Park…"))
            }
            a class="button" href=(query.url("/export")) { "Export" }
            (link(Role::Purge, "purge", "Delete…"))
        }
    }
}

/// The page with a list.
pub(in crate::console) fn list_page(
    console: &Console,
    operator: &Operator,
    query: &DeadLetterQuery,
    snapshot: &Snapshot,
) -> Markup {
    let count = snapshot.selected(&query.filter).count();
    let pages = count.div_ceil(PAGE_SIZE).max(1);
    let current = query.page.min(pages);
    let lines: Vec<DeadLetterLine> =
        snapshot.selected(&query.filter).skip((current - 1) * PAGE_SIZE).take(PAGE_SIZE).collect();
    let is_group = query.filter.fingerprints.len() == 1;
    let heading = match (lines.first(), is_group) {
        (Some(line), true) => line.fields().cause.as_str().to_owned(),
        _ => title(query.queue).to_owned(),
    };
    let body = html! {
        p class="crumbs" { a href=(DeadLetterQuery::of_queue(query.queue).url("/dead-letters")) { (title(query.queue)) } }
        h1 { (heading) }
        @if let (Some(line), true) = (lines.first(), is_group) { (cause(line)) }
        (freshness(console, operator, query.queue, snapshot))
        @if !is_group { (filter_form(query)) }
        p { strong { (dead_letters_text(count as u64)) } @if pages > 1 { ", page " (current) " of " (pages) } }
        @if count > 0 { (actions(operator, query)) (dead_letter_table(query.queue, &lines)) (pager(query, current, pages)) }
    };
    page(console, operator, Section::DeadLetters(query.queue), &heading, &body)
}

/// What is wrong with the dead letters of a group.
fn cause(line: &DeadLetterLine) -> Markup {
    let [fault, remedy] = line.fields().cause.explanation_of(line.fields().detail);
    html! {
        section class="card" {
            p class="detail" { strong { (line.fields().detail) } }
            p { (fault) " " (remedy) }
        }
    }
}

fn dead_letter_table(queue: QueueKind, lines: &[DeadLetterLine]) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th { "Dead-lettered" } th { "Dead letter" } th { "Cause" } th { "Message id" } th { "Routing key" } th { "Publisher" }
                    th class="num" { "Bytes" } th class="num" { "Replays" }
                }
            }
            tbody {
                @for line in lines {
                    tr {
                        td data-label="Dead-lettered" { (ago(line.fields().time)) }
                        td data-label="Dead letter" { a href=(dead_letter_url(queue, line.fields().id)) { (line.fields().id) } @if line.has_same_id { " (same id as an earlier one)" } }
                        td data-label="Cause" { (line.fields().cause.as_str()) @if let Some(field) = line.fields().field { ": " (field) } }
                        td data-label="Message id" { (line.fields().message_id.unwrap_or("–")) }
                        td data-label="Routing key" { (line.fields().routing_key) }
                        td data-label="Publisher" { (line.fields().publisher.unwrap_or("–")) }
                        td class="num" data-label="Bytes" { (number(line.bytes.into())) }
                        td class="num" data-label="Replays" { (line.fields().replays) }
                    }
                }
            }
        }
    }
}

/// The page of a dead letter. Ids come from headers, which anybody may have written.
pub(super) fn dead_letter_url(queue: QueueKind, id: &str) -> String {
    let mut query = DeadLetterQuery::of_queue(queue);
    query.filter.ids = vec![id.to_owned()];
    query.url("/dead-letter")
}

fn pager(query: &DeadLetterQuery, current: usize, pages: usize) -> Markup {
    let url = |page: usize| query.at_page(page).url("/dead-letters/list");
    html! {
        @if pages > 1 {
            nav class="pager" aria-label="Pages" {
                @if current > 1 { a rel="prev" href=(url(current - 1)) { "Previous" } }
                @if current < pages { a rel="next" href=(url(current + 1)) { "Next" } }
            }
        }
    }
}
