//! Which page answers which request. Those that start or change something are in `actions`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use futures_util::stream::{self, Stream};
use maud::Markup;

use crate as desk;
use ticketlog_http::client as http_client;
use ticketlog_status::Sample;

use super::access::Operator;
use super::jobs::Task;
use super::operations::{self, MAX_UNASKED_LOOK};
use super::pages::{self, NowView, Problem};
use super::query::{DeadLetterQuery, QueueKind};
use super::request::{By, Shared, find_job, read_query};
use super::snapshot::Snapshot;
use super::state::{Console, Samples};
use super::{actions, export, guard, history};

/// How long a page waits for a short job before it shows how far the job is.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a page with a running job is updated.
const UPDATE_INTERVAL: Duration = Duration::from_millis(300);

/// All routes.
pub(super) fn router(console: Arc<Console>) -> Router {
    Router::new()
        .route("/", get(now))
        .route("/now", get(now_fragment))
        .route("/dead-letters", get(groups))
        .route("/dead-letters/list", get(list))
        .route("/dead-letter", get(dead_letter))
        .route("/act", get(actions::ask))
        .route("/export", get(export::export))
        .route("/history", get(show_history))
        .route("/jobs/{id}", get(job))
        .route("/jobs/{id}/events", get(job_events))
        .route("/jobs/{id}/stop", post(actions::stop))
        .route("/read", post(actions::read))
        .route("/find", post(actions::find))
        .route("/validate", post(actions::validate))
        .route("/forecast", post(actions::forecast))
        .route("/replay", post(actions::replay))
        .route("/park", post(actions::park))
        .route("/unpark", post(actions::unpark))
        .route("/purge", post(actions::purge))
        .route("/login", get(actions::show_login).post(actions::log_in))
        .route("/logout", post(actions::log_out))
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/static/console.css", get(async || asset("text/css; charset=utf-8", pages::STYLE)))
        .route("/static/console.js", get(async || asset("text/javascript; charset=utf-8", pages::SCRIPT)))
        .fallback(async || Problem::not_found("There is no such page."))
        .layer(from_fn_with_state(Arc::clone(&console), guard::admit))
        .layer(from_fn(guard::secure))
        .with_state(console)
}

fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], text)
}

/// Whether the console can do its work, for whoever reaches the port: so without names.
async fn ready(State(console): Shared) -> (StatusCode, &'static str) {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    match console.depths().await {
        Ok([Some(_), _]) => (StatusCode::OK, "ready\n"),
        Ok([None, _]) => {
            (unavailable, "the dead-letter queue is missing, or the login of the console may not look it up\n")
        }
        Err(_) => (unavailable, "RabbitMQ cannot be reached, or rejects the login of the console\n"),
    }
}

async fn now(State(console): Shared, Extension(operator): By) -> Markup {
    let view = now_view(&console).await;
    pages::now_page(&console, &operator, &view)
}

async fn now_fragment(State(console): Shared) -> Markup {
    let view = now_view(&console).await;
    pages::now_status(&console, &view)
}

async fn now_view(console: &Console) -> NowView {
    let mut workers = Vec::new();
    let urls = http_client::at_all_addresses(&console.options.workers).await;
    console.samples.lock().await.retain(|url, _| urls.contains(url));
    for url in &urls {
        let now = Sample::read(url).await.ok();
        let mut samples = console.samples.lock().await;
        let shown = now.map(|now| {
            // Two people may view it at once: rates need a second between the samples.
            let before = samples.remove(url);
            let before = before.and_then(|known| if known.now.is_recent() { known.before } else { Some(known.now) });
            let known = Samples { before, now };
            samples.insert(url.clone(), known.clone());
            known
        });
        workers.push((url.clone(), shown));
    }
    NowView { workers, depths: console.depths().await.map_err(|error| error.to_string()) }
}

/// The snapshot of a queue; or the page to show while there is none. Reading holds the queue, so a link on another site does not
/// start it.
async fn snapshot(
    console: &Arc<Console>,
    operator: &Operator,
    queue: QueueKind,
    headers: &HeaderMap,
) -> Result<Arc<Snapshot>, Response> {
    let only = operator.publisher.as_deref();
    if let Some(snapshot) = console.queue(queue).snapshot(only) {
        return Ok(snapshot);
    }
    let depths = console.depths().await;
    let depths = depths.map_err(|error| Problem::new(StatusCode::BAD_GATEWAY, error.to_string()).into_response())?;
    let depth = match queue {
        QueueKind::DeadLetters => depths[0],
        QueueKind::Parked => depths[1],
    };
    let is_long = depth.is_some_and(|depth| depth as usize > MAX_UNASKED_LOOK);
    let is_idle = console.queue(queue).holder().is_none();
    if (is_long && is_idle) || console.options.site().is_caused_by_another(headers) {
        return Err(pages::first_read_page(console, operator, queue, depth.unwrap_or(0)).into_response());
    }
    let job = operations::read(console, queue, &operator.name).map_err(|problem| problem.into_response())?;
    if job.wait(PATIENCE).await
        && let Some(snapshot) = console.queue(queue).snapshot(only)
    {
        return Ok(snapshot);
    }
    Err(pages::job_page(console, operator, &job).into_response())
}

