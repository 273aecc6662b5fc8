//! The requests that start or change something: forms, their roles, and what is asked before.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::{HeaderMap, SET_COOKIE};
use axum::response::{IntoResponse, Redirect, Response};
use maud::Markup;

use crate::{Edit, Park, Purge, Replay, StopAfter};
use ticketlog_rabbitmq::Rate;

use super::access::{LoginError, Operator, Role};
use super::jobs::{Outcome, Task};
use super::operations;
use super::operator;
use super::pages::{self, ActForm, Problem};
use super::query::{DeadLetterQuery, Fields, QueueKind};
use super::request::{By, Shared, find_job, query_of, read_query, require, to_job};
use super::sought::Sought;
use super::state::Console;

/// Largest body that is validated while it is typed, in bytes.
const MAX_VALIDATED: usize = 1 << 20;

type Form = Extension<Arc<Fields>>;

/// Fields of forms that do not select dead letters.
const OTHER_FIELDS: [&str; 8] = ["csrf", "limit", "confirm", "expression", "body", "forecast", "rate", "skip_rejected"];

/// A form with a selection. One that is blank or mistyped would select everything, so it is refused.
fn form_query(operator: &Operator, fields: &Fields) -> Result<DeadLetterQuery, Problem> {
    fields.check_selection(&OTHER_FIELDS).map_err(Problem::bad_request)?;
    query_of(operator, fields)
}

fn act_form(action: Option<&str>) -> Result<(ActForm, Role), Problem> {
    match action {
        Some("replay") => Ok((ActForm::Replay, Role::Replay)),
        Some("edit") => Ok((ActForm::Edit, Role::Edit)),
        Some("park") => Ok((ActForm::Park, Role::Replay)),
        Some("unpark") => Ok((ActForm::Unpark, Role::Replay)),
        Some("purge") => Ok((ActForm::Purge, Role::Purge)),
        _ => Err(Problem::bad_request("action: expected replay, edit, park, unpark or purge")),
    }
}

/// The page that asks before something is done.
pub(super) async fn ask(
    State(console): Shared,
    Extension(operator): By,
    RawQuery(query): RawQuery,
) -> Result<Markup, Problem> {
    let fields = Fields::parse(query.as_deref().unwrap_or_default().as_bytes());
    let (form, role) = act_form(fields.get("action"))?;
    require(&operator, role)?;
    Ok(ask_page(&console, &operator, &read_query(&operator, query.as_deref())?, form, None))
}

fn ask_page(
    console: &Console,
    operator: &Operator,
    query: &DeadLetterQuery,
    form: ActForm,
    problem: Option<&str>,
) -> Markup {
    let snapshot = console.queue(query.queue).snapshot(operator.publisher.as_deref());
    let count = snapshot.map(|snapshot| snapshot.selected(&query.filter).count() as u64);
    pages::act_page(console, operator, query, form, count, problem)
}

/// Reads the queue again; or up to one dead letter, if the form names it.
pub(super) async fn read(
    State(console): Shared,
    Extension(operator): By,
    Extension(fields): Form,
) -> Result<Redirect, Problem> {
    let query = form_query(&operator, &fields)?;
    let job = match query.filter.ids.as_slice() {
        [id] => operations::start(&console, Task::Fetch(id.clone()), query.clone(), &operator.name)?,
        _ => operations::read(&console, query.queue, &operator.name)?,
    };
    Ok(to_job(&job))
}

/// What the worker's decoder says of the body in the editor.
pub(super) async fn validate(
    State(console): Shared,
    Extension(operator): By,
    Extension(fields): Form,
) -> Result<Markup, Problem> {
    require(&operator, Role::Edit)?;
    let query = form_query(&operator, &fields)?;
    let body = body(&fields).unwrap_or_default();
    if body.len() > MAX_VALIDATED {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large for the editor."));
    }
    let detail =
        query.filter.ids.first().and_then(|id| console.queue(query.queue).details.get(id, query.only.as_deref()));
    Ok(pages::validation(&console, body.as_bytes(), detail.as_deref()))
}

