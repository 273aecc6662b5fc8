//! Where the console looks for an event.

use std::sync::Arc;

use crate::{DeskError, Find, Run, Story};

use super::jobs::Job;
use super::query::QueueKind;
use super::sought::Sought;
use super::state::Console;

/// Looks for an event in both queues, of which the job has the first, in MongoDB and in the history. Documents do not say who published
/// them: whoever sees one publisher only gets the dead letters.
pub(super) async fn find(console: &Console, job: &Job, sought: &Sought, run: Run<'_>) -> Result<Arc<Story>, DeskError> {
    let parked = console.queue(QueueKind::Parked);
    let Some(_turn) = parked.wait_for_turn(job).await else { return Err(DeskError::Stopped) };
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
