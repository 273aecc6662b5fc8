//! The search field of every page: what it asks for, and where the console looks for it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Redirect;

use crate::{DeskError, Find, Run, Search, Story};
use ticketlog_contract::Wanted;

use super::access::Operator;
use super::jobs::{Job, Task};
use super::operations::{self, wait_for_turn};
use super::pages::Problem;
use super::query::{DeadLetterQuery, Fields, QueueKind};
use super::request::{By, Shared, to_job};
use super::state::Console;

/// Most documents and dead letters of a page.
const LIMIT: usize = 20;

/// By what an event is found: the value of the field, and what people read.
pub(super) const BY: [(&str, &str); 4] =
    [("uuid", "uuid"), ("message_id", "message_id"), ("id", "_id or dl-id"), ("user", "user_id")];

/// What somebody looks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sought {
    /// One of [`BY`].
    pub by: &'static str,
    pub text: String,
    pub with_bodies: bool,
}

impl Sought {
    /// # Errors
    /// What was expected.
    fn read(fields: &Fields) -> Result<Sought, String> {
        let by = fields.get("find_by").unwrap_or_default();
        let Some((by, _)) = BY.into_iter().find(|(name, _)| *name == by) else {
            return Err("find_by: expected uuid, message_id, id or user".to_owned());
        };
        let text = fields.get("find").ok_or("find: it is empty")?.trim().to_owned();
        let sought = Sought { by, text, with_bodies: fields.get("bodies").is_some() };
        sought.search(None).map(|_| sought)
    }

    /// # Errors
    /// An id has another form.
    fn search(&self, publisher: Option<&str>) -> Result<Search, String> {
        let search = Search { publisher: publisher.map(str::to_owned), limit: LIMIT, ..Search::default() };
        let text = &self.text;
        Ok(match self.by {
            "message_id" => Search { message_id: Some(text.clone()), ..search },
            "user" => Search { user: Some(Wanted::id(text)), ..search },
            "id" => {
                let id = text.parse().map_err(|_| "find: expected 24 hexadecimal digits".to_owned())?;
                Search { id: Some(id), ..search }
            }
            _ => Search { uuid: Search::uuids(text), ..search },
        })
    }

    /// In words, such as `uuid 6fe2…`.
    pub fn describe(&self) -> String {
        let by = BY.into_iter().find(|(name, _)| *name == self.by).map_or(self.by, |(_, shown)| shown);
        format!("{by} {}", self.text)
    }
}

/// Starts the search.
pub(super) async fn find(
    State(console): Shared,
    Extension(operator): By,
    Extension(fields): Extension<Arc<Fields>>,
) -> Result<Redirect, Problem> {
    let sought = Sought::read(&fields).map_err(Problem::bad_request)?;
    let query = all_that_is_visible(&operator)?;
    Ok(to_job(&operations::start(&console, Task::Find(sought), query, &operator.name)?))
}

fn all_that_is_visible(operator: &Operator) -> Result<DeadLetterQuery, Problem> {
    let query = DeadLetterQuery::of_queue(QueueKind::DeadLetters);
    query.limited_to(operator.publisher.as_deref()).map_err(Problem::bad_request)
}

/// Looks for an event in both queues, of which the job has the first, in MongoDB and in the history. Documents do not say who published
/// them: whoever sees one publisher only gets the dead letters.
pub(super) async fn perform(
    console: &Console,
    job: &Job,
    sought: &Sought,
    run: Run<'_>,
) -> Result<Arc<Story>, DeskError> {
    let parked = console.queue(QueueKind::Parked);
    let Some(_turn) = wait_for_turn(parked, job).await else { return Err(DeskError::Stopped) };
    parked.set_holder(Some(format!("{} is {}", job.who, job.task.doing())));
    let only = job.query.only.as_deref();
    let history = console.history_file().filter(|path| only.is_none() && path.exists());
    let documents = match (only, console.options.find_documents) {
        (Some(_), _) => Err("documents do not say who published them".to_owned()),
        (None, None) => Err("this console does not ask MongoDB".to_owned()),
        (None, Some(find)) => Ok(find),
    };
    let search = sought.search(only).map_err(DeskError::Usage);
    let story = match &search {
        Err(error) => Err(DeskError::Usage(error.to_string())),
        Ok(search) => {
            let find = Find {
                search,
                documents,
                scan: false,
                browse: Some(console.options.browse.clone()),
                audit_files: history.as_slice(),
                with_bodies: sought.with_bodies,
            };
            find.run(std::slice::from_ref(run.settings), run.report).await
        }
    };
    parked.set_holder(None);
    story.map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_has_a_kind_and_a_text() {
        let read = |form: &str| Sought::read(&Fields::parse(form.as_bytes()));
        let sought = read("find_by=user&find=+42+&bodies=1").unwrap();
        assert_eq!((sought.describe().as_str(), sought.with_bodies), ("user_id 42", true));
        assert_eq!(sought.search(Some("shop")).unwrap().publisher.as_deref(), Some("shop"));
        for wrong in ["find_by=user&find=+", "find=42", "find_by=x&find=42", "find_by=id&find=42"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
