//! What the handlers of requests share: what they are given, who may, which dead letters, which job.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Redirect;

use ticketlog_config::system::now_millis;

use super::access::{Operator, Role};
use super::jobs::Job;
use super::pages::Problem;
use super::query::{DeadLetterQuery, Fields};
use super::state::Console;

pub(super) type Shared = State<Arc<Console>>;
pub(super) type By = Extension<Arc<Operator>>;

pub(super) fn require(operator: &Operator, role: Role) -> Result<(), Problem> {
    if operator.roles.contains(&role) {
        return Ok(());
    }
    let role = role.as_str();
    let text = format!(
        "{} may not {role} here. The console must allow it (--allow {role}), and the token must have the role.",
        operator.name
    );
    Err(Problem::new(StatusCode::FORBIDDEN, text))
}

pub(super) fn read_query(operator: &Operator, query: Option<&str>) -> Result<DeadLetterQuery, Problem> {
    query_of(operator, &Fields::parse(query.unwrap_or_default().as_bytes()))
}

/// What the fields select, within what the operator may see.
pub(super) fn query_of(operator: &Operator, fields: &Fields) -> Result<DeadLetterQuery, Problem> {
    let query = DeadLetterQuery::read(fields, now_millis()).map_err(Problem::bad_request)?;
    let limited = query.limited_to(operator.publisher.as_deref());
    limited.map_err(|error| Problem::new(StatusCode::FORBIDDEN, error))
}

/// A job that the operator may see.
pub(super) fn find_job(console: &Console, operator: &Operator, id: &str) -> Result<Arc<Job>, Problem> {
    let text = "This job is not known: the console has forgotten it, or was restarted. The history tells what it did.";
    console.jobs.find(id).filter(|job| job.is_visible_to(operator)).ok_or_else(|| Problem::not_found(text))
}

/// See Other: the browser loads the page of a job that a form has started.
pub(super) fn to_job(job: &Arc<Job>) -> Redirect {
    Redirect::to(&format!("/jobs/{}", job.id))
}
