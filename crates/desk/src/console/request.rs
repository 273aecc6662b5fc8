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

pub(super) fn read_query(query: Option<&str>) -> Result<DeadLetterQuery, Problem> {
    let fields = Fields::parse(query.unwrap_or_default().as_bytes());
    DeadLetterQuery::read(&fields, now_millis()).map_err(Problem::bad_request)
}

pub(super) fn find_job(console: &Console, id: &str) -> Result<Arc<Job>, Problem> {
    let text = "This job is not known: the console has forgotten it, or was restarted. The history tells what it did.";
    console.jobs.find(id).ok_or_else(|| Problem::not_found(text))
}

/// See Other: the browser loads the page of a job that a form has started.
pub(super) fn to_job(job: &Arc<Job>) -> Redirect {
    Redirect::to(&format!("/jobs/{}", job.id))
}
