//! The page that says whether all is well now: the workers and the queues.

use std::str::FromStr as _;

use maud::{Markup, html};
use url::Url;

use ticketlog_config::format;
use ticketlog_status::{Component, RouteRates};

use super::super::access::Operator;
use super::super::state::{Console, Samples};
use super::frame::{Section, number, page};

/// What the page shows.
pub(in crate::console) struct NowView {
    /// Each worker with its latest samples; `None` if it does not answer.
    pub workers: Vec<(Url, Option<Samples>)>,
    /// Messages in the dead-letter queue and in the parked queue; or why they are not known.
    pub depths: Result<[Option<u32>; 2], String>,
}

/// The page.
pub(in crate::console) fn now_page(console: &Console, operator: &Operator, view: &NowView) -> Markup {
    let body = html! {
        h1 { "Now" }
        div data-refresh="/now" aria-live="off" { (now_status(console, view)) }
        @if let Some(grafana) = &console.options.grafana { p { a href=(grafana) { "Grafana" } } }
    };
    page(console, operator, Section::Now, "Now", &body)
}

/// The part that is refreshed.
pub(in crate::console) fn now_status(console: &Console, view: &NowView) -> Markup {
    let queue = &console.settings.queue;
    let is_ready = |worker: &Samples| worker.now.status.route_of_queue(queue).ready;
    let ready = view.workers.iter().filter(|(_, worker)| worker.as_ref().is_some_and(is_ready)).count();
    let all = view.workers.len();
    html! {
        p class={ "verdict " (if ready == all { "good" } else { "bad" }) } {
            @if ready == all { "All is well: " } @else { "Not well: " }
            (ready) " of " (all) (if all == 1 { " worker is ready" } else { " workers are ready" })
        }
        div class="tiles" {
            @match &view.depths {
                Ok([dead, parked]) => {
                    (tile("/dead-letters", "Dead letters", dead.map(u64::from), dead.is_some_and(|dead| dead > 0)))
                    (tile("/dead-letters?queue=parked", "Parked", parked.map(u64::from), false))
                }
                Err(error) => p class="error" { "The queue lengths cannot be read: " (error) }
            }
        }
        @for (url, worker) in &view.workers {
            section class="card" {
                h2 { (url.host_str().unwrap_or_default()) ":" (url.port_or_known_default().unwrap_or_default()) }
                @match worker {
                    None => p class="bad" { strong { "It does not answer." } " It has stopped, or its address is wrong." },
                    Some(samples) => (worker_card(console, samples)),
                }
            }
        }
    }
}

fn tile(href: &str, name: &str, count: Option<u64>, is_bad: bool) -> Markup {
    html! {
        a class={ "tile " (if is_bad { "warn" } else { "" }) } href=(href) {
            span class="value" { (count.map_or("–".to_owned(), number)) }
            span { (name) }
        }
    }
}

fn worker_card(console: &Console, Samples { before, now }: &Samples) -> Markup {
    let route = now.status.route_of_queue(&console.settings.queue);
    let (up, down) = route.components();
    html! {
        p {
            strong class=(if route.ready { "good" } else { "bad" }) { (if route.ready { "ready" } else { "not ready" }) }
            " · " (route.queue) " → " (route.collection) " · version " (now.status.version)
        }
        @for (name, problem) in down {
            p class="error" {
                strong { (name) ": " } (problem)
                @if let Some(runbook) = runbook(console, name) { " · " a href=(runbook) { "Runbook" } }
            }
        }
        @for warning in &route.warnings { p class="warning" { strong { "Warning: " } (warning) } }
        @match now.rates(route, before.as_ref()) {
            Some(rates) => (numbers(&rates)),
            None => p { "This worker is older than this console and does not report its numbers; " code { "/metrics" } " has them." },
        }
        p class="ok-list" { "Up: " (up.join(", ")) }
    }
}

fn numbers(rates: &RouteRates) -> Markup {
    let (now, per_second) = (rates.numbers, &rates.per_second);
    html! {
        dl class="numbers" {
            (value("received", &rate(per_second.received)))
            (value("stored", &rate(per_second.stored)))
            (value("dead-lettered", &rate(per_second.dead_lettered)))
            (value("backlog", &now.backlog.map_or("–".to_owned(), |backlog| number(backlog.into()))))
            (value("in flight", &number(now.in_flight)))
            (value("event to stored, p50", &seconds(rates.latency.0)))
            (value("event to stored, p99", &seconds(rates.latency.1)))
            (value("last stored", &now.seconds_since_stored.map_or("never".to_owned(), |ago| format!("{} ago", seconds(Some(ago))))))
        }
        p class="ok-list" {
            "Ledger: " (number(now.received)) " received = " (number(now.stored)) " stored + "
            (number(now.duplicate)) " stored before + " (number(now.dead_lettered)) " dead-lettered + "
            (number(now.returned)) " returned + " (number(now.in_flight)) " in flight"
        }
    }
}

/// The runbook of the alert about a component.
fn runbook(console: &Console, component: &str) -> Option<String> {
    console.options.docs_page(&runbook_page(component))
}

/// Its page, in the folder `docs`.
fn runbook_page(component: &str) -> String {
    format!("operate/runbooks/{}.md", runbook_name(component))
}

/// The alert whose page has what the component says; TicketlogUnready has a line for each of them, also of later versions.
fn runbook_name(component: &str) -> &'static str {
    match Component::from_str(component) {
        Ok(Component::Breaker) => "TicketlogBreakerOpen",
        Ok(Component::DeadLetter) => "TicketlogDeadLetteringUnavailable",
        Ok(Component::Store) => "TicketlogStoreUnavailable",
        Ok(Component::Document) => "TicketlogRequeueNear",
        Ok(Component::Broker) => "TicketlogBrokerUnavailable",
        Ok(Component::Consumer) | Err(_) => "TicketlogUnready",
    }
}

fn value(name: &str, value: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn rate(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.1}/s"))
}

fn seconds(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), format::seconds)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use strum::VariantArray as _;

    use super::*;

    #[test]
    fn the_runbook_of_a_component_speaks_of_it() {
        for component in Component::VARIANTS {
            let file = format!("docs/{}", runbook_page(component.as_str()));
            let text =
                std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(&file)).unwrap();
            let line = format!("`{}: ", component.as_str());
            assert!(text.contains(&line), "{file} does not say what {line}…` means");
        }
        assert_eq!(runbook_name("of a later version"), "TicketlogUnready");
    }
}