async fn groups(console: Shared, operator: By, headers: HeaderMap, query: RawQuery) -> Result<Response, Problem> {
    of_snapshot(console, operator, headers, query, pages::groups_page).await
}

async fn list(console: Shared, operator: By, headers: HeaderMap, query: RawQuery) -> Result<Response, Problem> {
    of_snapshot(console, operator, headers, query, pages::list_page).await
}

async fn of_snapshot(
    State(console): Shared,
    Extension(operator): By,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    page: fn(&Console, &Operator, &DeadLetterQuery, &Snapshot) -> Markup,
) -> Result<Response, Problem> {
    let query = read_query(&operator, query.as_deref())?;
    Ok(match snapshot(&console, &operator, query.queue, &headers).await {
        Ok(snapshot) => page(&console, &operator, &query, &snapshot).into_response(),
        Err(page) => page,
    })
}

async fn dead_letter(
    State(console): Shared,
    Extension(operator): By,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = read_query(&operator, query.as_deref())?;
    let [id] = query.filter.ids.as_slice() else { return Err(Problem::bad_request("id: expected one id")) };
    let find = || console.queue(query.queue).details.get(id, query.only.as_deref());
    if find().is_none() {
        if console.options.site().is_caused_by_another(&headers) {
            return Ok(pages::first_fetch_page(&console, &operator, &query).into_response());
        }
        let job = operations::start(&console, Task::Fetch(id.clone()), query.clone(), &operator.name)?;
        let has_ended = job.wait(PATIENCE).await;
        let is_hidden = has_ended && query.only.is_some();
        if !is_hidden && (!has_ended || find().is_none()) {
            return Ok(pages::job_page(&console, &operator, &job).into_response());
        }
    }
    let Some(detail) = find() else { return Err(Problem::not_found("It is not in the queue any more.")) };
    let body = desk::readable_body(&detail.dead_letter.delivery, &console.settings.rules());
    Ok(pages::dead_letter_page(&console, &operator, query.queue, &detail, &body).into_response())
}

async fn show_history(State(console): Shared, Extension(operator): By) -> Result<Markup, Problem> {
    let entries = console.history_file().map(|file| history::read(&file)).transpose();
    let entries = entries.map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("The history cannot be read: {error}"))
    })?;
    Ok(pages::history_page(&console, &operator, entries.as_deref()))
}

async fn job(State(console): Shared, Extension(operator): By, Path(id): Path<String>) -> Result<Markup, Problem> {
    let job = find_job(&console, &operator, &id)?;
    Ok(pages::job_page(&console, &operator, &job))
}

/// The state of a job as server-sent events, each a fragment of HTML, until it is over. While nothing changes, a comment is sent
/// now and then, and nginx is told not to collect them: a proxy would cut off a connection that stands still.
async fn job_events(
    State(console): Shared,
    Extension(operator): By,
    Path(id): Path<String>,
) -> Result<([(&'static str, &'static str); 1], Sse<impl Stream<Item = Result<Event, Infallible>>>), Problem> {
    let job = find_job(&console, &operator, &id)?;
    let at = (console, operator);
    let events = stream::unfold((job, at, None::<String>, false), async |(job, at, last, ended)| {
        if ended {
            return None;
        }
        loop {
            let is_over = job.is_over();
            let fragment = pages::job_status(&at.0, &at.1, &job).into_string();
            if is_over || last.as_ref() != Some(&fragment) {
                let event = Event::default().event(if is_over { "over" } else { "update" }).data(&fragment);
                if last.is_some() {
                    tokio::time::sleep(UPDATE_INTERVAL).await;
                }
                return Some((Ok(event), (job, at, Some(fragment), is_over)));
            }
            tokio::time::sleep(UPDATE_INTERVAL).await;
        }
    });
    Ok(([("x-accel-buffering", "no")], Sse::new(events).keep_alive(KeepAlive::default())))
}