/// The body of the editor. Forms send line ends as CR LF.
fn body(fields: &Fields) -> Option<String> {
    fields.get("body").map(|body| body.replace("\r\n", "\n"))
}

/// Starts a forecast: of a replay, with an expression, or with a new body for one dead letter.
pub(super) async fn forecast(
    State(console): Shared,
    Extension(operator): By,
    Extension(fields): Form,
) -> Result<Response, Problem> {
    let query = form_query(&operator, &fields)?;
    for name in ["expression", "body"] {
        if fields.has(name) && fields.get(name).is_none() {
            return Err(Problem::bad_request(format!("{name}: it is empty")));
        }
    }
    let edit = match (body(&fields), fields.get("expression")) {
        (Some(body), _) if query.filter.ids.len() == 1 => Some(Edit::Body(body.into_bytes())),
        (_, Some(expression)) => Some(Edit::Expression(expression.to_owned())),
        _ => None,
    };
    require(&operator, if edit.is_some() { Role::Edit } else { Role::Replay })?;
    let replay = Replay { edit, ..Replay::new(console.selection(&query), console.options.start_span) };
    replay.check_queue(&console.settings).map_err(|error| Problem::bad_request(error.to_string()))?;
    if let Err(error) = replay.check(&console.settings).await {
        let page = ask_page(&console, &operator, &query, ActForm::Edit, Some(&error.to_string()));
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let job = operations::start(&console, Task::Forecast(replay), query, &operator.name)?;
    Ok(to_job(&job).into_response())
}

/// Starts the replay that a forecast has predicted: of the same dead letters, and no more than it has counted.
pub(super) async fn replay(
    State(console): Shared,
    Extension(operator): By,
    Extension(fields): Form,
) -> Result<Redirect, Problem> {
    require(&operator, Role::Replay)?;
    let forecast = find_job(&console, &operator, fields.get("forecast").unwrap_or_default())?;
    let (Task::Forecast(predicted), Some(Outcome::Forecast(outcome, _))) = (&forecast.task, forecast.outcome()) else {
        return Err(Problem::bad_request("forecast: expected a forecast that has ended"));
    };
    if predicted.edit.is_some() {
        require(&operator, Role::Edit)?;
    }
    let rate = fields.get("rate").map(str::parse::<Rate>).transpose();
    let rate = rate.map_err(|error| Problem::bad_request(format!("rate: {error}")))?;
    let stop_after = fields.get("stop_after").map(|count| match count.trim().parse() {
        Ok(count) if count > 0 => {
            Ok(StopAfter { count, workers: console.options.workers.clone(), patience: operations::FOLLOW_PATIENCE })
        }
        _ => Err(Problem::bad_request(format!("stop_after: expected a number above 0, not {count:?}"))),
    });
    let stop_after = stop_after.transpose()?;
    // The id is a new one: a forecast may be replayed twice.
    let Replay { id, .. } = Replay::new(predicted.selection.clone(), predicted.start_span);
    let skip_rejected = fields.get("skip_rejected").is_some();
    let mut replay = Replay { id, skip_rejected, rate, stop_after, ..predicted.clone() };
    replay.backup = replay.edit.as_ref().and_then(|_| console.kept(replay.backup_name()));
    replay.limit_to(&outcome);
    Ok(to_job(&operations::start(&console, Task::Replay(replay), forecast.query.clone(), &operator.name)?))
}

pub(super) async fn park(state: Shared, by: By, form: Form) -> Result<Redirect, Problem> {
    move_dead_letters(state, by, form, false)
}

pub(super) async fn unpark(state: Shared, by: By, form: Form) -> Result<Redirect, Problem> {
    move_dead_letters(state, by, form, true)
}

fn move_dead_letters(
    State(console): Shared,
    Extension(operator): By,
    Extension(fields): Form,
    back: bool,
) -> Result<Redirect, Problem> {
    require(&operator, Role::Replay)?;
    let query = form_query(&operator, &fields)?;
    let park = Park::new(&console.settings, console.selection(&query), back);
    let park = park.map_err(|error| Problem::bad_request(error.to_string()))?;
    Ok(to_job(&operations::start(&console, Task::Park(park), query, &operator.name)?))
}

pub(super) async fn purge(
    State(console): Shared,
    Extension(operator): By,
    Extension(fields): Form,
) -> Result<Response, Problem> {
    require(&operator, Role::Purge)?;
    let query = form_query(&operator, &fields)?;
    let queue = console.queue_name(query.queue);
    if fields.get("confirm").map(str::trim) != Some(queue) {
        let problem = format!("That is not the name of the queue, {queue}. Nothing was deleted.");
        let page = ask_page(&console, &operator, &query, ActForm::Purge, Some(&problem));
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let backup = console.kept(Purge::backup_name(queue));
    let purge = Purge { selection: console.selection(&query), backup };
    Ok(to_job(&operations::start(&console, Task::Purge(purge), query, &operator.name)?).into_response())
}

/// Stops a job gracefully. Anyone may stop a read; stopping a replay or a purge needs its role.
pub(super) async fn stop(
    State(console): Shared,
    Extension(operator): By,
    Path(id): Path<String>,
) -> Result<Redirect, Problem> {
    let job = find_job(&console, &operator, &id)?;
    match &job.task {
        Task::Replay(_) | Task::Park(_) => require(&operator, Role::Replay)?,
        Task::Purge(_) => require(&operator, Role::Purge)?,
        Task::Read | Task::Fetch(_) | Task::Forecast(_) | Task::Find(_) => {}
    }
    job.stop();
    Ok(to_job(&job))
}

pub(super) async fn show_login() -> Markup {
    pages::login_page(None)
}

pub(super) async fn log_in(State(console): Shared, Extension(fields): Form) -> Response {
    let Some(logins) = &console.logins else { return Redirect::to("/").into_response() };
    match logins.log_in(fields.get("token").unwrap_or_default().trim(), Instant::now()) {
        Ok(session) => {
            let secure = if console.options.behind_proxy { "; Secure" } else { "" };
            let name = operator::cookie_name(&console);
            let cookie = format!("{name}={session}; Path=/; HttpOnly; SameSite=Strict{secure}");
            ([(SET_COOKIE, cookie)], Redirect::to("/")).into_response()
        }
        Err(LoginError::WrongToken) => {
            (StatusCode::UNAUTHORIZED, pages::login_page(Some("No one has this token."))).into_response()
        }
        Err(LoginError::TooManyFailures) => {
            let page = pages::login_page(Some("Too many failed logins; wait a minute."));
            (StatusCode::TOO_MANY_REQUESTS, page).into_response()
        }
    }
}

pub(super) async fn log_out(State(console): Shared, headers: HeaderMap) -> Response {
    let name = operator::cookie_name(&console);
    if let (Some(logins), Some(session)) = (&console.logins, operator::session(&console, &headers)) {
        logins.log_out(session);
    }
    ([(SET_COOKIE, format!("{name}=; Path=/; Max-Age=0"))], Redirect::to("/login")).into_response()
}

/// Starts the search.
pub(super) async fn find(
    State(console): Shared,
    Extension(operator): By,
    Extension(fields): Form,
) -> Result<Redirect, Problem> {
    let sought = Sought::read(&fields).map_err(Problem::bad_request)?;
    let query = all_that_is_visible(&operator)?;
    Ok(to_job(&operations::start(&console, Task::Find(sought), query, &operator.name)?))
}

fn all_that_is_visible(operator: &Operator) -> Result<DeadLetterQuery, Problem> {
    let query = DeadLetterQuery::of_queue(QueueKind::DeadLetters);
    query.limited_to(operator.publisher.as_deref()).map_err(Problem::bad_request)
}
